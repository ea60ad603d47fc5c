"""PSNR, SSIM and MS-SSIM of images in [-1, 1]: pure jax functions, float32, one value for each pair of images.

SSIM is that of Wang, Bovik, Sheikh and Simoncelli 2004 (window 11x11, sigma 1.5, K1 0.01, K2 0.03, only windows that lie inside), MS-SSIM
that of Wang, Simoncelli and Bovik 2003. The luminance term depends on where black is, so that images are moved to [0, 2] with the
data range 2: the values are those of the same images in 0..255 with the range 255. Colour channels are compared one by one and averaged.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

WINDOW = 11
SIGMA = 1.5
RANGE = 2.0
C1, C2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first (Wang et al. 2003, section 3.2)."""
LEAST_SIDE = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)
"""176: the coarsest of five scales must hold one window."""


def psnr(real: jax.Array, fake: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio in dB, ``[N]``: 10 log10(4 / mean squared error); infinite for equal images.

    Args:
      real: ``[N, H, W, C]`` in [-1, 1].
      fake: the same shape.

    Raises:
      ValueError: other shapes, or images that are not floating point.
    """
    real, fake = _checked(real, fake, 1)
    return 10 * jnp.log10(RANGE**2 / jnp.square(real - fake).mean(axis=(1, 2, 3)))


def ssim(real: jax.Array, fake: jax.Array) -> jax.Array:
    """Structural similarity, ``[N]`` in [-1, 1]; 1 for equal images.

    Args:
      real: ``[N, H, W, C]`` in [-1, 1], H and W at least 11.
      fake: the same shape.

    Raises:
      ValueError: other shapes, images that are not floating point or too small.
    """
    real, fake = _checked(real, fake, WINDOW)
    luminance, structure = _terms(real, fake)
    return (luminance * structure).mean(axis=(1, 2, 3))


def ms_ssim(real: jax.Array, fake: jax.Array) -> jax.Array:
    """Multi-scale structural similarity over five scales, ``[N]`` in [0, 1].

    Between scales images are averaged over 2x2 pixels; an odd last row or column is left out. Means below 0 count as 0, since their
    fractional powers do not exist.

    Args:
      real: ``[N, H, W, C]`` in [-1, 1], H and W at least 176.
      fake: the same shape.

    Raises:
      ValueError: other shapes, images that are not floating point or too small.
    """
    real, fake = _checked(real, fake, LEAST_SIDE)
    product = jnp.ones((real.shape[0], real.shape[3]), jnp.float32)
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            real, fake = _halve(real), _halve(fake)
        luminance, structure = _terms(real, fake)
        # The luminance is compared at the coarsest scale only.
        term = luminance * structure if scale == len(SCALE_WEIGHTS) - 1 else structure
        product *= jnp.maximum(term.mean(axis=(1, 2)), 0.0) ** weight
    return product.mean(axis=1)


def _terms(real: jax.Array, fake: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Luminance and contrast-structure maps ``[N, H-10, W-10, C]``."""
    # Local variances are shift-invariant: about each image's own middle the squares that cancel are smaller in float32.
    middle = (real.mean(axis=(1, 2), keepdims=True) + fake.mean(axis=(1, 2), keepdims=True)) / 2
    a, b = real - middle, fake - middle
    mean_a, mean_b, squares, products = jnp.split(_window(jnp.concatenate([a, b, a * a + b * b, a * b], axis=3)), 4, axis=3)
    variances = squares - mean_a * mean_a - mean_b * mean_b
    covariance = products - mean_a * mean_b
    structure = (2 * covariance + C2) / (variances + C2)
    mean_a, mean_b = mean_a + middle + 1, mean_b + middle + 1
    luminance = (2 * mean_a * mean_b + C1) / (mean_a * mean_a + mean_b * mean_b + C1)
    return luminance, structure


def _window(x: jax.Array) -> jax.Array:
    """Gaussian means over all 11x11 windows inside: a band matrix for the rows and one for the columns."""
    # At 256 px as fast on the CPU as sums of shifted images (0.06 s for 4 x 12 maps) and 10 times as fast as a convolution of one channel.
    rows, columns = _band(x.shape[1]), _band(x.shape[2])
    x = jnp.einsum("ih,nhwc->niwc", rows, x, precision="highest")
    return jnp.einsum("jw,niwc->nijc", columns, x, precision="highest")


def _band(side: int) -> np.ndarray:
    """float32 ``[side - 10, side]``: the window's weights from the diagonal on."""
    taps = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    shift = np.arange(side) - np.arange(side - WINDOW + 1)[:, None]
    inside = (shift >= 0) & (shift < WINDOW)
    return np.where(inside, (taps / taps.sum())[np.clip(shift, 0, WINDOW - 1)], 0).astype(np.float32)


def _halve(x: jax.Array) -> jax.Array:
    n, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))


def _checked(real: jax.Array, fake: jax.Array, least: int) -> tuple[jax.Array, jax.Array]:
    for name, images in (("real", real), ("fake", fake)):
        if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
            raise ValueError(f"the {name} images are {images.dtype} {tuple(images.shape)}; floats [N, H, W, C] in [-1, 1] are needed")
    if real.shape != fake.shape:
        raise ValueError(f"real images {tuple(real.shape)} and fake images {tuple(fake.shape)} do not pair: the shapes must be equal")
    if min(real.shape[1:3]) < least:
        raise ValueError(f"images of {real.shape[1]}x{real.shape[2]} px are too small: both sides must be at least {least} px")
    return jnp.asarray(real, jnp.float32), jnp.asarray(fake, jnp.float32)
