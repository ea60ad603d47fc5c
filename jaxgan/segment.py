"""`jaxgan segment`: label maps and overlays of a source's images as PNG files, class areas, and scores where the source has labels."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgan import files, segmenters, viz
from jaxgan.metrics import confusion

PICTURES = ("labels", "overlays", "both", "none")
MAX_LABELS = 65_536
"""Of a source's label maps: 16-bit PNG files hold no more."""


class Result(NamedTuple):
    """What was found."""

    count: int
    """Images."""
    area: dict[str, float]
    """By class: its share of all pixels."""
    images: dict[str, float]
    """By class: share of the images in which it has at least one pixel."""
    scores: confusion.Scores | None
    """None where the source has no label maps of these classes."""
    note: str
    """Why there are no scores; empty where there are."""


def segment(
    spec: str,
    data: str,
    out: Any,
    *,
    split: str | None = None,
    n: int | None = None,
    seed: int | None = None,
    pictures: str = "both",
) -> Result:
    """Labels the images of a source and writes what was found into the new folder `out`.

    Args:
      spec: a segmenter as in ``segmenters.open_segmenter``, or a workdir or generator folder of a U-Net.
      data: a source as in ``sources.open_images``; `split`, `n` and `seed` are passed on.
      out: ``labels/NAME.png`` (palette PNG; pixel values are class numbers), ``overlays/NAME.png`` (image beside its labels; with the true
        ones where the source has them), ``scores.json``; a local folder that must not exist or be empty, and is not the current one.
      pictures: 'labels', 'overlays', 'both' or 'none'.

    The images are brought to the segmenter's size where it wants one, and the label maps back to the image's size, nearest.

    Raises:
      ValueError, FileNotFoundError, FileExistsError: before anything is written. OSError: the folder cannot be written; nothing is left.
    """
    from jaxgan import sources

    if pictures not in PICTURES:
        raise ValueError(f"pictures is {pictures!r}; use one of {', '.join(PICTURES)}")
    out = Path(os.path.realpath(files.local_folder(out)))
    if out == Path(os.path.realpath(os.curdir)) or _contains(out, data):
        what = "is the current folder" if out == Path(os.path.realpath(os.curdir)) else f"holds the source {data}"
        raise FileExistsError(f"{out} {what}; the results are written to a new folder that takes its place: name another with --out")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not an empty folder: name another, or remove it first")
    source = sources.open_images(data, split=split, n=n, seed=seed)
    is_run = any((Path(spec).expanduser() / name).exists() for name in ("config.json", "generator.json"))
    segmenter = segmenters.open_segmenter(f"unet:{spec}" if is_run else spec)
    classes = segmenter.classes or source.classes
    if segmenter.name == "labels" and not source.has_labels:
        raise ValueError(f"{data} has no label maps, which the segmenter 'labels' reads; name a network")
    if not classes:
        classes = tuple(f"class {k}" for k in range(1 + max(int(_true(source, i).max()) for i in range(len(source)))))
    translation, void, note = _translation(source, classes, data) if segmenter.name != "labels" else (None, None, "")
    part = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        part.mkdir(parents=True)
        result = _all(segmenter, source, classes, translation, void, pictures, part)._replace(note=note)
        files.write_atomic(part / "scores.json", (json.dumps(_as_json(result, segmenter, source, classes, void), indent=1) + "\n").encode())
        if out.exists():
            out.rmdir()
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return result


def _contains(folder: Path, data: Any) -> bool:
    """Whether a source that is a folder is `folder`, or lies in it."""
    place = Path(os.fspath(data)).expanduser()
    return place.exists() and Path(os.path.realpath(place)).is_relative_to(folder)


def _true(source: Any, i: int) -> np.ndarray:
    """The source's own label map of image i, int [H, W]. ValueError: something else, or numbers that no set of classes has."""
    labels = np.asarray(source.label(i))
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or not labels.size:
        given = f"{labels.dtype} {list(labels.shape)}"
        raise ValueError(f"{source.spec}, {source.name(i)}: its label map is {given}; integers [height, width] are needed")
    if labels.min() < 0 or labels.max() >= MAX_LABELS:
        wrong = int(labels.min()) if labels.min() < 0 else int(labels.max())
        raise ValueError(f"{source.spec}, {source.name(i)}: its label map holds {wrong}; labels are numbers from 0 to {MAX_LABELS - 1}")
    return labels


def _translation(source: Any, classes: tuple[str, ...], data: str) -> tuple[np.ndarray | None, int | None, str]:
    """(the segmenter's number for each of the source's labels, or None where nothing can be compared; the void number; why not)."""
    if not source.has_labels:
        return None, None, f"{data} has no label maps to compare with"
    facts = Path(data).expanduser() / "facts.json"
    void = json.loads(facts.read_text()).get("void") if facts.is_file() else None
    unknown = len(classes)  # one past the classes: what is not compared
    table = np.full(MAX_LABELS, -1, np.int64)
    if source.classes:
        void = None if void is None else min(void, len(source.classes) - 1)  # as the source numbers it
        for number, name in enumerate(source.classes):
            table[number] = unknown if number == void else classes.index(name) if name in classes else -1
        strange = [name for number, name in enumerate(source.classes) if table[number] < 0]
        if strange:
            return None, None, f"the segmenter has no class {', '.join(map(repr, strange[:4]))} of {data}, so the two are not compared"
    else:
        table[: len(classes)] = np.arange(len(classes))
    if void is not None:
        table[void] = unknown
    return table, unknown, ""


def _all(segmenter: Any, source: Any, classes: tuple[str, ...], translation, void, pictures: str, folder: Path) -> Result:
    """Labels, counts and writes, ``segmenters.BATCH`` images at a time."""
    from jaxgan.progress import bar

    count = len(classes)
    pixels, held, total = np.zeros(count, np.int64), np.zeros(count, np.int64), 0
    sums = confusion.zero(count)
    taken: set[str] = set()
    colours = palette(count)
    with bar(f"segmenting {len(source):,} images", len(source)) as advance:
        for start in range(0, len(source), segmenters.BATCH):
            indices = range(start, min(start + segmenters.BATCH, len(source)))
            images = [source[i] for i in indices]
            for i, image, labels in zip(indices, images, _maps(segmenter, source, indices, images), strict=True):
                found = np.bincount(labels.ravel(), minlength=count)
                if len(found) > count:
                    raise ValueError(f"{source.spec}, {source.name(i)}: label {len(found) - 1} is none of the {count} classes")
                pixels, held, total = pixels + found, held + (found > 0), total + labels.size
                truth = None
                if translation is not None:
                    true = _true(source, i)
                    truth = translation[true]
                    if truth.min() < 0:
                        wrong = int(true[truth < 0][0])
                        raise ValueError(f"{source.spec}, {source.name(i)}: label {wrong} is none of the {count} classes")
                    sums = confusion.add(sums, truth, labels, void)
                name = _file_name(source.name(i), i, taken)
                if pictures in ("labels", "both"):
                    write_label_map(folder / "labels" / name, labels, colours)
                if pictures in ("overlays", "both"):
                    shown = [image, overlay(image, labels, colours)]
                    if truth is not None:
                        shown.append(overlay(image, truth, np.concatenate([colours, np.zeros((1, 3), np.uint8)])))
                    viz.write_png(folder / "overlays" / name, viz.strip(shown))
            advance(len(images))
    area = {name: float(share) for name, share in zip(classes, pixels / total, strict=True)}
    shares = {name: float(share) for name, share in zip(classes, held / len(source), strict=True)}
    return Result(len(source), area, shares, confusion.read(sums) if translation is not None else None, "")


def _maps(segmenter: Any, source: Any, indices: range, images: list[np.ndarray]) -> list[np.ndarray]:
    """Label maps int32 [H, W] at the images' own sizes."""
    if segmenter.name == "labels":
        return [_true(source, i) for i in indices]
    if segmenter.size is not None:
        shown = np.stack([segmenters.resize(image, segmenter.size) for image in images])
        maps = segmenter.label(shown)
    elif len({image.shape for image in images}) == 1:
        maps = segmenter.label(np.stack(images))
    else:
        maps = [segmenter.label(image[None])[0] for image in images]
    return [segmenters.resize_labels(np.asarray(map_), image.shape[:2]) for map_, image in zip(maps, images, strict=True)]


def _file_name(name: str, number: int, taken: set[str]) -> str:
    """Path of the PNG below the output folder; a name that leads out of it, or that is taken, is replaced by the image's number."""
    stem = os.path.splitext(name)[0]
    parts = stem.split("/")
    if os.path.isabs(stem) or not all(parts) or {".", ".."} & set(parts) or "\0" in stem or f"{stem}.png" in taken or _long(parts):
        stem = f"image_{number:06d}"
    taken.add(f"{stem}.png")
    return f"{stem}.png"


def _long(parts: list[str]) -> bool:
    """Whether a name leaves no room for the ending of a temporary file: file systems take 255 bytes."""
    return max(len(os.fsencode(part)) for part in parts) > 230


def palette(count: int) -> np.ndarray:
    """uint8 [count, 3]: the colours of a trained U-Net's own grids."""
    from jaxgan.systems.segmentation import colours

    return colours(count)


def overlay(image: np.ndarray, labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3]: the label colours over a grey picture of the image."""
    return (0.4 * image.mean(-1, keepdims=True) + 0.6 * colours[labels]).astype(np.uint8)


def write_label_map(path: Any, labels: np.ndarray, colours: np.ndarray) -> None:
    """A PNG whose pixel values are the labels, with a palette to look at; beyond 256 classes 16-bit grey."""
    import io

    from PIL import Image

    if len(colours) > 256:
        image = Image.fromarray(labels.astype(np.uint16))
    else:
        image = Image.fromarray(labels.astype(np.uint8), "L")
        image = Image.frombytes("P", image.size, image.tobytes())
        image.putpalette(colours.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    files.write_atomic(path, buffer.getvalue())


def _as_json(result: Result, segmenter: Any, source: Any, classes: tuple[str, ...], void: int | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "segmenter": {"name": segmenter.name, "identity": segmenter.identity, "size": segmenter.size},
        "source": {"spec": source.spec, "images": result.count, **source.facts},
        "colours": {name: colour for name, colour in zip(classes, palette(len(classes)).tolist(), strict=True)},
        "area": result.area,
        "images": result.images,
    }
    if result.scores is None:
        return {**found, "not_scored": result.note}
    scores = result.scores

    def plain(values: np.ndarray) -> dict[str, float | None]:
        return {name: float(value) if np.isfinite(value) else None for name, value in zip(classes, values, strict=True)}

    each = {"iou": plain(scores.iou), "class_accuracy": plain(scores.class_accuracy), "label_share": plain(scores.share)}
    mean = {"mean_iou": scores.mean_iou, "accuracy": scores.accuracy}
    return found | {name: value if np.isfinite(value) else None for name, value in mean.items()} | each


def report(result: Result) -> str:
    """Lines for people: the scores where there are any, else the areas."""
    if result.scores is not None:
        return confusion.table(result.scores, tuple(result.area))
    width = max(map(len, result.area))
    lines = [f"{'class':{width}}      area  in images"]
    lines += [f"{name:{width}}  {100 * area:7.3f}%  {100 * result.images[name]:8.2f}%" for name, area in result.area.items()]
    return "\n".join([*lines, *([f"No scores: {result.note}."] if result.note else [])])
