"""Losses and penalties against numpy in double precision and finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan import losses

RNG = np.random.default_rng(0)
REAL, FAKE = RNG.normal(size=(5, 1)), RNG.normal(size=(5, 1))
PREDICTION, TARGET = RNG.normal(size=(5, 3)), RNG.normal(size=(5, 3))
IMAGES = RNG.normal(size=(3, 4, 2, 3))
KERNEL = RNG.normal(size=(24, 6)) / 5


def single(x) -> jax.Array:
    return jnp.asarray(x, jnp.float32)


@pytest.mark.parametrize(
    "value, expected",
    [
        (losses.wasserstein_discriminator(single(REAL), single(FAKE)), np.mean(FAKE) - np.mean(REAL)),
        (losses.wasserstein_generator(single(FAKE)), -np.mean(FAKE)),
        (losses.gradient_penalty(single(REAL)), np.mean((REAL - 1) ** 2)),
        (losses.coordinate_error(single(PREDICTION), single(TARGET)), np.mean((PREDICTION - TARGET) ** 2)),
        (losses.absolute_error(single(PREDICTION), single(TARGET)), np.mean(np.abs(PREDICTION - TARGET))),
        (losses.interpolate(single(REAL), single(FAKE), single([[0.25]])), 0.75 * REAL + 0.25 * FAKE),
    ],
    ids=["critic", "generator", "penalty", "coordinate", "absolute", "interpolate"],
)
def test_value_equals_double_precision(value, expected):
    np.testing.assert_allclose(value, expected, rtol=2e-6, atol=1e-6)


def test_interpolation_factors_may_differ_for_each_value():
    alpha = RNG.uniform(size=IMAGES.shape)
    found = losses.interpolate(single(IMAGES), single(-2 * IMAGES), single(alpha))
    np.testing.assert_allclose(found, (1 - alpha) * IMAGES - 2 * alpha * IMAGES, rtol=1e-5, atol=1e-6)


def test_untrusted_samples_count_in_the_value_and_give_no_gradient():
    trusted = np.array([True, False, True, False, True])
    value, gradient = jax.value_and_grad(losses.coordinate_error)(single(PREDICTION), single(TARGET), jnp.asarray(trusted))
    np.testing.assert_allclose(value, np.mean((PREDICTION - TARGET) ** 2), rtol=1e-6)
    np.testing.assert_allclose(gradient, 2 * (PREDICTION - TARGET) / PREDICTION.size * trusted[:, None], rtol=1e-5)


def test_safe_norm_is_the_norm_with_gradient_zero_at_zero():
    x = single(np.stack([IMAGES[0, 0, 0], np.zeros(3), 1e-12 * IMAGES[0, 0, 1], 1e6 * IMAGES[0, 1, 1]]))
    value, pull = jax.vjp(lambda x: losses.safe_norm(x, 1), x)
    np.testing.assert_allclose(value, np.linalg.norm(np.asarray(x, np.float64), axis=1), rtol=1e-6)
    (gradient,) = pull(jnp.ones(4))
    expected = np.asarray(x, np.float64) / np.maximum(np.linalg.norm(np.asarray(x, np.float64), axis=1, keepdims=True), 1e-300)
    np.testing.assert_array_equal(gradient[1], 0.0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def critic(x, power):
    """[B, H, W, C] -> [B, 1], curved, in the number type of its inputs."""
    return power(x.reshape(x.shape[0], -1) @ KERNEL.astype(x.dtype)).sum(-1, keepdims=True)


@pytest.mark.parametrize("mode, axes", [("textbook", (1, 2, 3)), ("reference", 1)])
def test_slopes_equal_finite_differences(mode, axes):
    slopes = losses.gradient_slopes(lambda x: critic(x, jnp.tanh), single(IMAGES), mode)
    numeric = np.empty_like(IMAGES)
    for index in np.ndindex(IMAGES.shape):
        step = np.zeros_like(IMAGES)
        step[index] = 1e-5
        numeric[index] = (critic(IMAGES + step, np.tanh) - critic(IMAGES - step, np.tanh)).sum() / 2e-5
    np.testing.assert_allclose(slopes, np.sqrt((numeric**2).sum(axes)), rtol=1e-5)


@pytest.mark.parametrize("mode", ["textbook", "reference"])
def test_penalty_of_a_flat_critic_is_one_and_its_gradient_finite(mode):
    def penalty(scale):
        return losses.gradient_penalty(losses.gradient_slopes(lambda x: scale * critic(x, jnp.square), single(np.zeros_like(IMAGES)), mode))

    value, gradient = jax.value_and_grad(penalty)(jnp.float32(1.0))
    assert value == 1.0 and gradient == 0.0


def test_unknown_mode_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'height'.*'reference' or 'textbook'"):
        losses.gradient_slopes(lambda x: x.sum(), jnp.ones((1, 2, 2, 1)), "height")
