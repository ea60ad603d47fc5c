"""Inception against reference features of the published weights, and the resizes that come before it."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan import weights
from jaxgan.nets import inception

rng = np.random.default_rng(0)


def test_features_of_three_photographs_agree(shared):
    """1e-5 of the largest feature with the stored float16 weights; 0.1 % in length with the original float32 ones."""
    folder = shared / "weights"
    params = inception.params(weights.load("inception", folder / weights.KNOWN["inception"].file))
    with np.load(folder / "inception_2015_12_05_fid.golden.npz") as file:
        images, stored, original = file["images"], file["features_f16weights"], file["features_f32weights"]
    found = np.asarray(inception.features(params, jnp.asarray(images)))
    assert found.shape == (3, 2048) and found.dtype == np.float32
    assert np.abs(found - stored).max() <= 1e-5 * stored.max()
    assert np.linalg.norm(found - original) <= 2e-3 * np.linalg.norm(original)


def test_the_names_are_94_convolutions_and_a_missing_or_wrong_array_is_named():
    assert len(inception.UNITS) == 94 == len(set(inception.UNITS))
    with pytest.raises(ValueError, match="'conv.weight' is missing"):
        inception.params({"conv1_1.kernel": np.zeros(3)})
    wrong = {"conv.weight": np.zeros((3, 3, 3, 32)), "conv.beta": np.zeros(32), "conv.mean": np.zeros(32), "conv.var": np.zeros(16)}
    with pytest.raises(ValueError, match=r"Inception conv: .*\(16,\)"):
        inception.params(wrong)
    with pytest.raises(ValueError, match=r"expected \[N, 299, 299, 3\]"):
        inception.features({}, jnp.zeros((1, 256, 256, 3)))


def matrix(length, size, mode):
    """[size, length] in float64: each output's weights of the inputs along one axis."""
    rows = np.zeros((size, length))
    scale = length / size
    for i in range(size):
        if mode in ("tf-bilinear", "bilinear"):
            place = i * scale if mode == "tf-bilinear" else max((i + 0.5) * scale - 0.5, 0.0)
            low = min(int(place), length - 1)
            rows[i, low] += 1 - (place - low)
            rows[i, min(low + 1, length - 1)] += place - low
            continue
        support, kernel = {"clean": (2.0, cubic), "lanczos": (3.0, lanczos)}[mode]
        stretch, centre = max(scale, 1.0), (i + 0.5) * scale
        for j in range(length):
            # Pillow cuts the window at whole pixels: floor(centre -+ support + 1/2)
            if int(centre - support * stretch + 0.5) <= j < int(centre + support * stretch + 0.5) or support * stretch > length:
                rows[i, j] = kernel((j + 0.5 - centre) / stretch)
        rows[i] /= rows[i].sum()
    return rows


def cubic(x):
    """Keys' kernel with a = -1/2."""
    x = abs(x)
    return 1.5 * x**3 - 2.5 * x**2 + 1 if x < 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def lanczos(x):
    return np.sinc(x) * np.sinc(x / 3) if abs(x) < 3 else 0.0


@pytest.mark.parametrize("shape", [(32, 48), (500, 310)])
@pytest.mark.parametrize("mode", inception.RESIZES)
def test_each_resize_is_its_formula(mode, shape):
    """Against two matrices in float64, in grey levels. Bilinear positions are rounded to float32 (3e-5 px at 500), steps reach 255."""
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    rows = np.tensordot(matrix(shape[0], 299, mode), image.astype(np.float64), 1)
    expected = np.einsum("jw,iwc->ijc", matrix(shape[1], 299, mode), rows, optimize=True)
    found = inception.resize_for_inception(image, mode)
    assert found.dtype == np.float32 and found.shape == (299, 299, 3)
    limit = 0.02 if "bilinear" in mode else 1e-3
    np.testing.assert_allclose(found, np.clip(expected, 0, 255), atol=limit)


def test_bilinear_with_half_pixels_has_the_reference_values(golden):
    with np.load(golden / "vgg16_narrow.npz") as file:
        image, expected = np.moveaxis(file["image"][0], 0, -1), np.moveaxis(file["resize_bilinear_quarter_no_antialias"][0], 0, -1)
    np.testing.assert_allclose(inception.bilinear(image, 16, 16, half_pixel=True), expected, atol=1e-6)


def test_modes_differ_on_a_photograph_sized_image_and_agree_at_299():
    small = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    resized = [inception.resize_for_inception(small, mode) for mode in inception.RESIZES]
    assert all(np.abs(a - b).max() > 1 for i, a in enumerate(resized) for b in resized[:i])
    exact = rng.integers(0, 256, (299, 299, 3), dtype=np.uint8)
    for mode in inception.RESIZES:
        np.testing.assert_array_equal(inception.resize_for_inception(exact, mode), exact)
    for wrong, why in ((small[..., 0], r"shape \(64, 64\)"), (small.astype(np.float64), "float64")):
        with pytest.raises(ValueError, match=why):
            inception.resize_for_inception(wrong)
    with pytest.raises(ValueError, match="'area': one of tf-bilinear"):
        inception.resize_for_inception(small, "area")
