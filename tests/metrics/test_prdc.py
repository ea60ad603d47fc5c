"""Precision, recall, density and coverage against their definitions written as loops."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgan.metrics import prdc

RNG = np.random.default_rng(4)


def loops(real, fake, k) -> dict[str, float]:
    def apart(x, y):
        return float(np.sqrt(np.square(x - y).sum()))

    def radius(rows, i):
        return sorted(apart(rows[i], rows[j]) for j in range(len(rows)) if j != i)[k - 1]

    real_radii = [radius(real, i) for i in range(len(real))]
    fake_radii = [radius(fake, j) for j in range(len(fake))]
    inside = [[apart(x, y) < r for x, r in zip(real, real_radii, strict=True)] for y in fake]
    return {
        "precision": np.mean([any(row) for row in inside]),
        "recall": np.mean([any(apart(x, y) < r for y, r in zip(fake, fake_radii, strict=True)) for x in real]),
        "density": np.mean([sum(row) for row in inside]) / k,
        "coverage": np.mean([any(row[i] for row in inside) for i in range(len(real))]),
    }


@pytest.mark.parametrize("k", [1, 3, 5])
def test_against_loops(k, monkeypatch):
    real, fake = RNG.normal(size=(60, 4)), RNG.normal(0.8, 0.6, (45, 4))
    expected = pytest.approx(loops(real, fake, k), abs=1e-12)
    assert prdc.prdc(real, fake, k) == expected
    monkeypatch.setattr(prdc, "BLOCK", 13)
    assert prdc.prdc(real, fake, k) == expected
    assert 0 < prdc.prdc(real, fake, k)["precision"] < 1.01


@pytest.mark.parametrize(("offset", "step"), [(0, 1), (4096, 1), (0, 1 / 3), (4096, 1 / 3)])
def test_ties_on_a_lattice_and_repeated_rows_are_decided_exactly(offset, step):
    # Most distances equal a radius here; products of matrices alone would decide them by their rounding. Thirds have no exact squares.
    real = (offset + RNG.integers(0, 3, (70, 5)) * step).astype(np.float32)
    fake = np.concatenate([real[:30], (offset + RNG.integers(0, 4, (30, 5)) * step).astype(np.float32)])
    assert prdc.prdc(real, fake, 3) == pytest.approx(loops(real.astype(np.float64), fake.astype(np.float64), 3), abs=1e-12)


def test_known_situations():
    rows = RNG.normal(size=(80, 6))
    same = prdc.prdc(rows, rows, 5)
    assert (same["precision"], same["recall"], same["coverage"]) == (1, 1, 1)
    assert same["density"] == pytest.approx(1.0)  # each ball holds its own row and k - 1 neighbours
    assert prdc.prdc(rows, rows + 100) == {"precision": 0, "recall": 0, "density": 0, "coverage": 0}
    narrow = prdc.prdc(rows, rows[:10] * 1e-3, 5)  # fakes crowd in the middle: likely, but little of the variety
    assert narrow["recall"] == 0 and narrow["coverage"] < 0.95 and narrow["precision"] == 1


def test_wrong_input_is_named():
    rows = RNG.normal(size=(6, 3))
    with pytest.raises(ValueError, match="k = 6 neighbours of 6 real rows: k must be between 1 and 5"):
        prdc.prdc(rows, rows, 6)
    with pytest.raises(ValueError, match="k = 5 neighbours of 4 fake rows"):
        prdc.prdc(rows, rows[:4])
    with pytest.raises(ValueError, match="k = 0"):
        prdc.prdc(rows, rows, 0)
    with pytest.raises(ValueError, match="real features have 3 columns and the fake 2"):
        prdc.prdc(rows, rows[:, :2], 2)
    with pytest.raises(ValueError, match="real features hold NaN"):
        prdc.prdc(np.where(np.eye(6, 3), np.inf, rows), rows, 2)
