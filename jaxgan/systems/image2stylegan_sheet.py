"""Pictures of an embedding: a sheet with photo, start, result and difference, and a film of the optimisation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgan import viz

CELL = 256
"""Most pixels of a picture's side on the sheet and in the film."""
LINE = 18
"""Height of a line of text in pixels."""
GAIN = 4.0
"""Differences are shown brightened so many times."""
HEADINGS = ("photo", "start", "result", f"|photo - result| x {GAIN:g}")
RATE = 25
"""Pictures a second of a film."""


class Row(NamedTuple):
    """A photo on the sheet; pictures are uint8 [r, r, 3]."""

    name: str
    photo: np.ndarray
    before: np.ndarray
    after: np.ndarray
    numbers: Mapping[str, Any]
    """'psnr', 'psnr_before' (dB), 'lpips', 'lpips_before' (None: not measured), 'distance'."""


def shrink(image: np.ndarray, most: int = CELL) -> np.ndarray:
    """uint8 [H, W, 3], by means over pixels to at most `most` a side; smaller ones as they are."""
    from PIL import Image

    height, width = image.shape[:2]
    if max(height, width) <= most:
        return image
    share = most / max(height, width)
    return np.asarray(Image.fromarray(image).resize((max(1, round(width * share)), max(1, round(height * share))), Image.Resampling.BOX))


def enlarge(image: np.ndarray, least: int = 96) -> np.ndarray:
    """uint8 [H, W, 3], pixels repeated until text fits below."""
    times = max(1, math.ceil(least / image.shape[0]))
    return image.repeat(times, 0).repeat(times, 1)


def measures(psnr: float | None, lpips: float | None) -> list[str]:
    """Lines below a picture."""
    first = "PSNR infinite" if psnr is None else f"PSNR {psnr:.2f} dB"
    return [first, "LPIPS -" if lpips is None else f"LPIPS {lpips:.4f}"]


def sheet(rows: Sequence[Row]) -> np.ndarray:
    """uint8 [H, W, 3]: a line of pictures for each photo, under headings, with PSNR and LPIPS below start and result.

    Raises:
      ValueError: no row.
    """
    from PIL import Image, ImageDraw, ImageFont

    if not rows:
        raise ValueError("a sheet needs at least one photo")
    font = ImageFont.load_default(12)
    lines = []
    for row in rows:
        difference = viz.to_uint8(viz.difference(row.photo, row.after, GAIN))
        pictures = [enlarge(shrink(picture)) for picture in (row.photo, row.before, row.after, difference)]
        numbers = row.numbers
        words = [
            [row.name],
            measures(numbers["psnr_before"], numbers["lpips_before"]),
            measures(numbers["psnr"], numbers["lpips"]),
            ["|w - mean w|", f"{numbers['distance']:.2f}"],
        ]
        lines.append((pictures, words))
    side = max(picture.shape[0] for pictures, _ in lines for picture in pictures)
    step = side + 6
    height = LINE + 4 + len(lines) * (side + 2 * LINE + 8)
    canvas = Image.new("RGB", (4 * step + 2, height), "white")
    pen = ImageDraw.Draw(canvas)
    for column, heading in enumerate(HEADINGS):
        pen.text((4 + column * step, 3), heading, fill="black", font=font)
    for number, (pictures, words) in enumerate(lines):
        top = LINE + 4 + number * (side + 2 * LINE + 8)
        for column, (picture, text) in enumerate(zip(pictures, words, strict=True)):
            left = 4 + column * step
            canvas.paste(Image.fromarray(picture), (left, top))
            for place, line in enumerate(text):
                pen.text((left, top + side + 2 + place * LINE), viz.fitting(line, side, font), fill="black", font=font)
    return np.asarray(canvas)


def frames_beside(photo: np.ndarray, frames: Sequence[np.ndarray], rate: int = RATE) -> Iterator[np.ndarray]:
    """A film's pictures: the photo beside the image so far, uint8 [r, r, 3] each -> [even, even, 3]; the end stands for a second."""
    for frame in [*frames, *[frames[-1]] * rate]:
        picture = viz.strip([photo, frame])
        yield np.pad(picture, ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0)), mode="edge")  # H.264 halves the colours
