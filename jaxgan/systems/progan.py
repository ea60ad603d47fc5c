"""The progressive GAN: Progressive Growing of GANs for Improved Quality, Stability, and Variation (Karras et al., ICLR 2018).

It grows and plays as ``jaxgan.systems.growing`` says. Its discriminator is StyleGAN's without blur, which is the progressive GAN's. The
generator is ``jaxgan.nets.progan``, which has its pixel norm before every convolution: the same function as behind every activation and
behind z, where the paper has it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxgan import parallel
from jaxgan.nets import progan as nets
from jaxgan.nets import stylegan_discriminator
from jaxgan.system import Player, State, System, Tree
from jaxgan.systems import growing
from jaxgan.systems.growing import spread

RATES = ((4, 0.001),)
"""Learning rate of generator and discriminator (appendix A.1)."""
BATCHES = ((4, 16), (256, 14), (512, 6), (1024, 3))
"""Images in a step on one device (appendix A.1)."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Static choices; the defaults are the published CelebA-HQ run at 1024 px on one device (appendix A.1)."""

    sizes: tuple[int, ...] = nets.PRESETS[1024]
    """Size of z, then the channels at 4, 8, 16, ... px, in both networks; the images have 2^len(sizes) px."""
    channels: int = 3
    pixel_norm: bool | Literal["ends", "latents"] = True
    scaling: Literal["fixed", "learned", "none"] = "fixed"
    batch_norm: bool = False
    activation: Literal["leaky_relu", "relu"] = "leaky_relu"
    clamp: bool = True
    """These switches are fields of ``nets.progan.Generator``. Training leaves the clamp out, for it passes no gradient beyond [-1, 1]."""
    group: int = 16
    """Images compared by minibatch deviation; every batch must be a multiple, or smaller. 1 or less: the layer is left out."""

    loss: Literal["wgan_gp", "logistic", "hinge"] = "wgan_gp"
    """'wgan_gp': with gradient penalty and drift, as published. 'logistic' and 'hinge': with R1, additions of ours."""
    gp_weight: float = 10.0
    drift_weight: float = 0.001
    r1_weight: float = 10.0
    """gamma: R1 is gamma / 2 times the mean square of the slopes at reals. 0: without R1."""
    ema: float = 11.0
    """Half-life in kimg of the averaged generator: the published decay of 0.999 in each step of 16 images."""
    mirror: bool = True
    """Mirror every second real, drawn at random: on for faces, off for LSUN."""

    start: int = 4
    """Side at which growing begins; the full side: no growing."""
    train_kimg: float = 800.0
    """kimg at each side below the full one before the next is faded in."""
    fade_kimg: float = 800.0
    """kimg over which it is faded in."""
    rates: tuple[tuple[int, float], ...] = RATES
    """(side, learning rate): a side has the rate of the largest listed side that is not above it."""
    batches: tuple[tuple[int, int], ...] = BATCHES
    """(side, images in a step) while growing, read as ``rates``. ``run.batch`` must be that of the last stage; without growing it alone
    counts."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What convolutions and activations compute in; parameters, norms, sums and losses stay float32."""

    def __post_init__(self):
        self.generator()
        self.discriminator()
        growing.check(self)
        if self.ema <= 0:
            raise ValueError(f"ema {self.ema} must be above 0")

    @property
    def resolution(self) -> int:
        """Side of the images in pixels."""
        return 2 ** len(self.sizes)

    def generator(self) -> nets.Generator:
        return nets.Generator(**{field.name: getattr(self, field.name) for field in dataclasses.fields(nets.Generator)})

    def discriminator(self) -> stylegan_discriminator.Discriminator:
        """Its learning rates are equalised where the generator's are."""
        scaling = "equalised" if self.scaling == "fixed" else "initial"
        widths = self.sizes[1:]
        return stylegan_discriminator.Discriminator(
            widths, widths[0], channels=self.channels, blur=False, group=self.group, scaling=scaling
        )

    def phases(self) -> list[growing.Phase]:
        return growing.phases(self.resolution, self.start, self.train_kimg, self.fade_kimg)

    def system(self) -> System:
        return system(self)


def system(config: Config) -> System:
    """The progressive GAN as a ``System``; where it grows, one stage for each of ``config.phases()``.

    ``sample`` draws from the averaged generator at its level of detail, at most ``growing.SAMPLE_PIXELS`` pixels at a time on a device.
    """
    owns = {"D": ("D",), "G": ("G",)}
    grows = config.start < config.resolution

    def init(key: jax.Array) -> State:
        of_g, of_d = jax.random.split(key)
        generator, stats = nets.init(config.generator(), of_g, growing=grows)
        params = {"G": generator, "D": stylegan_discriminator.init(config.discriminator(), of_d)}
        model = {"G": {"stats": stats, "lod": growing.initial_lod(config)}, "D": {}}
        opt = {name: growing.adam(1.0).init({network: params[network] for network in networks}) for name, networks in owns.items()}
        # the copy keeps a donated state from holding one buffer twice
        return State(jnp.zeros((), jnp.int32), params, opt, model, {"G": jax.tree.map(jnp.copy, params["G"])}, {})

    def sample(state: State, key: jax.Array, n: int) -> jax.Array:
        def draw(z: jax.Array) -> jax.Array:
            # batch statistics are those of the last generator: only parameters are averaged
            return spread(images(config, state.ema.get("G", state.params["G"]), state.model["G"], spread(z)))

        return growing.draw_in_blocks(draw, spread(jax.random.normal(key, (n, config.sizes[0]))), n, config.resolution)

    return System(
        init=init,
        step=make_step(config),
        sample=sample,
        probes={},
        image=(config.resolution, config.resolution, config.channels),
        records=1,
        prepare=functools.partial(growing.reduce_batch, config.mirror, 0),
        owns=owns,
        stages=growing.make_stages(config, make_step),
        check=functools.partial(growing.check_groups, config),
    )


def images(config: Config, params: Tree, model: Tree, z: jax.Array) -> jax.Array:
    """[N, R, R, C] in [-1, 1] from latents [N, Z]: at the level of detail in ``model['lod']``, where the generator still grows.

    ``model``: {'stats', 'lod'}, as in ``State.model['G']``; of a finished generator either may be missing.
    """
    network, stats, dtype = config.generator(), model.get("stats", {}), jnp.dtype(config.dtype)
    if "output4" in params and "lod" in model:  # a finished generator has no outputs for smaller sides
        return nets.synthesise_at(network, params, stats, z, model["lod"], dtype=dtype)
    return nets.synthesise(network, params, stats, z, dtype=dtype)


def make_step(
    config: Config, level: int = 0, lod: Callable[[jax.Array], jax.Array] = growing.constant_lod, fading: bool = False
) -> Callable[..., tuple[State, dict[str, Any]]]:
    """``step(state, batch, key) -> (state, info)`` on images of resolution / 2^level, see ``growing.make_step``."""
    players, check = make_players(config, level, fading), functools.partial(growing.check_groups, config)
    return growing.make_step(config, players, check, level, lod, fading)


def make_players(config: Config, level: int = 0, fading: bool = False) -> dict[str, Player]:
    """D and G, in this order, at resolution / 2^level; ``model['G']['lod']`` says how far the next side has faded in."""
    tx = growing.adam(growing.look_up(config.rates, config.resolution >> level))
    network, discriminator = dataclasses.replace(config.generator(), clamp=False), config.discriminator()
    dtype = jnp.dtype(config.dtype)

    def fade_of(model: Tree) -> jax.Array | None:
        return model["G"]["lod"] - level if fading else None

    def generate(params: Tree, model: Tree, batch: dict[str, jax.Array], key: jax.Array) -> tuple[jax.Array, Tree]:
        """Fakes [B, S, S, C] and the model with its batch statistics moved."""
        z = parallel.constrain(jax.random.normal(key, (batch["image"].shape[0], config.sizes[0])), "data", "patch")
        options = dict(level=level, fade=fade_of(model), full_size=False, train=config.batch_norm, dtype=dtype)
        made = nets.run(network, params, model["G"]["stats"], z, **options)
        return parallel.constrain(made.images, "data", "patch"), {**model, "G": {**model["G"], "stats": made.stats}}

    def critic(params: Tree, model: Tree) -> Callable[[jax.Array], jax.Array]:
        return functools.partial(stylegan_discriminator.scores, discriminator, params, level=level, fade=fade_of(model), dtype=dtype)

    def discriminator_loss(own, params, model, batch, key):
        of_z, of_share = jax.random.split(key)
        fake, moved = generate(params["G"], model, batch, of_z)
        loss, info = growing.discriminator_loss(config, critic(own["D"], model), batch["image"], fake, of_share)
        return loss, (moved, info)

    def generator_loss(own, params, model, batch, key):
        fake, moved = generate(own["G"], model, batch, key)
        return growing.generator_loss(config, critic(params["D"], model)(fake)), (moved, {})

    return {"D": Player(("D",), discriminator_loss, tx), "G": Player(("G",), generator_loss, tx)}
