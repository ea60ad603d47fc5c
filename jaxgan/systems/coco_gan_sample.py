"""Sampling COCO-GAN: full images, boxes, single coordinates, walks, panoramas, canvases beyond the border, and guidance by a patch.

Everything is made of micro patches in inference mode (running statistics), so that a patch does not depend on which others are made with
it: a box equals the crop of the full image, and a canvas streamed in chunks equals one made at once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import coords, parallel
from jaxgan.metrics import seam
from jaxgan.system import Probe, State, Tree
from jaxgan.systems.coco_gan import Config, Networks, draw_latents


class Trained(NamedTuple):
    """What sampling needs of a trained state: parameters and running statistics by network name."""

    params: dict[str, Tree]
    model: dict[str, Tree]


def generator_of(state: State) -> Trained:
    """The networks of a state, the averaged generator in the place of the last one where there is one."""
    return Trained({**state.params, **state.ema}, state.model)


def patches(config: Config, trained: Trained, latents: jax.Array, coordinates: jax.Array, chunk: int | None = None) -> jax.Array:
    """Micro patches [n, p, p, C] in [-1, 1] from latents [n, z] and micro coordinates [n, c]; any float coordinate is legal.

    ``chunk``: patches computed at once; default as many as keep activations near 256 MB.
    """
    networks = Networks(config)
    normalised, _ = networks.normalise("G", trained.params["G"], trained.model["G"])

    def make(latent, at):
        return networks.run("G", normalised, trained.model["G"], latent, at, train=False)[0]

    height, width = config.micro
    chunk = chunk or max(1, 2**24 // (height * width * config.g_width))
    if latents.shape[0] <= chunk:
        return parallel.constrain(
            make(parallel.constrain(latents, "data", "patch"), parallel.constrain(coordinates, "data", "patch")), "data", "patch"
        )
    # lax.map takes one element at a time; the batch of one that it adds is undone inside
    return jax.lax.map(lambda item: make(item[0][None], item[1][None])[0], (latents, coordinates), batch_size=chunk)


def grid_latents(latents: jax.Array, count: int) -> jax.Array:
    """Latents for each patch of each image: [n, z] repeated, or [n, count, z] as they are -> [n * count, z].

    Raises:
      ValueError: latents for another number of patches.
    """
    if latents.ndim == 2:
        return jnp.repeat(latents, count, 0)
    if latents.ndim != 3 or latents.shape[1] != count:
        raise ValueError(f"latents of shape {latents.shape}: expected [n, z], or [n, {count}, z] for one latent in each of {count} patches")
    return latents.reshape(-1, latents.shape[-1])


@functools.partial(jax.jit, static_argnames=("config", "beyond", "chunk"))
def full_images(
    config: Config, trained: Trained, latents: jax.Array, beyond: tuple[int, int] = (0, 0), chunk: int | None = None
) -> jax.Array:
    """Whole images in [-1, 1].

    Args:
      config: of the trained system.
      latents: [n, z], or [n, patches, z] for latents that vary over the image (patches column by column, see ``coords.lattice``).
      beyond: micro patches added past the (top and bottom, left and right) borders; on a cylinder vertically only.

    Returns:
      [n, H + 2 * beyond_v * p, W + 2 * beyond_h * p, C].
    """
    geometry = config.geometry()
    corner = coords.full_grid(geometry, beyond)
    count = geometry.per_full[0] + 2 * beyond[0], geometry.per_full[1] + 2 * beyond[1]
    at = jnp.tile(coords.coordinates(geometry, corner, geometry.micro), (latents.shape[0], 1))
    made = patches(config, trained, grid_latents(latents, len(corner)), at, chunk)
    return coords.assemble(made.reshape(latents.shape[0], len(corner), *made.shape[1:]), count)


@functools.partial(jax.jit, static_argnames=("config", "area"))
def box(config: Config, trained: Trained, latents: jax.Array, area: tuple[int, int, int, int]) -> jax.Array:
    """One region of full images, from only the micro patches that it touches.

    Args:
      latents: [n, z].
      area: (top, left, height, width) in pixels of the full image. It may reach beyond the borders (the patches there are
        extrapolated), and on a cylinder past the right edge round to the left one.

    Returns:
      [n, height, width, C]: inside the image the exact crop of ``full_images``.
    """
    top, left, height, width = area
    if height < 1 or width < 1:
        raise ValueError(f"box {area}: height and width must be positive")
    geometry = config.geometry()
    rows, columns = geometry.micro
    first = top // rows, left // columns
    count = -(-(top + height) // rows) - first[0], -(-(left + width) // columns) - first[1]
    corner = coords.lattice(count, geometry.micro) + np.asarray([first[0] * rows, first[1] * columns], np.int32)
    at = jnp.tile(coords.coordinates(geometry, corner, geometry.micro), (latents.shape[0], 1))
    made = patches(config, trained, grid_latents(latents, len(corner)), at)
    canvas = coords.assemble(made.reshape(latents.shape[0], len(corner), *made.shape[1:]), count)
    top, left = top - first[0] * rows, left - first[1] * columns
    return canvas[:, top : top + height, left : left + width]


def stream(
    config: Config, trained: Trained, latent: jax.Array, beyond: tuple[int, int] = (0, 0), chunk: int = 64
) -> Iterator[tuple[int, int, np.ndarray]]:
    """One canvas piece by piece, for canvases that fit no device: the device holds ``chunk`` patches at a time, whatever the canvas.

    Args:
      latent: [z], or a function of patch numbers int [k] -> [k, z] for latents that vary over the canvas.
      beyond: as in ``full_images``; with it the canvas may be as large as wanted.

    Yields:
      (top, left, patch uint8 [p, p, C]), column by column; (0, 0) is the canvas's corner.
    """
    geometry = config.geometry()
    corner = coords.full_grid(geometry, beyond)
    make = _compiled_patches(config)
    for start in range(0, len(corner), chunk):
        part = corner[start : start + chunk]
        number = np.arange(start, start + len(part))
        latents = jnp.asarray(latent(number)) if callable(latent) else jnp.broadcast_to(latent, (len(part), latent.shape[-1]))
        missing = chunk - len(part)  # the last chunk is filled up, so that one compiled shape serves all
        at = coords.coordinates(geometry, np.pad(part, ((0, missing), (0, 0)), mode="edge"), geometry.micro)
        made = to_bytes(make(trained, jnp.pad(latents, ((0, missing), (0, 0))), at))
        for (top, left), patch in zip(part - corner[0], made[: len(part)], strict=True):
            yield int(top), int(left), patch


@functools.cache
def _compiled_patches(config: Config):
    return jax.jit(lambda trained, latents, at: patches(config, trained, latents, at, chunk=len(latents)))


def walk(start: jax.Array, end: jax.Array, steps: int, spherical: bool = False) -> jax.Array:
    """Latents from ``start`` to ``end``, both included: [z], [z] -> [steps, z]; ``spherical`` keeps to the arc between them.

    Raises:
      ValueError: fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"a walk of {steps} steps: it needs at least 2, the start and the end")
    t = jnp.linspace(0.0, 1.0, steps)[:, None]
    if not spherical:
        return (1 - t) * start + t * end
    cosine = jnp.sum(start * end) / (jnp.linalg.norm(start) * jnp.linalg.norm(end))
    angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
    safe = jnp.where(angle < 1e-4, 1.0, angle)
    arc = (jnp.sin((1 - t) * safe) * start + jnp.sin(t * safe) * end) / jnp.sin(safe)
    return jnp.where(angle < 1e-4, (1 - t) * start + t * end, arc)


def blend_latents(config: Config, start: jax.Array, end: jax.Array, beyond: tuple[int, int] = (0, 0)) -> jax.Array:
    """Latents that change from ``start`` at the left to ``end`` at the right of an image: [n, z], [n, z] -> [n, patches, z]."""
    left = coords.full_grid(config.geometry(), beyond)[:, 1].astype(np.float32)
    share = jnp.asarray((left - left.min()) / max(float(np.ptp(left)), 1.0))[None, :, None]
    return (1 - share) * start[:, None] + share * end[:, None]


@functools.partial(jax.jit, static_argnames=("config",))
def guess_latents(config: Config, trained: Trained, macro: jax.Array) -> jax.Array:
    """Latents [n, z] that the content head reads from macro patches [n, S, S, C] in [-1, 1] (patch-guided generation).

    Raises:
      ValueError: a system without content head.
    """
    networks = Networks(config)
    if "Q" not in networks.modules:
        raise ValueError(
            "patch-guided generation needs a content head: train with content_weight > 0 (configs/coco_gan_celeba128_patch_guided.py)"
        )
    normalised, _ = networks.normalise("D", trained.params["D"], trained.model["D"])
    (features, _), _ = networks.run("D", normalised, trained.model["D"], macro, None)
    head, _ = networks.normalise("Q", trained.params["Q"], trained.model["Q"])
    return networks.run("Q", head, trained.model["Q"], features, train=False)[0]


def guided(config: Config, trained: Trained, macro: jax.Array, paste_at: tuple[int, int] | None = None) -> jax.Array:
    """Full images [n, H, W, C] whose latents are read from real macro patches [n, S, S, C].

    ``paste_at``: puts each guiding patch itself at this (top, left) pixel.
    """
    images = full_images(config, trained, guess_latents(config, trained, macro))
    if paste_at is None:
        return images
    top, left = paste_at
    height, width = config.macro
    if top < 0 or left < 0 or top + height > config.full[0] or left + width > config.full[1]:
        raise ValueError(
            f"a macro patch of {height}x{width} px pasted at {paste_at} leaves the image of {config.full[0]}x{config.full[1]} px"
        )
    return images.at[:, top : top + height, left : left + width].set(macro)


def seam_probe(config: Config) -> Probe:
    """The seam statistic of full images as a probe: as many images as the batch has samples, their profiles summed."""
    size = config.full

    def zero():
        return {"n": np.zeros(()), "profile": np.zeros(size[0] + size[1] - 1)}

    def add(sums, state, batch, key):
        n = batch["corner"].shape[0]
        images = full_images(config, generator_of(state), draw_latents(key, (n, config.latent)))
        return {"n": sums["n"] + float(n), "profile": sums["profile"] + seam.profile(images).sum(0)}

    def merge(a, b):
        return {name: np.asarray(a[name], np.float64) + np.asarray(b[name], np.float64) for name in a}

    def read(sums):
        return seam.read(sums["profile"] / sums["n"], size, config.micro, config.coordinates == "cylindrical")

    return Probe(zero, add, merge, read)


def to_bytes(images: jax.Array) -> np.ndarray:
    """[-1, 1] -> uint8, rounded to the nearest of the 256 values that (x + 1) * 127.5 maps to."""
    return np.asarray(jnp.clip(jnp.round((images + 1.0) * 127.5), 0, 255).astype(jnp.uint8))


def random_latents(config: Config, seed: int, n: int) -> jax.Array:
    """[n, z] latents of a seed."""
    return draw_latents(jax.random.key(seed), (n, config.latent))
