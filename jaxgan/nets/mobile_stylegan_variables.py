"""Reads MobileStyleGAN's published arrays: names and OIHW kernels of an exported graph -> the trees of ``jaxgan.nets.mobile_stylegan``.

Arrays are named 'mnet.g@MatMul.c102' or 'snet.m.layers.6.conv1@Convolution.c872': the module, the operation and the number of the
constant in the exported graph. Constants of the mapping network are in the order of these numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

Tree = Any


def params(arrays: Mapping[str, np.ndarray]) -> Tree:
    """{'mapping', 'synthesis'} in float32 from the published arrays; the widths and the number of layers come from them.

    Kernels become HWIO, modulation factors are multiplied in, channels that go into an inverse wavelet transform are put band after band.

    Raises:
      ValueError: an array is missing or another network's.
    """
    found = _by_name(arrays)
    for name, values in found.items():
        if name.endswith("@PReLU") and any(abs(float(v.ravel()[0]) - 0.2) > 1e-6 for v in values):
            raise ValueError(f"{name} has slope {float(values[0].ravel()[0])}; MobileStyleGAN's rectifiers have slope 0.2")
    layers = _layers(found)
    mapping = {}
    biases = found.get("mnet.g@Reshape", [])
    for i, kernel in enumerate(found.get("mnet.g@MatMul", [])):
        if i >= len(biases):
            raise ValueError(f"not MobileStyleGAN: layer {i} of the mapping network has no bias (mnet.g@Reshape)")
        mapping[f"dense{i}"] = {"kernel": kernel.T, "bias": biases[i]}
    if not mapping:
        raise ValueError("not MobileStyleGAN: no array mnet.g@MatMul of a mapping network")

    def operator(name: str, module: str, factor: np.ndarray, bands: bool = False) -> dict[str, np.ndarray]:
        kernel, bias = _one(found, f"{module}@MatMul").T * factor, _one(found, f"{module}.bias").ravel() * factor
        order = band_order(kernel.shape[1]) if bands else slice(None)
        return {"modulation_kernel": kernel[:, order], "modulation_bias": bias[order]}

    def convolution(name: str, bands: bool) -> dict[str, np.ndarray]:
        factor = _one(found, f"{name}@Multiply").ravel()[0]
        entry = operator(name, f"{name}.conv.modulation", factor)
        kernel, bias = _one(found, f"{name}@Convolution").transpose(2, 3, 1, 0), _one(found, f"{name}.bias").ravel()
        order = band_order(kernel.shape[3]) if bands else slice(None)
        entry["bias"] = bias[order]
        if f"{name}@GroupConvolution" not in found:
            return {**entry, "kernel": kernel[..., order]}
        taps = _one(found, f"{name}@GroupConvolution")[:, 0, 0].transpose(1, 2, 0)[..., None]
        return {**entry, "depthwise": taps, "pointwise": kernel[..., order]}

    synthesis: dict[str, Any] = {"constant": _one(found, "snet.m.input.input")[0].transpose(1, 2, 0)}
    synthesis["conv1"] = convolution("snet.m.conv1", True)
    for i in range(layers):
        module = f"snet.m.layers.{i}"
        synthesis[f"layer{i}_up"] = operator(f"{module}.up", f"{module}.up.modulation", np.float32(1), True)
        synthesis[f"layer{i}_conv1"] = convolution(f"{module}.conv1", False)
        synthesis[f"layer{i}_conv2"] = convolution(f"{module}.conv2", i < layers - 1)
    image = f"snet.m.layers.{layers - 1}.to_img"
    entry = operator(image, f"{image}.conv.modulation", _one(found, f"{image}@Multiply").ravel()[0])
    kernel = _one(found, f"{image}.conv.weight").transpose(2, 3, 1, 0)
    order = band_order(kernel.shape[3])
    synthesis["to_img"] = {**entry, "kernel": kernel[..., order], "bias": _one(found, f"{image}.bias").ravel()[order]}
    tree = {"mapping": mapping, "synthesis": synthesis}
    return _contiguous(tree)


def stored_noise(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The published noise, times its strength: {'conv1': [4, 4], 'layer0_conv1': [8, 8], ...}, float32."""
    found = _by_name(arrays)
    names = {"conv1": "snet.m.conv1"}
    for i in range(_layers(found)):
        names |= {f"layer{i}_{part}": f"snet.m.layers.{i}.{part}" for part in ("conv1", "conv2")}
    return {name: np.ascontiguousarray(_one(found, f"{module}@Add")[0, 0]) for name, module in names.items()}


def band_order(channels: int) -> np.ndarray:
    """Published channel at each place here: the means, then the first details of all, then the second, then the third.

    Published: the means of all, then three details of the first, three of the second, ...
    """
    quarter = channels // 4
    details = quarter + 3 * np.arange(quarter)
    return np.concatenate([np.arange(quarter), details, details + 1, details + 2])


def _by_name(arrays: Mapping[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Arrays in float32 by name without the constant's number, in the order of these numbers."""
    numbered = []
    for name, array in arrays.items():
        match = re.fullmatch(r"(.+)\.c(\d+)", name)
        if match:
            numbered.append((int(match[2]), match[1], np.asarray(array, np.float32)))
    found: dict[str, list[np.ndarray]] = {}
    for _, name, array in sorted(numbered, key=lambda entry: entry[:2]):
        found.setdefault(name, []).append(array)
    return found


def _layers(found: Mapping[str, Any]) -> int:
    numbers = {int(match[1]) for name in found if (match := re.match(r"snet\.m\.layers\.(\d+)\.", name))}
    if not numbers or numbers != set(range(len(numbers))):
        raise ValueError(f"not MobileStyleGAN: its layers are numbered {sorted(numbers)}; expected 0, 1, ... (snet.m.layers.0...)")
    return len(numbers)


def _one(found: Mapping[str, list[np.ndarray]], name: str) -> np.ndarray:
    if len(found.get(name, ())) != 1:
        raise ValueError(f"not MobileStyleGAN: {len(found.get(name, ()))} arrays {name}.c..., expected one")
    return found[name][0]


def _contiguous(tree: Tree) -> Tree:
    return {key: _contiguous(leaf) if isinstance(leaf, dict) else np.ascontiguousarray(leaf) for key, leaf in tree.items()}
