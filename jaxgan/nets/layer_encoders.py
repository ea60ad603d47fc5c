"""Encoders that undo one layer of a generator: r_i, what the layer gives, -> r_(i-1), what it was given.

Bau et al., "Seeing What a GAN Cannot Generate", ICCV 2019; networks, initial values and strides are those of the published
code. All maps are NHWC. An encoder is a description (``LayerEncoder``, static), its parameters {'conv1': {'kernel', 'bias'}, 'norm1':
{'gamma', 'beta'}, ...} and its batch statistics {'norm1': {'mean', 'variance'}, ...}.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxgan.nets.layers import batch_normalise, convolve
from jaxgan.nets.stylegan import pixel_norm

SLOPE = 0.2
"""Of the leaky ReLUs."""
OFFICIAL_CHANNELS = (512,) * 7 + (256, 256, 128, 128, 64, 64, 32, 32, 3)
"""Channels of z and of what layers 1 to 15 of the published 256 px generators give; the last is the image."""


@dataclasses.dataclass(frozen=True)
class LayerEncoder:
    """The static choices of one encoder.

    A map is encoded by: pixel norm, 3x3, batch norm, leaky ReLU, 3x3, batch norm, leaky ReLU, and a 1x1 convolution with the stride.
    With ``latent`` it ends in a vector: pixel norm, one convolution of the map's whole ``window``, batch norm, leaky ReLU, 1x1, pixel norm.
    """

    inputs: int
    """Channels of r_i."""
    outputs: int
    """Channels of r_(i-1), also of all maps inside."""
    stride: int = 1
    """Side of r_i over side of r_(i-1)."""
    third: bool = True
    """The 1x1 convolution at the end; without it the result is what a leaky ReLU gives."""
    pixel_norm: bool = True
    """Whether the input is normalised first; then its scale does not matter, as it does not to a layer that begins with pixel norm."""
    latent: tuple[int, ...] | None = None
    """Shape of the result where it is a latent: (Z,), or (rows, W) for one code for each of a generator's layers."""
    window: tuple[int, int] = (4, 4)
    """(height, width) of r_i where the result is a latent."""
    unit_latent: bool = True
    """Whether the latent ends with pixel norm, so that its root mean square is 1: right for a z of normal numbers, not for a w."""

    def __post_init__(self) -> None:
        if min(self.inputs, self.outputs, self.stride, *self.window, *(self.latent or (1,))) < 1:
            raise ValueError(f"{self}: widths, strides and sides are at least 1")
        if self.latent is not None and self.latent[-1] != self.outputs:
            raise ValueError(f"latents of shape {self.latent} need {self.latent[-1]} outputs, not {self.outputs}")
        if self.stride > 1 and not self.third:
            raise ValueError(f"stride {self.stride} is that of the third convolution, which this encoder does not have")


def official(layer: int, channels: Sequence[int] = OFFICIAL_CHANNELS) -> LayerEncoder:
    """The published encoder of layer 1 to 15: odd layers from 3 to 13 double the map, so theirs halve it; layer 15's input is the image.

    Raises:
      ValueError: another layer.
    """
    if not 1 <= layer < len(channels):
        raise ValueError(f"layer {layer}: encoders are described for layers 1 to {len(channels) - 1}")
    inputs, outputs = channels[layer], channels[layer - 1]
    if layer == 1:
        return LayerEncoder(inputs, outputs, latent=(outputs,))
    last = layer == len(channels) - 1
    return LayerEncoder(inputs, outputs, 2 if layer % 2 and not last else 1, third=layer != 2, pixel_norm=not last)


def between(
    before: Sequence[int], after: Sequence[int], *, third: bool = True, pixel_norm: bool = True, unit_latent: bool = True
) -> LayerEncoder:
    """The encoder of any layer that makes a map ``after`` (h, w, C) from a map ``before``, or from a latent (Z,) or (rows, W).

    Raises:
      ValueError: sides of which one is not the same whole multiple of the other in both directions; names the shapes.
    """
    height, width, inputs = after
    if len(before) < 3:
        shape = tuple(int(length) for length in before)
        return LayerEncoder(inputs, shape[-1], pixel_norm=pixel_norm, latent=shape, window=(height, width), unit_latent=unit_latent)
    stride = height // before[0]
    if (before[0] * stride, before[1] * stride) != (height, width):
        raise ValueError(f"no encoder from a map of {height} x {width} to one of {before[0]} x {before[1]}: it halves, or keeps the size")
    return LayerEncoder(inputs, before[2], stride, third or stride > 1, pixel_norm)


def _kernels(encoder: LayerEncoder) -> dict[str, tuple[int, int, int, int]]:
    """Shape (HWIO) of each convolution's kernel, by name."""
    outputs = encoder.outputs
    if encoder.latent is not None:
        return {"conv1": (*encoder.window, encoder.inputs, outputs), "conv2": (1, 1, outputs, math.prod(encoder.latent))}
    kernels = {"conv1": (3, 3, encoder.inputs, outputs), "conv2": (3, 3, outputs, outputs)}
    return kernels | {"conv3": (1, 1, outputs, outputs)} if encoder.third else kernels


def _norms(encoder: LayerEncoder) -> tuple[str, ...]:
    return ("norm1",) if encoder.latent is not None else ("norm1", "norm2")


def fresh_convolution(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """A kernel of normal numbers of variance 2 / (inputs of one output) (He et al., ICCV 2015, equation 10)."""
    return math.sqrt(2.0 / math.prod(shape[:3])) * jax.random.normal(key, tuple(shape), dtype)


def fresh_norm(width: int) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """(parameters, statistics) of a batch normalisation that changes nothing yet."""
    ones, zeros = jnp.ones((width,), jnp.float32), jnp.zeros((width,), jnp.float32)
    return {"gamma": ones, "beta": zeros}, {"mean": zeros, "variance": ones}


def init(encoder: LayerEncoder, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params, stats), float32: kernels Kaiming normal, biases 0, batch norms as ``fresh_norm``."""
    params: dict[str, Any] = {}
    stats: dict[str, Any] = {}
    for number, (name, shape) in enumerate(_kernels(encoder).items()):
        kernel = fresh_convolution(jax.random.fold_in(key, number), shape)
        params[name] = {"kernel": kernel, "bias": jnp.zeros((shape[-1],), jnp.float32)}
    for name in _norms(encoder):
        params[name], stats[name] = fresh_norm(encoder.outputs)
    return params, stats


def apply(
    encoder: LayerEncoder, params: Mapping[str, Any], stats: Mapping[str, Any], x: jax.Array, *, train: bool = False
) -> tuple[jax.Array, dict[str, Any]]:
    """(estimate of r_(i-1), new statistics): [N, h, w, inputs] -> [N, h / stride, w / stride, outputs], or latents [N, *latent].

    Args:
      encoder: its description.
      params, stats: from ``init`` or an import.
      x: r_i.
      train: batch norms by the batch's own moments, which move the statistics; else by the statistics, which stay.

    Raises:
      ValueError: a map of other channels or, where the result is a latent, of another size.
    """
    if x.ndim != 4 or x.shape[-1] != encoder.inputs or (encoder.latent is not None and x.shape[1:3] != encoder.window):
        size = f"{encoder.window[0]}, {encoder.window[1]}" if encoder.latent is not None else "h, w"
        raise ValueError(f"a map of shape {x.shape}; this encoder takes [N, {size}, {encoder.inputs}]")
    new: dict[str, Any] = {}
    x = pixel_norm(x) if encoder.pixel_norm else x
    for number, norm in enumerate(_norms(encoder), 1):
        layer = params[f"conv{number}"]
        x = convolve(x, layer["kernel"], "VALID" if encoder.latent is not None else "SAME") + layer["bias"].astype(x.dtype)
        x, new[norm] = batch_normalise(x, **params[norm], running=stats[norm], train=train)
        x = jax.nn.leaky_relu(x, SLOPE)
    if encoder.latent is None:
        # A 1x1 convolution with a stride reads every stride-th pixel, from the first on.
        return (_pointwise(params["conv3"], x[:, :: encoder.stride, :: encoder.stride]) if encoder.third else x), new
    x = _pointwise(params["conv2"], x).reshape(x.shape[0], *encoder.latent)
    return (pixel_norm(x) if encoder.unit_latent else x), new


def _pointwise(layer: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    return convolve(x, layer["kernel"], "VALID") + layer["bias"].astype(x.dtype)
