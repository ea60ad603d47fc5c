"""Searches of layer inversion: what is optimised for each photo, with a generator held fixed, and what comes of it.

Two searches share this form: additive corrections of early layers (``layer_inversion_corrections``) and the latent itself
(``layer_inversion_latents``). Many photos are searched at once, each as it would be alone (``jaxgan.invert``).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgan import invert, invert_files, parallel
from jaxgan.arrays import arrays_checksum
from jaxgan.photos import content_digest
from jaxgan.systems.image2stylegan_codes import photo_keys

if TYPE_CHECKING:
    from jaxgan.chains import Chain

Tree = Any


class Perceptual(NamedTuple):
    """A network whose maps of two images are compared."""

    arrays: Tree
    """Its parameters: an argument of ``maps``."""
    maps: Callable[[Tree, jax.Array], jax.Array]
    """``maps(arrays, images [N, H, W, C]) -> [N, h, w, K]`` for images in [-1, 1]; pure, each image's maps of that image alone."""
    about: Mapping[str, Any] = {}
    """What is recorded of it; part of what a saved search belongs to."""


class Problem(NamedTuple):
    """A search on one generator, ready for any number of batches: its functions are compiled once."""

    name: str
    """'corrections' or 'latents'; the name of the file of a saved search."""
    chain: Chain
    options: Any
    """The frozen dataclass it was made of."""
    loss: invert.Loss
    tx: optax.GradientTransformation
    frozen: Tree
    """The networks' arrays: {'chain', 'perceptual', 'encoder'}."""
    begin: Callable[[Tree, jax.Array, jax.Array, Tree], tuple[Tree, Tree]]
    """``begin(frozen, images [N, H, W, C], latents [N, ...], truth) -> (variables, targets)``, compiled; truth: {} or as for ``search``."""
    show: Callable[[Tree, Tree, Tree], tuple[jax.Array, Tree, Tree, Tree]]
    """``show(variables, frozen, targets) -> (images, latents, corrections, activations)``, compiled; see ``Inverted``."""
    about: Mapping[str, Any]
    """Of the networks, for a saved search."""


class Inverted(NamedTuple):
    """What a method found for N photos. All arrays on the host, of the photos' type; ``history`` float32."""

    method: str
    """'a' to 'f': a key of ``layer_inversion_methods.METHODS``."""
    latents: np.ndarray
    """[N, *latent]: where the images are made from, corrections of the latent included."""
    start: np.ndarray
    """[N, *latent]: what the search began with; where nothing was searched, the same as ``latents``."""
    corrections: dict[str, np.ndarray]
    """{stage or 'z': [N, ...]}: what was added; {} where only a latent was searched."""
    activations: dict[str, np.ndarray]
    """{stage: [N, h, w, C]}: behind their corrections, of the corrected stages and of ``chain.target``."""
    images: np.ndarray
    """[N, H, W, C] in [-1, 1]: the reconstructions."""
    before: np.ndarray
    """[N, H, W, C]: the images of the start."""
    targets: np.ndarray
    """[N, H, W, C]: the photos."""
    history: dict[str, np.ndarray]
    """{'loss' or a part: [rows, N]}: row t before step t + 1, the last after the last step; {} where nothing was searched."""
    kept: np.ndarray
    """int [N]: the row that belongs to what was found; earlier than the last where an image stopped."""
    failed: np.ndarray
    """bool [N]: stopped because a number was not finite; what is held is of the last step before."""


def floats(images: Any, chain: Chain) -> jax.Array:
    """Photos as float32 [N, *chain.image] in [-1, 1]; float64 ones stay so where JAX has that type.

    Raises:
      ValueError: they are of another size, neither uint8 nor floats, not finite, or beyond [-1, 1] by more than rounding.
    """
    images = np.asarray(images)
    if images.ndim != 4 or not len(images) or images.shape[1:] != tuple(chain.image):
        size = " x ".join(map(str, images.shape[1:]))
        raise ValueError(f"photos of {size}; this {chain.family} generator makes {' x '.join(map(str, chain.image))}: resize them first")
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / 127.5 - 1.0
    if not np.issubdtype(images.dtype, np.floating) or not np.isfinite(images).all() or np.abs(images).max() > 1.001:
        raise ValueError(f"photos must be uint8, or finite floats in [-1, 1]; they are {images.dtype} in [{images.min()}, {images.max()}]")
    return jnp.asarray(images, _wide(images.dtype))


def _wide(dtype: Any) -> Any:
    """float64 of itself, under ``jax.enable_x64``; float32 of everything else."""
    return jax.dtypes.canonicalize_dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)


def check_latents(latents: Any, chain: Chain, count: int, dtype: Any = np.float32) -> jax.Array:
    """Latents as `dtype` [count, *chain.latent]; one latent is used for all photos.

    Raises:
      ValueError: another shape, or numbers that are not finite.
    """
    latents = np.asarray(latents, dtype)
    if latents.shape == tuple(chain.latent):
        latents = np.broadcast_to(latents, (count, *chain.latent))
    if latents.shape != (count, *chain.latent) or not np.isfinite(latents).all():
        raise ValueError(f"latents of shape {latents.shape} for {count} photos; finite numbers {[count, *chain.latent]} are needed")
    return jnp.asarray(latents)


def search(
    problem: Problem,
    method: str,
    images: Any,
    latents: Any,
    *,
    truth: Mapping[str, Any] | None = None,
    digests: Sequence[str] | None = None,
    seed: int = 0,
    saved: Path | None = None,
    watch: Callable[[invert.Run, Callable[[], np.ndarray]], bool] | None = None,
    chunk: int = 50,
    save_seconds: float = 60.0,
    mesh: Any = None,
    one_by_one: bool | None = None,
) -> Inverted:
    """Searches for all photos at once, each on its own; from where it was saved, if it was.

    Args:
      problem: from ``prepare`` of the search's module.
      method: its name in the result.
      images: uint8 or float in [-1, 1], [N, *chain.image].
      latents: where it begins, [N, *latent] or one for all.
      truth: for generated photos {'z': latents, chain.target: activation}, as far as known: errors are then recorded, too.
      digests: of the photos' content (hexadecimal); default: of `images`.
      seed: with a photo's digest, the key of its random draws.
      saved: a folder for the state of the search; what is there is gone on with, where it is of the same search.
      watch: ``watch(run, draw)`` after every chunk of steps and at the end; true interrupts. ``draw()`` makes the images.
      chunk: steps between two looks.
      save_seconds: between two states in the folder.
      mesh: its axis 'data' splits the photos; None: all of this process's devices, as many as there are photos.
      one_by_one: as for ``invert.run``.

    Raises:
      ValueError: photos or latents that do not fit; `saved` holds another search. invert_files.Interrupted: `watch` said so.
    """
    chain, frozen = problem.chain, problem.frozen
    digests = digests or [content_digest(np.asarray(image)) for image in images]
    images = floats(images, chain)
    latents = check_latents(latents, chain, len(images), images.dtype)
    truth = {name: jnp.asarray(array, images.dtype) for name, array in (truth or {}).items()}
    variables, targets = problem.begin(frozen, images, latents, truth)
    before = problem.show(variables, frozen, targets)[0]
    run = invert.start(variables, problem.tx, photo_keys(digests, seed))
    options = dataclasses.asdict(problem.options)
    about = {
        "generator": chain.digest,
        "photos": " ".join(digests),
        "seed": str(seed),
        "networks": json.dumps(problem.about, sort_keys=True),
    }
    about |= {name: json.dumps(value) for name, value in {"image": chain.image, **options}.items()}
    about["sha256 of the start"] = arrays_checksum({"latents": np.asarray(latents)})

    def look(now: invert.Run) -> bool:
        return watch is not None and watch(now, lambda: np.asarray(problem.show(now.variables, frozen, targets)[0]))

    run = invert_files.search(
        run,
        problem.loss,
        problem.tx,
        frozen,
        targets,
        steps=problem.options.steps,
        path=saved / f"{problem.name}.safetensors" if saved else None,
        about=about,
        watch=look,
        save_seconds=save_seconds,
        chunk=chunk,
        stop=invert.Stop(problem.options.tolerance, problem.options.patience) if problem.options.tolerance else None,
        mesh=parallel.make_mesh((0, 1), jax.local_devices()[: len(images)]) if mesh is None else mesh,
        one_by_one=one_by_one,
    )
    made, found, corrections, activations = jax.device_get(problem.show(run.variables, frozen, targets))
    kept = np.asarray(run.kept_at)
    return Inverted(
        method=method,
        latents=found,
        start=np.asarray(latents),
        corrections=dict(corrections),
        activations=dict(activations),
        images=made,
        before=np.asarray(before),
        targets=np.asarray(images),
        history={name: np.asarray(rows) for name, rows in run.history.items()},
        kept=np.where(kept < 0, run.step, kept),
        failed=np.asarray(run.status) == invert.FAILED,
    )
