"""Images around an inversion: a generator's own, smaller ones to compare, whole ones again, and their label maps."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxgan import perceptual
from jaxgan.chains import Chain
from jaxgan.generators import quantise
from jaxgan.segmenters import BATCH, Segmenter, resize
from jaxgan.systems import layer_inversion_codes as codes
from jaxgan.systems.layer_inversion_search import Inverted


def at_resolution(chain: Chain, resolution: int | None) -> Chain:
    """The chain with images [N, r, r, C], the means over squares of pixels, or itself; not square images keep their proportions.

    Args:
      resolution: the shorter side.

    Raises:
      ValueError: it does not divide the generator's.
    """
    least = min(chain.image[:2])
    if resolution is None or resolution == least:
        return chain
    if resolution < 1 or least % resolution:
        raise ValueError(f"--resolution {resolution} does not divide the {least} px of this generator")
    size = tuple(side * resolution // least for side in chain.image[:2])

    def run(arrays: Any, latents: Any, **keywords: Any) -> Any:
        images, kept = chain.run(arrays, latents, **keywords)
        return perceptual.resize(images, size), kept

    return chain._replace(image=(*size, chain.image[2]), run=run)


def generated(chain: Chain, count: int, seed: int) -> dict[str, tuple[np.ndarray, dict[str, np.ndarray]]]:
    """By name `count` images of the chain, uint8 [H, W, C], and {'z': latent, chain.target: activation} of each; a function of the seed."""
    draw, found = _drawing_own(chain.draw, chain.run, chain.target), {}
    for number in range(count):
        normal = jax.random.normal(jax.random.fold_in(jax.random.key(seed), number), (1, chain.normal_size))
        images, latents, kept = jax.device_get(draw(chain.arrays, normal))
        found[f"generated-{number:04d}"] = (quantise(images)[0], {codes.LATENT: latents[0], chain.target: kept[chain.target][0]})
    return found


@functools.lru_cache(4)
def _drawing_own(draw: Any, run: Any, target: str) -> Any:
    """``(arrays, normal [N, Z]) -> (images, latents, {target: activation})``, compiled once for a generator."""

    def made(arrays: Any, normal: jax.Array) -> Any:
        latents = draw(arrays, normal)
        images, kept = run(arrays, latents, keep=(target,))
        return images, latents, kept

    return jax.jit(made)


def whole_images(chain: Chain, small: Chain, found: Inverted) -> np.ndarray:
    """uint8 [N, H, W, 3] at the generator's size: those found, or drawn again one by one where the search compared smaller ones."""
    if small is chain:
        return quantise(found.images)
    draw = _drawing(chain.run)
    images = []
    for i in range(len(found.latents)):
        added = {name: array[i : i + 1] for name, array in found.corrections.items()}
        images.append(quantise(jax.device_get(draw(chain.arrays, found.latents[i : i + 1], added)))[0])
    return np.stack(images)


@functools.lru_cache(4)
def _drawing(run: Any) -> Any:
    """``codes.draw`` compiled once for a generator."""
    return jax.jit(functools.partial(codes.draw, run))


def label(segmenter: Segmenter, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """int32 [h, w] of each image uint8 [H, W, 3]: of the whole image, resized to what the segmenter wants."""
    seen = [image if segmenter.size is None else resize(image, segmenter.size) for image in images]
    maps: list[np.ndarray] = []
    for first in range(0, len(seen), BATCH):
        found = np.asarray(segmenter.label(np.stack(seen[first : first + BATCH])))
        if found.ndim != 3 or len(found) != len(seen[first : first + BATCH]) or found.dtype.kind not in "iu":
            raise ValueError(f"the segmenter {segmenter.name} gives {found.dtype} {found.shape}; it must give integers [N, h, w]")
        maps += list(found.astype(np.int32))
    return maps
