"""The Fréchet distance against closed forms, the published tool's values, and what a distance must keep."""

from __future__ import annotations

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from jaxgan.metrics import frechet, streaming

RNG = np.random.default_rng(5)
sets = st.tuples(st.integers(2, 7), st.integers(2, 7), st.integers(1, 5)).flatmap(
    lambda s: st.tuples(*(arrays.arrays(np.float64, (n, s[2]), elements=st.integers(-60, 60).map(lambda i: i / 4)) for n in s[:2]))
)
properties = settings(max_examples=60, deadline=None, derandomize=True)


def covariance(d: int) -> np.ndarray:
    root = RNG.normal(size=(d, d))
    return root @ root.T


def test_two_by_two_covariances_against_the_closed_form():
    # For 2x2 matrices the trace of the root of A is sqrt(tr A + 2 sqrt(det A)).
    for _ in range(20):
        a, b, mean_a, mean_b = covariance(2), covariance(2), RNG.normal(size=2), RNG.normal(size=2)
        root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a) * np.linalg.det(b)))
        found = frechet.distance((mean_a, a), (mean_b, b))
        np.testing.assert_allclose(found.covariance, np.trace(a) + np.trace(b) - 2 * root, rtol=1e-9)
        np.testing.assert_allclose(found.total, np.square(mean_a - mean_b).sum() + np.trace(a) + np.trace(b) - 2 * root, rtol=1e-9)


def test_common_axes_and_one_column():
    turn, _ = np.linalg.qr(RNG.normal(size=(6, 6)))
    a, b = RNG.uniform(0.1, 3, 6), np.array([0.0, 0.0, 1.0, 2.0, 3.0, 4.0])
    found = frechet.distance((np.zeros(6), turn * a @ turn.T), (np.ones(6), turn * b @ turn.T))
    np.testing.assert_allclose(found.total, 6 + np.square(np.sqrt(a) - np.sqrt(b)).sum(), rtol=1e-7)
    one = frechet.distance((np.array([1.0]), np.array([[4.0]])), (np.array([3.0]), np.array([[25.0]])))
    assert one[:3] == pytest.approx((4 + 9, 4, 9), rel=1e-12)


def test_samples_of_two_normal_distributions_approach_the_closed_form():
    a, b, shift = covariance(3), covariance(3), np.array([1.0, -2.0, 0.5])
    root = np.sqrt(np.linalg.eigvals(a @ b).real).sum()
    exact = np.square(shift).sum() + np.trace(a + b) - 2 * root
    real, fake = RNG.multivariate_normal(np.zeros(3), a, 200_000), RNG.multivariate_normal(shift, b, 200_000)
    assert frechet.from_rows(real, fake).total == pytest.approx(exact, rel=0.02)


@pytest.mark.parametrize(("n", "m"), [(90, 80), (90, 12), (12, 90), (15, 12), (2, 2), (2, 90)])
def test_all_forms_agree_whatever_the_number_of_rows(n, m):
    # 30 columns that mix: the general square root of the product is unsafe here, its eigenvalues are not.
    mix = RNG.normal(size=(30, 30))
    real, fake = RNG.normal(size=(n, 30)) @ mix, RNG.normal(1, 2, (m, 30)) @ mix
    pairs = [(rows.mean(axis=0), np.cov(rows.T)) for rows in (real, fake)]
    # A third form: the roots of the eigenvalues are the singular values of one half times the other.
    halves = [(rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1) for rows in (real, fake)]
    root = np.linalg.svd(halves[0] @ halves[1].T, compute_uv=False).sum()
    expected = np.square(pairs[0][0] - pairs[1][0]).sum() + np.trace(pairs[0][1] + pairs[1][1]) - 2 * root
    from_rows = frechet.from_rows(real, fake)
    assert from_rows.total == pytest.approx(expected, rel=1e-7)
    assert frechet.distance(*pairs).total == pytest.approx(expected, rel=1e-6)
    sums = [streaming.Moments.add(streaming.Moments.zero(30), rows) for rows in (real, fake)]
    assert frechet.from_sums(*sums).total == pytest.approx(expected, rel=1e-6)
    assert from_rows.rank_deficient == frechet.from_sums(*sums).rank_deficient == (min(n, m) <= 30)


def test_columns_that_are_zero_in_both_sets_change_nothing_and_do_not_count_for_the_rank():
    real, fake = RNG.normal(size=(20, 5)), RNG.normal(size=(25, 5))
    wide = [np.insert(rows, [0, 2, 2] + [5] * 40, 0, axis=1) for rows in (real, fake)]
    found = frechet.from_rows(*wide)
    assert found.total == pytest.approx(frechet.from_rows(real, fake).total, rel=1e-12)
    assert not found.rank_deficient  # 20 rows of 45 columns, 5 of them in use
    blank = frechet.from_rows(np.zeros((3, 4)), np.zeros((2, 4)))
    assert (blank.total, blank.raw) == (0, 0)


def test_a_constant_set_leaves_the_mean_part_and_the_other_trace():
    real = RNG.normal(size=(50, 4))
    found = frechet.from_rows(real, np.ones((9, 4)))
    np.testing.assert_allclose(found.covariance, real.var(axis=0, ddof=1).sum(), rtol=1e-12)
    np.testing.assert_allclose(found.mean, np.square(real.mean(axis=0) - 1).sum(), rtol=1e-12)


@properties
@given(sets)
def test_symmetric_never_negative_blind_to_order_and_quadratic_in_the_unit(pair):
    real, fake = pair
    scale = 1e-6 * (1 + np.square(real).sum() + np.square(fake).sum())
    found = frechet.from_rows(real, fake)
    assert min(found[:3]) >= 0 and np.isfinite(found.raw)
    assert found.total == pytest.approx(found.mean + found.covariance)
    assert frechet.from_rows(fake, real).total == pytest.approx(found.total, abs=scale)
    assert frechet.from_rows(real[::-1], np.roll(fake, 1, axis=0)).total == pytest.approx(found.total, abs=scale)
    assert frechet.from_rows(real * 100, fake * 100).total == pytest.approx(found.total * 1e4, abs=1e4 * scale)
    assert frechet.from_rows(real + 3, fake + 3).total == pytest.approx(found.total, abs=scale)
    assert frechet.from_rows(real, real).total <= scale


def test_wrong_input_is_named():
    good = RNG.normal(size=(5, 3))
    with pytest.raises(ValueError, match="real set has 1 row; a covariance needs at least 2"):
        frechet.from_rows(good[:1], good)
    with pytest.raises(ValueError, match="fake set has 0 rows"):
        frechet.from_rows(good, good[:0])
    with pytest.raises(ValueError, match="real set has 3 columns and the fake set 2"):
        frechet.from_rows(good, good[:, :2])
    with pytest.raises(ValueError, match="fake rows hold NaN"):
        frechet.from_rows(good, np.where(np.eye(5, 3), np.nan, good))
    with pytest.raises(ValueError, match=r"\[n, columns\]"):
        frechet.from_rows(good[0], good)
    with pytest.raises(ValueError, match="not symmetric"):
        frechet.distance((np.zeros(2), np.eye(2)), (np.zeros(2), np.array([[1.0, 2.0], [0.0, 1.0]])))
    with pytest.raises(ValueError, match=r"real: a mean of shape \(3,\) and a covariance of \(2, 2\)"):
        frechet.distance((np.zeros(3), np.eye(2)), (np.zeros(2), np.eye(2)))
    sums = streaming.Moments.add(streaming.Moments.zero(3), good)
    with pytest.raises(ValueError, match="fake set has 1 row;"):
        frechet.from_sums(sums, streaming.Moments.add(streaming.Moments.zero(3), good[:1]))
