"""Mutual information of codes: the formulas in double precision, the numbers of the published update rules, and two known answers."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan import mutual_information as mi
from jaxgan.nets.density_ratio import DensityRatio


def softplus(x):
    return np.logaddexp(0.0, x)


def test_the_loss_is_half_of_each_kind_of_pair_and_pairs_that_do_not_count_take_no_part():
    rng = np.random.default_rng(0)
    joint, marginal = rng.normal(0, 4, 9), rng.normal(0, 4, 9)
    counted = np.arange(9) % 3 > 0
    given = [jnp.asarray(x, jnp.float32) for x in (joint, marginal)]
    want = 0.5 * softplus(-joint).mean() + 0.5 * softplus(marginal).mean()
    np.testing.assert_allclose(mi.density_ratio_loss(*given), want, rtol=1e-6)
    want = 0.5 * softplus(-joint).mean() + 0.5 * softplus(marginal[counted]).mean()
    np.testing.assert_allclose(mi.density_ratio_loss(*given, jnp.asarray(counted)), want, rtol=1e-6)
    np.testing.assert_allclose(mi.density_ratio_loss(*given, jnp.zeros(9, bool)), 0.5 * softplus(-joint).mean(), rtol=1e-6)
    np.testing.assert_allclose(mi.estimate(given[0]), joint.mean(), rtol=1e-6)
    want = 0.5 * (joint > 0).mean() + 0.5 * (marginal[counted] < 0).mean()
    np.testing.assert_allclose(mi.accuracy(*given, jnp.asarray(counted)), want, rtol=1e-6)


@pytest.mark.parametrize(
    ("multiplier", "mu", "excess", "loss", "after"),
    [(0.0, 0.1, -0.3, 0.0, 0.0), (1.0, 0.1, 0.5, 0.5125, 1.05), (0.01, 0.1, -0.2, 0.0, 0.0), (999.99, 0.1, 9.0, 9003.96, 1000.0)],
)
def test_the_constraint_costs_and_moves_its_multiplier_as_published(multiplier, mu, excess, loss, after):
    epsilon = 0.125
    found = mi.lagrangian(jnp.asarray(epsilon + excess, jnp.float32), epsilon, mu, jnp.asarray(multiplier, jnp.float32))
    np.testing.assert_allclose(found, (loss, after), rtol=1e-5, atol=1e-7)


def test_the_constraint_pulls_with_its_multiplier_and_not_where_it_is_met():
    slope = jax.grad(lambda information, multiplier: mi.lagrangian(information, 0.125, 0.1, multiplier)[0], (0, 1))
    np.testing.assert_allclose(slope(jnp.asarray(0.625), jnp.asarray(1.0)), (1.0 + 0.1 * 0.5, 0.0), rtol=1e-6)
    np.testing.assert_array_equal(slope(jnp.asarray(-0.075), jnp.asarray(0.01)), (0.0, 0.0))


def test_the_bottleneck_rises_fast_falls_slowly_and_stays_in_its_limits():
    for gamma, overpowered, after in ((7.5, 0.0, 7.4999), (7.5, 10.0, 7.5999), (0.00005, 0.0, 0.0), (999.95, 10.0, 1000.0)):
        np.testing.assert_allclose(mi.bottleneck(jnp.asarray(gamma), jnp.asarray(overpowered)), after, rtol=1e-6, atol=1e-9)


def test_overpowering_is_what_the_free_classifier_finds_beyond_the_other():
    for constrained, free, found in ((0.1, 0.4, 0.3), (-3.0, 0.4, 0.4), (0.5, 0.4, 0.0), (-1.0, -2.0, 0.0), (0.0, 40.0, 10.0)):
        np.testing.assert_allclose(mi.overpowering(jnp.asarray(constrained), jnp.asarray(free)), found, rtol=1e-6, atol=1e-9)


def test_a_corrected_average_of_one_value_is_that_value_from_the_first_step():
    average = jnp.zeros(())
    for update in range(1, 6):
        average = mi.moving_average(average, jnp.asarray(3.0), 0.99)
        np.testing.assert_allclose(mi.corrected(average, 0.99, jnp.asarray(update)), 3.0, rtol=1e-5)


def test_both_divergences_are_the_formulas_and_agree_where_the_covariance_is_diagonal():
    rng = np.random.default_rng(1)
    mean, factor = rng.normal(0, 1, (3, 5)), np.tril(rng.normal(0, 1, (3, 5, 5)))
    factor[:, range(5), range(5)] = np.exp(rng.normal(0, 0.5, (3, 5)))
    covariance = factor @ factor.swapaxes(1, 2)
    want = 0.5 * (np.trace(covariance, axis1=1, axis2=2) - 5 + (mean**2).sum(-1) - np.linalg.slogdet(covariance)[1])
    np.testing.assert_allclose(mi.kl_full(jnp.asarray(mean, jnp.float32), jnp.asarray(factor, jnp.float32)), want, rtol=1e-5)
    logvar = rng.normal(0, 2, (3, 5))
    want = 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar).sum(-1)
    diagonal = mi.kl_diagonal(jnp.asarray(mean, jnp.float32), jnp.asarray(logvar, jnp.float32))
    np.testing.assert_allclose(diagonal, want, rtol=1e-5)
    matrix = np.exp(0.5 * logvar)[..., None] * np.eye(5)
    np.testing.assert_allclose(mi.kl_full(jnp.asarray(mean, jnp.float32), jnp.asarray(matrix, jnp.float32)), diagonal, rtol=1e-5)
    assert not np.asarray(mi.kl_full(jnp.zeros((2, 4)), jnp.broadcast_to(jnp.eye(4), (2, 4, 4)))).any()
    assert not np.asarray(mi.kl_diagonal(jnp.zeros((2, 4)), jnp.zeros((2, 4)))).any()


def test_the_ratio_is_the_inner_product_of_two_towers():
    network = DensityRatio(width=6, blocks=2)
    rng = np.random.default_rng(2)
    pose, identity = rng.normal(0, 1, (5, 3)).astype(np.float32), rng.normal(0, 1, (5, 4)).astype(np.float32)
    params = network.init(jax.random.key(0), jnp.asarray(pose), jnp.asarray(identity))["params"]

    def tower(tree, x):
        linear = lambda name, x: x @ np.asarray(tree[name]["kernel"], np.float64) + np.asarray(tree[name]["bias"], np.float64)  # noqa: E731
        x = linear("into", x)
        for block in range(2):
            x = x + linear(f"block{block}", np.maximum(x, 0))
        return linear("out", np.maximum(x, 0))

    want = (tower(params["pose"], pose) * tower(params["identity"], identity)).sum(-1)
    np.testing.assert_allclose(network.apply({"params": params}, jnp.asarray(pose), jnp.asarray(identity)), want, rtol=1e-4, atol=1e-6)


def test_the_classifier_starts_near_zero_and_within_the_published_bounds():
    network = DensityRatio()
    codes = jax.random.normal(jax.random.key(0), (2, 256, 64))
    params = network.init(jax.random.key(1), *codes)["params"]
    assert abs(float(network.apply({"params": params}, *codes).mean())) < 1.2
    for name, inputs in (("into", 64), ("block2", 512), ("out", 512)):
        for leaf in params["pose"][name].values():
            assert 0.95 < float(jnp.abs(leaf).max()) * math.sqrt(inputs) <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("correlation", "least", "most"), [(0.0, -0.05, 0.05), (0.8, 1.8, 2.4)])
def test_a_trained_classifier_reads_the_known_information_of_gaussians(correlation, least, most):
    """Independent: 0. Four dimensions with r = 0.8: -2 ln(1 - 0.64) = 2.04 nats."""
    network, tx = DensityRatio(width=128), optax.adam(2e-4, 0.5, 0.9)

    def draw(key, n):
        pose, noise = jax.random.normal(key, (2, n, 4))
        return pose, correlation * pose + (1 - correlation**2) ** 0.5 * noise

    def step(carried, key):
        params, opt = carried
        pose, identity = draw(key, 32)

        def loss(params):
            apply = lambda identity: network.apply({"params": params}, pose, identity)  # noqa: E731
            return mi.density_ratio_loss(apply(identity), apply(jnp.roll(identity, 1, 0)))

        with jax.numpy_dtype_promotion("standard"):  # optax's bias correction
            updates, opt = tx.update(jax.grad(loss)(params), opt, params)
        return (optax.apply_updates(params, updates), opt), None

    params = network.init(jax.random.key(0), *draw(jax.random.key(0), 2))["params"]
    keys = jax.random.split(jax.random.key(1), 2000)
    (params, _), _ = jax.jit(lambda params: jax.lax.scan(step, (params, tx.init(params)), keys))(params)
    held_out = network.apply({"params": params}, *draw(jax.random.key(2), 8192))
    assert least < float(mi.estimate(held_out)) < most, float(mi.estimate(held_out))
