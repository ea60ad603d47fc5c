"""MobileStyleGAN's networks against the graph's published outputs, and against the same formulas in double precision."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mobile_stylegan_reference as reference
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxgan import weights
from jaxgan.nets import mobile_stylegan as nets
from jaxgan.nets import mobile_stylegan_layers as layers

WIDTHS = (16, 12, 8)


@pytest.fixture(scope="module")
def small():
    """(published-style arrays, params, noise) of a network of 32 px whose widths all differ."""
    arrays = reference.random_arrays(np.random.default_rng(3), WIDTHS, 6, 3)
    return arrays, nets.params(arrays), nets.stored_noise(arrays)


def codes_of(seed: int, n: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 8, 6), np.float32)


def test_mapping_and_images_are_those_of_the_published_graph(shared):
    folder = shared / "weights"
    golden = np.load(folder / "mobilestylegan_ffhq1024.golden.npz")
    arrays = weights.load("mobilestylegan", folder / "mobilestylegan_ffhq1024.safetensors")
    params, noise = nets.params(arrays), nets.stored_noise(arrays)
    assert nets.rows(nets.layers_of(params)) == nets.ROWS and len(nets.ROWS) == 23 and nets.resolution_of(params) == 1024
    w = jax.jit(nets.map_latents)(params, golden["z"])
    np.testing.assert_allclose(w, golden["w"], atol=2e-5)

    draw = jax.jit(nets.synthesise)
    codes = nets.extend(params, nets.truncate(jnp.asarray(golden["w"]), golden["w_mean"], float(golden["truncation"])))
    for i in range(3):
        image = np.asarray(draw(params, codes[i : i + 1], noise))[0]
        if i == 0:
            # the arrays are stored in half precision, the reference is not
            error = np.abs(image[448:576, 448:576] - golden["image0_crop_f32"].transpose(1, 2, 0))
            assert error.max() < 2e-2 and error.mean() < 1e-3
        small = np.round((np.clip(image, -1, 1).reshape(128, 8, 128, 8, 3).mean((1, 3)) + 1) * 127.5)
        assert np.abs(small - golden["image_uint8_box128"][i]).max() <= 1


def test_a_small_network_is_the_double_precision_one(small):
    arrays, params, noise = small
    wanted = reference.Reference(arrays)
    z = np.random.default_rng(0).standard_normal((3, 6), np.float32)
    np.testing.assert_allclose(nets.map_latents(params, z), wanted.map_latents(z), atol=1e-5)
    codes = codes_of(1)
    images = np.asarray(jax.jit(nets.synthesise)(params, codes, noise))
    assert images.shape == (2, 32, 32, 3)
    for image, code in zip(images, codes, strict=True):
        # each row of a code differs, so a row read by another operator would show
        expected = wanted.synthesise(code.astype(np.float64)).transpose(1, 2, 0)
        np.testing.assert_allclose(image, expected, atol=2e-5 * np.abs(expected).max())


def test_inverse_wavelets_against_the_transposed_convolutions():
    bands = np.random.default_rng(0).standard_normal((2, 3, 5, 8))
    with jax.enable_x64(True):
        image = layers.inverse_haar(jnp.asarray(bands))
        back = layers.haar(image)
    count = 2
    # this library's bands lie one after another, the published ones are interleaved
    published = np.concatenate([bands[..., :count], bands[..., count:].reshape(2, 3, 5, 3, count).swapaxes(3, 4).reshape(2, 3, 5, 6)], -1)
    for one, wanted in zip(image, published, strict=True):
        np.testing.assert_allclose(one, reference.inverse_haar(wanted.transpose(2, 0, 1)).transpose(1, 2, 0), atol=1e-12)
    np.testing.assert_allclose(back, bands, atol=1e-12)


def test_gradients_of_the_operations_are_those_of_finite_differences():
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, factors = jnp.asarray(rng.standard_normal((2, 4, 6, 4))), jnp.asarray(rng.standard_normal((2, 4)))
        taps, kernel = jnp.asarray(rng.standard_normal((3, 3, 4, 1))), jnp.asarray(rng.standard_normal((1, 1, 4, 3)))
        for function, arguments in (
            (layers.inverse_haar, (x,)),
            (layers.haar, (x,)),
            (layers.depthwise, (x, taps)),
            (layers.modulated_pointwise, (x, factors, kernel)),
            (layers.convolve_small, (x, jnp.asarray(rng.standard_normal((3, 3, 4, 2))))),
            (layers.leaky_relu, (x,)),
        ):
            check_grads(jax.jit(function), arguments, 1, ["rev"], atol=1e-7, rtol=1e-7)


def test_the_gradient_of_an_image_with_respect_to_codes_and_noise(small):
    _, params, noise = small
    with jax.enable_x64(True):
        params, noise = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (params, noise))
        codes, target = jnp.asarray(codes_of(4), jnp.float64), jnp.asarray(np.random.default_rng(1).standard_normal((2, 32, 32, 3)))

        @jax.jit
        def loss(codes, noise):
            return jnp.sum(nets.synthesise(params, codes, noise) * target)

        rng = np.random.default_rng(2)
        step = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), (codes, noise))
        gradient = jax.jit(jax.grad(loss, (0, 1)))(codes, noise)
        slope = sum(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(step), strict=True))
        forth, back = (jax.tree.map(lambda a, b, s=sign: a + s * 1e-6 * b, (codes, noise), step) for sign in (1, -1))
        np.testing.assert_allclose(slope, (loss(*forth) - loss(*back)) / 2e-6, rtol=1e-5)


def test_the_image_is_made_from_behind_each_of_the_activations(small):
    _, params, noise = small
    codes = jnp.asarray(codes_of(5))
    whole = jax.jit(nets.synthesise)(params, codes, noise)
    names = nets.rows(nets.layers_of(params))
    found = jax.jit(nets.activations)(params, codes, noise)
    assert set(found) == set(names) and names == (
        "conv1",
        *(f"layer{i}_{part}" for i in (0, 1) for part in ("up", "conv1", "conv2")),
        "to_img",
    )
    assert [found[name].shape[1] for name in names] == [nets.side_of(name) for name in names[:-1]] + [16]

    @jax.jit
    def resumed(found):
        # the rows of codes before the start play no part
        rests = (codes.at[:, : row + 1].set(jnp.nan) for row in range(len(names)))
        return {name: nets.synthesise(params, rest, noise, start=(name, found[name])) for name, rest in zip(names, rests, strict=True)}

    for image in resumed(found).values():
        np.testing.assert_allclose(image, whole, atol=1e-4)


def test_noise_of_each_image_and_shared_noise(small):
    _, params, noise = small
    codes, draw = codes_of(6), jax.jit(nets.synthesise)
    each = {name: np.stack([maps, 2 * maps]) for name, maps in noise.items()}
    images = draw(params, codes, each)
    for i, factor in enumerate((1, 2)):
        shared_by_both = draw(params, codes, {name: factor * maps for name, maps in noise.items()})
        np.testing.assert_allclose(images[i], shared_by_both[i], atol=1e-5)
    assert np.abs(images[1] - draw(params, codes, noise)[1]).max() > 0.01


def test_what_does_not_fit_is_refused(small):
    arrays, params, noise = small
    with pytest.raises(ValueError, match=r"codes of shape \(2, 7, 6\); this generator takes \[N, 8, 6\]"):
        nets.synthesise(params, codes_of(0)[:, 1:], noise)
    with pytest.raises(ValueError, match="no activation 'layer2_up'"):
        nets.activations(params, codes_of(0), noise, ["layer2_up"])
    with pytest.raises(ValueError, match="no activation 'rgb' to start behind"):
        nets.synthesise(params, codes_of(0), noise, start=("rgb", jnp.zeros((2, 4, 4, 3))))
    with pytest.raises(ValueError, match=r"takes \[N, 6\]"):
        nets.map_latents(params, np.zeros((2, 5), np.float32))
    for gone in ("snet.m.conv1@Convolution", "snet.m.layers.1.up.modulation.bias", "mnet.g@Reshape"):
        rest = {name: array for name, array in arrays.items() if not name.startswith(gone)}
        with pytest.raises(ValueError, match=gone.replace(".", r"\.")):
            nets.params(rest)
    slope = {name: array * 2 if "@PReLU" in name else array for name, array in arrays.items()}
    with pytest.raises(ValueError, match="slope 0.4"):
        nets.params(slope)
