"""A U-Net that labels each pixel (Ronneberger et al., MICCAI 2015), with residual blocks and group normalisation.

An encoder halves the image `depth` times, a decoder doubles it back, and each decoder level sees the encoder's features of its size.
Differences from the paper: SAME padding in place of cropping, residual blocks (He et al., 2016), and group normalisation (Wu and He,
2018). Group normalisation has no running statistics: a network labels an image in the same way in training, in evaluation, alone, and
in a batch of any size or on any number of devices, and there is no state to carry beside the parameters.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxgan.nets.layers import Conv, at_least_float32

WIDEST = 8
"""Widths double from level to level up to this multiple of the first."""


def widths(width: int, depth: int) -> tuple[int, ...]:
    """Channels of the levels 0 .. depth: doubled from one to the next, at most ``WIDEST`` times the first."""
    return tuple(width * min(2**level, WIDEST) for level in range(depth + 1))


class GroupNorm(nn.Module):
    """Normalises each image over height, width and the channels of a group; scale and shift by channel. Moments in float32.

    There are gcd(8, channels) groups.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x):
        channels = x.shape[-1]
        groups = math.gcd(8, channels)
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        wide = at_least_float32(x)
        # Means by channel first: one pass over the image for both moments, and the groups are formed on [N, C].
        mean = wide.mean((1, 2)).reshape(-1, groups, channels // groups).mean(-1)
        mean = jnp.repeat(mean, channels // groups, -1)[:, None, None]
        variance = jnp.square(wide - mean).mean((1, 2)).reshape(-1, groups, channels // groups).mean(-1)
        variance = jnp.repeat(variance, channels // groups, -1)[:, None, None]
        return ((wide - mean) * (scale * lax.rsqrt(variance + self.epsilon)) + bias).astype(x.dtype)


class Block(nn.Module):
    """Two 3x3 convolutions, each normalised, around which the input is added (by a 1x1 convolution where the width changes)."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        y = Conv(self.features, spectral=False, dtype=self.dtype, name="conv_0")(x)
        y = nn.relu(GroupNorm(name="norm_0")(y))
        y = Conv(self.features, spectral=False, dtype=self.dtype, name="conv_1")(y)
        y = GroupNorm(name="norm_1")(y)
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, spectral=False, dtype=self.dtype, name="skip")(x)
        return nn.relu(x.astype(self.dtype) + y)


class UNet(nn.Module):
    """Images [N, H, W, C] in [-1, 1] to logits float32 [N, H, W, classes], for any H and W.

    The image is padded by its own edge to a multiple of ``patch * 2**depth`` and the logits are cut back.
    """

    classes: int
    width: int = 32
    depth: int = 4
    patch: int = 1
    """Side of the squares of pixels that the first convolution takes as one position and the last one gives; 2 spares the full
    resolution, three quarters of the work."""
    dtype: Any = jnp.float32
    """What convolutions and activations compute in; parameters, moments and logits stay float32."""

    @nn.compact
    def __call__(self, images):
        _, height, width, _ = images.shape
        stride = self.patch * 2**self.depth
        images = jnp.pad(images, ((0, 0), (0, -height % stride), (0, -width % stride), (0, 0)), "edge")
        x = space_to_depth(images.astype(self.dtype), self.patch)
        levels = widths(self.width, self.depth)
        x = Conv(levels[0], spectral=False, dtype=self.dtype, name="stem")(x)
        skips = []
        for level, features in enumerate(levels):
            if level:
                x = Conv(features, resample="down", spectral=False, dtype=self.dtype, name=f"down_{level}")(x)
            x = Block(features, self.dtype, name=f"encoder_{level}")(x)
            skips.append(x)
        for level in reversed(range(self.depth)):
            x = Conv(levels[level], resample="up", spectral=False, dtype=self.dtype, name=f"up_{level}")(x)
            x = jnp.concatenate([skips[level], x], -1)
            x = Block(levels[level], self.dtype, name=f"decoder_{level}")(x)
        # Small at the start, so that all classes are about equally likely, and the same for the pixels of a square, so that no pattern of
        # squares has to be unlearned (Aitken et al., "Checkerboard artifact free sub-pixel convolution", 2017).
        kernel = self.param("head_kernel", repeated_normal(0.01, self.patch**2), (levels[0], self.patch**2 * self.classes))
        bias = self.param("head_bias", nn.initializers.zeros, (self.patch**2 * self.classes,))
        logits = at_least_float32(x) @ kernel + bias
        return depth_to_space(logits, self.patch)[:, :height, :width]

def repeated_normal(stddev: float, times: int):
    """Initialiser of [rows, times * columns]: a normal distribution for [rows, columns], repeated."""

    def init(key, shape, dtype=jnp.float32):
        return jnp.tile(stddev * jax.random.normal(key, (shape[0], shape[1] // times), dtype), (1, times))

    return init


def space_to_depth(x: jax.Array, side: int) -> jax.Array:
    """[N, side * H, side * W, C] -> [N, H, W, side * side * C]; each square of pixels becomes one position."""
    if side == 1:
        return x
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // side, side, width // side, side, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // side, width // side, side * side * channels)


def depth_to_space(x: jax.Array, side: int) -> jax.Array:
    """The inverse of ``space_to_depth``: [N, H, W, side * side * C] -> [N, side * H, side * W, C]."""
    if side == 1:
        return x
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, side, side, channels // (side * side))
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, side * height, side * width, channels // (side * side))
