"""Networks of identity and pose: shapes at every size, what the reader adds, several images of one identity, disguised colours."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.nets import identity_pose as nets
from jaxgan.nets.layers import convolve, spectral_normalise

WIDTHS = (4, 8)
RNG = np.random.default_rng(0)
IMAGES = jnp.asarray(RNG.uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32))


@pytest.fixture(scope="module")
def made():
    """Encoders, generator and discriminator of 16x16 with their parameters, and codes of two images."""
    parts = {
        "E_id": nets.IdentityEncoder(WIDTHS, 8, 8),
        "E_pose": nets.PoseEncoder(WIDTHS),
        "G": nets.Generator(WIDTHS, read=8, heads=2),
        "D": nets.Discriminator((4, 8, 8), 2),
    }

    @jax.jit
    def start():
        keys = jax.random.split(jax.random.key(0), 4)
        params = {name: parts[name].init(key, IMAGES)["params"] for name, key in zip(("E_id", "E_pose"), keys[:2], strict=True)}
        identity = parts["E_id"].apply({"params": params["E_id"]}, IMAGES)
        pose = parts["E_pose"].apply({"params": params["E_pose"]}, IMAGES)
        params["G"] = parts["G"].init(keys[2], identity, pose)["params"]
        judged = parts["D"].init(keys[3], IMAGES, identity.code)
        return params | {"D": judged["params"]}, identity, pose, judged["spectral"]

    return parts, *start()


def draw(net, params, identity, pose):
    return jax.jit(lambda params: net.apply({"params": params}, identity, pose))(params)


@pytest.mark.parametrize("widths", [(32, 64, 128), (64, 128, 256, 256), (64, 128, 256, 256, 256)])
def test_every_size_has_the_shapes_it_should(widths):
    side = 4 * 2 ** len(widths)
    images = jax.ShapeDtypeStruct((3, side, side, 3), jnp.float32)

    def whole(images):
        key = jax.random.key(0)
        identity = nets.IdentityEncoder(widths).init_with_output(key, images)[0]
        pose = nets.PoseEncoder(widths).init_with_output(key, images)[0]
        made = nets.Generator(widths).init_with_output(key, identity, pose)[0]
        return identity, pose, made, nets.Discriminator(scales=1 if side == 32 else 2).init_with_output(key, images, identity.code)[0]

    identity, pose, made, (scores, maps) = jax.eval_shape(whole, images)
    assert identity.code.shape == (3, 256) and identity.tokens.shape == (3, (side // 4) ** 2, 128)
    assert pose.shape == (3, 4, 4, 16) and made.shape == images.shape
    assert [score.shape for score in scores] == [(3, side // 8, side // 8), (3, side // 16, side // 16)][: len(scores)]
    assert len(maps) == 3 * len(scores) and maps[0].shape == (3, side // 2, side // 2, 64)


def test_the_strided_convolution_is_a_4x4_convolution_of_stride_2():
    kernel = jnp.asarray(RNG.normal(size=(4, 4, 3, 5)).astype(np.float32))
    expected = convolve(IMAGES, kernel, [(1, 1), (1, 1)], stride=2)
    np.testing.assert_allclose(nets.strided(IMAGES, kernel), expected, atol=1e-5)


def test_groups_are_normalised_as_their_formula_says():
    x = RNG.normal(2, 3, (2, 4, 5, 16))
    groups = x.reshape(2, 4, 5, 8, 2)
    mean, variance = groups.mean((1, 2, 4), keepdims=True), groups.var((1, 2, 4), keepdims=True)
    expected = ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    np.testing.assert_allclose(nets.normalise_groups(jnp.asarray(x, jnp.float32)), expected, atol=1e-5)


def test_at_the_start_the_reader_changes_nothing_and_later_it_does(made):
    parts, params, identity, pose, _ = made
    g = params["G"]
    without = {name: value for name, value in g.items() if name != "reader"}
    plain = draw(nets.Generator(WIDTHS, reader=False), without, identity, pose)
    assert float(g["reader"]["gate"]) == 0
    np.testing.assert_array_equal(draw(parts["G"], g, identity, pose), plain)
    opened = g | {"reader": g["reader"] | {"gate": jnp.asarray(1.0)}}
    read = draw(parts["G"], opened, identity, pose)
    assert float(jnp.abs(read - plain).max()) > 1e-3
    # By content and not by place: tokens in another order are read alike.
    turned = identity._replace(tokens=identity.tokens[:, ::-1])
    np.testing.assert_allclose(draw(parts["G"], opened, turned, pose), read, atol=1e-5)
    assert "reader" not in nets.Generator(WIDTHS, reader=False).init(jax.random.key(0), identity, pose)["params"]


def test_several_images_of_an_identity_average_its_code_and_add_their_tokens(made):
    parts, params, identity, _, _ = made
    encode = jax.jit(lambda images: parts["E_id"].apply({"params": params["E_id"]}, images))
    both = encode(IMAGES[None])
    assert both.code.shape == (1, 8) and both.tokens.shape == (1, 32, 8)
    np.testing.assert_allclose(both.code[0], identity.code.mean(0), atol=1e-6)
    np.testing.assert_allclose(both.tokens[0], identity.tokens.reshape(32, 8), atol=1e-6)
    for one, two in zip(encode(IMAGES[:, None]), identity, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_an_image_does_not_depend_on_the_others_of_its_batch(made):
    parts, params, identity, pose, _ = made
    alone = draw(parts["G"], params["G"], jax.tree.map(lambda x: x[:1], identity), pose[:1])
    np.testing.assert_allclose(alone, draw(parts["G"], params["G"], identity, pose)[:1], atol=1e-5)


def test_every_kernel_of_the_discriminator_is_normalised(made):
    _, params, _, _, spectral = made
    for _ in range(200):
        normal, spectral = spectral_normalise(params["D"], spectral, stop_gradient=True)
    kernels = {name: np.asarray(layer["kernel"]) for judge in normal.values() for name, layer in judge.items()}
    assert sorted(kernels) == ["down_0", "down_1", "down_2", "projection", "score"]
    for judge in normal.values():
        for layer in judge.values():
            kernel = np.asarray(layer["kernel"], np.float64)
            assert np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]))[1][0] == pytest.approx(1, rel=1e-2)


def test_the_identity_takes_part_in_the_judgement_as_an_inner_product(made):
    parts, params, identity, _, _ = made
    judge = jax.jit(lambda code: parts["D"].apply({"params": params["D"]}, IMAGES, code))
    (scores, maps), (without, _) = judge(identity.code), judge(jnp.zeros_like(identity.code))
    for scale in range(2):
        layer = {name: np.asarray(value, np.float64) for name, value in params["D"][f"scale_{scale}"]["projection"].items()}
        mean = np.asarray(maps[3 * scale + 2], np.float64).mean((1, 2))
        belongs = ((np.asarray(identity.code, np.float64) @ layer["kernel"] + layer["bias"]) * mean).sum(-1)
        np.testing.assert_allclose(scores[scale] - without[scale], np.broadcast_to(belongs[:, None, None], scores[scale].shape), atol=1e-5)


def test_a_disguise_mixes_hides_and_keeps_shape():
    draws = jax.jit(functools.partial(nets.draw_disguise, batch=400, side=16))(jax.random.key(0))
    mixing = np.asarray(draws.mixing, np.float64)
    grey = np.ptp(mixing, axis=(1, 2)) < 1e-6
    assert 150 < grey.sum() < 250
    gains = mixing.sum(-1)
    np.testing.assert_allclose(gains, np.broadcast_to(gains[:, :1], (400, 3)), atol=1e-6)
    assert gains.min() > 0.7 - 1e-6 and gains.max() < 1.3 + 1e-6 and np.ptp(gains) > 0.5
    orders = {tuple(mix.argmax(-1)) for mix in mixing[~grey]}
    assert len(orders) == 6
    hidden = np.asarray(draws.hidden).sum((1, 2))
    assert 1 <= np.median(hidden) <= 16 and hidden.max() <= 25
    images = jnp.asarray(RNG.uniform(-1, 1, (400, 16, 16, 3)).astype(np.float32))
    expected = 2 * np.clip(np.einsum("bhwc,bdc->bhwd", np.asarray(images, np.float64) / 2 + 0.5, mixing), 0, 1) - 1
    expected[np.asarray(draws.hidden)] = 0
    np.testing.assert_allclose(nets.disguise(images, draws), expected, atol=1e-5)
    np.testing.assert_allclose(nets.grey(images)[..., 1], np.asarray(images).mean(-1), atol=1e-6)
