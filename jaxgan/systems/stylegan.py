"""StyleGAN: A Style-Based Generator Architecture for Generative Adversarial Networks (Karras et al., CVPR 2019), with its training.

A step: D moves on reals and fakes; the averaged generator follows G as it is then; G moves, on fakes of its own. Both passes move the
average of w. A run grows in stages (``Config.phases``): each has its side, minibatch and learning rate and begins with fresh optimisers,
as published, where they are reset whenever the floor or the ceiling of the level of detail changes.

Two things differ from the published loop. It re-evaluates its schedule in every fourth step; here the level of detail is a function of
the images shown before each step. And it skips updates that are not finite; here the loop stops and names the leaf, as for all systems.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgan import losses, parallel
from jaxgan.nets import layers, stylegan_discriminator
from jaxgan.nets import stylegan as nets
from jaxgan.play import follow, half_life_decay, play
from jaxgan.system import Player, Stage, State, System, Tree
from jaxgan.systems import stylegan_schedule
from jaxgan.systems.stylegan_schedule import BATCHES, RATES

SAMPLE_PIXELS = 2**22
"""Pixels of images that ``sample`` makes at once on a device: 4 images of 1024 px, 64 of 256 px."""
WGAN_GP_RATE = 0.002
"""Highest learning rate of the published runs with WGAN-GP."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices; the defaults are the published FFHQ run at 1024 px on eight devices."""

    resolution: int = 1024
    """Side of the images, a power of two."""
    fmap_base: int = 8192
    fmap_decay: float = 1.0
    fmap_max: int = 512
    """Channels of the layers at 2^(s + 1) px: min(fmap_base / 2^(s fmap_decay), fmap_max)."""
    latent_size: int = 512
    w_size: int = 512
    mapping_width: int = 512
    mapping_layers: int = 8
    label_size: int = 0
    """Classes of a conditional network. Such a network can be read and sampled, not trained: data sources deliver no classes."""
    channels: int = 3
    styles: bool = True
    constant: bool = True
    noise: bool = True
    instance_norm: bool = True
    pixel_norm: bool = False
    normalise_latents: bool = True
    blur: bool = True
    """In the generator and in the discriminator."""
    fused: bool | Literal["auto"] = "auto"
    scaling: Literal["equalised", "initial", "folded"] = "equalised"
    """These switches are fields of ``nets.stylegan_layout.Generator``; ``table_1`` sets them together."""
    group: int = 4
    """Images compared by minibatch deviation; every batch must be a multiple, or smaller. 1 or less: the layer is left out."""

    loss: Literal["logistic", "wgan_gp", "hinge"] = "logistic"
    """'logistic': non-saturating, with R1. 'wgan_gp': with gradient penalty and drift; published with ``rates`` of at most 0.002.
    'hinge': with R1, which is an addition of ours; ``r1_weight`` 0 leaves it out."""
    r1_weight: float = 10.0
    """gamma: R1 is gamma / 2 times the mean square of the slopes at reals; computed in every step. 0: without R1."""
    gp_weight: float = 10.0
    drift_weight: float = 0.001
    mixing: float = 0.9
    """Probability of style mixing."""
    ema: float = 10.0
    """Half-life in kimg of the averaged generator."""
    mirror: bool = True
    """Mirror every second real, drawn at random: on for faces, off for LSUN."""

    start: int = 8
    """Side at which growing begins; ``resolution``: no growing."""
    train_kimg: float = 600.0
    """kimg at each side below ``resolution`` before the next is faded in."""
    fade_kimg: float = 600.0
    """kimg over which it is faded in."""
    rates: tuple[tuple[int, float], ...] = RATES
    """(side, learning rate): a side has the rate of the largest listed side that is not above it."""
    batches: tuple[tuple[int, int], ...] = BATCHES[8]
    """(side, images in a step) while growing, read as ``rates``. ``run.batch`` must be that of the last stage; without growing it alone
    counts."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What convolutions and activations compute in; parameters, norms, sums and losses stay float32."""

    def __post_init__(self):
        self.generator()
        self.discriminator()
        if self.start < 4 or self.start & (self.start - 1) or self.start > self.resolution:
            raise ValueError(
                f"start {self.start}: growing begins at a power of two from 4 to the resolution, {self.resolution}: "
                f"set start to {min(8, self.resolution)}"
            )
        for name in ("rates", "batches"):
            table = getattr(self, name)
            if not table or min(min(entry) for entry in table) <= 0:
                raise ValueError(f"{name} {table}: give (side, value) pairs of positive numbers")
        if self.train_kimg < 0 or self.fade_kimg < 0:
            raise ValueError(f"train_kimg {self.train_kimg} and fade_kimg {self.fade_kimg} must be 0 or more")
        if not 0 <= self.mixing <= 1 or self.ema <= 0:
            raise ValueError(f"mixing {self.mixing} must be from 0 to 1 and ema {self.ema} above 0")

    def widths(self) -> tuple[int, ...]:
        return nets.channel_widths(self.resolution, self.fmap_base, self.fmap_decay, self.fmap_max)

    def generator(self) -> nets.Generator:
        names = {field.name for field in dataclasses.fields(nets.Generator)} - {"widths"}
        return nets.Generator(self.widths(), **{name: getattr(self, name) for name in names})

    def discriminator(self) -> stylegan_discriminator.Discriminator:
        dense = min(self.fmap_base, self.fmap_max)
        return stylegan_discriminator.Discriminator(
            self.widths(), dense, self.label_size, self.channels, self.blur, self.group, scaling=self.scaling
        )

    def phases(self) -> list[stylegan_schedule.Phase]:
        return stylegan_schedule.phases(self.resolution, self.start, self.train_kimg, self.fade_kimg)

    def system(self) -> System:
        return system(self)


def table_1(config: Config, row: str) -> Config:
    """The configuration with the switches of a row of the paper's table 1, 'A' to 'F'; A also has WGAN-GP and its lower ``rates``.

    Raises:
      ValueError: another row.
    """
    if row not in nets.TABLE_1:
        raise ValueError(f"row {row!r}: table 1 has {', '.join(nets.TABLE_1)}")
    chosen = nets.TABLE_1[row]
    changes = {**chosen.changes, "mixing": chosen.mixing}
    if row == "A":
        changes |= {"loss": "wgan_gp", "rates": tuple((side, min(rate, WGAN_GP_RATE)) for side, rate in config.rates)}
    return dataclasses.replace(config, **changes)


def system(config: Config) -> System:
    """StyleGAN as a ``System``; where it grows, one stage for each of ``config.phases()``.

    ``sample`` draws from the averaged generator at its level of detail, with fresh noise and without truncation, which is what FID is
    measured on. Each device makes at most ``SAMPLE_PIXELS`` pixels at a time: a map of 1024 px with 16 channels is 64 MB.
    """
    stages = make_stages(config) if config.start < config.resolution else []
    owns = {"D": ("D",), "G": ("G",)}

    def init(key: jax.Array) -> State:
        params, model = init_networks(config, key)
        opt = {name: adam(1.0).init({network: params[network] for network in networks}) for name, networks in owns.items()}
        # the copy keeps a donated state from holding one buffer twice
        return State(jnp.zeros((), jnp.int32), params, opt, model, {"G": jax.tree.map(jnp.copy, params["G"])}, {})

    def sample(state: State, key: jax.Array, n: int) -> jax.Array:
        network, of_z, of_noise, of_label = config.generator(), *jax.random.split(key, 3)
        z = _spread(jax.random.normal(of_z, (n, config.latent_size)))
        labels = None
        if config.label_size:
            labels = jax.nn.one_hot(jax.random.randint(of_label, (n,), 0, config.label_size), config.label_size)
        params, model = state.ema.get("G", state.params["G"]), state.model["G"]
        w = nets.extend(network, nets.map_latents(network, params, z, labels))
        inputs = jax.tree.map(_spread, (w, nets.draw_noise(network, of_noise, n)))

        def draw(inputs: tuple[jax.Array, Tree]) -> jax.Array:
            w, noise = jax.tree.map(_spread, inputs)
            return _spread(nets.synthesise_at(network, params, w, noise, model["lod"], dtype=jnp.dtype(config.dtype)))

        together = images_together(n, config.resolution)
        if together == n:
            return draw(inputs)
        # one image of a block lies n / together behind the other, so that each device keeps the images that it has
        blocks = jax.tree.map(lambda x: x.reshape(together, n // together, *x.shape[1:]).swapaxes(0, 1), inputs)
        images = jax.lax.map(draw, blocks).swapaxes(0, 1)
        return _spread(images.reshape(n, *images.shape[2:]))

    return System(
        init=init,
        step=make_step(config),
        sample=sample,
        probes={},
        image=(config.resolution, config.resolution, config.channels),
        records=1,
        prepare=functools.partial(reduce_batch, config.mirror, 0),
        owns=owns,
        stages=stages,
        check=functools.partial(check_training, config),
    )


def check_training(config: Config, batch: int) -> None:
    """Refuses to train with so many images in a step.

    Raises:
      ValueError: a conditional network, or images that do not divide into the groups of minibatch deviation.
    """
    if config.label_size:
        raise ValueError(f"label_size {config.label_size}: a conditional StyleGAN can be sampled, not trained; set label_size to 0")
    if batch % max(1, min(config.group, batch)):
        raise ValueError(f"{batch} images in a step do not divide into groups of {config.group}: use a multiple, or change model.group")


def images_together(n: int, side: int) -> int:
    """How many of n images are made at once: the largest divisor of n within the limit, one that spreads over the mesh if there is one."""
    mesh = jax.sharding.get_abstract_mesh()
    devices = 1 if mesh.empty else mesh.size
    most = devices * max(1, SAMPLE_PIXELS // side**2)
    return n if n <= most else max((d for d in range(1, most + 1) if n % d == 0), key=lambda d: (d % devices == 0, d))


def _spread(x: jax.Array) -> jax.Array:
    return parallel.constrain(x, *parallel.AXES)


def init_networks(config: Config, key: jax.Array) -> tuple[dict[str, Tree], dict[str, Tree]]:
    """(params, model) before training: params {'G': {'mapping', 'synthesis'}, 'D'}; model {'G': {'w_avg': [W], 'noise': {name: [side,
    side]}, 'lod': level of detail, 0 for a finished generator}, 'D': {}}."""
    of_g, of_d = jax.random.split(key)
    generator, state = nets.init(config.generator(), of_g)
    params = {"G": generator, "D": stylegan_discriminator.init(config.discriminator(), of_d)}
    return params, {"G": {**state, "lod": jnp.float32(math.log2(config.resolution // config.start))}, "D": {}}


# -- growing -----------------------------------------------------------------------------------------------------------------------


def make_stages(config: Config) -> list[Stage]:
    """One stage for each phase, beginning with the first step before which its kimg have been shown."""
    stages, first, shown, phases = [], 0, 0, config.phases()
    for phase, following in zip(phases, [*phases[1:], None], strict=True):
        batch = int(stylegan_schedule.look_up(config.batches, phase.side))
        if batch % max(1, min(config.group, batch)):
            raise ValueError(f"batches: {batch} images at {phase.side} px do not divide into groups of {config.group}")
        # a phase shorter than a step may be over when the step before it is done
        steps = max(0, math.ceil((following.begin * 1000 - shown) / batch - 1e-9)) if following else 0
        if steps or not following:
            lod = functools.partial(_lod, phase, first, batch, shown - phase.begin * 1000)
            stages.append(
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
    return stages


def _lod(phase: stylegan_schedule.Phase, first: int, batch: int, ahead: float, step: jax.Array) -> jax.Array:
    """The level of detail of a step of a phase whose first step came ``ahead`` images behind its nominal begin."""
    return phase.lod((ahead + ((step - first) * batch).astype(jnp.float32)) / 1000.0)


def fresh_optimisers(state: State) -> State:
    """The state with its optimisers as at the start."""
    return state._replace(opt={name: jax.tree.map(jnp.zeros_like, opt) for name, opt in state.opt.items()})


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


# -- the game ----------------------------------------------------------------------------------------------------------------------


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


def make_step(
    config: Config,
    level: int = 0,
    lod: Callable[[jax.Array], jax.Array] = lambda step: jnp.float32(0.0),
    fading: bool = False,
    *,
    given: bool = False,
) -> Callable[..., tuple[State, dict[str, Any]]]:
    """``step(state, batch, key) -> (state, info)`` on images of resolution / 2^level.

    Args:
      config, level: static choices.
      lod: step -> level of detail, from level to level + 1.
      fading: whether it may differ from ``level``.
      given: nothing is drawn: latents come in the batch as 'z_D' and 'z_G' [B, Z], the stored noise is used, and styles are not mixed.
        Reference trajectories are made like this.
    """
    turn = play(make_players(config, level, fading, given))

    def step(state: State, batch: dict[str, jax.Array], key: jax.Array) -> tuple[State, dict[str, Any]]:
        check_training(config, batch["image"].shape[0])
        now = lod(state.step)
        model = {**state.model, "G": {**state.model["G"], "lod": now}}
        # D moves first and leaves G alone, so that G as it is here is the one that the average follows between the two moves
        ema = follow(state.ema, state.params, half_life_decay(batch["image"].shape[0], config.ema))
        batch = {**batch, "image": process_reals(batch["image"], now - level if fading else None)}
        after, info = turn(state._replace(model=model, ema={}), batch, key)
        return after._replace(ema=ema), {**info, "lod": now}

    return step


def make_players(config: Config, level: int, fading: bool, given: bool = False) -> dict[str, Player]:
    """D and G, in this order, at resolution / 2^level; ``model['G']['lod']`` says how far the next side has faded in."""
    tx = adam(stylegan_schedule.look_up(config.rates, config.resolution >> level))
    generator, discriminator, dtype = config.generator(), config.discriminator(), jnp.dtype(config.dtype)
    running = dataclasses.replace(generator, widths=generator.widths[: len(generator.widths) - level])

    def fade_of(model: Tree) -> jax.Array | None:
        return model["G"]["lod"] - level if fading else None

    def generate(params: Tree, model: Tree, batch: dict[str, jax.Array], key: jax.Array, player: str) -> tuple[jax.Array, Tree]:
        """Fakes [B, S, S, C] and the model with its average of w moved."""
        count, state = batch["image"].shape[0], model["G"]
        of_z, of_mixing, of_noise = jax.random.split(key, 3)
        z = batch[f"z_{player}"] if given else jax.random.normal(of_z, (count, config.latent_size))
        noise = state.get("noise", {}) if given else nets.draw_noise(running, of_noise, count)
        noise = {name: parallel.constrain(maps, "data", "patch") if maps.ndim == 3 else maps for name, maps in noise.items()}
        w, average = nets.training_codes(
            generator,
            params,
            state["w_avg"],
            parallel.constrain(z, "data", "patch"),
            of_mixing,
            mixing=0.0 if given else config.mixing,
            level=level,
        )
        fakes = nets.synthesise(generator, params, w, noise, level=level, fade=fade_of(model), full_size=False, dtype=dtype)
        return parallel.constrain(fakes, "data", "patch"), {**model, "G": {**state, "w_avg": average}}

    def critic(params: Tree, model: Tree) -> Callable[[jax.Array], jax.Array]:
        return functools.partial(stylegan_discriminator.scores, discriminator, params, level=level, fade=fade_of(model), dtype=dtype)

    def discriminator_loss(own, params, model, batch, key):
        of_fakes, of_mix = jax.random.split(key)
        fake, moved = generate(params["G"], model, batch, of_fakes, "D")
        score, real = critic(own["D"], model), batch["image"]
        on_fake = score(fake)
        on_real, pull = jax.vjp(score, real)  # one run on reals serves the scores and their slopes
        info = {"scores/real": on_real.mean(), "scores/fake": on_fake.mean()}
        if config.loss == "wgan_gp":
            share = jax.random.uniform(of_mix, (real.shape[0], 1, 1, 1))
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
        return loss + penalty, (moved, {**info, "penalty": penalty})

    def generator_loss(own, params, model, batch, key):
        fake, moved = generate(own["G"], model, batch, key, "G")
        adversarial = losses.nonsaturating_generator if config.loss == "logistic" else losses.wasserstein_generator
        return adversarial(critic(params["D"], model)(fake)), (moved, {})

    return {"D": Player(("D",), discriminator_loss, tx), "G": Player(("G",), generator_loss, tx)}
