"""Resampling of rows: intervals of any statistic, means of many columns at once, and permutation tests over many columns.

The bootstrap (Efron 1979) draws as many rows as there are, with replacement. A statistic that grows with noise, as every Fréchet distance
does, is larger on resamples than on the data; intervals are therefore moved by that bias, so that they are about the value reported.
Statistics of nearest neighbours (precision, coverage) see repeated rows as neighbours at distance 0 and must not be resampled this way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

BLOCK = 4_000_000
"""Numbers of a weight matrix that is in memory at a time (32 MB)."""


class Interval(NamedTuple):
    """A central interval of a statistic."""

    low: float
    high: float
    bias: float
    """Mean over resamples less the value of the data; it was taken off both ends (the plain percentiles are low + bias, high + bias)."""


def samples(
    function: Callable[[np.ndarray, np.ndarray], float],
    real_rows: np.ndarray,
    fake_rows: np.ndarray,
    *,
    resamples: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """``function(real, fake)`` on `resamples` pairs of resampled sets, float64 ``[resamples]``; equal seeds draw equal rows.

    Raises:
      ValueError: fewer than 2 rows in a set, or fewer than 2 resamples.
    """
    _check(resamples, real_rows, fake_rows)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(resamples):
        real, fake = (rows[rng.integers(0, len(rows), len(rows))] for rows in (real_rows, fake_rows))
        values.append(float(function(real, fake)))
    return np.asarray(values)


def interval(
    function: Callable[[np.ndarray, np.ndarray], float],
    real_rows: np.ndarray,
    fake_rows: np.ndarray,
    *,
    resamples: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of ``function(real, fake)``, moved by the bias of the resamples.

    Args:
      function: a statistic of two sets of rows.
      real_rows: ``[n, ...]``.
      fake_rows: ``[m, ...]``.
      resamples: number of resampled pairs of sets.
      seed: of the draws.
      level: the share of the resamples inside.

    Raises:
      ValueError: fewer than 2 rows in a set, fewer than 2 resamples, or a level outside (0, 1).
    """
    check_level(level)
    values = samples(function, real_rows, fake_rows, resamples=resamples, seed=seed)
    bias = float(values.mean() - float(function(real_rows, fake_rows)))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2]) - bias
    return Interval(float(low), float(high), bias)


def means(rows: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Column means of resampled rows ``[n, d]``, float64 ``[resamples, d]``: counts of drawn rows times the rows, in blocks.

    Raises:
      ValueError: fewer than 2 rows, or fewer than 2 resamples.
    """
    _check(resamples, rows)
    rng, rows = np.random.default_rng(seed), np.asarray(rows, np.float64)
    n = len(rows)
    found = []
    for block in _blocks(resamples, n):
        drawn = rng.integers(0, n, (block, n)) + np.arange(block)[:, None] * n
        found.append(np.bincount(drawn.ravel(), minlength=block * n).reshape(block, n).astype(np.float64) @ rows / n)
    return np.concatenate(found)


def permutation_p_values(real: np.ndarray, fake: np.ndarray, *, resamples: int = 1000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided tests of the difference of the means of every column, by random exchange of rows between the sets.

    The null hypothesis is that both sets come from one distribution. The second result is corrected for the number of columns by the
    step-down maximum (Westfall and Young 1993, algorithm 2.8), which keeps the family-wise error as Holm's correction does. Holm's on
    top of permutations never falls below columns / (resamples + 1): of 336 classes and 1,000 permutations nothing would be significant.

    Args:
      real: ``[n, d]``.
      fake: ``[m, d]``.
      resamples: number of permutations; no p-value is below 1 / (resamples + 1).
      seed: of the permutations.

    Returns:
      (p, corrected p), float64 ``[d]``; 1 for a column that is constant over both sets.

    Raises:
      ValueError: fewer than 2 rows in a set, different column counts, or fewer than 2 resamples.
    """
    _check(resamples, real, fake)
    if real.shape[1] != fake.shape[1]:
        raise ValueError(f"the real set has {real.shape[1]} columns and the fake set {fake.shape[1]}")
    rng = np.random.default_rng(seed)
    both = np.concatenate([real, fake]).astype(np.float64)
    both -= both.mean(axis=0)
    spread = np.sqrt(np.square(both).sum(axis=0))
    used = spread > 1e-12 * max(float(spread.max(initial=0)), 1e-300)
    p, corrected = np.ones(both.shape[1]), np.ones(both.shape[1])
    if not used.any():
        return p, corrected
    # The sum over the fake rows of centred columns of length 1 ranks permutations as the t statistic does, and compares between columns.
    both = both[:, used] / spread[used]
    n, m = len(both), len(fake)
    observed = np.abs(both[n - m :].sum(axis=0))
    order = np.argsort(-observed, kind="stable")
    beyond, beyond_maximum = np.zeros(observed.size), np.zeros(observed.size)
    limit = observed * (1 - 1e-9)  # rounding must not break ties: a class in one image has only two outcomes
    for block in _blocks(resamples, n):
        drawn = np.zeros((block, n))
        np.put_along_axis(drawn, rng.random((block, n), dtype=np.float32).argpartition(m - 1, axis=1)[:, :m], 1.0, axis=1)
        values = np.abs(drawn @ both)
        beyond += (values >= limit).sum(axis=0)
        largest = np.maximum.accumulate(values[:, order[::-1]], axis=1)[:, ::-1]  # over this column and all less extreme ones
        beyond_maximum[order] += (largest >= limit[order]).sum(axis=0)
    p[used] = (1 + beyond) / (1 + resamples)
    stepped = np.empty(observed.size)
    stepped[order] = np.maximum.accumulate((1 + beyond_maximum[order]) / (1 + resamples))
    corrected[used] = stepped
    return p, corrected


def check_level(level: float) -> None:
    """ValueError unless 0 < level < 1."""
    if not 0 < level < 1:
        raise ValueError(f"an interval of level {level} does not exist; give a share between 0 and 1, such as 0.95")


def _check(resamples: int, *sets: np.ndarray) -> None:
    if resamples < 2:
        raise ValueError(f"{resamples} resamples give no interval; at least 2, and for 95 % some hundreds")
    if min(len(rows) for rows in sets) < 2:
        raise ValueError(f"sets of {' and '.join(str(len(rows)) for rows in sets)} rows cannot be resampled; at least 2 are needed")


def _blocks(resamples: int, n: int) -> Iterator[int]:
    size = max(1, BLOCK // n)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)
