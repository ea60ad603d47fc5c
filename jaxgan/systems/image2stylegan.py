"""Image2StyleGAN: photos as codes of a style-based generator, found by descent (Abdal, Qin, Wonka, ICCV 2019, arXiv:1904.03189).

    w* = argmin_w  sum_j weight_j / N_j |F_j(G(w)) - F_j(photo)|^2 + mse / N |G(w) - photo|^2

with F_j the maps of VGG-16, N_j and N their numbers of scalars. Three methods share one optimiser (``jaxgan.invert``): the paper's, the
projector published with StyleGAN2-ADA (``image2stylegan_projector``), and Image2StyleGAN++ (``image2stylegan_plus``), which goes on with
the noise maps. Read from top to bottom: the networks, the stages of a method, ``embed``; spaces and starts are ``image2stylegan_codes``.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgan import invert, invert_files, parallel, perceptual
from jaxgan.arrays import arrays_checksum
from jaxgan.nets import vgg
from jaxgan.photos import content_digest
from jaxgan.style_generators import StyleGenerator, check_resolution
from jaxgan.systems import image2stylegan_plus as plus
from jaxgan.systems import image2stylegan_projector as projector
from jaxgan.systems.image2stylegan_codes import (
    check_space,
    codes_of,
    photo_keys,
    scaled_noise,
    start_noise,
    start_of,
    unit_noise,
)
from jaxgan.systems.image2stylegan_options import Options, learning_rates

Tree = Any

Interrupted = invert_files.Interrupted
"""What ``embed`` raises when it is told to stop."""


class Networks(NamedTuple):
    """What photos are compared by."""

    vgg: Tree = None
    """``vgg.params``; None: there is none, which a loss of pixels alone allows."""
    lpips: Tree = None
    """``lpips.params``; needed by the projector, else for the measured distance alone."""
    normalisation: str = "torchvision"
    """What the VGG expects, a key of ``perceptual.NORMALISATIONS``."""
    about: Mapping[str, Any] = {}
    """What is recorded of them."""


def open_networks(options: Options, path: Any = None) -> Networks:
    """VGG-16 (a file `path`, or the named weights 'vgg16') and LPIPS, as far as ``options`` (resolved) need them or they are there.

    Raises:
      FileNotFoundError, ValueError: weights that the loss needs are absent or wrong.
    """
    from jaxgan import weights
    from jaxgan.metrics import lpips

    judge = options.method == "projector"
    try:
        arrays, about = weights.load("vgg16", path), weights.about("vgg16", path)
    except FileNotFoundError:
        if path is not None or judge or options.perceptual_weight or options.style_weight:
            raise
        return Networks(about={"vgg": None, "lpips": "not measured: VGG-16 is not on this machine"})
    facts: dict[str, Any] = {"vgg": {key: about[key] for key in ("sha256", "preprocessing", "numbers") if key in about}}
    linear, why = None, ""
    try:
        if about["preprocessing"] != "torchvision":
            raise ValueError("LPIPS is defined on torchvision's VGG-16, and other weights were given")
        linear = lpips.params(arrays, weights.load("lpips"))
    except (FileNotFoundError, ValueError) as error:
        if judge:
            raise
        why = f"not measured: {error}"
    return Networks(vgg.params(arrays), linear, about["preprocessing"], facts | {"lpips": why or "v0.1 on VGG-16"})


class Stage(NamedTuple):
    """A search for some variables, with others held."""

    name: str
    """'pixels', 'codes' or 'noise'."""
    steps: int
    loss: invert.Loss
    tx: optax.GradientTransformation
    after: Callable[[Tree, jax.Array], Tree] | None
    images: Callable[[Tree, Tree, Tree], jax.Array]
    """``images(variables, frozen, targets) -> [N, r, r, 3]``, compiled; what the variables stand for, without any noise on the code."""
    best: bool = False
    """What is found is where the loss was lowest, in the place of where the search ended."""


class Problem(NamedTuple):
    """A method on one generator, ready for any number of batches: its functions are compiled once."""

    options: Options
    side: int
    """Of the images that are compared."""
    frozen: Tree
    """{'generator', 'vgg', 'lpips', 'noise', 'noise_scale', 'mean', 'deviation'}."""
    stages: tuple[Stage, ...]
    targets: Callable[..., Tree]
    """``targets(frozen, images [N, R, R, 3], mask, other) -> pytree``, compiled; mask and other may be None."""
    networks: Networks


def prepare(generator: StyleGenerator, options: Options, networks: Networks) -> Problem:
    """The stages of a method.

    Raises:
      ValueError: options that do not go with the generator or with each other; a network that the loss needs is missing.
    """
    options = options.resolved()
    check_space(generator, options.space)
    side = check_resolution(generator, options.resolution)
    loss = perceptual_options(options, side, networks)
    is_projector = options.method == "projector"
    if networks.vgg is None and (loss.taps or options.style_weight):
        raise ValueError("the loss compares maps of VGG-16, and there is none: give its file with --vgg, or --perceptual-weight 0")
    if is_projector and networks.lpips is None:
        raise ValueError("the projector compares by LPIPS, whose weights are missing: `jaxgan weights import lpips FILE`")
    both = plus.losses(loss, options.outside_weight, options.style_weight, _tap(options, options.style_tap))

    def draw(arrays: Tree, codes: jax.Array, noise: Tree) -> jax.Array:
        return perceptual.resize(generator.synthesise(arrays, codes, noise), side)

    def make_targets(frozen: Tree, images: jax.Array, mask: Any, other: Any) -> Tree:
        images = perceptual.resize(images, side)
        if is_projector:
            return projector.targets(frozen, images, loss)
        mask = None if mask is None else perceptual.resize(mask, side)[..., 0]
        return plus.targets(frozen["vgg"], images, mask, None if other is None else perceptual.resize(other, side), both)

    def codes_loss(
        both: plus.Losses, variables: Tree, frozen: Tree, targets: Tree, step: jax.Array, keys: jax.Array
    ) -> tuple[jax.Array, dict]:
        code = variables["code"]
        if is_projector:
            deviation = projector.code_deviation(step, options.steps, frozen["deviation"], options.code_noise)
            code = code + deviation * jax.vmap(lambda key: jax.random.normal(key, code.shape[1:]))(keys)
        codes = codes_of(generator, options.space, frozen["generator"], code)
        images = draw(frozen["generator"], codes, _noise(variables, frozen, targets))
        if is_projector:
            total, parts = projector.compare(frozen, images, targets, loss, options.perceptual_weight, options.mse_weight)
        else:
            total, parts = plus.compare(frozen["vgg"], images, targets, both)
        if options.mean_weight:
            parts["mean"] = jnp.square(codes - frozen["mean"]).mean((1, 2))
            total = total + options.mean_weight * parts["mean"]
        if variables.get("noise"):
            parts["noise"] = projector.noise_regulariser(variables["noise"])
            total = total + options.noise_weight * parts["noise"]
        return total, parts

    def noise_loss(variables: Tree, frozen: Tree, targets: Tree, step: jax.Array, keys: jax.Array) -> tuple[jax.Array, dict]:
        images = draw(frozen["generator"], targets["code"], _noise(variables, frozen, targets))
        return plus.compare({}, images, targets, plus.pixels(both))

    @jax.jit
    def coded(variables: Tree, frozen: Tree, targets: Tree) -> jax.Array:
        codes = codes_of(generator, options.space, frozen["generator"], variables["code"])
        return draw(frozen["generator"], codes, _noise(variables, frozen, targets))

    @jax.jit
    def noised(variables: Tree, frozen: Tree, targets: Tree) -> jax.Array:
        return draw(frozen["generator"], targets["code"], _noise(variables, frozen, targets))

    tx = optax.lbfgs() if options.optimiser == "lbfgs" else optax.adam(learning_rates(options, options.steps))
    after = (lambda variables, keys: variables | {"noise": projector.renormalise(variables["noise"])}) if is_projector else None
    stages = [Stage("codes", options.steps, functools.partial(codes_loss, both), tx, after, coded)]
    if options.pixel_steps:
        first = tx if options.optimiser == "lbfgs" else optax.adam(learning_rates(options, options.pixel_steps))
        loss_of_pixels = functools.partial(codes_loss, plus.pixels(both))
        stages.insert(0, Stage("pixels", options.pixel_steps, loss_of_pixels, first, None, coded))
    stored = generator.noise(generator.arrays)
    if options.noise_steps and stored:
        tx = optax.adam(options.noise_learning_rate)  # its large steps may lead away, so the best maps count: at worst the first
        stages.append(Stage("noise", options.noise_steps, noise_loss, tx, None, noised, best=True))
    frozen = {"generator": generator.arrays, "noise": stored, "mean": generator.w_avg(generator.arrays)}
    frozen["noise_scale"] = {name: jnp.asarray(scale) for name, scale in generator.noise_scale(generator.arrays).items()}
    seen = loss.size or side
    frozen |= {"vgg": vgg.freeze(networks.vgg, seen) if loss.taps or options.style_weight else {}}
    if is_projector:
        mean, deviation = projector.mean_and_deviation(generator)
        judge = {**networks.lpips, "vgg": vgg.freeze(networks.lpips["vgg"], min(side, 256))}
        frozen |= {"lpips": judge, "mean": jnp.asarray(mean), "deviation": jnp.asarray(deviation)}
    return Problem(options, side, frozen, tuple(stages), jax.jit(make_targets), networks)


def perceptual_options(options: Options, side: int, networks: Networks) -> perceptual.Options:
    """The loss of ``options`` (resolved) between images of this side."""
    taps = tuple(_tap(options, tap) for tap in options.taps) if options.perceptual_weight else ()
    return perceptual.Options(
        taps=taps,
        weights=(options.perceptual_weight,) * len(taps),
        mse=1.0 if options.method == "projector" else options.mse_weight,  # the projector takes size and kernel alone from here
        mse_range=options.mse_range,
        normalisation=options.normalisation or networks.normalisation,
        kernel=options.resize_kernel,
        size=options.perceptual_size if side > options.perceptual_size else None,
    )


def _tap(options: Options, layer: str) -> str:
    return layer if options.pre_relu else f"relu{layer[4:]}"


def _noise(variables: Tree, frozen: Tree, targets: Tree) -> Tree:
    """The noise maps: those optimised (of mean square 1, as the steps suppose), those a start brought along, or the generator's own."""
    if variables.get("noise"):
        return scaled_noise(variables["noise"], frozen["noise_scale"])
    return targets.get("noise") or frozen["noise"]


class Embedded(NamedTuple):
    """What was found for N photos; r is the side at which they were compared. All on the host."""

    codes: np.ndarray
    """float32 [N, rows, W]."""
    latents: np.ndarray
    """The same in the space searched: [N, Z], [N, W] or [N, rows, W]."""
    noise: dict[str, np.ndarray] | None
    """{name: float32 [N, side, side]} where it is not the generator's stored noise."""
    images: np.ndarray
    """float32 [N, r, r, 3]."""
    targets: np.ndarray
    """float32 [N, r, r, 3], what they were compared with."""
    before: np.ndarray
    """float32 [N, r, r, 3], the images of the start."""
    history: tuple[tuple[str, dict[str, np.ndarray]], ...]
    """(stage, {'loss' or a part: [rows, N]}) in order; row t before step t + 1, the last after the last step."""
    kept: tuple[np.ndarray, ...]
    """For each stage the rows of its history [N] that belong to what was found: earlier than the last where an image stopped, and in the
    stage 'noise' where its loss was lowest."""
    failed: np.ndarray
    """bool [N]: stopped because a number was not finite."""


def embed(
    generator: StyleGenerator,
    images: np.ndarray,
    options: Options | None = None,
    *,
    networks: Networks | None = None,
    problem: Problem | None = None,
    digests: Sequence[str] | None = None,
    start: Mapping[str, Any] | None = None,
    mask: np.ndarray | None = None,
    other: np.ndarray | None = None,
    saved: Path | None = None,
    watch: Callable[[Stage, invert.Run, Callable[[], np.ndarray]], bool] | None = None,
    chunk: int = 10,
    save_seconds: float = 60.0,
) -> Embedded:
    """Codes of photos, all searched at once, each on its own.

    Args:
      generator: from ``style_generators.open_style_generator``.
      images: the photos, uint8 or float in [-1, 1], [N, R, R, 3] at the generator's size.
      options: see ``Options``; its batch, crop, filter and film are not read here.
      networks: from ``open_networks``; None reads them.
      problem: from ``prepare``, in the place of options and networks, so that several calls share what is compiled.
      digests: of the photos' content (hexadecimal), for random draws; default of `images`.
      start: {'code': [N, rows, W], 'noise': {name: [N, side, side]} or absent}, for the starts 'codes:' and 'run:'.
      mask: [N, R, R, 1] in [0, 1], where the photo counts (image2stylegan++); None: everywhere.
      other: as `images`: what counts outside the mask; needs a mask.
      saved: a folder for the state of the search; what is there is gone on with, where it is of the same search.
      watch: ``watch(stage, run, draw)`` after every chunk of steps and at a stage's end; true interrupts. ``draw()`` makes the images.
      chunk: steps between two looks.
      save_seconds: between two states in the folder `saved`; one more is written when `watch` interrupts.

    Raises:
      ValueError: images of another size, options that do not fit; `saved` holds another search. Interrupted: `watch` said so.
    """
    if problem is None:
        options = (options or Options()).resolved()
        problem = prepare(generator, options, networks if networks is not None else open_networks(options))
    options, frozen = problem.options, problem.frozen
    images = _floats(images, generator, "images")
    if other is not None:
        other = _floats(other, generator, "other")
    if (mask is not None or other is not None) and options.method != "image2stylegan++":
        raise ValueError(f"masks belong to the method image2stylegan++, not to {options.method}")
    if mask is None and (other is not None or options.outside_weight or options.style_weight):
        raise ValueError("what counts outside the mask needs a mask: give one for every photo (--mask FOLDER)")
    if other is None and (options.outside_weight or options.style_weight):
        raise ValueError("outside_weight and style_weight compare with another image: give one for every photo (--other FOLDER)")
    digests = digests or [content_digest(image) for image in images]
    about = _about(generator, problem, digests, start, mask, other) if saved else {}
    keys = photo_keys(digests, options.seed)
    targets = problem.targets(frozen, images, None if mask is None else jnp.asarray(mask, jnp.float32), other)
    variables = {"code": start_of(generator, options, keys, frozen["mean"], start)}
    if options.method == "projector":
        variables["noise"] = start_noise(generator, keys, start)
    elif start and start.get("noise"):
        targets["noise"] = {name: jnp.asarray(array, jnp.float32) for name, array in start["noise"].items()}
    before = np.asarray(problem.stages[0].images(variables, frozen, targets))
    mesh = parallel.make_mesh((0, 1), jax.local_devices()[: len(images)])
    history, kept, failed = [], [], np.zeros(len(images), bool)
    for stage in problem.stages:
        if stage.name == "noise":
            noise = unit_noise(_noise(variables, frozen, targets), frozen["noise_scale"])
            fresh = {name: jnp.broadcast_to(array, (len(images), *array.shape[-2:])) for name, array in noise.items()}
            targets["code"] = codes_of(generator, options.space, frozen["generator"], variables["code"])
            found = _search(stage, options, {"noise": fresh}, frozen, targets, keys, mesh, saved, about, watch, chunk, save_seconds)
        else:
            found = _search(stage, options, variables, frozen, targets, keys, mesh, saved, about, watch, chunk, save_seconds)
        variables |= found.best if stage.best else found.variables
        history.append((stage.name, {name: np.asarray(rows) for name, rows in found.history.items()}))
        rows = np.asarray(found.kept_at)
        if stage.best:
            rows = np.where(np.asarray(found.best_at) < 0, rows, found.best_at)
        kept.append(np.where(rows < 0, found.step, rows))
        failed |= np.asarray(found.status) == invert.FAILED
    codes = codes_of(generator, options.space, frozen["generator"], variables["code"])
    noise = _noise(variables, frozen, targets) if variables.get("noise") or targets.get("noise") else None
    return Embedded(
        codes=np.asarray(codes),
        latents=np.asarray(variables["code"]),
        noise={name: np.asarray(array) for name, array in noise.items()} if noise else None,
        images=np.asarray(problem.stages[0].images(variables, frozen, targets)),
        targets=np.asarray(targets["image"]),
        before=before,
        history=tuple(history),
        kept=tuple(kept),
        failed=failed,
    )


def _about(generator, problem, digests, start, mask, other) -> dict[str, str]:
    """Which search a saved state belongs to: all that its numbers hang on."""
    options = {
        name: json.dumps(value) for name, value in problem.options.as_json().items() if name not in ("batch", "crop", "filter", "film")
    }
    given = {"codes": None if start is None else {"code": start["code"], **(start.get("noise") or {})}}
    given |= {name: None if array is None else {"": array} for name, array in (("mask", mask), ("other", other))}
    companions = {
        f"sha256 of the given {name}": "none" if arrays is None else arrays_checksum({key: np.asarray(a) for key, a in arrays.items()})
        for name, arrays in given.items()
    }
    networks = json.dumps(dict(problem.networks.about), sort_keys=True)
    return {"generator": generator.digest, "photos": " ".join(digests), "networks": networks, **options, **companions}


def _search(stage, options, variables, frozen, targets, keys, mesh, saved, about, watch, chunk, save_seconds) -> invert.Run:
    """One stage, from where it was saved or from `variables`."""

    def look(now: invert.Run) -> bool:
        return watch is not None and watch(stage, now, lambda: np.asarray(stage.images(now.variables, frozen, targets)))

    return invert_files.search(
        invert.start(variables, stage.tx, keys, keep_best=stage.best),
        stage.loss,
        stage.tx,
        frozen,
        targets,
        steps=stage.steps,
        path=saved / f"{stage.name}.safetensors" if saved else None,
        about=about,
        watch=look,
        save_seconds=save_seconds,
        chunk=chunk,
        stop=invert.Stop(options.tolerance, options.patience) if options.tolerance else None,
        after=stage.after,
        mesh=mesh,
    )


def _floats(images: Any, generator: StyleGenerator, what: str) -> jax.Array:
    images = np.asarray(images)
    side = generator.resolution
    if images.ndim != 4 or not len(images) or images.shape[1:] != (side, side, 3):
        raise ValueError(f"{what} of shape {images.shape}; this generator takes [N, {side}, {side}, 3]")
    if images.dtype == np.uint8:
        images = images.astype(np.float32) / 127.5 - 1.0
    if not np.issubdtype(images.dtype, np.floating) or not np.isfinite(images).all():
        raise ValueError(f"{what} must be uint8, or finite floats in [-1, 1]; they are {images.dtype}")
    return jnp.asarray(images, jnp.float32)
