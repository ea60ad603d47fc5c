"""What a swap of identity and pose is measured by: plain numpy functions over arrays, one value for each image or pair.

Images are float in [0, 1] unless a line says otherwise. Which of these figures are computed of what, and what stands beside them as floor
and ceiling, is in ``jaxgan.swap_scores``; here are only the formulas.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

WINDOW = 7
"""Side of SSIM's uniform window in pixels."""
C1, C2 = 0.01**2, 0.03**2
RANKS = (1, 2, 5, 10)


def psnr(real: Any, fake: Any) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of images [N, H, W, C] in [0, 1]: 10 log10(1 / mean squared error), float64 [N].

    Infinite for equal images. ValueError for other shapes or types.
    """
    with np.errstate(divide="ignore"):
        return -10 * np.log10(squared_error(real, fake))


def squared_error(real: Any, fake: Any) -> np.ndarray:
    """Mean squared difference of images [N, H, W, C] in any range, float64 [N]; of images in [-1, 1] it is 4 times that in [0, 1]."""
    real, fake = _checked(real, fake)
    return np.square(real - fake).mean((1, 2, 3))


def absolute_error(real: Any, fake: Any) -> np.ndarray:
    """Mean absolute difference of images [N, H, W, C] in any range, float64 [N]."""
    real, fake = _checked(real, fake)
    return np.abs(real - fake).mean((1, 2, 3))


def foreground_error(real: Any, fake: Any, mask: Any) -> np.ndarray:
    """Mean absolute difference inside the real image's mask, bool [N, H, W]; float64 [N], NaN where the mask is empty."""
    real, fake = _checked(real, fake)
    mask = np.asarray(mask, bool)
    if mask.shape != real.shape[:3]:
        raise ValueError(f"masks {mask.shape} do not belong to images {real.shape}: give [N, H, W]")
    inside = mask.sum((1, 2)) * real.shape[3]
    with np.errstate(invalid="ignore"):
        return (np.abs(real - fake) * mask[..., None]).sum((1, 2, 3)) / inside


def block_errors(real: Any, fake: Any, blocks: int = 4) -> np.ndarray:
    """Mean absolute difference in each of blocks x blocks equal parts of the image: float64 [N, blocks, blocks].

    ValueError where the sides do not divide so.
    """
    real, fake = _checked(real, fake)
    n, height, width, channels = real.shape
    if height % blocks or width % blocks:
        raise ValueError(f"images of {height}x{width} px do not divide into {blocks} x {blocks} blocks")
    cells = np.abs(real - fake).reshape(n, blocks, height // blocks, blocks, width // blocks, channels)
    return cells.mean((2, 4, 5))


def ssim(real: Any, fake: Any) -> np.ndarray:
    """Structural similarity of images [N, H, W, C] in [0, 1] with a uniform window of 7 px, float64 [N]; 1 for equal images.

    Wang, Bovik, Sheikh and Simoncelli 2004 with K1 0.01, K2 0.03, means over the windows that lie inside, and variances divided by 48 (the
    window's pixels less one). Channels are compared one by one and averaged. ``jaxgan.metrics.ssim`` has the Gaussian window of 11 px.

    Raises:
      ValueError: other shapes, or a side below 7 px.
    """
    real, fake = _checked(real, fake)
    if min(real.shape[1:3]) < WINDOW:
        raise ValueError(f"images of {real.shape[1]}x{real.shape[2]} px are too small: both sides must be at least {WINDOW} px")
    mean_a, mean_b = _window(real), _window(fake)
    unbiased = WINDOW**2 / (WINDOW**2 - 1)
    variances = unbiased * (_window(real * real) - mean_a**2 + _window(fake * fake) - mean_b**2)
    covariance = unbiased * (_window(real * fake) - mean_a * mean_b)
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return (luminance * (2 * covariance + C2) / (variances + C2)).mean((1, 2, 3))


def _window(images: np.ndarray) -> np.ndarray:
    """Means over all 7 x 7 windows inside: [N, H, W, C] -> [N, H - 6, W - 6, C]."""
    for axis in (1, 2):
        last = images.shape[axis] - WINDOW + 1
        images = sum(np.take(images, range(first, first + last), axis) for first in range(WINDOW)) / WINDOW
    return images


def copied(fake: Any, truth: Any, source: Any) -> np.ndarray:
    """bool [N]: the fake is nearer to the source than to the truth by mean absolute difference."""
    return absolute_error(fake, source) < absolute_error(fake, truth)


def angle_error(first: Any, second: Any) -> np.ndarray:
    """Absolute difference of angles in radians around the circle, in degrees from 0 to 180; any equal shapes."""
    turn = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    return np.degrees(np.abs(np.arctan2(np.sin(turn), np.cos(turn))))


def position_error(first: Any, second: Any, size: int) -> np.ndarray:
    """Euclidean distance in pixels of positions [N, 2] in units of half the image's side, which is ``size`` pixels: [N]."""
    away = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    return np.linalg.norm(away, axis=-1) * size / 2


def leak(accuracy: float, chance: float) -> float:
    """(accuracy - chance) / (1 - chance): 0 at chance, 1 where the probe is always right. ValueError for a chance outside [0, 1)."""
    if not 0 <= chance < 1:
        raise ValueError(f"a chance of {chance}: with one class there is nothing to tell; give a number from 0 to below 1")
    return (accuracy - chance) / (1 - chance)


def r2(truth: Any, predicted: Any) -> np.ndarray:
    """Coefficient of determination of each column: [N, P] twice -> [P]; 1 is exact, 0 the mean; NaN where the truth does not vary."""
    truth, predicted = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    if truth.shape != predicted.shape or truth.ndim != 2:
        raise ValueError(f"truth {truth.shape} and predictions {predicted.shape}: give [N, P] twice")
    total = np.square(truth - truth.mean(0)).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, 1 - np.square(truth - predicted).sum(0) / total, np.nan)


def retrieval(codes: Any, labels: Any, ranks: Sequence[int] = RANKS, block: int = 512, apart: Any = None) -> dict[str, float]:
    """Does the nearest code belong to the same label? Mean average precision and cumulative matching by Euclidean distance.

    Every code is a query against all others; the query itself is left out, and queries whose label no other code has do not count.

    Args:
      codes: [N, d].
      labels: int [N].
      ranks: of the cumulative matching characteristic.
      block: queries compared at once.
      apart: int [N], for instance the clip of each image: a query is not compared with images of its own part, whose likeness may be of
        the moment and not of the label.

    Returns:
      'map', 'top1', 'top2', ... in [0, 1], and 'queries'.

    Raises:
      ValueError: no label is there twice, or numbers that do not fit.
    """
    codes, labels = np.asarray(codes, np.float64), np.asarray(labels)
    if codes.ndim != 2 or labels.shape != codes.shape[:1]:
        raise ValueError(f"codes {codes.shape} and labels {labels.shape}: give [N, d] and [N]")
    apart = np.arange(len(codes)) if apart is None else np.asarray(apart)
    precisions, firsts = [], []
    squares = np.square(codes).sum(1)
    for start in range(0, len(codes), block):
        rows = np.arange(start, min(start + block, len(codes)))
        distances = squares[rows, None] + squares[None] - 2 * codes[rows] @ codes.T
        distances[apart[rows, None] == apart[None]] = np.inf  # they sort last, and are no hits
        order = np.argsort(distances, 1, kind="stable")
        hits = (labels[order] == labels[rows, None]) & (apart[order] != apart[rows, None])
        hits = hits[hits.any(1)]
        share = np.cumsum(hits, 1) / np.arange(1, hits.shape[1] + 1)
        precisions.append((share * hits).sum(1) / hits.sum(1))
        firsts.append(hits.argmax(1))
    precision, first = np.concatenate(precisions), np.concatenate(firsts)
    if not len(first):
        raise ValueError(f"none of {len(codes)} codes has another of its label: retrieval needs two images of an identity")
    found = {f"top{rank}": float((first < rank).mean()) for rank in ranks}
    return {"map": float(precision.mean()), **found, "queries": len(first)}


def _checked(real: Any, fake: Any) -> tuple[np.ndarray, np.ndarray]:
    real, fake = np.asarray(real), np.asarray(fake)
    for images in (real, fake):
        if images.ndim != 4 or images.dtype.kind != "f":
            raise ValueError(f"images are {images.dtype} {images.shape}; floats [N, H, W, C] are needed")
    if real.shape != fake.shape:
        raise ValueError(f"images {real.shape} and {fake.shape} do not pair: the shapes must be equal")
    return real.astype(np.float64), fake.astype(np.float64)
