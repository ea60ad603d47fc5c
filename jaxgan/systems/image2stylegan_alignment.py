"""Whether a photo's face lies where a generator of aligned faces expects it: eyes and mouth of a face parser against FFHQ's framing.

With e the distance of the eyes and m that of the eyes' middle to the mouth, the side of FFHQ's square is taken to be 2 max(2 e, 1.8 m), and
its centre 0.1 m below the eyes' middle. Faces that a generator of FFHQ draws bear it out: on four of MobileStyleGAN's that side is 1.00,
1.00, 1.00 and 1.09 of the image's, and the centre lies within 0.3 % of the image's. A face that lies otherwise gets a code, too, but a
poorer one: what the generator knows of faces is tied to their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxgan import photos as reading
from jaxgan.nets.bisenet import CLASSES
from jaxgan.systems.image2stylegan_options import Options

LEFT, RIGHT = CLASSES.index("l_eye"), CLASSES.index("r_eye")
MOUTH = tuple(CLASSES.index(name) for name in ("mouth", "u_lip", "l_lip"))
SHIFT, SCALE, TILT = 0.06, 1.25, 10.0
"""How far the centre may lie from the middle (share of the side), by what factor the size, by how many degrees the eyes' line."""
LEAST = 1e-4
"""Share of the image that an eye must cover to be taken for one."""


def judge(labels: np.ndarray) -> str:
    """What is wrong with the place of the face in a label map [H, W] of ``bisenet.CLASSES``; empty where nothing is.

    Faces of which an eye or the mouth cannot be seen are not judged: the answer says so.
    """
    height, width = labels.shape
    parts = [_centre(labels == LEFT), _centre(labels == RIGHT), _centre(np.isin(labels, MOUTH))]
    if any(part is None for part in parts):
        missing = [name for name, part in zip(("left eye", "right eye", "mouth"), parts, strict=True) if part is None]
        return f"no {' and no '.join(missing)} found: its place cannot be judged"
    left, right, mouth = sorted(parts[:2], key=lambda part: part[0]) + parts[2:]
    middle = (left + right) / 2
    eyes, down = right - left, mouth - middle
    centre = middle + 0.1 * down
    offset = (centre - np.array([width, height]) / 2) / min(width, height)
    tilt = np.degrees(np.arctan2(eyes[1], eyes[0]))
    size = 2 * max(2 * np.hypot(*eyes), 1.8 * np.hypot(*down)) / min(width, height)
    found = []
    if np.abs(offset).max() > SHIFT:
        sides = (("left", "right"), ("up", "down"))
        words = [
            f"{abs(share):.0%} too far {side[int(share > 0)]}" for share, side in zip(offset, sides, strict=True) if abs(share) > SHIFT
        ]
        found.append("the face lies " + " and ".join(words))
    if not 1 / SCALE <= size <= SCALE:
        found.append(f"it is {max(size, 1 / size):.1f} times too {'large' if size > 1 else 'small'}")
    if down[1] < 0:
        found.append("it is upside down")
    if abs(tilt) > TILT:
        found.append(f"its eyes are tilted by {abs(tilt):.0f} degrees")
    return ", ".join(found)


def _centre(mask: np.ndarray) -> np.ndarray | None:
    """(x, y) of a part's middle in pixels, None where it is too small to be one."""
    if mask.mean() < LEAST:
        return None
    rows, columns = np.nonzero(mask)
    return np.array([columns.mean() + 0.5, rows.mean() + 0.5])


def warnings_of(photos: Sequence[reading.Photo], options: Options, segmenter: Any = None) -> list[str]:
    """One sentence for each photo whose face does not lie as FFHQ's; `segmenter`: default bisenetv2.

    Raises:
      FileNotFoundError: its weights are not on this machine.
    """
    from jaxgan.segmenters import BATCH, open_segmenter

    segmenter = open_segmenter("bisenetv2") if segmenter is None else segmenter
    side, found = segmenter.size[0], []
    for first in range(0, len(photos), BATCH):
        part = photos[first : first + BATCH]
        labels = segmenter.label(np.stack([reading.read(photo.path, (side, side), options)[0] for photo in part]))
        found += [f"{photo.name}: {words}" for photo, one in zip(part, labels, strict=True) if (words := judge(one))]
    return found
