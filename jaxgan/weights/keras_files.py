"""Weights saved by Keras in HDF5: the first layout (`..._W_1:0` beside each other), the second (`layer/kernel:0`), and plain groups."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from jaxgan.arrays import MAX_ARRAYS, MAX_BYTES, MAX_RATIO

MAX_NAMES = 2**24
"""Largest list of names in bytes."""

_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
"""Filters that come with h5py; any other would load a plugin."""


def read_h5(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an HDF5 file by name.

    In a Keras file (also a whole model's: its weights are in the group `model_weights`) arrays are found through the attributes
    `layer_names` and `weight_names`, and named as there, after the layer where the name does not begin with it. In another file they have
    their paths.

    Raises:
      ValueError: links to other files, data kept in other files or computed from them, dtypes other than numbers, filters other than
        h5py's own, what would unpack to too much, or a damaged file.
      ImportError: h5py is not installed.
    """
    import h5py

    path = Path(path)
    try:
        with h5py.File(path, "r") as file:
            root = _child(file, "model_weights", path) if "model_weights" in file else file
            found: dict[str, Any] = {}
            if _has_names(root, "layer_names"):
                visited: set[int] = set()
                for layer in _names(root, "layer_names", path) or list(root):
                    group = _child(root, layer, path)
                    names = _names(group, "weight_names", path)
                    if names is None:
                        names = list(_walk(group, "", {}, visited, path))
                    for name in names:
                        full = name if name.startswith(layer) else f"{layer}/{name}"
                        if full in found:
                            raise ValueError(f"{path}: {full!r} is there twice")
                        found[full] = _child(group, name, path)
                    _check_count(found, path)
            else:
                _walk(root, "", found, set(), path)
            if not found:
                raise ValueError(f"{path} holds no arrays")
            return _read(found, path)
    except (OSError, RuntimeError, KeyError, TypeError, UnicodeError, OverflowError) as error:
        raise ValueError(f"{path} is not an intact HDF5 file: {error}") from error


def _has_names(group: Any, name: str) -> bool:
    return name in group.attrs or f"{name}0" in group.attrs


def _names(group: Any, name: str, path: Path) -> list[str] | None:
    """A list of names; Keras splits a list of more than 64 KiB into attributes `name0`, `name1`, ...

    None: the names are of variable length, as newer h5py writes them. The library follows those through a heap, where one wrong byte was
    seen to make it loop for ever; what they name is what the group holds, so that they need not be read.
    """
    parts = [name] if name in group.attrs else []
    while not parts or parts[-1] != name:
        following = f"{name}{len(parts)}"
        if following not in group.attrs:
            break
        parts.append(following)
    names: list[str] = []
    for part in parts:
        plan = group.attrs.get_id(part)
        count = math.prod(plan.shape or (0,))
        if count and plan.dtype.kind == "O":
            return None
        # Checked before it is read: a damaged shape would keep the library busy for minutes.
        if count and (plan.dtype.kind != "S" or count > MAX_ARRAYS or count * plan.dtype.itemsize > MAX_NAMES):
            raise ValueError(f"{path}: the attribute {part!r} of {group.name!r} is no list of at most {MAX_ARRAYS:,} names")
        names.extend(value.decode() for value in np.atleast_1d(group.attrs[part]).tolist() if count)
    return names


def _child(group: Any, name: str, path: Path) -> Any:
    """What `name` (with slashes) leads to, by hard links only: others may lead to another file, or in a circle."""
    import h5py

    for part in filter(None, name.split("/")):
        if not isinstance(group, h5py.Group) or part not in group:
            raise ValueError(f"{path} is damaged: {name!r} is named and not there")
        if part in (".", "..") or not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{path}: {name!r} is a link, possibly to another file, and is not followed")
        group = group[part]
    return group


def _walk(group: Any, prefix: str, found: dict[str, Any], visited: set[int], path: Path) -> dict[str, Any]:
    """Every group is visited once: hard links may lead in a circle."""
    import h5py

    if not isinstance(group, h5py.Group):
        raise ValueError(f"{path} is damaged: {group.name!r} is an array where a group should be")
    address = h5py.h5o.get_info(group.id).addr
    if address in visited:
        raise ValueError(f"{path}: the group {group.name!r} is there under two names")
    visited.add(address)
    for name in group:
        item = _child(group, name, path)
        if isinstance(item, h5py.Group):
            _walk(item, f"{prefix}{name}/", found, visited, path)
        else:
            found[prefix + name] = item
    _check_count(found, path)
    if prefix.count("/") > 32:
        raise ValueError(f"{path} holds groups nested more than 32 deep")
    return found


def _check_count(found: dict[str, Any], path: Path) -> None:
    if len(found) > MAX_ARRAYS:
        raise ValueError(f"{path} holds more than {MAX_ARRAYS:,} arrays")


def _read(found: dict[str, Any], path: Path) -> dict[str, np.ndarray]:
    import h5py

    total = 0
    for name, data in found.items():
        if not isinstance(data, h5py.Dataset) or data.shape is None:
            raise ValueError(f"{path}: {name!r} is not an array")
        if data.dtype.kind not in "fiub":
            raise ValueError(f"{path}: {name!r} has dtype {data.dtype}; only numbers are read")
        if data.external or data.is_virtual:
            raise ValueError(f"{path}: the numbers of {name!r} are in another file, which is not opened")
        plan = data.id.get_create_plist()
        unknown = [code for code in (plan.get_filter(index)[0] for index in range(plan.get_nfilters())) if code not in _FILTERS]
        if unknown:
            raise ValueError(f"{path}: {name!r} is packed with filter {unknown[0]}; read are {', '.join(_FILTERS.values())}")
        total += math.prod(data.shape) * data.dtype.itemsize
        if data.size and not data.id.get_storage_size():
            raise ValueError(f"{path}: {name!r} {data.shape} has no numbers in the file")
    size = path.stat().st_size
    if len(found) > MAX_ARRAYS or total > MAX_BYTES or (total > 2**28 and total > MAX_RATIO * size):
        limits = f"at most {MAX_ARRAYS:,} arrays, {MAX_BYTES:,} bytes and {MAX_RATIO} times the file"
        raise ValueError(f"{path} of {size:,} bytes unpacks to {len(found):,} arrays of {total:,} bytes; {limits} are read")
    return {name: np.asarray(data[()]).astype(data.dtype.newbyteorder("="), copy=False) for name, data in found.items()}
