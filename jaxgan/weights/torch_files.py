"""Tensors saved by PyTorch, zip and legacy layout, read without PyTorch.

Both layouts hold a pickle that names, for each tensor, a storage, an offset, a size and strides. The pickle is read by
``jaxgan.weights.pickles`` with the few names below; storages are raw numbers.
"""

from __future__ import annotations

import io
import math
import mmap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgan.arrays import MAX_ARRAYS, MAX_BYTES
from jaxgan.weights.pickles import Global, Refused, keyed, shown, unpickle

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of the legacy layout: the pickled number 0x1950a86a20f9469cfc6c."""
MAX_DEPTH = 16
"""Deepest nesting of dicts and lists that is followed."""
MAX_NAME = 1000
"""Longest name of a tensor; the published ones stay below 200."""

_STORAGES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bfloat16", "LongStorage": "i8",
    "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "b1",
}  # fmt: skip


class _Storage(NamedTuple):
    key: str
    dtype: str
    count: int
    """Numbers in the whole storage."""
    start: int
    length: int
    """The part of it that tensors of this reference count from, and may not leave."""


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def read_zip(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a file of torch 1.6 or later, by name; names of nested dicts are joined by dots. bfloat16 becomes float32.

    Raises:
      ValueError: something other than tensors in dicts is asked for (named), a damaged archive, or tensors that leave their storage.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            total = sum(entry.file_size for entry in entries.values())
            if len(entries) != len(archive.infolist()) or any(entry.compress_type for entry in entries.values()):
                raise ValueError(f"{path}: entries that are compressed or there twice, which torch does not write")
            if total > path.stat().st_size or len(entries) > MAX_ARRAYS:
                raise ValueError(f"{path}: {len(entries):,} entries of {total:,} bytes in a file of {path.stat().st_size:,}")
            pickles = [name for name in entries if name == "data.pkl" or (name.endswith("/data.pkl") and name.count("/") == 1)]
            if len(pickles) != 1:
                raise ValueError(f"{path} holds {len(pickles)} files data.pkl; a torch file has one")
            root = pickles[0].removesuffix("data.pkl")
            if f"{root}constants.pkl" in entries:
                raise ValueError(f"{path} is a TorchScript program; save its tensors alone: torch.save(model.state_dict(), FILE)")
            order = archive.read(f"{root}byteorder") if f"{root}byteorder" in entries else b"little"
            with archive.open(pickles[0]) as file:
                tensors = _tensors(_load(file), path)

            def content(storage: _Storage) -> bytes:
                return archive.read(f"{root}data/{storage.key}")

            return _arrays(tensors, content, "<" if order.strip() == b"little" else ">", path)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, KeyError, IndexError, OSError) as error:
        raise ValueError(f"{path} is not an intact torch file: {error}") from error
    except ValueError as error:
        raise _named(error, path) from error


def read_legacy(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a file of torch before 1.6 (or of its old serialisation), by name; otherwise as ``read_zip``."""
    path = Path(path)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        try:
            if view.read(len(MAGIC)) != MAGIC:
                raise ValueError(f"{path} does not begin like a legacy torch file")
            version, system = unpickle(view, {}), unpickle(view, {})
            if version != 1001 or not isinstance(system, dict):
                raise ValueError(f"{path} is of version {shown(version):.40} of the legacy layout; 1001 is read")
            tensors = _tensors(_load(view), path)
            keys = unpickle(view, {})
            if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
                raise ValueError(f"{path} is damaged: its list of storages is not one")
            little = system.get("little_endian", True) is not False
            storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
            places = _places(view, keys, storages, "little" if little else "big", path)

            def content(storage: _Storage) -> bytes:
                start, length = places[storage.key]
                return view[start : start + length]

            return _arrays(tensors, content, "<" if little else ">", path)
        except KeyError as error:
            raise ValueError(f"{path} is damaged: storage {error} is not in it") from error
        except ValueError as error:
            raise _named(error, path) from error


class Storage(NamedTuple):
    """A storage with its numbers, as a pickle that ``torch.save`` did not write holds it."""

    about: _Storage
    numbers: np.ndarray

    def tensor(self, offset: Any, size: Any, stride: Any) -> np.ndarray:
        """The tensor at `offset`, of `size` and `stride` counted in numbers; ValueError where it leaves the storage."""
        return _strided(self.numbers, _tensor(self.about, offset, size, stride))


def read_storage(data: bytes) -> Storage:
    """The one storage that is the whole of a legacy file in memory; ValueError where it is damaged or something else."""
    file = io.BytesIO(data)
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError("the pickle is damaged: a storage does not begin like a legacy torch file")
    version, system = unpickle(file, {}), unpickle(file, {})
    storage, keys = _load(file), unpickle(file, {})
    if version != 1001 or not isinstance(system, dict) or not isinstance(storage, _Storage) or type(keys) is not list or len(keys) != 1:
        raise ValueError("the pickle is damaged: a storage is not what the legacy torch layout has")
    little = system.get("little_endian", True) is not False
    numbers = data[file.tell() + 8 :]
    count = int.from_bytes(data[file.tell() : file.tell() + 8], "little" if little else "big", signed=True)
    if count != storage.count or len(numbers) != count * _width(storage.dtype):
        raise ValueError(f"the pickle is damaged: a storage of {storage.count:,} numbers has {len(numbers):,} bytes")
    return Storage(storage, _numbers(numbers, storage.dtype, "<" if little else ">"))


def _places(view: Any, keys: list[str], storages: dict[str, _Storage], order: Any, path: Path) -> dict[str, tuple[int, int]]:
    """(start, bytes) of each storage: they follow each other in the order of `keys`, each after its count of numbers."""
    places, position = {}, view.tell()
    for key in keys:
        if key not in storages:
            raise ValueError(f"{path}: storage {key!r} is of no tensor that was read, so its length is not known")
        count = int.from_bytes(view[position : position + 8], order, signed=True)
        if count != storages[key].count:
            raise ValueError(f"{path} is damaged or cut short: storage {key!r} says {count:,} numbers, its tensors {storages[key].count:,}")
        length = count * _width(storages[key].dtype)
        if position + 8 + length > len(view):
            raise ValueError(f"{path} is cut short: storage {key!r} ends at byte {position + 8 + length:,} of {len(view):,}")
        places[key] = position + 8, length
        position += 8 + length
    return places


def _load(file: Any) -> Any:
    calls: dict[str, Callable[..., Any] | None] = {
        "collections.OrderedDict": _ordered,
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": lambda storage, offset, size, stride, *rest: _tensor(storage, offset, size, stride),
        "torch._utils._rebuild_parameter": lambda tensor, *rest: tensor,
        "torch.Size": tuple,
    }
    # A storage is only mentioned, as the kind of numbers; files saved on a GPU before torch 1.0 say torch.cuda.
    calls |= {f"{module}.{name}": None for name in _STORAGES for module in ("torch", "torch.cuda")}
    return unpickle(file, calls, _storage, _build)


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    return keyed(pairs)


def _build(value: Any, state: Any) -> Any:
    """A state dict carries versions of its layers as an attribute, which arrays do not need."""
    if type(value) is not dict:
        raise Refused(f"a state for {type(value).__name__}")
    return value


def _whole(*numbers: Any) -> bool:
    return all(type(number) is int and 0 <= number < 2**62 for number in numbers)


def _storage(identifier: Any) -> _Storage:
    """('storage', kind, key, device, count), in legacy files with a view: None or (key, offset, count)."""
    match identifier:
        case ("storage", Global(name=kind), str(key), str(), int(count), *view) if len(view) <= 1 and _whole(count):
            dtype = _STORAGES.get(kind.rpartition(".")[2])
            match view:
                case _ if dtype is None:
                    pass
                case [] | [None]:
                    return _Storage(key, dtype, count, 0, count)
                case [(_, int(start), int(length))] if _whole(start, length) and start + length <= count:
                    return _Storage(key, dtype, count, start, length)
    raise Refused(f"persistent object {shown(identifier)}")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> _Tensor:
    if not isinstance(storage, _Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise ValueError("the pickle is damaged: a tensor without storage, size and strides")
    if not _whole(offset, *size, *stride) or len(size) != len(stride) or len(size) > 32:
        raise ValueError(f"the pickle is damaged: a tensor of offset {shown(offset)}, size {shown(size)}, strides {shown(stride)}")
    count = math.prod(size)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True)) if count else offset
    if count > storage.length or (count and last >= storage.length):
        raise ValueError(f"a tensor of offset {offset}, size {size}, strides {stride} leaves its storage of {storage.length:,} numbers")
    return _Tensor(storage, offset, size, stride)


def _tensors(value: Any, path: Path) -> dict[str, _Tensor]:
    """The tensors in nested dicts and lists, by their keys joined with dots; numbers and text are passed over."""
    found: dict[str, _Tensor] = {}
    waiting, held = [("", value, 0)], 0
    while waiting:
        name, item, depth = waiting.pop()
        # Counted before they are listed: a list may hold itself a million times.
        held += len(item) if isinstance(item, dict | list) or type(item) is tuple else 0
        if depth > MAX_DEPTH or held > 20 * MAX_ARRAYS:
            raise ValueError(f"{path}: dicts are nested more than {MAX_DEPTH} deep or hold more than {20 * MAX_ARRAYS:,} values")
        if len(name) > MAX_NAME:
            raise ValueError(f"{path}: a name of {len(name):,} characters ({name[:40]!r}...); at most {MAX_NAME:,} are read")
        if isinstance(item, _Tensor):
            if name in found:
                raise ValueError(f"{path}: two tensors are named {name!r}")
            found[name or "tensor"] = item
        elif isinstance(item, dict | list) or type(item) is tuple:
            pairs = item.items() if isinstance(item, dict) else enumerate(item)
            waiting.extend((f"{name}.{key}" if name else str(key), part, depth + 1) for key, part in pairs)
    if not found:
        raise ValueError(f"{path} holds no tensors")
    # Tensors may share a storage (tied weights), which would let a small file ask for much memory.
    total = sum(math.prod(tensor.size) * _width(tensor.storage.dtype) for tensor in found.values())
    limit = min(MAX_BYTES, 4 * path.stat().st_size + 2**26)
    if len(found) > MAX_ARRAYS or total > limit:
        raise ValueError(f"{path} holds {len(found):,} tensors of {total:,} bytes; at most {MAX_ARRAYS:,} of {limit:,} bytes are read")
    return dict(reversed(found.items()))


def _arrays(tensors: dict[str, _Tensor], content: Callable[[_Storage], bytes], order: str, path: Path) -> dict[str, np.ndarray]:
    arrays, storages = {}, {}
    for name, tensor in tensors.items():
        storage = tensor.storage
        if storage.key not in storages:
            data = content(storage)
            if len(data) != storage.count * _width(storage.dtype):
                raise ValueError(f"{path}: storage {storage.key!r} has {len(data):,} bytes, not {storage.count:,} of {storage.dtype}")
            storages[storage.key] = storage.dtype, _numbers(data, storage.dtype, order)
        dtype, numbers = storages[storage.key]
        if dtype != storage.dtype or numbers.size != storage.count:
            raise ValueError(f"{path}: storage {storage.key!r} is {dtype} for one tensor and {storage.dtype} for another")
        arrays[name] = _strided(numbers, tensor).copy()
    return arrays


def _strided(numbers: np.ndarray, tensor: _Tensor) -> np.ndarray:
    part = numbers[tensor.storage.start + tensor.offset :]
    if not math.prod(tensor.size):
        return np.zeros(tensor.size, part.dtype)
    # The step along a side of one number is never taken, and may be any number.
    strides = tuple(step * part.itemsize if length > 1 else 0 for length, step in zip(tensor.size, tensor.stride, strict=True))
    # The bounds were checked in _tensor: as_strided itself would read beyond the buffer.
    return np.lib.stride_tricks.as_strided(part, tensor.size, strides, writeable=False)


def _numbers(data: bytes, dtype: str, order: str) -> np.ndarray:
    if dtype == "bfloat16":
        return (np.frombuffer(data, f"{order}u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    array = np.frombuffer(data, np.dtype(dtype).newbyteorder(order))
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _width(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _named(error: ValueError, path: Path) -> ValueError:
    return error if str(path) in str(error) else ValueError(f"{path}: {error}")
