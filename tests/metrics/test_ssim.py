"""PSNR, SSIM and MS-SSIM of 8-bit images against float64 forms in 0..255 with a two-dimensional window."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.metrics import ssim

RNG = np.random.default_rng(8)
OFFSETS = np.arange(11) - 5.0
WINDOW = np.exp(-(OFFSETS[:, None] ** 2 + OFFSETS[None, :] ** 2) / (2 * 1.5**2))
WINDOW /= WINDOW.sum()
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def pair(height: int, width: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Smooth uint8 images [H, W, 3] with noise on the second."""
    y, x = np.mgrid[:height, :width] / 16
    plain = np.stack([np.sin(x + c) + np.cos(1.7 * y - c) for c in range(3)], axis=-1) * 55 + 128
    return (np.clip(plain + RNG.normal(0, s, plain.shape), 0, 255).astype(np.uint8) for s in (3, noise))


def to_float(*images) -> list[jax.Array]:
    return [jnp.asarray(np.stack(i).astype(np.float32) / 127.5 - 1) for i in images]


def maps(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """SSIM and contrast-structure of one channel, window by window."""
    a, b = (np.lib.stride_tricks.sliding_window_view(i, (11, 11)) for i in (a, b))

    def weighted(x):
        return np.einsum("ijkl,kl->ij", x, WINDOW)

    mean_a, mean_b = weighted(a), weighted(b)
    from_a, from_b = a - mean_a[..., None, None], b - mean_b[..., None, None]
    structure = (2 * weighted(from_a * from_b) + C2) / (weighted(from_a**2) + weighted(from_b**2) + C2)
    return (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1) * structure, structure


def naive_ms_ssim(real, fake) -> float:
    channels = []
    for c in range(3):
        a, b, value = real[..., c].astype(np.float64), fake[..., c].astype(np.float64), 1.0
        for scale, weight in enumerate([0.0448, 0.2856, 0.3001, 0.2363, 0.1333]):
            whole, structure = maps(a, b)
            value *= max((whole if scale == 4 else structure).mean(), 0) ** weight
            h, w = a.shape[0] // 2, a.shape[1] // 2
            a, b = (sum(i[y : 2 * h : 2, x : 2 * w : 2] for y in (0, 1) for x in (0, 1)) / 4 for i in (a, b))
        channels.append(value)
    return float(np.mean(channels))


@pytest.mark.parametrize("noise", [3, 40])
def test_psnr_and_ssim_against_float64(noise):
    pairs = [tuple(pair(29, 36, noise)) for _ in range(3)]
    real, fake = to_float([p[0] for p in pairs], [p[1] for p in pairs])
    expected = [np.mean([maps(a[..., c].astype(np.float64), b[..., c].astype(np.float64))[0].mean() for c in range(3)]) for a, b in pairs]
    np.testing.assert_allclose(jax.jit(ssim.ssim)(real, fake), expected, atol=2e-6)
    errors = [np.square(a.astype(np.float64) - b).mean() for a, b in pairs]
    np.testing.assert_allclose(jax.jit(ssim.psnr)(real, fake), 10 * np.log10(255**2 / np.asarray(errors)), rtol=1e-5)


def test_ms_ssim_against_float64_with_odd_sides():
    pairs = [tuple(pair(183, 177, noise)) for noise in (10, 60)]
    real, fake = to_float([p[0] for p in pairs], [p[1] for p in pairs])
    found = jax.jit(ssim.ms_ssim)(real, fake)
    np.testing.assert_allclose(found, [naive_ms_ssim(*p) for p in pairs], atol=2e-6)
    assert found[0] > found[1]


def test_nearly_flat_bright_images_keep_their_digits():
    # Variances of 0.1 grey levels beside means of 250: squares of the values themselves would cancel to rounding in float32.
    real, fake = (np.full((40, 40, 3), 250, np.uint8) for _ in range(2))
    fake[::7, ::5] = 251
    expected = np.mean([maps(real[..., c].astype(np.float64), fake[..., c].astype(np.float64))[0].mean() for c in range(3)])
    np.testing.assert_allclose(ssim.ssim(*to_float([real], [fake])), [expected], atol=1e-6)


def test_equal_and_inverted_images():
    real, _ = to_float([next(pair(176, 176, 1))], [next(pair(176, 176, 1))])
    np.testing.assert_allclose(ssim.ssim(real, real), 1, atol=1e-6)
    np.testing.assert_allclose(ssim.ms_ssim(real, real), 1, atol=1e-6)
    assert np.isinf(ssim.psnr(real, real)).all()
    assert ssim.ssim(real, -real)[0] < 0
    assert ssim.ms_ssim(real, -real)[0] == 0  # not NaN, though a negative mean has no fractional power


def test_wrong_images_are_named():
    good = np.zeros((1, 175, 200, 3), np.float32)
    with pytest.raises(ValueError, match="175x200 px are too small: both sides must be at least 176 px"):
        ssim.ms_ssim(good, good)
    with pytest.raises(ValueError, match="at least 11 px"):
        ssim.ssim(good[:, :10], good[:, :10])
    with pytest.raises(ValueError, match="do not pair"):
        ssim.psnr(good, good[:, :100])
    with pytest.raises(ValueError, match="real images are uint8"):
        ssim.ssim(good.astype(np.uint8), good)
    with pytest.raises(ValueError, match=r"fake images are float32 \(175, 200, 3\)"):
        ssim.ssim(good, good[0])
