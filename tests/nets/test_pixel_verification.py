"""Pixel verification: the equations in double precision, what does not depend on order or parts, and what is kept frozen."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.nets import pixel_verification as pvm

RNG = np.random.default_rng(0)
QUERY, REF, POSE = (jnp.asarray(RNG.uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)) for _ in range(3))
PARAMS = pvm.init(jax.random.key(0), (4, 8))
PARAMS = PARAMS | {f"conv_{i}": {**PARAMS[f"conv_{i}"], "bias": 0.1 * jnp.ones_like(PARAMS[f"conv_{i}"]["bias"])} for i in range(4)}


def pooled(images):
    return np.asarray(images, np.float64).reshape(2, 8, 2, 8, 2, 3).mean((2, 4)).reshape(2, 64, 3)


def by_hand(query, ref):
    """Equations (1) to (5) in float64 from the embeddings of both."""
    f, g = (np.asarray(pvm.embed(PARAMS, x), np.float64).reshape(2, 64, -1) for x in (query, ref))
    similar = f @ g.transpose(0, 2, 1)
    weights = np.exp(similar / 0.07)
    weights /= weights.sum(-1, keepdims=True)
    traced = weights @ pooled(ref)
    return weights, traced, (weights * similar).sum(-1), np.abs(pooled(query) - traced).mean(-1)


def test_the_embedding_is_the_convolutions_and_the_neighbours_at_length_one():
    def convolution(x, layer, stride):
        kernel, bias = (np.asarray(layer[name], np.float64) for name in ("kernel", "bias"))
        edge = kernel.shape[0] // 2
        x = np.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
        count = (x.shape[1] - 2 * edge - 1) // stride + 1
        at = [slice(i, i + stride * (count - 1) + 1, stride) for i in range(kernel.shape[0])]
        return sum(x[:, down, across] @ kernel[i, j] for i, down in enumerate(at) for j, across in enumerate(at)) + bias

    def silu(x):
        return x / (1 + np.exp(-x))

    x = silu(convolution(np.asarray(QUERY, np.float64), PARAMS["conv_0"], 1))
    x = silu(convolution(x, PARAMS["conv_1"], 2))
    x = convolution(convolution(x, PARAMS["conv_2"], 1), PARAMS["conv_3"], 1)
    small = np.pad(pooled(QUERY).reshape(2, 8, 8, 3), ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    around = np.concatenate([small[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)], -1)
    whole = np.concatenate([x, 0.5 * around], -1)
    found = pvm.embed(PARAMS, QUERY)
    assert found.shape == (2, 8, 8, 8 + 27) and pvm.embed(PARAMS, QUERY, 4).shape == (2, 4, 4, 8 + 27)
    np.testing.assert_allclose(found, whole / np.linalg.norm(whole, axis=-1, keepdims=True), atol=1e-5)
    with pytest.raises(ValueError, match="grid of 1 / 3"):
        pvm.embed(PARAMS, QUERY, 3)


def test_tracing_is_the_formula_and_its_rows_sum_to_one():
    out = pvm.pvm_apply(PARAMS, QUERY, REF)
    weights, traced, score, residual = by_hand(QUERY, REF)
    assert out.attn.shape == (2, 64, 64) and out.score.shape == out.residual.shape == (2, 8, 8)
    np.testing.assert_allclose(out.attn, weights, atol=1e-5)
    np.testing.assert_allclose(np.asarray(out.attn, np.float64).sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(out.traced.reshape(2, 64, 3), traced, atol=1e-5)
    np.testing.assert_allclose(out.score.reshape(2, 64), score, atol=1e-5)
    np.testing.assert_allclose(out.residual.reshape(2, 64), residual, atol=1e-5)


def test_an_image_is_traced_back_to_itself_when_the_temperature_is_low():
    cold = PARAMS | {"log_tau": jnp.asarray(-20.0)}
    assert float(pvm.temperature(cold)) == pytest.approx(0.01)
    assert float(pvm.temperature(PARAMS | {"log_tau": jnp.asarray(3.0)})) == pytest.approx(0.5)
    out = pvm.pvm_apply(cold, QUERY, QUERY)
    assert float(out.residual.max()) < 1e-2 and float(out.score.min()) > 0.99
    assert float(pvm.pvm_apply(cold, QUERY, REF).residual.mean()) > 0.05


def test_the_order_of_the_reference_pixels_does_not_matter():
    f, g = (pvm.embed(PARAMS, x).reshape(2, 64, -1) for x in (QUERY, REF))
    c, r = (pvm.colours(x).reshape(2, 64, 3) for x in (QUERY, REF))
    order = RNG.permutation(64)
    before = pvm.trace(f, c, g, r, jnp.asarray(0.07))
    after = pvm.trace(f, c, g[:, order], r[:, order], jnp.asarray(0.07))
    np.testing.assert_allclose(after[0], before[0][:, :, order], atol=1e-6)
    for one, two in zip(after[1:], before[1:], strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


@pytest.mark.parametrize("whole", [16, 17, 63])
def test_in_parts_it_is_the_same_and_so_is_its_gradient(whole):
    full, parts = pvm.pvm_apply(PARAMS, QUERY, REF), pvm.pvm_apply(PARAMS, QUERY, REF, whole=whole)
    for one, two in zip(parts, full, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)
    assert pvm.pvm_apply(PARAMS, QUERY, REF, whole=whole, attention=False).attn is None

    def slopes(whole):
        def loss(query):
            return pvm.pvm_loss(pvm.pvm_apply(PARAMS, query, REF, whole=whole, attention=False), jnp.ones((2, 8, 8)), 0.0, 1.0)

        return jax.grad(loss)(QUERY)

    np.testing.assert_allclose(slopes(whole), slopes(64), atol=1e-7)


def test_the_generators_loss_is_the_formula_and_the_hinges_cut():
    out, mask = pvm.pvm_apply(PARAMS, QUERY, REF), pvm.demand(QUERY, POSE)
    by_rule = np.minimum(1, 5 * np.abs(pooled(QUERY) - pooled(POSE)).mean(-1))
    np.testing.assert_allclose(mask.reshape(2, 64), by_rule, atol=1e-5)
    _, _, score, residual = by_hand(QUERY, REF)
    rho, v = np.median(residual), np.median(score)
    expected = (by_rule * (np.maximum(residual - rho, 0) + 0.25 * np.maximum(v - score, 0))).mean()
    np.testing.assert_allclose(pvm.pvm_loss(out, mask, float(rho), float(v)), expected, rtol=1e-4)
    assert float(pvm.pvm_loss(out, mask, 10.0, -1.0)) == 0
    assert float(pvm.pvm_loss(out, jnp.zeros_like(mask), 0.0, 1.0)) == 0


def test_the_embeddings_loss_is_the_formula():
    params = PARAMS | {"slope": jnp.asarray(3.0), "offset": jnp.asarray(-1.0)}
    value, right = pvm.embedding_loss(params, QUERY, REF, POSE)
    _, _, score, residual = by_hand(QUERY, REF)
    wrong = by_hand(QUERY, POSE)[2]
    mask = np.minimum(1, 5 * np.abs(pooled(QUERY) - pooled(POSE)).mean(-1))
    one, two = (1 / (1 + np.exp(-(3.0 * x - 1.0))) for x in (score, wrong))
    expected = residual.mean() + 0.5 * (mask * 0.5 * -(np.log(one) + np.log(1 - two))).mean()
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    np.testing.assert_allclose(right.residual.reshape(2, 64), residual, atol=1e-5)
    slopes = jax.grad(lambda params: pvm.embedding_loss(params, QUERY, REF, POSE)[0])(params)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(slopes))


def test_a_frozen_embedding_gets_no_gradient_and_the_image_gets_one():
    def loss(params, query):
        out = pvm.pvm_apply(jax.lax.stop_gradient(params), query, REF, attention=False)
        return pvm.pvm_loss(out, jnp.ones((2, 8, 8)), 0.0, 1.0)

    of_params, of_query = jax.grad(loss, (0, 1))(PARAMS, QUERY)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(of_params))
    assert float(jnp.abs(of_query).max()) > 0


def test_black_images_have_finite_gradients():
    slopes = jax.grad(lambda params: pvm.embedding_loss(params, *(jnp.zeros((1, 8, 8, 3)),) * 3)[0])(pvm.init(jax.random.key(0), (4, 8)))
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(slopes))
