"""The networks of robust disentangling: their layout, their initial values, and the two kinds of posterior."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.nets import disentangling
from jaxgan.nets.disentangling import SIZES, Decoder, Encoder

WIDTHS = (3, 4, 6)


def convolved(tree, x, stride=1):
    """A 3x3 convolution written out in double precision."""
    kernel, bias = (np.asarray(tree[name], np.float64) for name in ("kernel", "bias"))
    # zero padding as TensorFlow's SAME: one pixel all round for stride 1, at the lower right for stride 2 on an even side
    before = 1 if stride == 1 else 0
    padded = np.pad(x, ((0, 0), (before, 1), (before, 1), (0, 0)))
    side = x.shape[1] // stride
    result = np.zeros((*x.shape[:1], side, side, kernel.shape[-1]))
    for i in range(3):
        for j in range(3):
            result += padded[:, i : i + stride * side : stride, j : j + stride * side : stride] @ kernel[i, j]
    return result + bias


def residual(tree, x):
    return x + convolved(tree["conv"], np.maximum(x, 0))


def linear(tree, x):
    return x @ np.asarray(tree["kernel"], np.float64) + np.asarray(tree["bias"], np.float64)


def test_the_encoder_is_stem_strides_and_residual_blocks_without_normalisation():
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    network = Encoder(5, WIDTHS, blocks=2)
    tree = jax.jit(network.init)(jax.random.key(0), jnp.asarray(images))["params"]
    x = residual(tree["level0"], convolved(tree["stem"], images))
    for level in (1, 2):
        x = residual(tree[f"level{level}"], convolved(tree[f"down{level}"], x, 2))
    assert x.shape == (2, 4, 4, 6)
    for block in range(2):
        x = residual(tree[f"bottom{block}"], x)
    want = linear(tree["out"], np.maximum(x, 0).mean((1, 2)))
    np.testing.assert_allclose(jax.jit(network.apply)({"params": tree}, jnp.asarray(images)), want, atol=1e-5)


def test_the_decoder_gives_each_code_blocks_of_its_own_and_turns_channels_into_pixels():
    rng = np.random.default_rng(1)
    codes = [rng.normal(0, 1, (2, d)).astype(np.float32) for d in (3, 5)]
    network = Decoder(WIDTHS, blocks=1)
    tree = jax.jit(network.init)(jax.random.key(0), *map(jnp.asarray, codes))["params"]
    maps = [residual(tree[f"code{i}_0"], linear(tree[f"code{i}"], code).reshape(2, 4, 4, 6)) for i, code in enumerate(codes)]
    x = convolved(tree["join"], np.concatenate(maps, -1))
    for level in (1, 0):
        x = convolved(tree[f"up{level}"], residual(tree[f"level{level + 1}"], x))
        n, h, w, c = x.shape
        x = x.reshape(n, h, w, 2, 2, c // 4).transpose(0, 1, 3, 2, 4, 5).reshape(n, 2 * h, 2 * w, c // 4)
    want = convolved(tree["out"], residual(tree["level0"], x))
    assert want.shape == (2, 16, 16, 3)
    np.testing.assert_allclose(jax.jit(network.apply)({"params": tree}, *map(jnp.asarray, codes)), want, atol=1e-5)


def test_weights_and_biases_are_uniform_within_one_over_the_root_of_their_inputs():
    tree = jax.jit(Encoder(7, (32, 64)).init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    for layer, inputs in ((tree["stem"], 27), (tree["down1"], 288), (tree["bottom0"]["conv"], 576), (tree["out"], 64)):
        for leaf in layer.values():
            values = np.asarray(leaf) * inputs**0.5
            assert np.abs(values).max() <= 1 and np.abs(values).max() > 0.8
            if leaf.size > 1000:
                np.testing.assert_allclose((values.mean(), values.std()), (0, 3**-0.5), atol=0.02)


def test_a_full_posterior_over_256_dimensions_takes_33152_numbers():
    assert disentangling.outputs(256, "full") == 33_152 and disentangling.outputs(64, "diag") == 128


def test_a_diagonal_posterior_draws_mean_and_deviation_and_limits_its_variance():
    given = jnp.asarray([[1.0, -2.0, 0.5, 99.0], [0.0, 3.0, -99.0, 0.0]])
    found = disentangling.posterior(given, 2, "diag")
    np.testing.assert_array_equal(found.logvar, [[0.5, 10.0], [-30.0, 0.0]])
    noise = np.asarray([[1.0, -1.0], [2.0, 0.5]], np.float32)
    want = np.asarray(found.mean) + np.exp(0.5 * np.asarray(found.logvar)) * noise
    np.testing.assert_allclose(disentangling.draw(found, jnp.asarray(noise)), want, rtol=1e-6)


def test_a_full_posterior_is_a_lower_triangle_with_exponential_diagonal_and_rows_over_their_roots():
    rng = np.random.default_rng(2)
    given = rng.normal(0, 1, (2, disentangling.outputs(4, "full"))).astype(np.float32)
    found = disentangling.posterior(jnp.asarray(given), 4, "full")
    want, at = np.zeros((2, 4, 4)), 4
    for i in range(4):
        for j in range(i + 1):
            want[:, i, j] = np.exp(given[:, at]) if i == j else given[:, at] / np.sqrt(i + 1)
            at += 1
    np.testing.assert_allclose(found.factor, want, rtol=1e-6)
    noise = rng.normal(0, 1, (2, 4)).astype(np.float32)
    np.testing.assert_allclose(disentangling.draw(found, jnp.asarray(noise)), given[:, :4] + (want @ noise[..., None])[..., 0], rtol=1e-4)
    covariance = np.cov(np.asarray(disentangling.draw(jax.tree.map(lambda x: jnp.repeat(x[:1], 20_000, 0), found), _normal(20_000))).T)
    np.testing.assert_allclose(covariance, want[0] @ want[0].T, atol=0.15 * np.abs(covariance).max())


def _normal(n):
    return jax.random.normal(jax.random.key(0), (n, 4))


@pytest.mark.parametrize("name", sorted(SIZES))
def test_the_named_sizes_end_at_four_by_four(name):
    size = SIZES[name]
    disentangling.check_widths(size.side, size.widths)
    shape = jax.eval_shape(lambda code: Decoder(size.widths).init_with_output(jax.random.key(0), code, code)[0], jnp.zeros((1, size.code)))
    assert shape.shape == (1, size.side, size.side, 3)


def test_widths_that_do_not_fit_the_side_are_named_with_the_number_that_does():
    with pytest.raises(ValueError, match=r"side 64 and 3 widths \(8, 16, 32\).*5 widths fit 64 px"):
        disentangling.check_widths(64, (8, 16, 32))
    with pytest.raises(ValueError, match="side 48"):
        disentangling.check_widths(48, (8, 16, 32, 32))
