"""Measures of what two codes share, and the two ways of holding it down: a constraint and a bottleneck.

From *Unsupervised Robust Disentangling of Latent Characteristics for Image Synthesis* (Esser, Haux, Ommer; ICCV 2019, arXiv 1910.10223)
and the authors' code. All information is in nats. Pure functions of arrays: what evolves (the multiplier, the weight of the bottleneck,
the moving averages) is given and returned.

The encoder can satisfy the constraint in two ways: by leaving the information out, or by writing it so that the classifier T does not
find it ("overpowering"). A second classifier T', which gives the encoder no gradient, finds what T does not; the difference moves the
weight of the bottleneck.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax


def density_ratio_loss(joint: jax.Array, marginal: jax.Array, counted: jax.Array | None = None) -> jax.Array:
    """Logistic loss whose optimum is the log density ratio: mean softplus(-joint) / 2 + mean softplus(marginal) / 2.

    Args:
      joint: logits [B] of pairs of codes that belong together.
      marginal: logits [B] of pairs that do not.
      counted: bool [B], the marginal pairs that count; None: all. Where none counts their half is 0.
    """
    return 0.5 * jax.nn.softplus(-joint).mean() + 0.5 * _mean(jax.nn.softplus(marginal), counted)


def accuracy(joint: jax.Array, marginal: jax.Array, counted: jax.Array | None = None) -> jax.Array:
    """Share of the pairs that the classifier names rightly, both kinds counting alike; 0.5 is chance."""
    right = 0.5 * (joint > 0).astype(joint.dtype).mean()
    return right + 0.5 * _mean((marginal < 0).astype(joint.dtype), counted)


def estimate(joint: jax.Array) -> jax.Array:
    """Mutual information in nats: the mean log density ratio of the pairs that belong together, logits [B] -> scalar.

    Unlike MINE's bound it has no exponential of the other pairs.
    """
    return joint.mean()


def lagrangian(information: jax.Array, epsilon: float, mu: float, multiplier: jax.Array, most: float = 1e3) -> tuple[jax.Array, jax.Array]:
    """The constraint information <= epsilon as an augmented Lagrangian: (loss, the multiplier after the step).

    With g = information - epsilon the loss is multiplier * g + mu g^2 / 2 where mu g >= -multiplier, and 0 elsewhere, where the
    constraint is met with room. The multiplier moves to max(0, multiplier + mu g), without gradient.

    Args:
      information: scalar, nats.
      epsilon: what is allowed, nats.
      mu: weight of the square and step of the multiplier.
      multiplier: scalar, from 0; it has no gradient.
      most: upper limit of the multiplier (chosen here; the published code has none).
    """
    multiplier = lax.stop_gradient(multiplier)
    excess = information - epsilon
    active = lax.stop_gradient(mu * excess >= -multiplier)
    loss = jnp.where(active, multiplier * excess + 0.5 * mu * jnp.square(excess), 0.0)
    return loss, jnp.clip(multiplier + mu * lax.stop_gradient(excess), 0.0, most)


def moving_average(average: jax.Array, value: jax.Array, decay: float) -> jax.Array:
    """decay * average + (1 - decay) * value, to begin from 0; see ``corrected``."""
    return decay * average + (1.0 - decay) * lax.stop_gradient(value)


def corrected(average: jax.Array, decay: float, updates: jax.Array) -> jax.Array:
    """A moving average that began from 0, free of that beginning: average / (1 - decay^updates), for ``updates`` from 1."""
    return average / -jnp.expm1(jnp.asarray(updates, average.dtype) * math.log(decay))


def overpowering(constrained: jax.Array, free: jax.Array, most: float = 10.0) -> jax.Array:
    """What the classifier without gradient finds beyond the one that the encoder can fool, nats in [0, most].

    Args:
      constrained: moving average of T's estimate.
      free: the same of T'.
    """
    return jnp.clip(jnp.maximum(free, 0.0) - jnp.maximum(constrained, 0.0), 0.0, most)


def bottleneck(gamma: jax.Array, overpowered: jax.Array, rate: float = 0.01, offset: float = 0.01, most: float = 1000.0) -> jax.Array:
    """The weight of the KL term after a step: clip(gamma + rate (overpowered - offset), 0, most).

    With the published numbers it rises by at most 0.1 a step and falls by at most 0.0001.
    """
    return jnp.clip(gamma + rate * (overpowered - offset), 0.0, most)


def kl_diagonal(mean: jax.Array, logvar: jax.Array) -> jax.Array:
    """KL divergence of N(mean, exp(logvar)) from N(0, I), [B, d] each -> nats [B]."""
    return 0.5 * jnp.sum(jnp.square(mean) + jnp.exp(logvar) - 1.0 - logvar, -1)


def kl_full(mean: jax.Array, factor: jax.Array) -> jax.Array:
    """KL divergence of N(mean, factor factor^T) from N(0, I), nats [B].

    Args:
      mean: [B, d].
      factor: [B, d, d], lower triangular with a positive diagonal.
    """
    logs = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1))
    return 0.5 * jnp.sum(jnp.square(factor).sum(-1) - 1.0 + jnp.square(mean) - 2.0 * logs, -1)


def _mean(values: jax.Array, counted: jax.Array | None) -> jax.Array:
    if counted is None:
        return values.mean()
    weights = counted.astype(values.dtype)
    return (values * weights).sum() / jnp.maximum(weights.sum(), 1.0)
