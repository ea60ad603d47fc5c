"""KID against the estimator written as double loops."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgan.metrics import kernel

RNG = np.random.default_rng(2)
REAL, FAKE = RNG.normal(size=(31, 6)), RNG.normal(0.4, 1.3, (24, 6))


def loops(real, fake) -> float:
    def k(x, y):
        return (float(np.dot(x, y)) / len(x) + 1) ** 3

    n, m = len(real), len(fake)
    inside_real = sum(k(real[i], real[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    inside_fake = sum(k(fake[i], fake[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    across = sum(k(x, y) for x in real for y in fake) / (n * m)
    return inside_real + inside_fake - 2 * across


def test_all_pairs_against_loops(monkeypatch):
    assert kernel.mmd(REAL, FAKE) == pytest.approx(loops(REAL, FAKE), rel=1e-11)
    monkeypatch.setattr(kernel, "BLOCK", 7)  # blocks that do not divide the counts
    assert kernel.mmd(REAL, FAKE) == pytest.approx(loops(REAL, FAKE), rel=1e-11)


@pytest.mark.parametrize(("subsets", "size"), [(60, 20), (2, 4)])  # all kernel values once, and subset by subset
def test_subsets_against_loops_over_the_same_rows(subsets, size):
    rng = np.random.default_rng(9)
    values = []
    for _ in range(subsets):
        chosen = rng.choice(31, size, replace=False), rng.choice(24, size, replace=False)
        values.append(loops(REAL[chosen[0]], FAKE[chosen[1]]))
    found = kernel.kid(REAL, FAKE, subsets=subsets, subset_size=size, seed=9)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-10)
    assert found.std == pytest.approx(np.std(values), rel=1e-10)
    assert found == kernel.kid(REAL, FAKE, subsets=subsets, subset_size=size, seed=9)
    assert found != kernel.kid(REAL, FAKE, subsets=subsets, subset_size=size, seed=8)


def test_unbiased_for_equal_distributions():
    # A biased estimate of 40 against 40 rows would be about 0.4 here.
    values = [kernel.mmd(*RNG.normal(size=(2, 40, 5))) for _ in range(400)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 20
    assert min(values) < 0


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="sets of 31 and 24: a subset has 2 to 24 rows; .*subset_size=24"):
        kernel.kid(REAL, FAKE)
    with pytest.raises(ValueError, match="real features have 6 columns and the fake 5"):
        kernel.mmd(REAL, FAKE[:, :5])
    with pytest.raises(ValueError, match="at least 2 rows"):
        kernel.mmd(REAL[:1], FAKE)
    with pytest.raises(ValueError, match="fake features hold NaN"):
        kernel.mmd(REAL, np.full((3, 6), np.nan))
