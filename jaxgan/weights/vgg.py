"""VGG16 from the files people have: PyTorch's names and order of axes, Keras's, or this library's, turned into this library's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

CONVOLUTIONS = tuple(f"conv{block}_{i}" for block, count in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, count + 1))
"""The 13 convolutions, from the image on."""
WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
"""Output channels of each (Simonyan and Zisserman, arXiv:1409.1556, table 1, configuration D)."""

_FEATURES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Positions of the convolutions in torchvision's `features`, where ReLU and pooling are counted, too."""
_TORCH = re.compile(r"(?P<prefix>.*?)features\.(?P<index>\d+)\.(?P<part>weight|bias|running_mean|running_var)")
_KERAS = re.compile(r"(?:.*/)?block(?P<block>\d)_conv(?P<i>\d)[/_](?P<part>kernel|bias|W|b)(?:_\d+)?(?::0)?")
_OWN = re.compile(r"conv(?P<block>\d)_(?P<i>\d)\.(?P<part>kernel|bias)")
INPUTS = {
    "torchvision": "RGB in [0, 1], minus (.485, .456, .406), over (.229, .224, .225)",
    "caffe": "BGR in [0, 255], minus (103.939, 116.779, 123.68)",
}
"""What the first kernel expects, by the name under which it is recorded."""


class Converted(NamedTuple):
    """VGG16 in this library's names."""

    arrays: dict[str, np.ndarray]
    """`conv1_1.kernel` [3, 3, in, out] to `conv5_3.bias` [out]; float16 or float32."""
    layout: str
    """'torchvision', 'keras' or 'jaxgan'."""
    preprocessing: str
    """A key of ``INPUTS``: kernels are tied to it. Keras ships the weights of the paper's authors, which expect BGR."""


def convert(arrays: Mapping[str, np.ndarray], *, widths: tuple[int, ...] | None = None) -> Converted:
    """The 13 convolutions of a VGG16, renamed and with kernels HWIO; a classifier in the file is left out, the numbers stay as they are.

    Args:
      arrays: by the names of torchvision (`features.0.weight`, OIHW, also behind a prefix), Keras 1 or 2 (`block1_conv1...`, HWIO), ours.
      widths: the output channels that each must have (``WIDTHS``); None: any that fit each other.

    Raises:
      ValueError: another network, or convolutions that are missing, of other shapes or dtypes, or not finite.
    """
    layouts = {"jaxgan": _own(arrays), "keras": _keras(arrays), "torchvision": _torchvision(arrays)}
    layout, names = next(((layout, names) for layout, names in layouts.items() if names), ("", {}))
    if not names:
        raise ValueError(f"these are not the weights of a VGG16: the names are {', '.join(list(arrays)[:4])}, ...")
    expected = [f"{name}.{part}" for name in CONVOLUTIONS for part in ("kernel", "bias")]
    unknown, missing = [name for name in names if name not in expected], [name for name in expected if name not in names]
    if unknown:
        raise ValueError(f"these are the weights of another VGG than VGG16: it has {unknown[0]} ({names[unknown[0]]})")
    if missing:
        raise ValueError(f"{len(missing)} of the 26 arrays of a VGG16 are missing, the first {missing[0]}")
    turn = layout == "torchvision"
    found = {name: arrays[names[name]] for name in expected}
    found = {name: array.transpose(2, 3, 1, 0) if turn and array.ndim == 4 else array for name, array in found.items()}
    _check(found, names, widths)
    whole = {name: np.ascontiguousarray(array, np.float16 if array.dtype == np.float16 else np.float32) for name, array in found.items()}
    return Converted(whole, layout, "caffe" if layout == "keras" else "torchvision")


def _check(found: Mapping[str, np.ndarray], names: Mapping[str, str], widths: tuple[int, ...] | None) -> None:
    before = 3
    for position, name in enumerate(CONVOLUTIONS):
        kernel, bias = found[f"{name}.kernel"], found[f"{name}.bias"]
        width = widths[position] if widths else kernel.shape[-1] if kernel.ndim == 4 else 0
        shapes = {f"{name}.kernel": (3, 3, before, width), f"{name}.bias": (width,)}
        for key, array in ((f"{name}.kernel", kernel), (f"{name}.bias", bias)):
            if array.shape != shapes[key] or not width:
                raise ValueError(f"{names[key]} is {array.shape} as {key}, not {shapes[key]}: no VGG16, or its axes are in another order")
            if array.dtype.kind != "f":
                raise ValueError(f"{names[key]} has dtype {array.dtype}, not a floating type")
            if not np.isfinite(array).all():
                raise ValueError(f"not finite: {names[key]}")
        before = width


def _own(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    return {name: name for name in arrays if _OWN.fullmatch(name)}


def _keras(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    parts = {"W": "kernel", "b": "bias"}
    matches = [(name, match) for name in arrays if (match := _KERAS.fullmatch(name))]
    return _unique([(f"conv{m['block']}_{m['i']}.{parts.get(m['part'], m['part'])}", name) for name, m in matches])


def _torchvision(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    matches = [(name, match) for name in arrays if (match := _TORCH.fullmatch(name))]
    if any(match["part"].startswith("running") for _, match in matches):
        raise ValueError("these are the weights of a VGG with batch normalisation; the VGG16 without it is read")
    prefixes = sorted({match["prefix"] for _, match in matches})
    if len(prefixes) > 1:
        raise ValueError(f"the file holds {len(prefixes)} networks with `features`: {', '.join(map(repr, prefixes[:4]))}; one is read")
    where = dict(zip(_FEATURES, CONVOLUTIONS, strict=True))
    parts = {"weight": "kernel", "bias": "bias"}
    return _unique([(f"{where.get(int(m['index']), 'features.' + m['index'])}.{parts[m['part']]}", name) for name, m in matches])


def _unique(pairs: list[tuple[str, str]]) -> dict[str, str]:
    names: dict[str, str] = {}
    for own, name in pairs:
        if own in names:
            raise ValueError(f"{names[own]} and {name} are both {own}")
        names[own] = name
    return names
