"""From players to one training step: order, ``every``, gradient accumulation, moving averages, and what is watched for NaN."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jaxgan.system import Batch, Player, State, Tree


class Moved(NamedTuple):
    """What one player's update gives."""

    own: dict[str, Tree]
    """The owned networks' parameters after the update."""
    opt: Tree
    finite: jax.Array
    """bool [1 + leaves]: the loss, then each leaf of the gradient in tree order."""
    norm: jax.Array
    """Euclidean norm of the whole gradient."""


def move(
    player: Player, own: dict[str, Tree], opt: Tree, loss: jax.Array, gradients: dict[str, Tree], axis_name: str | None = None
) -> Moved:
    """One optimiser update of one player; with ``axis_name`` the gradients are averaged over that axis first."""
    gradients = average(gradients, axis_name)
    squares = jnp.stack([jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(gradients)])
    finite = jnp.isfinite(jnp.concatenate([average(loss, axis_name)[None].astype(jnp.float32), squares]))
    with jax.numpy_dtype_promotion("standard"):  # optax's bias correction raises a float to an integer power
        updates, opt = player.tx.update(gradients, opt, own)
    return Moved(optax.apply_updates(own, updates), opt, finite, jnp.sqrt(squares.sum()))


def average(tree: Tree, axis_name: str | None) -> Tree:
    """Mean over a ``pmap`` or ``shard_map`` axis; the tree itself where there is none (on a mesh, sums are global already)."""
    return tree if axis_name is None else lax.pmean(tree, axis_name)


def follow(ema: Mapping[str, Tree], params: Mapping[str, Tree], decay: float | jax.Array) -> dict[str, Tree]:
    """Moves each network in ``ema`` towards ``params``: decay * ema + (1 - decay) * params."""
    return {name: jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), ema[name], params[name]) for name in ema}


def half_life_decay(batch: int, half_life_kimg: float) -> float:
    """Decay per step of a moving average whose memory halves every ``half_life_kimg`` thousand images."""
    return 0.5 ** (batch / (1000.0 * half_life_kimg))


def draw(sampler: Callable, key: jax.Array, shape: tuple[int, ...], axis_name: str | None = None) -> jax.Array:
    """``sampler(key, shape)``; under ``pmap`` this device's rows of the array that the whole batch would have drawn."""
    if axis_name is None:
        return sampler(key, shape)
    devices = lax.psum(1, axis_name)
    whole = sampler(key, (devices * shape[0], *shape[1:]))
    return lax.dynamic_slice_in_dim(whole, lax.axis_index(axis_name) * shape[0], shape[0])


def init_opt(players: Mapping[str, Player], params: Mapping[str, Tree]) -> dict[str, Tree]:
    """Each player's optimiser state at the start."""
    return {name: player.tx.init({network: params[network] for network in player.owns}) for name, player in players.items()}


def play(
    players: Mapping[str, Player],
    *,
    prepare: Callable[[Batch, jax.Array], Batch] = lambda batch, key: batch,
    ema_decay: float | jax.Array = 0.0,
    axis_name: str | None = None,
    accumulate: int = 1,
) -> Callable[[State, Batch, jax.Array], tuple[State, dict[str, Any]]]:
    """Builds ``step(state, batch, key) -> (state, info)``: the players move in the order given, each seeing what the ones before did.

    Args:
      players: by name.
      prepare: ``(batch, key) -> batch``, once a step: draws that several players share. Its key is ``fold_in(key, 0)``; the player
        number i (from 1) gets ``fold_in(key, i)``.
      ema_decay: decay per step of the networks that ``state.ema`` holds; unused where it holds none.
      axis_name: averages gradients, ``model`` and info over this axis, for use under ``jax.pmap``. On a mesh under ``jit`` leave it out.
      accumulate: splits the batch into this many parts and averages their gradients before each update; batch statistics are then those
        of a part.

    Raises (from the step, when traced):
      ValueError: the batch does not divide by ``accumulate``.
    """

    def gradients_of(player, own, params, model, batch, key):
        def one(model, part, key):
            (loss, (model, info)), gradients = jax.value_and_grad(player.loss, has_aux=True)(own, params, model, part, key)
            return model, (loss, info, gradients)

        if accumulate == 1:
            model, (loss, info, gradients) = one(model, batch, key)
            return loss, model, info, gradients
        size = jax.tree.leaves(batch)[0].shape[0]
        if size % accumulate:
            raise ValueError(f"a batch of {size} does not split into {accumulate} parts; choose a multiple")
        # strided parts, so that a batch that lies over several devices stays where it is
        parts = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, accumulate, *x.shape[1:]), 1, 0), batch)
        keys = jax.random.split(key, accumulate)
        model, results = lax.scan(lambda model, item: one(model, *item), model, (parts, keys))
        loss, info, gradients = jax.tree.map(lambda x: x.mean(0), results)
        return loss, model, info, gradients

    def step(state: State, batch: Batch, key: jax.Array) -> tuple[State, dict[str, Any]]:
        params, opt, model = dict(state.params), dict(state.opt), state.model
        batch = prepare(batch, jax.random.fold_in(key, 0))
        info: dict[str, Any] = {"finite": {}}
        for number, (name, player) in enumerate(players.items(), 1):
            own = {network: params[network] for network in player.owns}

            own_key = jax.random.fold_in(key, number)

            def turn(own, opt_state, model, player=player, name=name, params=params, own_key=own_key):
                visible = {**params, **state.frozen}
                loss, model, extra, gradients = gradients_of(player, own, visible, model, batch, own_key)
                moved = move(player, own, opt_state, loss, gradients, axis_name)
                extra = {**extra, f"loss/{name}": loss, f"gradient/{name}": moved.norm}
                return moved.own, moved.opt, average(model, axis_name), average(extra, axis_name), moved.finite

            def rest(own, opt_state, model, turn=turn):
                shapes = jax.eval_shape(turn, own, opt_state, model)
                empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes[3])
                return own, opt_state, model, empty, jnp.ones(shapes[4].shape, bool)

            arguments = (own, opt[name], model)
            if player.every == 1:
                own, opt[name], model, extra, finite = turn(*arguments)
            else:
                own, opt[name], model, extra, finite = lax.cond(state.step % player.every == 0, turn, rest, *arguments)
            params.update(own)
            info.update(extra)
            info["finite"][name] = finite
        ema = follow(state.ema, params, ema_decay) if state.ema else state.ema
        return State(state.step + 1, params, opt, model, ema, state.frozen), info

    return step
