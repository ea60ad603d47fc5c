"""What identity_pose is seldom trained with: VGG-16's maps in the place of the discriminator's, and the R1 penalty."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from small_identity_pose import COMPILER, CONFIG, filled, triplets

from jaxgan import train, weights
from jaxgan.nets import vgg
from jaxgan.nets.layers import spectral_normalise
from jaxgan.systems import identity_pose
from jaxgan.weights import vgg as vgg_files

# Nothing but the maps moves the generator: whatever of it has moved has been moved by them.
BY_MAPS = dataclasses.replace(CONFIG, perceptual="vgg", augment=False, w_rec=0.0, w_adv=0.0, w_pv=0.0, w_dis=0.0, w_back=0.0)
LAYERS = ("relu1_2", "relu2_2", "relu3_2", "relu4_2", "relu5_2")


def narrow() -> dict[str, np.ndarray]:
    """A VGG-16 of two channels everywhere, in torchvision's names."""
    rng, arrays, before = np.random.default_rng(0), {}, 3
    for index in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28):
        arrays[f"features.{index}.weight"] = rng.normal(0, 0.6, (2, before, 3, 3)).astype(np.float32)
        arrays[f"features.{index}.bias"] = rng.normal(0.2, 0.1, 2).astype(np.float32)
        before = 2
    return arrays


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """That network where commands find the named weights 'vgg16'."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAXGAN_WEIGHTS", raising=False)
    monkeypatch.setattr(vgg_files, "WIDTHS", (2,) * 13)
    save_file(narrow(), tmp_path / "vgg.safetensors")
    weights.import_weights("vgg16", tmp_path / "vgg.safetensors")


def as_torchvision(images):
    return ((images + 1) / 2 - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])


def as_caffe(images):
    return (images[..., ::-1] + 1) * np.float32(127.5) - np.float32([103.939, 116.779, 123.68])


@pytest.mark.slow
@pytest.mark.parametrize(("given", "normal"), [("torchvision", as_torchvision), ("caffe", as_caffe)])
def test_a_step_by_maps_of_vgg_has_the_terms_that_separate_images_give_and_they_move_the_generator(imported, monkeypatch, given, normal):
    if given == "caffe":
        monkeypatch.setattr(weights, "about", lambda name, path=None: {"preprocessing": "caffe"})
    system, network = BY_MAPS.system(), vgg.params(narrow())
    shapes = jax.eval_shape(system.init, jax.random.key(0))
    assert set(shapes.frozen) == {"vgg"} and "vgg" not in shapes.params and "vgg" not in shapes.opt
    before = filled(BY_MAPS)._replace(frozen={"vgg": network})
    after, info = jax.device_get(jax.jit(train.step_function(system, 0), compiler_options=COMPILER)(before, triplets()))

    images = np.moveaxis(triplets()["image"] / np.float32(127.5) - 1, 1, 0).astype(np.float32)
    parts = identity_pose.swapper(BY_MAPS)
    codes = [(parts.identity(before.params, x), parts.pose(before.params, x)) for x in images]
    pairs = [(codes[0][0], codes[1][1], images[2]), (*codes[1], images[1]), (*codes[0], images[0])]

    def apart(identity, pose, truth):
        made = np.asarray(parts.decode(before.params, identity, pose))
        maps = [vgg.features(network, jnp.asarray(normal(x)), LAYERS) for x in (made, truth)]
        return sum(np.abs(np.asarray(maps[0][name], np.float64) - np.asarray(maps[1][name])).mean() for name in LAYERS)

    away = [apart(*pair) for pair in pairs]
    np.testing.assert_allclose(info["term/perc"], away[0], rtol=1e-4)
    np.testing.assert_allclose(info["term/self_perc"], (away[1] + away[2]) / 2, rtol=1e-4)
    np.testing.assert_allclose(info["loss/G"], 10 * away[0] + 5 * (away[1] + away[2]), rtol=1e-4)
    for name in identity_pose.MOVED:
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), before.params[name], after.params[name])
        assert max(jax.tree.leaves(moved)) > 1e-5, name
    for one, two in zip(jax.tree.leaves(after.frozen), jax.tree.leaves(network), strict=True):
        np.testing.assert_array_equal(one, two)


def test_vgg_that_is_not_there_is_named_before_anything_is_made(tmp_path, monkeypatch):
    for name in ("XDG_CACHE_HOME", "JAXGAN_WEIGHTS"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="vgg16"):
        BY_MAPS.system()
    dataclasses.replace(BY_MAPS, perceptual="disc").system()  # which needs none
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_r1_is_half_gamma_times_the_mean_square_of_the_slope_of_each_real_target_s_score():
    """Forward derivatives along every pixel of one image after the other, and what the penalty asks of the discriminator's parameters."""
    state = filled(CONFIG)
    batch = jax.jit(lambda: identity_pose.on_device(CONFIG, {name: array[:3] for name, array in triplets().items()}, jax.random.key(0)))()
    parts = identity_pose.make_parts(CONFIG)
    code = parts.identity(state.params["E_id"], batch["identity"]).code
    code = code / jnp.linalg.norm(code, axis=-1, keepdims=True)
    pixels = jnp.eye(16 * 16 * 3).reshape(-1, 16, 16, 3)

    def penalty(own):
        normal, _ = spectral_normalise(own["D"], state.model["D"]["spectral"], stop_gradient=True)
        total = 0.0
        for number in range(3):
            image, whose = batch["target"][number], code[number : number + 1]

            def score(image, whose=whose):
                return sum(scores.mean() for scores in parts.judge(normal, image[None], whose)[0])

            slopes = jax.vmap(lambda direction, image=image, score=score: jax.jvp(score, (image,), (direction,))[1])(pixels)
            total += (slopes**2).sum()
        return 0.5 * 3.0 * total / 3

    def loss(own, gamma):
        player = identity_pose.make_players(dataclasses.replace(CONFIG, r1=gamma), 0.0)["D"]
        return player.loss(own, state.params, state.model, batch, jax.random.key(1))[0]

    own = {"D": state.params["D"]}
    extra = jax.jit(jax.value_and_grad(lambda own: loss(own, 3.0) - loss(own, 0.0)), compiler_options=COMPILER)
    (found, slope), (expected, asked) = extra(own), jax.jit(jax.value_and_grad(penalty), compiler_options=COMPILER)(own)
    assert float(expected) > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(asked))
    for one, two in zip(jax.tree.leaves(slope), jax.tree.leaves(asked), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-2, atol=1e-4 * largest)
