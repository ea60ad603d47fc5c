"""What a photo lost in its reconstruction: the table of class areas, the classes lost, their mask, the sheet that shows both, rankings.

After the paired pictures of Bau et al., "Seeing What a GAN Cannot Generate" (ICCV 2019, arXiv:1910.11626). The table, the mask and the
rankings are jaxgan's own. Everything here works on arrays: images uint8 [H, W, 3], label maps int [h, w] of the whole image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgan import viz
from jaxgan.metrics import segments
from jaxgan.systems import seeing_gallery, seeing_overlay
from jaxgan.systems.seeing import is_nothing
from jaxgan.systems.seeing_page import percent

LOST = 0.5
"""A class is lost where the reconstruction has less than this share of its area in the photo, as for `missing` in `jaxgan seeing`."""
SIDE = 384
"""Longest side of a picture on the sheet: smaller images are enlarged by whole numbers up to it."""
MARGIN, LINE = 8, 18
"""Pixels between pictures, and of a line of text."""
SWATCH = 12
"""Side of a colour in the legend."""
LOST_PIXEL, CHANGED_PIXEL = 255, 128
"""Values of ``mask``."""


class Entry(NamedTuple):
    """A class in the table of a pair; areas are shares of the image, 0 to 1."""

    label: int
    name: str
    photo: float
    result: float
    change: float
    """result - photo: negative where area was lost."""
    gone: float
    """Pixels of the class in the photo where the reconstruction has another one."""
    new: float
    """Pixels of the class in the reconstruction where the photo has another one."""
    lost: bool
    """See ``LOST``; the class covers more than ``segments.PRESENT`` of the photo and does not stand for nothing."""


def table(photo: np.ndarray, result: np.ndarray, names: Sequence[str]) -> list[Entry]:
    """The classes of either map, those that lost most area first.

    Args:
      photo, result: label maps of one shape.
      names: of the labels 0, 1, ...

    Raises:
      ValueError: maps of different shapes, or labels without a name.
    """
    if np.shape(photo) != np.shape(result):
        raise ValueError(f"a pair of label maps of shapes {np.shape(photo)} and {np.shape(result)}: both must be of one size")
    areas, others = segments.tally([photo, result], len(names))
    kept = segments.tally([np.where(photo == result, photo, 0)], len(names))[0]
    kept[0] = ((photo == 0) & (result == 0)).mean()
    entries = []
    for k in np.flatnonzero((areas > 0) | (others > 0)):
        a, b = float(areas[k]), float(others[k])
        lost = a > segments.PRESENT and b < LOST * a and not is_nothing(int(k), names[k])
        entries.append(Entry(int(k), names[k], a, b, b - a, max(0.0, a - float(kept[k])), max(0.0, b - float(kept[k])), lost))
    return sorted(entries, key=lambda entry: (entry.change, entry.label))


def mask(photo: np.ndarray, result: np.ndarray, entries: Sequence[Entry]) -> np.ndarray:
    """uint8 [h, w]: 255 where the pixel belonged to a lost class and has another one now, 128 where any other class changed, 0 else."""
    picture = np.where(photo != result, np.uint8(CHANGED_PIXEL), np.uint8(0))
    for entry in entries:
        if entry.lost:
            picture[seeing_overlay.lost(photo, result, entry.label)] = LOST_PIXEL
    return picture


class Places(NamedTuple):
    """Where the four pictures lie on a sheet."""

    size: tuple[int, int]
    """(height, width) of each."""
    tops: tuple[int, int]
    """Of images and label maps."""
    lefts: tuple[int, int]
    """Of photo and reconstruction."""


def places(height: int, width: int) -> Places:
    """For images of this size."""
    size = seeing_gallery.shown_size(height, width, SIDE)
    top = MARGIN + LINE
    return Places(size, (top, top + size[0] + MARGIN), (MARGIN, 2 * MARGIN + size[1]))


def sheet(
    image: np.ndarray,
    again: np.ndarray,
    photo: np.ndarray,
    result: np.ndarray,
    names: Sequence[str],
    *,
    colours: np.ndarray | None = None,
    headings: Sequence[str] = ("photo", "reconstruction"),
) -> np.ndarray:
    """uint8 [H', W', 3]: photo and reconstruction, their label maps in one palette below, and a legend with the area of each class.

    The legend has the classes with most pixels over both maps, as many as the published tool's (side // 17), and all that were lost.

    Args:
      image, again: uint8 [H, W, 3].
      photo, result: their label maps.
      names: of the labels.
      colours: of the labels; default ``seeing_overlay.palette()``.
      headings: above the two columns.
    """
    from PIL import Image, ImageDraw, ImageFont

    colours = seeing_overlay.palette() if colours is None else colours
    entries = {entry.label: entry for entry in table(photo, result, names)}
    where = places(*image.shape[:2])
    height, width = where.size
    wanted = [label for label, _ in seeing_overlay.legend(np.stack([photo, result]), names, max(seeing_overlay.LEGEND, height // 17))]
    wanted += [label for label, entry in entries.items() if entry.lost and label not in wanted]
    rows = -(-len(wanted) // 2)
    canvas = Image.new("RGB", (where.lefts[1] + width + MARGIN, where.tops[1] + height + MARGIN + rows * LINE + MARGIN), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for left, heading, picture, labels in zip(where.lefts, headings, (image, again), (photo, result), strict=True):
        pen.text((left, MARGIN), viz.fitting(heading, width, font), fill="black", font=font)
        canvas.paste(Image.fromarray(seeing_gallery.enlarge(picture, SIDE)), (left, where.tops[0]))
        canvas.paste(Image.fromarray(seeing_overlay.render(labels, colours, size=where.size)), (left, where.tops[1]))
    for number, label in enumerate(wanted):
        column, row = divmod(number, rows)
        left, top = where.lefts[column], where.tops[1] + height + MARGIN + row * LINE
        colour = tuple(int(value) for value in colours[label % len(colours)]) if label else (0, 0, 0)
        pen.rectangle((left, top + 2, left + SWATCH - 1, top + 1 + SWATCH), fill=colour)
        entry = entries[label]
        words = f"{names[label]}  {percent(100 * entry.photo)} to {percent(100 * entry.result)} %{'  lost' if entry.lost else ''}"
        words = viz.fitting(words.replace("–", "-"), width - SWATCH - 6, font)
        pen.text((left + SWATCH + 6, top + 1), words, fill="#b00000" if entry.lost else "black", font=font)
    return np.asarray(canvas)


def ranking(tables: Mapping[str, Sequence[Entry]], name: str) -> list[dict[str, Any]]:
    """The photos that hold a class, those that lost most of its area first.

    Args:
      tables: by photo.
      name: of the class.

    Returns:
      For each 'photo' its 'area' and 'result' (shares), 'loss' = area - result (negative: it grew), 'lost' (bool).
    """
    found = []
    for photo, entries in tables.items():
        for entry in entries:
            if entry.name == name and entry.photo > 0:
                found.append({"photo": photo, "area": entry.photo, "result": entry.result, "loss": -entry.change, "lost": entry.lost})
    return sorted(found, key=lambda row: -row["loss"])


def summary(tables: Mapping[str, Sequence[Entry]]) -> list[dict[str, Any]]:
    """Over all photos, for each class found: those lost most often first, then those that lost most area.

    Returns:
      'class', 'label', 'photos' (that hold more than ``segments.PRESENT`` of it), 'lost' (in how many of them), 'area' and 'result' (mean
      shares over all photos) and 'change' = result - area.
    """
    count = max(1, len(tables))
    rows: dict[int, dict[str, Any]] = {}
    for entries in tables.values():
        for entry in entries:
            fresh = {"class": entry.name, "label": entry.label, "photos": 0, "lost": 0, "area": 0.0, "result": 0.0, "change": 0.0}
            row = rows.setdefault(entry.label, fresh)
            row["photos"] += entry.photo > segments.PRESENT
            row["lost"] += entry.lost
            for key, value in (("area", entry.photo), ("result", entry.result), ("change", entry.change)):
                row[key] += value / count
    return sorted(rows.values(), key=lambda row: (-row["lost"], row["change"], row["label"]))
