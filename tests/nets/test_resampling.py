"""Pooling and resizing matrices against integrals and loops in float64."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgan.nets.resampling import adaptive_pooling, bilinear, precise_pooling, resample


def interpolant(f: np.ndarray, y: float, x: float) -> float:
    """sum_ij f_ij max(0, 1 - |y - i|) max(0, 1 - |x - j|), by a double loop."""
    total = 0.0
    for i in range(f.shape[0]):
        for j in range(f.shape[1]):
            total += f[i, j] * max(0.0, 1 - abs(y - i)) * max(0.0, 1 - abs(x - j))
    return total


def precise_pool(f: np.ndarray, bins: int) -> np.ndarray:
    """Precise pooling by quadrature: between coordinates and bin edges the interpolant is bilinear, and 2 x 2 Gauss points are exact."""
    height, width = f.shape
    nodes = np.array([-1, 1]) / np.sqrt(3)
    out = np.zeros((bins, bins))
    for a in range(bins):
        for b in range(bins):
            low_y, high_y, low_x, high_x = a * height / bins, (a + 1) * height / bins, b * width / bins, (b + 1) * width / bins
            cuts_y = sorted({low_y, high_y, *(k for k in range(height + 1) if low_y < k < high_y)})
            cuts_x = sorted({low_x, high_x, *(k for k in range(width + 1) if low_x < k < high_x)})
            for y0, y1 in zip(cuts_y, cuts_y[1:], strict=False):
                for x0, x1 in zip(cuts_x, cuts_x[1:], strict=False):
                    points = [((y0 + y1 + s * (y1 - y0)) / 2, (x0 + x1 + t * (x1 - x0)) / 2) for s in nodes for t in nodes]
                    out[a, b] += np.mean([interpolant(f, y, x) for y, x in points]) * (y1 - y0) * (x1 - x0)
            out[a, b] /= (high_y - low_y) * (high_x - low_x)
    return out


@pytest.mark.parametrize(("height", "width", "bins"), [(8, 8, 6), (5, 7, 3), (4, 9, 1), (2, 3, 6), (6, 6, 2)])
def test_precise_pooling_is_the_integral_of_the_interpolant(height, width, bins):
    f = np.random.default_rng(bins).normal(size=(height, width))
    found = precise_pooling(height, bins) @ f @ precise_pooling(width, bins).T
    np.testing.assert_allclose(found, precise_pool(f, bins), atol=1e-12)


def test_precise_pooling_is_not_average_pooling():
    # over [0, L] the first sample counts half and the last one is followed by a fall to 0
    np.testing.assert_allclose(precise_pooling(4, 1), [[0.125, 0.25, 0.25, 0.25]])
    assert precise_pooling(8, 6)[-1].sum() < 0.7 < 0.99 < precise_pooling(8, 6)[1].sum()


@pytest.mark.parametrize(("length", "bins"), [(12, 8), (8, 12), (7, 3), (5, 5), (3, 256)])
def test_adaptive_pooling_means_over_its_bins(length, bins):
    f = np.random.default_rng(0).normal(size=length)
    means = [f[int(np.floor(b * length / bins)) : int(np.ceil((b + 1) * length / bins))].mean() for b in range(bins)]
    np.testing.assert_allclose(adaptive_pooling(length, bins) @ f, means, atol=1e-14)


@pytest.mark.parametrize(("length", "wanted"), [(4, 16), (16, 5), (6, 8), (1, 9), (7, 7)])
def test_bilinear_is_half_pixel_interpolation_with_repeated_borders(length, wanted):
    f = np.random.default_rng(1).normal(size=length)
    values = []
    for k in range(wanted):
        x = max(0.0, (k + 0.5) * length / wanted - 0.5)
        low = min(int(x), length - 1)
        high = min(low + 1, length - 1)
        values.append(f[low] * (1 - (x - low)) + f[high] * (x - low))
    np.testing.assert_allclose(bilinear(length, wanted) @ f, values, atol=1e-12)


def test_resample_acts_on_rows_and_columns_of_every_channel():
    x = np.random.default_rng(2).normal(size=(2, 5, 4, 3)).astype(np.float32)
    rows, columns = bilinear(5, 7), adaptive_pooling(4, 2)
    expected = np.stack([[rows @ x[n, :, :, c] @ columns.T for c in range(3)] for n in range(2)]).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(resample(x, rows, columns), expected, rtol=1e-5, atol=1e-6)
