"""COCO-GAN's networks: micro-patch generator, macro-patch discriminator, and the heads that predict coordinate and latent.

The kernels handed to ``apply`` must be spectrally normalised already (``layers.spectral_normalise``); at initialisation the modules
declare the vectors for it. Sources: COCO-GAN (Lin et al., ICCV 2019) and its published code; where the two differ the code is followed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxgan.nets.layers import BatchNorm, Conv, Dense, at_least_float32, moments


def generator_widths(micro: tuple[int, int], extra_blocks: int) -> list[int]:
    """Multiples of the base width, one per residual block: log2(p) - 1 blocks that double the size, then ``extra_blocks`` that don't.

    p is the shorter side of the micro patch.

    Raises:
      ValueError: the shorter side is no power of two from 4 up, or the longer one no multiple of it.
    """
    side = min(micro)
    if side < 4 or side & (side - 1) or max(micro) % side:
        raise ValueError(
            f"micro patch {micro[0]}x{micro[1]}: the generator needs a shorter side that is a power of two from 4 up, and a longer one "
            "that is a multiple of it"
        )
    blocks = int(math.log2(side)) - 1 + extra_blocks
    return ([8, 4, 2] + [1] * blocks)[:blocks]


def layers(micro: tuple[int, int], extra_blocks: int) -> tuple[str, ...]:
    """Names of the generator's activations from which a micro patch can be made, shallowest first: 'input', 'block_0', ..."""
    return ("input", *(f"block_{i}" for i in range(len(generator_widths(micro, extra_blocks)))))


def discriminator_widths(macro: tuple[int, int], extra_blocks: int) -> list[int]:
    """Multiples of the base width, one per residual block, for a macro patch (its shorter side counts).

    Raises:
      ValueError: a side below 8, or one that the halvings (each block's but the last and the extra ones) do not divide.
    """
    blocks = int(math.log2(min(macro))) - 1 + extra_blocks
    halvings = blocks - 1 - extra_blocks
    if blocks < 2 or any(side % 2**halvings for side in macro):
        raise ValueError(
            f"macro patch {macro[0]}x{macro[1]}: the discriminator halves it {max(halvings, 1)} times, so both sides must be "
            f"at least 8 and divisible by {2 ** max(halvings, 1)}"
        )
    widths = [2, 4, 8, 8]
    return [1] * (blocks - 4) + widths if blocks > 4 else [1] + widths[len(widths) - blocks + 1 :]


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation whose scale and shift are linear functions of latent and coordinate.

    ``form``: 'var' divides by sqrt(variance^2 + 1e-5), which is what COCO-GAN's released code and checkpoints do; 'std' is the
    textbook sqrt(variance + 1e-5). Running moments: decay 0.99, biased variance.
    """

    form: str = "var"
    decay: float = 0.99
    epsilon: float = 1e-5
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, condition, train: bool):
        features = x.shape[-1]
        gamma = Dense(features, spectral=False, name="gamma")(condition)[:, None, None]
        beta = Dense(features, spectral=False, name="beta")(condition)[:, None, None]
        running_mean = self.variable("stats", "mean", jnp.zeros, (features,), jnp.float32)
        running_variance = self.variable("stats", "variance", jnp.ones, (features,), jnp.float32)
        if train:
            mean, variance, _ = moments(x, self.axis_name)
            if not self.is_initializing():
                running_mean.value = self.decay * running_mean.value + (1 - self.decay) * lax.stop_gradient(mean)
                running_variance.value = self.decay * running_variance.value + (1 - self.decay) * lax.stop_gradient(variance)
        else:
            mean, variance = running_mean.value, running_variance.value
        power = variance * variance if self.form == "var" else variance
        normalised = (at_least_float32(x) - mean) * lax.rsqrt(power + self.epsilon)
        return (gamma * normalised + beta).astype(x.dtype)


class GeneratorBlock(nn.Module):
    """Residual block: CBN, ReLU, [x2], 3x3, CBN, ReLU, 3x3, beside [x2], 1x1."""

    features: int
    up: bool
    cbn_form: str
    dtype: Any
    axis_name: str | None

    @nn.compact
    def __call__(self, x, condition, train: bool):
        resample = "up" if self.up else "none"
        h = nn.relu(ConditionalBatchNorm(self.cbn_form, axis_name=self.axis_name, name="cbn_1")(x, condition, train))
        h = Conv(self.features, 3, resample, dtype=self.dtype, name="conv_1")(h)
        h = nn.relu(ConditionalBatchNorm(self.cbn_form, axis_name=self.axis_name, name="cbn_2")(h, condition, train))
        h = Conv(self.features, 3, dtype=self.dtype, name="conv_2")(h)
        return h + Conv(self.features, 1, resample, dtype=self.dtype, name="shortcut")(x)


class Generator(nn.Module):
    """(latents [B, z], micro coordinates [B, c]) -> micro patches float32 [B, p, p, channels] in (-1, 1).

    ``train``: normalise by the moments of this batch (all micro patches of it) and move the running ones, collection 'stats'.
    ``start`` (name, activation [B, h, w, C]): begin behind 'input', 'block_0', ...; ``edits`` {name: f}: f(activation) takes the
    activation's place, of layers that run.
    """

    micro: tuple[int, int] = (16, 16)
    channels: int = 3
    width: int = 64
    extra_blocks: int = 0
    cbn_form: str = "var"
    dtype: Any = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self,
        latents: jax.Array,
        coordinates: jax.Array,
        train: bool,
        start: tuple[str, jax.Array] | None = None,
        edits: Mapping[str, Callable[[jax.Array], jax.Array]] | None = None,
    ) -> jax.Array:
        condition = jnp.concatenate([latents, coordinates], -1)
        names = layers(self.micro, self.extra_blocks)
        widths = [16, *generator_widths(self.micro, self.extra_blocks)]
        first, x = (-1, None) if start is None else (names.index(start[0]), start[1].astype(self.dtype))
        for index in range(first + 1, len(names)):
            if index == 0:
                sides = [2 * side // min(self.micro) for side in self.micro]  # 2x2 for square patches
                x = Dense(sides[0] * sides[1] * 16 * self.width, name="input")(condition)
                x = x.reshape(-1, *sides, 16 * self.width).astype(self.dtype)
            else:
                up = x.shape[1] < self.micro[0]
                block = GeneratorBlock(widths[index] * self.width, up, self.cbn_form, self.dtype, self.axis_name, name=names[index])
                x = block(x, condition, train)
            if edits and names[index] in edits:
                x = edits[names[index]](x)
        x = nn.relu(BatchNorm(axis_name=self.axis_name, name="norm")(x, train))
        return jnp.tanh(at_least_float32(Conv(self.channels, 3, dtype=self.dtype, name="output")(x)))


class DiscriminatorBlock(nn.Module):
    """Residual block: [ReLU], 3x3, ReLU, 3x3, [2x2 means], beside [2x2 means], 1x1."""

    features: int
    first: bool
    down: bool
    dtype: Any

    @nn.compact
    def __call__(self, x):
        resample = "down" if self.down else "none"
        h = x if self.first else nn.relu(x)
        h = nn.relu(Conv(self.features, 3, dtype=self.dtype, name="conv_1")(h))
        h = Conv(self.features, 3, resample, dtype=self.dtype, name="conv_2")(h)
        return h + Conv(self.features, 1, resample, dtype=self.dtype, name="shortcut")(x)


class Discriminator(nn.Module):
    """Macro patches [B, S, S, channels] in [-1, 1] -> features [B, 8 * width] (summed over pixels) and logits [B, 1], both float32.

    ``coordinates`` [B, c]: adds their projection on the features to the logit (Miyato & Koyama, ICLR 2018); None leaves it out.
    """

    macro: tuple[int, int] = (32, 32)
    width: int = 64
    extra_blocks: int = 0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, coordinates: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        widths = discriminator_widths(self.macro, self.extra_blocks)
        x = images.astype(self.dtype)
        for index, multiple in enumerate(widths):
            down = index == 0 or (index > self.extra_blocks and index < len(widths) - 1)
            x = DiscriminatorBlock(multiple * self.width, index == 0, down, self.dtype, name=f"block_{index}")(x)
        features = at_least_float32(nn.relu(x)).sum((1, 2))
        logits = Dense(1, name="output")(features)
        if coordinates is not None:
            logits = logits + jnp.sum(features * Dense(features.shape[-1], name="projection")(coordinates), -1, keepdims=True)
        return features, logits


class Head(nn.Module):
    """Features [B, f] of the discriminator -> a prediction [B, outputs] in (-1, 1): of the coordinate, or of the latent."""

    outputs: int
    width: int = 128
    axis_name: str | None = None

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        h = Dense(self.width, name="hidden")(features)
        h = nn.leaky_relu(BatchNorm(axis_name=self.axis_name, name="norm")(h, train), 0.2)
        return jnp.tanh(Dense(self.outputs, name="output")(h))
