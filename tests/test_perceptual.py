"""The embedding loss: resizing, normalisation and distances against reference values, and against formulas in numpy."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan import perceptual
from jaxgan.nets import resampling, vgg

TAPS = ("relu1_1", "relu1_2", "relu3_2", "relu4_2")


def nhwc(array):
    return jnp.asarray(np.moveaxis(array, 1, -1))


def assert_close(found, expected, limit):
    assert found.shape == expected.shape
    assert np.abs(np.asarray(found) - expected).max() <= limit * np.abs(expected).max()


@pytest.fixture(scope="module")
def narrow(shared):
    with np.load(shared / "golden" / "vgg16_narrow.npz") as file:
        reference = dict(file)
    from safetensors.numpy import load_file

    return reference, vgg.params(load_file(shared / "golden" / "vgg16_narrow.safetensors"))


def test_the_three_kernels_at_a_quarter_and_at_the_double(narrow):
    reference, _ = narrow
    images = nhwc(reference["image"])
    assert_close(perceptual.resize(images, 16), nhwc(reference["resize_area_quarter"]), 1e-6)
    assert_close(perceptual.resize(images, 16, "bilinear"), nhwc(reference["resize_bilinear_quarter_no_antialias"]), 1e-6)
    assert_close(perceptual.resize(images, 16, "bilinear_antialias"), nhwc(reference["resize_bilinear_quarter_antialias"]), 1e-6)
    for kernel in ("bilinear", "bilinear_antialias"):
        assert_close(perceptual.resize(images[:1], 128, kernel), nhwc(reference["resize_bilinear_double"]), 1e-6)


def test_bilinear_without_antialiasing_against_the_kept_reference(golden):
    with np.load(golden / "vgg16_narrow.npz") as file:
        found = perceptual.resize(nhwc(file["image"]), 16, "bilinear")
        assert_close(found, nhwc(file["resize_bilinear_quarter_no_antialias"]), 1e-6)


def test_area_means_what_each_pixel_covers_at_any_ratio():
    """64 -> 48 by way of 192, which both divide: repeat three times, mean over four; and the matrix against the exact mean."""
    images = np.random.default_rng(0).normal(size=(2, 64, 32, 3)).astype(np.float32)
    fine = images.repeat(3, 1).reshape(2, 48, 4, 32, 3).mean(2)
    np.testing.assert_allclose(perceptual.resize(jnp.asarray(images), (48, 32)), fine, atol=1e-6)
    np.testing.assert_allclose(perceptual.resize(jnp.asarray(images), (128, 64)), images.repeat(2, 1).repeat(2, 2), atol=1e-6)
    for matrix in (resampling.area(64, 48), resampling.area(5, 7), resampling.bilinear_antialias(64, 17)):
        np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-12)
    whole = resampling.area(64, 16)
    np.testing.assert_allclose(whole, np.repeat(np.eye(16), 4, 1) / 4, atol=1e-12)


@pytest.mark.parametrize("normalisation", ["torchvision", "caffe", "unit"])
def test_inputs_and_distances_under_every_normalisation(narrow, normalisation):
    reference, params = narrow
    images = nhwc(reference["image"])
    assert_close(perceptual.normalise(images, normalisation), nhwc(reference[f"input_{normalisation}"]), 1e-6)
    options = perceptual.Options(taps=TAPS, weights=(1.0, 2.0, 3.0, 4.0), mse=0.5, normalisation=normalisation, size=None)
    targets = perceptual.targets(params, images[1:], options)
    losses, parts = perceptual.compare(params, images[:1], targets, options)
    expected = reference[f"percept_0_vs_1_{normalisation}"]
    np.testing.assert_allclose([parts[tap][0] for tap in TAPS], expected, rtol=1e-5)
    mse = np.square(reference["image"][0].astype(np.float64) - reference["image"][1]).mean()
    np.testing.assert_allclose(parts["mse"][0], mse, rtol=1e-5)
    np.testing.assert_allclose(losses[0], 0.5 * mse + np.dot([1, 2, 3, 4], expected), rtol=1e-5)


def test_ranges_and_distances_of_pixels_and_each_image_by_itself():
    rng = np.random.default_rng(1)
    images, aims = rng.uniform(-1, 1, (2, 3, 8, 8, 3)).astype(np.float32)
    options = perceptual.Options(taps=(), weights=(), size=None)
    difference = images.astype(np.float64) - aims

    def mse(**changes):
        changed = dataclasses.replace(options, **changes)
        losses, parts = perceptual.compare({}, jnp.asarray(images), perceptual.targets({}, jnp.asarray(aims), changed), changed)
        np.testing.assert_array_equal(losses, parts["mse"] * np.float32(changed.mse))
        return parts["mse"]

    np.testing.assert_allclose(mse(), np.square(difference).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(mse(mse_range="unit", mse=2.0), np.square(difference / 2).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(mse(distance="absolute"), np.abs(difference).mean((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(mse(distance="absolute", mse_range="unit"), np.abs(difference / 2).mean((1, 2, 3)), rtol=1e-5)


def test_the_network_sees_the_size_that_is_asked_for_and_pixels_are_compared_at_full_size(narrow):
    reference, params = narrow
    images = nhwc(reference["image"])
    options = perceptual.Options(taps=("conv3_2",), weights=(1.0,), size=16)
    targets = perceptual.targets(params, images, options)
    assert targets["maps"]["conv3_2"].shape == (2, 4, 4, 12) and targets["image"].shape == images.shape
    found = jax.grad(lambda x: perceptual.compare(params, x, targets, options)[0].sum())(images + 0.1)
    assert np.isfinite(np.asarray(found)).all()
    seen = vgg.features(params, vgg.scale_imagenet(nhwc(reference["resize_area_quarter"])), ["conv3_2"])["conv3_2"]
    assert_close(targets["maps"]["conv3_2"], np.asarray(seen), 1e-5)


def test_masks_weigh_differences_and_style_compares_products_of_channels(narrow):
    reference, params = narrow
    images = nhwc(reference["image"])
    mask = np.zeros((2, 64, 64), np.float32)
    mask[:, 16:40, 8:] = 1.0
    mask[1, :, :32] *= 0.5
    options = perceptual.Options(taps=("relu1_1", "relu3_2"), weights=(1.0, 1.0), size=None, style=("relu3_2",), style_weights=(2.0,))
    targets = perceptual.targets(params, images[::-1], options, jnp.asarray(mask))
    losses, parts = perceptual.compare(params, images, targets, options)
    maps = {tap: np.float64(reference[f"feat_torchvision/conv{tap[4:]}"]) for tap in options.taps}
    small = mask.reshape(2, 16, 4, 16, 4).mean((2, 4))
    for name, found, weight in (("mse", reference["image"], mask), ("relu1_1", maps["relu1_1"], mask), ("relu3_2", maps["relu3_2"], small)):
        expected = np.square((np.float64(found) - found[::-1]) * weight[:, None]).mean((1, 2, 3))
        np.testing.assert_allclose(parts[name], expected, rtol=2e-5)
    grams = [
        np.einsum("nchw,ndhw,nhw->ncd", x, x, small) / small.sum((1, 2))[:, None, None] for x in (maps["relu3_2"], maps["relu3_2"][::-1])
    ]
    np.testing.assert_allclose(parts["style_relu3_2"], np.square(grams[0] - grams[1]).mean((1, 2)), rtol=1e-4)
    whole = parts["mse"] + parts["relu1_1"] + parts["relu3_2"] + 2 * parts["style_relu3_2"]
    np.testing.assert_allclose(losses, whole, rtol=1e-5)
    plain = np.einsum("nchw,ndhw->ncd", maps["relu3_2"], maps["relu3_2"]) / 256
    np.testing.assert_allclose(perceptual.gram(nhwc(reference["feat_torchvision/conv3_2"])), plain, rtol=1e-4, atol=1e-5)
    outside = jnp.asarray(np.where(mask[..., None] > 0, images, 5.0).astype(np.float32))
    pixels = perceptual.Options(taps=(), weights=())
    aims = perceptual.targets({}, images, pixels, jnp.asarray(mask))
    np.testing.assert_array_equal(perceptual.compare({}, outside, aims, pixels)[0], np.zeros(2))
    with pytest.raises(ValueError, match=r"masks of shape \(2, 16, 16\) for images of \(2, 64, 64, 3\)"):
        perceptual.targets(params, images, options, jnp.asarray(small))


def test_wrong_options_and_sizes_are_refused_with_the_values():
    for changes, words in (
        ({"mse_range": "half"}, "mse_range 'half' is not one of signed, unit"),
        ({"normalisation": "vgg"}, "normalisation 'vgg' is not one of torchvision, caffe"),
        ({"kernel": "cubic"}, "kernel 'cubic' is not one of area"),
        ({"taps": ("relu1_1",)}, "each tap once, with one weight"),
        ({"mse": float("nan")}, "finite numbers from 0"),
        ({"mse": 0.0, "weights": (0.0,) * 4}, "nothing to minimise"),
        ({"size": 0}, "a side in pixels from 1"),
    ):
        with pytest.raises(ValueError, match=words):
            perceptual.Options(**changes)
    options = perceptual.Options(taps=(), weights=())
    with pytest.raises(ValueError, match=r"\(1, 8, 8, 3\) and targets of \(1, 4, 4, 3\)"):
        perceptual.compare({}, jnp.zeros((1, 8, 8, 3)), perceptual.targets({}, jnp.zeros((1, 4, 4, 3)), options), options)
    with pytest.raises(ValueError, match="one of area, bilinear"):
        perceptual.resize(jnp.zeros((1, 8, 8, 3)), 4, "lanczos")
