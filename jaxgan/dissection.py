"""Dissection of a layer of a generator: its units kept, zeroed or replaced, where they are active, and the images that excite them most.

A unit is a channel of an activation [N, h, w, C] of a ``chains.Chain``. Source: Bau et al., *GAN Dissection* (ICLR 2019), sections 3.1 and
3.2, and the published code of *Seeing what a GAN cannot generate* (ICCV 2019) for ranges and levels.

    from jaxgan import chains, dissection
    chain = chains.open_chain("work/church")
    without, _ = chain.run(chain.arrays, latents, edits=dissection.zero(chain, "layer4", [3, 17]))
    found = dissection.activations(chain, "layer4", latents)
    best = dissection.top_images(dissection.peaks(found), unit=17, count=5)
    heat = dissection.heat_maps(found[best, ..., 17], *dissection.limits(found)[:, 17])

Activations, maps and peaks are numpy arrays; only the edits run inside the generator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxgan.chains import Chain, Edit, check_names

Array = Any

RANGE = (0.01, 0.99)
"""Quantiles of a unit's values between which a heat map runs."""
LEVEL = 0.95
"""Quantile of a unit's values above which it counts as active."""


def zero(chain: Chain, name: str, units: Sequence[int], where: Array = None) -> dict[str, Edit]:
    """``edits`` for ``Chain.run``: these units of layer ``name`` become 0 (ablation).

    Args:
      where: mask [h, w] or [N, h, w] of the layer's size, 0 or False where nothing is done, 1 or True where it is; None: everywhere.

    Raises:
      ValueError: a layer that the chain lacks, a unit that the layer lacks, no unit, or a mask of another size.
    """
    return replace(chain, name, units, 0.0, where)


def keep(chain: Chain, name: str, units: Sequence[int], where: Array = None) -> dict[str, Edit]:
    """As ``zero`` of all other units of the layer: what these units draw alone."""
    units = set(_units(chain, name, units).tolist())
    others = [unit for unit in range(chain.shapes[name][2]) if unit not in units]
    return zero(chain, name, others, where) if others else {}


def replace(chain: Chain, name: str, units: Sequence[int], values: Array, where: Array = None) -> dict[str, Edit]:
    """As ``zero``, but with ``values`` in the place of 0 (insertion).

    Args:
      values: a number, [units], or anything that broadcasts to [N, h, w, units]; for instance another image's activation, or
        ``limits(activations)[1, units]``, what the units reach at their most active.
    """
    import jax.numpy as jnp

    index = _units(chain, name, units)
    height, width, _ = chain.shapes[name]
    if where is not None and np.shape(where)[-2:] != (height, width):
        raise ValueError(f"a mask of shape {np.shape(where)}: {name} is {height} x {width}")
    try:
        np.broadcast_shapes(np.shape(values)[-3:], (height, width, len(index)))
    except ValueError:
        raise ValueError(f"values of shape {np.shape(values)}: they do not fit {len(index)} units of {name}, {height} x {width}") from None

    def edit(activation: Array) -> Array:
        old = activation[..., index]
        new = jnp.broadcast_to(jnp.asarray(values).astype(activation.dtype), old.shape)
        if where is not None:
            share = jnp.asarray(where).astype(activation.dtype)[..., None]
            new = (1 - share) * old + share * new  # exactly the one or the other where the share is 0 or 1
        return activation.at[..., index].set(new)

    return {name: edit}


def together(*edits: Mapping[str, Edit]) -> dict[str, Edit]:
    """Several ``edits`` as one; those of one layer are done one after the other, in this order."""
    found: dict[str, Edit] = {}
    for name, edit in ((name, edit) for some in edits for name, edit in some.items()):
        before = found.get(name)
        found[name] = edit if before is None else (lambda x, first=before, then=edit: then(first(x)))
    return found


def _units(chain: Chain, name: str, units: Sequence[int]) -> np.ndarray:
    check_names(chain, [name])
    index, count = np.atleast_1d(np.asarray(units)), chain.shapes[name][2]
    if not index.size or index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
        raise ValueError(f"units {units!r} of {name}: give one or more numbers from 0 to {count - 1}")
    if (wrong := index[(index < 0) | (index >= count)]).size:
        raise ValueError(f"no unit {wrong[0]} in {name}: it has 0 to {count - 1}")
    return index


def activations(chain: Chain, name: str, latents: Any, *, batch: int = 8, reduce: Callable[[Array], Array] | None = None) -> np.ndarray:
    """float32 [n, h, w, C] of layer ``name`` for latents [n, *chain.latent], ``batch`` images at a time by one compiled program.

    ``reduce``: what to keep of an activation [batch, h, w, C], for instance ``peaks``: [n, ...] of it, where all of it is too much.

    Raises:
      ValueError: a layer that the chain lacks, no latents, or latents of another shape.
    """
    import jax

    check_names(chain, [name])
    latents = np.asarray(latents, np.float32)
    if not latents.size:
        raise ValueError(f"latents of shape {latents.shape}: give at least one image's")

    @jax.jit
    def some(arrays: Any, latents: Array) -> Array:
        found = chain.run(arrays, latents, keep=(name,))[1][name]
        return found if reduce is None else reduce(found)

    size, found = min(batch, len(latents)), []
    for first in range(0, len(latents), size):
        index = np.minimum(np.arange(first, first + size), len(latents) - 1)  # the last block is filled up: one compiled shape
        found.append(np.asarray(some(chain.arrays, latents[index]))[: len(latents) - first])
    return np.concatenate(found)


def peaks(activations: Array) -> Array:
    """Largest value of each unit over the pixels: [n, h, w, C] -> [n, C]."""
    return activations.max((1, 2))


def limits(activations: np.ndarray, quantiles: tuple[float, float] | None = RANGE) -> np.ndarray:
    """Low and high value of each unit over all images and pixels: [n, h, w, C] -> [2, C]; None: the smallest and the largest."""
    return np.quantile(activations, (0.0, 1.0) if quantiles is None else quantiles, axis=(0, 1, 2)).astype(np.float32)


def heat_maps(maps: np.ndarray, low: float, high: float, size: tuple[int, int] | None = None) -> np.ndarray:
    """Maps of a unit [..., h, w] as shares in [0, 1] of the way from ``low`` to ``high``, enlarged to ``size`` (H, W) where it is given."""
    enlarged = enlarge(maps, size)
    return np.clip((enlarged - low) / max(float(high) - float(low), 1e-12), 0, 1).astype(np.float32)


def thresholds(activations: np.ndarray, level: float = LEVEL) -> np.ndarray:
    """For each unit the value that the share ``level`` of its values over all images and pixels do not exceed: [n, h, w, C] -> [C]."""
    return np.quantile(activations, level, axis=(0, 1, 2)).astype(np.float32)


def masks(maps: np.ndarray, threshold: float, size: tuple[int, int] | None = None) -> np.ndarray:
    """bool [..., H, W]: where maps of a unit [..., h, w], enlarged to ``size`` first, are above the threshold."""
    return enlarge(maps, size) > threshold


def enlarge(maps: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Bilinear [..., h, w] -> float32 [..., H, W], pixels taken as squares (half-pixel centres); None: as they are."""
    maps = np.asarray(maps, np.float32)
    for axis, wanted in zip((-2, -1), size or maps.shape[-2:], strict=True):
        there = maps.shape[axis]
        at = np.clip((np.arange(wanted) + 0.5) * there / wanted - 0.5, 0, there - 1)
        below = np.floor(at).astype(int)
        share = (at - below).astype(np.float32).reshape(-1, *[1] * (-axis - 1))
        above = np.minimum(below + 1, there - 1)
        maps = np.take(maps, below, axis) * (1 - share) + np.take(maps, above, axis) * share
    return maps


def top_images(peaks: np.ndarray, unit: int, count: int = 10) -> np.ndarray:
    """Numbers of the images that excite a unit most, of peaks [n, C]; highest first, equal ones in their order. At most n."""
    return np.argsort(-np.asarray(peaks)[:, unit], kind="stable")[:count]


def top_units(peaks: np.ndarray, image: int, count: int = 10, spread: np.ndarray | None = None) -> np.ndarray:
    """Numbers of the units that an image excites most, of peaks [n, C]; highest first.

    ``spread`` [C]: units are compared by peak / spread, for units of a layer differ in scale; ``limits(activations)[1]``, for instance.
    None: by the peaks as they are.
    """
    row = np.asarray(peaks, np.float64)[image]
    return np.argsort(-(row if spread is None else row / np.maximum(spread, 1e-12)), kind="stable")[:count]


def colours(heat: np.ndarray) -> np.ndarray:
    """Shares in [0, 1] as uint8 colours [..., 3]: black, red, yellow, white."""
    return (255 * np.clip(3 * np.asarray(heat, np.float32)[..., None] - np.arange(3, dtype=np.float32), 0, 1)).astype(np.uint8)


def sheet(images: np.ndarray, activations: np.ndarray, unit: int, count: int = 5) -> np.ndarray:
    """The images that excite a unit most, and below each the unit's heat map and the image darkened where the unit is not active.

    Args:
      images: uint8 [n, H, W, 3]. activations: [n, h, w, C], of the same images.

    Returns:
      uint8 picture of three rows and at most ``count`` columns.
    """
    from jaxgan import viz
    from jaxgan.systems.seeing_overlay import highlight

    if len(images) != len(activations):
        raise ValueError(f"{len(images)} images and activations of {len(activations)}: both must be of the same images")
    best, size = top_images(peaks(activations), unit, count), images.shape[1:3]
    maps, (low, high) = activations[best][..., unit], limits(activations[..., unit : unit + 1])[:, 0]
    active = masks(maps, thresholds(activations[..., unit : unit + 1])[0], size)
    shown = [highlight(image, mask) for image, mask in zip(images[best], active, strict=True)]
    return viz.grid(np.concatenate([images[best], colours(heat_maps(maps, low, high, size)), np.stack(shown)]), columns=len(best))
