"""The photos of an embedding: files and folders, read with suspicion, cropped and resized to the generator's square."""

from __future__ import annotations

import collections
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgan.data import folders
from jaxgan.data.framing import frame
from jaxgan.systems.image2stylegan_codes import content_digest
from jaxgan.systems.image2stylegan_options import Options

GREY = (128, 128, 128)
"""Of the bars of the crop 'pad'."""
MAX_PIXELS = 64_000_000
"""Larger photos are rejected before they are decoded."""
RESERVED = ("sheet.png", "embed.json", "film.mp4")
"""Names in the output that are no photo's; hidden ones (.search) are none's either, see ``_plain``."""
MAX_NAME = 200
"""Most bytes of a result's name: file systems take 255, and a folder being written has a longer one."""
CHANGED = "has changed since this run first read it: put the old file back, or embed the new one into another folder with --out"


class Photo(NamedTuple):
    """A photo that can be read."""

    name: str
    """Of its folder in the output."""
    path: Path
    digest: str
    """sha256 of its pixels at the generator's size."""
    size: tuple[int, int]
    """(width, height) of the file."""


def find(specs: Sequence[Any]) -> dict[str, Path]:
    """Files by the names under which their results are written: the path below the folder given, without its ending, '/' as '_'.

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
    plain = [_plain(os.path.splitext(name)[0]) for name, _ in found]
    count = collections.Counter(plain)
    whole = [_plain(name) if count[short] > 1 else short for (name, _), short in zip(found, plain, strict=True)]
    if clash := [name for name, times in collections.Counter(whole).items() if times > 1]:
        places = ", ".join(str(path) for (_, path), name in zip(found, whole, strict=True) if name == clash[0])
        raise ValueError(f"{places} would all be written as {clash[0]}: rename them, or embed them into different folders")
    for (_, path), name in zip(found, whole, strict=True):
        if (length := len(name.encode())) > MAX_NAME:
            raise ValueError(f"{path} would be written as a folder whose name has {length} bytes; at most {MAX_NAME}: rename it")
    return dict(zip(whole, (path for _, path in found), strict=True))


def _plain(name: str) -> str:
    """A name that is one folder of the output: no separators, not hidden, not one of the output's own files."""
    name = name.replace(os.sep, "_").replace("/", "_").lstrip(".") or "photo"
    name = name.encode("utf-8", "replace").decode()
    return f"{name}_" if name.lower() in RESERVED else name


def read(path: Path, side: int, options: Options, channels: int = 3) -> tuple[np.ndarray, tuple[int, int]]:
    """(uint8 [side, side, channels], (width, height) of the file). Raises ``folders.Rejected`` with the reason."""
    from etils import epath

    sizes: list[tuple[int, int]] = []

    def finish(image: Any, settings: folders.Settings) -> np.ndarray:
        from PIL import Image, ImageOps

        sizes.append(image.size)
        if options.crop != "pad":
            return frame(image, (side, side), options.crop, options.filter)
        method = getattr(Image.Resampling, options.filter.upper())
        pixels = np.asarray(ImageOps.pad(image, (side, side), method, color=GREY if channels == 3 else 0))
        return pixels[..., None] if pixels.ndim == 2 else pixels

    settings = folders.Settings((side, side), "none", options.filter, channels, "white", True, MAX_PIXELS, 0.0)
    pixels = folders.read_with(epath.Path(path), settings, finish)
    return pixels, sizes[0]


def read_again(photo: Photo, side: int, options: Options) -> np.ndarray:
    """uint8 [side, side, 3] of a photo that was checked before; ValueError where it is another one now, or cannot be read."""
    try:
        pixels, _ = read(photo.path, side, options)
    except folders.Rejected as error:
        raise ValueError(f"{photo.path} {CHANGED} ({error})") from error
    if content_digest(pixels) != photo.digest:
        raise ValueError(f"{photo.path} {CHANGED}")
    return pixels


def check(found: dict[str, Path], side: int, options: Options) -> tuple[list[Photo], dict[str, str]]:
    """(photos that can be read, {path: reason} of the others); every file is decoded once."""

    def look(item: tuple[str, Path]) -> Photo | tuple[str, str]:
        name, path = item
        try:
            pixels, size = read(path, side, options)
        except folders.Rejected as error:
            return str(path), str(error)
        return Photo(name, path, content_digest(pixels), size)

    seen = list(folders.in_threads(look, list(found.items())))
    return [one for one in seen if isinstance(one, Photo)], dict(one for one in seen if not isinstance(one, Photo))


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
            _, size = read(files[0], 1, Options())
        except folders.Rejected as error:
            raise ValueError(f"{files[0]}: {error}") from error
        if size != photo.size:
            sizes = f"{size[0]}x{size[1]}, and the photo {photo.path} {photo.size[0]}x{photo.size[1]}"
            raise ValueError(f"{files[0]} is {sizes}: both are cropped and resized alike, so they must have one size")
        paths.append(files[0])
    return paths
