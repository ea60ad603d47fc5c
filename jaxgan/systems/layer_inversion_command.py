"""`jaxgan invert`: photos in batches, from the first check to the page; the same command goes on where it was stopped."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import code_files, files, invert, marks, perceptual, stopping
from jaxgan import pairs as distances
from jaxgan import photos as reading
from jaxgan.chains import Chain, open_chain
from jaxgan.photos import CHANGED, Photo, content_digest
from jaxgan.progress import bar
from jaxgan.segmenters import Segmenter, open_segmenter
from jaxgan.systems import layer_inversion_codes as codes
from jaxgan.systems import layer_inversion_corrections as corrections
from jaxgan.systems import layer_inversion_files as output
from jaxgan.systems import layer_inversion_images as pictures
from jaxgan.systems import layer_inversion_latents as latents
from jaxgan.systems import layer_inversion_measures as measures
from jaxgan.systems import layer_inversion_methods as methods
from jaxgan.systems.layer_inversion_options import END_TO_END, Options
from jaxgan.systems.layer_inversion_search import Inverted, Perceptual, Problem

CHUNK = 10
"""Steps between two looks at ^C on a CPU; elsewhere five times as many."""
SAVE_SECONDS = 60.0
LPIPS_LEAST = 16
"""Pixels that LPIPS needs."""


class Networks(NamedTuple):
    """What is opened from the machine where a caller does not give it."""

    perceptual: Perceptual | None = None
    """For the loss of f."""
    lpips: Any = None
    """``lpips.params``, for the table; None: not measured."""
    encoder: Any = None
    end_to_end: Any = None


class _Job(NamedTuple):
    """What all batches share."""

    place: Path
    options: Options
    chain: Chain
    small: Chain
    """The chain with images of the side at which they are compared."""
    segmenter: Segmenter
    networks: Networks
    problems: Mapping[str, Problem | None]
    starts: Mapping[str, tuple[Path, str]]
    """By photo the file and digest of the code that f begins with; {}: an encoder or the mean."""
    generated: Mapping[str, tuple[np.ndarray, dict[str, np.ndarray]]]
    """By name the image uint8 [H, W, C] and its truth {'z', chain.target}."""


def run(
    options: Options,
    *,
    chain: Chain | None = None,
    segmenter: Segmenter | None = None,
    networks: Networks | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Inverts photos and writes the folder ``options.out``, see ``layer_inversion_files``; returns what invert.json holds.

    Args:
      options: see there.
      chain, segmenter, networks: in the place of those that the options name.
      say: told what happens, for people.

    Raises:
      ValueError, FileNotFoundError, OSError: before anything is written. invert_files.Interrupted: ^C; the state is saved.
    """
    options = options.resolved()
    place = files.local_folder(options.out)
    chain = chain if chain is not None else open_chain(options.generator)
    size = chain.image[:2]
    if chain.image[2] != 3:
        raise ValueError(f"this {chain.family} generator draws images of {chain.image[2]} channels; segmenters look at colours (3)")
    small = pictures.at_resolution(chain, options.resolution)
    drawn = pictures.generated(chain, options.generated, options.seed)
    if drawn:
        photos = [Photo(name, Path(), content_digest(image), size[::-1]) for name, (image, _) in drawn.items()]
        rejects: dict[str, str] = {}
    else:
        photos, rejects = reading.accept(reading.find(options.images, output.RESERVED), size, options, options.skip_bad)
    segmenter = segmenter if segmenter is not None else open_segmenter(options.segmenter)
    names = _class_names(segmenter, options)
    networks = networks if networks is not None else open_networks(options, chain, small)
    starts = _starts(chain, options, photos)
    problems = {name: _prepare(name, options, small, networks) for name in options.method}
    if options.start == "search":
        problems["start"] = _prepare("a", options, small, networks)
    about = {
        "format": output.KIND.format,
        "program": _program(),
        "state": "unfinished",
        "generator": {"path": options.generator, "family": chain.family, "digest": chain.digest, "image": list(chain.image)}
        | {"target": chain.target, "layers": list(chain.names)},
        "segmenter": {"classes": list(names), "name": segmenter.name, "identity": segmenter.identity},
        "encoder": _about_encoder(networks.encoder),
        "end_to_end": _about_encoder(networks.end_to_end),
        "networks": {"perceptual": None if networks.perceptual is None else dict(networks.perceptual.about)}
        | {"lpips": "not measured" if networks.lpips is None else "v0.1 on VGG-16"},
        "start": {name: digest for name, (_, digest) in starts.items()} or None,
        "methods": {name: _words(name, options) for name in options.method},
        "options": options.as_json() | {"layers": _layers(problems)},
        "photos": [{"name": p.name, "path": str(p.path), "sha256": p.digest, "size": list(p.size)} for p in photos],
        "rejects": rejects,
        "warnings": [f"left out: {path}: {why}" for path, why in rejects.items()],
        "table": [],
    }
    earlier = marks.check(place, output.KIND, about, _bytes(chain, problems, options, len(photos)))
    done = earlier is not None and all(output.is_done(place, photo, options.method) for photo in photos)
    same = earlier is not None and all(earlier["options"][key] == about["options"][key] for key in ("rank", "shown"))
    if done and same and earlier["state"] == "finished":
        say(f"{place}: already finished")
        return earlier
    for line in about["warnings"]:
        say(f"warning: {line}")
    job = _Job(place, options, chain, small, segmenter, networks, problems, starts, drawn)
    marks.write(place, output.KIND, about)
    groups = marks.groups(photos, options.batch)
    with stopping.Stop() as stop:
        for number, group in enumerate(groups, 1):
            if not all(output.is_done(place, photo, options.method) for photo in group):
                _invert_group(job, group, names, f"batch {number} of {len(groups)}", stop, say)
            marks.forget(place, group)
    return output.finish(place, about, photos, options.method, names, options.rank, options.shown)


def open_networks(options: Options, chain: Chain, small: Chain) -> Networks:
    """What the options (resolved) name and the methods need; LPIPS where its weights are on this machine.

    Raises:
      FileNotFoundError, ValueError: an encoder that is not there or of another generator; VGG-16 is needed and absent.
    """
    from jaxgan import weights
    from jaxgan.metrics import lpips

    found: dict[str, Any] = {}
    for name in ("encoder", "end_to_end"):
        if getattr(options, name) != "none":
            from jaxgan.systems.layer_inversion import open_encoder

            found[name] = open_encoder(getattr(options, name), chain)
    path = options.vgg or None
    if ("f" in options.method and options.perceptual_weight) or options.latent_perceptual_weight:
        found["perceptual"] = corrections.open_perceptual(min(small.image[:2]), path=path)
    if min(chain.image[:2]) >= LPIPS_LEAST and not path:
        try:
            found["lpips"] = lpips.params(weights.load("vgg16"), weights.load("lpips"))
        except FileNotFoundError:
            pass
    return Networks(**found)


def _prepare(method: str, options: Options, small: Chain, networks: Networks) -> Problem | None:
    found = corrections.Options(
        layers=options.layers or None,
        steps=options.steps,
        learning_rate=options.learning_rate,
        perceptual_weight=options.perceptual_weight,
        perceptual_distance=options.perceptual_distance,
        correction_weight=options.correction_weight,
    )
    searched = latents.Options(
        optimiser=options.latent_optimiser,
        steps=options.latent_steps,
        learning_rate=options.latent_learning_rate,
        perceptual_weight=options.latent_perceptual_weight,
        perceptual_distance=options.perceptual_distance,
    )
    encoder = networks.end_to_end if method in END_TO_END else networks.encoder
    if method == "f" and options.resolution is not None:
        encoder = None  # it looks at whole images; its latents are a start all the same, see _invert
    return methods.prepare(
        method, small, encoder=encoder, perceptual=networks.perceptual, corrections_options=found, latents_options=searched
    )


def _invert_group(job: _Job, group: list[Photo], names: Sequence[str], title: str, stop: Any, say: Callable[[str], None]) -> None:
    options, chain = job.options, job.chain
    images = np.stack([_image(job, photo) for photo in group])
    truth = {}
    if job.generated:
        parts = [job.generated[photo.name][1] for photo in group]
        truth = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    saved = marks.group_folder(job.place, group)
    found, seconds = {}, {}
    for method in options.method:
        clock = marks.Clock(saved / method / "seconds.json")
        found[method] = _invert(job, method, group, images, truth, saved / method, clock, f"{title}, method {method}", stop, say)
        clock.write()
        seconds[method] = clock.total() / len(group)
    full = {method: pictures.whole_images(chain, job.small, one) for method, one in found.items()}
    labels = pictures.label(job.segmenter, [*images, *(image for method in options.method for image in full[method])])
    rows = {method: _rows(job, one, images, full[method], truth, seconds[method]) for method, one in found.items()}
    for i, photo in enumerate(group):
        results = {}
        for k, method in enumerate(options.method, 1):
            one = found[method]
            about = {
                "generator": chain.digest, "family": chain.family, "method": method, "target": chain.target,
                "options": options.as_json(), "photo": {"name": photo.name, "sha256": photo.digest}, "result": rows[method][i],
            }  # fmt: skip
            parts = [{name: array[i] for name, array in part.items()} for part in (one.corrections, one.activations)]
            inversion = codes.Inversion(one.latents[i], one.start[i], *parts, about)
            history = {name: values[: int(one.kept[i]) + 1, i] for name, values in one.history.items()}
            results[method] = output.Result(full[method][i], labels[k * len(group) + i], inversion, history)
        output.write_photo(job.place, photo.name, images[i], labels[i], results, names)


def _image(job: _Job, photo: Photo) -> np.ndarray:
    if job.generated:
        return job.generated[photo.name][0]
    return reading.read_again(photo, job.chain.image[:2], job.options)


def _invert(job, method, group, images, truth, saved, clock, title, stop, say) -> Inverted:
    """One method on one batch, from where it was saved."""
    problem, digests = job.problems[method], [photo.digest for photo in group]
    encoder = job.networks.end_to_end if method in END_TO_END else job.networks.encoder
    if job.starts and method == "f":
        start = np.stack([_code(job.chain, *job.starts[photo.name]) for photo in group])
    else:
        start = methods.start_latents(method, job.chain, images, encoder, digests, job.options.seed)
    compared = np.asarray(perceptual.resize(jnp.asarray(images.astype(np.float32) / 127.5 - 1.0), job.small.image[:2]))
    if problem is None:
        return methods.decode(method, job.small, compared, start)
    given = (digests, truth, clock, stop, say)
    if method == "f" and "start" in job.problems:
        start = _search(job, "a", job.problems["start"], compared, None, start, saved / "start", f"{title}, latent", *given).latents
    return _search(job, method, problem, compared, encoder, start, saved, title, *given)


def _search(job, method, problem, compared, encoder, start, saved, title, digests, truth, clock, stop, say) -> Inverted:
    steps, shown = problem.options.steps, [0]
    chunk = CHUNK if jax.default_backend() == "cpu" else 5 * CHUNK
    with bar(f"{title}, steps", steps) as advance:

        def watch(now: invert.Run, draw: Callable[[], np.ndarray]) -> bool:
            advance(now.step - shown[0])
            shown[0] = now.step
            if clock.due():
                say(f"{title}: step {now.step:,} of {steps:,}, loss {np.mean(now.history['loss'][-1]):.4g}, {clock.total():.0f} s")
            clock.write()
            return now.step < steps and stop(now.step)

        return methods.invert(
            method, job.small, compared, problem=problem, encoder=encoder, start=start, digests=digests, seed=job.options.seed,
            truth=truth, saved=saved, watch=watch, chunk=chunk, save_seconds=SAVE_SECONDS,
        )  # fmt: skip


def _rows(job: _Job, found: Inverted, images: np.ndarray, full: np.ndarray, truth: Any, seconds: float) -> list[dict[str, Any]]:
    """The photos' rows of the table; what was not measured is None."""
    values = dict(measures.measure(found, truth, job.chain.target))
    if job.networks.lpips is not None and min(images.shape[1:3]) >= LPIPS_LEAST:
        values["lpips"] = distances.stored_lpips(job.networks.lpips, images, full)
    rows = []
    for i in range(len(images)):
        row = {name: _finite(array[i]) for name, array in values.items()}
        if found.history:
            losses, last = found.history["loss"][:, i], int(found.kept[i])
            row |= {"loss_before": _finite(losses[0]), "loss": _finite(losses[last]), "steps": last}
        rows.append(row | {"failed": bool(found.failed[i]), "seconds": round(seconds, 3)})
    return rows


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _class_names(segmenter: Segmenter, options: Options) -> tuple[str, ...]:
    """ValueError: a segmenter that labels no images, or a class to rank by that it does not know."""
    from jaxgan.configure import nearest

    if not segmenter.classes:
        raise ValueError(f"the segmenter {segmenter.name!r} cannot label the generator's images: name a network")
    for name in options.rank:
        if name not in segmenter.classes:
            near = nearest(name, list(segmenter.classes))
            raise ValueError(f"--rank {name!r} is no class of the {len(segmenter.classes)} that {segmenter.name} knows{near}")
    return segmenter.classes


def _words(method: str, options: Options) -> str:
    """What a method is called in the tables; f by what it begins with."""
    if method != "f" or (options.encoder != "none" and not options.start):
        return methods.METHODS[method]
    begun = "mean latent" if options.encoder == "none" else "layered encoder"
    begun = "given codes" if options.start.startswith("codes:") else f"{begun}, search of the latent" if options.start else begun
    return f"{begun}, then corrections of layers"


def _about_encoder(encoder: Any) -> dict[str, Any] | None:
    return None if encoder is None else {"sha256": corrections.about_networks(None, encoder)["encoder"]}


def _layers(problems: Mapping[str, Problem | None]) -> list[str] | None:
    problem = problems.get("f")
    return None if problem is None else list(problem.options.layers)


def _starts(chain: Chain, options: Options, photos: Sequence[Photo]) -> dict[str, tuple[Path, str]]:
    """The codes that 'codes:' names. FileNotFoundError: none for a photo. ValueError: a code of another generator."""
    if not options.start.startswith("codes:"):
        return {}
    place = Path(options.start.partition(":")[2]).expanduser()
    found = {}
    for photo, path in zip(photos, code_files.places(place, [photo.name for photo in photos]), strict=True):
        code = code_files.read_code(path)
        if code.about["generator"] != chain.digest or code.code.shape != chain.latent:
            theirs = f"{code.about['family']}, sha256 {str(code.about['generator'])[:12]}, {' x '.join(map(str, code.code.shape))}"
            ours = f"{chain.family}, {chain.digest[:12]}, {' x '.join(map(str, chain.latent))}"
            raise ValueError(f"{path} is a code of another generator ({theirs}) than the one given ({ours})")
        if code.noise:
            raise ValueError(f"{path} has noise maps of its own, and layers are inverted with the generator's stored ones: embed without")
        found[photo.name] = (path, code_files.digest(code))
    return found


def _code(chain: Chain, path: Path, digest: str) -> np.ndarray:
    code = code_files.read_code(path)
    if code_files.digest(code) != digest:
        raise ValueError(f"{path} {CHANGED}")
    return code.code


def _bytes(chain: Chain, problems: Mapping[str, Problem | None], options: Options, count: int) -> int:
    """What is written at most: pictures without compression, corrections and the target's activation; Adam's state twice for one batch."""
    pixels = int(np.prod(chain.image))
    found = 0
    for problem in problems.values():
        layers = [name for name in getattr(problem and problem.options, "layers", None) or () if name in chain.shapes]
        numbers = sum(int(np.prod(chain.shapes[name])) for name in (*layers, chain.target)) + 2 * int(np.prod(chain.latent))
        found += count * (8 * numbers + 3 * pixels) + min(count, options.batch) * 4 * 8 * numbers
    return found + count * (pixels + 2**21)


def _program() -> str:
    from jaxgan import __version__

    return f"jaxgan {__version__}"


def report(found: Mapping[str, Any], out: Any) -> str:
    """What is printed at the end."""
    return f"{output.text(found)}\n\npage: {os.path.join(os.fspath(out), output.REPORT)}"
