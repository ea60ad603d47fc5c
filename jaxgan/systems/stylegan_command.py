"""What `jaxgan sample` can ask of a trained style-based generator: the options, and what they write."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from etils import epath

from jaxgan import code_files, edits, viz
from jaxgan.generators import Generator
from jaxgan.style_generators import StyleGenerator, check_resolution, renderer, style_generator

CUTOFF = {"stylegan": 8}
"""Rows that are truncated where nothing else is asked for, as in the published call; of other families all."""


@dataclasses.dataclass(frozen=True)
class Options:
    """Images of random latents, with the generator's stored noise."""

    out: str
    """NAME.png: one picture, several images as a grid. Otherwise a folder of PNG files."""
    n: int = 16
    """Images."""
    seed: int = 0
    """The latents are a function of it; image i is the same whatever n is."""
    psi: float | None = None
    """Truncation: distance from the mean code, 1 for none; negative: anti-faces. None: 0.7 of a StyleGAN, what its configuration says of a
    MobileStyleGAN."""
    cutoff: int | None = None
    """Rows of the code that are truncated. None: 8 of a StyleGAN, all of a MobileStyleGAN."""
    label: int | None = None
    """Class, for a generator that has classes."""
    codes: bool = False
    """Beside each PNG file of a folder, write its code (W+) as NUMBER.safetensors, for `jaxgan edit`."""
    resolution: int | None = None
    """Side of the images in pixels, a divisor of the generator's: the mean over squares. None: the generator's own."""
    batch: int = 4
    """Images computed at once."""


def run(generator: Generator, options: Options) -> str:
    """Makes what the options ask for and returns one sentence that says what was written.

    Raises:
      ValueError, FileExistsError: before anything is made or written.
    """
    style = style_generator(generator, "the generator")
    out = epath.Path(options.out)
    check(style, generator, options, out)
    codes = draw_codes(style, generator, options)
    render = renderer(style, batch=options.batch, resolution=options.resolution)
    side = check_resolution(style, options.resolution)
    step = "" if generator.step is None else f" of step {generator.step}"
    if out.suffix == ".png":
        images = render(codes)
        viz.write_png(out, viz.grid(images) if len(images) > 1 else images[0])
        return f"{out}: {len(images)} images of {side}x{side} px{step}"
    about = code_files.about_generator(style, space="W+", seed=options.seed, psi=psi_of(generator, options))
    for first in range(0, len(codes), options.batch):
        block = codes[first : first + options.batch]
        filled = np.concatenate([block, np.repeat(block[-1:], options.batch - len(block), 0)])  # one compiled shape
        for i, (code, image) in enumerate(zip(block, render(filled), strict=False), first):
            viz.write_png(out / f"{i:06d}.png", image)
            if options.codes:
                code_files.write_code(out / f"{i:06d}.safetensors", code, about={**about, "number": i})
    return f"{out}: {len(codes)} images of {side}x{side} px{step}{' with their codes' if options.codes else ''}"


def check(style: StyleGenerator, generator: Generator, options: Options, out: Any) -> None:
    """Refuses options that the generator lacks or that contradict each other, and a folder that holds something."""
    for name, least in (("n", 1), ("seed", 0), ("batch", 1)):
        if getattr(options, name) < least:
            raise ValueError(f"--{name} is {getattr(options, name)}: give at least {least}")
    if options.cutoff is not None and not 0 <= options.cutoff <= style.rows:
        raise ValueError(f"--cutoff is {options.cutoff}: this generator has {style.rows} rows, give 0 to {style.rows}")
    classes = getattr(generator.config, "label_size", 0)
    if options.label is not None and not 0 <= options.label < classes:
        have = f"the classes 0 to {classes - 1}" if classes else "no classes"
        raise ValueError(f"--label is {options.label}: this generator has {have}")
    check_resolution(style, options.resolution)
    if out.suffix == ".png":
        if options.codes:
            raise ValueError(f"--out is {out}: codes go into a folder, one file beside each image; name a folder")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"--out is {out}, which exists and is not an empty folder: name another")


def psi_of(generator: Generator, options: Options) -> float:
    """The truncation asked for, or the family's usual one."""
    return getattr(generator.config, "psi", 0.7) if options.psi is None else options.psi


def draw_codes(style: StyleGenerator, generator: Generator, options: Options) -> np.ndarray:
    """Truncated codes [n, rows, W]: latents N(0, 1), each with a key folded from its number."""
    import jax
    import jax.numpy as jnp

    classes = getattr(generator.config, "label_size", 0)

    @jax.jit
    def draw(arrays, seed, numbers):
        keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(numbers)
        z = jax.vmap(lambda key: jax.random.normal(key, (style.latent_size,)))(keys)
        labels = ()
        if classes:
            one = jnp.zeros((classes,)) if options.label is None else jax.nn.one_hot(options.label, classes)
            labels = (jnp.broadcast_to(one, (len(numbers), classes)),)
        codes = style.extend(style.map_latents(arrays, z, *labels))
        cutoff = CUTOFF.get(style.family, style.rows) if options.cutoff is None else options.cutoff
        return edits.crossover(edits.truncate(codes, style.w_avg(arrays), psi_of(generator, options)), codes, cutoff)

    return np.asarray(draw(style.arrays, np.uint32(options.seed), np.arange(options.n, dtype=np.uint32)))
