"""Any semantic segmenter from an ONNX file.

The file holds a network with one image input, [N, 3, H, W] or [N, H, W, 3], whose output is either the scores of each class
([N, K, h, w] or [N, h, w, K], before or after a softmax) or the labels themselves ([N, h, w], [N, 1, h, w] or [N, h, w, 1]). What the
file does not say can be said in a JSON object beside it, ``<file>.json``, with the names of the arguments of ``open_onnx``.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgan.onnx_files import first_line, open_session

MAX_CLASSES = 65_536
MAX_TEXT = 2**20
MAX_BATCH = 1024
"""Images at once of a network that fixes their number."""
MAX_PIXELS = 2**28
"""Of such a batch: 3 GB as float32."""
TRIAL_SIZE = (256, 256)
"""Height and width of the first, blank image where neither the file nor the caller gives a size."""
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64, "tensor(uint8)": np.uint8}
OPTIONS = ("classes", "size", "value_range", "mean", "std", "channels", "layout", "output")
"""What ``<file>.json`` may say."""


def class_names(given: str | Path | int | Sequence[str]) -> tuple[str, ...]:
    """Class names from a list, from a number ('class 0', ...), or from a file: a JSON list of names, or one name on each line.

    Raises:
      FileNotFoundError: no such file. ValueError: no names, more than 65,536, or a file that is neither of the two.
    """
    if isinstance(given, (str, Path)) and str(given).isdecimal():
        given = int(str(given))
    if isinstance(given, int):
        if not 1 <= given <= MAX_CLASSES:
            raise ValueError(f"{given} classes; from 1 to {MAX_CLASSES:,} are possible")
        return tuple(f"class {k}" for k in range(given))
    names: Any = given
    if isinstance(given, (str, Path)):
        path = Path(given).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there: it should have the class names, one on each line or as a JSON list")
        if path.stat().st_size > MAX_TEXT:
            raise ValueError(f"{path} has {path.stat().st_size:,} bytes; a file of class names has at most {MAX_TEXT:,}")
        try:
            text = path.read_text(encoding="utf-8-sig")  # editors on Windows write a mark before the first name
            names = json.loads(text) if path.suffix == ".json" else [line.strip() for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not a list of class names: {error}") from error
    if not isinstance(names, (list, tuple)) or not 1 <= len(names) <= MAX_CLASSES or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{given if isinstance(given, (str, Path)) else 'classes'} must be a list of 1 to {MAX_CLASSES:,} names")
    return tuple(names)


def _metadata_names(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Class names that exporters write into the file: a list, or an object from index to name, as JSON or as a Python literal."""
    for key in ("classes", "class_names", "names", "labels", "id2label"):
        text = metadata.get(key, "")
        if not 0 < len(text) <= MAX_TEXT:
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            try:
                value = ast.literal_eval(text)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
        if isinstance(value, dict) and {str(index) for index in value} == {str(k) for k in range(len(value))}:
            value = [name for _, name in sorted(value.items(), key=lambda item: int(item[0]))]
        if isinstance(value, (list, tuple)) and 1 <= len(value) <= MAX_CLASSES and all(isinstance(name, str) for name in value):
            return tuple(value)
    return None


def _sidecar(path: Path) -> dict[str, Any]:
    beside = path.with_name(f"{path.name}.json")
    if not beside.is_file():
        return {}
    if beside.stat().st_size > MAX_TEXT:
        raise ValueError(f"{beside} has {beside.stat().st_size:,} bytes; at most {MAX_TEXT:,} are read")
    try:
        options = json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{beside} is not a JSON file: {error}") from error
    if not isinstance(options, dict) or set(options) - set(OPTIONS):
        raise ValueError(f"{beside} must be a JSON object with some of the entries {', '.join(OPTIONS)}")
    return options


def _numbers(value: Any) -> np.ndarray:
    """float32; of no length where `value` is not made of finite numbers."""
    try:
        numbers = np.asarray(value, np.float32)
    except (TypeError, ValueError):
        return np.zeros(0, np.float32)
    return numbers if np.isfinite(numbers).all() else np.zeros(0, np.float32)


def _three(value: Any, name: str) -> np.ndarray | None:
    if value is None:
        return None
    numbers = _numbers(value)
    if numbers.shape not in ((), (3,)) or (name == "std" and (numbers <= 0).any()):
        raise ValueError(f"{name} = {value!r} must be a number or three of them{', above 0' if name == 'std' else ''}")
    return numbers


def _input_layout(shape: Sequence[Any], wanted: str | None, where: Path) -> str:
    """'NCHW' or 'NHWC': where the 3 is."""
    if wanted not in (None, "NCHW", "NHWC"):
        raise ValueError(f"layout {wanted!r} must be 'NCHW' or 'NHWC'")
    if len(shape) != 4:
        raise ValueError(f"{where}: its input has the shape {list(shape)}; a batch of images with three channels has four sides")
    fits = [name for name, axis in (("NCHW", 1), ("NHWC", 3)) if shape[axis] == 3 or not isinstance(shape[axis], int)]
    exact = [name for name in fits if shape[name.index("C")] == 3]
    if wanted is not None:
        exact = [wanted] if wanted in fits else []
    if len(exact) != 1:
        raise ValueError(f"{where}: its input has the shape {list(shape)}; which side has the three channels? Give layout='NCHW' or 'NHWC'")
    return exact[0]


def open_onnx(
    spec: str | Path,
    *,
    classes: str | Path | int | Sequence[str] | None = None,
    size: Sequence[int] | int | None = None,
    value_range: Sequence[float] | None = None,
    mean: Any = None,
    std: Any = None,
    channels: str | None = None,
    layout: str | None = None,
    output: str | None = None,
    providers: Sequence[str] = ("CPUExecutionProvider",),
) -> Any:
    """A ``jaxgan.segmenters.Segmenter`` from an ONNX file.

    The network sees (low + (high - low) v / 255 - mean) / std of the bytes v; a network whose input is uint8 sees the bytes.

    Args:
      spec: the file, with or without ``onnx:`` before it. Its weights may be in other files of the same folder.
      classes: names, a number, or a file of names (``class_names``); default: what the file's metadata say, else as many as its scores.
      size: height and width that the network wants; default: what the file says, else any.
      value_range: (low, high), default (0, 1).
      mean, std: a number or three (red, green, blue), default 0 and 1.
      channels: 'rgb' (default) or 'bgr', the order of the input.
      layout: 'NCHW' or 'NHWC', where the file leaves it open.
      output: name of the output, default the first.
      providers: of onnxruntime, in order of preference.

    Raises:
      FileNotFoundError: no such file.
      ValueError: onnx or onnxruntime is not installed; a file that is no ONNX network or whose weights lie outside its folder; an input
        that is not one batch of images; an output that is neither scores nor labels; options that make no sense or contradict the file.
    """
    from jaxgan.segmenters import Segmenter

    path = Path(str(spec).removeprefix("onnx:")).expanduser()
    given = {"classes": classes, "size": size, "value_range": value_range, "mean": mean, "std": std}
    given |= {"channels": channels, "layout": layout, "output": output}
    options = (_sidecar(path) if path.is_file() else {}) | {name: value for name, value in given.items() if value is not None}
    network = Network(path, options, providers)
    return Segmenter(name="onnx", classes=network.classes, label=network.label, size=network.size, identity=network.identity)


class Network:
    """An opened network: ``label`` and what it was opened with."""

    def __init__(self, path: Path, options: Mapping[str, Any], providers: Sequence[str]):
        self.path = path
        names = None if options.get("classes") is None else class_names(options["classes"])
        self.channels = options.get("channels", "rgb")
        if self.channels not in ("rgb", "bgr"):
            raise ValueError(f"channels {self.channels!r} must be 'rgb' or 'bgr'")
        self.span = _numbers(options.get("value_range", (0.0, 1.0)))
        if self.span.shape != (2,) or self.span[0] == self.span[1]:
            raise ValueError(f"value_range {options.get('value_range')!r} must be two different numbers, what black and white become")
        self.mean, self.std = _three(options.get("mean"), "mean"), _three(options.get("std"), "std")
        self.session, digest = open_session(path, providers)

        inputs = self.session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in TYPES:
            what = ", ".join(f"{x.name} {x.type} {x.shape}" for x in inputs) or "none"
            raise ValueError(f"{path} must have one input, a batch of images as floats or uint8; it has {what}")
        self.input, self.dtype = inputs[0].name, TYPES[inputs[0].type]
        if self.dtype == np.uint8 and {"value_range", "mean", "std"} & set(options):
            raise ValueError(f"{path} wants uint8 images: value_range, mean and std have no meaning for it")
        self.layout = _input_layout(inputs[0].shape, options.get("layout"), path)
        sides = [inputs[0].shape[self.layout.index(side)] for side in "HW"]
        first = inputs[0].shape[0]
        self.batch = first if isinstance(first, int) and first > 0 else None
        self.size = self._wanted_size(options.get("size"), sides)
        height, width = self.size or TRIAL_SIZE
        if self.batch is not None and (self.batch > MAX_BATCH or self.batch * height * width > MAX_PIXELS):
            wanted = f"{self.batch:,} images of {height} x {width} pixels at once"
            raise ValueError(f"{path} wants {wanted}; at most {MAX_BATCH:,}, of {MAX_PIXELS:,} pixels together, are given: export it anew")

        outputs = [x.name for x in self.session.get_outputs()]
        self.output = options.get("output", outputs[0])
        if self.output not in outputs:
            raise ValueError(f"{path} has no output {self.output!r}; it has {', '.join(outputs)}")
        names = names or _metadata_names(self.session.get_modelmeta().custom_metadata_map)
        self.axis, self.count = None, len(names) if names else None
        trial = self._run(np.zeros((self.batch or 1, *(self.size or TRIAL_SIZE), 3), np.uint8))
        self.axis = self._class_axis(trial)
        if self.axis is not None:
            self.count = trial.shape[self.axis]
        if self.count is None or self.count > MAX_CLASSES:
            raise ValueError(f"{path} gives labels and not how many there are: give classes, their number, names, or a file of names")
        self.classes = names or class_names(self.count)
        chosen = {name: str(value) for name, value in options.items()} | ({"classes": list(self.classes)} if "classes" in options else {})
        settings = json.dumps(chosen, sort_keys=True)
        self.identity = hashlib.sha256(f"{digest} {settings}".encode()).hexdigest() if options else digest

    def _wanted_size(self, given: Any, sides: Sequence[Any]) -> tuple[int, int] | None:
        fixed = [side if isinstance(side, int) and side > 0 else None for side in sides]
        if given is not None:
            given = (given, given) if isinstance(given, int) else given
            pair = isinstance(given, (list, tuple)) and len(given) == 2 and all(isinstance(side, int) for side in given)
            if not pair or not all(1 <= side <= 16_384 for side in given):
                raise ValueError(f"size {given!r} must be a height and a width from 1 to 16384")
            if any(side not in (None, wanted) for side, wanted in zip(fixed, given, strict=True)):
                raise ValueError(f"{self.path} wants images of {sides[0]} x {sides[1]} pixels, not of {given[0]} x {given[1]}")
            return given[0], given[1]
        if None in fixed and fixed != [None, None]:
            raise ValueError(f"{self.path} fixes one side of its input ({sides[0]} x {sides[1]}): give size")
        if max(side or 0 for side in fixed) > 16_384:
            raise ValueError(f"{self.path} wants images of {sides[0]} x {sides[1]} pixels; at most 16384 are possible")
        return None if None in fixed else (fixed[0], fixed[1])

    def _run(self, images: np.ndarray) -> np.ndarray:
        x: np.ndarray = images[..., ::-1] if self.channels == "bgr" else images
        if self.dtype != np.uint8:
            mean, std = self.mean, self.std
            if self.channels == "bgr":
                mean, std = (value if value is None or value.ndim == 0 else value[::-1] for value in (mean, std))
            x = self.span[0] + (self.span[1] - self.span[0]) * (x.astype(np.float32) / np.float32(255))
            x = x if mean is None else x - mean
            x = (x if std is None else x / std).astype(self.dtype)
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2) if self.layout == "NCHW" else x)
        try:
            result = self.session.run([self.output], {self.input: x})[0]
        except Exception as error:
            raise ValueError(f"{self.path} fails on images of shape {images.shape}: {first_line(error)}") from error
        if not isinstance(result, np.ndarray) or result.ndim not in (3, 4) or len(result) != len(images) or 0 in result.shape:
            shape = result.shape if isinstance(result, np.ndarray) else type(result).__name__
            raise ValueError(f"{self.path}: output {self.output!r} is {shape} for {len(images)} images, not scores or labels of each")
        return result

    def _class_axis(self, result: np.ndarray) -> int | None:
        """The axis of the scores, or None for a map of labels."""
        if result.ndim == 3 or (result.dtype.kind in "iu" and 1 in (result.shape[1], result.shape[3])):
            return None
        preferred = self.layout.index("C")
        if self.count is None:
            axes = [preferred]
        else:
            axes = [axis for axis in (preferred, 4 - preferred) if result.shape[axis] == self.count]
            if not axes:
                raise ValueError(f"{self.path}: output {self.output!r} is {result.shape}, but there are {self.count} class names")
        if result.shape[axes[0]] < 2:
            raise ValueError(f"{self.path}: output {self.output!r} is {result.shape}, scores of a single class: no label can be chosen")
        return axes[0]

    def label(self, images: np.ndarray) -> np.ndarray:
        """uint8 [N, H, W, 3] -> int32 [N, h, w]; images of another size than ``size`` are resized first, bilinearly.

        Of equal scores the first class wins. ValueError: other images, or labels out of range.
        """
        from jaxgan.segmenters import resize

        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not len(images):
            raise ValueError(f"images are {images.dtype} {images.shape}; uint8 [N, H, W, 3] is wanted, at least one")
        if self.size is not None and images.shape[1:3] != self.size:
            images = np.stack([resize(image, self.size) for image in images])
        step = self.batch or len(images)
        found = []
        for start in range(0, len(images), step):
            part = images[start : start + step]
            missing = step - len(part)
            result = self._run(np.concatenate([part, np.repeat(part[-1:], missing, 0)]) if missing else part)[: len(part)]
            found.append(self._labels(result))
        return np.concatenate(found)

    def _labels(self, result: np.ndarray) -> np.ndarray:
        if self.axis is not None:
            if result.ndim != 4 or result.shape[self.axis] != self.count:
                raise ValueError(f"{self.path}: output {self.output!r} is {result.shape} now, not {self.count} scores at axis {self.axis}")
            if np.isnan(result).any():
                raise ValueError(f"{self.path}: the scores have NaN")
            return np.argmax(result, self.axis).astype(np.int32)
        if result.ndim == 4:
            result = result[:, 0] if result.shape[1] == 1 else result[..., 0]
        if not np.isfinite(result).all() or (result != np.floor(result)).any() or result.min() < 0 or result.max() >= self.count:
            raise ValueError(f"{self.path}: labels from {result.min()} to {result.max()}; they must be whole numbers below {self.count}")
        return result.astype(np.int32)
