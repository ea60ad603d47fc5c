"""StyleGAN against what the original code computed: three small random networks of 16, 64 and 128 px, and single operations.

The 16 px network (with labels) and the operations are kept here; the others are read from the folder `shared`. Limits are relative to
the largest reference value, as they came with the files.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan import losses
from jaxgan.nets import layers, stylegan, stylegan_discriminator, stylegan_variables

CODES, IMAGES, SCORES, GRADIENTS = 1e-5, 5e-5, 1e-5, 2e-4
# Compiling the gradients of the larger two takes more than 20 s each.
TAGS = ("cond", pytest.param("small", marks=pytest.mark.slow), pytest.param("r128", marks=pytest.mark.slow))


def nhwc(array):
    return jnp.asarray(np.moveaxis(array, -3, -1))


def assert_close(found, expected, limit, what=""):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, what
    error, scale = np.abs(found - expected).max(), np.abs(expected).max()
    assert error <= limit * scale, f"{what}: {error:.3g} of {scale:.3g}"


def assert_trees_close(found, expected, limit):
    flat, _ = jax.tree_util.tree_flatten_with_path(expected)
    for (path, leaf), ours in zip(flat, jax.tree.leaves(found), strict=True):
        assert_close(ours, leaf, limit, jax.tree_util.keystr(path))


class Networks(NamedTuple):
    tag: str
    read: Any
    """File by ending -> its arrays."""
    G: stylegan_variables.GeneratorArrays
    Gs: stylegan_variables.GeneratorArrays
    D: stylegan_variables.DiscriminatorArrays


@pytest.fixture(scope="module")
def reference(request, golden):
    @functools.cache
    def read(name):
        path = golden / f"stylegan_{name}.npz"
        if not path.exists():
            path = request.getfixturevalue("shared") / "golden" / path.name
        with np.load(path) as file:
            return dict(file)

    return read


@pytest.fixture(scope="module", params=TAGS)
def networks(request, reference):
    tag = request.param
    variables = reference(f"{tag}_vars")

    def of(prefix):
        return {name.removeprefix(prefix): array for name, array in variables.items() if name.startswith(prefix)}

    return Networks(
        tag,
        lambda ending: reference(f"{tag}_{ending}"),
        stylegan_variables.read_generator(of("G/")),
        stylegan_variables.read_generator(of("Gs/")),
        stylegan_variables.read_discriminator(of("D/")),
    )


def drawer(generator, **options):
    """Images from extended codes, with the stored noise, compiled."""
    return jax.jit(
        lambda w, fade=None: stylegan.synthesise(generator.network, generator.params, w, generator.state["noise"], fade=fade, **options)
    )


def labels_of(network, array):
    return jnp.asarray(array) if network.label_size else None


def critic(networks, params, labels):
    return lambda images: stylegan_discriminator.scores(networks.D.network, params, images, labels)


def test_names_and_shapes_tell_the_static_choices(networks):
    base, maximum, latent, w, mapping, labels = {
        "small": (256, 24, 32, 32, 8, 0), "cond": (128, 16, 16, 24, 4, 3), "r128": (256, 8, 16, 16, 8, 0)
    }[networks.tag]  # fmt: skip
    resolution = {"small": 64, "cond": 16, "r128": 128}[networks.tag]
    widths = stylegan.channel_widths(resolution, base, maximum=maximum)
    expected = stylegan.Generator(widths=widths, latent_size=latent, w_size=w, mapping_width=w, mapping_layers=mapping, label_size=labels)
    assert networks.G.network == networks.Gs.network == expected
    discriminator = stylegan_discriminator.Discriminator(widths, min(base, maximum), labels)
    assert networks.D.network == discriminator
    assert networks.Gs.lod == networks.D.lod == 0.0


def test_codes_truncation_and_mixing(networks):
    network, params, state, _ = networks.Gs
    golden = networks.read("G")
    labels = labels_of(network, golden["labels"])
    mapped = jax.jit(lambda z: stylegan.map_latents(network, params, z, labels))
    w = mapped(golden["z"])
    assert_close(w, golden["w"], CODES)
    assert_close(mapped(3 * golden["z"]), golden["w_of_3z"], CODES)
    codes = stylegan.extend(network, w)
    assert_close(codes, golden["dlatents"], CODES)
    assert_close(stylegan.truncate(codes, state["w_avg"], 0.7, 8), golden["dlatents_psi07_c8"], CODES)
    assert_close(stylegan.truncate(codes, state["w_avg"], 0.5, 4), golden["dlatents_psi05_c4"], CODES)
    assert_close(stylegan.truncate(codes, state["w_avg"], -1.0, network.layers), golden["dlatents_psi_neg1"], CODES)
    assert_close(stylegan.mix(codes[:1], codes[1:2], network.layers // 2), golden["mix_dlatents"], CODES)


def test_images_truncated_mixed_and_of_random_codes(networks):
    network, params, state, _ = networks.Gs
    golden = networks.read("G")
    labels = labels_of(network, golden["labels"])
    draw = drawer(networks.Gs)
    for name in ("psi07_c8", "psi05_c4", "psi_neg1"):
        if f"images_{name}" in golden:
            assert_close(draw(golden[f"dlatents_{name}"]), nhwc(golden[f"images_{name}"]), IMAGES, name)
    assert_close(draw(golden["dlatents"]), nhwc(golden["images_psi1"]), IMAGES)
    assert_close(draw(golden["wplus"]), nhwc(golden["wplus_images"]), IMAGES)
    if "mix_images" in golden:
        assert_close(draw(golden["mix_dlatents"]), nhwc(golden["mix_images"]), IMAGES)
    whole = jax.jit(lambda z: stylegan.generate(network, params, state, z, labels))(golden["z"])
    assert_close(whole, nhwc(golden["images_default"]), IMAGES)


def test_images_at_fractional_levels_of_detail(networks):
    golden = networks.read("G")
    codes = golden["dlatents"][:2]
    draw = functools.cache(lambda level, fades: drawer(networks.Gs, level=level))
    lowest = len(networks.Gs.network.widths) - 1
    for lod, expected in zip(golden["lods"], golden["images_lods"], strict=True):
        level, fade = stylegan.split_lod(float(lod))
        found = draw(level, level < lowest)(codes, jnp.float32(fade or 0.0) if level < lowest else None)
        assert_close(found, nhwc(expected), IMAGES, f"lod {lod}")


def test_activations_of_every_layer(networks):
    network, params, state, _ = networks.Gs
    golden = networks.read("acts")
    found = jax.jit(lambda w: stylegan.activations(network, params, w, state["noise"]))(golden["wplus"])
    compared = 0
    for name, array in found.items():
        theirs = name if name.endswith("_normalised") else f"{name}_styled"
        theirs = theirs.replace("normalised", "normalized")
        if theirs in golden:
            assert_close(array, nhwc(golden[theirs]), IMAGES, name)
            compared += 1
    assert compared == sum(name.startswith("layer") for name in golden) >= network.layers


def test_scores_of_batches_of_eight_three_and_one_and_at_fractional_levels(networks):
    network, params, _ = networks.D
    golden = networks.read("D")
    images, labels = nhwc(golden["images"]), golden["labels"]

    @functools.cache
    def score(level):
        return jax.jit(
            lambda x, y, fade=None: stylegan_discriminator.scores(network, params, x, labels_of(network, y), level=level, fade=fade)
        )

    for n in (8, 3, 1):
        assert_close(score(0)(images[:n], labels[:n]), golden[f"scores_n{n}"][:, 0], SCORES, f"{n} images")
    for lod, expected in zip(golden["lods"], golden["scores_lods"], strict=True):
        level, fade = stylegan.split_lod(float(lod))
        fade = jnp.float32(fade or 0.0) if level < len(network.widths) - 1 else None
        assert_close(score(level)(images, labels, fade), expected[:, 0], SCORES, f"lod {lod}")


def test_losses_and_penalties(networks):
    golden = networks.read("D")
    images, labels = nhwc(golden["images"]), labels_of(networks.D.network, golden["labels"][:4])
    real, fake = images[:4], images[4:]
    mix = jnp.asarray(golden["wgan_gp_mix"])

    @jax.jit
    def values(params, real, fake):
        score = critic(networks, params, labels)
        on_real, on_fake = score(real), score(fake)
        r1, r2 = losses.squared_slopes(score, real), losses.squared_slopes(score, fake)
        slopes = losses.gradient_slopes(score, losses.interpolate(real, fake, mix), "textbook")
        logistic = losses.logistic_discriminator(on_real, on_fake)
        critic_loss = losses.wasserstein_discriminator(on_real, on_fake)
        named = {
            "Dloss_r1_0": logistic,
            "Dloss_r1_10": logistic + 5.0 * r1.mean(),
            "Dloss_r1_10_r2_5": logistic + 5.0 * r1.mean() + 2.5 * r2.mean(),
            "Dloss_wgan_gp": critic_loss + 10.0 * losses.gradient_penalty(slopes) + 0.001 * losses.drift(on_real),
            "Dloss_hinge": losses.hinge_discriminator(on_real, on_fake),
            "Gloss_nonsat": losses.nonsaturating_generator(on_fake),
            "Gloss_sat": losses.saturating_generator(on_fake),
            "Gloss_wgan": losses.wasserstein_generator(on_fake),
        }
        return named, r1, jax.grad(lambda x: score(x).sum())(real)

    named, r1, gradient = values(networks.D.params, real, fake)
    for name, value in named.items():
        assert_close(value, golden[name].astype(np.float64).mean(), SCORES, name)
    assert_close(r1, golden["R1_penalty"], SCORES)
    assert_close(gradient, nhwc(golden["R1_grad_reals"]), GRADIENTS)


@pytest.mark.parametrize("kind", ["r1_10", "wgan_gp"])
def test_gradients_of_the_discriminator(networks, kind):
    golden = networks.read("D")
    images, labels = nhwc(golden["images"]), labels_of(networks.D.network, golden["labels"][:4])

    def loss(params, real, fake):
        score = critic(networks, params, labels)
        if kind == "r1_10":
            return losses.logistic_discriminator(score(real), score(fake)) + 5.0 * losses.squared_slopes(score, real).mean()
        slopes = losses.gradient_slopes(score, losses.interpolate(real, fake, jnp.asarray(golden["wgan_gp_mix"])), "textbook")
        on_real = score(real)
        adversarial = losses.wasserstein_discriminator(on_real, score(fake))
        return adversarial + 10.0 * losses.gradient_penalty(slopes) + 0.001 * losses.drift(on_real)

    found = jax.jit(jax.grad(loss))(networks.D.params, images[:4], images[4:])
    expected = stylegan_variables.discriminator_params(networks.D.network, networks.read(f"Dgrad_{kind}"))
    assert_trees_close(found, expected, GRADIENTS)


def test_loss_and_gradients_of_the_whole_generator(networks):
    network, params, state, _ = networks.G
    golden = networks.read("D")
    labels = labels_of(network, golden["Gfull_labels"])

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def step(params, z):
        fakes = stylegan.generate(network, params, state, z, labels, psi=None)
        return losses.nonsaturating_generator(critic(networks, networks.D.params, labels)(fakes)), fakes

    (loss, fakes), gradient = step(params, golden["Gfull_z"])
    assert_close(fakes, nhwc(golden["Gfull_fakes"]), IMAGES)
    assert_close(loss, golden["Gfull_loss"].astype(np.float64).mean(), SCORES)
    assert_trees_close(gradient, stylegan_variables.generator_params(network, networks.read("Ggrad")), GRADIENTS)


def test_single_operations(reference):
    golden = reference("ops")
    x = nhwc(golden["x"])
    up = jnp.asarray(golden["up_weight"] * np.float32(2**0.5 / 45**0.5))
    down = jnp.asarray(golden["down_weight"] * np.float32(2**0.5 / 45**0.5))
    stretch = nhwc(golden["mbstd_x"])
    deviation = stylegan_discriminator.minibatch_deviation
    found = {
        "up_fused": stylegan.upscale_convolve(x, up, True),
        "up_unfused": stylegan.upscale_convolve(x, up, False),
        "down_fused": layers.convolve_pool(x, down),
        "down_unfused": layers.convolve_pool(x, down),
        "blur": stylegan.blur(x),
        "upscale": layers.upsample(x),
        "downscale": layers.average_pool(x),
        "instance_norm": stylegan.instance_norm(x),
        "lrelu": stylegan.leaky_relu(x),
        "mbstd_g4": deviation(stretch, 4),
        "mbstd_g2_n3": deviation(stretch, 2, 3),
        "mbstd_first3_g4": deviation(stretch[:3], 4),
    }
    for name, array in found.items():
        assert_close(array, nhwc(golden[name]), 1e-6 if name in ("upscale", "lrelu") else 5e-6, name)
    assert_close(stylegan.pixel_norm(x[:, 0, 0]), golden["pixel_norm_2d"], 5e-6)
    assert np.abs(golden["up_fused"] - golden["up_unfused"]).max() > 0.1
