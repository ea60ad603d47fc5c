"""Kernel Inception distance: the squared maximum mean discrepancy of two sets of features, float64 on the host.

Bińkowski, Sutherland, Arbel and Gretton 2018, section 4: the kernel is (x·y / d + 1)^3 and the estimate is the unbiased one (Gretton et
al. 2012, equation 3), which may fall below 0 when the sets are alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BLOCK = 2048
"""Rows of a kernel matrix that are in memory at a time."""


class Kid(NamedTuple):
    """KID over random subsets."""

    mean: float
    std: float
    """Standard deviation over the subsets (divisor: their number). It is not that of the mean, and subsets share rows."""


def mmd(real: np.ndarray, fake: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy of rows ``[n, d]`` and ``[m, d]``, from all pairs.

    Raises:
      ValueError: different column counts, fewer than 2 rows in a set, or rows that are not finite.
    """
    real, fake = _checked(real, fake)
    return float(_from_weights(real, fake, np.ones((1, len(real))), np.ones((1, len(fake))))[0])


def kid(real: np.ndarray, fake: np.ndarray, *, subsets: int = 100, subset_size: int = 1000, seed: int = 0) -> Kid:
    """Mean and spread of the unbiased estimate over random subsets.

    Args:
      real: features ``[n, d]``.
      fake: features ``[m, d]``.
      subsets: how many pairs of subsets are drawn.
      subset_size: rows of each, drawn without replacement.
      seed: of ``numpy.random.default_rng``; equal seeds draw equal rows.

    Raises:
      ValueError: as in ``mmd``, or a subset that is larger than a set.
    """
    real, fake = _checked(real, fake)
    least = min(len(real), len(fake))
    if subsets < 1 or not 2 <= subset_size <= least:
        raise ValueError(
            f"{subsets} subsets of {subset_size} rows from sets of {len(real)} and {len(fake)}: a subset has 2 to {least} rows; "
            f"give more images or subset_size={least}"
        )
    rng = np.random.default_rng(seed)
    draws = [tuple(rng.choice(len(rows), subset_size, replace=False) for rows in (real, fake)) for _ in range(subsets)]
    if len(real) ** 2 + len(fake) ** 2 + len(real) * len(fake) < 3 * subsets * subset_size**2:
        # Every kernel value once, and the subsets as 0/1 weights: 100 times less work for 100 subsets of nearly all of 1,000 rows.
        weights = [np.zeros((subsets, len(rows))) for rows in (real, fake)]
        for side, weight in enumerate(weights):
            np.put_along_axis(weight, np.stack([draw[side] for draw in draws]), 1.0, axis=1)
        values = _from_weights(real, fake, *weights)
    else:
        ones = np.ones((1, subset_size))
        values = np.concatenate([_from_weights(real[r], fake[f], ones, ones) for r, f in draws])
    return Kid(float(values.mean()), float(values.std()))


def _from_weights(real: np.ndarray, fake: np.ndarray, chosen_real: np.ndarray, chosen_fake: np.ndarray) -> np.ndarray:
    """The estimate for each row of 0/1 weights ``[subsets, n]`` and ``[subsets, m]``."""
    n, m = chosen_real.sum(axis=1), chosen_fake.sum(axis=1)
    inside = []
    for rows, chosen, count in ((real, chosen_real, n), (fake, chosen_fake, m)):
        diagonal = chosen @ _polynomial(np.square(rows).sum(axis=1), rows.shape[1])
        inside.append((_sum_of_pairs(rows, rows, chosen, chosen) - diagonal) / (count * (count - 1)))
    return inside[0] + inside[1] - 2 * _sum_of_pairs(real, fake, chosen_real, chosen_fake) / (n * m)


def _sum_of_pairs(a: np.ndarray, b: np.ndarray, chosen_a: np.ndarray, chosen_b: np.ndarray) -> np.ndarray:
    total = np.zeros(len(chosen_a))
    for start in range(0, len(a), BLOCK):
        rows = slice(start, start + BLOCK)
        total += np.einsum("sj,sj->s", chosen_a[:, rows] @ _polynomial(a[rows] @ b.T, a.shape[1]), chosen_b)
    return total


def _polynomial(products: np.ndarray, columns: int) -> np.ndarray:
    base = products / columns + 1
    return base * base * base


def _checked(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    for name, rows in (("real", real), ("fake", fake)):
        if rows.ndim != 2 or len(rows) < 2:
            raise ValueError(f"the {name} features have the shape {rows.shape}; [n, d] with at least 2 rows is needed")
        if not np.isfinite(rows).all():
            raise ValueError(f"the {name} features hold NaN or infinity: look at what made them")
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"the real features have {real.shape[1]} columns and the fake {fake.shape[1]}: both must come from one network")
    return real, fake
