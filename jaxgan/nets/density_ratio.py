"""The density ratio of two codes, whose mean logarithm is their mutual information.

The classifier of *Unsupervised Robust Disentangling of Latent Characteristics for Image Synthesis* (Esser, Haux, Ommer; ICCV 2019,
arXiv 1910.10223): one tower for each code, and the logit is the inner product of what they give.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


def bounded_uniform(fan_in: int):
    """Initialiser: uniform in +-1 / sqrt(fan_in), for weights and for biases."""

    def init(key, shape, dtype=jnp.float32):
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


class Linear(nn.Module):
    """[..., I] -> [..., features] with bias; both parameters uniform in +-1 / sqrt(I)."""

    features: int

    @nn.compact
    def __call__(self, x):
        inputs = x.shape[-1]
        kernel = self.param("kernel", bounded_uniform(inputs), (inputs, self.features))
        bias = self.param("bias", bounded_uniform(inputs), (self.features,))
        return x @ kernel.astype(x.dtype) + bias.astype(x.dtype)


class Tower(nn.Module):
    """[B, d] -> [B, width]: a linear layer, residual blocks x + linear(relu x), relu, a linear layer."""

    width: int
    blocks: int

    @nn.compact
    def __call__(self, code):
        x = Linear(self.width, name="into")(code)
        for block in range(self.blocks):
            x = x + Linear(self.width, name=f"block{block}")(nn.relu(x))
        return Linear(self.width, name="out")(nn.relu(x))


class DensityRatio(nn.Module):
    """``(pose [B, d], identity [B, e]) -> logits [B]``; at the optimum log p(pose, identity) / p(pose) p(identity).

    The published network, with its small initial values: the estimate starts near 0, so that the multiplier of the constraint is not
    driven by noise in the first steps.
    """

    width: int = 512
    blocks: int = 4

    @nn.compact
    def __call__(self, pose, identity):
        pose = Tower(self.width, self.blocks, name="pose")(pose)
        return jnp.sum(pose * Tower(self.width, self.blocks, name="identity")(identity), -1)
