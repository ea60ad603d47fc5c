"""The operations of MobileStyleGAN's synthesis, with gradients written out where the derived ones fall off XLA's fast paths on CPUs.

Images are [N, H, W, C]. Gradients with respect to every argument are right; under ``jit`` those that nobody asks for cost nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.nets import windows

SIGNS = 0.5 * np.array([[[1, 1], [1, 1]], [[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]])
"""[band, row, column]: what a band adds to the four pixels of a block. As a 4 x 4 matrix it is symmetric up to order and orthonormal."""


@jax.custom_vjp
def inverse_haar(bands: jax.Array) -> jax.Array:
    """Four wavelet bands to the image of twice the side: [N, H, W, 4 C] -> [N, 2H, 2W, C].

    Channels are the bands one after another: a (mean), b (upper less lower), c (left less right), d (diagonal). The 2 x 2 block is
    (a + b + c + d) / 2, (a + b - c - d) / 2 above (a - b + c - d) / 2, (a - b - c + d) / 2: orthonormal, so its gradient is ``haar``.
    """
    batch, height, width, channels = bands.shape
    bands = bands.reshape(batch, height, 1, width, 1, 4, channels // 4)
    signs = jnp.asarray(SIGNS, bands.dtype)[:, None, :, None, :, None]
    # sums of broadcast products: one loop without the branches of a concatenation
    total = sum(bands[..., i, :] * signs[i] for i in range(4))
    return total.reshape(batch, 2 * height, 2 * width, channels // 4)


@jax.custom_vjp
def haar(images: jax.Array) -> jax.Array:
    """The inverse of ``inverse_haar``: [N, 2H, 2W, C] -> [N, H, W, 4 C]."""
    batch, height, width, channels = images.shape
    blocks = images.reshape(batch, height // 2, 2, width // 2, 2, channels)
    pixels = [(blocks[:, :, i, :, j], SIGNS[:, i, j].tolist()) for i in (0, 1) for j in (0, 1)]
    # Each band from the four pixels anew: XLA then makes the image before it. With shared sums it does not, and the nine products of
    # a depthwise gradient before this were done anew for each band.
    bands = [sum(pixel * jnp.asarray(signs[band], images.dtype) for pixel, signs in pixels) for band in range(4)]
    return jnp.concatenate(bands, -1)


inverse_haar.defvjp(lambda bands: (inverse_haar(bands), None), lambda _, cotangent: (haar(cotangent),))
haar.defvjp(lambda images: (haar(images), None), lambda _, cotangent: (inverse_haar(cotangent),))


@jax.custom_vjp
def depthwise(x: jax.Array, taps: jax.Array) -> jax.Array:
    """Each channel with its own 3 x 3 kernel, zeros beyond the border: [N, H, W, C], [3, 3, C, 1] -> [N, H, W, C]."""
    return windows.depthwise(x, taps)


def _depthwise_backward(saved, cotangent):
    x, taps = saved
    # the kernel turned by 180 degrees; derived, it would be a sum of nine padded images
    to_taps = jax.vjp(lambda taps: windows.depthwise(x, taps), taps)[1](cotangent)[0]
    return windows.depthwise(cotangent, taps[::-1, ::-1]), to_taps


depthwise.defvjp(lambda x, taps: (depthwise(x, taps), (x, taps)), _depthwise_backward)


@jax.custom_vjp
def modulated_pointwise(x: jax.Array, factors: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 1 x 1 convolution of an image whose channels are first multiplied: [N, H, W, I], [N, I], [1, 1, I, O] -> [N, H, W, O].

    The factors go into the kernel, which is smaller than the image; a depthwise convolution before it commutes with them.
    """
    return jnp.einsum("nhwi,nio->nhwo", x, factors[:, :, None] * kernel[0, 0])


def _pointwise_backward(saved, cotangent):
    x, factors, kernel = saved
    unscaled = jnp.einsum("nhwo,io->nhwi", cotangent, kernel[0, 0])
    to_factors = (unscaled * x).sum((1, 2))
    to_kernel = jnp.einsum("nhwi,nhwo->nio", x, cotangent)
    return unscaled * factors[:, None, None], to_factors, (to_kernel * factors[:, :, None]).sum(0)[None, None]


modulated_pointwise.defvjp(lambda *given: (modulated_pointwise(*given), given), _pointwise_backward)


def convolve_small(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3 x 3 convolution, zeros beyond the border, as one matrix product: [N, H, W, I], [3, 3, I, O] -> [N, H, W, O].

    For images of a few pixels and a kernel of millions of values, which the gradient of a convolution would turn and copy at each call.
    """
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.einsum("nhwi,io->nhwo", jnp.concatenate(shifts, -1), kernel.reshape(-1, kernel.shape[-1]))


@jax.custom_vjp
def leaky_relu(x: jax.Array) -> jax.Array:
    """max(x, 0.2 x); its gradient is read off the result, so that x itself need not be kept."""
    return jnp.maximum(x, x * jnp.asarray(0.2, x.dtype))


def _leaky_backward(y, cotangent):
    return (jnp.where(y >= 0, cotangent, cotangent * jnp.asarray(0.2, y.dtype)),)


leaky_relu.defvjp(lambda x: (leaky_relu(x),) * 2, _leaky_backward)
