"""The projector published with StyleGAN2-ADA: w and the noise maps are found together, w under noise that fades away.

L = weight * LPIPS(image, target) + noise_weight * R(noise) at w + e, where e is Gaussian with deviation

    0.05 * w_std * max(0, 1 - t / 0.75)^2,   t = step / steps,   w_std = sqrt(mean of |w - mean w|^2 over 10,000 z),

R pulls every map towards white noise, and after each step the maps are brought back to mean 0 and mean square 1. The LPIPS here has the
weights and the input of the published one (Zhang et al. 2018), which the original reaches by images in 0..255.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import perceptual
from jaxgan.metrics import lpips
from jaxgan.style_generators import StyleGenerator

LATENTS = 10_000
"""Latents of which mean and deviation of w are taken."""
FADED = 0.75
"""Share of the steps after which w has no noise any more."""
LEAST_SIDE = 8
"""Noise maps are halved for the regulariser down to this side."""


def noise_regulariser(noise: Mapping[str, jax.Array]) -> jax.Array:
    """R: how much neighbours of the noise maps agree, {name: [N, side, side]} -> [N]; 0 without maps.

    Of each map, and of its 2x2 means again and again while the side is above 8: (mean n * right neighbour)^2 + (mean n * lower
    neighbour)^2, borders wrapped.
    """
    total = jnp.zeros(next((len(array) for array in noise.values()), 1), jnp.float32)
    for array in noise.values():
        while True:
            for axis in (1, 2):
                total += jnp.square((array * jnp.roll(array, 1, axis)).mean((1, 2)))
            if array.shape[1] <= LEAST_SIDE:
                break
            n, side, _ = array.shape
            array = array.reshape(n, side // 2, 2, side // 2, 2).mean((2, 4))
    return total


def renormalise(noise: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Every map of every image to mean 0 and mean square 1: {name: [N, side, side]}."""

    def one(array: jax.Array) -> jax.Array:
        array = array - array.mean((1, 2), keepdims=True)
        return array * jax.lax.rsqrt(jnp.square(array).mean((1, 2), keepdims=True))

    return {name: one(array) for name, array in noise.items()}


def code_deviation(step: jax.Array, steps: int, deviation: jax.Array, share: float = 0.05) -> jax.Array:
    """Deviation of the noise on w at a step (from 0): share * deviation * max(0, 1 - t / 0.75)^2."""
    t = jnp.asarray(step, jnp.float32) / steps
    return share * deviation * jnp.square(jnp.maximum(0.0, 1.0 - t / FADED))


def mean_and_deviation(generator: StyleGenerator, seed: int = 123, latents: int = LATENTS) -> tuple[np.ndarray, np.ndarray]:
    """(mean of w [W], w_std []) over so many z ~ N(0, I); numpy draws them, so that they are the same on every machine."""
    mapped = jax.jit(generator.map_latents)
    z = np.random.RandomState(seed).randn(latents, generator.latent_size).astype(np.float32)
    w = np.concatenate([np.asarray(mapped(generator.arrays, jnp.asarray(part)), np.float64) for part in np.array_split(z, 4)])
    mean = w.mean(0)
    return mean.astype(np.float32), np.sqrt(np.square(w - mean).sum() / latents).astype(np.float32)


def targets(frozen: Mapping[str, Any], images: jax.Array, options: perceptual.Options) -> dict[str, Any]:
    """What ``compare`` needs of targets [N, H, W, 3] in [-1, 1], computed once."""
    return {"image": images, "lpips": lpips.maps(frozen["lpips"], _seen(images, options))}


def compare(
    frozen: Mapping[str, Any], images: jax.Array, targets: Mapping[str, Any], options: perceptual.Options, weight: float, mse: float
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(weight * LPIPS + mse * mean squared difference [N], the parts); of ``options`` the size, the kernel and the range are read."""
    found = lpips.maps(frozen["lpips"], _seen(images, options))
    parts = {"lpips": lpips.compare_maps(frozen["lpips"], targets["lpips"], found)}
    parts["mse"] = jnp.square(images - targets["image"]).mean((1, 2, 3)) * (0.25 if options.mse_range == "unit" else 1.0)
    return weight * parts["lpips"] + mse * parts["mse"], parts


def _seen(images: jax.Array, options: perceptual.Options) -> jax.Array:
    return images if options.size is None else perceptual.resize(images, options.size, options.kernel)
