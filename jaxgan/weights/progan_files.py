"""Generators of progressive GANs from the files people have: PyTorch state dicts in both namings, ablated ones, TensorFlow's variables.

State dicts name a layer ``layer3`` and ``output_256x256``, or in older files ``features.2`` and ``output``; kernels are OIHW. TensorFlow
has ``8x8/Conv0_up/weight``, whose kernels are those of a transposed convolution, and ``ToRGB_lod0/weight``. Sizes and what was left out
are read from the arrays; of the ablated networks with learned scales alone they do not tell where pixel norm stands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxgan.nets.progan import ABLATIONS, Generator, layout
from jaxgan.nets.stylegan_layout import GAIN

_TORCH = re.compile(
    r"(?:(?P<layer>layer|features\.)(?P<index>\d+)|output(?:_(?P<side>\d+)x(?P=side))?)\."
    r"(?P<part>conv\.weight|conv\.bias|wscale\.b|wscale\.scale|norm\.\w+)"
)
_TENSORFLOW = re.compile(
    r"(?:(?P<side>\d+)x(?P=side)/(?P<layer>Dense|Conv|Conv0_up|Conv1)|ToRGB_lod(?P<lod>\d+))/(?P<part>weight|bias)(?::0)?"
)
_PARTS = {
    "conv.weight": "kernel",
    "conv.bias": "bias",
    "wscale.b": "bias",
    "wscale.scale": "scale",
    "norm.weight": "gamma",
    "norm.bias": "beta",
    "norm.running_mean": "mean",
    "norm.running_var": "variance",
}
_PASSED_OVER = ("norm.num_batches_tracked",)
_STATS = ("mean", "variance")
_WANTED = "expected 'layer1.conv.weight', 'features.0.conv.weight' or '4x4/Dense/weight'"

Tree = dict[str, dict[str, np.ndarray]]
PixelNorm = Literal["ends"] | bool | None


class ProganArrays(NamedTuple):
    """A generator in this library's trees."""

    network: Generator
    params: Tree
    """{'layer1': {'kernel' [4, 4, Z, C], 'bias' [C]}, ..., 'output': ...}, float32."""
    stats: Tree
    """{'layer1': {'mean', 'variance'}, ...} of a generator with batch normalisation; else {}."""


def convert(arrays: Mapping[str, np.ndarray], pixel_norm: PixelNorm = None) -> ProganArrays:
    """The generator that these arrays are.

    Args:
      arrays: by the names of a PyTorch state dict (also below 'state_dict.' or 'module.') or of TensorFlow's variables.
      pixel_norm: of a network with learned scales, the field of ``nets.progan.Generator``; None: unknown. Scales that all equal the
        published constants are then read as constants, with pixel norm everywhere.

    Raises:
      ValueError: another network, arrays that are missing, unknown or of other shapes, or learned scales without ``pixel_norm``.
    """
    if any(name.startswith("state_dict.") for name in arrays):
        arrays = {name.removeprefix("state_dict."): array for name, array in arrays.items() if name.startswith("state_dict.")}
    arrays = {name.removeprefix("module."): array for name, array in arrays.items() if not name.endswith(_PASSED_OVER)}
    read = _tensorflow if any("/" in name for name in arrays) else _torch
    found = read({name: np.asarray(array, np.float32) for name, array in arrays.items()})
    hidden = [f"layer{i}" for i in range(1, len(found))]
    if set(found) != {*hidden, "output"} or len(hidden) % 2 or not hidden:
        raise ValueError(f"its layers are {', '.join(sorted(found)) or 'none'}; a generator has layer1 to an even number, and an output")
    for name, layer in found.items():
        if "kernel" not in layer or layer["kernel"].ndim != 4:
            raise ValueError(f"{name} has no kernel of four axes")
    sizes = (found["layer1"]["kernel"].shape[2], *(found[name]["kernel"].shape[3] for name in hidden[::2]))
    switches = _switches("layer1.conv.bias" in arrays or "features.0.conv.bias" in arrays, found, pixel_norm)
    network = Generator(sizes, found["output"]["kernel"].shape[3], **switches)
    dropped = () if network.scaling == "learned" else ("scale",)
    params = {name: {part: array for part, array in found[name].items() if part not in (*_STATS, *dropped)} for name in (*hidden, "output")}
    stats = {name: {part: found[name][part] for part in _STATS if part in found[name]} for name in hidden} if network.batch_norm else {}
    wanted = layout(network)
    _check(params, {name: {part: leaf.shape for part, leaf in layer.items()} for name, layer in wanted.items()})
    _check(stats, {name: dict.fromkeys(_STATS, wanted[name]["gamma"].shape) for name in stats})
    return ProganArrays(network, params, stats)


def _switches(plain: bool, found: Tree, pixel_norm: PixelNorm) -> dict[str, Any]:
    """Fields of ``Generator`` by what the layers hold; ``plain``: hidden convolutions have a bias of their own."""
    if "gamma" in found["layer1"]:
        return ABLATIONS["G128_simple"]
    if plain:
        return ABLATIONS["G128_minibatch_disc"]
    if "scale" not in found["layer1"] or (pixel_norm is None and _constant(found)):
        return {}
    if pixel_norm is None:
        raise ValueError(
            "its scales are learned, and its arrays do not tell where pixel norm stands: keep 'equalized-learning-rate' or "
            "'pixelwise-normalization' in the name of the file"
        )
    return dict(pixel_norm=pixel_norm, scaling="learned")


def _constant(found: Tree) -> bool:
    """Whether all scales are the constants that the published networks multiply by."""
    for name, layer in found.items():
        gain = 1.0 if name == "output" else GAIN
        if not np.allclose(layer.get("scale", 0.0), gain / np.prod(layer["kernel"].shape[:3]) ** 0.5, rtol=1e-4, atol=0):
            return False
    return True


def _torch(arrays: Mapping[str, np.ndarray]) -> Tree:
    found: Tree = {}
    for name, array in arrays.items():
        match = _TORCH.fullmatch(name)
        if match is None or match["part"] not in _PARTS:
            raise ValueError(f"{name!r} is no array of a progressive GAN's generator; {_WANTED}")
        layer = f"layer{int(match['index']) + (match['layer'] != 'layer')}" if match["layer"] else "output"
        part = _PARTS[match["part"]]
        if part in found.setdefault(layer, {}):
            raise ValueError(f"{name!r}: {layer} is there twice")
        if part == "kernel" and array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        found[layer][part] = np.ascontiguousarray(array).reshape(() if part == "scale" and array.size == 1 else array.shape)
    return found


def _tensorflow(arrays: Mapping[str, np.ndarray]) -> Tree:
    if float(np.asarray(arrays.get("lod", arrays.get("lod:0", 0.0)))):
        raise ValueError("its variable lod is not 0: the network was saved while it grew; only finished ones are read")
    found: Tree = {}
    for name, array in arrays.items():
        match = _TENSORFLOW.fullmatch(name)
        if match is None and name.split(":")[0] != "lod":
            raise ValueError(f"{name!r} is no variable of a progressive GAN's generator; {_WANTED}")
        if match is None or int(match["lod"] or 0):
            continue  # outputs of the smaller sides are of no use to a finished network
        kind, layer = match["layer"], "output"
        if kind is not None:
            layer = f"layer{2 * int(match['side']).bit_length() - (5 if kind in ('Dense', 'Conv0_up') else 4)}"
        if match["part"] == "bias":
            found.setdefault(layer, {})["bias"] = array
            continue
        if array.ndim != (2 if kind == "Dense" else 4) or (kind == "Dense" and array.shape[1] % 16):
            raise ValueError(f"{name!r} has the shape {array.shape}, which is not that of a kernel")
        if kind == "Dense":
            array = array.reshape(array.shape[0], -1, 4, 4).transpose(2, 3, 0, 1)[::-1, ::-1]
        elif kind == "Conv0_up":
            array = array.transpose(0, 1, 3, 2)[::-1, ::-1]
        found.setdefault(layer, {})["kernel"] = np.ascontiguousarray(array)
    return found


def _check(found: Tree, wanted: Mapping[str, Mapping[str, tuple[int, ...]]]) -> None:
    """ValueError that names the first array whose shape is not the one that the sizes need."""
    shapes = [{f"{layer} {part}": np.shape(array) for layer, parts in found.items() for part, array in parts.items()}]
    shapes.append({f"{layer} {part}": shape for layer, parts in wanted.items() for part, shape in parts.items()})
    for name in sorted({*shapes[0], *shapes[1]}):
        if shapes[0].get(name) != shapes[1].get(name):
            raise ValueError(f"{name} is {shapes[0].get(name, 'absent')}; this generator needs {shapes[1].get(name, 'none')}")
