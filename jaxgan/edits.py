"""Edits of extended codes (W+), each a line: morphing, crossover, expression transfer, style mixing (Abdal et al., ICCV 2019, section 5).

Codes are [..., rows, W]; whatever is before the last two axes is broadcast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

Array = Any


def morph(a: Array, b: Array, share: Array) -> jax.Array:
    """(1 - share) a + share b, all rows (section 5.1).

    ``share`` of ``b``: a number, or an array of them, whose axes come first: two codes [rows, W] and 5 shares give [5, rows, W]. 0 gives
    ``a`` and 1 gives ``b`` exactly; what lies outside goes beyond them.
    """
    share = jnp.asarray(share, jnp.float32)[..., None, None]
    return (1 - share) * a + share * b


def crossover(a: Array, b: Array, layer: Array) -> jax.Array:
    """Rows below ``layer`` of ``a``, the others of ``b`` (section 5.2, which takes half the rows); 0 gives ``b``, all rows ``a``."""
    return jnp.where((jnp.arange(a.shape[-2]) < layer)[:, None], a, b)


def transfer(target: Array, neutral: Array, expressive: Array, strength: Array = 1.0, threshold: float | None = 1.0) -> jax.Array:
    """target + strength * (expressive - neutral) (section 5.3).

    Rows of the difference whose Euclidean norm is below ``threshold`` are taken as 0: they carry the background. None or 0 keeps all.
    ``strength`` may be an array, as ``share`` of ``morph``.
    """
    kept = keep_rows(expressive - neutral, threshold)
    return target + jnp.asarray(strength, jnp.float32)[..., None, None] * kept


def keep_rows(difference: Array, threshold: float | None) -> jax.Array:
    """The difference of two codes with the rows whose Euclidean norm is below ``threshold`` set to 0; None or 0 keeps all."""
    return jnp.where(jnp.linalg.norm(difference, axis=-1, keepdims=True) >= (threshold or 0.0), difference, 0.0)


def mix(destination: Array, source: Array, rows: Sequence[int]) -> jax.Array:
    """``destination`` with these rows of ``source`` (Karras et al., CVPR 2019, section 3.1)."""
    return jnp.where(jnp.isin(jnp.arange(destination.shape[-2]), jnp.asarray(rows, jnp.int32))[:, None], source, destination)


def truncate(code: Array, w_avg: Array, psi: Array) -> jax.Array:
    """w_avg + psi (code - w_avg), all rows; a negative psi gives the anti-face."""
    return morph(jnp.broadcast_to(w_avg, code.shape), code, psi)


def style_rows(row_sides: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Rows by what they govern: 'coarse' styles 4 and 8 px, 'middle' 16 and 32, 'fine' 64 and above; without those that have no row.

    For the 18 rows of a StyleGAN at 1024 px: 0-3, 4-7 and 8-17, as in the paper's figure of style mixing.
    """
    limits = {"coarse": (0, 16), "middle": (16, 64), "fine": (64, 1 << 30)}
    found = {name: tuple(i for i, side in enumerate(row_sides) if low <= side < high) for name, (low, high) in limits.items()}
    return {name: rows for name, rows in found.items() if rows}
