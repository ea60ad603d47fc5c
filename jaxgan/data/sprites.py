"""Sprites: characters of pixel art (the Liberated Pixel Cup's layers), every one in 3 actions x 3 directions x 8 frames.

An identity is four attributes, a pose is an action, a direction and a frame; every identity is drawn in every pose, from opaque black with
the layers body, bottomwear, topwear, hair and shoes laid over it in 8 bits.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

FACTORS = (("body", 6), ("bottomwear", 6), ("topwear", 6), ("hair", 6))
POSE = ("action", "direction", "frame")
ACTIONS, DIRECTIONS, FRAMES, SIDE = 3, 3, 8, 64
LAYERS = ("body", "bottomwear", "topwear", "hair", "shoes")
COMPONENTS, SPLIT = "sprites_components.npz", "sprites_split.npz"


class Sprites(NamedTuple):
    """The layers and the characters, as read."""

    layers: dict[str, np.ndarray]
    """uint8 [values, action, direction, frame, 64, 64, 4] by name."""
    characters: np.ndarray
    """int32 [n, 4]: the attributes of every character of one split."""
    digest: str
    """sha256 over both."""


def load(path: str, split: str) -> Sprites:
    """Layers and one split of the characters. `path`: the file of the layers, or its folder; the file of the split lies beside it.

    Raises:
      FileNotFoundError: a file is missing. ValueError: a split that is not there, or a file of other contents.
    """
    where = Path(path).expanduser()
    where = where / COMPONENTS if where.suffix != ".npz" else where
    for file in (where, where.with_name(SPLIT)):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is not there: sprites are read from {COMPONENTS} and {SPLIT} in one folder ('sprites:FOLDER')")
    if split not in ("train", "test"):
        raise ValueError(
            f"sprites have no split {split!r}: their characters are divided into train and test; set data.split to one of them"
        )
    layers = _arrays(where, LAYERS)
    for name, array in layers.items():
        expected = (1 if name == "shoes" else 6, ACTIONS, DIRECTIONS, FRAMES, SIDE, SIDE, 4)
        if array.shape != expected or array.dtype != np.uint8:
            raise ValueError(f"{where}: {name} is {array.dtype} {array.shape}; expected uint8 {expected}")
    parts = _arrays(where.with_name(SPLIT), ("attributes", "n_train"))
    attributes, first = parts["attributes"].astype(np.int32), int(parts["n_train"])
    if (
        attributes.ndim != 2
        or attributes.shape[1] != 4
        or not 0 < first < len(attributes)
        or not ((attributes >= 0) & (attributes < 6)).all()
    ):
        raise ValueError(
            f"{where.with_name(SPLIT)}: attributes {attributes.shape} with n_train {first}; expected [n, 4] in 0..5, n_train < n"
        )
    digest = hashlib.sha256(split.encode())
    for array in (*layers.values(), attributes):
        digest.update(np.ascontiguousarray(array))
    return Sprites(layers, attributes[:first] if split == "train" else attributes[first:], digest.hexdigest())


def compose(layers: dict[str, np.ndarray], identity, action: int, direction: int, frame) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [..., 64, 64, 3], bool [..., 64, 64]): the character, and where any layer covers at least half. `frame`: a number, or a slice.

    Raises ValueError for an attribute, action, direction or frame out of range.
    """
    values = [int(value) for value in identity]
    if len(values) != 4 or not all(0 <= value < 6 for value in values):
        raise ValueError(f"a character is four attributes in 0..5, not {values}")
    if not (0 <= action < ACTIONS and 0 <= direction < DIRECTIONS and (isinstance(frame, slice) or 0 <= frame < FRAMES)):
        raise ValueError(f"there is no pose {(action, direction, frame)}: {ACTIONS} actions, {DIRECTIONS} directions, {FRAMES} frames")
    picture = covered = None
    for name, value in zip(LAYERS, (*values, 0), strict=True):
        layer = layers[name][value, action, direction, frame].astype(np.uint16)
        alpha = layer[..., 3:]
        if picture is None:
            picture, covered = np.zeros_like(layer[..., :3]), np.zeros(layer.shape[:-1], bool)
        picture = (layer[..., :3] * alpha + picture * (255 - alpha) + 127) // 255
        covered |= alpha[..., 0] >= 128
    return picture.astype(np.uint8), covered


def _arrays(file: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            if missing := [name for name in names if name not in archive]:
                raise ValueError(f"{file} holds no array {missing[0]!r}, but {', '.join(archive.files)}")
            return {name: archive[name] for name in names}
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise ValueError(f"{file} is damaged ({error}): fetch it again") from error
