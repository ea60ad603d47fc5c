"""Arrays read from files that other people made: ``.safetensors`` and ``.npz``, checked, never unpickled."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MAX_BYTES = 8 * 2**30
"""Largest file, and largest sum of arrays, that is read."""
MAX_ARRAYS = 20_000
MAX_RATIO = 200
"""Largest ratio of unpacked to packed bytes of an ``.npz`` above 256 MiB; measured weights stay below 2, plain zeros reach 1,000."""
MAX_SIDES = 32
"""Most dimensions of an array, as every numpy takes them."""
MAX_HEADER = 100_000_000
"""Largest header of a safetensors file in bytes, as the format's own library has it."""

_SAFETENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip


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
        return read_npz(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)[0]
    pickles = " (it may hold a pickle, which could run any code)" if path.suffix in (".pkl", ".pt", ".pth", ".ckpt", ".npy") else ""
    raise ValueError(f"{path}: files of type {path.suffix or '(none)'} are not read{pickles}; convert it to .safetensors or .npz")


def read_safetensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(arrays by name, metadata) of a safetensors file; bfloat16 becomes float32, which holds it exactly.

    Raises:
      ValueError: a header that is not one, offsets that overlap, leave gaps, lie outside the file or do not fit dtype and shape.
    """
    path = Path(path)
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise ValueError(f"{path} is not an intact safetensors file: it has {size:,} bytes, and its header should have {length:,}")
        try:
            header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_once)
            metadata = header.pop("__metadata__", {})
            entries = {name: (entry["dtype"], tuple(entry["shape"]), tuple(entry["data_offsets"])) for name, entry in header.items()}
            if len(entries) > MAX_ARRAYS or not all(isinstance(value, str) for value in metadata.values()):
                raise ValueError(f"{len(entries):,} arrays (at most {MAX_ARRAYS:,} are read), or metadata that is not text")
            _check_safetensors(entries, size - 8 - length)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} is not an intact safetensors file: {error}") from error
        arrays = {}
        for name, (dtype, shape, offsets) in entries.items():
            file.seek(8 + length + offsets[0])
            array = np.fromfile(file, dtype=_SAFETENSORS[dtype], count=math.prod(shape)).reshape(shape)
            arrays[name] = (array.astype(np.uint32) << np.uint32(16)).view(np.float32) if dtype == "BF16" else array
    return arrays, metadata


def _check_safetensors(entries: Mapping[str, tuple[str, tuple[int, ...], tuple[int, ...]]], size: int) -> None:
    """ValueError unless the arrays cover the `size` bytes of data once, without gaps, each as its dtype and shape say."""
    for name, (dtype, shape, offsets) in entries.items():
        if dtype not in _SAFETENSORS:
            raise ValueError(f"{name!r} has dtype {dtype!r}; read are {', '.join(_SAFETENSORS)}")
        if len(offsets) != 2 or not all(type(number) is int and number >= 0 for number in (*shape, *offsets)):
            raise ValueError(f"{name!r} has shape {shape} and offsets {offsets}: both hold whole numbers from 0")
        if offsets[1] > size:
            raise ValueError(f"{name!r} ends at byte {offsets[1]:,} of {size:,}: the file is cut short, or its header is wrong")
        if offsets[1] - offsets[0] != math.prod(shape) * np.dtype(_SAFETENSORS[dtype]).itemsize:
            raise ValueError(f"{name!r} of {dtype} {shape} does not have {offsets[1] - offsets[0]:,} bytes")
        if len(shape) > MAX_SIDES or max(shape, default=0) > MAX_BYTES:
            raise ValueError(f"{name!r} has {len(shape)} sides, or one longer than {MAX_BYTES:,}; at most {MAX_SIDES} are read")
    position, before = 0, "the header"
    for name, (_, _, offsets) in sorted(entries.items(), key=lambda item: item[1][2]):
        if offsets[0] != position:
            raise ValueError(f"{name!r} {'overlaps' if offsets[0] < position else 'leaves a gap after'} {before!r}")
        position, before = offsets[1], name
    if position != size:
        raise ValueError(f"{size - position:,} bytes after the last array belong to none")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name is in the header twice")
    return dict(pairs)


def read_npz(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` file; ValueError for objects, damage, other entries, or what would unpack to too much."""
    path = Path(path)
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            total = sum(entry.file_size for entry in entries)
            if len(entries) > MAX_ARRAYS or total > MAX_BYTES:
                raise ValueError(f"{path} unpacks to {len(entries):,} arrays, {total:,} bytes; at most {MAX_ARRAYS:,}, {MAX_BYTES:,}")
            if total > 2**28 and total > MAX_RATIO * path.stat().st_size:
                raise ValueError(f"{path} unpacks to {total:,} bytes, more than {MAX_RATIO} times its own {path.stat().st_size:,}")
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                if name in arrays or not entry.filename.endswith(".npy"):
                    raise ValueError(f"{path}: entry {entry.filename!r} is not an array, or is there twice")
                with archive.open(entry) as file:
                    arrays[name] = _read_npy(file, entry.file_size, f"{path}: array {name!r}")
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, IndexError, OSError, zlib.error, MemoryError) as error:
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


def arrays_checksum(arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 over names, dtypes, shapes and numbers: the same whichever kind of file holds them, in whichever order."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        array = np.asarray(array, order="C")
        digest.update(json.dumps([name, str(array.dtype), list(array.shape)]).encode())
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)
    return digest.hexdigest()
