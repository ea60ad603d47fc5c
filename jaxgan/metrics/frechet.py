"""Fréchet distance of two normal distributions: one form for FID and for the Fréchet Segmentation Distance, float64 on the host.

|m_r - m_f|^2 + Tr(S_r + S_f - 2 (S_r S_f)^(1/2)) (Dowson and Landau 1982; Heusel et al. 2017, section 2; Bau et al. 2019, section 3).
The product S_r S_f is not symmetric and its general square root can turn complex. Its eigenvalues are those of R S_f R with R the
symmetric root of S_r, which is symmetric and positive semidefinite: the trace of the root is the sum of the roots of those eigenvalues.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Frechet(NamedTuple):
    """A squared distance and its two parts; ``total == mean + covariance``, none of them negative or NaN."""

    total: float
    mean: float
    """|m_r - m_f|^2."""
    covariance: float
    """The trace term, clipped at 0."""
    raw: float
    """The total before clipping: equal sets may give a rounding error below 0."""
    rank_deficient: bool = False
    """A set has no more rows than columns that are in use: the distance is biased upward. Always False where the counts are not known."""


def distance(real: tuple[np.ndarray, np.ndarray], fake: tuple[np.ndarray, np.ndarray]) -> Frechet:
    """Fréchet distance of two means and covariances.

    Args:
      real: mean ``[d]`` and covariance ``[d, d]``.
      fake: the same of the other set.

    Raises:
      ValueError: other shapes, different column counts, numbers that are not finite, or no covariance (not symmetric).
    """
    mean_real, covariance_real = _checked(real, "real")
    mean_fake, covariance_fake = _checked(fake, "fake")
    _same_columns(mean_real.size, mean_fake.size)
    used = np.diag(covariance_real).astype(bool) & np.diag(covariance_fake).astype(bool)
    # A column without variance in one of the sets has a row of zeros in that covariance, so that it adds nothing to the trace of the root.
    trace = _trace_of_root(covariance_real[np.ix_(used, used)], covariance_fake[np.ix_(used, used)]) if used.any() else 0.0
    return _result(mean_real, mean_fake, np.trace(covariance_real), np.trace(covariance_fake), trace, False)


def from_rows(real: np.ndarray, fake: np.ndarray) -> Frechet:
    """Fréchet distance of two sets of rows, ``[n, d]`` and ``[m, d]``; covariances have the divisor n - 1.

    Columns that are zero in both sets are left out, which changes nothing. With fewer rows than columns in a set the eigenvalues
    are taken on the side of the rows, which is exact and smaller.

    Raises:
      ValueError: not two axes, different column counts, fewer than 2 rows in a set, or rows that are not finite.
    """
    real, fake = _rows(real, "real"), _rows(fake, "fake")
    _same_columns(real.shape[1], fake.shape[1])
    used = real.any(axis=0) | fake.any(axis=0)
    if not used.all():
        real, fake = real[:, used], fake[:, used]
    mean_real, mean_fake = real.mean(axis=0), fake.mean(axis=0)
    # Scaled so that the covariance is the product of the transpose with itself (dsyrk: half of a general product).
    real, fake = (real - mean_real) / np.sqrt(len(real) - 1), (fake - mean_fake) / np.sqrt(len(fake) - 1)
    if not (np.isfinite(mean_real).all() and np.isfinite(mean_fake).all()):
        raise ValueError(f"the {'fake' if np.isfinite(mean_real).all() else 'real'} rows hold NaN or infinity: look at what made them")
    columns = real.shape[1]
    if max(len(real), len(fake)) <= columns:
        # The roots of the eigenvalues of S_r S_f are the singular values of this product of rows.
        trace = float(np.linalg.svd(real @ fake.T, compute_uv=False).sum())
    elif min(len(real), len(fake)) <= columns:
        few, many = sorted((real, fake), key=len)
        half = many @ few.T
        trace = _sum_of_roots(half.T @ half)
    else:
        trace = _trace_of_root(real.T @ real, fake.T @ fake)
    deficient = min(len(real), len(fake)) <= columns
    return _result(mean_real, mean_fake, np.vdot(real, real), np.vdot(fake, fake), trace, deficient)


def from_sums(real: Mapping[str, np.ndarray], fake: Mapping[str, np.ndarray]) -> Frechet:
    """Fréchet distance of two ``streaming.Moments`` sums; ValueError as in ``distance``, and for fewer than 2 rows in a set."""
    pairs = []
    for name, sums in (("real", real), ("fake", fake)):
        n = int(sums["n"])
        if n < 2:
            raise ValueError(_too_few(name, n))
        pairs.append((sums["mean"], sums["scatter"] / (n - 1)))
    result = distance(*pairs)
    columns = np.count_nonzero(np.abs(real["mean"]) + np.abs(fake["mean"]) + np.diag(real["scatter"]) + np.diag(fake["scatter"]))
    return result._replace(rank_deficient=bool(min(int(real["n"]), int(fake["n"])) <= columns))


def _trace_of_root(real: np.ndarray, fake: np.ndarray) -> float:
    """Tr((S_r S_f)^(1/2)) = sum of sqrt(eig(R S_f R)), R = V diag(sqrt(w)) V' of S_r = V diag(w) V'."""
    values, vectors = np.linalg.eigh(real)
    kept = values > 0
    # V' S_f V scaled from both sides has the eigenvalues of R S_f R, with two products fewer.
    half = vectors[:, kept] * np.sqrt(values[kept])
    return _sum_of_roots(half.T @ fake @ half)


def _sum_of_roots(symmetric: np.ndarray) -> float:
    values = np.linalg.eigvalsh((symmetric + symmetric.T) / 2)
    return float(np.sqrt(np.maximum(values, 0)).sum())


def _result(mean_real: np.ndarray, mean_fake: np.ndarray, trace_real: float, trace_fake: float, trace: float, deficient: bool) -> Frechet:
    mean = float(np.square(mean_real - mean_fake).sum())
    covariance = float(trace_real + trace_fake - 2 * trace)
    clipped = max(covariance, 0.0)
    return Frechet(mean + clipped, mean, clipped, mean + covariance, bool(deficient))


def _rows(rows: np.ndarray, name: str) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    if rows.ndim != 2 or not rows.shape[1]:
        raise ValueError(f"the {name} rows have the shape {rows.shape}; [n, columns] is needed")
    if len(rows) < 2:
        raise ValueError(_too_few(name, len(rows)))
    return rows


def _too_few(name: str, n: int) -> str:
    return f"the {name} set has {n} row{'s' * (n != 1)}; a covariance needs at least 2: give more images"


def _checked(pair: tuple[np.ndarray, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    mean, covariance = (np.asarray(x, dtype=np.float64) for x in pair)
    if mean.ndim != 1 or not mean.size or covariance.shape != (mean.size, mean.size):
        raise ValueError(f"{name}: a mean of shape {mean.shape} and a covariance of {covariance.shape}; [d] and [d, d] are needed")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError(f"the {name} mean or covariance holds NaN or infinity: look at what made it")
    largest = np.abs(covariance).max()
    if np.abs(covariance - covariance.T).max() > 1e-6 * largest or covariance.diagonal().min() < -1e-6 * largest:
        raise ValueError(f"the {name} covariance is not symmetric or has a negative variance: it is no covariance")
    return mean, covariance


def _same_columns(real: int, fake: int) -> None:
    if real != fake:
        raise ValueError(
            f"the real set has {real} columns and the fake set {fake}: both must come from one network or have the same classes"
        )
