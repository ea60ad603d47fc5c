"""StyleGAN: A Style-Based Generator Architecture for Generative Adversarial Networks (Karras et al., CVPR 2019), with its training."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.nets import stylegan as nets
from jaxgan.nets import stylegan_discriminator
from jaxgan.system import System, Tree
from jaxgan.systems import stylegan_schedule
from jaxgan.systems.stylegan_schedule import BATCHES, RATES


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
    """Images compared by minibatch deviation; every batch must be a multiple. 1: the layer is left out."""

    loss: Literal["logistic", "wgan_gp", "hinge"] = "logistic"
    """'logistic': non-saturating, with R1. 'wgan_gp': with gradient penalty and drift. 'hinge': with R1."""
    r1_weight: float = 10.0
    """gamma: R1 is gamma / 2 times the mean square of the slopes at reals; computed in every step."""
    gp_weight: float = 10.0
    drift_weight: float = 0.001
    mixing: float = 0.9
    """Probability of style mixing."""
    w_decay: float = 0.995
    """Of the moving average of w, which moves in the D and in the G pass."""
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
            raise ValueError(f"start {self.start}: growing begins at a power of two from 4 to the resolution, {self.resolution}")
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
    """The configuration with the switches of a row of the paper's table 1, 'A' to 'F'.

    Raises:
      ValueError: another row.
    """
    if row not in nets.TABLE_1:
        raise ValueError(f"row {row!r}: table 1 has {', '.join(nets.TABLE_1)}")
    chosen = nets.TABLE_1[row]
    return dataclasses.replace(config, **chosen.changes, mixing=chosen.mixing, loss="wgan_gp" if row == "A" else config.loss)


def init_networks(config: Config, key: jax.Array) -> tuple[dict[str, Tree], dict[str, Tree]]:
    """(params, model) before training: params {'G': {'mapping', 'synthesis'}, 'D'}; model {'G': {'w_avg': [W], 'noise': {name: [side,
    side]}, 'lod': level of detail, 0 for a finished generator}, 'D': {}}."""
    of_g, of_d = jax.random.split(key)
    generator, state = nets.init(config.generator(), of_g)
    params = {"G": generator, "D": stylegan_discriminator.init(config.discriminator(), of_d)}
    return params, {"G": {**state, "lod": jnp.float32(np.log2(config.resolution // config.start))}, "D": {}}


def system(config: Config) -> System:
    raise ValueError("this system is being written")
