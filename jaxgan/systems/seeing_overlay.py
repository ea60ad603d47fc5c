"""Label maps as pictures: colours by label, legends, outlines of a class on its photograph, and what a pair of images does not share.

The rules of drawing are those of Bau et al., "Seeing What a GAN Cannot Generate" (ICCV 2019, arXiv:1910.11626), official code.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

OUTLINE = (255, 214, 10)
"""Yellow of the line around a mask."""
LEGEND = 6
"""Labels in a legend, where nothing else is asked for."""


@functools.cache
def palette(count: int = 256) -> np.ndarray:
    """Colours uint8 [count, 3] for labels: black for 0, then each as far as possible from all before it, in Oklab (Ottosson, 2020).

    Colours nearer to grey, black or white than an outline on a photograph can afford are left out.
    """
    levels = np.arange(0, 256, 15)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    share = rgb / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(linear @ np.array([[0.4122214708, 0.2119034982, 0.0883024619], [0.5363325363, 0.6806995451, 0.2817188376],
                                       [0.0514459929, 0.1073969566, 0.6299787005]]))  # fmt: skip
    lab = cones @ np.array([[0.2104542553, 1.9779984951, 0.0259040371], [0.7936177850, -2.4285922050, 0.7827717662],
                            [-0.0040720468, 0.4505937099, -0.8086757660]])  # fmt: skip
    bright = (lab[:, 0] > 0.5) & (lab[:, 0] < 0.93) & (np.hypot(lab[:, 1], lab[:, 2]) > 0.09)
    rgb, lab = rgb[bright], lab[bright]
    if count > len(rgb):
        raise ValueError(f"a palette of {count} colours was asked for; at most {len(rgb)} are told apart")
    chosen = [int(np.argmax(lab[:, 2]))]  # the most yellow first: it stands out on most photographs
    apart = np.full(len(lab), np.inf)
    while len(chosen) < count - 1:
        apart = np.minimum(apart, ((lab - lab[chosen[-1]]) ** 2).sum(-1))
        chosen.append(int(np.argmax(apart)))
    return np.concatenate([np.zeros((1, 3), np.uint8), rgb[chosen][: count - 1].astype(np.uint8)])


def truncate(images: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] as uint8 the official way: (x / 2 + 0.5) * 255 clamped to 0..255 and cut, not rounded. Any shape."""
    return np.clip((np.asarray(images) / 2 + 0.5) * 255, 0, 255).astype(np.uint8)


def zoom(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Nearest neighbour: [h, w, ...] -> [H, W, ...]; pixel y of the result is pixel y * h // H of the picture."""
    rows = np.arange(size[0]) * picture.shape[0] // size[0]
    columns = np.arange(size[1]) * picture.shape[1] // size[1]
    return picture[rows[:, None], columns]


def _by_count(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(labels that occur, pixels of each), most pixels first, of equals the lowest label first."""
    found, counts = np.unique(labels, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return found[order], counts[order]


def render(labels: np.ndarray, colours: np.ndarray, *, size: tuple[int, int] | None = None, single: int | None = None) -> np.ndarray:
    """A label map, or several that share one picture, as uint8 [h, w, 3].

    Args:
      labels: int [h, w] or [maps, h, w] (object, material, part: a pixel may carry several labels). 0 stays black.
      colours: uint8 [n, 3]; label k is drawn in `colours[k % n]`, those of most pixels first, so that rare ones lie on top.
      size: (H, W) to zoom to, nearest neighbour.
      single: draw this label alone.

    Raises:
      ValueError: another number of axes.
    """
    labels = np.asarray(labels)
    if labels.ndim not in (2, 3):
        raise ValueError(f"a label map of shape {labels.shape}: give [h, w] or [maps, h, w]")
    maps = labels.reshape(-1, *labels.shape[-2:])
    picture = np.zeros((*maps.shape[1:], 3), np.uint8)
    found, counts = _by_count(maps)
    # Of labels with equally many pixels the lowest is drawn last.
    for label in found[np.lexsort((-found, -counts))]:
        if label != 0 and (single is None or label == single):
            picture[(maps == label).any(0)] = colours[int(label) % len(colours)]
    return picture if size is None else zoom(picture, size)


def legend(labels: np.ndarray, names: Sequence[str], count: int = LEGEND) -> list[tuple[int, str]]:
    """(label, name) of the labels with most pixels over all maps together, 0 included; at most `count`."""
    return [(int(label), names[label]) for label in _by_count(labels)[0][:count]]


def border(mask: np.ndarray) -> np.ndarray:
    """bool [h, w]: pixels outside `mask` that touch it, corners included."""
    padded = np.pad(np.asarray(mask, bool), 1)
    height, width = mask.shape
    near = np.zeros((height, width), bool)
    for y in range(3):
        for x in range(3):
            near |= padded[y : y + height, x : x + width]
    return near & ~np.asarray(mask, bool)


def highlight(image: np.ndarray, mask: np.ndarray, colour: Sequence[int] = OUTLINE) -> np.ndarray:
    """uint8 [H, W, 3]: the image at half its brightness outside `mask`, with a line around the mask two pixels wide.

    Args:
      image: uint8 [H, W, 3]. mask: bool [h, w], zoomed to the image. colour: of the line.
    """
    mask = zoom(np.asarray(mask, bool), image.shape[:2])
    return outline(np.where(mask[..., None], image, image // 2), mask, colour)


def outline(image: np.ndarray, mask: np.ndarray, colour: Sequence[int] = OUTLINE) -> np.ndarray:
    """uint8 [H, W, 3]: the image with a line around `mask` (bool [h, w], zoomed to the image) two pixels wide."""
    mask = zoom(np.asarray(mask, bool), image.shape[:2])
    line = border(mask)
    line |= border(mask | line)
    picture = image.copy()
    picture[line] = colour
    return picture


def tint(image: np.ndarray, labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3]: the label colours over a grey picture of the image; label 0 stays grey."""
    drawn = render(labels, colours, size=image.shape[:2]).astype(np.float32)
    grey = image.astype(np.float32).mean(-1, keepdims=True)
    kept = zoom(np.asarray(labels) == 0, image.shape[:2])[..., None]
    return np.where(kept, grey, 0.45 * grey + 0.55 * drawn).astype(np.uint8)


def lost(real: np.ndarray, fake: np.ndarray, label: int) -> np.ndarray:
    """bool [h, w]: pixels that are of class `label` in the real map and of another in the fake one; maps of one shape.

    Raises:
      ValueError: shapes that differ.
    """
    if real.shape != fake.shape:
        raise ValueError(f"a pair of label maps of shapes {real.shape} and {fake.shape}: both must be of one size")
    return (real == label) & (fake != label)


def pair_table(real: np.ndarray, fake: np.ndarray, names: Sequence[str]) -> list[tuple[str, float, float, float]]:
    """What a pair of label maps differs in: (name, share in real, share in fake, fake - real), largest loss first; classes in either."""
    shares = [np.bincount(np.asarray(labels).ravel(), minlength=len(names)) / labels.size for labels in (real, fake)]
    change = shares[1] - shares[0]
    seen = np.flatnonzero((shares[0] > 0) | (shares[1] > 0))
    order = seen[np.argsort(change[seen], kind="stable")]
    return [(names[k], float(shares[0][k]), float(shares[1][k]), float(change[k])) for k in order]
