"""COCO-GAN against what the published code computed: forward passes, every loss, gradients, and the running state after an update."""

import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan import coords, losses
from jaxgan.systems import coco_gan, coco_gan_sample
from jaxgan.systems.coco_gan_import import import_variables, place

FILES = [
    "CelebA_64x64_N2M2S32",
    "CelebA_128x128_N4M4S64",
    "CelebA_128x128_N2M2S64_PatchGuided",
    "MP3D_256x768_N2M2S128",
    "LSUN_256x256_N2M2S128_Extrapolation",
]
FAST = ("CelebA_64x64_N2M2S32", "CelebA_128x128_N2M2S64_PatchGuided")
CASES = [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in FILES]
TRAIN, INFER = {"atol": 5e-5, "rtol": 1e-5}, {"atol": 1e-5, "rtol": 1e-5}


class Case(NamedTuple):
    arrays: dict
    config: coco_gan.Config
    networks: coco_gan.Networks
    trained: coco_gan_sample.Trained  # with the content head, whatever the config
    beyond: bool
    drawn: dict
    fake: jax.Array
    after_generator: dict

    def tolerance(self) -> dict:
        """Of training forward passes. The extrapolation file's own float32 is 1.0e-4 from the formulas in float64."""
        return {**TRAIN, "atol": 1.5e-4} if self.beyond else TRAIN

    def content_networks(self):
        return dataclasses.replace(self.networks, config=dataclasses.replace(self.config, content_weight=1.0))


def load(path: Path, dtype=jnp.float32) -> Case:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    meta = json.loads(str(arrays["meta/json"]))
    data, model, weights = meta["data_params"], meta["model_params"], meta["loss_params"]
    sizes = {name: tuple(data[f"{key}_size"]) for name, key in [("full", "full_image"), ("macro", "macro_patch"), ("micro", "micro_patch")]}
    beyond = bool(meta["train_params"]["train_extrap"])
    shape = {
        **sizes, "latent": model["z_dim"], "g_width": model["ngf_base"], "d_width": model["ndf_base"], "aux_width": model["aux_dim"],
        "coordinates": data["coordinate_system"], "gp_weight": weights["gp_lambda"], "spatial_weight": weights["coord_loss_w"],
        "extrapolate": int(beyond),
    }  # fmt: skip
    variables = {name.removeprefix("var/"): value for name, value in arrays.items() if name.startswith("var/")}
    with jax.enable_x64(False):
        trained = import_variables(coco_gan.Config(**shape, content_weight=1.0), variables)
    config = coco_gan.Config(**shape, content_weight=weights["code_loss_w"])
    networks, geometry = coco_gan.Networks(config, dtype=dtype), config.geometry()
    trained = jax.tree.map(lambda leaf: leaf.astype(dtype), trained)
    corner = {
        kind: jnp.round(coords.corners_of(geometry, arrays[f"in/macro_coord_{kind}"].astype(dtype), geometry.macro))
        for kind in ("real", "fake")
    }
    real = coords.crop(jnp.asarray(arrays["in/real_images_u8"]), corner["real"].astype(jnp.int32), config.macro, geometry.cylindrical)
    suffix = "_beyond" if beyond else ""
    drawn = {
        "real": jnp.stack([real.astype(dtype) / 127.5 - 1.0] * 4, 1),
        "latents": jnp.asarray(arrays["in/z"], dtype),
        "coordinate": coords.coordinates(geometry, corner["real"], config.macro),
        "corner" + suffix: corner["fake"],
        "coordinate" + suffix: coords.coordinates(geometry, corner["fake"], config.macro),
        "alpha" + suffix: jnp.asarray(arrays["in/gp_alpha"], dtype),
    }
    fake, after = jax.jit(networks.generate)(trained.params["G"], trained.model["G"], drawn["latents"], corner["fake"])
    return Case(arrays, config, networks, trained, beyond, drawn, fake, after)


def locate(request, golden: Path) -> Path:
    path = golden / f"cocogan_{request.param}.npz"
    return path if path.exists() else request.getfixturevalue("shared") / "golden" / path.name


@pytest.fixture(scope="module", params=CASES)
def case(request, golden):
    return load(locate(request, golden))


@pytest.fixture(params=CASES)
def exact(request, golden):
    """As ``case``, the networks in float64 where float32 would measure rounding: conditional batch norm divides by the variance, which
    amplifies it to 1e-4 of a pixel in these three. The reference is float32 arithmetic too, and this is its distance from the formulas."""
    double = request.param in ("CelebA_128x128_N4M4S64", "MP3D_256x768_N2M2S128", "LSUN_256x256_N2M2S128_Extrapolation")
    with jax.enable_x64(double):
        yield load(locate(request, golden), jnp.float64 if double else jnp.float32)


def test_coordinates(case):
    geometry, corner = case.config.geometry(), case.drawn["corner_beyond" if case.beyond else "corner"]
    at = coords.coordinates(geometry, coords.corners_inside(geometry, corner), geometry.micro)
    np.testing.assert_allclose(at.reshape(-1, at.shape[-1]), case.arrays["in/micro_coord_fake"], atol=1e-6)


def test_training_forward(exact):
    """Macro patches, logits with coordinates, and both heads with batch statistics."""
    arrays, params, model = exact.arrays, exact.trained.params, exact.trained.model
    np.testing.assert_allclose(exact.drawn["real"][:, 0], arrays["train/real_macro"], atol=1e-6)
    np.testing.assert_allclose(exact.fake, arrays["train/gen_macro"], **exact.tolerance())
    micro = coords.split(exact.fake, exact.config.geometry().per_macro).reshape(-1, *exact.config.micro, 3)
    expected = arrays.get("train/gen_micro", arrays.get("train/gen_micro_first_sample"))
    np.testing.assert_allclose(micro[: len(expected)], expected, **exact.tolerance())

    networks = exact.content_networks()

    @jax.jit
    def judge(images, at):
        normalised, _ = networks.normalise("D", params["D"], model["D"])
        (features, logits), _ = networks.run("D", normalised, {}, images, at)
        return logits, [coco_gan.head_error(networks, name, params[name], model[name], features, 0.0)[2] for name in ("A", "Q")]

    fake_at = exact.drawn["coordinate_beyond" if exact.beyond else "coordinate"]
    for kind, images, at in (("real", exact.drawn["real"][:, 0], exact.drawn["coordinate"]), ("fake", exact.fake, fake_at)):
        logits, (coordinate, latents) = judge(images, at)
        np.testing.assert_allclose(logits, arrays[f"train/d_{kind}_logit"], **TRAIN)
        np.testing.assert_allclose(coordinate, arrays[f"train/coord_pred_{kind}"], **TRAIN)
        np.testing.assert_allclose(latents, arrays[f"train/z_pred_{kind}"], **TRAIN)


def test_training_forward_in_float32(case):
    """What a user computes, with the rounding that the normalisation by the variance amplifies."""
    np.testing.assert_allclose(case.fake, case.arrays["train/gen_macro"], atol=1.5e-4)


def test_inference_forward(case):
    """Running statistics: single micro patches, logits with and without coordinates, features and heads."""
    arrays, params, model = case.arrays, case.trained.params, case.trained.model
    networks = case.content_networks()

    @jax.jit
    def infer(latents, micro_at, images, at):
        patches = coco_gan_sample.patches(case.config, case.trained, latents, micro_at)
        normalised, _ = networks.normalise("D", params["D"], model["D"])
        (features, logits), _ = networks.run("D", normalised, {}, images, at)
        (_, blind), _ = networks.run("D", normalised, {}, images, None)
        heads = [networks.run(n, networks.normalise(n, params[n], model[n])[0], model[n], features, train=False)[0] for n in ("A", "Q")]
        return patches, logits, blind, features, *heads

    names = ("gen_micro", "d_real_logit", "d_real_logit_no_coord", "d_real_feature", "coord_pred_real", "z_pred_real")
    given = jnp.asarray(arrays["infer/gen_micro_coord"]), jnp.asarray(arrays["train/real_macro"])
    for name, ours in zip(names, infer(case.drawn["latents"], given[0], given[1], case.drawn["coordinate"]), strict=True):
        np.testing.assert_allclose(ours, arrays[f"infer/{name}"], **INFER, err_msg=name)


def test_full_image(case):
    expected = case.arrays["infer/full_image"]
    beyond = (1, 1) if case.beyond else (0, 0)
    images = coco_gan_sample.full_images(case.config, case.trained, case.drawn["latents"][: len(expected)], beyond)
    np.testing.assert_allclose(images, expected, **INFER)


def check_gradients(case, group, gradients):
    """Every variable's gradient norm, and the small gradients whole, at the tolerances of the reference's description."""
    total = float(case.arrays[f"gradnorm_total_{group}"])
    checked = 0
    for key in case.arrays:
        if not key.startswith(f"gradnorm_{group}/"):
            continue
        name = key.removeprefix(f"gradnorm_{group}/")
        _, network, path = place(name)
        leaf = gradients[network]
        for part in path:
            leaf = leaf[part]
        expected = float(case.arrays[key])
        norm = float(jnp.linalg.norm(leaf.ravel()))
        # biases right before a normalisation have no gradient but rounding
        slack = 1e-3 * total if path[-1] == "bias" and expected < 1e-3 * total else 0.0
        assert norm == pytest.approx(expected, rel=1e-2 if expected < 1e-4 * total else 1e-3, abs=slack), name
        if f"grad_{group}/{name}" in case.arrays:
            whole = case.arrays[f"grad_{group}/{name}"]
            np.testing.assert_allclose(leaf, whole, atol=max(slack, 2e-3 * np.abs(whole).max(), 1e-5 * total), err_msg=name)
        checked += 1
    assert checked > 5
    assert float(jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradients)))) == pytest.approx(total, rel=1e-3)


def test_discriminator_objective(exact):
    arrays, params = exact.arrays, exact.trained.params
    own = {name: params[name] for name in ("D", "A")}
    objective = jax.value_and_grad(
        lambda own: coco_gan.discriminator_loss(exact.networks, exact.beyond, own, params, exact.trained.model, exact.drawn, exact.fake),
        has_aux=True,
    )
    (loss, (model, info)), gradients = jax.jit(objective)(own)
    suffix = "_beyond" if exact.beyond else ""
    expected = {
        "wasserstein": "w_dist", "penalty": "gp_weighted", "spatial/real": "raw_coord_mse_real", "spatial/fake": "raw_coord_mse_fake"
    }  # fmt: skip
    # the Wasserstein estimate is a difference of two means: its scale is theirs
    scale = max(abs(float(arrays["loss/adv_real"])), abs(float(arrays["loss/adv_fake"])))
    for name, key in expected.items():
        slack = 1e-5 * scale if name == "wasserstein" else 0.0
        assert float(info[name + suffix]) == pytest.approx(float(arrays[f"loss/{key}"]), rel=2e-5, abs=slack), name
    assert float(loss) == pytest.approx(float(arrays["loss/d_loss"]), rel=1e-5)
    if exact.config.content_weight:
        assert float(info["content" + suffix]) == pytest.approx(float(arrays["loss/raw_z_l1"]), rel=1e-5)
    check_gradients(exact, "d", gradients)
    for key, value in arrays.items():
        if key.startswith("after_D_first_updates/"):
            _, network, path = place(key.removeprefix("after_D_first_updates/"))
            leaf = model[network]["spectral"]
            for part in path:
                leaf = leaf[part]
            np.testing.assert_allclose(leaf, value, rtol=1e-5, atol=1e-6, err_msg=key)


def test_gradient_slopes(exact):
    @jax.jit
    def slopes_of(mixed):
        normalised, _ = exact.networks.normalise("D", exact.trained.params["D"], exact.trained.model["D"])
        return losses.gradient_slopes(lambda x: exact.networks.run("D", normalised, {}, x, None)[0][1], mixed)

    alpha = exact.drawn["alpha_beyond" if exact.beyond else "alpha"]
    slopes = slopes_of(losses.interpolate(exact.drawn["real"][:, 0], exact.fake, alpha))
    # slopes reach 1; single ones of 1e-3 differ where a ReLU of the reference switches
    np.testing.assert_allclose(slopes, exact.arrays["loss/gp_slopes"], rtol=1e-4, atol=5e-6)


def test_generator_objective(exact):
    """Values and the gradients of generator and coordinate head, through the networks' own forward pass.

    In the published code's one run the G objective saw the same reals as the D objective.
    """
    arrays, params, model, networks = exact.arrays, exact.trained.params, exact.trained.model, exact.networks
    corner = exact.drawn["corner_beyond" if exact.beyond else "corner"]

    def objective(own):
        fake, after = networks.generate(own["G"], model["G"], exact.drawn["latents"], corner)
        loss, (changed, _) = coco_gan.generator_loss(networks, exact.beyond, own, params, model, exact.drawn, fake)
        return loss, {**changed, "G": after}

    (loss, after), gradients = jax.jit(jax.value_and_grad(objective, has_aux=True))({name: params[name] for name in ("G", "A")})
    assert float(loss) == pytest.approx(float(arrays["loss/g_loss"]), rel=1e-5)
    check_gradients(exact, "g", gradients)
    for key, value in arrays.items():
        if key.startswith(("after_G_updates/", "after_gen_forward/")):
            kind, network, path = place(key.split("/", 1)[1])
            leaf = after[network][kind]
            for part in path:
                leaf = leaf[part]
            np.testing.assert_allclose(leaf, value, rtol=1e-5, atol=2e-6, err_msg=key)


def test_content_objective(exact):
    if not exact.config.content_weight:
        pytest.skip("this configuration trains no content head")
    params, model = exact.trained.params, exact.trained.model
    player = coco_gan.make_players(exact.networks)["Q"]
    (loss, _), gradients = jax.jit(jax.value_and_grad(lambda own: player.loss(own, params, model, exact.drawn, None), has_aux=True))(
        {"Q": params["Q"]}
    )
    assert float(loss) == pytest.approx(float(exact.arrays["loss/q_loss"]), rel=1e-5)
    check_gradients(exact, "q", gradients)


def test_head_statistics_after_the_fakes(exact):
    networks, params, model = exact.content_networks(), exact.trained.params, exact.trained.model
    at = exact.drawn["coordinate_beyond" if exact.beyond else "coordinate"]

    @jax.jit
    def heads_after(images, at):
        normalised, _ = networks.normalise("D", params["D"], model["D"])
        (features, _), _ = networks.run("D", normalised, {}, images, at)
        return [coco_gan.head_error(networks, name, params[name], model[name], features, 0.0)[1] for name in ("A", "Q")]

    scopes = ("GD_spatial_prediction_head", "Q_content_prediction_head")
    for scope, after in zip(scopes, heads_after(exact.fake, at), strict=True):
        for leaf, key in (("mean", "moving_mean"), ("variance", "moving_variance")):
            expected = exact.arrays[f"after_fake_forward/{scope}/bn1/{key}"]
            np.testing.assert_allclose(after["stats"]["norm"][leaf], expected, rtol=1e-5, atol=1e-6)
