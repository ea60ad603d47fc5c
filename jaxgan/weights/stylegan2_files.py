"""The generator's arrays in network pickles of StyleGAN2 and StyleGAN2-ADA, for TensorFlow and for PyTorch, read without running them.

Those for TensorFlow are built as StyleGAN's (``stylegan_files``). Those for PyTorch are a dict of modules: each module is a call of
``torch_utils.persistence._reconstruct_persistent_obj`` with its class's name, its Python source, and its state, in which tensors and parts
stand as in any torch module; each storage is a legacy torch file in bytes. The layouts are those of the official sources; no network of
StyleGAN2 is built from them in this library.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgan.arrays import MAX_ARRAYS
from jaxgan.weights.numpy_pickles import NumpyPickles
from jaxgan.weights.pickles import unpickle
from jaxgan.weights.stylegan_files import Pickled, Reading, describe, digest, name_of, networks_in, open_pickle
from jaxgan.weights.torch_files import Storage, read_storage

MAX_DEPTH = 8
"""Deepest nesting of modules; the official ones go four deep."""
_WANTED = "only pickles of StyleGAN2 and StyleGAN2-ADA are read, such as ffhq.pkl of stylegan2-ada-pytorch"


def read_stylegan2(path: str | Path) -> Pickled:
    """The running average of the generator in a pickle of StyleGAN2 (TensorFlow) or StyleGAN2-ADA (TensorFlow, PyTorch).

    Returns:
      From PyTorch: `function` is the class ('Generator'), `version` that of the persistence (6), `static_kwargs` what the class was called
      with, and `variables` holds all tensors by torch's names, as 'synthesis.b4.conv1.weight'; kernels are OIHW. From TensorFlow: as
      ``stylegan_files.read_stylegan``; kernels are HWIO.

    Raises:
      ValueError: another file, a name outside the few that are needed (the name is told; nothing of it is imported or called), a damaged
        file, or more than ``jaxgan.arrays`` allows. FileNotFoundError: no such file.
    """
    path = Path(path).expanduser()
    with open_pickle(path, _WANTED) as view:
        # The name of the first module stands before its source and its numbers.
        from_torch = view.find(b"torch_utils.persistence", 0, 2**20) >= 0
        generator = _from_torch(view, path) if from_torch else networks_in(view, path, _WANTED).Gs
    function, version = generator.function, generator.version
    if version < 4 or function != ("Generator" if from_torch else "G_main"):
        raise ValueError(f"{path}: its generator, built by {function} in format {version}, is not of StyleGAN2; {_WANTED}")
    if from_torch and "synthesis.b4.const" not in generator.variables:
        raise ValueError(f"{path}: its generator has no constant input of 4x4, so it is not of StyleGAN2 (StyleGAN3 has none); {_WANTED}")
    return generator


class _Module(NamedTuple):
    """A module of PyTorch: what its reconstruction would have been called with."""

    kind: str
    version: int
    source: str
    state: dict[str, Any]


class _Tensor(NamedTuple):
    value: np.ndarray


class _Calls:
    """What a pickle of modules may call, besides NumPy's scalars and dicts."""

    def __init__(self, size: int) -> None:
        self.numpy = NumpyPickles(size)
        self.storages_left, self.bytes_left = MAX_ARRAYS, size

    def all(self) -> dict[str, Any]:
        return self.numpy.calls() | {
            "torch_utils.persistence._reconstruct_persistent_obj": _module,
            "torch.storage._load_from_bytes": self.storage,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_parameter": _parameter,
            "builtins.set": _nothing,
            "__builtin__.set": _nothing,
        }

    def storage(self, data: Any) -> Storage:
        if type(data) is not bytes:
            raise ValueError(f"the pickle is damaged: {type(data).__name__} where the bytes of a storage should be")
        # Each storage is there once: bytes that are read again and again would take time without end.
        self.storages_left -= 1
        self.bytes_left -= len(data)
        if self.storages_left < 0 or self.bytes_left < 0:
            raise ValueError(f"its storages are more than {MAX_ARRAYS:,}, or of more bytes than the file")
        return read_storage(data)


def _module(meta: Any) -> _Module:
    if type(meta) is not dict or meta.get("type") is None or type(meta.get("state")) is not dict:
        raise ValueError("the pickle is damaged: a module without a type or a state")
    version, source = meta.get("version"), meta.get("module_src")
    if type(version) is not int or not 0 <= version <= 99 or type(source) is not str:
        raise ValueError("the pickle is damaged: a module without the text of its source, or of an unknown version")
    return _Module(name_of(meta.get("class_name")), version, source, meta["state"])


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> _Tensor:
    if not isinstance(storage, Storage):
        raise ValueError(f"the pickle is damaged: {type(storage).__name__} where the storage of a tensor should be")
    return _Tensor(storage.tensor(offset, size, stride))


def _parameter(tensor: Any, *rest: Any) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise ValueError(f"the pickle is damaged: {type(tensor).__name__} where the tensor of a parameter should be")
    return tensor


def _nothing(*members: Any) -> None:
    """A set: modules have them for names that no array needs."""


def _from_torch(view: mmap.mmap, path: Path) -> Pickled:
    calls, reading = _Calls(len(view)), Reading(len(view))
    try:
        value = unpickle(view, calls.all(), build=calls.numpy.build)
        if view.tell() != len(view):
            raise ValueError(f"{len(view) - view.tell():,} bytes follow the end of its pickle")
        module = value.get("G_ema") if type(value) is dict else None
        if not isinstance(module, _Module):
            raise ValueError(f"it holds {describe(value)}, not a dict with the module G_ema; {_WANTED}")
        variables: dict[str, np.ndarray] = {}
        _collect(module, "", variables, reading, 0)
        options = module.state.get("_init_kwargs", {})
        if type(options) is not dict:
            raise ValueError(f"{describe(options)} where the options of G_ema should be")
        options = reading.plain(options)
        return Pickled("G_ema", module.kind, module.version, options, variables, {}, digest(module.source))
    except ValueError as error:
        raise ValueError(f"{path} is not an intact pickle of StyleGAN2-ADA: {error}") from error


def _collect(module: _Module, prefix: str, found: dict[str, np.ndarray], reading: Reading, depth: int) -> None:
    """Tensors of a module and its parts in the order of torch's ``state_dict``; buffers that are not saved there are here, too."""
    reading.arrays_left -= 1
    if depth > MAX_DEPTH or reading.arrays_left < 0:
        raise ValueError(f"its modules are nested more than {MAX_DEPTH} deep, or are more than {MAX_ARRAYS:,}")
    tensors, buffers, parts = (module.state.get(key) for key in ("_parameters", "_buffers", "_modules"))
    if not all(type(group) is dict for group in (tensors, buffers, parts)):
        raise ValueError(f"the module {prefix or 'G_ema'} lacks parameters, buffers or parts")
    for name, tensor in (tensors | buffers).items():
        if tensor is None:
            continue
        if not isinstance(tensor, _Tensor):
            raise ValueError(f"{describe(tensor)} where the tensor {prefix}{name_of(name)} should be")
        reading.add(found, prefix + name_of(name), tensor.value)
        # In channels-last order, or a part of a storage: a copy is contiguous and stands alone.
        found[prefix + name] = tensor.value.copy(order="C")
    for name, part in parts.items():
        if part is None:
            continue
        if not isinstance(part, _Module):
            raise ValueError(f"{describe(part)} where the module {prefix}{name_of(name)} should be")
        _collect(part, f"{prefix}{name_of(name)}.", found, reading, depth + 1)
