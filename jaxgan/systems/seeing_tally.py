"""From images to tallies: every image framed and segmented, one row of area fractions each, kept on disk part by part.

The rows of a source are kept under the segmenter's identity, the source's content and the framing, so that another report on the same
images segments nothing, and one that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgan import files
from jaxgan.metrics import segments

PART = 128
"""Images in one file of the cache: what an interruption can lose."""
LONGEST = 16
"""Times that an image may be longer than the part of it that is cut out; what is beyond is cut off before the image is resized, which
would otherwise fill the memory for a line of pixels."""
FORM = 1
"""Raised where rows of an older form of the cache must not be read."""


def cache_folder() -> Path:
    """Where tallies are kept unless another folder is named: beside the cache of weights."""
    from jaxgan import weights

    return weights.cache_folder().parent / "tallies"


def frame(image: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """The official framing: resized (bilinear, antialiased) until it just covers `size`, then the centre is cut out.

    Args:
      image: uint8 [h, w, 3].
      size: (H, W), or None: the image as it is.

    Returns:
      uint8 [H, W, 3]. For a square size: shorter side to that size, centre crop, as torchvision's Resize and CenterCrop round it.
    """
    if size is None or image.shape[:2] == tuple(size):
        return image
    from PIL import Image

    height, width = image.shape[:2]
    most = [max(1, LONGEST * -(-a * b // c)) for a, b, c in ((width, size[0], size[1]), (height, size[1], size[0]))]
    if height > most[0] or width > most[1]:
        top, left = (max(0, side - limit) // 2 for side, limit in zip((height, width), most, strict=True))
        return frame(image[top : top + most[0], left : left + most[1]], size)
    if width * size[0] >= height * size[1]:
        resized = size[0], max(size[1], int(size[0] * width / height))
    else:
        resized = max(size[0], int(size[1] * height / width)), size[1]
    picture = Image.fromarray(image)
    if resized != (height, width):
        picture = picture.resize(resized[::-1], Image.Resampling.BILINEAR)
    top, left = (int(round((have - want) / 2)) for have, want in zip(resized, size, strict=True))
    return np.asarray(picture.crop((left, top, left + size[1], top + size[0])))


def label_maps(
    images: Any, segmenter: Any, indices: Sequence[int], *, batch: int, title: str = ""
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(index, image uint8 [H, W, 3] as the segmenter saw it, label map int [h, w]) for each of `indices`, in order.

    Raises:
      ValueError: the segmenter takes the source's own label maps and it has none, or its labels have another shape or a wrong label.
    """
    from jaxgan import sources

    if segmenter.name == "labels":
        if not images.has_labels:
            remedy = "name a segmenter that looks at the images"
            raise ValueError(f"{images.spec} holds no label maps, which the segmenter 'labels' reads; {remedy}")
        for i in indices:
            yield int(i), images[int(i)], images.label(int(i))
        return
    for index, pictures in sources.batches(images, lambda image: frame(image, segmenter.size), batch, indices=indices, title=title):
        maps = np.asarray(segmenter.label(_filled(pictures, batch)))[: len(pictures)]
        if maps.ndim != 3 or len(maps) != len(pictures) or maps.dtype.kind not in "iu":
            given = f"{maps.dtype} {maps.shape} for {len(pictures)} images"
            raise ValueError(f"the segmenter {segmenter.name} gives {given}; it must give integers [N, h, w]")
        yield from zip((int(i) for i in index), pictures, maps, strict=True)


def _filled(pictures: np.ndarray, batch: int) -> np.ndarray:
    """The last, smaller batch filled up with its first image: one shape, one compilation."""
    if len(pictures) == batch:
        return pictures
    return np.concatenate([pictures, np.broadcast_to(pictures[:1], (batch - len(pictures), *pictures.shape[1:]))])


def protocol(images: Any, segmenter: Any, classes: Sequence[str]) -> dict[str, Any]:
    """All that the rows depend on; its digest names their folder in the cache."""
    size = None if segmenter.name == "labels" else segmenter.size
    return {
        "form": FORM,
        "segmenter": segmenter.name,
        "identity": segmenter.identity,
        "classes": list(classes),
        "content": images.digest,
        "images": len(images),
        "framing": "as they are" if size is None else f"shorter side to {size[0]}x{size[1]} (bilinear), centre crop",
    }


def tally(
    images: Any,
    segmenter: Any,
    classes: Sequence[str],
    *,
    batch: int = 8,
    cache: Path | None = None,
    title: str = "",
    say: Callable[[str], None] = lambda text: None,
) -> np.ndarray:
    """Area fraction of every class in every image: float64 [images, classes], in the order of the source.

    Args:
      images: a ``jaxgan.sources.Images``.
      segmenter: a ``jaxgan.segmenters.Segmenter``.
      classes: names of the labels 0, 1, ...
      batch: images that are segmented at a time.
      cache: folder of tallies; None: nothing is kept.
      title: of the progress bar on standard error.
      say: told what was found in the cache.

    Raises:
      ValueError: no image, a batch below 1, or what ``label_maps`` and ``segments.tally`` refuse. OSError: the cache cannot be written.
    """
    if not len(images):
        raise ValueError(f"{images.spec} holds no images; at least 2 are needed")
    if batch < 1:
        raise ValueError(f"batch is {batch}; at least 1 image is segmented at a time")
    rows = np.zeros((len(images), len(classes)))
    parts = [range(start, min(start + PART, len(images))) for start in range(0, len(images), PART)]
    folder = None
    if cache is not None:
        facts = protocol(images, segmenter, classes)
        text = json.dumps(facts, indent=1, sort_keys=True)
        folder = Path(cache).expanduser() / hashlib.sha256(text.encode()).hexdigest()[:40]
        files.write_atomic(folder / "protocol.json", text.encode())
    missing = []
    for part in parts:
        kept = _read(folder / f"{part.start:08d}.npz", (len(part), len(classes))) if folder else None
        if kept is None:
            missing.append(part)
        else:
            rows[part.start : part.stop] = kept
    if len(missing) < len(parts):
        found = len(images) - sum(map(len, missing))
        say(f"{images.spec}: {found:,} of {len(images):,} images were segmented before ({folder})")
    ends = {part.stop - 1: part for part in missing}
    wanted = np.concatenate([np.asarray(part) for part in missing]) if missing else np.zeros(0, int)
    for index, _, labels in _with_bar(label_maps(images, segmenter, wanted, batch=batch, title=title), segmenter, title, len(wanted)):
        try:
            rows[index] = segments.tally([labels], len(classes))[0]
        except ValueError as error:
            raise ValueError(f"{images.spec}, {images.name(index)}, segmenter {segmenter.name}: {error}") from error
        if folder and index in ends:
            part = ends[index]
            buffer = io.BytesIO()
            np.savez_compressed(buffer, rows=rows[part.start : part.stop])
            files.write_atomic(folder / f"{part.start:08d}.npz", buffer.getvalue())
    return rows


def _with_bar(maps: Iterator, segmenter: Any, title: str, total: int) -> Iterator:
    """Label maps that are read rather than computed pass by no bar of ``sources.batches``; they get one here."""
    if segmenter.name != "labels" or not title or not total:
        yield from maps
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(maps, title, total=total, transient=True, console=console, disable=not console.is_terminal)


def _read(path: Path, shape: tuple[int, int]) -> np.ndarray | None:
    """The rows of a part, or None where it is absent, damaged or of another shape: it is then computed again."""
    try:
        # From memory: np.load leaves a file open that it cannot read.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            rows = stored["rows"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    intact = rows.shape == shape and rows.dtype == np.float64 and np.isfinite(rows).all() and np.abs(rows.sum(1) - 1).max() < 1e-6
    return rows if intact else None
