"""What growing shares: the losses of D and G in numpy at float64, and the phases that the paper of the progressive GAN describes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.systems import growing
from jaxgan.systems.progan import Config

BATCH = 6


@pytest.fixture(scope="module")
def critic():
    """(score, images and weights at float64) of D(x) = sum(a x + b x^2 / 2), whose slopes are a + b x."""
    rng = np.random.default_rng(0)
    real, fake = rng.uniform(-1, 1, (2, BATCH, 4, 4, 3))
    a, b = rng.standard_normal((2, 4, 4, 3))

    def score(images):
        return (jnp.asarray(a, jnp.float32) * images + jnp.asarray(b / 2, jnp.float32) * images**2).sum((1, 2, 3))

    return score, real, fake, a, b


@pytest.mark.parametrize("loss", ["wgan_gp", "logistic", "hinge"])
def test_the_losses_are_those_of_a_numpy_formula(loss, critic):
    score, real, fake, a, b = critic
    config = Config(loss=loss, gp_weight=7.0, drift_weight=0.02, r1_weight=3.0)
    key = jax.random.key(1)
    arguments = (jnp.asarray(real, jnp.float32), jnp.asarray(fake, jnp.float32), key)
    found, info = jax.jit(lambda *arguments: growing.discriminator_loss(config, score, *arguments))(*arguments)
    on_real, on_fake = ((a * x + b / 2 * x**2).sum((1, 2, 3)) for x in (real, fake))
    if loss == "wgan_gp":
        share = np.asarray(jax.random.uniform(key, (BATCH, 1, 1, 1)), np.float64)
        between = (1 - share) * real + share * fake
        slopes = np.sqrt(((a + b * between) ** 2).sum((1, 2, 3)))
        penalty = 7 * np.mean((slopes - 1) ** 2)
        expected = on_fake.mean() - on_real.mean() + 0.02 * np.mean(on_real**2)
        of_g = -on_fake.mean()
    else:
        penalty = 1.5 * ((a + b * real) ** 2).sum((1, 2, 3)).mean()
        expected = np.logaddexp(0, on_fake).mean() + np.logaddexp(0, -on_real).mean()
        of_g = np.logaddexp(0, -on_fake).mean()
        if loss == "hinge":
            expected, of_g = np.maximum(0, 1 + on_fake).mean() + np.maximum(0, 1 - on_real).mean(), -on_fake.mean()
    np.testing.assert_allclose(found, expected + penalty, rtol=1e-5)
    for name, value in (("penalty", penalty), ("scores/real", on_real.mean()), ("scores/fake", on_fake.mean())):
        np.testing.assert_allclose(info[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(growing.generator_loss(config, jnp.asarray(on_fake, jnp.float32)), of_g, rtol=1e-5)


def test_the_penalty_moves_the_critic_towards_slopes_of_one(critic):
    _, real, fake, a, _ = critic
    config = Config(gp_weight=10.0, drift_weight=0.0)
    same = jnp.asarray(real, jnp.float32)

    def loss(scale):
        return growing.discriminator_loss(
            config, lambda x: scale * (jnp.asarray(a, jnp.float32) * x).sum((1, 2, 3)), same, same, jax.random.key(0)
        )[0]

    size = float(np.sqrt((a**2).sum()))
    for scale in (0.5 / size, 1 / size, 2 / size):
        # reals and fakes alike, so only the penalty is left: 10 (scale size - 1)^2
        np.testing.assert_allclose(jax.grad(loss)(jnp.float32(scale)), 20 * (scale * size - 1) * size, rtol=1e-4, atol=1e-3)


def test_the_average_follows_g_between_the_moves_of_d_and_g():
    """With a G whose only move is + 1, the average is behind by the decay, and does not see this step's move."""
    config = dataclasses.replace(Config(sizes=(4, 4), start=4), ema=0.004)  # a half-life of 4 images

    def player(owns, loss):
        return growing.Player(owns, loss, growing.optax.sgd(1.0))

    def down(own, params, model, batch, key):
        return -own["G"]["x"].sum(), (model, {})

    def still(own, params, model, batch, key):
        return 0.0 * own["D"]["x"].sum(), (model, {})

    params = {name: {"x": jnp.float32([2.0])} for name in "DG"}
    opt = {name: player((name,), None).tx.init({name: params[name]}) for name in "DG"}
    state = growing.State(jnp.int32(0), params, opt, {"G": {}, "D": {}}, {"G": {"x": jnp.float32([0.0])}}, {})
    step = growing.make_step(config, {"D": player(("D",), still), "G": player(("G",), down)}, lambda batch: None)
    after, _ = jax.jit(step)(state, {"image": jnp.zeros((4, 4, 4, 3))}, jax.random.key(0))
    np.testing.assert_allclose(after.ema["G"]["x"], [1.0], rtol=1e-6)
    np.testing.assert_allclose(after.params["G"]["x"], [3.0], rtol=1e-6)
    assert int(after.step) == 1
