"""`jaxgan embed`: photos in batches, from the first check to the sheet; the same command goes on where it was stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgan import code_files, files, invert, marks, pairs, stopping
from jaxgan import photos as reading
from jaxgan.photos import CHANGED, Photo
from jaxgan.progress import bar
from jaxgan.style_generators import StyleGenerator, open_style_generator, renderer
from jaxgan.systems import image2stylegan as method
from jaxgan.systems import image2stylegan_files as output
from jaxgan.systems import image2stylegan_sheet as pictures
from jaxgan.systems.image2stylegan_codes import given_codes
from jaxgan.systems.image2stylegan_options import Options

CHUNK = 10
"""Steps between two looks at ^C on a CPU, where a step of a large generator takes seconds; elsewhere five times as many."""
LPIPS_SIDE = 256
"""LPIPS is measured at most at this side, by means over pixels."""
FRAMES = 150
"""Most pictures in a stage of a film."""
SAVE_SECONDS = 60.0


def run(
    generator: Any,
    images: Sequence[Any],
    out: Any,
    options: Options,
    *,
    vgg: Any = None,
    mask: Any = None,
    other: Any = None,
    skip_bad: bool = False,
    networks: method.Networks | None = None,
    check_alignment: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Embeds photos and writes the folder `out`, see ``image2stylegan_files``; returns what embed.json holds.

    Args:
      generator: a generator folder or workdir, or a ``StyleGenerator``.
      images: files and folders.
      out: a new folder, or one in which the same run was stopped.
      vgg: file of VGG-16; default the named weights. networks: in its place.
      mask, other: folders with a file of each photo's name (image2stylegan++).
      skip_bad: leave out photos that cannot be read, and list them; else one of them is an error.
      check_alignment: warn of faces that do not lie where those of FFHQ do.
      say: told what happens, for people.

    Raises:
      ValueError, FileNotFoundError, OSError: before anything is written. image2stylegan.Interrupted: ^C; the state is saved.
    """
    options = options.resolved()
    place = files.local_folder(out)
    style = generator if isinstance(generator, StyleGenerator) else open_style_generator(generator)
    found = reading.find(images, output.RESERVED)
    photos, rejects = reading.accept(found, (style.resolution, style.resolution), options, skip_bad)
    masks = reading.companions(mask, photos, "mask") if mask is not None else None
    others = reading.companions(other, photos, "other") if other is not None else None
    starts = _starts(style, options, photos)
    networks = networks if networks is not None else method.open_networks(options, vgg)
    problem = method.prepare(style, options, networks)
    _check_companions(options, masks, others)
    about = {
        "format": output.FORMAT,
        "program": _program(),
        "state": "unfinished",
        "generator": {"path": str(generator) if style is not generator else "", **_facts(style)},
        "options": options.as_json(),
        "networks": dict(networks.about),
        "side": problem.side,
        "lpips_side": min(problem.side, LPIPS_SIDE),
        "photos": [{"name": p.name, "path": str(p.path), "sha256": p.digest, "size": list(p.size)} for p in photos],
        "companions": {"mask": _digests(masks), "other": _digests(others), "start": None if starts is None else list(starts.digests)},
        "rejects": rejects,
        "warnings": [],
        "table": [],
    }
    earlier = output.check(place, about, *_sizes(style, problem, len(photos), starts is not None and starts.with_noise))
    if earlier is not None and earlier["state"] == "finished" and all(output.is_done(place, photo, style) for photo in photos):
        say(f"{place}: already finished")
        return earlier
    for path, why in rejects.items():
        say(f"left out: {path}: {why}")
    about["warnings"] = list(earlier["warnings"]) if earlier is not None else []
    if check_alignment:
        from jaxgan.systems.image2stylegan_alignment import warnings_of

        about["warnings"] = warnings_of(photos, options)
        for line in about["warnings"]:
            say(f"warning: {line}")
    marks.write(place, output.KIND, about)
    groups = marks.groups(photos, options.batch)
    with stopping.Stop() as stop:
        for number, group in enumerate(groups):
            if not all(output.is_done(place, photo, style) for photo in group):
                index = [photos.index(photo) for photo in group]
                _embed_group(
                    place, style, problem, group,
                    None if starts is None else _load_starts(style, starts, index),
                    None if masks is None else [(masks[i], about["companions"]["mask"][i]) for i in index],
                    None if others is None else [(others[i], about["companions"]["other"][i]) for i in index],
                    f"batch {number + 1} of {len(groups)}", stop, say,
                )  # fmt: skip
            marks.forget(place, group)
    return output.finish(place, about, photos, style)


def _embed_group(place, style, problem, group, start, masks, others, title, stop, say) -> None:
    options = problem.options
    side = style.resolution
    images = np.stack([reading.read_again(photo, (side, side), options) for photo in group])
    mask = None if masks is None else np.stack([_companion(one, side, options, 1) for one in masks]) / np.float32(255)
    other = None if others is None else np.stack([_companion(one, side, options) for one in others])
    saved = marks.group_folder(place, group)
    clock = marks.Clock(saved / "seconds.json")
    total = sum(stage.steps for stage in problem.stages)
    shown = [0]
    every = {stage.name: max(1, stage.steps // FRAMES) for stage in problem.stages}
    chunk = min([CHUNK if jax.default_backend() == "cpu" else 5 * CHUNK, *(every.values() if options.film else ())])
    before = {stage.name: sum(s.steps for s in problem.stages[:k]) for k, stage in enumerate(problem.stages)}
    with bar(f"{title}, steps", total) as advance:

        def watch(stage: method.Stage, now: invert.Run, draw: Callable[[], np.ndarray]) -> bool:
            done = before[stage.name] + now.step
            advance(done - shown[0])
            shown[0] = done
            if options.film and (now.step % (-(-every[stage.name] // chunk) * chunk) == 0 or now.step == stage.steps):
                _write_frame(saved, stage.name, now.step, draw())
            if clock.due():
                loss = now.history["loss"][-1]
                say(f"{title}, {stage.name}: step {now.step:,} of {stage.steps:,}, loss {np.mean(loss):.4g}, {clock.total():.0f} s")
            clock.write()
            return now.step < stage.steps and stop(now.step)

        found = method.embed(
            style, images, problem=problem, digests=[photo.digest for photo in group], start=start, mask=mask, other=other,
            saved=saved, watch=watch, chunk=chunk, save_seconds=SAVE_SECONDS,
        )  # fmt: skip
    mean = np.asarray(problem.frozen["mean"])
    distances = _lpips(problem, found)
    full = renderer(style, batch=1)
    for i, photo in enumerate(group):
        result = output.numbers(found, i, mean, distances[i], clock.total() / len(group))
        about = code_files.about_generator(
            style, space=options.space, method=options.method, options=options.as_json(), networks=dict(problem.networks.about),
            side=problem.side, photo={"name": photo.name, "sha256": photo.digest}, result=result,
        )  # fmt: skip
        whole = None
        if problem.side < style.resolution:
            noise = None if found.noise is None else {name: array[i : i + 1] for name, array in found.noise.items()}
            whole = full(found.codes[i : i + 1], noise)[0]
        frames = [np.load(path)[i] for path in sorted(saved.glob("frame-*.npy"))] if options.film else []
        output.write_photo(place, photo, found, i, about, whole, frames)


def _write_frame(saved: Path, stage: str, step: int, images: np.ndarray) -> None:
    import io

    from jaxgan import viz

    buffer = io.BytesIO()
    np.save(buffer, np.stack([pictures.shrink(image) for image in viz.to_uint8(images)]))
    files.write_atomic(saved / f"frame-{0 if stage == 'codes' else 1}-{step:08d}.npy", buffer.getvalue())


def _lpips(problem: method.Problem, found: method.Embedded) -> list[tuple[float | None, float | None]]:
    """LPIPS of start and result of each image to its photo, as they are written; None where there is no such network."""
    count, side = len(found.images), min(problem.side, LPIPS_SIDE)
    if problem.networks.lpips is None or side < 16:
        return [(None, None)] * count

    values = [pairs.stored_lpips(problem.networks.lpips, found.targets, images, side) for images in (found.before, found.images)]
    return [(float(a), float(b)) for a, b in zip(*values, strict=True)]


def _check_companions(options: Options, masks: Any, others: Any) -> None:
    if (masks is not None or others is not None) and options.method != "image2stylegan++":
        raise ValueError(f"--mask and --other belong to --method image2stylegan++, not to {options.method}")
    compared = options.outside_weight or options.style_weight
    if masks is None and (others is not None or compared):
        raise ValueError("what counts outside the mask needs a mask for every photo: name their folder with --mask")
    if bool(compared) != (others is not None):
        raise ValueError("--other names images that count outside the mask: give it together with --outside-weight or --style-weight")


def _companion(named: tuple[Path, str], side: int, options: Options, channels: int = 3) -> np.ndarray:
    """A mask or other image; ValueError where the file is no longer the one of the sha256 that the run has recorded."""
    from jaxgan.arrays import checksum

    path, digest = named
    pixels = reading.read(path, (side, side), options, channels)[0]
    if checksum(path) != digest:
        raise ValueError(f"{path} {CHANGED}")
    return pixels


class _Starts(NamedTuple):
    """The codes to start from, one for each photo; they were read once and are read again when their batch is searched."""

    paths: list[Path]
    digests: list[str]
    with_noise: bool


def _starts(style: StyleGenerator, options: Options, photos: Sequence[Photo]) -> _Starts | None:
    """The codes (and noise maps, where all have them) that 'codes:' and 'run:' name, for all photos; None for the other starts.

    Raises:
      FileNotFoundError: no code for a photo. ValueError: a code of another generator, or one that the space does not hold.
    """
    kind, _, path = options.start.partition(":")
    if kind not in ("codes", "run"):
        return None
    place = Path(path).expanduser()
    if kind == "run" and (not place.is_dir() or marks.read(place, output.KIND) is None):
        raise FileNotFoundError(f"{place} is no output of `jaxgan embed` ({output.MARK}): --start run:DIR goes on from one")
    names = [photo.name for photo in photos]
    paths = code_files.places(place, names) if kind == "codes" else [place / name for name in names]
    facts: dict[Path, tuple[str, bool]] = {}
    for where in paths:
        if where not in facts:
            code = code_files.read_code(where, style)
            given_codes(style, options, code.code[None])
            facts[where] = code_files.digest(code), code.noise is not None
    with_noise = [facts[where][1] for where in paths]
    if any(with_noise) and not all(with_noise):
        missing = photos[with_noise.index(False)].name
        raise ValueError(
            f"{options.start}: some of its codes have noise maps of their own, and that for {missing} has none: split the photos"
        )
    return _Starts(paths, [facts[where][0] for where in paths], all(with_noise))


def _load_starts(style: StyleGenerator, starts: _Starts, index: Sequence[int]) -> dict[str, Any]:
    """{'code', 'noise' where the starts have it} of some photos; ValueError where a file has changed."""
    codes = []
    for i in index:
        codes.append(code_files.read_code(starts.paths[i], style))
        if code_files.digest(codes[-1]) != starts.digests[i]:
            raise ValueError(f"{starts.paths[i]} {CHANGED}")
    found: dict[str, Any] = {"code": np.stack([code.code for code in codes])}
    if starts.with_noise:
        found["noise"] = {name: np.stack([code.noise[name] for code in codes]) for name in codes[0].noise}
    return found


def _sizes(style: StyleGenerator, problem: method.Problem, count: int, noise_given: bool) -> tuple[int, int]:
    """Bytes that are written at most: (what stays, the state of one batch), for `count` photos."""
    options = problem.options
    images = 3 * (3 * problem.side**2 + style.resolution**2)
    maps = 4 * sum(int(np.prod(array.shape)) for array in style.noise(style.arrays).values())
    own_noise = noise_given or options.method == "projector" or bool(options.noise_steps)
    code = 4 * style.rows * style.w_size
    copies = 26 if options.optimiser == "lbfgs" else 4  # variables, those before, and two moments or ten pairs of L-BFGS
    searched = code + (maps if options.method == "projector" else 0)
    state = 2 * copies * max(searched, maps if options.noise_steps else 0)  # the new state is written beside the old one
    state += copies * searched * (bool(options.noise_steps) + bool(options.pixel_steps))  # that of each stage before stays
    state += FRAMES * len(problem.stages) * 3 * min(pictures.CELL, problem.side) ** 2 if options.film else 0
    return count * (images + code + (maps if own_noise else 0)), min(count, options.batch) * state


def _facts(style: StyleGenerator) -> dict[str, Any]:
    keys = ("family", "digest", "resolution", "rows", "w_size")
    return {key: getattr(style, key) for key in keys}


def _digests(paths: Sequence[Path] | None) -> list[str] | None:
    from jaxgan.arrays import checksum

    return None if paths is None else [checksum(path) for path in paths]


def _program() -> str:
    from jaxgan import __version__

    return f"jaxgan {__version__}"


def report(run: dict[str, Any], out: Any) -> str:
    """What is printed at the end."""
    count = len(run["table"])
    some = f" (the first {output.SHEET_ROWS} of {count:,} photos)" if count > output.SHEET_ROWS else ""
    return f"{output.text(run)}\n\nsheet: {os.path.join(os.fspath(out), output.SHEET)}{some}"
