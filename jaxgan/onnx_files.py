"""Opening an ONNX file that somebody else made: what it refers to is checked before onnxruntime sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxgan.arrays import checksum

MAX_BYTES = 2**31 - 1
"""Largest file: the limit of the format. Larger networks keep their weights in files of their own."""


def _libraries() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ValueError(f"ONNX files need onnx and onnxruntime ({error}): pip install 'jaxgan[export]'") from error
    return onnx, onnxruntime


def _tensors(message: Any, tensor: type) -> Iterator[Any]:
    """All tensors inside a protobuf message, wherever the format has them: weights, constants, subgraphs, functions."""
    if isinstance(message, tensor):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for item in [value] if hasattr(value, "ListFields") else value:
                yield from _tensors(item, tensor)


def external_files(model: Any, folder: Path) -> list[Path]:
    """The files beside the model that hold its weights, sorted.

    Raises:
      ValueError: a file outside the model's folder (by an absolute path, by ``..`` or by a link), an address in memory, or a missing file.
    """
    import onnx

    folder, found = folder.resolve(), set()
    for tensor in _tensors(model, onnx.TensorProto):
        if tensor.data_location != onnx.TensorProto.EXTERNAL and not tensor.external_data:
            continue
        locations = [entry.value for entry in tensor.external_data if entry.key == "location"]
        location = locations[0] if len(locations) == 1 else ""
        path = Path(location)
        if not location or "\0" in location or "_ORT_MEM_ADDR_" in location or path.is_absolute() or ".." in path.parts or "\\" in location:
            raise ValueError(f"the weights of {tensor.name!r} are said to be in {location!r}; only files inside {folder} are read")
        if not (folder / path).resolve().is_relative_to(folder):
            raise ValueError(f"the weights of {tensor.name!r} are in {location!r}, a link that leads out of {folder}")
        if not (folder / path).is_file():
            raise ValueError(f"the weights of {tensor.name!r} should be in {location!r}, which is not in {folder}")
        found.add(folder / path)
    return sorted(found)


def open_session(path: Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> tuple[Any, str]:
    """An onnxruntime session, and the sha256 of the file (where it has its weights in other files: over the sha256 of all of them).

    Raises:
      FileNotFoundError: no such file.
      ValueError: onnx or onnxruntime is not installed; a file that is no ONNX network; weights outside its folder; operations that are
        not known; a provider that is not there.
    """
    onnx, runtime = _libraries()
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} has {path.stat().st_size:,} bytes; an ONNX file has at most {MAX_BYTES:,}")
    if missing := [name for name in providers if name not in runtime.get_available_providers()]:
        raise ValueError(f"onnxruntime has no {', '.join(missing)} here; it has {', '.join(runtime.get_available_providers())}")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    try:
        model = onnx.load_model_from_string(data)
        if not model.graph.node:
            raise ValueError("it has no operations")
        files = external_files(model, path.parent)
    except Exception as error:
        raise ValueError(f"{path} is not a readable ONNX file: {first_line(error)}") from error
    if files:
        digest = hashlib.sha256("".join([digest, *map(checksum, files)]).encode()).hexdigest()
    settings = runtime.SessionOptions()
    settings.log_severity_level = 4  # what goes wrong is raised
    try:
        # the very bytes that were checked, where they are all there is
        session = runtime.InferenceSession(str(path) if files else data, settings, providers=list(providers))
    except Exception as error:
        raise ValueError(f"{path} cannot be run by onnxruntime: {first_line(error)}") from error
    return session, digest


def first_line(error: Exception) -> str:
    """What an error says, as one line of at most 300 characters."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
