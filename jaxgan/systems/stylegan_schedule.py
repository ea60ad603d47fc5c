"""When StyleGAN grows, and what depends on the side of its images: minibatch, learning rate, level of detail.

The tables and the formula are those of the published training code (Karras et al., CVPR 2019). Time is counted in thousands of real
images shown (kimg). The level of detail (lod) says how far the images are from full size: lod 2.25 is images of resolution / 4, of which
a quarter is still taken from half that side.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

Table = tuple[tuple[int, float], ...]
"""(side, value): a side has the value of the largest listed side that is not above it."""

RATES = ((4, 0.001), (128, 0.0015), (256, 0.002), (512, 0.003))
"""Learning rates of generator and discriminator."""
_UP_TO_64 = ((8, 256), (16, 128), (32, 64), (64, 32))
BATCHES = {
    8: ((4, 512), *_UP_TO_64),
    4: ((4, 512), *_UP_TO_64, (128, 16)),
    2: ((4, 256), *_UP_TO_64, (128, 16), (256, 8)),
    1: ((4, 128), (16, 128), (32, 64), (64, 32), (128, 16), (256, 8), (512, 4)),
}
"""Images in a step of the whole machine, by its number of devices."""


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
