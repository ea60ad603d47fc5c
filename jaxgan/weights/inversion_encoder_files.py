"""The encoders of layer inversion as their published code saves them: PyTorch state dicts, turned into this library's trees.

Names of one layer's encoder: conv1, bn1, conv2, bn2, conv3. Of the image encoder: those of torchvision's ResNet, and layer5.conv5. Of the
composition: both kinds behind 'resnet.', 'inv4.', 'inv3.', 'inv2.', 'inv1.'. What a state dict does not hold (strides, whether the input is
normalised) follows from the layer's number and from the image's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgan.arrays import check_arrays, check_finite
from jaxgan.nets import image_encoder, layer_encoders
from jaxgan.nets.composed_encoder import IMAGE, ComposedEncoder
from jaxgan.nets.image_encoder import ImageEncoder
from jaxgan.nets.layer_encoders import LayerEncoder
from jaxgan.weights.readers import read

_PREFIXES = ("state_dict.", "module.")
"""What checkpoints and parallel training put before every name."""
_PARTS = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}
"""Batch normalisation: this library's names, PyTorch's."""
_LAYERS = ("layer4", "layer3", "layer2", "layer1")


class Encoder(NamedTuple):
    """What a state dict is."""

    description: LayerEncoder | ImageEncoder | ComposedEncoder
    params: dict[str, Any]
    stats: dict[str, Any]


def read_encoder(path: str | Path, *, side: int = 256, target_side: int = 8, layer: int | None = None) -> Encoder:
    """The encoder in a file of PyTorch, safetensors or npz: of one layer, of images, or the composition; its names decide which.

    Args:
      path: the file; nothing in it is run.
      side: of the images that an image encoder is for; 128 is the published code's 'halfsize'.
      target_side: of r.
      layer: which layer a single layer's encoder undoes; its file does not say.

    Raises:
      ValueError: another network, arrays that are missing, of other shapes or not finite, or a single layer without its number.
      FileNotFoundError: no such file.
    """
    arrays = _plain(read(path))
    if any(name.startswith("resnet.") for name in arrays):
        return composed(arrays, side, target_side, path)
    if "layer5.conv5.weight" in arrays:
        return of_image(arrays, side, target_side, path)
    if layer is None:
        raise ValueError(f"{path} holds neither all encoders nor that of images; if it is that of one layer, give the layer's number")
    return of_layer(arrays, layer, path)


def of_layer(arrays: Mapping[str, np.ndarray], layer: int, where: Any) -> Encoder:
    """The encoder of layer 1 to 15, of any widths.

    Args:
      arrays: the state dict.
      layer: its number; 15 is the image's.
      where: names the state dict in errors.

    Raises:
      ValueError: as ``read_encoder``.
    """
    arrays = _plain(arrays)
    published = layer_encoders.official(layer)
    shape = _kernel(arrays, "conv1.weight", where)
    outputs, inputs, *window = shape
    if published.latent is not None:
        description = LayerEncoder(inputs, outputs, latent=(outputs,), window=(window[0], window[1]))
    else:
        third = "conv3.weight" in arrays
        description = LayerEncoder(inputs, outputs, published.stride if third else 1, third, published.pixel_norm)
        if published.stride > 1 and not third:
            raise ValueError(f"{where} has no conv3, so it does not undo layer {layer}, which doubles the map")
    return _filled(description, layer_encoders, arrays, layer_name, where)


def of_image(arrays: Mapping[str, np.ndarray], side: int, target_side: int, where: Any) -> Encoder:
    """The image encoder, of any widths, for images of this side; otherwise as ``of_layer``."""
    arrays = _plain(arrays)
    widths = tuple(_kernel(arrays, f"layer{stage}.0.conv1.weight", where)[0] for stage in range(1, 5))
    outputs = _kernel(arrays, "layer5.conv5.weight", where)[0]
    description = image_encoder.between((side, side, 3), (target_side, target_side, outputs), widths)
    blocks = tuple(_count(arrays, f"layer{stage}.") for stage in range(1, 5))
    description = ImageEncoder(outputs, description.halvings, widths, blocks)
    return _filled(description, image_encoder, arrays, image_name, where)


def composed(arrays: Mapping[str, np.ndarray], side: int, target_side: int, where: Any) -> Encoder:
    """The composition of e_f and e_4 to e_1, of any widths, for images of this side; otherwise as ``of_layer``."""
    arrays = _plain(arrays)
    prefixes = {IMAGE: "resnet.", **{name: f"inv{name[5:]}." for name in _LAYERS}}
    unknown = [name for name in arrays if not name.startswith(tuple(prefixes.values()))]
    if unknown:
        raise ValueError(f"{where}: {unknown[0]} is of none of {', '.join(prefixes.values())}, the parts of the published encoder")
    parts = {
        name: {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
        for name, prefix in prefixes.items()
    }
    found = {name: of_layer(parts[name], int(name[5:]), f"{where}, {prefixes[name]}*") for name in _LAYERS}
    found[IMAGE] = of_image(parts[IMAGE], side, target_side, f"{where}, resnet.*")
    description = ComposedEncoder(found[IMAGE].description, tuple((name, found[name].description) for name in _LAYERS))
    widths = [description.image.outputs, *(width for _, part in description.layers for width in (part.inputs, part.outputs))]
    if any(a != b for a, b in zip(widths[:-1:2], widths[1::2], strict=True)):
        raise ValueError(f"{where}: its parts do not follow one another: channels {widths}")
    params, stats = ({name: getattr(part, kind) for name, part in found.items()} for kind in ("params", "stats"))
    return Encoder(description, params, stats)


def _plain(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without the prefixes that all names share, and without the counters of batch normalisation; float32."""
    found = {name: array for name, array in arrays.items() if not name.endswith("num_batches_tracked")}
    # A checkpoint also holds the optimiser's arrays and its own counters.
    if any(name.startswith("state_dict.") for name in found):
        found = {name: array for name, array in found.items() if name.startswith("state_dict.")}
    for prefix in _PREFIXES:
        if found and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): array for name, array in found.items()}
    return {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in found.items()}


def _kernel(arrays: Mapping[str, np.ndarray], name: str, where: Any) -> tuple[int, ...]:
    """OIHW; ValueError where there is no such kernel."""
    if name not in arrays or arrays[name].ndim != 4 or 0 in arrays[name].shape:
        held = ", ".join(list(arrays)[:4]) or "nothing"
        raise ValueError(f"{where} is not an encoder of layer inversion: it needs the kernel {name}, and holds {held}")
    return arrays[name].shape


def _count(arrays: Mapping[str, np.ndarray], prefix: str) -> int:
    """How many blocks a stage has."""
    count = 0
    while f"{prefix}{count}.conv1.weight" in arrays:
        count += 1
    return count


def layer_name(path: tuple[str, str]) -> str:
    """Where the state dict has the array ``path`` of a layer's encoder."""
    module, part = path
    if module.startswith("norm"):
        return f"bn{module[4:]}.{_PARTS[part]}"
    return f"{module}.{'weight' if part == 'kernel' else part}"


def image_name(path: tuple[str, str]) -> str:
    """Where the state dict has the array ``path`` of the image encoder."""
    module, part = path
    if module == "head":
        return f"layer5.conv5.{'weight' if part == 'kernel' else 'bias'}"
    block, _, convolution = module.replace("stage", "layer").rpartition(".")
    if module == "stem":
        names = ("conv1", "bn1")
    elif convolution == "shortcut":
        names = (f"{block}.downsample.0", f"{block}.downsample.1")
    else:
        names = (f"{block}.{convolution}", f"{block}.{convolution.replace('conv', 'bn')}")
    return f"{names[0]}.weight" if part == "kernel" else f"{names[1]}.{_PARTS[part]}"


def _leaves(tree: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[tuple[str, str], tuple[int, ...]]]:
    return (((module, part), leaf.shape) for module, parts in tree.items() for part, leaf in parts.items())


def _filled(description: Any, network: Any, arrays: Mapping[str, np.ndarray], name_of: Any, where: Any) -> Encoder:
    """The trees that ``network.init`` would make, with the file's numbers."""
    import jax

    trees = jax.eval_shape(lambda key: network.init(description, key), jax.random.key(0))
    expected = {}
    for path, shape in (leaf for tree in trees for leaf in _leaves(tree)):
        expected[name_of(path)] = ("float32", tuple(shape[k] for k in (3, 2, 0, 1)) if len(shape) == 4 else shape)
    check_arrays(arrays, expected, where, complete=True)
    check_finite(arrays, where)
    negative = [name for name in arrays if name.endswith("running_var") and arrays[name].min() < 0]
    if negative:
        raise ValueError(f"{where}: {negative[0]} has the value {arrays[negative[0]].min():g}; no variance is negative")

    def fill(tree: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
        return {module: {part: _turned(arrays[name_of((module, part))]) for part in parts} for module, parts in tree.items()}

    return Encoder(description, fill(trees[0]), fill(trees[1]))


def _turned(array: np.ndarray) -> np.ndarray:
    """Kernels OIHW -> HWIO."""
    return np.ascontiguousarray(array.transpose(2, 3, 1, 0)) if array.ndim == 4 else array
