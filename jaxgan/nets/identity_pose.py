"""Networks that take the identity from one image and the pose from another: two encoders, a generator that reads, a discriminator.

The task and its losses are those of Xiao, Liu, Lee (ICCV 2019); the paper's layers are not known here, and these are chosen. The pose is a
narrow code with a place (4x4x16 numbers), the identity a code without one and a map from which the generator reads by content. No map of an
encoder is handed to the generator where it lies: that would paint the layout of one image or the identity of the other. There are no batch
statistics, so each image's result depends on that image alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxgan.nets.layers import Conv, Dense, average_pool, convolve, declare_spectral, truncated_normal

COARSE = 4
"""Side of the pose code, and of the generator's first map."""
POSE_CHANNELS = 16


class Identity(NamedTuple):
    """Of whom an image shows."""

    tokens: jax.Array
    """[B, n, c]: the places of the map at a quarter of the side, of all images of the identity one behind the other."""
    code: jax.Array
    """[B, e]."""


def normalise_groups(x: jax.Array, groups: int = 8, epsilon: float = 1e-5) -> jax.Array:
    """Group normalisation without scale and shift (Wu and He, ECCV 2018), [B, H, W, C]; fewer groups where C does not divide."""
    batch, height, width, channels = x.shape
    groups = math.gcd(groups, channels)
    # Means by channel first: one pass over the image for both moments, and the groups are formed on [B, C].
    mean = x.mean((1, 2)).reshape(batch, groups, -1).mean(-1)
    mean = jnp.repeat(mean, channels // groups, -1)[:, None, None]
    variance = jnp.square(x - mean).mean((1, 2)).reshape(batch, groups, -1).mean(-1)
    return (x - mean) * lax.rsqrt(jnp.repeat(variance, channels // groups, -1)[:, None, None] + epsilon)


class Norm(nn.Module):
    """Group normalisation whose scale and shift are parameters, or linear in a code [B, e] where one is given."""

    @nn.compact
    def __call__(self, x, code=None):
        channels = x.shape[-1]
        if code is None:
            scale = self.param("scale", nn.initializers.ones, (channels,))
            shift = self.param("shift", nn.initializers.zeros, (channels,))
            return normalise_groups(x) * scale + shift
        scale = Dense(channels, spectral=False, name="scale")(code)[:, None, None]
        shift = Dense(channels, spectral=False, name="shift")(code)[:, None, None]
        return normalise_groups(x) * (1.0 + scale) + shift


class ResBlk(nn.Module):
    """Twice normalisation, SiLU and a 3x3 convolution, added to the input (through a 1x1 convolution where the width changes)."""

    features: int

    @nn.compact
    def __call__(self, x, code=None):
        y = Conv(self.features, spectral=False, name="conv_0")(nn.silu(Norm(name="norm_0")(x, code)))
        y = Conv(self.features, spectral=False, name="conv_1")(nn.silu(Norm(name="norm_1")(y, code)))
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, spectral=False, name="skip")(x)
        return x + y


def strided(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 4x4 convolution of stride 2 with one pixel of padding, [B, 2H, 2W, I] -> [B, H, W, O].

    Written as a 2x2 convolution of squares of pixels, whose gradients have fast paths on CPUs.
    """
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = x.reshape(batch, height // 2 + 1, 2, width // 2 + 1, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    taps = kernel.reshape(2, 2, 2, 2, channels, -1).transpose(0, 2, 1, 3, 4, 5).reshape(2, 2, 4 * channels, -1)
    return convolve(x.reshape(batch, height // 2 + 1, width // 2 + 1, 4 * channels), taps, "VALID")


class Down(nn.Module):
    """``strided`` with bias; ``spectral`` as in ``layers.Conv``."""

    features: int
    spectral: bool = False

    @nn.compact
    def __call__(self, x):
        stddev = (2.0 / (16 * x.shape[-1])) ** 0.5
        kernel = self.param("kernel", truncated_normal(stddev), (4, 4, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        declare_spectral(self, self.features)
        return strided(x, kernel) + bias


class Trunk(nn.Module):
    """Images [B, S, S, 3] to (the map at a quarter of the side, the last map, at 1 / 2^levels of the side)."""

    widths: Sequence[int]

    @nn.compact
    def __call__(self, images):
        x = Conv(self.widths[0], spectral=False, name="stem")(images)
        quarter = x
        for level, features in enumerate(self.widths):
            x = Down(features, name=f"down_{level}")(ResBlk(features, name=f"block_{level}")(x))
            quarter = x if level == 1 else quarter
        for number in range(2):
            x = ResBlk(self.widths[-1], name=f"last_{number}")(x)
        return quarter, x


class IdentityEncoder(nn.Module):
    """[B, S, S, 3], or [B, k, S, S, 3] of k images of each identity, in [-1, 1] -> ``Identity``: codes are averaged, maps put together."""

    widths: Sequence[int]
    code: int = 256
    tokens: int = 128

    @nn.compact
    def __call__(self, images):
        images = images[:, None] if images.ndim == 4 else images
        batch, shots = images.shape[:2]
        quarter, last = Trunk(self.widths, name="trunk")(images.reshape(batch * shots, *images.shape[2:]))
        tokens = Conv(self.tokens, 1, spectral=False, name="map")(quarter)
        code = Dense(self.code, spectral=False, name="code")(last.mean((1, 2)))
        return Identity(tokens.reshape(batch, -1, self.tokens), code.reshape(batch, shots, -1).mean(1))


class PoseEncoder(nn.Module):
    """[B, S, S, 3] in [-1, 1] -> [B, 4, 4, 16] in (-1, 1). ``widths`` are those of the identity encoder; this one has half of each."""

    widths: Sequence[int]

    @nn.compact
    def __call__(self, images):
        _, x = Trunk([max(width // 2, 1) for width in self.widths], name="trunk")(images)
        x = Conv(POSE_CHANNELS, 1, spectral=False, name="map")(x)
        while x.shape[1] > COARSE:
            x = average_pool(x)
        return jnp.tanh(x)


class Reader(nn.Module):
    """Cross-attention: each place of a map [B, h, w, c] reads from the identity's tokens [B, n, t] by content, not by place.

    What it read is added through a gate that is 0 at the start.
    """

    width: int = 64
    heads: int = 4

    @nn.compact
    def __call__(self, x, tokens):
        batch, height, width, channels = x.shape

        def split(y):
            return y.reshape(batch, -1, self.heads, self.width // self.heads)

        query = split(Dense(self.width, spectral=False, name="query")(normalise_groups(x)))
        key, value = (split(Dense(self.width, spectral=False, name=name)(tokens)) for name in ("key", "value"))
        similar = jnp.einsum("bphd,bqhd->bhpq", query, key) * (self.width // self.heads) ** -0.5
        found = jnp.einsum("bhpq,bqhd->bphd", jax.nn.softmax(similar, -1), value).reshape(batch, height, width, self.width)
        gate = self.param("gate", nn.initializers.zeros, ())
        return x + gate * Dense(channels, spectral=False, name="out")(found)


class Generator(nn.Module):
    """(``Identity`` of B images, pose [B, 4, 4, 16]) -> images [B, S, S, 3] in (-1, 1), S = 4 * 2^levels.

    ``reader``: read from the identity's tokens where the map has a quarter of the side; without it only the identity's code is used.
    """

    widths: Sequence[int]
    reader: bool = True
    read: int = 64
    heads: int = 4

    @nn.compact
    def __call__(self, identity, pose):
        code, side = identity.code, COARSE * 2 ** len(self.widths)
        x = Conv(self.widths[-1], spectral=False, name="stem")(pose)
        for number in range(4):
            x = ResBlk(self.widths[-1], name=f"block_{number}")(x, code)
        for level in reversed(range(-1, len(self.widths))):
            if self.reader and 4 * x.shape[1] == side:
                x = Reader(self.read, self.heads, name="reader")(x, identity.tokens)
            if level >= 0:
                x = Conv(self.widths[level], resample="up", spectral=False, name=f"up_{level}")(x)
                x = ResBlk(self.widths[level], name=f"level_{level}")(x, code)
        return jnp.tanh(Conv(3, spectral=False, name="out")(nn.silu(Norm(name="norm")(x))))


class Judge(nn.Module):
    """One scale of the discriminator: (scores of patches [B, h, w], its maps). The kernels must be normalised already."""

    widths: Sequence[int]

    @nn.compact
    def __call__(self, images, code):
        x, maps = images, []
        for number, features in enumerate(self.widths):
            x = nn.leaky_relu(Down(features, spectral=True, name=f"down_{number}")(x), 0.2)
            maps.append(x)
        score = Conv(1, name="score")(x)[..., 0]
        belongs = jnp.sum(Dense(self.widths[-1], name="projection")(code) * x.mean((1, 2)), -1)
        return score + belongs[:, None, None], maps


class Discriminator(nn.Module):
    """Are images [B, S, S, 3] real, and of the identity with this code [B, e]?

    Patches are judged (Isola et al., CVPR 2017) at full size and, with ``scales`` 2, at half; the code takes part by its inner product with
    the mean map (Miyato and Koyama, ICLR 2018). Kernels are to be normalised by ``layers.spectral_normalise`` before ``apply``.

    Returns:
      ([scores [B, h, w] of each scale], [maps [B, h, w, c] of all layers and scales]).
    """

    widths: Sequence[int] = (64, 128, 256)
    scales: int = 2

    @nn.compact
    def __call__(self, images, code):
        scores, maps = [], []
        for scale in range(self.scales):
            score, found = Judge(self.widths, name=f"scale_{scale}")(images, code)
            scores.append(score)
            maps.extend(found)
            images = average_pool(images)
        return scores, maps


def cut_patches(place: jax.Array, size: jax.Array, side: int) -> jax.Array:
    """bool [B, side, side]: a square around ``place`` [B, 2] (down, across) with sides ``size`` [B], both as parts of the image's side."""
    at = (jnp.arange(side, dtype=place.dtype) + 0.5) / side
    down, across = (jnp.abs(at[None] - place[:, axis, None]) < 0.5 * size[:, None] for axis in range(2))
    return down[:, :, None] & across[:, None, :]


class Disguise(NamedTuple):
    """A change of colours for each sample, so that colour cannot travel through the pose."""

    mixing: jax.Array
    """[B, 3, 3]: new channels from old: a permutation, or the mean of all three in each, times a gain."""
    hidden: jax.Array
    """bool [B, S, S]: pixels that are made mid-grey."""


def draw_disguise(key: jax.Array, batch: int, side: int) -> Disguise:
    """Channels in random order, gains 0.7 to 1.3, grey for half of the samples, and a hidden square of 1/8 to 1/4 of the side."""
    keys = jax.random.split(key, 5)
    order = jax.vmap(lambda key: jax.random.permutation(key, 3))(jax.random.split(keys[0], batch))
    permutation = jax.nn.one_hot(order, 3)
    grey = jax.random.bernoulli(keys[1], 0.5, (batch,))
    mixing = jnp.where(grey[:, None, None], 1.0 / 3.0, permutation)
    gain = jax.random.uniform(keys[2], (batch, 1, 1), minval=0.7, maxval=1.3)
    size = jax.random.uniform(keys[3], (batch,), minval=0.125, maxval=0.25)
    return Disguise(gain * mixing, cut_patches(jax.random.uniform(keys[4], (batch, 2)), size, side))


def disguise(images: jax.Array, given: Disguise) -> jax.Array:
    """[B, S, S, 3] in [-1, 1] as the pose encoder sees them in training: mixed (gains about black), clipped, with the hidden square."""
    mixed = jnp.einsum("bhwc,bdc->bhwd", 0.5 * images + 0.5, given.mixing)
    return jnp.where(given.hidden[..., None], 0.0, 2.0 * jnp.clip(mixed, 0.0, 1.0) - 1.0)


def grey(images: jax.Array) -> jax.Array:
    """The mean of the channels in each of them."""
    return jnp.broadcast_to(images.mean(-1, keepdims=True), images.shape)
