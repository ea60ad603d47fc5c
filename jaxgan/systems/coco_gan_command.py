"""What `jaxgan sample` can ask of a trained COCO-GAN: the options, and what they write."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxgan import coords, viz
from jaxgan.generators import Generator, nested
from jaxgan.systems import coco_gan_sample as sampling
from jaxgan.systems.coco_gan import Config, Networks
from jaxgan.systems.coco_gan_sample import Trained

GROUP = 64
"""Images made at once where many are written one by one."""


@dataclasses.dataclass(frozen=True)
class Options:
    out: str
    """NAME.png: one picture, several images as a grid. NAME.npy (with --chunk): one canvas as an array. Otherwise a folder of PNG files."""
    n: int = 16
    """Images (with --walk: walks)."""
    seed: int = 0
    """The latents are a function of it."""
    box: tuple[int, int, int, int] | None = None
    """Only this region: top, left, height, width in pixels of the full image; it may reach beyond the borders."""
    beyond: tuple[int, int] = (0, 0)
    """Micro patches added past the top and bottom, and past the left and right border."""
    walk: int = 0
    """Images from one latent to another, both included."""
    spherical: bool = False
    """Walk along an arc."""
    blend: bool = False
    """Latents that change from the left to the right of each image."""
    at: tuple[float, ...] = ()
    """Single micro patches at these coordinates, two numbers each: vertical, horizontal; -1 and 1 touch the borders."""
    guide: str = ""
    """A picture of one macro patch: its latents are estimated, and the full image is made from them."""
    paste: tuple[int, int] | None = None
    """Where (top, left) to put the guiding picture into the image."""
    chunk: int = 0
    """Stream one canvas with so many micro patches on the device at a time, whatever its size."""


def trained_of(generator: Generator) -> Trained:
    """Parameters and running statistics as sampling takes them, the averaged generator in the place of the last one where there is one.

    Raises:
      ValueError: a network's arrays are not those of its configuration; names the first five.
    """
    wanted = dict(zip(("params", "model"), jax.eval_shape(Networks(generator.config).init, jax.random.key(0)), strict=True))
    there = {part: nested(generator.arrays, part) for part in ("params", "model", "ema")}
    there["params"] |= there.pop("ema")
    problems = []
    for part, networks in wanted.items():
        # A generator folder may hold the generator alone; what it holds must fit.
        for network in [name for name in networks if name in there[part] or name == "G"]:
            here, given = _shapes(networks[network]), _shapes(there[part].get(network, {}))
            for name in sorted(here.keys() | given.keys()):
                if here.get(name) != given.get(name):
                    problems.append(f"{part}/{network}/{name} is {given.get(name, 'absent')}, it should be {here.get(name, 'absent')}")
    if problems:
        raise ValueError(f"the arrays are not those of the configuration: {'; '.join(problems[:5])}")
    return Trained(*jax.tree.map(jnp.asarray, (there["params"], there["model"])))


def _shapes(tree) -> dict[str, tuple[int, ...]]:
    return {"/".join(key.key for key in path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def run(generator: Generator, options: Options) -> str:
    """Makes what the options ask for and returns one sentence that says what was written.

    Raises:
      ValueError, FileNotFoundError, FileExistsError: before anything is made or written.
    """
    config = generator.config
    check(config, options)
    trained = trained_of(generator)
    out = epath.Path(options.out)
    step = "" if generator.step is None else f" of step {generator.step}"
    if options.chunk:
        height, width = write_canvas(config, trained, options, out)
        return f"{out}: a canvas of {height}x{width} px{step}"
    if out.suffix == ".png":
        images = np.concatenate(list(groups(config, trained, options)))
        viz.write_png(out, viz.grid(images, options.walk or (len(options.at) // 2) or None) if len(images) > 1 else images[0])
        seam = "" if options.box is not None or options.at else f"; {seams(config, images)}"
        return f"{out}: {len(images)} images of {images.shape[1]}x{images.shape[2]} px{step}{seam}"
    number = 0
    for images in groups(config, trained, options):
        for image in images:
            viz.write_png(out / f"{number:06d}.png", image)
            number += 1
    return f"{out}: {number} files of {images.shape[1]}x{images.shape[2]} px{step}"


def seams(config: Config, images: np.ndarray) -> str:
    """How visible the borders of micro patches are in full images [n, H, W, C], in words."""
    found = viz.seam_statistic(images, config.micro, config.coordinates == "cylindrical")
    wrap = f", {found['wrap']:.2f} where the edges meet" if "wrap" in found else ""
    return f"seam statistic {found['seam']:.2f}{wrap} (1: the borders of patches cannot be told from other pixels)"


def check(config: Config, options: Options) -> None:
    """Refuses options that contradict each other, the system or what is on disk; ValueError, FileNotFoundError or FileExistsError."""
    modes = {"--box": options.box is not None, "--walk": options.walk > 0, "--at": bool(options.at), "--guide": bool(options.guide)}
    modes |= {"--chunk": options.chunk > 0}
    chosen = [name for name, asked in modes.items() if asked]
    if len(chosen) > 1:
        raise ValueError(f"{' and '.join(chosen)} cannot be asked for together: choose one")
    for name, least in (("n", 1), ("seed", 0), ("walk", 0), ("chunk", 0)):
        if getattr(options, name) < least:
            raise ValueError(f"--{name} is {getattr(options, name)}: give at least {least}")
    if options.walk == 1:
        raise ValueError("--walk is 1: a walk needs at least 2 images, its start and its end")
    if min(options.beyond) < 0:
        raise ValueError(f"--beyond is {options.beyond[0]} {options.beyond[1]}: give 0 or more micro patches")
    coords.full_grid(config.geometry(), options.beyond)  # a cylinder has no left and right border
    if options.box is not None and min(options.box[2:]) < 1:
        raise ValueError(f"--box is {' '.join(map(str, options.box))}: height and width must be positive")
    if any(options.beyond) and (options.box is not None or options.at or options.guide):
        raise ValueError(f"--beyond extends full images; {chosen[0]} takes positions beyond the border as they are, or has none")
    if options.blend and chosen and chosen != ["--chunk"]:
        raise ValueError(f"--blend applies to full images, not to {chosen[0]}")
    if len(options.at) % 2:
        raise ValueError(f"--at has {len(options.at)} numbers: give two for each patch, vertical and horizontal")
    if options.paste is not None and not options.guide:
        raise ValueError("--paste says where the guiding picture goes: name it with --guide")
    if options.guide and not config.content_weight > 0:
        raise ValueError("--guide needs a content head: train with model.content_weight above 0 (coco_gan_celeba128_patch_guided.py)")
    out = epath.Path(options.out)
    if out.suffix == ".npy" and (not options.chunk or "://" in options.out):
        raise ValueError(f"--out is {out}: an .npy file is for one local canvas that is streamed (--chunk); use .png or a folder")
    if options.chunk and out.suffix not in (".png", ".npy"):
        raise ValueError(f"--out is {out}: a streamed canvas is one file, .png or .npy")
    if out.suffix not in (".png", ".npy") and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"--out is {out}, which exists and is not an empty folder: name another")
    if options.guide:
        read_guide(config, options)


def read_guide(config: Config, options: Options) -> np.ndarray:
    """The guiding picture as [1, S, S, C] in [-1, 1]; ValueError where it has another size than a macro patch."""
    picture = viz.read_png(options.guide)
    if config.channels == 1:
        picture = picture.mean(-1, keepdims=True).round().astype(np.uint8)
    if picture.shape != (*config.macro, config.channels):
        height, width = config.macro
        raise ValueError(f"{options.guide} is {picture.shape[0]}x{picture.shape[1]} px; a macro patch of this system has {height}x{width}")
    if options.paste is not None:
        for place, size, room in zip(options.paste, config.macro, config.full, strict=True):
            if not 0 <= place <= room - size:
                raise ValueError(f"--paste is {options.paste[0]} {options.paste[1]}: the picture would leave the image")
    return picture[None].astype(np.float32) / 127.5 - 1.0


def groups(config: Config, trained: Trained, options: Options) -> Iterator[np.ndarray]:
    """uint8 [k, H, W, C] at a time, `GROUP` images at most unless one walk or list of coordinates is longer."""
    if options.guide:
        yield sampling.to_bytes(sampling.guided(config, trained, jnp.asarray(read_guide(config, options)), options.paste))
        return
    pairs = options.walk or options.blend
    latents = sampling.random_latents(config, options.seed, 2 * options.n if pairs else options.n)
    start, end = latents[: options.n], latents[options.n :]
    if options.walk:
        for a, b in zip(start, end, strict=True):
            steps = sampling.walk(a, b, options.walk, options.spherical)
            yield sampling.to_bytes(sampling.full_images(config, trained, steps, options.beyond))
        return
    for first in range(0, options.n, GROUP):
        some = start[first : first + GROUP]
        if options.box is not None:
            made = sampling.box(config, trained, some, options.box)
        elif options.at:
            made = patches_at(config, trained, some, options.at)
        else:
            if options.blend:
                some = sampling.blend_latents(config, some, end[first : first + GROUP], options.beyond)
            made = sampling.full_images(config, trained, some, options.beyond)
        yield sampling.to_bytes(made)


def patches_at(config: Config, trained: Trained, latents: jax.Array, at: tuple[float, ...]) -> jax.Array:
    """Micro patches [n * k, p, p, C] at k coordinates (vertical, horizontal), all of one latent side by side."""
    geometry = config.geometry()
    places = np.asarray(at, np.float32).reshape(-1, 2)
    # From coordinates back to pixels, so that the third number of a cylinder's coordinates is filled in by the one formula there is.
    room = np.asarray([geometry.full[0] - geometry.micro[0], geometry.full[1] - (0 if geometry.cylindrical else geometry.micro[1])])
    coordinates = coords.coordinates(geometry, (places + 1) / 2 * room, geometry.micro)
    tiled = jnp.tile(coordinates, (len(latents), 1))
    return sampling.patches(config, trained, jnp.repeat(latents, len(places), 0), tiled)


def write_canvas(config: Config, trained: Trained, options: Options, out: epath.Path) -> tuple[int, int]:
    """Streams one canvas into a PNG (held in host memory) or an .npy file (held on disk); returns its (height, width)."""
    geometry = config.geometry()
    rows, columns = (count + 2 * more for count, more in zip(geometry.per_full, options.beyond, strict=True))
    shape = (rows * config.micro[0], columns * config.micro[1], config.channels)
    latents = sampling.random_latents(config, options.seed, 2)
    latent = latents[0]
    if options.blend:
        share = jnp.linspace(0.0, 1.0, columns)

        def latent(number: np.ndarray) -> jax.Array:
            part = share[number // rows][:, None]
            return (1 - part) * latents[0] + part * latents[1]

    stream = sampling.stream(config, trained, latent, options.beyond, options.chunk)
    if out.suffix == ".png":
        canvas = np.empty(shape, np.uint8)
        _fill(canvas, stream)
        viz.write_png(out, canvas)
        return shape[:2]
    out.parent.mkdir(parents=True, exist_ok=True)
    part = f"{options.out}.part"
    try:
        canvas = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
        _fill(canvas, stream)
        canvas.flush()
        os.replace(part, options.out)
    finally:
        if os.path.exists(part):
            os.remove(part)
    return shape[:2]


def _fill(canvas: np.ndarray, stream: Iterator[tuple[int, int, np.ndarray]]) -> None:
    for top, left, patch in stream:
        canvas[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
