"""What is in a set: a contact sheet to look at, and a few facts to read."""

from __future__ import annotations

import colorsys
import math
import os

import numpy as np

from jaxgan import configure
from jaxgan.data import clips, pipeline

FACTS_IMAGES = 2000
"""Class frequencies are counted on at most this many images, spread evenly over the set."""
FRAMES = 16
"""Frames of a clip on a sheet, at most; of longer ones, frames spread evenly over it."""


# One colour for each of `scenes.CLASSES`: near what the class looks like, the rare ones glaring.
_SCENE_COLOURS = (
    (0, 0, 0), (96, 170, 255), (255, 230, 0), (235, 235, 200), (225, 235, 245), (140, 120, 140), (40, 110, 90), (120, 200, 80),
    (220, 190, 60), (90, 90, 100), (20, 70, 220), (0, 120, 40), (200, 90, 60), (255, 190, 120),
    (255, 0, 0), (255, 0, 255), (255, 255, 255), (255, 128, 0), (0, 255, 255),
)  # fmt: skip


def palette() -> np.ndarray:
    """Colours uint8 [256, 3] of labels: those of scenes first, then hues by the golden ratio, which neighbours in number do not share."""
    colours = list(_SCENE_COLOURS)
    for i in range(len(colours), 256):
        red, green, blue = colorsys.hsv_to_rgb(i * 0.618 % 1, 0.55 + 0.4 * (i % 2), 1 - 0.3 * (i % 3) / 2)
        colours.append((int(255 * red), int(255 * green), int(255 * blue)))
    return np.asarray(colours, np.uint8)


def overlay(image: np.ndarray, labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3]: the label colours over a grey picture of the image."""
    grey = image.mean(-1, keepdims=True)
    return (0.35 * grey + 0.65 * colours[labels]).astype(np.uint8)


def contact_sheet(tiles: np.ndarray, columns: int, gap: int = 2) -> np.ndarray:
    """uint8 [n, H, W, C] -> one uint8 [H', W', 3] with `columns` tiles a row on white; C of 1, 3 or 4 (over white)."""
    n, height, width, channels = tiles.shape
    if channels == 4:
        share = tiles[..., 3:] / 255.0
        tiles = (tiles[..., :3] * share + 255 * (1 - share) + 0.5).astype(np.uint8)
    rows = math.ceil(n / columns)
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        sheet[y : y + height, x : x + width] = tile
    return sheet


def show(data: configure.Data, image: tuple[int, int, int], out, *, n: int = 64) -> dict:
    """Writes a contact sheet (PNG) of `n` images of the set to `out`, each beside its label map where there is one; returns facts.

    Clips are rows, their frames columns, as many rows as `n` frames fill. Facts: source, split, count, size, and for scenes `classes`:
    {name: {'pixels': share, 'images': share}}, measured on at most 2,000 images; for clips in the place of the count how many `clips`,
    `frames` in a clip and `groups`, and where known the factors of `identity`. Small images are enlarged to at least 96 pixels by
    repetition. Raises ValueError or FileNotFoundError with the remedy.
    """

    if n < 1:
        raise ValueError(f"n is {n}, but a contact sheet has at least 1 image")
    if clips.names_clips(data.source):
        tiles, columns, facts = _of_clips(clips.open_clips(data, image, drawn=True), data, n)
    else:
        tiles, columns, facts = _of_images(data, image, n)
    zoom = max(1, math.ceil(96 / image[0]))
    _write(out, contact_sheet(tiles.repeat(zoom, 1).repeat(zoom, 2), columns))
    return facts


def _of_images(data: configure.Data, image: tuple[int, int, int], n: int) -> tuple[np.ndarray, int, dict]:
    """The sheet's tiles [n, H, W, C], how many of them fill a row, and the facts."""
    from jaxgan.data.scenes import CLASSES

    source = DrawnScenes(data, image) if data.source == "scenes" else pipeline.open_source(data, image, labels=True)
    n = min(n, len(source))
    records = [source[i * len(source) // n] for i in range(n)]
    tiles = [record["image"] for record in records]
    if source.labels:
        colours = palette()
        tiles = [tile for record in records for tile in (record["image"], overlay(record["image"], record["label"], colours))]
    columns = min(max(1, round(math.sqrt(len(tiles) * image[0] / image[1]))), len(tiles))
    if source.labels:
        columns += columns % 2  # a pair stays on one row
    facts = {"source": data.source, "split": data.split, "count": len(source), "size": list(image)}
    if data.source == "scenes":
        facts["classes"] = class_shares(source, CLASSES)
    return np.stack(tiles), columns, facts


def _of_clips(found: clips.Clips, data: configure.Data, n: int) -> tuple[np.ndarray, int, dict]:
    """As `_of_images`; rows of clips that are shorter than others end in white."""
    lengths = [found.length(i) for i in range(len(found))]
    columns = min(max(lengths), FRAMES)
    rows = min(max(1, n // columns), len(found))
    firsts = np.sort(np.unique(found.group, return_index=True)[1])
    among = firsts if rows <= len(firsts) else np.arange(len(found))  # of many clips of one group, rows would show the same thing
    tiles = np.full((rows, columns, *found.image), 255, np.uint8)
    for row, clip in enumerate(among[np.arange(rows) * len(among) // rows]):
        shown = min(lengths[clip], columns)
        tiles[row, :shown] = found.frames(clip)[np.arange(shown) * lengths[clip] // shown]
    frames = f"{min(lengths)} to {max(lengths)}" if min(lengths) < max(lengths) else lengths[0]
    facts = {"source": data.source, "split": data.split, "clips": len(found), "frames": frames, "groups": len(np.unique(found.group))}
    facts["size"] = list(found.image)
    if found.identity is not None:
        facts["identity"] = ", ".join(f"{name} {count}" for name, count in found.factors)
    return tiles.reshape(-1, *found.image), columns, facts


def _write(out, sheet: np.ndarray) -> None:
    from etils import epath

    from jaxgan.data.drawers import encode_png

    out = epath.Path(out).expanduser()
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    partial.write_bytes(encode_png(sheet))
    partial.replace(out)


class DrawnScenes:
    """What `pipeline.open_source` gives for scenes, drawn on demand: to look at a few of 50,000, none needs to be on disk."""

    labels = True

    def __init__(self, data: configure.Data, image: tuple[int, int, int]):
        from jaxgan.data import builders

        pipeline.check_scenes(data, image)
        splits = {"train": (data.count, 0), "test": (builders.test_count(data.count), builders.TEST_SEED)}
        if data.split not in splits:
            raise ValueError(f"there is no split {data.split!r} in scenes; use train or test")
        self.size, self.periodic, self.without, (self.count, self.seed) = image[:2], data.periodic, data.without, splits[data.split]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        from jaxgan.data.scenes import draw_scene

        image, labels = draw_scene(index, *self.size, periodic=self.periodic, seed=self.seed, without=self.without)
        return {"image": image, "label": labels}


def class_shares(source, classes: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Share of the pixels that each class covers, and share of the images that hold it."""
    n = min(len(source), FACTS_IMAGES)
    counts = np.stack([np.bincount(source[i * len(source) // n]["label"].ravel(), minlength=len(classes)) for i in range(n)])
    pixels, images = counts.sum(0) / counts.sum(), (counts > 0).mean(0)
    return {name: {"pixels": float(pixels[k]), "images": float(images[k])} for k, name in enumerate(classes)}
