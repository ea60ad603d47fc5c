"""Files as PyTorch writes them, put together from opcodes: what a test needs to say exactly what is in one."""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxgan.weights.torch_files import MAGIC


def text(value: str) -> bytes:
    return b"X" + struct.pack("<i", len(value.encode())) + value.encode()


def whole(value: int) -> bytes:
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def several(values) -> bytes:
    return b"(" + b"".join(map(whole, values)) + b"t"


def storage(key: str, count: int, kind: str = "FloatStorage", *, legacy: bool = False, view: bytes = b"N") -> bytes:
    parts = [b"(", text("storage"), f"ctorch\n{kind}\n".encode(), text(key), text("cpu"), whole(count), view if legacy else b"", b"tQ"]
    return b"".join(parts)


def tensor(reference: bytes, offset: int, size, stride) -> bytes:
    rest = several([offset])[1:-1] + several(size) + several(stride) + b"\x89ccollections\nOrderedDict\n)Rt"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + rest + b"R"


def ordered(items: Mapping[str, bytes]) -> bytes:
    """A state dict with the versions of its layers as an attribute, as modules write it."""
    pairs = b"".join(text(name) + value for name, value in items.items())
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + pairs + b"u}" + text("_metadata") + b"ccollections\nOrderedDict\n)Rsb."


def write_zip(path: Path, program: bytes, storages: Mapping[str, bytes], extra: Mapping[str, bytes] | None = None, packed: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, data in {"data.pkl": program, **{f"data/{key}": data for key, data in storages.items()}, **(extra or {})}.items():
            archive.writestr(f"archive/{name}", data)
    return path


def write_legacy(path: Path, program: bytes, storages: Mapping[str, bytes], width: int = 4, prefix: bytes | None = None) -> Path:
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    head = MAGIC + pickle.dumps(1001, 2) + pickle.dumps(system, 2) if prefix is None else prefix
    data = b"".join(struct.pack("<q", len(data) // width) + data for data in storages.values())
    path.write_bytes(head + program + pickle.dumps(list(storages), 2) + data)
    return path


def save_torch(path: Path, arrays: Mapping[str, np.ndarray], *, legacy: bool = False) -> Path:
    """float32 arrays, each with a storage of its own, in C order."""
    items, storages = {}, {}
    for index, (name, array) in enumerate(arrays.items()):
        strides = [step // 4 for step in np.ascontiguousarray(array).strides]
        items[name] = tensor(storage(str(index), array.size, legacy=legacy), 0, array.shape, strides)
        storages[str(index)] = np.ascontiguousarray(array, "<f4").tobytes()
    return (write_legacy if legacy else write_zip)(path, ordered(items), storages)
