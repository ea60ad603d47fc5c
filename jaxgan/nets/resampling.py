"""Pooling and resizing of images as two small matrices: one for the rows, one for the columns.

Every separable linear map of a picture is ``R @ F @ C^T``. The matrices depend on the sizes alone, so they are made in float64 on the
host and are constants of the compiled program.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


def resample(x: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    """[N, H, W, C], [h, H], [w, W] -> [N, h, w, C], in the dtype of ``x``; products keep full precision on every accelerator."""
    x = jnp.einsum("hH,NHWC->NhWC", jnp.asarray(rows, x.dtype), x, precision=lax.Precision.HIGHEST)
    return jnp.einsum("wW,NhWC->NhwC", jnp.asarray(columns, x.dtype), x, precision=lax.Precision.HIGHEST)


def _hat_integral(u: np.ndarray) -> np.ndarray:
    """Integral of max(0, 1 - |t|) over t from minus infinity to u."""
    u = np.clip(u, -1.0, 1.0)
    return np.where(u < 0, (1 + u) ** 2 / 2, 1 - (1 - u) ** 2 / 2)


def precise_pooling(length: int, bins: int) -> np.ndarray:
    """Precise region-of-interest pooling of a whole line [0, length] to ``bins`` values: [bins, length], float64.

    The line is read as the interpolant sum_i f_i max(0, 1 - |x - i|); each value is its exact integral over a bin, divided by the bin's
    length (Jiang et al., "Acquisition of Localization Confidence", ECCV 2018, equation 5). Sample i sits AT the coordinate i: the first
    sample counts half, and behind the last one the interpolant falls to 0, so that rows need not sum to 1.
    """
    edges = np.linspace(0.0, length, bins + 1)
    integrals = _hat_integral(edges[:, None] - np.arange(length))
    return (integrals[1:] - integrals[:-1]) * (bins / length)


def adaptive_pooling(length: int, bins: int) -> np.ndarray:
    """Means over the samples floor(b L / B) .. ceil((b + 1) L / B) - 1, as PyTorch's adaptive average pooling: [bins, length], float64.

    Bins may overlap, and ``bins`` may be larger than ``length``: then samples are repeated.
    """
    matrix = np.zeros((bins, length))
    for b in range(bins):
        first, end = b * length // bins, -(-(b + 1) * length // bins)
        matrix[b, first:end] = 1 / (end - first)
    return matrix


def bilinear(length: int, wanted: int) -> np.ndarray:
    """Linear interpolation with half-pixel centres and repeated borders, no antialiasing: [wanted, length], float64; rows sum to 1."""
    centre = np.clip((np.arange(wanted) + 0.5) * (length / wanted) - 0.5, 0, length - 1)
    return np.maximum(0.0, 1 - np.abs(centre[:, None] - np.arange(length)))


def bilinear_antialias(length: int, wanted: int) -> np.ndarray:
    """Linear interpolation whose hat is widened by the ratio when it shrinks: [wanted, length], float64; rows sum to 1."""
    ratio = length / wanted
    centre = (np.arange(wanted) + 0.5) * ratio - 0.5
    matrix = np.maximum(0.0, 1 - np.abs(centre[:, None] - np.arange(length)) / max(ratio, 1.0))
    return matrix / matrix.sum(1, keepdims=True)


def area(length: int, wanted: int) -> np.ndarray:
    """Means over the part of the line that each result covers, samples as boxes of length 1: [wanted, length], float64; rows sum to 1."""
    edges, start = np.linspace(0.0, length, wanted + 1), np.arange(length)
    covered = np.minimum(edges[1:, None], start + 1) - np.maximum(edges[:-1, None], start)
    return np.maximum(covered, 0.0) * (wanted / length)
