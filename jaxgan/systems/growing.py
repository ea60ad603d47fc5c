"""Progressive growing (Karras et al., ICLR 2018, section 2): what the progressive GAN and StyleGAN share in their training.

A run grows in phases: train at one side, fade the layers of twice that side in, train there, and so on. Each phase has its minibatch and
learning rate and begins with fresh optimisers, as published, where they are reset whenever the floor or the ceiling of the level of detail
changes. Time is counted in thousands of real images shown (kimg). The level of detail (lod) says how far the images are from full size:
lod 2.25 is images of resolution / 4, of which a quarter is still taken from half that side.

A step: D moves on reals and fakes; the averaged generator follows G as it is then; G moves, on fakes of its own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgan import losses, parallel
from jaxgan.nets import layers
from jaxgan.play import follow, half_life_decay, play
from jaxgan.system import Player, Stage, State, Tree

Table = tuple[tuple[int, float], ...]
"""(side, value): a side has the value of the largest listed side that is not above it."""

SAMPLE_PIXELS = 2**22
"""Pixels of images that ``draw_in_blocks`` makes at once on a device: 4 images of 1024 px, 64 of 256 px."""


class Config(Protocol):
    """The static choices that growing reads of a system's own ``Config``."""

    resolution: int
    """Side of the images, a power of two."""
    start: int
    """Side at which growing begins."""
    train_kimg: float
    fade_kimg: float
    rates: Table
    batches: Table
    group: int
    """Images compared by minibatch deviation."""
    mirror: bool
    ema: float
    """Half-life in kimg of the averaged generator."""
    loss: str
    """'logistic', 'hinge' or 'wgan_gp'."""
    r1_weight: float
    gp_weight: float
    drift_weight: float


def check(config: Config) -> None:
    """Raises ValueError for choices of growing that cannot work."""
    if config.start < 4 or config.start & (config.start - 1) or config.start > config.resolution:
        raise ValueError(
            f"start {config.start}: growing begins at a power of two from 4 to the resolution, {config.resolution}: "
            f"set start to {min(8, config.resolution)}"
        )
    for name in ("rates", "batches"):
        table = getattr(config, name)
        if not table or min(min(entry) for entry in table) <= 0:
            raise ValueError(f"{name} {table}: give (side, value) pairs of positive numbers")
    if config.train_kimg < 0 or config.fade_kimg < 0:
        raise ValueError(f"train_kimg {config.train_kimg} and fade_kimg {config.fade_kimg} must be 0 or more")


def check_groups(config: Config, batch: int) -> None:
    """Raises ValueError where so many images do not divide into the groups of minibatch deviation."""
    if batch % max(1, min(config.group, batch)):
        raise ValueError(f"{batch} images in a step do not divide into groups of {config.group}: use a multiple, or change model.group")


# -- the schedule ------------------------------------------------------------------------------------------------------------------


def look_up(table: Table, side: int) -> float:
    """The value of a side; below the first listed side, that of the first."""
    values = [value for listed, value in sorted(table) if listed <= side]
    return values[-1] if values else sorted(table)[0][1]


class Phase(NamedTuple):
    """A part of a run in which neither the floor nor the ceiling of the level of detail changes."""

    side: int
    """Of the images: resolution / 2^floor(lod)."""
    level: int
    """floor(lod)."""
    begin: float
    """kimg shown before it."""
    fade: float
    """kimg over which the new layers fade in; 0: nothing fades."""

    @property
    def name(self) -> str:
        return f"{'fade' if self.fade else 'train'} {self.side}"

    def lod(self, kimg: float | jax.Array) -> jax.Array:
        """The level of detail so many kimg after its begin: its level, and what has not faded in yet."""
        return self.level + jnp.clip(1.0 - kimg / self.fade, 0.0, 1.0) if self.fade else jnp.float32(self.level)


def phases(resolution: int, start: int, train_kimg: float, fade_kimg: float) -> list[Phase]:
    """Train at ``start`` px, fade to twice that, train there, ... up to ``resolution``, where the last phase has no end.

    Phases of no length are left out. 8 to 1024 px with 600 kimg each: the fade to 1024 px ends after 8400 kimg.
    """
    found, begin = [], 0.0
    level = (resolution // start).bit_length() - 1
    while level:
        if train_kimg:
            found.append(Phase(resolution >> level, level, begin, 0.0))
        begin, level = begin + train_kimg, level - 1
        if fade_kimg:
            found.append(Phase(resolution >> level, level, begin, fade_kimg))
        begin += fade_kimg
    return [*found, Phase(resolution, 0, begin, 0.0)]


def initial_lod(config: Config) -> jax.Array:
    """The level of detail at which a run begins."""
    return jnp.float32(math.log2(config.resolution // config.start))


def make_stages(config: Config, make_step: Callable[..., Any]) -> list[Stage]:
    """One stage for each phase, beginning with the first step before which its kimg have been shown; none where nothing grows.

    ``make_step(config, level, lod, fading)`` gives the step on images of resolution / 2^level, see ``make_step`` below.

    Raises:
      ValueError: a batch that does not divide into the groups of minibatch deviation.
    """
    if config.start >= config.resolution:
        return []
    found, first, shown = [], 0, 0
    planned = phases(config.resolution, config.start, config.train_kimg, config.fade_kimg)
    for phase, following in zip(planned, [*planned[1:], None], strict=True):
        batch = int(look_up(config.batches, phase.side))
        if batch % max(1, min(config.group, batch)):
            raise ValueError(f"batches: {batch} images at {phase.side} px do not divide into groups of {config.group}")
        # a phase shorter than a step may be over when the step before it is done
        steps = max(0, math.ceil((following.begin * 1000 - shown) / batch - 1e-9)) if following else 0
        if steps or not following:
            lod = functools.partial(_lod, phase, first, batch, shown - phase.begin * 1000)
            found.append(
                Stage(
                    name=phase.name,
                    first=first,
                    batch=batch,
                    step=make_step(config, phase.level, lod, bool(phase.fade)),
                    prepare=functools.partial(reduce_batch, config.mirror, phase.level),
                    enter=fresh_optimisers,
                )
            )
        first, shown = first + steps, shown + steps * batch
    return found


def _lod(phase: Phase, first: int, batch: int, ahead: float, step: jax.Array) -> jax.Array:
    """The level of detail of a step of a phase whose first step came ``ahead`` images behind its nominal begin."""
    return phase.lod((ahead + ((step - first) * batch).astype(jnp.float32)) / 1000.0)


def fresh_optimisers(state: State) -> State:
    """The state with its optimisers as at the start."""
    return state._replace(opt={name: jax.tree.map(jnp.zeros_like, opt) for name, opt in state.opt.items()})


# -- images -------------------------------------------------------------------------------------------------------------------------


def reduce_batch(mirror: bool, level: int, batch: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """On the host: uint8 [B, R, R, C] reduced by 2^level with a box filter and rounded, half of it mirrored when asked."""
    images = batch["image"]
    if level:
        n, side, _, channels = images.shape
        factor = 1 << level
        blocks = images.reshape(n, side // factor, factor, side // factor, factor, channels)
        images = np.rint(blocks.sum((2, 4), dtype=np.uint32) / np.float32(factor * factor)).astype(np.uint8)
    if mirror:
        turned = rng.random(len(images)) < 0.5
        images = np.where(turned[:, None, None, None], images[:, :, ::-1], images)
    return {"image": images}


def process_reals(images: jax.Array, fade: jax.Array | None) -> jax.Array:
    """uint8 [B, S, S, C] to [-1, 1], with the share ``fade`` of the image of half that side; floats are taken to be ready."""
    if images.dtype != jnp.uint8:
        return images
    images = images.astype(jnp.float32) / 127.5 - 1.0
    if fade is None:
        return images
    return images + fade * (layers.upsample(layers.average_pool(images)) - images)


# -- the game -----------------------------------------------------------------------------------------------------------------------


class Adam(NamedTuple):
    """Updates made, and the mean square of the gradient."""

    count: jax.Array
    square: Tree


def adam(learning_rate: float, decay: float = 0.99, epsilon: float = 1e-8) -> optax.GradientTransformation:
    """Adam with beta1 = 0, so without a first moment, in TensorFlow's form: - rate sqrt(1 - decay^t) g / (sqrt(v) + epsilon).

    Optax divides epsilon by the square root, too, which makes it ten times smaller in the first step; where gradients are that small, a
    variable of the reference training is off by 4e-3 after four steps, and by 2e-5 with this form.
    """

    def init(params: Tree) -> Adam:
        return Adam(jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params))

    def update(gradients: Tree, state: Adam, params: Tree = None) -> tuple[Tree, Adam]:
        count = state.count + 1
        square = jax.tree.map(lambda v, g: decay * v + (1.0 - decay) * jnp.square(g), state.square, gradients)
        rate = learning_rate * jnp.sqrt(1.0 - jnp.float32(decay) ** count.astype(jnp.float32))
        return jax.tree.map(lambda v, g: -rate * g / (jnp.sqrt(v) + epsilon), square, gradients), Adam(count, square)

    return optax.GradientTransformation(init, update)


def constant_lod(step: jax.Array) -> jax.Array:
    """The level of detail of a run that does not grow."""
    return jnp.float32(0.0)


def make_step(
    config: Config,
    players: Mapping[str, Player],
    check: Callable[[int], None],
    level: int = 0,
    lod: Callable[[jax.Array], jax.Array] = constant_lod,
    fading: bool = False,
) -> Callable[..., tuple[State, dict[str, Any]]]:
    """``step(state, batch, key) -> (state, info)`` on images of resolution / 2^level.

    Args:
      config, level: static choices.
      players: D and G, in this order; they find the level of detail in ``model['G']['lod']``.
      check: refuses a number of images, as ``System.check``.
      lod: step -> level of detail, from level to level + 1.
      fading: whether it may differ from ``level``.
    """
    turn = play(players)

    def step(state: State, batch: dict[str, jax.Array], key: jax.Array) -> tuple[State, dict[str, Any]]:
        check(batch["image"].shape[0])
        now = lod(state.step)
        model = {**state.model, "G": {**state.model["G"], "lod": now}}
        # D moves first and leaves G alone, so that G as it is here is the one that the average follows between the two moves
        ema = follow(state.ema, state.params, half_life_decay(batch["image"].shape[0], config.ema))
        batch = {**batch, "image": process_reals(batch["image"], now - level if fading else None)}
        after, info = turn(state._replace(model=model, ema={}), batch, key)
        return after._replace(ema=ema), {**info, "lod": now}

    return step


def discriminator_loss(
    config: Config, score: Callable[[jax.Array], jax.Array], real: jax.Array, fake: jax.Array, key: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(loss of D with its penalty, what to log), from images [B, S, S, C] and ``score`` (images -> [B]).

    'wgan_gp': with gradient penalty at images between reals and fakes, drawn from ``key``, and drift (Karras et al., ICLR 2018, appendix
    A.1). 'logistic' and 'hinge': with R1, r1_weight / 2 times the mean square of the slopes at reals; ``r1_weight`` 0 leaves it out.
    """
    on_fake = score(fake)
    on_real, pull = jax.vjp(score, real)  # one run on reals serves the scores and their slopes
    info = {"scores/real": on_real.mean(), "scores/fake": on_fake.mean()}
    if config.loss == "wgan_gp":
        share = jax.random.uniform(key, (real.shape[0], 1, 1, 1))
        slopes = losses.gradient_slopes(score, losses.interpolate(real, fake, share), "textbook")
        penalty = config.gp_weight * losses.gradient_penalty(slopes)
        loss = losses.wasserstein_discriminator(on_real, on_fake) + config.drift_weight * losses.drift(on_real)
    else:
        adversarial = losses.hinge_discriminator if config.loss == "hinge" else losses.logistic_discriminator
        penalty = jnp.float32(0.0)
        if config.r1_weight:
            (slopes,) = pull(jnp.ones_like(on_real))
            penalty = 0.5 * config.r1_weight * jnp.square(slopes).sum((1, 2, 3)).mean()
        loss = adversarial(on_real, on_fake)
    return loss + penalty, {**info, "penalty": penalty}


def generator_loss(config: Config, on_fake: jax.Array) -> jax.Array:
    """The loss of G from D's scores of its images [B]."""
    return losses.nonsaturating_generator(on_fake) if config.loss == "logistic" else losses.wasserstein_generator(on_fake)


def spread(x: jax.Array) -> jax.Array:
    """Splits the first axis over all devices of the mesh, if there is one."""
    return parallel.constrain(x, *parallel.AXES)


def draw_in_blocks(draw: Callable[[Tree], jax.Array], inputs: Tree, n: int, side: int) -> jax.Array:
    """``draw(inputs)``: [n, side, side, C] from arrays [n, ...], as many at once as ``images_together`` says."""
    together = images_together(n, side)
    if together == n:
        return draw(inputs)
    # one image of a block lies n / together behind the other, so that each device keeps the images that it has
    blocks = jax.tree.map(lambda x: x.reshape(together, n // together, *x.shape[1:]).swapaxes(0, 1), inputs)
    images = jax.lax.map(draw, blocks).swapaxes(0, 1)
    return spread(images.reshape(n, *images.shape[2:]))


def images_together(n: int, side: int) -> int:
    """How many of n images are made at once: the largest divisor of n within the limit, one that spreads over the mesh if there is one."""
    mesh = jax.sharding.get_abstract_mesh()
    devices = 1 if mesh.empty else mesh.size
    most = devices * max(1, SAMPLE_PIXELS // side**2)
    return n if n <= most else max((d for d in range(1, most + 1) if n % d == 0), key=lambda d: (d % devices == 0, d))
