"""The six ways of inverting a photo that Bau et al. (ICCV 2019) set side by side, as functions with one kind of result.

a   the latent, searched from scratch
b   an encoder trained end to end, as it is
c   b, then the latent is searched
d   the layered encoder, as it is
e   d, then the latent is searched
f   d, then corrections of early layers: the method of the paper
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxgan.photos import content_digest
from jaxgan.systems import layer_inversion_corrections as corrections
from jaxgan.systems import layer_inversion_latents as latent_search
from jaxgan.systems.image2stylegan_codes import photo_keys
from jaxgan.systems.layer_inversion_search import Inverted, Perceptual, Problem, check_latents, floats, search

if TYPE_CHECKING:
    from jaxgan.chains import Chain

METHODS: Mapping[str, str] = {
    "a": "direct search of the latent",
    "b": "encoder trained end to end",
    "c": "encoder trained end to end, then the latent",
    "d": "layered encoder",
    "e": "layered encoder, then the latent",
    "f": "layered encoder, then corrections of layers",
}
SEARCHES = {"a": "latents", "c": "latents", "e": "latents", "f": "corrections"}
"""What is searched for each photo."""


def prepare(
    method: str,
    chain: Chain,
    *,
    encoder: Any = None,
    perceptual: Perceptual | None = None,
    corrections_options: corrections.Options | None = None,
    latents_options: latent_search.Options | None = None,
) -> Problem | None:
    """The search of a method, compiled once for any number of batches; None for 'b' and 'd', which search nothing.

    Args:
      method: a key of ``METHODS``.
      chain: from ``chains.open_chain``.
      encoder: the layered one for d, e and f, the one trained end to end for b and c; see ``encode``. For f None is allowed.
      perceptual: from ``corrections.open_perceptual``.

    Raises:
      ValueError: an unknown method, an encoder that is missing, options that do not fit.
    """
    check(method, encoder)
    if method == "f":
        return corrections.prepare(chain, corrections_options, perceptual=perceptual, encoder=encoder)
    if method in SEARCHES:
        return latent_search.prepare(chain, latents_options, perceptual=perceptual, encoder=None if method == "a" else encoder)
    return None


def check(method: str, encoder: Any) -> None:
    """ValueError where the method is unknown, or needs an encoder that is not there."""
    if method not in METHODS:
        raise ValueError(f"method {method!r} is not one of {', '.join(METHODS)}")
    if encoder is None and method in "bcde":
        raise ValueError(f"method {method} ({METHODS[method]}) begins with an encoder: give one, or take method a or f")


def start_latents(method: str, chain: Chain, images: Any, encoder: Any, digests: Sequence[str], seed: int) -> np.ndarray:
    """Where a method begins, [N, *chain.latent]: a's random draw of each photo, the encoder's estimate, or the mean latent."""
    images = floats(images, chain)
    if method == "a":
        keys = photo_keys(digests, seed)
        normal = jax.vmap(lambda key: jax.random.normal(key, (chain.normal_size,)))(keys)
        return np.asarray(jax.jit(chain.draw)(chain.arrays, normal))
    if encoder is None:
        return np.broadcast_to(np.asarray(chain.mean(chain.arrays)), (len(images), *chain.latent))
    return encode(chain, encoder, images)[corrections.LATENT]


def encode(chain: Chain, encoder: Any, images: Any) -> dict[str, np.ndarray]:
    """{'z': [N, *chain.latent], stage: activation} as the encoder estimates them of photos [N, *chain.image].

    ``encoder``: ``arrays`` and ``encode(arrays, images) -> {...}`` with its networks' running statistics, so that each photo is alone.
    """
    found = _encoder(encoder.encode)(encoder.arrays, floats(images, chain))
    return {name: np.asarray(array) for name, array in found.items()}


_encoder = functools.lru_cache(8)(jax.jit)
"""Compiled once for any number of batches, as ``_decoder``."""


@functools.lru_cache(8)
def _decoder(run: Any, target: str) -> Any:
    return jax.jit(lambda arrays, latents: run(arrays, latents, keep=(target,)))


def invert(
    method: str,
    chain: Chain,
    images: Any,
    *,
    problem: Problem | None = None,
    encoder: Any = None,
    start: Any = None,
    digests: Sequence[str] | None = None,
    seed: int = 0,
    truth: Mapping[str, Any] | None = None,
    saved: Path | None = None,
    **options: Any,
) -> Inverted:
    """Photos by one method.

    Args:
      method: a key of ``METHODS``.
      chain: from ``chains.open_chain``.
      images: uint8 or float in [-1, 1], [N, *chain.image].
      problem: from ``prepare`` of the same method, chain and encoder; None only for b and d.
      encoder: as for ``prepare``.
      start: latents [N, *chain.latent] (or one) in the place of the method's own.
      digests: of the photos' content, for random draws; default: of `images`.
      seed: of random draws.
      truth, saved, options (watch, chunk, save_seconds, mesh, one_by_one): as for ``layer_inversion_search.search``.

    Raises:
      ValueError: photos of another size, what does not fit. invert_files.Interrupted: `watch` said so.
    """
    check(method, encoder)
    if (problem is None) == (method in SEARCHES):
        raise ValueError(f"method {method} {'searches: give the problem that prepare makes' if problem is None else 'searches nothing'}")
    digests = digests or [content_digest(np.asarray(image)) for image in images]
    latents = start_latents(method, chain, images, encoder, digests, seed) if start is None else start
    if problem is None:
        return decode(method, chain, images, latents)
    return search(problem, method, images, latents, truth=truth, digests=digests, seed=seed, saved=saved, **options)


def decode(method: str, chain: Chain, images: Any, latents: Any) -> Inverted:
    """What a method that searches nothing gives: the images of `latents`, with no corrections and no history."""
    images = floats(images, chain)
    latents = check_latents(latents, chain, len(images))
    made, kept = jax.device_get(_decoder(chain.run, chain.target)(chain.arrays, latents))
    latents, count = np.asarray(latents), len(images)
    nothing = (np.zeros(count, int), np.zeros(count, bool))
    return Inverted(method, latents, latents, {}, dict(kept), made, made, np.asarray(images), {}, *nothing)
