"""Convolutions with resampling folded in against the plain two-step forms, spectral normalisation and batch moments against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.nets import layers

PAIRS = {
    "up": (layers.upsample_convolve, lambda x, k: layers.convolve(layers.upsample(x), k)),
    "down": (layers.convolve_pool, lambda x, k: layers.average_pool(layers.convolve(x, k))),
}


@pytest.mark.parametrize("height", [2, 4, 6])
@pytest.mark.parametrize("name", ["up", "down"])
def test_folded_resampling_equals_the_two_steps_with_first_and_second_gradients(name, height):
    folded, plain = PAIRS[name]
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(keys[0], (2, height, 8, 3))
    kernel = jax.random.normal(keys[1], (3, 3, 3, 5))

    def values(function):
        def scalar(x, kernel):
            return jnp.sum(jnp.sin(function(x, kernel)))

        def penalty(kernel, x):  # a gradient of a gradient, as in the gradient penalty
            return jnp.sum(jnp.square(jax.grad(scalar)(x, kernel)))

        return function(x, kernel), jax.grad(scalar, (0, 1))(x, kernel), jax.grad(penalty, (0, 1))(kernel, x)

    for ours, expected in zip(*(jax.tree.leaves(jax.jit(lambda f=f: values(f))()) for f in (folded, plain)), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=2e-4 * float(jnp.abs(expected).max()))


def test_conv_layer_with_a_1x1_kernel_commutes_with_resampling():
    x = jax.random.normal(jax.random.key(0), (2, 4, 6, 3))
    for resample, after in (("up", layers.upsample), ("down", layers.average_pool)):
        layer = layers.Conv(4, 1, resample)
        variables = layer.init(jax.random.key(1), x)
        expected = after(layers.convolve(x, variables["params"]["kernel"]))
        np.testing.assert_allclose(layer.apply({"params": variables["params"]}, x), expected, atol=1e-5)


def test_spectral_normalisation_reaches_the_largest_singular_value():
    """Iterated, the estimate converges to numpy's, and the step itself is the float64 formula."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 6))
    u = np.random.default_rng(1).normal(size=(1, 6))
    params = {"layer": {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.zeros(6)}}
    spectral = {"layer": {"u": jnp.asarray(u, jnp.float32)}}
    normalised, once = layers.spectral_normalise(params, spectral)
    matrix = kernel.reshape(-1, 6)
    right = u @ matrix.T
    right /= np.linalg.norm(right)
    left = right @ matrix
    sigma = np.linalg.norm(left)
    np.testing.assert_allclose(once["layer"]["u"], left / sigma, rtol=1e-5)
    np.testing.assert_allclose(normalised["layer"]["kernel"], kernel / sigma, rtol=1e-5)
    assert normalised["layer"]["bias"] is params["layer"]["bias"]
    for _ in range(100):
        normalised, spectral = layers.spectral_normalise(params, spectral)
    largest = np.linalg.svd(np.asarray(normalised["layer"]["kernel"], np.float64).reshape(-1, 6), compute_uv=False)[0]
    assert largest == pytest.approx(1.0, abs=1e-4)


def test_gradient_through_the_power_iteration_against_finite_differences():
    """The default differentiates through u' and v; with ``stop_gradient`` the gradient is another one."""
    with jax.enable_x64(True):
        kernel = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)))
        spectral = {"u": jnp.asarray(np.random.default_rng(1).normal(size=(1, 4)))}
        weights = jnp.asarray(np.random.default_rng(2).normal(size=(5, 4)))

        def scalar(kernel, stop):
            return jnp.sum(weights * layers.spectral_normalise({"kernel": kernel}, spectral, stop)[0]["kernel"])

        exact, stopped = (np.asarray(jax.grad(scalar)(kernel, stop)) for stop in (False, True))
        step = 1e-6
        numeric = np.zeros((5, 4))
        for i, j in np.ndindex(5, 4):
            nudge = jnp.zeros((5, 4)).at[i, j].set(step)
            numeric[i, j] = (scalar(kernel + nudge, False) - scalar(kernel - nudge, False)) / (2 * step)
    np.testing.assert_allclose(exact, numeric, atol=1e-7)
    assert np.abs(stopped - numeric).max() > 1e-3


def test_batch_norm_of_a_single_value_is_its_shift():
    layer = layers.BatchNorm()
    x = jnp.asarray([[3.0, -7.0]])
    variables = layer.init(jax.random.key(0), x, True)
    params = {"gamma": jnp.asarray([2.0, 3.0]), "beta": jnp.asarray([0.5, -0.5])}
    y, changed = layer.apply({"params": params, "stats": variables["stats"]}, x, True, mutable=["stats"])
    np.testing.assert_array_equal(y, [[0.5, -0.5]])
    assert np.all(np.isfinite(changed["stats"]["variance"]))
