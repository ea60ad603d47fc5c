"""Figures: one small coloured creature in every identity and every pose, drawn by code (chosen here; numpy alone, nothing is random in it).

Identity: a shape of 4, a body hue of 8, an accent hue of 8 and a pattern of 3, 768 in all. Pose: place, heading and the angle of one arm.
The arm is drawn behind the body and points backwards; an eye in the accent's hue sits off the axis, so that no shape looks the same in two
headings. Any identity can be drawn in any pose, so that a swap of two frames has a true picture.
"""

from __future__ import annotations

import colorsys
import functools
from typing import NamedTuple

import numpy as np

FACTORS = (("shape", 4), ("body", 8), ("accent", 8), ("pattern", 3))
"""Names and numbers of values of an identity, in order."""
SHAPES = ("disc", "square", "triangle", "cross")
PATTERNS = ("none", "stripes", "dots")
POSE = ("x", "y", "heading", "arm")
"""x, y: the centre, in halves of the width, to the right and down; heading: radians from right to down; arm: radians from backwards."""
PLACE, ARM = 0.35, 1.3
"""x and y lie within +-PLACE, the arm's angle within +-ARM."""
FRAMES = 16
GROUNDS = ("plain", "dark", "clip", "frame")
"""plain: one grey, between the brightest and the darkest bodies. dark: every body is brighter. clip: a texture of each clip, a shortcut to
who it is. frame: a texture of each frame."""
SPLITS = {"train": 600, "validation": 68, "test": 100}
"""Identities of each split; no identity is in two."""
EVEN = {"plain": 128, "dark": 16}
"""Grey levels of the grounds that are the same everywhere."""

# Hues stand 45 degrees apart; accents lie between the bodies' hues and are brighter, so that no accent hides on any body.
BODIES = np.array([colorsys.hsv_to_rgb(k / 8, 0.90, 0.85) for k in range(8)], np.float32) * 255
ACCENTS = np.array([colorsys.hsv_to_rgb((k + 0.5) / 8, 0.55, 1.00) for k in range(8)], np.float32) * 255
RIM = 20.0
"""Grey of the ring around the eye."""


class Facts(NamedTuple):
    """What the clips of a split show."""

    identity: np.ndarray
    """int32 [n, 4]."""
    pose: np.ndarray
    """float32 [n, T, 4]."""
    seeds: np.ndarray
    """int64 [n], of the grounds."""


def render(identity, pose, size: int = 64, ground: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """One frame: (image uint8 [size, size, 3], mask bool [size, size], True where at least half of a pixel is figure).

    Args:
      identity: 4 whole numbers, in the order of ``FACTORS``.
      pose: 4 floats, in the order of ``POSE``.
      size: side in pixels; drawn at twice that and averaged over 2 x 2.
      ground: uint8 [size, size, 3] behind the figure; None: that of 'plain'.

    Raises:
      ValueError: a factor out of range, a pose that is not 4 finite numbers, a size below 8, a ground of another size.
    """
    shape, body, accent, pattern = _identity(identity)
    pose = np.asarray(pose, np.float32)
    if pose.shape != (4,) or not np.isfinite(pose).all():
        raise ValueError(f"a pose is 4 finite numbers ({', '.join(POSE)}), not {pose.tolist()}")
    if size < 8:
        raise ValueError(f"size is {size}; figures are drawn at 8 pixels or more")
    if ground is not None and ground.shape != (size, size, 3):
        raise ValueError(f"ground has shape {ground.shape}; it must be {(size, size, 3)}")
    x, y, heading, arm = (float(value) for value in pose)
    line = _line(size)
    right, down = line[None, :] - np.float32(x), line[:, None] - np.float32(y)
    cos, sin = np.float32(np.cos(heading)), np.float32(np.sin(heading))
    along, across = right * cos + down * sin, down * cos - right * sin  # the body's own axes: forwards, and to its right hand

    inside = _body(SHAPES[shape], along, across)
    eye = (along - 0.155) ** 2 + (across - 0.12) ** 2
    back = (np.float32(-np.cos(arm)), np.float32(-np.sin(arm)))
    reach = np.clip(along * back[0] + across * back[1], 0, 0.53)
    limb = (along - reach * back[0]) ** 2 + (across - reach * back[1]) ** 2 < 0.085**2

    side = 2 * size
    colours = np.empty((side, side, 3), np.float32)
    colours[:] = EVEN["plain"] if ground is None else ground.repeat(2, 0).repeat(2, 1)
    colours[limb] = ACCENTS[accent]
    colours[inside] = BODIES[body]
    if pattern:
        colours[inside & _marks(PATTERNS[pattern], along, across)] = BODIES[body] * 0.45
    colours[inside & (eye < 0.16**2)] = RIM
    colours[inside & (eye < 0.12**2)] = ACCENTS[accent]
    figure = inside | limb
    image = colours.reshape(size, 2, size, 2, 3).sum((1, 3)) / 4
    covered = figure.reshape(size, 2, size, 2).sum((1, 3), dtype=np.int32)
    return np.rint(image).astype(np.uint8), covered >= 2


def even(ground: str, size: int) -> np.ndarray:
    """A ground of ``EVEN``, uint8 [size, size, 3]."""
    return np.full((size, size, 3), EVEN[ground], np.uint8)


def texture(size: int, seed: int) -> np.ndarray:
    """A smooth field of random pale colours, uint8 [size, size, 3]: 6 x 6 colours, interpolated."""
    coarse = np.random.default_rng((17, seed)).uniform(90, 240, (6, 6, 3))
    at = (np.arange(size) + 0.5) / size * 5
    low = np.minimum(at.astype(int), 4)
    part = at - low
    rows = coarse[low] * (1 - part)[:, None, None] + coarse[low + 1] * part[:, None, None]
    return np.rint(rows[:, low] * (1 - part)[None, :, None] + rows[:, low + 1] * part[None, :, None]).astype(np.uint8)


def identities(split: str) -> np.ndarray:
    """The identities of a split, int32 [n, 4]: 600 for training, 68 for validation, 100 for tests, shuffled once with a fixed seed."""
    if split not in SPLITS:
        raise ValueError(f"there is no split {split!r} of figures; it has: {', '.join(SPLITS)}")
    counts = [count for _, count in FACTORS]
    order = np.random.default_rng(20191027).permutation(int(np.prod(counts)))
    first = sum(list(SPLITS.values())[: list(SPLITS).index(split)])
    return np.stack(np.unravel_index(order[first : first + SPLITS[split]], counts), 1).astype(np.int32)


def facts(split: str, count: int, frames: int = FRAMES) -> Facts:
    """What clips 0..count-1 of a split show; clip i is the same for every count. Identities come in turn; poses move evenly.

    Place and arm have a constant velocity and stay at the end of their range when they reach it; the heading goes round.
    """
    chosen = identities(split)
    poses = np.empty((count, frames, 4), np.float32)
    number, times = list(SPLITS).index(split), np.arange(frames)[:, None]
    for i in range(count):
        rng = np.random.default_rng((7, number, i))
        start = rng.uniform((-PLACE, -PLACE, -np.pi, -ARM), (PLACE, PLACE, np.pi, ARM))
        velocity = rng.uniform(-1, 1, 4) * (0.05, 0.05, 0.2, 0.2)
        path = start + times * velocity
        path[:, :2] = path[:, :2].clip(-PLACE, PLACE)
        path[:, 2] = (path[:, 2] + np.pi) % (2 * np.pi) - np.pi
        path[:, 3] = path[:, 3].clip(-ARM, ARM)
        poses[i] = path
    seeds = np.arange(count, dtype=np.int64) + number * 1_000_000_000
    return Facts(chosen[np.arange(count) % len(chosen)], poses, seeds)


def draw_clip(identity, poses, size: int, ground: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All frames of a clip: (uint8 [T, size, size, 3], bool [T, size, size])."""
    if ground not in GROUNDS:
        raise ValueError(f"ground is {ground!r}; figures stand on one of: {', '.join(GROUNDS)}")
    drawn = []
    for t, pose in enumerate(poses):
        behind = even(ground, size) if ground in EVEN else texture(size, seed * 1000 + (t if ground == "frame" else 999))
        drawn.append(render(identity, pose, size, behind))
    return np.stack([image for image, _ in drawn]), np.stack([mask for _, mask in drawn])


def _identity(identity) -> tuple[int, ...]:
    values = tuple(int(value) for value in identity)
    for value, (name, count) in zip(values, FACTORS, strict=True):
        if not 0 <= value < count:
            raise ValueError(f"{name} is {value}; it must be in 0..{count - 1}")
    return values


@functools.lru_cache(16)
def _line(size: int) -> np.ndarray:
    """Centres of 2 * size pixels between -1 and 1."""
    return ((np.arange(2 * size, dtype=np.float32) + 0.5) / size - 1).astype(np.float32)


def _body(shape: str, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Which points lie in the body; its axes are forwards and to the right."""
    if shape == "disc":
        return along**2 + across**2 < 0.38**2
    if shape == "square":
        return np.maximum(abs(along), abs(across)) < 0.335
    if shape == "triangle":  # its tip forwards
        return (along > -0.285) & (along * 0.5 + abs(across) * np.float32(3**0.5 / 2) < 0.285)
    return (np.maximum(abs(along), abs(across)) < 0.43) & (np.minimum(abs(along), abs(across)) < 0.18)


def _marks(pattern: str, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    if pattern == "stripes":
        return (along + 10) % 0.24 < 0.12
    return ((along + 10.2) % 0.24 - 0.12) ** 2 + ((across + 10.2) % 0.24 - 0.12) ** 2 < 0.08**2
