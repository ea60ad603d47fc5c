"""Precision and recall (Kynkäänniemi et al. 2019) and density and coverage (Naeem et al. 2020) of two sets of features.

A set's manifold is the union of balls around its rows, each as wide as the distance to the k-th nearest other row of the set. A row lies
in a ball when it is strictly nearer than that. Distances come from products of matrices in blocks; those too near to a radius to be told
from rounding are computed again from differences, so that equal and repeated rows are decided exactly.
"""

from __future__ import annotations

import numpy as np

BLOCK = 1024
"""Rows of a distance matrix that are in memory at a time."""
ROUNDING = 1e-11
"""Largest relative rounding error of a squared distance from products, in units of the largest squared norm; measured 1e-14."""


def prdc(real: np.ndarray, fake: np.ndarray, k: int = 5) -> dict[str, float]:
    """Precision, recall, density and coverage.

    Args:
      real: features ``[n, d]``.
      fake: features ``[m, d]``.
      k: the neighbour that sets the radius of a ball. Published figures use 3 (precision, recall) and 5 (density, coverage).

    Returns:
      precision: share of fakes inside a real ball. recall: share of reals inside a fake ball. density: mean number of real balls around a
      fake, divided by k (may exceed 1). coverage: share of real balls that hold a fake.

    Raises:
      ValueError: k below 1 or not below both counts, different column counts, or features that are not finite.
    """
    real, fake = _checked(real, fake, k)
    # Products are of rows about a common centre: the differences stay, the norms shrink, and with them the rounding.
    centre = real.mean(axis=0)
    centred = fake - centre
    tolerance = ROUNDING * max(float(np.square(rows).sum(axis=1).max()) for rows in (real - centre, centred))
    radius_real, radius_fake = (_radii(rows, centre, k) for rows in (real, fake))
    in_a_real_ball, balls, recalled, covered = np.zeros(len(fake), bool), 0, 0, 0
    for start in range(0, len(real), BLOCK):
        rows = slice(start, start + BLOCK)
        squared = _squared_distances(real[rows] - centre, centred)
        inside = _nearer(squared, radius_real[rows, None], real[rows], fake, tolerance)
        in_a_real_ball |= inside.any(axis=0)
        balls += int(inside.sum())
        covered += int(inside.any(axis=1).sum())
        recalled += int(_nearer(squared, radius_fake[None, :], real[rows], fake, tolerance).any(axis=1).sum())
    return {
        "precision": float(in_a_real_ball.mean()),
        "recall": recalled / len(real),
        "density": balls / (k * len(fake)),
        "coverage": covered / len(real),
    }


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    squared = a @ b.T
    squared *= -2
    squared += np.square(a).sum(axis=1)[:, None]
    squared += np.square(b).sum(axis=1)[None, :]
    return squared


def _exact(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances of pairs of rows ``[..., d]``; the same in both directions, 0 for equal rows."""
    return np.square(a - b).sum(axis=-1)


def _radii(rows: np.ndarray, centre: np.ndarray, k: int) -> np.ndarray:
    """Squared distance of every row to its k-th nearest other row, ``[n]``."""
    centred, found = rows - centre, []
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        squared = _squared_distances(centred[start : start + BLOCK], centred)
        squared[np.arange(len(block)), start + np.arange(len(block))] = np.inf
        nearest = np.argpartition(squared, k - 1, axis=1)[:, :k]
        found.append(np.max([_exact(block, rows[column]) for column in nearest.T], axis=0))
    return np.concatenate(found)


def _nearer(squared: np.ndarray, limit: np.ndarray, a: np.ndarray, b: np.ndarray, tolerance: float) -> np.ndarray:
    """bool ``[len(a), len(b)]``: strictly below the limit."""
    inside = squared < limit
    close = np.argwhere(np.abs(squared - limit) <= tolerance)
    limit = np.broadcast_to(limit, squared.shape)
    for start in range(0, len(close), BLOCK):
        i, j = close[start : start + BLOCK].T
        inside[i, j] = _exact(a[i], b[j]) < limit[i, j]
    return inside


def _checked(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    for name, rows in (("real", real), ("fake", fake)):
        if rows.ndim != 2:
            raise ValueError(f"the {name} features have the shape {rows.shape}; [n, d] is needed")
        if not 1 <= k < len(rows):
            raise ValueError(f"k = {k} neighbours of {len(rows)} {name} rows: k must be between 1 and {len(rows) - 1}; give more images")
        if not np.isfinite(rows).all():
            raise ValueError(f"the {name} features hold NaN or infinity: look at what made them")
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"the real features have {real.shape[1]} columns and the fake {fake.shape[1]}: both must come from one network")
    return real, fake
