"""Resampling against the theory of means, and what a test over many columns must keep."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from jaxgan.metrics import bootstrap

RNG = np.random.default_rng(3)


def test_interval_of_a_difference_of_means_has_the_width_of_theory():
    real, fake = RNG.normal(0, 1, (400, 1)), RNG.normal(1, 3, (900, 1))
    found = bootstrap.interval(lambda a, b: b.mean() - a.mean(), real, fake, resamples=4000, level=0.9)
    width = 2 * 1.6449 * np.sqrt(real.var() / 400 + fake.var() / 900)
    assert found.high - found.low == pytest.approx(width, rel=0.05)
    assert (found.high + found.low) / 2 == pytest.approx(fake.mean() - real.mean(), abs=0.02)
    assert abs(found.bias) < 0.01
    assert found == bootstrap.interval(lambda a, b: b.mean() - a.mean(), real, fake, resamples=4000, level=0.9)


def test_the_bias_of_a_squared_distance_is_taken_off():
    # |mean difference|^2 of d columns grows by d (s^2/n + s^2/m) under resampling.
    real, fake = RNG.normal(size=(50, 8)), RNG.normal(size=(50, 8))
    found = bootstrap.interval(lambda a, b: np.square(a.mean(0) - b.mean(0)).sum(), real, fake, resamples=2000)
    expected = (real.var(axis=0) / 50 + fake.var(axis=0) / 50).sum()
    value = np.square(real.mean(0) - fake.mean(0)).sum()
    assert found.bias == pytest.approx(expected, rel=0.1)
    assert found.low < value < found.high


def test_means_of_resamples_have_the_spread_and_the_covariance_of_means(monkeypatch):
    rows = RNG.normal(size=(300, 3)) @ RNG.normal(size=(3, 3)) + 5
    monkeypatch.setattr(bootstrap, "BLOCK", 300 * 7)  # blocks of 7 that do not divide the resamples
    found = bootstrap.means(rows, resamples=5000)
    assert found.shape == (5000, 3)
    covariance = np.cov(rows.T, ddof=0) / 300
    np.testing.assert_allclose(found.mean(axis=0), rows.mean(axis=0), atol=5 * np.sqrt(covariance.max() / 5000))
    np.testing.assert_allclose(np.cov(found.T), covariance, atol=0.1 * covariance.max())


def test_permutation_p_values_against_all_divisions():
    # 5 + 4 rows have 126 divisions: the exact p-values, and the exact step-down ones.
    real, fake = RNG.normal(size=(5, 4)), RNG.normal(size=(4, 4)) + [0, 0.5, 1.0, 2.0]
    both = np.concatenate([real, fake])
    both = (both - both.mean(axis=0)) / both.std(axis=0)
    observed = np.abs(both[5:].sum(axis=0))
    values = np.array([np.abs(both[list(chosen)].sum(axis=0)) for chosen in itertools.combinations(range(9), 4)])
    exact = (values >= observed - 1e-9).mean(axis=0)
    order = np.argsort(-observed)
    stepped, worst = np.zeros(4), 0.0
    for k, c in enumerate(order):
        worst = max(worst, (values[:, order[k:]].max(axis=1) >= observed[c] - 1e-9).mean())
        stepped[c] = worst
    p, corrected = bootstrap.permutation_p_values(real, fake, resamples=20_000)
    np.testing.assert_allclose(p, exact, atol=0.012)
    np.testing.assert_allclose(corrected, stepped, atol=0.012)
    assert (corrected >= p - 0.012).all()


def test_false_alarms_over_all_columns_are_as_many_as_stated():
    # 300 pairs of sets without any difference, 12 skewed and correlated columns: 5 % of the pairs may have a corrected p of at most 0.05.
    alarms = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        rows = rng.gamma(0.3, 1.0, (50, 12)) * rng.random((50, 1))
        _, corrected = bootstrap.permutation_p_values(rows[:30], rows[30:], resamples=99, seed=seed)
        alarms += corrected.min() <= 0.05
    assert 4 <= alarms <= 28  # 15 expected, standard deviation 3.8


def test_many_columns_do_not_hide_one_real_difference_and_constant_ones_have_no_say():
    real, fake = RNG.random((200, 336)), RNG.random((200, 336))
    fake[:, 17] *= 0.5
    real[:, 300:] = fake[:, 300:] = 0.25
    p, corrected = bootstrap.permutation_p_values(real, fake, resamples=200)
    assert corrected[17] == p[17] == pytest.approx(1 / 201)
    assert np.flatnonzero(corrected <= 0.05).tolist() == [17]
    assert (p[300:] == 1).all() and (corrected[300:] == 1).all()
    assert (p[:300] < 1).any()


def test_wrong_input_is_named():
    rows = np.zeros((5, 2))
    with pytest.raises(ValueError, match="level 95"):
        bootstrap.interval(lambda a, b: 0.0, rows, rows, level=95)
    with pytest.raises(ValueError, match="1 resamples give no interval"):
        bootstrap.means(rows, resamples=1)
    with pytest.raises(ValueError, match="sets of 5 and 1 rows cannot be resampled"):
        bootstrap.samples(lambda a, b: 0.0, rows, rows[:1])
    with pytest.raises(ValueError, match="real set has 2 columns and the fake set 1"):
        bootstrap.permutation_p_values(rows, rows[:, :1])
