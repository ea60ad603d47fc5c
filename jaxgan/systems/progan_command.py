"""What `jaxgan sample` can ask of a trained progressive GAN: the options, and what they write."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from etils import epath

from jaxgan import viz
from jaxgan.generators import Generator, nested, quantise


@dataclasses.dataclass(frozen=True)
class Options:
    """Images of random latents."""

    out: str
    """NAME.png: one picture, several images as a grid. Otherwise a folder of PNG files."""
    n: int = 16
    """Images."""
    seed: int = 1
    """Of the published stream of latents; image i is the same whatever n is."""
    batch: int = 8
    """Images computed at once."""


def run(generator: Generator, options: Options) -> str:
    """Makes what the options ask for and returns one sentence that says what was written.

    Raises:
      ValueError, FileExistsError: before anything is made or written.
    """
    import jax

    from jaxgan.nets.progan import standard_z
    from jaxgan.systems import progan

    for name, least in (("n", 1), ("seed", 0), ("batch", 1)):
        if getattr(options, name) < least:
            raise ValueError(f"--{name} is {getattr(options, name)}: give at least {least}")
    out = epath.Path(options.out)
    if out.suffix != ".png" and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"--out is {out}, which exists and is not an empty folder: name another")
    config, (params, model, ema) = generator.config, (nested(generator.arrays, part) for part in ("params", "model", "ema"))
    draw = functools.partial(jax.jit(functools.partial(progan.images, config)), ema.get("G", params["G"]), model.get("G", {}))
    z = standard_z(options.seed, options.n, config.sizes[0])
    size, pictures = min(options.batch, options.n), []
    for first in range(0, options.n, size):
        rows = np.minimum(np.arange(first, first + size), options.n - 1)  # the last block is filled up: one compiled shape
        block = quantise(draw(z[rows]))[: options.n - first]
        if out.suffix == ".png":
            pictures.append(block)
            continue
        for i, image in enumerate(block, first):
            viz.write_png(out / f"{i:06d}.png", image)
    if pictures:
        made = np.concatenate(pictures)
        viz.write_png(out, viz.grid(made) if len(made) > 1 else made[0])
    step = "" if generator.step is None else f" of step {generator.step}"
    return f"{out}: {options.n} images of {config.resolution}x{config.resolution} px{step}"
