"""Photos that a generator shall draw again: files and folders, read with suspicion, cropped and resized to the generator's image."""

from __future__ import annotations

import collections
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxgan.data import folders
from jaxgan.data.framing import frame

GREY = (128, 128, 128)
"""Of the bars of the crop 'pad'."""
MAX_PIXELS = 64_000_000
"""Larger photos are rejected before they are decoded."""
MAX_NAME = 200
"""Most bytes of a result's name: file systems take 255, and a folder being written has a longer one."""
CHANGED = "has changed since this run first read it: put the old file back, or name another folder with --out for the new one"
CROPS = ("exact", "center", "none", "pad")
"""'exact': a photo of another size than the generator's is rejected; 'center': the largest part of the image's proportions in the middle;
'none': all of it, squeezed; 'pad': all of it, with grey bars."""


class Framing(Protocol):
    """How photos become images of the generator's size; options of commands have these fields, among others."""

    @property
    def crop(self) -> str:
        """One of ``CROPS``."""

    @property
    def filter(self) -> str:
        """Of the resize, one of ``framing.FILTERS``."""


class Frame(NamedTuple):
    """A ``Framing`` alone."""

    crop: str = "center"
    filter: str = "lanczos"


class Photo(NamedTuple):
    """A photo that can be read."""

    name: str
    """Of its folder in the output."""
    path: Path
    digest: str
    """sha256 of its pixels at the generator's size."""
    size: tuple[int, int]
    """(width, height) of the file."""


def find(specs: Sequence[Any], reserved: Sequence[str] = ()) -> dict[str, Path]:
    """Files by the names under which their results are written: the path below the folder given, without its ending, '/' as '_'.

    Args:
      specs: files and folders.
      reserved: names in the output, in small letters, that are no photo's; hidden ones are none's either.

    Raises:
      FileNotFoundError: a file or folder is not there. ValueError: a folder without photos, a file twice, or a name too long.
    """
    found: list[tuple[str, Path]] = []
    for spec in specs:
        path = Path(spec).expanduser()
        if path.is_dir():
            names = folders.image_files(path)
            if not names:
                raise ValueError(f"{path} holds no photo: no file below it ends in {', '.join(folders.SUFFIXES)}")
            found += [(name, path / name) for name in names]
        elif path.is_file():
            found.append((path.name, path))
        else:
            raise FileNotFoundError(f"{path} does not exist: --images takes files and folders of PNG, JPEG or WebP")
    real = collections.Counter(os.path.realpath(path) for _, path in found)
    if twice := [path for path, count in real.items() if count > 1]:
        raise ValueError(f"{twice[0]} is given twice: name every photo once")
    plain = [_plain(os.path.splitext(name)[0], reserved) for name, _ in found]
    count = collections.Counter(plain)
    whole = [_plain(name, reserved) if count[short] > 1 else short for (name, _), short in zip(found, plain, strict=True)]
    if clash := [name for name, times in collections.Counter(whole).items() if times > 1]:
        places = ", ".join(str(path) for (_, path), name in zip(found, whole, strict=True) if name == clash[0])
        raise ValueError(f"{places} would all be written as {clash[0]}: rename them, or give them different folders with --out")
    for (_, path), name in zip(found, whole, strict=True):
        if (length := len(name.encode())) > MAX_NAME:
            raise ValueError(f"{path} would be written as a folder whose name has {length} bytes; at most {MAX_NAME}: rename it")
    return dict(zip(whole, (path for _, path in found), strict=True))


def _plain(name: str, reserved: Sequence[str] = ()) -> str:
    """A name that is one folder of the output: no separators, not hidden, not one of the output's own files."""
    name = name.replace(os.sep, "_").replace("/", "_").lstrip(".") or "photo"
    name = name.encode("utf-8", "replace").decode()
    return f"{name}_" if name.lower() in reserved else name


def read(path: Path, size: tuple[int, int], framing: Framing, channels: int = 3) -> tuple[np.ndarray, tuple[int, int]]:
    """(uint8 [H, W, channels] for `size` = (H, W), (width, height) of the file). Raises ``folders.Rejected`` with the reason."""
    from etils import epath

    sizes: list[tuple[int, int]] = []

    def finish(image: Any, settings: folders.Settings) -> np.ndarray:
        from PIL import Image, ImageOps

        sizes.append(image.size)
        if framing.crop == "exact" and image.size != size[::-1]:
            remedy = "--crop center takes the middle and resizes it, none squeezes all of it, pad adds bars"
            raise folders.Rejected(f"it is {image.size[0]}x{image.size[1]}, and the generator draws {size[1]}x{size[0]}: {remedy}")
        if framing.crop != "pad":
            return frame(image, size, "none" if framing.crop == "exact" else framing.crop, framing.filter)
        method = getattr(Image.Resampling, framing.filter.upper())
        pixels = np.asarray(ImageOps.pad(image, size[::-1], method, color=GREY if channels == 3 else 0))
        return pixels[..., None] if pixels.ndim == 2 else pixels

    settings = folders.Settings(size, "none", framing.filter, channels, "white", True, MAX_PIXELS, 0.0)
    pixels = folders.read_with(epath.Path(path), settings, finish)
    return pixels, sizes[0]


def read_again(photo: Photo, size: tuple[int, int], framing: Framing) -> np.ndarray:
    """uint8 [H, W, 3] of a photo that was checked before; ValueError where it is another one now, or cannot be read."""
    try:
        pixels, _ = read(photo.path, size, framing)
    except folders.Rejected as error:
        raise ValueError(f"{photo.path} {CHANGED} ({error})") from error
    if content_digest(pixels) != photo.digest:
        raise ValueError(f"{photo.path} {CHANGED}")
    return pixels


def check(found: dict[str, Path], size: tuple[int, int], framing: Framing) -> tuple[list[Photo], dict[str, str]]:
    """(photos that can be read, {path: reason} of the others); every file is decoded once."""

    def look(item: tuple[str, Path]) -> Photo | tuple[str, str]:
        name, path = item
        try:
            pixels, there = read(path, size, framing)
        except folders.Rejected as error:
            return str(path), str(error)
        return Photo(name, path, content_digest(pixels), there)

    seen = list(folders.in_threads(look, list(found.items())))
    return [one for one in seen if isinstance(one, Photo)], dict(one for one in seen if not isinstance(one, Photo))


def accept(found: dict[str, Path], size: tuple[int, int], framing: Framing, skip_bad: bool = False) -> tuple[list[Photo], dict[str, str]]:
    """As ``check``; ValueError that names the first photos that cannot be read, unless `skip_bad` and some can."""
    photos, rejects = check(found, size, framing)
    if rejects and (not skip_bad or not photos):
        listed = "; ".join(f"{path}: {why}" for path, why in list(rejects.items())[:5])
        more = f"; and {len(rejects) - 5} more" if len(rejects) > 5 else ""
        remedy = "" if not photos else " (--skip-bad leaves them out)"
        raise ValueError(f"{len(rejects)} of {len(found)} photos cannot be read: {listed}{more}{remedy}")
    return photos, rejects


def companions(folder: Any, photos: Sequence[Photo], what: str) -> list[Path]:
    """The file of each photo's name in a folder of masks or other images, of the same size as the photo.

    Raises:
      FileNotFoundError: the folder or a file is not there. ValueError: a file cannot be read, or has another size.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise FileNotFoundError(f"{place} is not a folder; --{what} names one that holds a file of each photo's name")
    there: dict[str, list[Path]] = collections.defaultdict(list)
    for name in folders.image_files(place):
        there[_plain(os.path.splitext(name)[0])].append(place / name)
    paths = []
    for photo in photos:
        files = there.get(photo.name, [])
        if len(files) != 1:
            held = "no file" if not files else f"{len(files)} files"
            raise FileNotFoundError(f"{place} holds {held} for the photo {photo.name}; one {photo.name}.png (or .jpg, .webp) is needed")
        try:
            _, size = read(files[0], (1, 1), Frame())
        except folders.Rejected as error:
            raise ValueError(f"{files[0]}: {error}") from error
        if size != photo.size:
            sizes = f"{size[0]}x{size[1]}, and the photo {photo.path} {photo.size[0]}x{photo.size[1]}"
            raise ValueError(f"{files[0]} is {sizes}: both are cropped and resized alike, so they must have one size")
        paths.append(files[0])
    return paths


def content_digest(image: np.ndarray) -> str:
    """sha256 of an image's pixels and shape."""
    return hashlib.sha256(f"{image.dtype} {image.shape}".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
