"""ResNet-50 with a stem of three 3x3 convolutions, for inference: batch normalisation is folded into the convolutions.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, in the variant of the MIT scene-parsing networks: the stem has the
strides 2, 1, 1 and is followed by a max pool of stride 2; in a bottleneck that halves the map, the 3x3 convolution has the stride.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from jaxgan.arrays import check_finite
from jaxgan.nets.layers import DIMENSIONS

EPSILON = 1e-5
"""Added to the variance of batch normalisation."""

_BOOKKEEPING = (".num_batches_tracked", "._tmp_running_mean", "._tmp_running_var", "._running_iter")
"""Buffers of PyTorch's and of the synchronised batch normalisation that inference does not use."""


class Unit(NamedTuple):
    """One convolution, and where a PyTorch state dict has it."""

    name: str
    """Of the parameters here: ``<name>.kernel`` [k, k, I, O] and ``<name>.bias`` [O]."""
    convolution: str
    """Prefix of ``weight`` (and of ``bias``, where no normalisation follows)."""
    normalisation: str | None
    """Prefix of the batch normalisation that is folded in."""
    shape: tuple[int, int, int, int]
    """HWIO."""


class Layout(NamedTuple):
    """Widths and depths of the encoder."""

    stem: tuple[int, int, int] = (64, 64, 128)
    planes: tuple[int, int, int, int] = (64, 128, 256, 512)
    """Inner width of the bottlenecks; a stage's output has four times as many channels."""
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)

    @property
    def outputs(self) -> tuple[int, ...]:
        """Channels of the four maps."""
        return tuple(4 * width for width in self.planes)


RESNET50 = Layout()


def units(layout: Layout = RESNET50) -> list[Unit]:
    """All convolutions of the encoder, in the order in which they are used."""
    found, width = [], 3
    for k, out in enumerate(layout.stem):
        found.append(Unit(f"stem.{k}", f"conv{k + 1}", f"bn{k + 1}", (3, 3, width, out)))
        width = out
    for stage, (inner, blocks) in enumerate(zip(layout.planes, layout.blocks, strict=True), 1):
        for block in range(blocks):
            here, there = f"stage{stage}.{block}", f"layer{stage}.{block}"
            shapes = {"reduce": (1, 1, width, inner), "spatial": (3, 3, inner, inner), "expand": (1, 1, inner, 4 * inner)}
            for k, (name, shape) in enumerate(shapes.items(), 1):
                found.append(Unit(f"{here}.{name}", f"{there}.conv{k}", f"{there}.bn{k}", shape))
            if block == 0 and (stage > 1 or width != 4 * inner):
                found.append(Unit(f"{here}.shortcut", f"{there}.downsample.0", f"{there}.downsample.1", (1, 1, width, 4 * inner)))
            width = 4 * inner
    return found


def state_shapes(wanted: Sequence[Unit]) -> dict[str, tuple[int, ...]]:
    """Names and shapes (kernels OIHW) of the PyTorch state dict that has these convolutions."""
    shapes: dict[str, tuple[int, ...]] = {}
    for unit in wanted:
        height, width, inputs, outputs = unit.shape
        shapes[f"{unit.convolution}.weight"] = (outputs, inputs, height, width)
        if unit.normalisation is None:
            shapes[f"{unit.convolution}.bias"] = (outputs,)
        else:
            shapes |= {f"{unit.normalisation}.{name}": (outputs,) for name in ("weight", "bias", "running_mean", "running_var")}
    return shapes


def fold(arrays: Mapping[str, np.ndarray], wanted: Sequence[Unit], where: Any) -> dict[str, np.ndarray]:
    """Parameters from a PyTorch state dict: kernels OIHW -> HWIO, batch normalisation folded in (in float64), float32.

    With the running mean m and variance v, scale s and shift b: k' = k s / sqrt(v + 1e-5), bias' = b - m s / sqrt(v + 1e-5).

    Args:
      arrays: the state dict; a prefix ``module.`` of all names is dropped, counters of batch normalisation are ignored.
      wanted: the convolutions that it must have, and nothing else.
      where: names the state dict in errors.

    Raises:
      ValueError: names that are missing or not known, or arrays of another shape, the first three of each; values that are not finite; a
      negative variance.
    """
    if arrays and all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    arrays = {name: array for name, array in arrays.items() if not name.endswith(_BOOKKEEPING)}
    shapes = state_shapes(wanted)
    given = {name: arrays[name].shape for name in shapes if name in arrays}
    wrong = {
        "missing": [name for name in shapes if name not in arrays],
        "of another shape": [f"{name} {shape}, not {shapes[name]}" for name, shape in given.items() if shape != shapes[name]],
        "not known": [name for name in arrays if name not in shapes],
    }
    if any(wrong.values()):
        few = {kind: f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}" for kind, names in wrong.items()}
        what = "; ".join(f"{kind}: {names}" for kind, names in few.items() if names)
        raise ValueError(f"{where} is not the network's state dict: {what}")
    check_finite(arrays, where)
    params = {}
    for unit in wanted:
        kernel = np.asarray(arrays[f"{unit.convolution}.weight"], np.float64).transpose(2, 3, 1, 0)
        if unit.normalisation is None:
            bias = np.asarray(arrays[f"{unit.convolution}.bias"], np.float64)
        else:
            names = ("weight", "bias", "running_mean", "running_var")
            scale, shift, mean, variance = (np.asarray(arrays[f"{unit.normalisation}.{name}"], np.float64) for name in names)
            if variance.min() < 0:
                raise ValueError(f"{where}: {unit.normalisation}.running_var has the value {variance.min():g}; no variance is negative")
            scale = scale / np.sqrt(variance + EPSILON)
            kernel, bias = kernel * scale, shift - mean * scale
        params |= {f"{unit.name}.kernel": kernel.astype(np.float32), f"{unit.name}.bias": bias.astype(np.float32)}
    return params


def convolve(params: Mapping[str, jax.Array], name: str, x: jax.Array, stride: int = 1) -> jax.Array:
    """The convolution ``name`` with its bias, zero padding k // 2: [N, H, W, I] -> [N, ceil(H / stride), ceil(W / stride), O]."""
    kernel = params[f"{name}.kernel"].astype(x.dtype)
    padding = [(size // 2, size // 2) for size in kernel.shape[:2]]
    x = lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=DIMENSIONS)
    return x + params[f"{name}.bias"].astype(x.dtype)


def _bottleneck(params, name: str, x: jax.Array, stride: int) -> jax.Array:
    y = jax.nn.relu(convolve(params, f"{name}.reduce", x))
    y = jax.nn.relu(convolve(params, f"{name}.spatial", y, stride))
    y = convolve(params, f"{name}.expand", y)
    if f"{name}.shortcut.kernel" in params:
        x = convolve(params, f"{name}.shortcut", x, stride)
    return jax.nn.relu(x + y)


def stages(params: Mapping[str, jax.Array], images: jax.Array) -> list[jax.Array]:
    """The outputs of the four stages: [N, H, W, 3] -> [N, H / s, W / s, C] at the strides s = 4, 8, 16, 32 (sizes round up)."""
    x = images
    for k in range(3):
        x = jax.nn.relu(convolve(params, f"stem.{k}", x, 2 if k == 0 else 1))
    low = np.array(-np.inf, x.dtype)
    x = lax.reduce_window(x, low, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
    maps = []
    for stage in range(1, 5):
        block = 0
        while f"stage{stage}.{block}.reduce.kernel" in params:
            x = _bottleneck(params, f"stage{stage}.{block}", x, 2 if stage > 1 and block == 0 else 1)
            block += 1
        maps.append(x)
    return maps
