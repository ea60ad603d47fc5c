"""Distances and losses of layer inversion: how far estimated activations, latents and images are from the true ones.

Bau et al., "Seeing What a GAN Cannot Generate", ICCV 2019. Where its published code and the paper differ, both are
here and the code's is the default. Arrays are [N, h, w, C] or latents [N, Z]: cosines run over the last axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from jaxgan.losses import absolute_error, safe_norm

REGENERATION_WEIGHT = 0.01
"""lambda_R: the weight of |r_i - g_i(e_i(r_i))| beside the estimate's own error."""
IMAGE = "x"
"""Name of the image among the things that terms compare."""


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Cosine of the angle over the last axis: [..., C], [..., C] -> [...]. 0, with a finite gradient, where a vector is 0."""
    least = jnp.asarray(1e-12, a.dtype)
    return (a * b).sum(-1) / (jnp.maximum(safe_norm(a, -1), least) * jnp.maximum(safe_norm(b, -1), least))


def cosine_error(a: jax.Array, b: jax.Array) -> jax.Array:
    """Mean over samples and pixels of 1 - cos(a, b); 0 for equal directions, 2 for opposite ones. The scale of a pixel does not matter."""
    return (1 - cosine(a, b)).mean()


def cosine_distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """Mean of sqrt(1 - cos(a, b)), with 1 - cos cut at 0: rounding takes it below, where the root of the published code is NaN."""
    error = 1 - cosine(a, b)
    positive = error > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, error, 1)), 0).mean()


def mean_square(a: jax.Array, b: jax.Array) -> jax.Array:
    """Mean squared difference over every value."""
    return jnp.square(a - b).mean()


DISTANCES = {"cosine": cosine_error, "absolute": absolute_error}
"""How a layer's encoder may be trained: 'cosine' as the published code, 'absolute' by L1 as the paper."""


def layer_terms(
    s: jax.Array, estimated_s: jax.Array, r: jax.Array, regenerated_r: jax.Array, *, distance: str = "cosine"
) -> dict[str, jax.Array]:
    """Terms of one layer's encoder (stage 1): 'estimate' = d(s, s'), 'regenerate' = d(r, r') for s' = e_i(r), r' = g_i(s').

    Args:
      s, estimated_s: r_(i-1) and its estimate; z for the first layer.
      r, regenerated_r: r_i, and what layer i makes of the estimate.
      distance: a key of ``DISTANCES``.

    Raises:
      ValueError: another distance.
    """
    if distance not in DISTANCES:
        raise ValueError(f"distance {distance!r}: one of {', '.join(DISTANCES)}")
    between = DISTANCES[distance]
    return {"estimate": between(s, estimated_s), "regenerate": between(r, regenerated_r)}


def layer_loss(terms: Mapping[str, jax.Array], weight: float = REGENERATION_WEIGHT) -> jax.Array:
    """estimate + weight * regenerate, from ``layer_terms``."""
    return terms["estimate"] + weight * terms["regenerate"]


def image_loss(r: jax.Array, estimated_r: jax.Array) -> jax.Array:
    """mse(r, e_f(g_f(r))): the image encoder's (stage 2), r from random z."""
    return mean_square(r, estimated_r)


def joint_terms(
    true: Mapping[str, jax.Array],
    estimated: Mapping[str, jax.Array],
    regenerated: Mapping[str, jax.Array],
    *,
    estimate: Sequence[str] = ("layer4",),
    recover: Sequence[str] = ("z", "layer4", IMAGE),
) -> dict[str, jax.Array]:
    """Terms of the encoder's joint training (stage 3); their plain sum is the loss.

    Args:
      true: what the generator has, by name: 'z', 'layer1', ..., and the image 'x'.
      estimated: what the encoder says on the way to its z, 'z' included.
      regenerated: what the generator makes of the estimated z; 'z' is looked up in ``estimated``.
      estimate: names whose estimates count: 'estimate_layer4' = cosine error(true, estimated).
      recover: names that count once generated again: 'recover_layer4' by the cosine error, 'recover_x' by the mean square.

    Returns:
      The terms by name, in the order asked for.

    Raises:
      ValueError: a name that is not there, or no name at all.
    """
    if not estimate and not recover:
        raise ValueError("neither an estimate nor anything recovered is compared: there is nothing to train")
    terms = {}
    for word, names, found in (("estimate", estimate, estimated), ("recover", recover, regenerated)):
        for name in names:
            has = estimated if name == "z" else found
            if name not in true or name not in has:
                raise ValueError(f"nothing to {word} is called {name!r}; there are {', '.join(key for key in true if key in has)}")
            terms[f"{word}_{name}"] = (mean_square if name == IMAGE else cosine_error)(true[name], has[name])
    return terms


def bottom_recover(depth: int, names: Sequence[str] = ("layer1", "layer2", "layer3", "layer4")) -> tuple[str, ...]:
    """What counts in step ``depth`` of the bottom-up curriculum, for ``joint_terms(..., estimate=(), recover=...)``.

    Steps 1 to len(names) train e_depth ... e_1 from r_depth on: z, and every r_i up to r_depth. The last step, len(names) + 1, trains
    the image encoder as well: all of them, and the image.

    Raises:
      ValueError: another step.
    """
    if not 1 <= depth <= len(names) + 1:
        raise ValueError(f"step {depth} of the bottom-up curriculum: it has the steps 1 to {len(names) + 1}")
    return ("z", *names[:depth], *((IMAGE,) if depth > len(names) else ()))
