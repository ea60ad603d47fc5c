"""The contract that every system keeps: six small tuples, and nothing else.

All systems are games between players that own networks; embedding and inversion are games with one player. A system is built once
from static choices (``coco_gan.system(config)``) and is then a handful of pure functions over arrays, so that one training loop, one
checkpoint format and one mesh serve all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

Tree = Any
"""A pytree of arrays."""
Batch = Mapping[str, Any]
"""Arrays by name; the first axis of every one is the sample."""


class State(NamedTuple):
    """Everything that a training run is, apart from its data position and its root seed."""

    step: jax.Array
    """int32 scalar: completed steps."""
    params: dict[str, Tree]
    """Trainable arrays by network name."""
    opt: dict[str, Tree]
    """Optimiser states by player name."""
    model: dict[str, Tree]
    """What else evolves, by network name: batch statistics, spectral vectors, moving averages of latents."""
    ema: dict[str, Tree]
    """Exponential moving averages of some networks' parameters, by network name; empty when not asked for."""
    frozen: dict[str, Tree]
    """Pretrained trees: an argument of the step, never a closed-over constant, and never saved."""


class Player(NamedTuple):
    """One side of the game."""

    owns: tuple[str, ...]
    """Networks that it moves. Two players may own the same network (COCO-GAN's coordinate head is moved by G and D)."""
    loss: Callable[..., tuple[jax.Array, tuple[dict, dict]]]
    """``loss(own, params, model, batch, key) -> (scalar, (model, info))``; ``own`` holds the owned networks, ``params`` all of them."""
    tx: Any
    """An optax ``GradientTransformation``."""
    every: int = 1
    """It moves on the steps that this number divides."""


class Probe(NamedTuple):
    """A metric as a monoid: it streams, shards, merges across hosts and resumes."""

    zero: Callable[[], Tree]
    add: Callable[..., Tree]
    """``add(sums, state, batch, key) -> sums``."""
    merge: Callable[[Tree, Tree], Tree]
    read: Callable[[Tree], dict[str, float]]


class Stage(NamedTuple):
    """A part of a run with its own step and batch, for systems that grow while they train (``jaxgan.stages``)."""

    name: str
    """For people: 'fade 32'."""
    first: int
    """Completed steps before it; 0 for the first stage."""
    batch: int
    """Samples in each of its steps; 0: ``run.batch``."""
    step: Callable[[State, Batch, jax.Array], tuple[State, dict[str, Any]]]
    """As ``System.step``."""
    prepare: Callable[[dict[str, np.ndarray], np.random.Generator], dict[str, np.ndarray]]
    """As ``System.prepare``."""
    enter: Callable[[State], State]
    """``enter(state) -> state`` before its first step, also of the first stage: for instance fresh optimisers. Shapes stay."""
    reads: Callable[[Any, State | None, Any], Any] | None = None
    """``reads(source, state, folder) -> source``: what it reads in the place of the run's own source, by the state at its beginning. Every
    process asks; the main one keeps in `folder` (``epath.Path``), whole or not at all and under a name of this stage, what the state was
    needed for. ``state`` None: the run goes on within this stage, and the folder holds it; FileNotFoundError where it does not. None: the
    run's source."""


class Reads(NamedTuple):
    """What a run reads where that is no set of single images: pairs of frames of a clip, say."""

    open: Callable[[Any], Any]
    """``open(data: configure.Data) -> source``, with ``len(source)``; ``source.draw(i, rng) -> {'image': uint8 [k, H, W, C], ...}``, a
    sample of record i chosen by numpy's generator; and ``source[i]``, a choice that is always the same. Where there is
    ``source.watch(epoch) -> {name: number}``, the first line that is logged in each epoch (from 0, of ``len(source)`` samples) has it too.
    Raises ValueError or FileNotFoundError where the data do not serve."""
    blank: Callable[[int], dict[str, np.ndarray]]
    """``blank(n)``: n such samples stacked, of the right shapes and types and of no content, for what is asked before data are read."""
    held: Callable[[Any, int], dict[str, np.ndarray]] | None = None
    """``held(data, n)``: n samples that the run does not learn from, stacked, for the system's probes: batches of them, as they are, are
    what ``Probe.add`` is given. Raises as ``open``. None: it is given the first batch of what the run reads, again and again."""


class System(NamedTuple):
    """What ``jaxgan.train`` needs to know of a paper."""

    init: Callable[[jax.Array], State]
    """``init(key) -> State`` at step 0."""
    step: Callable[[State, Batch, jax.Array], tuple[State, dict[str, Any]]]
    """``step(state, batch, key) -> (state, info)``. ``info`` holds scalars by name, and under ``'finite'`` a bool vector for each
    player: its loss first, then one entry for each leaf of its gradient in the order of ``leaf_names``."""
    sample: Callable[..., jax.Array] | None
    """``sample(state, key, n) -> [n, H, W, C]`` images in [-1, 1]; equal keys draw equal latents at every step of a run. None for a
    system that draws nothing from latents; it then has ``translate``."""
    probes: dict[str, Probe]
    image: tuple[int, int, int]
    """(H, W, C) of the images that the data source must deliver; without data, of those that the system draws."""
    records: int
    """Images read for each sample of a batch (COCO-GAN: one for the D update and another for the G update). 0: the run reads no data,
    and ``prepare`` is given {'sample': int32 [B]}, the numbers of the batch's samples, in the place of images."""
    prepare: Callable[[dict[str, np.ndarray], np.random.Generator], dict[str, np.ndarray]]
    """``prepare({'image': uint8 [B * records, H, W, C]}, rng) -> batch`` on the host, in numpy; every leaf's first axis is B."""
    owns: dict[str, tuple[str, ...]]
    """Networks moved by each player, for naming the leaf that went wrong."""
    labels: bool = False
    """``prepare`` is also given 'label': uint8 [B * records, H, W]; the data source must have label maps."""
    translate: Callable[[State, Any], jax.Array] | None = None
    """``translate(state, images) -> [n, H, W, C]`` in [-1, 1] from uint8 [n, H, W, C]: what a system without latents makes of given
    images. The grids of a run then show it on the fixed preview of the source."""
    stages: Sequence[Stage] = ()
    """Where a run has parts that differ: all of them in order, the first from step 0, the last without end and with ``run.batch``.
    ``step`` and ``prepare`` are then those of the last. Empty: one part, with ``run.batch``."""
    check: Callable[[int], None] = lambda batch: None
    """``check(batch)`` raises ValueError where it cannot be trained with so many samples in a step. It is asked before anything is
    written, for every stage."""
    show: Callable[..., jax.Array] | None = None
    """``show(state, key, n) -> [n, H, W, C]``: what the grids of a run show in the place of ``sample``'s images."""
    verify: Callable[[State], None] = lambda state: None
    """``verify(state)`` raises ValueError where a state that was read does not belong to the files that this system has read: another
    generator lies where that of its encoder was. It is asked of every state that comes from a checkpoint."""

    falls: int = 0
    """Steps at whose end the learning rates have fallen to 0, so that no further step moves a network; 0: they do not fall to 0."""
    begin: Callable[[State], State] | None = None
    """``begin(state)``: the state of ``init`` with what a run takes from elsewhere in its place, before step 0. A run that goes on from a
    checkpoint is not asked: that holds it. None: nothing comes from elsewhere."""
    reads: Reads | None = None
    """What the run reads in the place of images from a source; ``records`` is then 1, and ``prepare`` is given the stacked samples."""

    def grid(self, state: State, key: jax.Array, n: int, given: Any = None) -> jax.Array:
        """[n, H, W, C] in [-1, 1]: what a grid of a run shows. ``given``: uint8 images, for a system that translates."""
        if self.translate:
            return self.translate(state, given)
        return (self.show or self.sample)(state, key, n)


def leaf_names(params: Mapping[str, Tree], owns: tuple[str, ...]) -> list[str]:
    """Names of the entries of ``info['finite'][player]``: 'loss', then 'network/module/leaf' in tree order."""
    flat, _ = jax.tree_util.tree_flatten_with_path({name: params[name] for name in owns})
    return ["loss"] + ["/".join(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path) for path, _ in flat]
