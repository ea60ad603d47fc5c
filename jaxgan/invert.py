"""One batched optimiser of latent variables, for embedding images and for layer inversion: many images at once, each on its own way.

The per-image losses are added up and differentiated once; the optimiser's state, line search, stopping and random keys are per image. So
every image goes where it would go alone, with any optax transformation, on any number of devices. A run is one compiled loop, called for a
chunk of steps at a time; between chunks the host can report, save or stop. ``optax`` schedules are the learning rates.

    run = invert.start(codes, tx, keys)
    run = invert.run(run, loss, tx, frozen, targets, steps=1000)
    run.variables, run.history['loss']                                  # [N, ...], [1001, N]
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = Any

RUNNING, STALLED, FAILED = 0, 1, 2
"""``Run.status``: still moving; stopped early; stopped because its loss, gradient or update was not finite."""


class Stop(NamedTuple):
    """Early stop: an image stops when ``patience`` steps in a row have not lowered its loss by the share ``tolerance``."""

    tolerance: float
    """Of the loss at the last step that counted as progress: 0.001 is a tenth of a percent."""
    patience: int


class Run(NamedTuple):
    """A run between two steps. Every array but ``step`` and the history has the first axis N, the images."""

    step: int
    """Completed steps."""
    variables: Tree
    """What is optimised; a stopped image keeps what it had."""
    opt: Tree
    """State of the optimiser, one for each image."""
    keys: jax.Array
    """Key array [N]: an image's random draws are of its own key and the step alone."""
    last: Tree
    """Variables one step before, to which an image goes back whose loss is not finite."""
    status: jax.Array
    """int32 [N]: RUNNING, STALLED or FAILED."""
    stopped_at: jax.Array
    """int32 [N]: row of the history in which the image stopped; -1 while it runs."""
    kept_at: jax.Array
    """int32 [N]: row of the history that belongs to the variables a stopped image keeps; -1 while it runs."""
    reference: jax.Array
    """float32 [N]: the loss at the last step that counted as progress."""
    waited: jax.Array
    """int32 [N]: steps since then."""
    best: Tree | None
    """Variables of the lowest loss so far, where ``start`` was asked for them."""
    best_loss: jax.Array
    best_at: jax.Array
    """int32 [N]: the row of the history of ``best``; -1 before the first step."""
    history: dict[str, np.ndarray]
    """'loss' and the parts' names -> [rows, N]: row t before step t + 1. ``run`` returns steps + 1 rows: the last is of ``variables``.
    Rows after an image has stopped repeat the one of the variables it keeps; the row in which it failed holds what was not finite."""


Loss = Callable[[Tree, Tree, Tree, jax.Array, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]
"""``loss(variables, frozen, targets, step, keys) -> (losses [N], {part: [N]})``. ``step``: int32 scalar, from 0; ``keys``: key array [N],
of this step. Losses must be of each image alone. The parts may not be named 'loss'."""


def start(variables: Tree, tx: optax.GradientTransformation, keys: jax.Array, *, keep_best: bool = False) -> Run:
    """A run before its first step.

    Args:
      variables: pytree of floating arrays [N, ...]; copied.
      tx: any optax transformation, also one with a line search (``optax.lbfgs()``); it is initialised for each image by itself. A line
        search goes on until the last image has found its step, and each of its trials costs two losses (both cases are evaluated).
      keys: key array [N] (``jax.random.split(key, n)``, or one for each image's name).
      keep_best: hold the variables of the lowest loss, too.

    Raises:
      ValueError: no arrays, first axes that differ, dtypes that are not floating, numbers that are not finite.
    """
    variables = jax.tree.map(lambda x: jnp.array(x, copy=True), variables)
    flat, _ = jax.tree_util.tree_flatten_with_path(variables)
    if not jnp.issubdtype(jnp.asarray(keys).dtype, jax.dtypes.prng_key) or keys.ndim != 1 or not keys.shape[0]:
        raise ValueError("keys must be a key array [N] with one key for each image: jax.random.split(jax.random.key(seed), n)")
    n = keys.shape[0]
    for path, leaf in flat:
        name = f"variables{jax.tree_util.keystr(path)}"
        if leaf.ndim < 1 or leaf.shape[0] != n or not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"{name} is {leaf.dtype} {leaf.shape}: floating numbers [{n}, ...] are needed, one row for each key")
        if not np.isfinite(np.asarray(leaf)).all():
            raise ValueError(f"{name} holds numbers that are not finite: a run cannot start there")
    if not flat:
        raise ValueError("no variables: there is nothing to optimise")
    with jax.numpy_dtype_promotion("standard"):
        opt = jax.vmap(tx.init, axis_size=n)(variables)
    full = functools.partial(jnp.full, (n,))
    copy = functools.partial(jax.tree.map, jnp.copy)
    minus, zero, infinite = (lambda: full(-1, jnp.int32)), (lambda: full(0, jnp.int32)), (lambda: full(jnp.inf, jnp.float32))
    best = copy(variables) if keep_best else None
    return Run(
        0, variables, opt, keys, copy(variables), zero(), minus(), minus(), infinite(), zero(), best, infinite(), minus(), {}
    )  # fmt: skip


def run(
    state: Run,
    loss: Loss,
    tx: optax.GradientTransformation,
    frozen: Tree,
    targets: Tree,
    *,
    steps: int,
    chunk: int = 100,
    stop: Stop | None = None,
    after: Callable[[Tree, jax.Array], Tree] | None = None,
    mesh: Mesh | None = None,
    callback: Callable[[Run], Any] | None = None,
    one_by_one: bool | None = None,
) -> Run:
    """Goes on until ``steps`` steps are done, all images have stopped, or the callback says so.

    Compiled once for a loss, ``tx``, ``chunk``, number of images and mesh; pass the same function objects again to use it again.

    Args:
      state: from ``start``, ``load`` or an earlier call; not changed.
      loss: see ``Loss``.
      tx: as given to ``start``.
      frozen: any pytree that the loss needs (networks); whole on every device.
      targets: pytree of arrays [N, ...] that belong to the images (what is computed once of each target, masks, starts).
      steps: in all, those already done included.
      chunk: most steps between two looks of the host.
      stop: early stop per image; None: none.
      after: ``after(variables, keys) -> variables`` behind every step, as projections need; keys [N] differ from the loss's.
      mesh: its axis 'data' splits the images; the number of images may be any: copies of the last, which do not move, fill it up. None:
        where jax puts arrays.
      callback: ``callback(run)`` after every chunk but the last, with ``run.step`` rows of history; true ends the run there.
      one_by_one: within a step, a device takes its images one after the other; on a CPU a single image's maps stay in its cache, and a
        batch of four costs a fifth less. None: on a CPU. Changes no more than rounding.

    Returns:
      The run with a last row of history for the variables it ends with.

    Raises:
      ValueError: targets of another number of images, a loss that is not [N], sizes out of range.
    """
    n = state.keys.shape[0]
    if chunk < 1 or steps < state.step:
        raise ValueError(f"chunk {chunk} and steps {steps}: at least 1, and at least the {state.step} steps already done")
    if stop is not None and (stop.patience < 1 or not 0 <= stop.tolerance < 1):
        raise ValueError(f"{stop}: patience counts steps from 1, tolerance is a share in [0, 1)")
    for path, leaf in jax.tree_util.tree_flatten_with_path(targets)[0]:
        if np.ndim(leaf) < 1 or np.shape(leaf)[0] != n:
            raise ValueError(f"targets{jax.tree_util.keystr(path)} is {np.shape(leaf)}: the first axis must be the {n} images of the run")
    step, history = state.step, {name: rows[: state.step] for name, rows in state.history.items()}
    state, targets, frozen = _place(state._replace(step=(), history={}), targets, frozen, n, mesh)
    one_by_one = jax.default_backend() == "cpu" if one_by_one is None else one_by_one
    advance = functools.partial(_advance, loss=loss, tx=tx, after=after, stop=stop, mesh=mesh, chunk=chunk, one_by_one=one_by_one)
    while step < steps and (np.asarray(state.status[:n]) == RUNNING).any():
        count = min(chunk, steps - step)
        state, rows = advance(state, frozen, targets, step, count, True)
        step += count
        history = _append(history, rows, count, state, n)
        if step < steps and callback is not None and callback(_shown(state, step, history, n)):
            steps = step
    if step < steps:  # all have stopped: the rows left are those of the variables they keep
        rows = {name: np.zeros((steps + 1 - step, n), np.float32) for name in history}
    else:
        state, rows = advance(state, frozen, targets, step, 1, False)
    return _finished(_shown(state, steps, _append(history, rows, steps + 1 - step, state, n), n))


def _place(state: Run, targets: Tree, frozen: Tree, n: int, mesh: Mesh | None) -> tuple[Run, Tree, Tree]:
    """Copies (the loop takes its state's memory) where they belong, filled up to a multiple of the devices by images that have stopped."""
    if mesh is None:
        return jax.tree.map(jnp.copy, state), targets, frozen
    if "data" not in mesh.axis_names or any(device.process_index != jax.process_index() for device in mesh.devices.flat):
        raise ValueError(f"{mesh}: an axis 'data' of this process's devices is needed; with several processes give each its own images")
    padded = -(-n // mesh.shape["data"]) * mesh.shape["data"]
    index = np.minimum(np.arange(padded), n - 1)
    split, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
    fill = functools.partial(jax.tree.map, lambda x: jax.device_put(jnp.asarray(x)[index], split))
    state, targets = fill(state), targets if padded == n else fill(targets)
    status = jnp.where(np.arange(padded) < n, state.status, STALLED)
    return state._replace(status=jax.device_put(status, split)), jax.device_put(targets, split), jax.device_put(frozen, whole)


@functools.partial(jax.jit, static_argnames=("loss", "tx", "after", "stop", "mesh", "chunk", "one_by_one"), donate_argnums=0)
def _advance(state, frozen, targets, step, count, move, *, loss, tx, after, stop, mesh, chunk, one_by_one):
    """``count`` steps; ``move`` False: one evaluation that changes nothing, by the same compiled program."""
    loop = functools.partial(_loop, loss=loss, tx=tx, after=after, stop=stop, chunk=chunk, one_by_one=one_by_one)
    if mesh is not None:  # no device waits for another
        split, whole = PartitionSpec("data"), PartitionSpec()
        places = (split, whole, split, whole, whole, whole)
        loop = jax.shard_map(loop, mesh=mesh, in_specs=places, out_specs=(split, PartitionSpec(None, "data")), check_vma=False)
    return loop(state, frozen, targets, step, count, move)


def _loop(state, frozen, targets, step, count, move, *, loss, tx, after, stop, chunk, one_by_one):
    n = state.keys.shape[0]
    losses, parts = jax.eval_shape(loss, state.variables, frozen, targets, step, state.keys)
    for name, shape in {"loss": losses, **parts}.items():
        if shape.shape != (n,) or (name == "loss" and "loss" in parts):
            raise ValueError(f"{name!r} has shape {shape.shape}: the loss gives ([N], {{part: [N]}}) for N = {n}, no part named 'loss'")
    rows = {name: jnp.zeros((chunk, n), jnp.float32) for name in ("loss", *parts)}

    def body(carry):
        i, state, rows = carry
        state, row = _step(state, frozen, targets, step + i, move, loss, tx, after, stop, one_by_one)
        rows = {name: lax.dynamic_update_index_in_dim(rows[name], row[name].astype(jnp.float32), i, 0) for name in rows}
        return i + 1, state, rows

    def going(carry):
        return (carry[0] < count) & ((carry[1].status == RUNNING).any() | ~move)

    _, state, rows = lax.while_loop(going, body, (jnp.int32(0), state, rows))
    return state, rows


def _step(state, frozen, targets, step, move, loss, tx, after, stop, one_by_one):
    """One step of every image that runs; (state, {name: [N]} before it)."""
    keys = jax.vmap(jax.random.fold_in, (0, None))(state.keys, step)
    loss_keys, after_keys = jax.vmap(jax.random.split, out_axes=1)(keys)

    def total_of(variables, targets, keys):
        losses, parts = loss(variables, frozen, targets, step, keys)
        return losses.sum(), (losses, parts)

    if one_by_one and state.keys.shape[0] > 1:

        def single(image):
            variables, target, key = jax.tree.map(lambda x: x[None], image)
            slopes = jax.value_and_grad(lambda v: total_of(v, target, key), has_aux=True)(variables)
            return jax.tree.map(lambda x: x[0], (slopes[0][1], slopes[1]))

        (losses, parts), gradients = lax.map(single, (state.variables, targets, loss_keys))
    else:
        (_, (losses, parts)), gradients = jax.value_and_grad(lambda v: total_of(v, targets, loss_keys), has_aux=True)(state.variables)
    values = losses.astype(jnp.float32)
    active = (state.status == RUNNING) & move
    valued = active & jnp.isfinite(values)
    lower = valued & (values < state.best_loss)
    waited, reference, stalled = state.waited, state.reference, jnp.zeros_like(valued)
    if stop is not None:
        bound = jnp.where(jnp.isinf(reference), reference, reference - stop.tolerance * jnp.abs(reference))
        progress = values < bound
        waited = jnp.where(valued, jnp.where(progress, 0, waited + 1), waited)
        reference = jnp.where(valued & progress, values, reference)
        stalled = valued & (waited >= stop.patience)
    going = valued & ~stalled & _finite(gradients)
    # an image that stands still gets no gradient, so that no line search waits for it
    gradients = _select(going, gradients, jax.tree.map(jnp.zeros_like, gradients))

    def update(gradient, opt, variables, value, target, key):
        def alone(variables):
            one = functools.partial(jax.tree.map, lambda x: x[None])
            return loss(one(variables), frozen, one(target), step, key[None])[0][0]

        updates, opt = optax.with_extra_args_support(tx).update(gradient, opt, variables, value=value, grad=gradient, value_fn=alone)
        return optax.apply_updates(variables, updates), opt

    with jax.numpy_dtype_promotion("standard"):  # optax's bias correction raises a float to an integer power
        moved, opt = jax.vmap(update)(gradients, state.opt, state.variables, losses, targets, loss_keys)
    moved = moved if after is None else after(moved, after_keys)
    going = going & _finite(moved)
    stopped, failed = active & ~going, active & ~going & ~stalled
    state = state._replace(
        variables=_select(going, moved, _select(active & ~valued, state.last, state.variables)),
        opt=_select(going, opt, state.opt),
        last=_select(valued, state.variables, state.last),
        status=jnp.where(failed, FAILED, jnp.where(stalled, STALLED, state.status)),
        stopped_at=jnp.where(stopped, step, state.stopped_at),
        kept_at=jnp.where(stopped, jnp.where(valued, step, jnp.maximum(step - 1, 0)), state.kept_at),
        reference=reference,
        waited=waited,
        best=None if state.best is None else _select(lower, state.variables, state.best),
        best_loss=jnp.where(lower, values, state.best_loss),
        best_at=jnp.where(lower, step, state.best_at),
    )
    return state, {"loss": values, **parts}


def _finite(tree: Tree) -> jax.Array:
    """bool [N]: all numbers of an image are finite."""
    return jnp.stack([jnp.isfinite(leaf).reshape(leaf.shape[0], -1).all(1) for leaf in jax.tree.leaves(tree)]).all(0)


def _select(images: jax.Array, new: Tree, old: Tree) -> Tree:
    """``new`` for the images [N] that are true, else ``old``; in its dtypes."""
    return jax.tree.map(lambda a, b: jnp.where(images.reshape(-1, *[1] * (b.ndim - 1)), a.astype(b.dtype), b), new, old)


def _append(history: Mapping[str, np.ndarray], rows: Mapping[str, Any], count: int, state: Run, n: int) -> dict[str, np.ndarray]:
    """``count`` rows more; those after an image has stopped repeat that of the variables it keeps."""
    joined = {name: np.concatenate([history.get(name, np.zeros((0, n), np.float32)), np.asarray(rows[name])[:count, :n]]) for name in rows}
    index = np.arange(len(joined["loss"]))[:, None]
    stopped_at, kept_at = (np.asarray(array)[:n] for array in (state.stopped_at, state.kept_at))
    index = np.where((stopped_at >= 0) & (index > stopped_at), kept_at, index)
    return {name: np.take_along_axis(array, index, 0) for name, array in joined.items()}


def _shown(state: Run, step: int, history: Mapping[str, np.ndarray], n: int) -> Run:
    """A copy without the images that fill up; the loop goes on in the original's memory."""
    return jax.tree.map(lambda x: jnp.copy(x[:n]), state)._replace(step=step, history=dict(history))


def _finished(state: Run) -> Run:
    """What the last row of the history says of the variables: lowest so far, or not finite."""
    values, step = jnp.asarray(state.history["loss"][-1]), state.step
    running = state.status == RUNNING
    failed, lower = running & ~jnp.isfinite(values), running & (values < state.best_loss)
    return state._replace(
        variables=_select(failed, state.last, state.variables),
        status=jnp.where(failed, FAILED, state.status),
        stopped_at=jnp.where(failed, step, state.stopped_at),
        kept_at=jnp.where(failed, max(step - 1, 0), state.kept_at),
        best=None if state.best is None else _select(lower, state.variables, state.best),
        best_loss=jnp.where(lower, values, state.best_loss),
        best_at=jnp.where(lower, step, state.best_at),
    )


def adam(rate: float | optax.Schedule, b1: float = 0.9, b2: float = 0.999, epsilon: float = 1e-8) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, ICLR 2015) whose bias corrections are exact in float32.

    Written as 1 - 0.999^t, the second one is off by 1e-5 in the first steps, and so is every update: enough for a search that |x - x'|
    and clipping make chaotic to leave the published one by its third step.
    """

    def init(variables: Tree) -> optax.ScaleByAdamState:
        zeros = jax.tree.map(jnp.zeros_like, variables)
        return optax.ScaleByAdamState(jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.copy, zeros))

    def update(gradients: Tree, state: optax.ScaleByAdamState, variables: Tree = None) -> tuple[Tree, optax.ScaleByAdamState]:
        count = state.count + 1
        now = rate(state.count) if callable(rate) else rate
        mean = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, gradients)
        square = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, gradients)

        def step(m: jax.Array, v: jax.Array) -> jax.Array:
            first, second = (-jnp.expm1(count.astype(m.dtype) * math.log(decay)) for decay in (b1, b2))
            return -jnp.asarray(now, m.dtype) * (m / first) / (jnp.sqrt(v / second) + epsilon)

        return jax.tree.map(step, mean, square), optax.ScaleByAdamState(count, mean, square)

    return optax.GradientTransformation(init, update)


def ramp(rate: float, steps: int, up: float = 0.05, down: float = 0.25) -> optax.Schedule:
    """Learning rate that rises in a line over the first share ``up`` of the steps and falls as a cosine over the last share ``down``.

    The schedule of StyleGAN2's projector (Karras et al., CVPR 2020, appendix D), with its shares and rate 0.1.
    """

    def schedule(count: jax.Array) -> jax.Array:
        done = jnp.asarray(count, jnp.float32) / steps
        falling = 0.5 - 0.5 * jnp.cos(math.pi * jnp.clip((1 - done) / down, 0, 1)) if down else 1.0
        return rate * falling * (jnp.clip(done / up, 0, 1) if up else 1.0)

    return schedule
