"""Arrays read from files that other people made: ``.safetensors`` and ``.npz``, checked, never unpickled."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

MAX_BYTES = 8 * 2**30
"""Largest file, and largest sum of arrays, that is read."""
MAX_ARRAYS = 20_000


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a ``.npz`` or ``.safetensors`` file, by name.

    Raises:
      ValueError: another kind of file, pickled objects, a damaged file, or more than ``MAX_BYTES`` or ``MAX_ARRAYS``; nothing is unpickled.
      FileNotFoundError: no such file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read")
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(path)
        except (SafetensorError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is not an intact safetensors file: {error}") from error
    pickles = " (it may hold a pickle, which could run any code)" if path.suffix in (".pkl", ".pt", ".pth", ".ckpt", ".npy") else ""
    raise ValueError(f"{path}: files of type {path.suffix or '(none)'} are not read{pickles}; convert it to .safetensors or .npz")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            total = sum(entry.file_size for entry in entries)
            if len(entries) > MAX_ARRAYS or total > MAX_BYTES:
                raise ValueError(f"{path} unpacks to {len(entries):,} arrays, {total:,} bytes; at most {MAX_ARRAYS:,}, {MAX_BYTES:,}")
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                if name in arrays or not entry.filename.endswith(".npy"):
                    raise ValueError(f"{path}: entry {entry.filename!r} is not an array, or is there twice")
                with archive.open(entry) as file:
                    arrays[name] = _read_npy(file, entry.file_size, f"{path}: array {name!r}")
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ValueError(f"{path} is not an intact .npz file: {error}") from error
    return arrays


def _read_npy(file: Any, size: int, what: str) -> np.ndarray:
    """One array of a zip entry; its header is checked against the entry's size before memory is taken."""
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read_header is None:
        raise ValueError(f"{what} has a header of version {version}, which only structured types need")
    shape, fortran, dtype = read_header(file)
    if dtype.kind not in "fiubUS":
        raise ValueError(f"{what} has dtype {dtype}; only numbers and text are read (objects could run any code)")
    count = int(np.prod(shape, dtype=object)) if shape else 1
    if count * dtype.itemsize != size - file.tell():
        raise ValueError(f"{what} is damaged: its header says {dtype} {shape}, the entry holds {size - file.tell():,} bytes")
    array = np.frombuffer(file.read(), dtype=dtype)
    return array.reshape(shape, order="F" if fortran else "C").copy()


def check_arrays(
    arrays: Mapping[str, np.ndarray], expected: Mapping[str, tuple[str, tuple[int, ...]]], where: Any, *, complete: bool = False
) -> None:
    """ValueError naming the arrays that are missing, of another dtype or shape, or (``complete``) unknown."""
    wrong = []
    for name, (dtype, shape) in expected.items():
        if name not in arrays:
            wrong.append(f"{name} is missing")
        elif (str(arrays[name].dtype), arrays[name].shape) != (dtype, tuple(shape)):
            wrong.append(f"{name} is {arrays[name].dtype} {arrays[name].shape}, not {dtype} {tuple(shape)}")
    if complete:
        wrong.extend(f"{name} is not known" for name in arrays if name not in expected)
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(f"{where}: {'; '.join(wrong[:5])}{more}")


def check_finite(arrays: Mapping[str, np.ndarray], where: Any) -> None:
    """ValueError naming the arrays that hold NaN or infinity."""
    wrong = [name for name, array in arrays.items() if array.dtype.kind == "f" and not np.isfinite(array).all()]
    if wrong:
        raise ValueError(f"{where}: not finite: {', '.join(wrong[:5])}{f' and {len(wrong) - 5} more' if len(wrong) > 5 else ''}")


def checksum(path: str | Path) -> str:
    """sha256 of a file, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
