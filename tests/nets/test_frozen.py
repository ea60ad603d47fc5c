"""Convolutions of frozen networks: exact in double precision, differentiable in the images alone, the same functions inside a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.nets import frozen, stylegan, vgg


def same_convolution(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Cross-correlation with zeros beyond the border, tap by tap."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    return sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape)


@pytest.mark.parametrize("minimal", [False, True])
@pytest.mark.parametrize("height, width", [(4, 6), (7, 5)])
def test_convolution_and_its_gradient_are_exact(minimal, height, width):
    x, kernel, slope = drawn(2, height, width, 3), drawn(3, 3, 3, 5), drawn(2, height, width, 5)
    with jax.enable_x64(True):
        ready = frozen.freeze(jnp.asarray(kernel), minimal)
        result, pull = jax.vjp(lambda x: frozen.convolve_frozen(x, ready), jnp.asarray(x))
        np.testing.assert_allclose(result, same_convolution(x, kernel), rtol=0, atol=1e-12)
        # <f(x), slope> = <x, gradient> for a linear f
        np.testing.assert_allclose(np.sum(pull(jnp.asarray(slope))[0] * x), np.sum(same_convolution(x, kernel) * slope), rtol=1e-12)
        other = drawn(2, height, width, 3) + 1.0
        np.testing.assert_allclose(np.sum(pull(jnp.asarray(slope))[0] * other), np.sum(same_convolution(other, kernel) * slope), rtol=1e-11)


@pytest.mark.parametrize("minimal", [False, True])
def test_convolution_of_the_doubled_image_and_its_gradient_are_exact(minimal):
    x, kernel, slope = drawn(2, 4, 6, 3), drawn(3, 3, 3, 5), drawn(2, 8, 12, 5)
    doubled = x.repeat(2, 1).repeat(2, 2)
    with jax.enable_x64(True):
        ready = frozen.freeze_upsample(jnp.asarray(kernel), minimal)
        result, pull = jax.vjp(lambda x: frozen.upsample_convolve_frozen(x, ready), jnp.asarray(x))
        np.testing.assert_allclose(result, same_convolution(doubled, kernel), rtol=0, atol=1e-12)
        for i in range(3):
            other = drawn(2, 4, 6, 3) + i
            expected = np.sum(same_convolution(other.repeat(2, 1).repeat(2, 2), kernel) * slope)
            np.testing.assert_allclose(np.sum(pull(jnp.asarray(slope))[0] * other), expected, rtol=1e-11)


@pytest.mark.parametrize("minimal", [False, True])
def test_a_gradient_of_a_frozen_kernel_is_refused_not_zero(minimal):
    x = jnp.ones((1, 4, 4, 2))

    def loss(kernel):
        return frozen.convolve_frozen(x, frozen.freeze(kernel, minimal)).sum()

    with pytest.raises(ValueError, match="a frozen kernel has no gradient; train with the network's own parameters"):
        jax.grad(loss)(jnp.ones((3, 3, 2, 2)))


def test_a_frozen_generator_with_published_kernels_gives_the_same_images_and_slopes(monkeypatch):
    monkeypatch.setattr(frozen, "MINIMAL_CHANNELS", 4)
    monkeypatch.setattr(stylegan, "FUSED_FROM", 8)  # the turned kernels of published networks begin at 128 px: too slow here
    network = stylegan.Generator(widths=(6, 5, 4), latent_size=4, w_size=4, mapping_width=4, mapping_layers=1)
    with jax.enable_x64(True):
        params, state = stylegan.init(network, jax.random.key(0))
        params = jax.tree.map(lambda leaf: leaf + 0.1 * jnp.asarray(drawn(*leaf.shape), leaf.dtype), params)
        params, state = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (params, state))
        codes, slope = jnp.asarray(drawn(2, 6, 4)), jnp.asarray(drawn(2, 16, 16, 3))
        ready, prepared = stylegan.freeze(network, params, minimal=True)
        layers = prepared["synthesis"]
        assert len(layers["layer02"]["kernel"].forward) == 9 and len(layers["layer03"]["kernel"].forward) == 16
        def images_and_slopes(network, codes, noise, params):
            images, pull = jax.vjp(lambda w, noise: stylegan.synthesise(network, params, w, noise, dtype=jnp.float64), codes, noise)
            return images, pull(slope)

        noise = {name: jnp.asarray(drawn(2, *maps.shape)) for name, maps in state["noise"].items()}
        expected = jax.jit(images_and_slopes, static_argnums=0)(network, codes, noise, params)
        result = jax.jit(images_and_slopes, static_argnums=0)(ready, codes, noise, prepared)
        for mine, theirs in zip(jax.tree.leaves(result), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-9 * float(jnp.abs(theirs).max()))


def test_a_style_layers_own_gradient_is_that_of_its_formula():
    shapes = {"x": (2, 4, 6, 3), "noise": (1, 4, 6, 1), "strength": (3,), "bias": (3,), "scale": (2, 1, 1, 3), "shift": (2, 1, 1, 3)}

    def formula(x, noise, strength, bias, scale, shift):
        return stylegan.instance_norm(stylegan.leaky_relu(x + strength * noise + bias)) * (scale + 1) + shift

    with jax.enable_x64(True):
        for rows in (1, 2):
            arguments = [jnp.asarray(drawn(*(shape if name != "noise" else (rows, 4, 6, 1)))) for name, shape in shapes.items()]
            slope = jnp.asarray(drawn(2, 4, 6, 3))
            expected, pull = jax.vjp(formula, *arguments)
            result, own = jax.vjp(stylegan.modulate, *arguments)
            np.testing.assert_allclose(result, expected, atol=1e-12)
            for name, mine, theirs in zip(shapes, own(slope), pull(slope), strict=True):
                np.testing.assert_allclose(mine, theirs, atol=1e-11, err_msg=name)


def test_a_frozen_vgg_gives_the_same_maps_and_slopes(monkeypatch):
    monkeypatch.setattr(frozen, "MINIMAL_CHANNELS", 4)
    arrays, channels = {}, 3
    for name, width in zip(vgg.LAYERS[:6], (4, 4, 5, 5, 6, 6), strict=True):
        arrays |= {f"{name}.kernel": drawn(3, 3, channels, width), f"{name}.bias": drawn(width)}
        channels = width
    with jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), vgg.params(arrays))
        ready, images = vgg.freeze(params, 16, minimal=True), jnp.asarray(drawn(2, 16, 16, 3))
        assert [len(layer["kernel"].forward) for layer in ready.values()] == [1, 16, 16, 16, 16, 16]

        def total(images, params):
            return sum(jnp.sum(jnp.sin(maps)) for maps in vgg.features(params, images, ["relu1_2", "relu3_2"]).values())

        expected, slope = jax.value_and_grad(total)(images, params)
        result, own = jax.value_and_grad(total)(images, ready)
        np.testing.assert_allclose(result, expected, rtol=1e-12)
        np.testing.assert_allclose(own, slope, atol=1e-9)


def test_a_style_layer_of_a_constant_map_has_no_slope_for_its_scale():
    """What a generator's first layer is before training; a slope of rounding would be a whole step of Adam."""
    constant, ones = jnp.full((1, 4, 4, 2), 1.7), jnp.ones((2,))
    style = jnp.zeros((1, 1, 1, 2))
    slope = jnp.asarray(drawn(1, 4, 4, 2), jnp.float32)
    pull = jax.vjp(stylegan.modulate, constant, jnp.zeros((1, 4, 4, 1)), 0 * ones, 0.1 * ones, style, style)[1]
    np.testing.assert_array_equal(pull(slope)[4], 0)
