"""Small networks fitted to arrays that fit on the device: the judges, probes and auditors that measure other networks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Tree = Any


def fit(
    loss: Callable[[Tree, dict[str, jax.Array], jax.Array], jax.Array],
    params: Tree,
    data: Mapping[str, Any],
    *,
    steps: int,
    batch: int,
    seed: int = 0,
    rate: float = 1e-3,
    decay: float = 0.0,
    chunk: int = 100,
    watch: Callable[[int, Tree, float], None] | None = None,
) -> Tree:
    """Parameters after ``steps`` of Adam (AdamW with ``decay``), the rate falling to 0 along half a cosine.

    Args:
      loss: ``loss(params, batch, key) -> scalar``.
      params: the first ones.
      data: arrays by name whose first axis is the sample; a step sees ``batch`` of them, drawn with replacement.
      chunk: steps compiled as one scan; ``watch(step, params, mean loss of the chunk)`` is called after each.

    Raises:
      ValueError: no step or no sample. FloatingPointError: the loss is not finite.
    """
    counts = {len(array) for array in data.values()}
    if steps < 1 or batch < 1 or len(counts) != 1 or 0 in counts:
        raise ValueError(f"{steps} steps of {batch} samples out of {sorted(counts)}: give at least one of each, and arrays of one length")
    n = counts.pop()
    tx = optax.adamw(optax.cosine_decay_schedule(rate, steps), weight_decay=decay)
    work = functools.partial(_chunk, loss, tx)
    work = jax.jit(work, donate_argnums=(0, 1))
    arrays = {name: jnp.asarray(array) for name, array in data.items()}
    params = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), params)
    state = tx.init(params)
    rng, key = np.random.default_rng(seed), jax.random.key(seed)
    chunk = min(chunk, steps)
    for first in range(0, steps, chunk):
        count = min(chunk, steps - first)
        chosen = rng.integers(0, n, (count, batch)).astype(np.int32)
        keys = jax.random.split(jax.random.fold_in(key, first), count)
        params, state, mean = work(params, state, arrays, chosen, keys)
        if not np.isfinite(mean):
            raise FloatingPointError(
                f"the loss of a measuring network is {float(mean)} before step {first + count}: its inputs are not sane"
            )
        if watch:
            watch(first + count, params, float(mean))
    return params


def _chunk(loss: Any, tx: Any, params: Tree, state: Tree, arrays: dict[str, jax.Array], chosen: jax.Array, keys: jax.Array) -> Any:
    def step(carry: Any, given: Any) -> Any:
        params, state = carry
        rows, key = given
        value, grads = jax.value_and_grad(loss)(params, {name: array[rows] for name, array in arrays.items()}, key)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to the power of an integer count
            updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return (params, state), value

    (params, state), values = jax.lax.scan(step, (params, state), (chosen, keys))
    return params, state, values.mean()


def in_blocks(function: Callable[..., Any], *arrays: Any, block: int = 64) -> Any:
    """``function`` of blocks of the rows of arrays (or trees of them), joined again on the host: a pytree of numpy arrays.

    All blocks have one shape, so that a jitted function is compiled once; the last block is filled up with its last row.
    """
    n = len(jax.tree.leaves(arrays[0])[0])
    found = []
    for first in range(0, n, block):
        rows = np.minimum(np.arange(first, first + min(block, n)), n - 1)
        count = min(block, n - first)
        made = jax.device_get(function(*(jax.tree.map(lambda leaf, rows=rows: leaf[rows], array) for array in arrays)))
        found.append(jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], made))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)
