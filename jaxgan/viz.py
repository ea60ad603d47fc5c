"""Pictures of results: grids, strips, differences, PNG files, and how visible the seams between patches are."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxgan import files


def to_uint8(images: Any) -> np.ndarray:
    """Float images in [-1, 1] as uint8, rounded and clipped; uint8 passes unchanged.

    Raises:
      ValueError: another dtype, or a value that is not finite.
    """
    images = np.asarray(images)
    if images.dtype == np.uint8:
        return images
    if not (np.issubdtype(images.dtype, np.floating) or images.dtype.name == "bfloat16"):
        raise ValueError(f"images of dtype {images.dtype}: give uint8 in [0, 255] or floats in [-1, 1]")
    images = images.astype(np.float32)
    if not np.isfinite(images).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(images))} of {images.size} image values are not finite")
    return np.clip(np.rint((images + 1.0) * 127.5), 0, 255).astype(np.uint8)


def _colours(images: np.ndarray) -> np.ndarray:
    """Three channels: one is repeated, two get an empty third, of more the first three are shown."""
    channels = images.shape[-1]
    if channels == 1:
        return np.repeat(images, 3, axis=-1)
    if channels == 2:
        return np.concatenate([images, np.zeros_like(images[..., :1])], axis=-1)
    return images[..., :3]


def grid(images: Any, columns: int | None = None) -> np.ndarray:
    """Images side by side, row by row, with a white line of 2 pixels between them.

    Args:
      images: ``[n, H, W, C]``, float in [-1, 1] or uint8.
      columns: images in a row; default the number that makes the picture about square.

    Returns:
      uint8 ``[rows * (H + 2) - 2, columns * (W + 2) - 2, 3]``; cells without an image are white.

    Raises:
      ValueError: not four axes, no image, or fewer than one column.
    """
    images = to_uint8(images)
    if images.ndim != 4 or images.shape[0] == 0:
        raise ValueError(f"images of shape {images.shape}: give [n, H, W, C] with at least one image")
    images = _colours(images)
    n, height, width, _ = images.shape
    if columns is None:
        columns = min(n, max(1, round(math.sqrt(n * height / width))))
    if columns < 1:
        raise ValueError(f"columns = {columns}: give at least 1")
    rows = -(-n // columns)
    sheet = np.full((rows * (height + 2) - 2, columns * (width + 2) - 2, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + 2), index % columns * (width + 2)
        sheet[top : top + height, left : left + width] = image
    return sheet


def strip(images: Sequence[Any]) -> np.ndarray:
    """Images ``[H, W, C]`` of one height in a row, as uint8 ``[H, W', 3]``; widths may differ.

    Raises:
      ValueError: no image, or heights that differ.
    """
    parts = [_colours(to_uint8(image)) for image in images]
    heights = {part.shape[0] for part in parts}
    if len(heights) != 1:
        raise ValueError(f"a strip needs images of one height, not {sorted(heights)}")
    line = np.full((heights.pop(), 2, 3), 255, np.uint8)
    return np.concatenate([piece for part in parts for piece in (part, line)][:-1], axis=1)


def difference(first: Any, second: Any, gain: float = 4.0) -> np.ndarray:
    """|first - second| per pixel and channel, brightened ``gain`` times: float in [-1, 1], -1 where the two are equal.

    Raises:
      ValueError: shapes that differ.
    """
    first, second = (to_uint8(image).astype(np.float32) / 255.0 for image in (first, second))
    if first.shape != second.shape:
        raise ValueError(f"images of shapes {first.shape} and {second.shape} cannot be compared pixel by pixel")
    return np.clip(np.abs(first - second) * gain, 0.0, 1.0) * 2.0 - 1.0


def write_png(path: Any, image: Any) -> None:
    """Writes ``[H, W, C]`` (float in [-1, 1] or uint8; C of 1 or 3) as a PNG, whole or not at all.

    Raises:
      ValueError: another shape. OSError: the file cannot be written.
    """
    from PIL import Image

    image = to_uint8(image)
    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise ValueError(f"an image of shape {image.shape} is no PNG: give [H, W, 3] or [H, W, 1]")
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    files.write_atomic(path, buffer.getvalue())


def read_png(path: Any) -> np.ndarray:
    """The PNG as uint8 ``[H, W, 3]``.

    Raises:
      OSError: absent, or no image.
    """
    from etils import epath
    from PIL import Image

    with Image.open(io.BytesIO(epath.Path(path).read_bytes())) as image:
        return np.asarray(image.convert("RGB"))


def fitting(text: str, width: int, font: Any) -> str:
    """The text, its end cut off where it is wider than `width` pixels in a PIL font; characters that the font lacks become '?'."""
    text = text.encode("latin-1", "replace").decode("latin-1")
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text


def seam_lines(size: int, patch: int) -> list[int]:
    """The first pixel of every patch but the first, along one side.

    Raises:
      ValueError: the patch does not divide the side.
    """
    if patch < 1 or size % patch:
        raise ValueError(f"patches of {patch} pixels do not divide a side of {size}")
    return list(range(patch, size, patch))


def seam_statistic(images: Any, patch: tuple[int, int], periodic: bool = False) -> dict[str, float]:
    """How much sharper the image changes across the borders of patches than elsewhere.

    The mean of |I[:, kp] - I[:, kp - 1]| over the borders, divided by the mean over all other neighbouring columns (and rows): about 1
    where no seam can be seen (jaxgan's own measure).

    Args:
      images: ``[n, H, W, C]``, float or uint8.
      patch: (height, width) of a micro patch in pixels.
      periodic: also measure across the wrap column (last against first), for panoramas.

    Returns:
      'columns' and 'rows' (each where there is such a border), 'wrap' where periodic, and 'seam', the mean of 'columns' and 'rows'.
      NaN where the image does not change at all.

    Raises:
      ValueError: not four axes, or patches that do not divide the image.
    """
    images = np.asarray(images)
    if images.ndim != 4:
        raise ValueError(f"images of shape {images.shape}: give [n, H, W, C]")
    images = images.astype(np.float32)
    result: dict[str, float] = {}
    for name, axis, side in (("columns", 2, patch[1]), ("rows", 1, patch[0])):
        lines = seam_lines(images.shape[axis], side)
        steps = np.abs(np.diff(images, axis=axis)).mean(axis=tuple(a for a in range(4) if a != axis), dtype=np.float64)
        border = np.zeros(len(steps), bool)
        border[[line - 1 for line in lines]] = True
        inside = steps[~border].mean() if (~border).any() else 0.0
        if lines:
            result[name] = float(steps[border].mean() / inside) if inside else math.nan
        if periodic and axis == 2:
            wrap = np.abs(images[:, :, 0] - images[:, :, -1]).mean(dtype=np.float64)
            result["wrap"] = float(wrap / inside) if inside else math.nan
    both = [result[name] for name in ("columns", "rows") if name in result]
    if both:
        result["seam"] = float(np.mean(both))
    return result
