"""How well photos were inverted: errors of pixels, of the target activation and of the latent, per photo and over a set.

Where the photo was generated, its latent and activation are known, and the recovered ones are compared with them: by the error of the
cosine over the channels and by Pearson's correlation, as in the scatter plots of Bau et al. (ICCV 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxgan.systems.layer_inversion_search import Inverted


def pixel_error(real: Any, fake: Any) -> np.ndarray:
    """100 times the mean square difference of images [N, H, W, C] in [-1, 1]: float64 [N]."""
    return 100 * np.square(_rows(real) - _rows(fake)).mean(1)


def psnr(real: Any, fake: Any) -> np.ndarray:
    """Peak signal to noise ratio of images [N, H, W, C] in [-1, 1], a range of 2, in decibels: float64 [N]; inf for equal images."""
    error = np.square(_rows(real) - _rows(fake)).mean(1)
    return np.where(error > 0, 10 * np.log10(4 / np.where(error > 0, error, 1)), np.inf)


def activation_error(real: Any, fake: Any) -> np.ndarray:
    """100 times the mean over pixels of 1 - cosine of the channels, of activations [N, h, w, C]: float64 [N]; pixels of zeros count 1."""
    real, fake = (np.asarray(array, np.float64) for array in (real, fake))
    if real.shape != fake.shape or real.ndim != 4:
        raise ValueError(f"activations of shape {real.shape} and {fake.shape}: two of [N, h, w, C] are needed")
    norms = np.linalg.norm(real, axis=-1) * np.linalg.norm(fake, axis=-1)
    cosines = np.where(norms > 0, (real * fake).sum(-1) / np.where(norms > 0, norms, 1), 0)
    return 100 * (1 - cosines).mean((1, 2))


def correlation(real: Any, fake: Any) -> float:
    """Pearson's correlation over all numbers of all photos together; nan where one of them is constant."""
    return float(_correlations(_rows(real).reshape(1, -1), _rows(fake).reshape(1, -1))[0])


def correlations(real: Any, fake: Any) -> np.ndarray:
    """Pearson's correlation of each photo's numbers: [N, ...] twice -> float64 [N]; nan where one of them is constant."""
    return _correlations(_rows(real), _rows(fake))


def _correlations(real: np.ndarray, fake: np.ndarray) -> np.ndarray:
    if real.shape != fake.shape:
        raise ValueError(f"{real.shape} numbers against {fake.shape}: both sets must be of the same size")
    real, fake = (array - array.mean(1, keepdims=True) for array in (real, fake))
    norms = np.linalg.norm(real, axis=1) * np.linalg.norm(fake, axis=1)
    return np.where(norms > 0, (real * fake).sum(1) / np.where(norms > 0, norms, 1), np.nan)


def _rows(array: Any) -> np.ndarray:
    array = np.asarray(array, np.float64)
    return array.reshape(len(array), -1)


def measure(result: Inverted, truth: Mapping[str, Any] | None = None, target: str = "") -> dict[str, np.ndarray]:
    """Measures of each photo, {name: float64 [N]}.

    Args:
      result: of any method.
      truth: for generated photos {'z': latents [N, *latent], target: activation}, as far as known.
      target: ``chain.target``.

    Returns:
      'pixel_error', 'psnr', 'correlation_pixels'; where known, 'correlation_z', 'activation_error' and 'correlation_activation'.
    """
    truth = truth or {}
    found = {
        "pixel_error": pixel_error(result.targets, result.images),
        "psnr": psnr(result.targets, result.images),
        "correlation_pixels": correlations(result.targets, result.images),
    }
    if "z" in truth:
        found["correlation_z"] = correlations(truth["z"], result.latents)
    if target in truth:
        found["activation_error"] = activation_error(truth[target], result.activations[target])
        found["correlation_activation"] = correlations(truth[target], result.activations[target])
    return found


def summarise(measures: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
    """Means over the photos of several batches, {name: value}; numbers that are not finite are left away, and nan is the mean of none.

    Raises:
      ValueError: batches with different measures.
    """
    names = list(measures[0]) if measures else []
    if any(list(batch) != names for batch in measures):
        raise ValueError(f"batches of different measures: {[list(batch) for batch in measures]}")
    joined = {name: np.concatenate([np.asarray(batch[name], np.float64) for batch in measures]) for name in names}
    return {name: float(array[np.isfinite(array)].mean()) if np.isfinite(array).any() else float("nan") for name, array in joined.items()}
