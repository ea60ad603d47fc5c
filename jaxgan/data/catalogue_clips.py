"""Sets of the TFDS catalogue of which clips are made: things on a turntable (smallnorb, coil100), and videos with masks (davis).

A set is prepared as ``jaxgan.data.catalogue`` says, which needs TensorFlow once; it is read without. Of youtube_vis and tao TFDS reads not
even the layout without TensorFlow: their boxes can be written to files for ``jaxgan.data.tracks``.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jaxgan.data import catalogue, folders, pipeline, tracks
from jaxgan.data.clip_import import LENGTH, Video
from jaxgan.data.folders import Settings


class Turntable(NamedTuple):
    """Images of things that turn: by which labels they fall into clips."""

    thing: tuple[str, ...]
    """Labels that name one thing, a group."""
    view: tuple[str, ...]
    """Labels that are equal in a clip besides."""
    angle: str
    """Label that puts its frames in order."""
    turn: int
    """Frames of a whole turn."""


TURNTABLES = {
    "smallnorb": Turntable(("label_category", "instance"), ("label_elevation", "label_lighting"), "label_azimuth", 18),
    "coil100": Turntable(("object_id",), (), "angle", 72),
}
MASKED = ("davis",)
"""Videos whose frames have a mask, 0 for the ground and a number for each thing."""


def open_videos(source: str, settings: Settings, stride: int = 1, root: str = "") -> tuple[dict[str, dict[str, Video]], int]:
    """The videos of each split of the prepared set 'tfds:NAME[/CONFIG]', by name, and how long clips of them are where nobody says.

    A thing on a turntable is a group, and each of its views a video. A video with masks is a group, and each thing in it a track, cut out
    as ``jaxgan.data.tracks`` does by the box of its mask. Raises FileNotFoundError with the commands that prepare the set, and ValueError.
    """
    name = source.removeprefix("tfds:").strip("/")
    kind = name.partition("/")[0]
    if kind not in (*TURNTABLES, *MASKED):
        known = ", ".join(f"tfds:{known}" for known in (*TURNTABLES, *MASKED))
        raise ValueError(f"{source}: clips are made of {known}; of another set, write frames to folders and boxes to CSV files (--boxes)")
    if kind in MASKED and settings.size[0] != settings.size[1]:
        raise ValueError(
            f"size is {settings.size[0]}x{settings.size[1]}, but the things of {source} are cut out as squares; give one number"
        )
    builder = catalogue.open_prepared(name, root)
    records = {split: pipeline.open_records(builder, split) for split, info in builder.info.splits.items() if info.num_examples}
    if kind in MASKED:
        found = {split: _masked(split, part, settings, stride) for split, part in records.items()}
        return found, LENGTH
    table = TURNTABLES[kind]
    return {split: _turns(source, split, part, table, settings, stride) for split, part in records.items()}, table.turn


def _turns(source: str, split: str, records: Any, table: Turntable, settings: Settings, stride: int) -> dict[str, Video]:
    from jaxgan.data import builders

    labels = (*table.thing, *table.view)
    frames: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for i in builders.track(range(len(records)), f"reading the labels of {len(records):,} images of {source} ({split})", len(records)):
        record = _record(records, i)
        frames.setdefault(tuple(int(record[label]) for label in labels), []).append((int(record[table.angle]), i))

    def read(order: list[int]) -> Iterator[tuple[str, int, Any]]:
        from PIL import Image

        images = (Image.open(io.BytesIO(_record(records, i)["image"])).convert("RGB") for i in order)
        yield "", 0, np.stack([folders.framed(image, settings) for image in images])

    found = {}
    for values, places in sorted(frames.items()):
        name = ", ".join(f"{label} {value}" for label, value in zip(labels, values, strict=True))
        group = ", ".join(f"{label} {value}" for label, value in zip(table.thing, values, strict=False))
        found[f"{split}: {name}"] = Video(group, functools.partial(read, [i for _, i in sorted(places)][::stride]))
    return found


def _masked(split: str, records: Any, settings: Settings, stride: int) -> dict[str, Video]:
    def read(i: int) -> Iterator[tuple[str, int, Any]]:
        from PIL import Image

        record = _record(records, i)
        name = record["metadata"]["video_name"].decode()
        cut = [track for thing, boxes in _boxes(record["video"]["segmentations"]).items() for track in tracks.pieces(str(thing), boxes)]
        images = map(Image.fromarray, record["video"]["frames"])
        for track, frames in tracks.cut_out(images, cut, settings, stride, name):
            yield f"{name}/{track.name}", track.first, frames

    return {f"{split}: video {i}": Video(f"{split} {i}", functools.partial(read, i)) for i in range(len(records))}


def _boxes(masks: list[np.ndarray]) -> dict[int, dict[int, tuple[float, ...]]]:
    """Boxes (x, y, w, h) by thing and frame, around masks [H, W, 1]."""
    found: dict[int, dict[int, tuple[float, ...]]] = {}
    for frame, mask in enumerate(masks):
        for thing in np.unique(mask[mask > 0]).tolist():
            rows, columns = np.nonzero(mask[..., 0] == thing)
            box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
            found.setdefault(thing, {})[frame] = tuple(map(float, box))
    return found


def _record(records: Any, i: int) -> dict[str, Any]:
    from jaxgan.data import builders

    try:
        with builders.quiet():
            return records[i]
    except RuntimeError as error:
        raise ValueError(
            f"record {i} of the set cannot be read, it is damaged; remove its folder and prepare it again ({error})"
        ) from error
