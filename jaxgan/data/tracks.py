"""Boxes that a tracker found: read from CSV files, made steady, and cut out of a video's frames as squares."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgan.data.folders import Rejected, Settings
from jaxgan.data.frames import MEMORY_BYTES, Frames

COLUMNS = ("frame", "track", "x", "y", "w", "h")
"""frame: from 0; track: any word; x, y: the upper left corner, w, h: the size, in pixels of the video, fractions too."""
ENLARGED = 1.3
"""The side of a square in the longer side of its box."""
GAP = 10
"""So many frames in a row may lack a box, and get one between its neighbours; where more do, the track is cut in two."""
STEADY = 2.0
"""Deviation in frames of the Gaussian that runs over the squares of a track."""


class Track(NamedTuple):
    """Boxes of one thing in successive frames."""

    name: str
    first: int
    """Number of the first frame."""
    boxes: np.ndarray
    """float64 [T, 4]: x, y, w, h."""


def read_boxes(path, videos: Iterable[str]) -> dict[str, list[Track]]:
    """The tracks of each video that has any.

    `path`: a CSV file with ``COLUMNS`` and a column 'video', which one video alone does not need; or a folder of CSV files, named like the
    videos with '.csv' behind, or in the place of their ending. Other columns are left alone. Raises FileNotFoundError, and ValueError with
    file and line for a video that is not there and for what is no box.
    """
    path, videos = Path(path).expanduser(), list(videos)
    if path.is_dir():
        files = sorted(path.rglob("*.csv"))
        rows = [(_video(videos, file.relative_to(path).as_posix().removesuffix(".csv"), str(file)), file) for file in files]
        if not rows:
            raise ValueError(f"no CSV file lies below {os.fspath(path)!r}; boxes of VIDEO are read from VIDEO.csv")
        if len({video for video, _ in rows}) < len(rows):
            video, file = next(row for i, row in enumerate(rows) if row[0] in [other for other, _ in rows[:i]])
            raise ValueError(f"{file}: another file has boxes of {video} already; put them into one")
        found = {video: _read(file, [video])[video] for video, file in rows}
    elif path.is_file():
        found = _read(path, videos)
    else:
        raise FileNotFoundError(f"there is no file or folder {os.fspath(path)!r} to read boxes from")
    return {
        video: [piece for name, boxes in tracks.items() for piece in pieces(name, boxes)]
        for video, tracks in sorted(found.items())
        if tracks
    }


def pieces(name: str, boxes: dict[int, tuple[float, ...]]) -> list[Track]:
    """Boxes by frame as tracks without gaps: up to ``GAP`` missing ones lie on a line, a longer gap ends a track."""
    frames = np.array(sorted(boxes))
    known = np.array([boxes[frame] for frame in frames], np.float64)
    made = []
    for part in np.split(np.arange(len(frames)), np.flatnonzero(np.diff(frames) > GAP + 1) + 1):
        every = np.arange(frames[part[0]], frames[part[-1]] + 1)
        filled = np.stack([np.interp(every, frames[part], column) for column in known[part].T], 1)
        made.append(Track(name, int(every[0]), filled))
    return made


def squares(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Steady squares around boxes in an image of this size: float64 [T, 3], left, top and side.

    The parts of the boxes in the image count. A square lies in the image where it fits into it; else it is centred in that direction.
    """
    low = np.clip(boxes[:, :2], 0, (width, height))
    high = np.clip(boxes[:, :2] + boxes[:, 2:], 0, (width, height))
    paths = np.concatenate([(low + high) / 2, np.maximum(ENLARGED * (high - low).max(1, keepdims=True), 1)], 1)
    reach = math.ceil(3 * STEADY)
    weights = np.exp(-np.square(np.arange(-reach, reach + 1) / STEADY) / 2)
    padded = np.pad(paths, ((reach, reach), (0, 0)), "edge")
    paths = np.stack([np.convolve(column, weights / weights.sum(), "valid") for column in padded.T], 1).round(6)
    side = paths[:, 2:]
    room = np.array([width, height]) - side
    corner = np.where(room >= 0, np.clip(paths[:, :2] - side / 2, 0, np.maximum(room, 0)), room / 2)
    return np.concatenate([corner, side], 1)


def cut_out(
    images: Iterable, tracks: list[Track], settings: Settings, stride: int, video: str
) -> Iterator[tuple[Track, np.ndarray | Rejected]]:
    """Each track with each `stride`-th of its frames, uint8 [T, H, W, 3], or the reason why it is left out.

    `images`: all frames of the video, PIL images of one size. Raises ValueError for a box outside of the image or behind the video's end.
    """
    ways: list[np.ndarray] = []
    cuts = [Frames(MEMORY_BYTES // max(1, len(tracks))) for _ in tracks]
    size, count = None, 0
    for count, image in enumerate(images, 1):
        if size is None:
            size = image.size
            for track in tracks:
                _check_inside(track, *size, video)
            ways = [squares(track.boxes, *size) for track in tracks]
        if image.size != size:
            raise Rejected(
                f"frame {count - 1} is {image.width}x{image.height}, the first {size[0]}x{size[1]}: boxes need frames of one size"
            )
        for track, way, cut in zip(tracks, ways, cuts, strict=True):
            at = count - 1 - track.first
            if 0 <= at < len(way) and at % stride == 0 and not _too_small(way, settings):
                cut.append(_square(image, way[at], settings))
    check_end(tracks, count, video)
    for track, way, cut in zip(tracks, ways, cuts, strict=True):
        yield track, _too_small(way, settings) or cut.stacked()


def check_end(tracks: list[Track], count: int, video: str) -> None:
    """Raises ValueError where a box lies behind the last of `count` frames."""
    for track in tracks:
        last = track.first + len(track.boxes) - 1
        if last >= count:
            raise ValueError(
                f"{video} has {count} frames, and track {track.name} has a box at frame {last}; frames are numbered from 0, the last is "
                f"{count - 1}"
            )


def _too_small(way: np.ndarray, settings: Settings) -> Rejected | None:
    least = way[:, 2].min()
    if settings.upscale or least >= max(settings.size):
        return None
    return Rejected(f"its smallest square has {least:.0f} pixels a side, fewer than the {max(settings.size)} wanted (--upscale takes it)")


def _check_inside(track: Track, width: int, height: int, video: str) -> None:
    x, y, w, h = track.boxes.T
    outside = np.flatnonzero((x >= width) | (y >= height) | (x + w <= 0) | (y + h <= 0))
    if len(outside):
        box = ",".join(f"{value:g}" for value in track.boxes[outside[0]])
        raise ValueError(
            f"{video}: track {track.name} has the box {box} at frame {track.first + outside[0]}, outside of the image of {width}x{height}; "
            "boxes are x,y,w,h in pixels of this video, from its upper left corner"
        )


def _square(image, square: np.ndarray, settings: Settings) -> np.ndarray:
    """One square of a PIL image, resized; what lies beyond the border repeats it."""
    from PIL import Image

    left, top, side = square
    beyond = math.ceil(max(0, -left, -top, left + side - image.width, top + side - image.height) - 1e-9)
    if beyond:
        image = Image.fromarray(np.pad(np.asarray(image), ((beyond, beyond), (beyond, beyond), (0, 0)), "edge"))
    left, top = left + beyond, top + beyond
    box = (max(left, 0.0), max(top, 0.0), min(left + side, float(image.width)), min(top + side, float(image.height)))
    return np.asarray(image.resize(settings.size[::-1], getattr(Image.Resampling, settings.filter.upper()), box=box))


def _video(videos: list[str], name: str, where: str) -> str:
    """The video that a file or a row names."""
    from jaxgan.configure import nearest

    found = [video for video in videos if name == video] or [video for video in videos if name == os.path.splitext(video)[0]]
    if not found:
        raise ValueError(
            f"{where}: there is no video {name!r}{nearest(name, videos)}; it must be one of the {len(videos)} below the folder"
        )
    if len(found) > 1:
        raise ValueError(f"{where}: {name!r} may be {' or '.join(found)}; write its ending too")
    return found[0]


def _read(file: Path, videos: list[str]) -> dict[str, dict[str, dict[int, tuple[float, ...]]]]:
    """Boxes by video, track and frame."""
    found: dict[str, dict[str, dict[int, tuple[float, ...]]]] = {video: {} for video in videos}
    with file.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        table = csv.DictReader(stream, skipinitialspace=True, restval="")
        try:
            table.fieldnames = names = [name.strip() for name in table.fieldnames or ()]
            needed = COLUMNS if len(videos) == 1 else ("video", *COLUMNS)
            if missing := [name for name in needed if name not in names]:
                remedy = "" if len(videos) == 1 else "; or give each video a file of its own, in a folder"
                raise ValueError(
                    f"{file} has no column {missing[0]!r}: its first line is {','.join(names)!r}, it must name {','.join(needed)}{remedy}"
                )
            for row in table:
                where = f"{file}, line {table.line_num}"
                video = _video(videos, row["video"].strip(), where) if "video" in row else videos[0]
                track, frame, box = _box(row, where)
                boxes = found[video].setdefault(track, {})
                if frame in boxes:
                    raise ValueError(f"{where}: track {track} of {video} has two boxes at frame {frame}; give each thing its own track")
                boxes[frame] = box
        except csv.Error as error:
            raise ValueError(f"{file}, line {table.line_num}: this is no CSV file ({error})") from error
    return found


def _box(row: dict[str, str], where: str) -> tuple[str, int, tuple[float, ...]]:
    """Track, frame, and (x, y, w, h)."""
    try:
        frame, *box = (float(row[name]) for name in ("frame", "x", "y", "w", "h"))
    except ValueError:
        frame, box = math.nan, [math.nan]
    if not all(map(math.isfinite, (frame, *box))) or frame != int(frame) or frame < 0 or min(box[2:]) <= 0 or not row["track"].strip():
        shown = ",".join(row[name] for name in COLUMNS)
        raise ValueError(f"{where}: {shown} ({','.join(COLUMNS)}) is no box; frame is a whole number from 0, track a word, w and h above 0")
    return row["track"].strip(), int(frame), tuple(box)
