"""Pixel verification: how far each pixel of an image can be traced back to a reference image.

The module of *Identity from here, pose from there* (Xiao, Liu, Lee, ICCV 2019) gives a verifiability score between a generated image and
the image that its identity was taken from. Its equations and layers are not known here; those below are chosen. Each pixel p of a query
image attends to the pixels q of the reference:

    S_pq = <f(x)_p, f(r)_q>                          cosine of two embeddings                        (1)
    A_pq = exp(S_pq / tau) / sum_q' exp(S_pq' / tau)                                                 (2)
    t_p  = sum_q A_pq c(r)_q                         the traced colour                               (3)
    v_p  = sum_q A_pq S_pq                           the verifiability score, in [-1, 1]             (4)
    rho_p = mean over channels of |c(x)_p - t_p|     the residual                                    (5)

on a grid of 1/2 or 1/4 of the image's side, where c is the image averaged down to the grid. A score near 1 says that a pixel like this
one is there; a residual near 0 that its colour is. The image itself has the best of both, so the loss of a generator needs terms of pose
beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxgan.nets.layers import average_pool, convolve, truncated_normal

TAU = (0.01, 0.5)
"""Range of the temperature."""
WHOLE = 1024
"""With more pixels on the grid the query is taken in parts of at most this many."""


class PVMOut(NamedTuple):
    """What the reference explains of the query; N = h w pixels of the grid."""

    attn: jax.Array | None
    """[B, N, N]: row p sums to 1 over the reference's pixels; None where it was not asked for."""
    traced: jax.Array
    """[B, h, w, 3]: colours in the images' range."""
    score: jax.Array
    """[B, h, w] in [-1, 1]."""
    residual: jax.Array
    """[B, h, w], from 0."""


def init(key: jax.Array, widths: tuple[int, int] = (32, 64)) -> dict[str, Any]:
    """Parameters of the embedding (3x3, 3x3, 3x3 and 1x1 convolutions), of the temperature (0.07) and of the score's logit 10 v - 7."""
    narrow, wide = widths
    shapes = {"conv_0": (3, 3, 3, narrow), "conv_1": (3, 3, narrow, wide), "conv_2": (3, 3, wide, wide), "conv_3": (1, 1, wide, wide)}
    params: dict[str, Any] = {}
    for number, (name, shape) in enumerate(shapes.items()):
        stddev = (2.0 / (shape[0] * shape[1] * shape[2])) ** 0.5
        params[name] = {"kernel": truncated_normal(stddev)(jax.random.fold_in(key, number), shape), "bias": jnp.zeros((shape[3],))}
    return params | {"log_tau": jnp.log(jnp.asarray(0.07)), "slope": jnp.asarray(10.0), "offset": jnp.asarray(-7.0)}


def temperature(params: Mapping[str, Any]) -> jax.Array:
    """tau, kept within ``TAU``."""
    return jnp.clip(jnp.exp(params["log_tau"]), *TAU)


def colours(images: jax.Array, factor: int = 2) -> jax.Array:
    """c(x): means over squares of ``factor`` (2 or 4) pixels, [B, S, S, 3] -> [B, S / factor, S / factor, 3]."""
    return average_pool(images) if factor == 2 else average_pool(average_pool(images))


def embed(params: Mapping[str, Any], images: jax.Array, factor: int = 2) -> jax.Array:
    """f(x): [B, S, S, 3] in [-1, 1] -> unit vectors [B, S / factor, S / factor, d + 27].

    Learned numbers, and half the colours of the 3x3 neighbourhood on the grid (its border repeated). ``factor`` 4: the third convolution
    has stride 2 as well.

    Raises:
      ValueError: another factor, or a side that it does not divide.
    """
    if factor not in (2, 4) or images.shape[1] % factor or images.shape[2] % factor:
        raise ValueError(f"a grid of 1 / {factor} of images {images.shape}: give 2 or 4, and sides that it divides")
    x = jax.nn.silu(_layer(params["conv_0"], images, 1))
    x = jax.nn.silu(_layer(params["conv_1"], x, 2))
    x = _layer(params["conv_2"], x, factor // 2)
    x = _layer(params["conv_3"], x, 1)
    small = jnp.pad(colours(images, factor), ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    height, width = x.shape[1:3]
    around = [small[:, down : down + height, across : across + width] for down in range(3) for across in range(3)]
    x = jnp.concatenate([x, *(0.5 * part for part in around)], -1)
    return x * lax.rsqrt(jnp.sum(x * x, -1, keepdims=True) + 1e-6)


def _layer(params: Mapping[str, jax.Array], x: jax.Array, stride: int) -> jax.Array:
    edge = params["kernel"].shape[0] // 2
    return convolve(x, params["kernel"], [(edge, edge), (edge, edge)], stride=stride) + params["bias"]


def trace(
    query: jax.Array,
    colour: jax.Array,
    reference: jax.Array,
    reference_colour: jax.Array,
    tau: jax.Array,
    *,
    whole: int = WHOLE,
    attention: bool = True,
) -> tuple[jax.Array | None, jax.Array, jax.Array, jax.Array]:
    """Equations (1) to (5) on rows of pixels.

    Args:
      query: [B, N, d], unit vectors; ``colour``: [B, N, 3].
      reference: [B, M, d], unit vectors; ``reference_colour``: [B, M, 3].
      tau: the temperature.
      whole: more query pixels than this are taken in equal parts of at most so many; then a gradient keeps one part's attention at a time.
      attention: give A as well.

    Returns:
      (A [B, N, M] or None, traced colours [B, N, 3], scores [B, N], residuals [B, N]).
    """

    def part(query: jax.Array, colour: jax.Array) -> tuple[jax.Array | None, jax.Array, jax.Array, jax.Array]:
        similar = jnp.einsum("bpd,bqd->bpq", query, reference)
        weights = jax.nn.softmax(similar / tau, -1)
        traced = jnp.einsum("bpq,bqc->bpc", weights, reference_colour)
        score = jnp.sum(weights * similar, -1)
        return weights if attention else None, traced, score, jnp.abs(colour - traced).mean(-1)

    count = query.shape[1]
    parts = next(parts for parts in range(-(-count // whole), count + 1) if count % parts == 0)
    if parts == 1:
        return part(query, colour)
    split = [jnp.moveaxis(x.reshape(x.shape[0], parts, count // parts, x.shape[-1]), 1, 0) for x in (query, colour)]
    found = lax.map(lambda item: jax.checkpoint(part)(*item), tuple(split))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], count, *x.shape[3:]), found)


def pvm_apply(
    params: Mapping[str, Any], query: jax.Array, ref: jax.Array, *, factor: int = 2, whole: int = WHOLE, attention: bool = True
) -> PVMOut:
    """Traces each pixel of ``query`` back to ``ref``, both [B, S, S, 3] in [-1, 1], on a grid of S / ``factor``.

    ``whole`` and ``attention``: as in ``trace``.
    """
    f_query, f_ref = embed(params, query, factor), embed(params, ref, factor)
    c_query, c_ref = colours(query, factor), lax.stop_gradient(colours(ref, factor))
    batch, height, width, _ = c_query.shape
    rows = [x.reshape(batch, -1, x.shape[-1]) for x in (f_query, c_query, f_ref, c_ref)]
    attn, traced, score, residual = trace(*rows, temperature(params), whole=whole, attention=attention)
    return PVMOut(attn, traced.reshape(c_query.shape), score.reshape(batch, height, width), residual.reshape(batch, height, width))


def demand(image: jax.Array, other: jax.Array, factor: int = 2) -> jax.Array:
    """m_p = min(1, 5 mean over channels of |c(image)_p - c(other)_p|), [B, h, w]: nothing is asked of pixels where the two agree.

    Background can be traced to any image; only where target and pose image differ does it matter whom a pixel belongs to.
    """
    return jnp.minimum(1.0, 5.0 * jnp.abs(colours(image, factor) - colours(other, factor)).mean(-1))


def embedding_loss(
    params: Mapping[str, Any], target: jax.Array, identity: jax.Array, pose: jax.Array, *, factor: int = 2, whole: int = WHOLE
) -> tuple[jax.Array, PVMOut]:
    """What the embedding learns, from real images [B, S, S, 3] of one triplet alone:

        mean rho(target | identity) + 0.5 mean m [BCE(s v(target | identity) + b, 1) + BCE(s v(target | pose) + b, 0)] / 2         (6)

    The target shows the object of ``identity`` and another one than ``pose``; m is ``demand`` of target and pose image.

    Returns:
      (loss, the target traced back to ``identity``, without attention).
    """
    right = pvm_apply(params, target, identity, factor=factor, whole=whole, attention=False)
    wrong = pvm_apply(params, target, pose, factor=factor, whole=whole, attention=False)
    logits = [params["slope"] * out.score + params["offset"] for out in (right, wrong)]
    surprise = 0.5 * (jax.nn.softplus(-logits[0]) + jax.nn.softplus(logits[1]))
    return right.residual.mean() + 0.5 * (demand(target, pose, factor) * surprise).mean(), right


def pvm_loss(out: PVMOut, mask: jax.Array, rho_bar: jax.Array | float, v_bar: jax.Array | float, beta: float = 0.25) -> jax.Array:
    """The generator's loss, of an image traced back to the one that its identity is from:

        mean m [max(0, rho - rho_bar) + beta max(0, v_bar - v)]                                                         (7)

    A true target has residual ``rho_bar`` and score ``v_bar`` (some of it is hidden in the reference, or shaded otherwise): beyond them
    there is nothing to gain, or a copy of the reference would be the best answer. ``mask``: [B, h, w]. Freeze the parameters before
    ``pvm_apply`` (``jax.lax.stop_gradient``): only the images are to learn.
    """
    return (mask * (jax.nn.relu(out.residual - rho_bar) + beta * jax.nn.relu(v_bar - out.score))).mean()
