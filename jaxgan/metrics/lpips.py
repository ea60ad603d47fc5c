"""LPIPS version 0.1 on VGG-16: a perceptual distance between two images (Zhang et al., CVPR 2018).

The channels of five feature maps are scaled to unit length at every pixel; their squared differences are weighted per channel by learned
non-negative weights, averaged over the pixels and added up.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.nets import vgg

TAPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
EPSILON = 1e-10
"""Added to the length of a pixel's channels."""


def params(vgg_arrays: Mapping[str, np.ndarray], lpips_arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The distance's parameters: VGG-16 and the five weightings 'vgg.lin0' ... 'vgg.lin4', float32.

    Raises:
      ValueError: a layer is missing, or a weighting's length is not the number of its map's channels.
    """
    network = vgg.params(vgg_arrays)
    linear = {}
    for i, tap in enumerate(TAPS):
        layer, key = f"conv{tap[4:]}", f"vgg.lin{i}"
        if layer not in network or key not in lpips_arrays:
            raise ValueError(f"LPIPS: {layer if layer not in network else key} is missing")
        weights, channels = np.asarray(lpips_arrays[key], np.float32), network[layer]["bias"].shape[0]
        if weights.size != channels:
            raise ValueError(f"LPIPS: {key} has {weights.size} weights and {layer} {channels} channels")
        linear[tap] = jnp.asarray(weights.reshape(channels))
    return {"vgg": network, "linear": linear}


@functools.partial(jax.jit, static_argnames="precision")
def distance(params: Mapping[str, Any], real: jax.Array, fake: jax.Array, *, precision: str = "highest") -> jax.Array:
    """LPIPS of each pair: [N, H, W, 3], [N, H, W, 3] in [-1, 1] -> float32 [N]; below 1e-12 for equal images, differentiable there.

    Args:
      params: from ``params``.
      real: one image of each pair, at least 16 px; the value depends on the size at which images are compared.
      fake: the other; the distance is symmetric.
      precision: as in ``vgg.features``.

    Raises:
      ValueError: shapes that differ, or not images.
    """
    if real.shape != fake.shape:
        raise ValueError(f"LPIPS compares images of one shape; real {real.shape}, fake {fake.shape}")
    return compare_maps(params, maps(params, real, precision=precision), maps(params, fake, precision=precision))


@functools.partial(jax.jit, static_argnames="precision")
def maps(params: Mapping[str, Any], images: jax.Array, *, precision: str = "highest") -> dict[str, jax.Array]:
    """What the distance compares, for an image that is compared often: [N, H, W, 3] in [-1, 1] -> {tap: [N, h, w, C]}, float32."""
    found = vgg.features(params["vgg"], vgg.scale_imagenet(images.astype(jnp.float32)), TAPS, precision=precision)
    return {tap: _unit(features) for tap, features in found.items()}


def compare_maps(params: Mapping[str, Any], real: Mapping[str, jax.Array], fake: Mapping[str, jax.Array]) -> jax.Array:
    """``distance`` [N] from the ``maps`` of both images."""
    total = jnp.zeros(real[TAPS[0]].shape[0], jnp.float32)
    for tap in TAPS:
        difference = jnp.square(real[tap] - fake[tap])
        # a sum of products, not a matrix product: no device rounds it below float32
        total += (difference * params["linear"][tap]).sum(-1).mean((1, 2))
    return total


def _unit(x: jax.Array) -> jax.Array:
    """Channels scaled to unit length; where all are 0 they stay 0, and their gradient stays finite (that of the root is infinite there)."""
    squares = jnp.square(x).sum(-1, keepdims=True)
    positive, one = squares > 0, jnp.ones_like(squares)
    return x / jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, one)) + EPSILON, one)
