"""What names the pixels of an image: pretrained networks, a U-Net of one's own, an exported file, a source's label maps, any function."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

KINDS = (
    "bisenetv2 (faces, 19 classes), unet:WORKDIR_OR_GENERATOR, upernet:FOLDER, onnx:FILE, labels (the source's own label maps), or "
    "package.module:function"
)
BATCH = 8
"""Images that a network labels at once; fewer are filled up, so that it is compiled once for each size of image."""


@dataclasses.dataclass(frozen=True)
class Segmenter:
    """A function from images to label maps, and what has to be known of it."""

    name: str
    classes: tuple[str, ...]
    """Names of the labels 0, 1, ...; empty for 'labels': the source knows them."""
    label: Callable[[np.ndarray], np.ndarray]
    """uint8 [N, H, W, 3] -> int32 [N, h, w]."""
    size: tuple[int, int] | None
    """(H, W) of the images that it wants; None: any."""
    identity: str
    """Equal where two segmenters give equal label maps: a digest of weights and settings."""

    def __post_init__(self) -> None:
        # Tables and files go by name; published lists have the same one twice (two kinds of screen), which would hide one of them.
        # Half a surrogate pair, which JSON can spell, is no text: it cannot be written or printed.
        names = tuple(name.encode("utf-8", "replace").decode() for name in self.classes)
        first = {name: k for k, name in reversed(list(enumerate(names)))}
        names = tuple(name if first[name] == k else f"{name} ({k})" for k, name in enumerate(names))
        object.__setattr__(self, "classes", names)


def open_segmenter(spec: str) -> Segmenter:
    """The segmenter that `spec` names, see ``KINDS``.

    A user's own is ``package.module:name``, found as Python finds modules, in the current folder too: a ``Segmenter``, a function without
    required arguments that returns one, or a function uint8 [N, H, W, 3] -> int [N, h, w] with attributes:

      classes: names of the labels 0, 1, ...
      size: (height, width) of the images that it wants; without it any.
      identity: text that changes whenever the function would label otherwise, for instance the digest or the version of the weights that it
        reads. Tallies and scores are remembered under it and under the text of the function's module; without it, whoever changes anything
        else (weights, settings, another module) has to say ``--no-cache`` (``jaxgan seeing``: ``--cache none``).

    Raises:
      FileNotFoundError: a workdir, a file or weights that are not there. ValueError: no such segmenter, or not one.
    """
    kind, _, rest = spec.partition(":")
    if spec == "bisenetv2":
        return _bisenet()
    if spec == "labels":
        return Segmenter("labels", (), _no_label, None, "labels")
    if kind == "unet" and rest:
        return _unet(rest)
    if kind == "upernet" and rest:
        from jaxgan.upernet_segmenter import open_upernet

        return open_upernet(rest)
    if kind == "onnx" and rest:
        from jaxgan.onnx_segmenter import open_onnx

        return open_onnx(rest)
    if rest and kind not in ("unet", "upernet", "onnx", "bisenetv2", "labels"):
        return _own(kind, rest)
    from jaxgan.configure import nearest

    near = nearest(kind, ("bisenetv2", "labels", "unet", "upernet", "onnx")).split("; there are")[0]
    raise ValueError(f"there is no segmenter {spec!r}{near}; use {KINDS}")


def _no_label(images: np.ndarray) -> np.ndarray:
    raise ValueError("the segmenter 'labels' stands for the label maps of a source; it cannot label images, so name a network")


def _bisenet() -> Segmenter:
    import jax.numpy as jnp

    from jaxgan import weights
    from jaxgan.nets import bisenet

    size = (bisenet.SIZE, bisenet.SIZE)

    def run(params: Any, images: Any) -> Any:
        return bisenet.labels(params, images.astype(jnp.float32) / 127.5 - 1.0)

    label = on_devices(run, bisenet.params(weights.load("bisenetv2")))

    def at_size(images: np.ndarray) -> np.ndarray:
        return label(np.stack([resize(image, size) for image in images]) if images.shape[1:3] != size else images)

    return Segmenter("bisenetv2", bisenet.CLASSES, at_size, size, weights.KNOWN["bisenetv2"].sha256)


def _unet(path: str) -> Segmenter:
    import functools

    from jaxgan.generators import digest, nested, open_generator
    from jaxgan.systems import segmentation

    trained = open_generator(Path(path).expanduser() if "://" not in path else path)
    if trained.family != "segmentation":
        raise ValueError(f"unet:{path} is a {trained.family} run, not one of configs/segmentation_*.py: it labels no pixels")
    config = trained.config
    params = {**nested(trained.arrays, "params"), **nested(trained.arrays, "ema")}.get("U")
    if not params:
        raise ValueError(f"unet:{path} holds no network U: it is not a segmenter that this version wrote")
    label = on_devices(functools.partial(segmentation.label_maps, config), params)

    def labels(images: np.ndarray) -> np.ndarray:
        if config.channels == 1:  # ITU-R 601 luma, as on import
            images = np.rint(images @ np.asarray([0.299, 0.587, 0.114]))[..., None].astype(np.uint8)
        return label(images)

    return Segmenter("unet", config.classes, labels, config.size, digest(trained))


def on_devices(run: Callable[[Any, Any], Any], params: Any) -> Callable[[np.ndarray], np.ndarray]:
    """``label(images)`` from ``run(params, images) -> int [N, h, w]``: compiled, ``BATCH`` images or one for each device at a time.

    ``params`` are copied to every device of this process once; images are split over the devices.
    """
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    from jaxgan import parallel

    devices = jax.local_devices()
    batch = -(-BATCH // len(devices)) * len(devices)
    mesh = parallel.make_mesh((0, 1), devices)
    split = NamedSharding(mesh, PartitionSpec("data"))
    placed = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    program = jax.jit(run, out_shardings=split)

    def label(images: np.ndarray) -> np.ndarray:
        maps = []
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            whole = np.concatenate([part, np.broadcast_to(part[:1], (batch - len(part), *part.shape[1:]))])
            with jax.set_mesh(mesh):  # in training the mesh of the run is set, which holds the devices of other processes too
                maps.append(np.asarray(program(placed, jax.device_put(whole, split)))[: len(part)].astype(np.int32))
        return np.concatenate(maps)

    return label


def _own(module: str, name: str) -> Segmenter:
    here = os.getcwd()
    try:
        with _searched(here):
            found: Any = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"segmenter {module}:{name}: the module {module!r} cannot be imported ({error}); use {KINDS}") from error
    file = getattr(found, "__file__", None)
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"segmenter {module}:{name}: {module} has no {part!r}")
        found = getattr(found, part)
    if isinstance(found, Segmenter):
        return _guarded(found, here)
    if not callable(found):
        raise ValueError(f"segmenter {module}:{name} is a {type(found).__name__}, not a function")
    classes = getattr(found, "classes", None)
    if classes is None:
        with _searched(here):
            made = _made(found, f"{module}:{name}")
        return _guarded(made, here)
    if isinstance(classes, str) or not all(isinstance(entry, str) for entry in classes):
        raise ValueError(f"segmenter {module}:{name}: its attribute classes is {classes!r}; it must be the names of the labels 0, 1, ...")
    own = getattr(found, "identity", "")
    if not isinstance(own, str):
        rule = "it must be text, for instance a digest of its weights"
        raise ValueError(f"segmenter {module}:{name}: its attribute identity is {own!r}; {rule}")
    # What the function computes cannot be told from outside; the text of its module stands for it, and of the one that it was defined in.
    defined = getattr(sys.modules.get(getattr(found, "__module__", None) or type(found).__module__), "__file__", None)
    content = b"".join(Path(one).read_bytes() for one in dict.fromkeys([file, defined]) if one and os.path.isfile(one))
    identity = hashlib.sha256(f"{module}:{name}\n{own}\n".encode("utf-8", "surrogatepass") + content).hexdigest()
    size = getattr(found, "size", None)
    if size is not None and not (len(size) == 2 and min(size) > 0):
        raise ValueError(f"segmenter {module}:{name}: its attribute size is {size!r}; it must be (height, width)")
    return _guarded(Segmenter(f"{module}:{name}", tuple(classes), found, tuple(size) if size else None, identity), here)


@contextlib.contextmanager
def _searched(folder: str) -> Iterator[None]:
    """Modules are looked for in this folder too, first, as Python does for a script in it."""
    added = folder not in sys.path
    if added:
        sys.path.insert(0, folder)
    try:
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)


def _made(function: Callable, spec: str) -> Segmenter:
    import inspect

    rule = "give it an attribute `classes` (names of the labels), or let it return a jaxgan.segmenters.Segmenter"
    try:
        required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty and p.kind not in (2, 4)]
    except (TypeError, ValueError):
        required = []
    if required:
        raise ValueError(f"segmenter {spec} takes {required[0].name!r} and has no names for its labels: {rule}")
    made = function()
    if not isinstance(made, Segmenter):
        raise ValueError(f"segmenter {spec} returned a {type(made).__name__}: {rule}")
    return made


def _guarded(segmenter: Segmenter, folder: str) -> Segmenter:
    """A user's segmenter whose answers are checked: integers [N, h, w] that are labels. What it imports late is found in `folder` too."""

    def label(images: np.ndarray) -> np.ndarray:
        with _searched(folder):
            maps = np.asarray(segmenter.label(images))
        if maps.ndim != 3 or len(maps) != len(images) or maps.dtype.kind not in "iu":
            given = f"{maps.dtype} {list(maps.shape)} for {len(images)} images"
            raise ValueError(f"the segmenter {segmenter.name} gives {given}; it must give integers [N, h, w]")
        count = len(segmenter.classes)
        if maps.size and not 0 <= int(maps.min()) <= int(maps.max()) < count:
            wrong = int(maps.min()) if maps.min() < 0 else int(maps.max())
            raise ValueError(f"the segmenter {segmenter.name} gives the label {wrong}, but it has {count} classes (0..{count - 1})")
        return maps.astype(np.int32)

    return dataclasses.replace(segmenter, label=label)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H, W, 3] at `size` = (height, width), bilinear; the whole image, its proportions not kept."""
    from PIL import Image

    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def resize_labels(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """int [h, w] at `size` = (height, width), the nearest pixel's label: int32."""
    if labels.shape == tuple(size):
        return labels.astype(np.int32)
    # Pixel centres: output i lies at (i + 1/2) h / H of the map.
    rows, columns = (((2 * np.arange(new) + 1) * old) // (2 * new) for new, old in zip(size, labels.shape, strict=True))
    return labels[rows[:, None], columns].astype(np.int32)
