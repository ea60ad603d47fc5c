"""`jaxgan edit`: what becomes of codes on disk, as pictures, films and new code files; the edits themselves are in ``jaxgan.edits``."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgan import code_files, edits, films, viz
from jaxgan.code_files import Code
from jaxgan.files import Refusal, check_writable, local_folder
from jaxgan.style_generators import StyleGenerator, check_resolution, open_style_generator, renderer


@dataclasses.dataclass(frozen=True)
class Options:
    generator: str
    """Generator folder or workdir that the codes were made with."""
    out: str
    """PNG file to write."""
    resolution: int | None = None
    """Side of each image in pixels, a divisor of the generator's: the mean over squares. None: the generator's own."""
    batch: int = 4
    """Images computed at once."""
    save: str = ""
    """Folder to write the codes that the edit made to, 000.safetensors, ..., row by row as in the picture."""


@dataclasses.dataclass(frozen=True)
class Morph(Options):
    """From each code to the next in equal steps, all rows."""

    steps: int = 7
    """Images from one code to the next, both included."""
    film: str = ""
    """NAME.mp4: the same way as a film."""
    seconds: float = 4.0
    """Of the film, from one code to the next."""
    fps: float = 25.0
    """Frames a second of the film."""


@dataclasses.dataclass(frozen=True)
class Crossover(Options):
    """The first rows of A, the others of B."""

    layer: tuple[int, ...] = ()
    """Rows taken from the first code; a column for each number. None given: half of the rows."""


@dataclasses.dataclass(frozen=True)
class Transfer(Options):
    """The difference of two codes of one person, expressive less neutral, added to a third code."""

    strength: tuple[float, ...] = (0.5, 1.0, 1.5)
    """Multiples of the difference between expressive and neutral; a column for each."""
    threshold: float | None = 1.0
    """Rows of the difference with a smaller Euclidean norm are left out. 0 or None keeps all."""


@dataclasses.dataclass(frozen=True)
class Mixing(Options):
    """Rows of sources copied into destinations, as in StyleGAN's figure of style mixing."""

    destinations: tuple[str, ...] = ()
    """Codes of the left column, which get rows of the codes named first (the upper row). None given: the same codes."""
    bands: tuple[str, ...] = ("coarse", "middle", "fine")
    """Which rows are copied: these names, or FIRST-LAST; a block of rows of the table for each."""


@dataclasses.dataclass(frozen=True)
class Truncation(Options):
    """Towards the mean code, through it and beyond."""

    psi: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0)
    """Multiples of the distance from the mean code; a column for each. Negative ones give anti-faces."""


Maps = dict[str, np.ndarray]
Noise = Maps | Callable[[], Maps] | None
"""{name: [side, side]}, or what makes them when they are needed, for they are megabytes; None: the stored noise."""


class Sheet(NamedTuple):
    """Pictures of a table, row by row."""

    codes: list[np.ndarray | None]
    """[rows, W]; None leaves the place white."""
    noise: list[Noise]
    """Of each picture."""
    made: list[dict[str, Any] | None]
    """What made it, as its code file tells; None: it was given."""
    columns: int
    words: str
    """What is shown, for the user."""


COMMANDS = {"morph": Morph, "crossover": Crossover, "transfer": Transfer, "mixing": Mixing, "truncation": Truncation}
CODES = {
    "morph": "A B [C ...]",
    "crossover": "A B [B2 ...]",
    "transfer": "TARGET NEUTRAL EXPRESSIVE",
    "mixing": "SOURCE [SOURCE ...]",
    "truncation": "CODE [CODE ...]",
}
_LEAST = {"morph": (2, 99), "crossover": (2, 99), "transfer": (3, 3), "mixing": (1, 99), "truncation": (1, 99)}


def run(command: str, paths: Sequence[str], options: Any) -> str:
    """Makes what a sub-command asks for and returns what was written, in words.

    Args:
      command: a key of ``COMMANDS``, of whose class ``options`` is.
      paths: code files, or the folders of `jaxgan embed` that hold them.

    Raises:
      ValueError, FileNotFoundError, FileExistsError: before anything is written.
    """
    check(command, paths, options)
    generator = open_style_generator(options.generator)
    check_resolution(generator, options.resolution)
    given = [code_files.read_code(path, generator) for path in paths]
    names = [name_of(path) for path in paths]
    sheet = _SHEETS[command](generator, given, names, options)
    check_outputs(generator, sheet, options)
    render = renderer(generator, batch=options.batch, resolution=options.resolution)
    viz.write_png(options.out, draw_sheet(generator, sheet, render, options.batch))
    written = [f"{options.out}: {sheet.words}"]
    if options.save:
        written.append(f"{options.save}: {save_codes(generator, sheet, command, options)} codes")
    if command == "morph" and options.film:
        frames = films.write_film(options.film, morph_frames(generator, given, options, render), options.fps)
        written.append(f"{options.film}: {frames} frames, {frames / options.fps:.1f} s")
    return "\n".join(written)


def check_outputs(generator: StyleGenerator, sheet: Sheet, options: Any) -> None:
    """Proves that the folder of every output can be written, before hours of drawing; OSError, or ValueError for an odd film."""
    side = options.resolution or generator.resolution
    maps = sum(np.asarray(array).nbytes for array in generator.noise(generator.arrays).values())
    code = 4 * generator.rows * generator.w_size
    places = {local_folder(options.out).parent: 3 * len(sheet.codes) * (side + 2) ** 2}
    if getattr(options, "film", ""):
        if side % 2:
            raise ValueError(f"--film: images of {side} px a side; H.264 needs even sides, give another --resolution")
        places.setdefault(local_folder(options.film).parent, 0)
    if options.save:
        sizes = [code + (maps if noise is not None else 0) for noise, made in zip(sheet.noise, sheet.made, strict=True) if made]
        places[local_folder(options.save)] = sum(sizes)
    refusal = Refusal("the output takes up to", "or name another disk", "name a folder that can be written")
    for place, needed in places.items():
        check_writable(place, needed + 2**20, refusal)


def check(command: str, paths: Sequence[str], options: Any) -> None:
    """Refuses a wrong number of codes, options out of range and outputs that exist; ValueError or FileExistsError."""
    least, most = _LEAST[command]
    if not least <= len(paths) <= most:
        raise ValueError(f"{len(paths)} codes given; jaxgan edit {command} {CODES[command]} --generator FOLDER --out NAME.png")
    if options.batch < 1:
        raise ValueError(f"--batch is {options.batch}: give at least 1")
    if Path(options.out).suffix != ".png":
        raise ValueError(f"--out is {options.out}: name a .png file")
    outputs = [options.out]
    if command == "morph":
        if options.steps < 2:
            raise ValueError(f"--steps is {options.steps}: give at least 2, both ends")
        if options.film:
            films.check_film(options.film, options.fps)
            outputs.append(options.film)
            if not options.seconds > 0:
                raise ValueError(f"--seconds is {options.seconds}: give more than 0")
    for output in outputs:
        if local_folder(output).exists():
            raise FileExistsError(f"{output} exists: name another file, or remove it first")
    folder = local_folder(options.save) if options.save else None
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"--save is {folder}, which exists and is not an empty folder: name another")


def name_of(path: Any) -> str:
    """How a code is called for people: the stem of its file, or its folder's name."""
    path = Path(path)
    return path.parent.name if path.name == "code.safetensors" else path.stem if path.suffix == ".safetensors" else path.name


def noise_of(generator: StyleGenerator, code: Code) -> dict[str, np.ndarray]:
    """The noise that belongs to a code: its own, or the generator's stored noise."""
    stored = generator.noise(generator.arrays) if code.noise is None else code.noise
    return {name: np.asarray(array) for name, array in stored.items()}


def source(name: str, code: Code) -> dict[str, str]:
    """What the file of an edited code tells of a code that it was made of; the sha256 is 'arrays_sha256' in that one's metadata."""
    return {"name": name, "sha256": code_files.digest(code)}


def between(generator: StyleGenerator, a: Code, b: Code, share: float) -> tuple[np.ndarray, Noise]:
    """(code, noise) on the way from ``a`` to ``b``; noise that either of them brings is blended like the code."""
    noise = functools.partial(_blend, generator, a, b, share) if a.noise is not None or b.noise is not None else None
    return np.asarray(edits.morph(a.code, b.code, share)), noise


def _blend(generator: StyleGenerator, a: Code, b: Code, share: float) -> Maps:
    first, last = noise_of(generator, a), noise_of(generator, b)
    return {name: np.float32(1 - share) * first[name] + np.float32(share) * last[name] for name in first}


def morph_sheet(generator: StyleGenerator, given: list[Code], names: list[str], options: Morph) -> Sheet:
    """A row for each pair of neighbours, from the one to the other."""
    shares = [float(share) for share in np.linspace(0.0, 1.0, options.steps)]
    sources = [source(name, code) for name, code in zip(names, given, strict=True)]
    found = [between(generator, a, b, share) for a, b in zip(given, given[1:], strict=False) for share in shares]
    pairs = zip(sources, sources[1:], strict=False)
    made = [{"sources": [a, b], "share": share} if 0.0 < share < 1.0 else None for a, b in pairs for share in shares]
    words = f"{options.steps} images from {' to '.join(names)}"
    return Sheet([code for code, _ in found], [noise for _, noise in found], made, options.steps, words)


def morph_frames(generator: StyleGenerator, given: list[Code], options: Morph, render: Any) -> Iterator[np.ndarray]:
    """The frames of the film, some at a time; the last code is its last frame."""
    each = max(1, round(options.seconds * options.fps))
    ways = [(a, b, i / each) for a, b in zip(given, given[1:], strict=False) for i in range(each)]
    ways.append((given[-2], given[-1], 1.0))
    for first in range(0, len(ways), options.batch):
        found = [between(generator, *way) for way in ways[first : first + options.batch]]
        found += found[-1:] * (options.batch - len(found))  # one compiled shape
        yield from _draw(generator, found, render, options.batch)[: len(ways) - first]


def crossover_sheet(generator: StyleGenerator, given: list[Code], names: list[str], options: Crossover) -> Sheet:
    """A row for each further code: the first one, the crossovers, that code. Noise is the first code's."""
    layers = options.layer or (generator.rows // 2,)
    for layer in layers:
        if not 0 <= layer <= generator.rows:
            raise ValueError(f"--layer is {layer}: this generator has {generator.rows} rows, give 0 to {generator.rows}")
    sheet = Sheet([], [], [], len(layers) + 2, "")
    sources = [source(name, code) for name, code in zip(names, given, strict=True)]
    for other, last in zip(given[1:], sources[1:], strict=True):
        sheet.codes.extend([given[0].code, *(np.asarray(edits.crossover(given[0].code, other.code, k)) for k in layers), other.code])
        sheet.noise.extend([given[0].noise] * (len(layers) + 1) + [other.noise])
        sheet.made.extend([None, *({"sources": [sources[0], last], "layer": k} for k in layers), None])
    rows = ", ".join(map(str, layers))
    words = f"{names[0]}; with the rows from {rows} of the last image ({generator.rows} rows in all); {', '.join(names[1:])}"
    return sheet._replace(words=words)


def transfer_sheet(generator: StyleGenerator, given: list[Code], names: list[str], options: Transfer) -> Sheet:
    """Neutral, expressive, target, then the target with the difference of the first two. Noise is the target's."""
    target, neutral, expressive = given
    if options.threshold is not None and not options.threshold >= 0:
        raise ValueError(f"--threshold is {options.threshold}: give 0 (keep all rows) or more")
    moved = edits.transfer(target.code, neutral.code, expressive.code, np.asarray(options.strength, np.float32), options.threshold)
    kept = int(np.any(np.asarray(edits.keep_rows(expressive.code - neutral.code, options.threshold)), -1).sum())
    count = len(options.strength)
    strengths = ", ".join(f"{s:g}" for s in options.strength)
    words = f"{names[1]}, {names[2]}, {names[0]}; then {names[0]} with {strengths} times their difference ({kept} of {generator.rows} rows)"
    codes = [neutral.code, expressive.code, target.code, *np.asarray(moved)]
    noise = [neutral.noise, expressive.noise, *[target.noise] * (count + 1)]
    facts = {"sources": [source(name, code) for name, code in zip(names, given, strict=True)], "threshold": options.threshold}
    return Sheet(codes, noise, [None] * 3 + [{**facts, "strength": s} for s in options.strength], count + 3, words)


def mixing_sheet(generator: StyleGenerator, given: list[Code], names: list[str], options: Mixing) -> Sheet:
    """Sources above, destinations at the left, once for each band of rows. Noise is the destination's."""
    rows = {band: band_rows(generator, band) for band in options.bands}
    below = [code_files.read_code(path, generator) for path in options.destinations] or given
    there = [name_of(path) for path in options.destinations] or names
    sheet = Sheet([None, *(code.code for code in given)], [None, *(code.noise for code in given)], [None] * (len(given) + 1), 0, "")
    above = [source(name, code) for name, code in zip(names, given, strict=True)]
    left = [source(name, code) for name, code in zip(there, below, strict=True)]
    for word, band in rows.items():
        for code, own in zip(below, left, strict=True):
            sheet.codes.extend([code.code, *(np.asarray(edits.mix(code.code, source.code, band)) for source in given)])
            sheet.noise.extend([code.noise] * (len(given) + 1))
            sheet.made.extend([None, *({"sources": [own, other], "band": word, "rows": list(band)} for other in above)])
    parts = ", ".join(f"{band} (rows {band_words(found)})" for band, found in rows.items())
    words = f"above {', '.join(names)}; at the left {', '.join(there)}, which get of those above: {parts}"
    return sheet._replace(columns=len(given) + 1, words=words)


def truncation_sheet(generator: StyleGenerator, given: list[Code], names: list[str], options: Truncation) -> Sheet:
    """A row for each code, a column for each psi."""
    w_avg = np.asarray(generator.w_avg(generator.arrays))
    psi = np.asarray(options.psi, np.float32)
    codes = [code for source in given for code in np.asarray(edits.truncate(source.code, w_avg, psi))]
    noise = [source.noise for source in given for _ in options.psi]
    words = f"{', '.join(names)} at psi {', '.join(f'{p:g}' for p in options.psi)}"
    sources = [source(name, code) for name, code in zip(names, given, strict=True)]
    made = [{"sources": [one], "psi": float(p)} if float(p) != 1.0 else None for one in sources for p in options.psi]
    return Sheet(codes, noise, made, len(options.psi), words)


_SHEETS = {
    "morph": morph_sheet,
    "crossover": crossover_sheet,
    "transfer": transfer_sheet,
    "mixing": mixing_sheet,
    "truncation": truncation_sheet,
}


def band_rows(generator: StyleGenerator, band: str) -> tuple[int, ...]:
    """The rows of 'coarse', 'middle', 'fine' or 'FIRST-LAST' (from 0, the last included); ValueError names what there is."""
    named = edits.style_rows(generator.row_sides)
    match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", band)
    if match:
        first, last = int(match[1]), int(match[2] or match[1])
        if first <= last < generator.rows:
            return tuple(range(first, last + 1))
    if band not in named:
        there = ", ".join(f"{name} ({band_words(rows)})" for name, rows in named.items())
        raise ValueError(f"--bands {band}: this generator has the rows 0-{generator.rows - 1}: {there}; name those, or FIRST-LAST")
    return named[band]


def band_words(rows: Sequence[int]) -> str:
    return f"{rows[0]}-{rows[-1]}" if len(rows) > 1 else f"{rows[0]}"


def draw_sheet(generator: StyleGenerator, sheet: Sheet, render: Any, batch: int) -> np.ndarray:
    """The table as one picture, uint8; equal codes are drawn once."""
    places: dict[tuple, int] = {}
    wanted, index = [], []
    for code, noise in zip(sheet.codes, sheet.noise, strict=True):
        if code is None:
            index.append(-1)
            continue
        key = (code.tobytes(), id(noise))
        if key not in places:
            places[key] = len(wanted)
            wanted.append((code, noise))
        index.append(places[key])
    images = _draw(generator, wanted, render, batch)
    images = np.concatenate([images, np.full_like(images[:1], 255)])
    return viz.grid(images[index], sheet.columns)


def _draw(generator: StyleGenerator, found: Sequence[tuple[np.ndarray, Noise]], render: Any, batch: int) -> np.ndarray:
    """uint8 [n, r, r, 3] of codes with their noise, which is made for ``batch`` of them at a time."""
    stored = None
    if any(own is not None for _, own in found):
        stored = {name: np.asarray(array) for name, array in generator.noise(generator.arrays).items()}
    size, images = min(batch, len(found)), []
    for first in range(0, len(found), size):
        some = list(found[first : first + size])
        count = len(some)
        some += some[-1:] * (size - count)  # one compiled shape
        noise = None
        if stored is not None:
            maps = [_maps(own) or stored for _, own in some[:count]]
            maps += maps[-1:] * (size - count)
            noise = {name: np.stack([one[name] for one in maps]) for name in stored}
        images.append(render(np.stack([code for code, _ in some]), noise)[:count])
    return np.concatenate(images)


def _maps(noise: Noise) -> Maps | None:
    return noise() if callable(noise) else noise


def save_codes(generator: StyleGenerator, sheet: Sheet, command: str, options: Any) -> int:
    """Writes the codes that the edit made, each with what made it; returns how many."""
    found = [(code, noise, made) for code, noise, made in zip(sheet.codes, sheet.noise, sheet.made, strict=True) if made is not None]
    for i, (code, noise, made) in enumerate(found):
        about = code_files.about_generator(generator, space="W+", edit={"name": command, **made})
        code_files.write_code(local_folder(options.save) / f"{i:03d}.safetensors", code, noise=_maps(noise), about=about)
    return len(found)
