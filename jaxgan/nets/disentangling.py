"""Encoder and decoder of *Unsupervised Robust Disentangling* (Esser, Haux, Ommer; ICCV 2019, arXiv 1910.10223), after the authors' code.

Residual blocks x + conv(relu x) with no normalisation anywhere; weights and biases uniform in +-1 / sqrt(fan_in). The encoder halves the
image by strides until it is 4x4 pixels; the decoder doubles it by moving channels to pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.nets.density_ratio import Linear, bounded_uniform
from jaxgan.nets.layers import convolve
from jaxgan.nets.unet import depth_to_space

BOTTOM = 4
"""Side of the smallest maps in pixels."""
LOGVAR = (-30.0, 10.0)
"""Limits of the logarithm of the posterior's variance."""


class Size(NamedTuple):
    """Sizes of the networks; ``SIZES`` names three."""

    side: int
    widths: tuple[int, ...]
    """Channels of the image's own size, of half of it, and so on down to 4x4."""
    code: int
    estimator: int
    """Width of the classifiers T and T'."""


SIZES = {
    "tiny": Size(32, (8, 16, 32, 64), 16, 128),
    "base": Size(64, (32, 64, 128, 256, 256), 64, 512),
    "large": Size(256, (32, 64, 128, 128, 256, 256, 256), 256, 512),
}
"""'large' is the published network for 256x256 images; the other two are chosen here after it."""


class Posterior(NamedTuple):
    """A normal distribution for each image."""

    mean: jax.Array
    """[B, d]."""
    logvar: jax.Array | None
    """[B, d]: the covariance is diagonal. None: it is full."""
    factor: jax.Array | None
    """[B, d, d]: a full covariance's lower triangular factor with a positive diagonal."""


class Conv(nn.Module):
    """A 3x3 convolution with bias and zero padding; ``stride`` 2 halves the image."""

    features: int
    stride: int = 1

    @nn.compact
    def __call__(self, x):
        fan_in = 9 * x.shape[-1]
        kernel = self.param("kernel", bounded_uniform(fan_in), (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", bounded_uniform(fan_in), (self.features,))
        return convolve(x, kernel, stride=self.stride) + bias.astype(x.dtype)


class Residual(nn.Module):
    """x + conv(relu x), [B, H, W, C] -> [B, H, W, C]."""

    @nn.compact
    def __call__(self, x):
        return x + Conv(x.shape[-1], name="conv")(nn.relu(x))


class Encoder(nn.Module):
    """``images [B, S, S, 3] -> [B, outputs]``, S = 4 * 2^(len(widths) - 1).

    Stem, then for every halving a convolution of stride 2 and a residual block; at 4x4 ``blocks`` residual blocks, relu, the mean over
    the pixels and a linear layer.
    """

    outputs: int
    widths: tuple[int, ...]
    blocks: int = 4

    @nn.compact
    def __call__(self, images):
        x = Residual(name="level0")(Conv(self.widths[0], name="stem")(images))
        for level, width in enumerate(self.widths[1:], 1):
            x = Residual(name=f"level{level}")(Conv(width, 2, name=f"down{level}")(x))
        for block in range(self.blocks):
            x = Residual(name=f"bottom{block}")(x)
        return Linear(self.outputs, name="out")(nn.relu(x).mean((1, 2)))


class Decoder(nn.Module):
    """``(code [B, d], ...) -> images [B, S, S, 3]``, of any number of codes and any real range; S as in ``Encoder``.

    Each code becomes a 4x4 map that passes ``blocks`` residual blocks of its own; the maps are joined by a convolution. Every doubling is
    a residual block and a convolution to four times the channels, which become 2x2 pixels.
    """

    widths: tuple[int, ...]
    blocks: int = 4

    @nn.compact
    def __call__(self, *codes):
        width, maps = self.widths[-1], []
        for number, code in enumerate(codes):
            x = Linear(BOTTOM * BOTTOM * width, name=f"code{number}")(code).reshape(-1, BOTTOM, BOTTOM, width)
            for block in range(self.blocks):
                x = Residual(name=f"code{number}_{block}")(x)
            maps.append(x)
        x = Conv(width, name="join")(jnp.concatenate(maps, -1))
        for level in range(len(self.widths) - 2, -1, -1):
            x = Residual(name=f"level{level + 1}")(x)
            x = depth_to_space(Conv(4 * self.widths[level], name=f"up{level}")(x), 2)
        return Conv(3, name="out")(Residual(name="level0")(x))


def outputs(code: int, kind: str) -> int:
    """Numbers that the encoder gives for a posterior over ``code`` dimensions of this kind ('diag' or 'full'); 33,152 for 256, full."""
    return 2 * code if kind == "diag" else code + code * (code + 1) // 2


def posterior(given: jax.Array, code: int, kind: str) -> Posterior:
    """The encoder's outputs [B, outputs(code, kind)] as a distribution.

    'diag': means, then log variances, kept within ``LOGVAR``. 'full': means, then the factor's lower triangle row by row; its diagonal is
    the exponential of what stands there (kept within half of ``LOGVAR``, chosen here), and row i, from 0, is over sqrt(i + 1) elsewhere.
    """
    mean, rest = given[:, :code], given[:, code:]
    if kind == "diag":
        return Posterior(mean, jnp.clip(rest, *LOGVAR), None)
    rows, columns = np.tril_indices(code)
    triangle = jnp.zeros((given.shape[0], code, code), given.dtype).at[:, rows, columns].set(rest)
    diagonal = jnp.exp(jnp.clip(jnp.diagonal(triangle, axis1=1, axis2=2), LOGVAR[0] / 2, LOGVAR[1] / 2))
    below = jnp.asarray(np.tril(np.ones((code, code)), -1) / np.sqrt(np.arange(1, code + 1))[:, None], given.dtype)
    return Posterior(mean, None, triangle * below + diagonal[:, :, None] * jnp.eye(code, dtype=given.dtype))


def draw(given: Posterior, noise: jax.Array) -> jax.Array:
    """A sample [B, d] for standard normal noise [B, d]; differentiable in the distribution."""
    if given.factor is None:
        return given.mean + jnp.exp(0.5 * given.logvar) * noise
    return given.mean + jnp.einsum("bij,bj->bi", given.factor, noise)


def check_widths(side: int, widths: tuple[int, ...]) -> None:
    """Raises ValueError where networks of these widths do not end at 4x4 pixels for images of this side."""
    if not widths or min(widths) < 1 or BOTTOM * 2 ** (len(widths) - 1) != side:
        levels = max(1, 1 + round(math.log2(max(side, BOTTOM) / BOTTOM)))
        fit = f"{levels} widths fit {BOTTOM * 2 ** (levels - 1)} px"
        raise ValueError(f"side {side} and {len(widths)} widths {widths}: each width but the first halves the image, down to 4x4; {fit}")
