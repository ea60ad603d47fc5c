"""StyleGAN: A Style-Based Generator Architecture for Generative Adversarial Networks (Karras et al., CVPR 2019), with its training.

It trains as the progressive GAN does (``jaxgan.systems.growing``); both moves of a step, D's and G's, also move the average of w.

Two things differ from the published loop. It re-evaluates its schedule in every fourth step; here the level of detail is a function of
the images shown before each step. And it skips updates that are not finite; here the loop stops and names the leaf, as for all systems.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxgan import parallel
from jaxgan.nets import stylegan as nets
from jaxgan.nets import stylegan_discriminator
from jaxgan.system import Player, State, System, Tree
from jaxgan.systems import growing
from jaxgan.systems.growing import spread
from jaxgan.systems.stylegan_schedule import BATCHES, RATES

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
        growing.check(self)
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

    def phases(self) -> list[growing.Phase]:
        return growing.phases(self.resolution, self.start, self.train_kimg, self.fade_kimg)

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
    measured on. Each device makes at most ``growing.SAMPLE_PIXELS`` pixels at a time: a map of 1024 px with 16 channels is 64 MB.
    """
    stages = growing.make_stages(config, make_step)
    owns = {"D": ("D",), "G": ("G",)}

    def init(key: jax.Array) -> State:
        params, model = init_networks(config, key)
        opt = {name: growing.adam(1.0).init({network: params[network] for network in networks}) for name, networks in owns.items()}
        # the copy keeps a donated state from holding one buffer twice
        return State(jnp.zeros((), jnp.int32), params, opt, model, {"G": jax.tree.map(jnp.copy, params["G"])}, {})

    def sample(state: State, key: jax.Array, n: int) -> jax.Array:
        network, of_z, of_noise, of_label = config.generator(), *jax.random.split(key, 3)
        z = spread(jax.random.normal(of_z, (n, config.latent_size)))
        labels = None
        if config.label_size:
            labels = jax.nn.one_hot(jax.random.randint(of_label, (n,), 0, config.label_size), config.label_size)
        params, model = state.ema.get("G", state.params["G"]), state.model["G"]
        w = nets.extend(network, nets.map_latents(network, params, z, labels))
        inputs = jax.tree.map(spread, (w, nets.draw_noise(network, of_noise, n)))

        def draw(inputs: tuple[jax.Array, Tree]) -> jax.Array:
            w, noise = jax.tree.map(spread, inputs)
            return spread(nets.synthesise_at(network, params, w, noise, model["lod"], dtype=jnp.dtype(config.dtype)))

        return growing.draw_in_blocks(draw, inputs, n, config.resolution)

    return System(
        init=init,
        step=make_step(config),
        sample=sample,
        probes={},
        image=(config.resolution, config.resolution, config.channels),
        records=1,
        prepare=functools.partial(growing.reduce_batch, config.mirror, 0),
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
    growing.check_groups(config, batch)


def init_networks(config: Config, key: jax.Array) -> tuple[dict[str, Tree], dict[str, Tree]]:
    """(params, model) before training: params {'G': {'mapping', 'synthesis'}, 'D'}; model {'G': {'w_avg': [W], 'noise': {name: [side,
    side]}, 'lod': level of detail, 0 for a finished generator}, 'D': {}}."""
    of_g, of_d = jax.random.split(key)
    generator, state = nets.init(config.generator(), of_g)
    params = {"G": generator, "D": stylegan_discriminator.init(config.discriminator(), of_d)}
    return params, {"G": {**state, "lod": growing.initial_lod(config)}, "D": {}}


# -- the game ----------------------------------------------------------------------------------------------------------------------


def make_step(
    config: Config,
    level: int = 0,
    lod: Callable[[jax.Array], jax.Array] = growing.constant_lod,
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
    players = make_players(config, level, fading, given)
    return growing.make_step(config, players, functools.partial(check_training, config), level, lod, fading)


def make_players(config: Config, level: int, fading: bool, given: bool = False) -> dict[str, Player]:
    """D and G, in this order, at resolution / 2^level; ``model['G']['lod']`` says how far the next side has faded in."""
    tx = growing.adam(growing.look_up(config.rates, config.resolution >> level))
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
        loss, info = growing.discriminator_loss(config, critic(own["D"], model), batch["image"], fake, of_mix)
        return loss, (moved, info)

    def generator_loss(own, params, model, batch, key):
        fake, moved = generate(own["G"], model, batch, key, "G")
        return growing.generator_loss(config, critic(params["D"], model)(fake)), (moved, {})

    return {"D": Player(("D",), discriminator_loss, tx), "G": Player(("G",), generator_loss, tx)}
