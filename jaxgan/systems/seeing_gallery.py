"""Which images show a class, and how: the class marked on the image, its mask, and for pairs of images the pixels that lost it."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgan.systems import seeing_overlay
from jaxgan.systems.seeing_tally import label_maps

SHOWN = 256
"""Longest side of the pictures on the page; smaller images are enlarged by whole numbers up to it."""


class Segmented(NamedTuple):
    """One image of a gallery."""

    image: np.ndarray
    """uint8 [H, W, 3], as the segmenter saw it."""
    labels: np.ndarray
    """int [h, w]."""


def largest(rows: np.ndarray, label: int, count: int) -> list[int]:
    """The images with the largest area of a class, largest first; only those that hold it. rows: tally [n, classes]."""
    order = np.argsort(-rows[:, label], kind="stable")[:count]
    return [int(i) for i in order if rows[i, label] > 0]


def most_lost(real: np.ndarray, fake: np.ndarray, pairs: Sequence[tuple[int, int]], label: int, count: int) -> list[tuple[int, int]]:
    """The pairs (i, j) with the largest `real[i, label] - fake[j, label]`, largest first; only those in which area is lost."""
    loss = np.array([real[i, label] - fake[j, label] for i, j in pairs])
    return [pairs[k] for k in np.argsort(-loss, kind="stable")[:count] if loss[k] > 0]


def pair_names(real: Sequence[str], fake: Sequence[str], paired: str) -> list[tuple[int, int]]:
    """Positions of the images of equal name in both sources, in the order of real.

    Args:
      real, fake: names of the images.
      paired: 'no': none; 'yes': by name; 'auto': by name where all names of both sources are the same and do not only count (two unrelated
        sources may both have 000000, 000001, ... or img_0001, img_0002, ...): some differ in more than their digits, folders aside.

    Raises:
      ValueError: 'yes' without any common name, a name that is there twice, or another word.
    """
    if paired not in ("auto", "yes", "no"):
        raise ValueError(f"paired is {paired!r}; use auto, yes or no")
    if paired == "no":
        return []
    stems = [[name.rsplit(".", 1)[0] for name in names] for names in (real, fake)]
    if paired == "auto" and (set(stems[0]) != set(stems[1]) or _only_count(stems[0])):
        return []
    for side, names in zip(("real", "fake"), stems, strict=True):
        if len(set(names)) < len(names):
            if paired == "auto":
                return []
            twice = next(name for k, name in enumerate(names) if name in names[:k])
            raise ValueError(f"the {side} source holds {twice!r} twice (whatever the extension), so its images cannot be paired by name")
    place = {name: j for j, name in enumerate(stems[1])}
    pairs = [(i, place[name]) for i, name in enumerate(stems[0]) if name in place]
    if not pairs:
        raise ValueError(f"no image of the real source ({real[0]}, ...) has the name of one of the fake source ({fake[0]}, ...)")
    return pairs


def _only_count(names: Sequence[str]) -> bool:
    """Whether the names, folders aside, are one pattern with numbers in it."""
    patterns = {re.sub(r"\d+", "0", name.rsplit("/", 1)[-1]) for name in names}
    return len(patterns) == 1 and "0" in patterns.pop()


def segment(images: Any, segmenter: Any, wanted: Sequence[int], batch: int) -> dict[int, Segmented]:
    """The chosen images with their label maps, by position."""
    wanted = sorted(set(wanted))
    return {i: Segmented(image, labels) for i, image, labels in label_maps(images, segmenter, wanted, batch=batch)}


def shown_size(height: int, width: int, most: int = SHOWN) -> tuple[int, int]:
    """(height, width) in which an image is shown: the largest whole multiple up to `most` pixels, or reduced to them."""
    longest = max(height, width)
    if longest <= most:
        return height * (most // longest), width * (most // longest)
    return max(1, round(height * most / longest)), max(1, round(width * most / longest))


def enlarge(image: np.ndarray, most: int = SHOWN) -> np.ndarray:
    """uint8 [H, W, 3] brought to ``shown_size``: small ones by repeating pixels, large ones by a filter."""
    height, width = shown_size(*image.shape[:2], most)
    if max(image.shape[:2]) <= most:
        return image.repeat(height // image.shape[0], 0).repeat(width // image.shape[1], 1)
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def jpeg(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as the bytes of a JPEG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=86)
    return buffer.getvalue()


def png(image: np.ndarray) -> bytes:
    """uint8 [H, W, 3] or [H, W], or bool [H, W], as the bytes of a PNG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image.astype(np.uint8) * 255 if image.dtype == bool else image).save(buffer, "PNG")
    return buffer.getvalue()


class Gallery:
    """Collects the galleries of a report, and the pictures that they use."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        """As in report.json."""
        self.shown: dict[str, bytes] = {}
        """Pictures of the page, by name."""
        self.files: dict[str, bytes] = {}
        """Pictures for the folder `images`, by path below it: as the segmenter saw them, marked, the mask, and all labels."""

    def view(self, key: str, side: str, what: Segmented, mask: np.ndarray) -> dict[str, str]:
        """One image with a mask; returns its entry in a tile."""
        picture = enlarge(what.image)
        self.shown[f"{key}-plain"] = jpeg(picture)
        self.shown[f"{key}-marked"] = jpeg(seeing_overlay.highlight(picture, mask))
        self.files[f"{key}.png"] = png(what.image)
        self.files[f"{key}-marked.png"] = png(seeing_overlay.highlight(what.image, mask))
        self.files[f"{key}-mask.png"] = png(np.asarray(mask, bool))
        self.files[f"{key}-labels.png"] = png(seeing_overlay.tint(what.image, what.labels, seeing_overlay.palette()))
        return {"side": side, "plain": f"{key}-plain", "marked": f"{key}-marked"}

    def add(self, label: int, name: str, sides: Mapping[str, Any], rows: Mapping[str, np.ndarray], chosen: Mapping[str, Sequence[int]],
            segmented: Mapping[str, Mapping[int, Segmented]]) -> None:  # fmt: skip
        """A gallery of a class in unpaired sources: the images with the largest area of it, real ones first."""
        folder = _folder(label, name)
        tiles = []
        for side in ("real", "fake"):
            for rank, i in enumerate(chosen[side], 1):
                what = segmented[side][i]
                view = self.view(f"{folder}/{side}-{rank:02d}", side, what, what.labels == label)
                area = 100 * float(rows[side][i, label])
                tiles.append({"name": sides[side].name(i), "side": side, "area": area, "about": f"{side}, {area:.2g} %", "views": [view]})
        about = "the real and the fake images with most of it, and how much of the image it covers"
        self.entries.append({"label": label, "name": name, "kind": "largest area", "about": about, "images": tiles})

    def add_pairs(self, label: int, name: str, sides: Mapping[str, Any], rows: Mapping[str, np.ndarray], pairs: Sequence[tuple[int, int]],
                  segmented: Mapping[str, Mapping[int, Segmented]], names: Sequence[str]) -> None:  # fmt: skip
        """A gallery of a class in paired sources: the pairs that lost most of it, with a table of what else changed in each."""
        folder = _folder(label, name)
        tiles = []
        for rank, (i, j) in enumerate(pairs, 1):
            real, fake = segmented["real"][i], segmented["fake"][j]
            other = seeing_overlay.zoom(fake.labels, real.labels.shape)
            gone = seeing_overlay.lost(real.labels, other, label)
            views = [
                self.view(f"{folder}/pair-{rank:02d}-real", "real", real, gone),
                self.view(f"{folder}/pair-{rank:02d}-fake", "fake", fake, fake.labels == label),
            ]
            loss = 100 * float(rows["real"][i, label] - rows["fake"][j, label])
            table = [
                {"class": kind, "real": 100 * a, "fake": 100 * b, "change": 100 * c}
                for kind, a, b, c in seeing_overlay.pair_table(real.labels, fake.labels, names)
            ]
            about = f"{loss:.2g} % lost"
            tiles.append({"name": sides["real"].name(i), "side": "pair", "area": loss, "about": about, "views": views, "classes": table})
        about = "the pairs that lost most of it; left the real image with the lost pixels marked, right the fake one with what is left"
        self.entries.append({"label": label, "name": name, "kind": "lost area", "about": about, "images": tiles})


def _folder(label: int, name: str) -> str:
    """A folder name that any file system takes: number and name of the class."""
    return f"{label:03d}-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')[:40]}".rstrip("-")
