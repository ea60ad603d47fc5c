"""The image encoder of layer inversion: an image -> an estimate of r, the activation that an inversion aims at.

A ResNet-18 (He et al., CVPR 2016) without its average pool and classifier, and behind it a 1x1 convolution and a leaky ReLU, as in the
published code of Bau et al., "Seeing What a GAN Cannot Generate", ICCV 2019. All maps are NHWC, images RGB in [-1, 1].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgan.nets.layer_encoders import SLOPE, fresh_convolution, fresh_norm
from jaxgan.nets.layers import DIMENSIONS, average_pool, batch_normalise
from jaxgan.nets.windows import max_pool

_DROPPED = ("pool", "stem", "stage2", "stage3", "stage4")
"""The five places where the network halves the map, in the order in which small images do without."""


@dataclasses.dataclass(frozen=True)
class ImageEncoder:
    """The static choices. The published network halves five times, 256 px -> 8x8; with its 'halfsize', four times, 128 px -> 8x8."""

    outputs: int = 512
    """Channels of r."""
    halvings: int = 5
    """Times by which the map is halved: side of the image = 2^halvings side of r. Above 5 the image itself is averaged down first."""
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    """Channels of the four stages; the stem has those of the first."""
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    """Residual blocks of each stage, of two 3x3 convolutions."""

    def __post_init__(self) -> None:
        if min(self.outputs, *self.widths, *self.blocks) < 1 or not 0 <= self.halvings <= 12:
            raise ValueError(f"{self}: widths and blocks are at least 1, halvings 0 to 12")

    def stride(self, place: str) -> int:
        """1 or 2, at 'stem', 'pool', 'stage2', 'stage3' or 'stage4'. 128 px lack the pool's, 64 px the stem's as well, ..."""
        return 1 if place in _DROPPED[: max(5 - self.halvings, 0)] else 2


def between(image: Sequence[int], target: Sequence[int], widths: tuple[int, int, int, int] = (64, 128, 256, 512)) -> ImageEncoder:
    """The encoder of images (H, W, 3) for an activation (h, w, C).

    Raises:
      ValueError: H / h and W / w are not the same power of two, or images that are not RGB.
    """
    factor = image[0] // target[0] if target[0] else 0
    halvings = max(factor, 1).bit_length() - 1
    if factor < 1 or 2**halvings != factor or (target[0] * factor, target[1] * factor, 3) != tuple(image):
        raise ValueError(f"no image encoder from {tuple(image)} to {tuple(target)}: the sides must be the same power of two apart")
    return ImageEncoder(target[2], halvings, widths)


def _blocks(encoder: ImageEncoder) -> list[tuple[str, int, int, int]]:
    """(name, input channels, output channels, stride) of each residual block, in order."""
    found, width = [], encoder.widths[0]
    for stage, (out, count) in enumerate(zip(encoder.widths, encoder.blocks, strict=True), 1):
        for block in range(count):
            stride = encoder.stride(f"stage{stage}") if stage > 1 and block == 0 else 1
            found.append((f"stage{stage}.{block}", width, out, stride))
            width = out
    return found


def kernel_shapes(encoder: ImageEncoder) -> dict[str, tuple[int, int, int, int]]:
    """Shape (HWIO) of each kernel by name: 'stem', 'stage1.0.conv1', 'stage1.0.conv2', 'stage2.0.shortcut', ..., 'head'."""
    shapes = {"stem": (7, 7, 3, encoder.widths[0])}
    for name, width, out, _ in _blocks(encoder):
        shapes |= {f"{name}.conv1": (3, 3, width, out), f"{name}.conv2": (3, 3, out, out)}
        # The first of stages 2 to 4 always has one, also where it neither halves nor widens: arrays do not depend on the halvings.
        if width != out or (name.endswith(".0") and not name.startswith("stage1")):
            shapes[f"{name}.shortcut"] = (1, 1, width, out)
    return shapes | {"head": (1, 1, encoder.widths[3], encoder.outputs)}


def init(encoder: ImageEncoder, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params, stats), float32: kernels Kaiming normal, the head's bias 0, batch norms that change nothing yet.

    params[name] = {'kernel', 'gamma', 'beta'} and stats[name] = {'mean', 'variance'} for each name of ``kernel_shapes``, but
    {'kernel', 'bias'} and no statistics for 'head'.
    """
    params: dict[str, Any] = {}
    stats: dict[str, Any] = {}
    for number, (name, shape) in enumerate(kernel_shapes(encoder).items()):
        params[name] = {"kernel": fresh_convolution(jax.random.fold_in(key, number), shape)}
        if name == "head":
            params[name]["bias"] = jnp.zeros((shape[-1],), jnp.float32)
        else:
            scale, stats[name] = fresh_norm(shape[-1])
            params[name] |= scale
    return params, stats


def apply(
    encoder: ImageEncoder, params: Mapping[str, Any], stats: Mapping[str, Any], images: jax.Array, *, train: bool = False
) -> tuple[jax.Array, dict[str, Any]]:
    """(estimate of r, new statistics): [N, H, W, 3] in [-1, 1] -> [N, H / 2^halvings, W / 2^halvings, outputs].

    ``train``: batch norms by the batch's own moments, which move the statistics; else by the statistics, which stay.

    Raises:
      ValueError: images of another shape, or with sides that cannot be halved so often.
    """
    maps, new = stages(encoder, params, stats, images, train=train)
    return maps["head"], new


def stages(
    encoder: ImageEncoder, params: Mapping[str, Any], stats: Mapping[str, Any], images: jax.Array, *, train: bool = False
) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    """The maps behind each part, 'stem', 'pool', 'stage1' to 'stage4', 'head', and the new statistics; otherwise as ``apply``."""
    factor = 2**encoder.halvings
    if images.ndim != 4 or images.shape[-1] != 3 or images.shape[1] % factor or images.shape[2] % factor:
        raise ValueError(f"images of shape {images.shape}; this encoder takes [N, H, W, 3] with sides that {factor} divides")
    new: dict[str, Any] = {}

    def convolution(name: str, x: jax.Array, stride: int = 1) -> jax.Array:
        layer = params[name]
        size = layer["kernel"].shape[0]
        if size == 1:  # with a stride it reads every stride-th pixel: a slice has the faster gradient
            x, stride = x[:, ::stride, ::stride], 1
        # Zeros on both sides, as PyTorch: 'SAME' puts an odd one behind, which shifts what a stride reads.
        edges = [(size // 2, size // 2)] * 2
        x = lax.conv_general_dilated(x, layer["kernel"].astype(x.dtype), (stride, stride), edges, dimension_numbers=DIMENSIONS)
        x, new[name] = batch_normalise(x, layer["gamma"], layer["beta"], stats[name], train)
        return x

    x = images
    for _ in range(encoder.halvings - 5):
        x = average_pool(x)
    maps = {"stem": jax.nn.relu(convolution("stem", x, encoder.stride("stem")))}
    around = jnp.pad(maps["stem"], ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    maps["pool"] = x = max_pool(around, 3, encoder.stride("pool"))
    for name, _, _, stride in _blocks(encoder):
        y = jax.nn.relu(convolution(f"{name}.conv1", x, stride))
        y = convolution(f"{name}.conv2", y)
        x = jax.nn.relu(y + (convolution(f"{name}.shortcut", x, stride) if f"{name}.shortcut" in params else x))
        maps[name.partition(".")[0]] = x
    head = params["head"]
    x = lax.conv_general_dilated(x, head["kernel"].astype(x.dtype), (1, 1), "VALID", dimension_numbers=DIMENSIONS)
    maps["head"] = jax.nn.leaky_relu(x + head["bias"].astype(x.dtype), SLOPE)
    return maps, new
