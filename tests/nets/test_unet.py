"""The U-Net: any size, each image on its own, mirrored kernels mirror the answer, and 2x2 squares lose no pixel."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.nets.unet import GroupNorm, UNet, depth_to_space, space_to_depth, widths


def made(shape=(2, 16, 16, 3), seed=0, **options):
    """(apply, params, images) of a small network with a head and norms that are not at their initial values."""
    network = UNet(classes=5, **({"width": 8, "depth": 2} | options))
    rng = np.random.default_rng(seed)
    images = jnp.asarray(rng.uniform(-1, 1, shape), jnp.float32)
    params = network.init(jax.random.key(seed), images[:1, :8, :8])["params"]
    params = jax.tree.map(lambda leaf: leaf + jnp.asarray(rng.normal(0, 0.2, leaf.shape), jnp.float32), params)
    return jax.jit(lambda params, images: network.apply({"params": params}, images)), params, images


@pytest.mark.parametrize("size", [(16, 16), (13, 22), (1, 5)])
@pytest.mark.parametrize("patch", [1, 2])
def test_any_size_is_the_padded_image_cut_back(size, patch):
    apply, params, images = made((1, *size, 3), patch=patch)
    logits = apply(params, images)
    assert logits.shape == (1, *size, 5) and logits.dtype == jnp.float32
    stride = 4 * patch
    padded = np.pad(np.asarray(images), ((0, 0), (0, -size[0] % stride), (0, -size[1] % stride), (0, 0)), "edge")
    np.testing.assert_allclose(logits, apply(params, jnp.asarray(padded))[:, : size[0], : size[1]], atol=1e-4)


def test_an_image_is_labelled_alike_alone_and_in_any_company():
    apply, params, images = made((3, 16, 16, 3))
    together = apply(params, images)
    np.testing.assert_allclose(together[1:2], apply(params, images[1:2]), atol=1e-4)
    # so that the comparison can fail: the logits do depend on the image
    assert float(jnp.abs(together[0] - together[1]).max()) > 0.1


def test_mirrored_kernels_give_the_mirrored_answer():
    """Holds only where halving, doubling and skips meet without a shift of half a pixel."""
    apply, params, images = made((1, 16, 24, 3))
    mirrored = jax.tree.map(lambda leaf: leaf[:, ::-1] if leaf.ndim == 4 else leaf, params)
    np.testing.assert_allclose(apply(mirrored, images[:, :, ::-1]), apply(params, images)[:, :, ::-1], atol=1e-4)


def test_every_parameter_and_every_pixel_around_is_used():
    apply, params, images = made((1, 16, 16, 3))
    gradients = jax.grad(lambda params: jnp.square(apply(params, images)).sum())(params)
    unused = [jax.tree_util.keystr(path) for path, leaf in jax.tree_util.tree_leaves_with_path(gradients) if not np.abs(leaf).max() > 0]
    assert not unused
    seen = jax.grad(lambda images: apply(params, images)[0, 8, 8, 0])(images)
    assert (np.abs(seen[0]).max(-1) > 0).all()


def test_bfloat16_computes_the_same_but_for_its_rounding_and_keeps_float32_logits():
    apply, params, images = made()
    coarse = made(dtype=jnp.bfloat16)[0]
    logits, rounded = apply(params, images), coarse(params, images)
    assert rounded.dtype == jnp.float32
    error = float(jnp.abs(rounded - logits).max() / jnp.abs(logits).max())
    assert 0 < error < 0.1


def test_widths_double_up_to_eight_times():
    assert widths(16, 5) == (16, 32, 64, 128, 128, 128)


def test_squares_of_pixels_come_back():
    x = jnp.arange(2 * 4 * 6 * 3, dtype=jnp.float32).reshape(2, 4, 6, 3)
    deep = space_to_depth(x, 2)
    assert deep.shape == (2, 2, 3, 12)
    np.testing.assert_array_equal(deep[1, 1, 2].reshape(2, 2, 3), x[1, 2:4, 4:6])
    np.testing.assert_array_equal(depth_to_space(deep, 2), x)


def test_a_new_network_shows_no_pattern_of_squares():
    network = UNet(classes=5, width=8, depth=1, patch=2)
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1, 8, 8, 3)), jnp.float32)
    logits = np.asarray(network.apply(network.init(jax.random.key(0), images), images)[0])
    np.testing.assert_allclose(logits, logits[::2, ::2].repeat(2, 0).repeat(2, 1), atol=1e-7)
    assert np.ptp(logits) > 0


def test_group_norm_is_the_formula_in_float64():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (2, 5, 4, 12))  # gcd(8, 12) = 4 groups of 3 channels
    scale, bias = rng.normal(size=(2, 12))
    groups = x.reshape(2, 20, 4, 3)
    mean, variance = groups.mean((1, 3), keepdims=True), groups.var((1, 3), keepdims=True)
    expected = ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape) * scale + bias
    params = {"scale": jnp.asarray(scale, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    got = GroupNorm().apply({"params": params}, jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, expected, atol=2e-5)
