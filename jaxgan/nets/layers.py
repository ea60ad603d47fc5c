"""Layers that the networks share: convolutions with resampling folded in, spectral normalisation, batch moments.

Everything is NHWC with HWIO kernels. Parameters and sums are float32; ``dtype`` is what convolutions and activations compute in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def at_least_float32(x: jax.Array) -> jax.Array:
    """Everything but float64 as float32; tests compute in float64."""
    return x if x.dtype == jnp.float64 else x.astype(jnp.float32)


def truncated_normal(stddev: float):
    """Initialiser: a normal distribution cut at two of its standard deviations, with no correction of the variance (as TensorFlow 1)."""

    def init(key, shape, dtype=jnp.float32):
        return stddev * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)

    return init


def convolve(x: jax.Array, kernel: jax.Array, padding: Any = "SAME", *, stride: int = 1, precision: Any = None) -> jax.Array:
    """Convolution in the dtype of ``x``: [B, H, W, I], [k, k, I, O] -> [B, H / stride, W / stride, O].

    ``padding`` 'SAME' is TensorFlow's (an odd pixel goes to the lower right). ``precision``: as in ``jax.lax``, for devices whose products
    are rounded (TPU, and TF32 on GPUs); without effect on CPUs.
    """
    return lax.conv_general_dilated(
        x, kernel.astype(x.dtype), (stride, stride), padding, dimension_numbers=DIMENSIONS, precision=precision
    )


def upsample(x: jax.Array) -> jax.Array:
    """Nearest neighbour, twice the size: [B, H, W, C] -> [B, 2H, 2W, C]."""
    batch, height, width, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None, :], (batch, height, 2, width, 2, channels))
    return x.reshape(batch, 2 * height, 2 * width, channels)


def average_pool(x: jax.Array) -> jax.Array:
    """2x2 means: [B, 2H, 2W, C] -> [B, H, W, C]."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean((2, 4))


def _turn(kernel: jax.Array) -> jax.Array:
    """The kernel of the transposed convolution: turned by 180 degrees, inputs and outputs exchanged."""
    return kernel[::-1, ::-1].transpose(0, 1, 3, 2)


@jax.custom_vjp
def upsample_convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """``convolve(upsample(x), kernel)`` for a 3x3 kernel, without making the large image: [B, H, W, I] -> [B, 2H, 2W, O].

    Of the nine taps on the doubled image several fall on the same small pixel: each of the four output phases is a 2x2 convolution of
    the small image, 16 multiplications for four outputs where the plain form has 36. Its gradient is ``convolve_pool`` with the kernel
    turned, and the other way round; written as a pair, because the derived forms fall off XLA's fast paths on the CPU.
    """
    batch, height, width, _ = x.shape
    if height < 4:  # the kernels' own traffic outweighs the spared products
        return convolve(upsample(x), kernel)
    kernel = kernel.astype(x.dtype)
    upper = jnp.stack([kernel[0], kernel[1] + kernel[2]])
    lower = jnp.stack([kernel[0] + kernel[1], kernel[2]])
    rows = []
    for down, part in enumerate((upper, lower)):
        left = jnp.stack([part[:, 0], part[:, 1] + part[:, 2]], 1)
        right = jnp.stack([part[:, 0] + part[:, 1], part[:, 2]], 1)
        phases = [convolve(x, taps, [(1 - down, down), (1 - across, across)]) for across, taps in enumerate((left, right))]
        rows.append(jnp.stack(phases, 3))
    return jnp.stack(rows, 2).reshape(batch, 2 * height, 2 * width, kernel.shape[-1])


@jax.custom_vjp
def convolve_pool(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """``average_pool(convolve(x, kernel))`` for a 3x3 kernel as one 4x4 convolution of stride 2: 16 taps where the plain form has 36.

    [B, 2H, 2W, I] -> [B, H, W, O]. Its gradient is ``upsample_convolve``, see there.
    """
    padded = jnp.pad(kernel.astype(x.dtype), ((1, 1), (1, 1), (0, 0), (0, 0)))
    quarter = jnp.asarray(0.25, x.dtype)
    taps = quarter * (padded[:-1, :-1] + padded[1:, :-1] + padded[:-1, 1:] + padded[1:, 1:])
    return lax.conv_general_dilated(x, taps, (2, 2), [(1, 1), (1, 1)], dimension_numbers=DIMENSIONS)


def _kernel_gradient(function, x, kernel, cotangent):
    """Gradient of ``function(x, kernel)`` with respect to the kernel, by the function's own plain form."""
    return jax.vjp(lambda k: function(x, k), kernel)[1](cotangent)[0]


def _upsample_backward(saved, cotangent):
    x, kernel = saved
    if x.shape[1] < 4:
        return jax.vjp(lambda x, k: convolve(upsample(x), k), x, kernel)[1](cotangent)
    to_x = 4 * convolve_pool(cotangent, _turn(kernel))
    # <up(x) * k, c> = <x, 4 pool(c * turned k)>: the kernel's gradient is that of the pooling form with x as its cotangent
    to_kernel = 4 * _kernel_gradient(convolve_pool.fun, cotangent, _turn(kernel), x)
    return to_x, _turn(to_kernel)


def _pool_backward(saved, cotangent):
    x, kernel = saved
    quarter = jnp.asarray(0.25, x.dtype)
    return quarter * upsample_convolve(cotangent, _turn(kernel)), _kernel_gradient(convolve_pool.fun, x, kernel, cotangent)


upsample_convolve.defvjp(lambda x, kernel: (upsample_convolve(x, kernel), (x, kernel)), _upsample_backward)
convolve_pool.defvjp(lambda x, kernel: (convolve_pool(x, kernel), (x, kernel)), _pool_backward)


class Conv(nn.Module):
    """A k x k convolution of stride 1, SAME padding, with bias; optionally after doubling the image or before 2x2 averaging.

    ``spectral``: declares a vector ``u`` in the collection 'spectral', for ``spectral_normalise``. The normalisation itself is a
    function of the parameter tree, done once an update, not a part of this layer.
    """

    features: int
    size: int = 3
    resample: str = "none"
    """'none', 'up' (nearest x2 before) or 'down' (2x2 means after)."""
    spectral: bool = True
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x):
        inputs = x.shape[-1]
        stddev = (2.0 / (self.size * self.size * inputs)) ** 0.5
        kernel = self.param("kernel", truncated_normal(stddev), (self.size, self.size, inputs, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        declare_spectral(self, self.features)
        x = x.astype(self.dtype)
        if self.resample == "none":
            y = convolve(x, kernel)
        elif self.size == 1:  # a 1x1 convolution commutes with resampling: do it on the small image
            y = upsample(convolve(x, kernel)) if self.resample == "up" else convolve(average_pool(x), kernel)
        else:
            y = upsample_convolve(x, kernel) if self.resample == "up" else convolve_pool(x, kernel)
        return y + bias.astype(self.dtype)


class Dense(nn.Module):
    """A linear layer with bias, in its parameters' type (float32); Glorot-uniform weights. ``spectral`` as in ``Conv``."""

    features: int
    spectral: bool = True

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", nn.initializers.glorot_uniform(), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        declare_spectral(self, self.features)
        return x.astype(kernel.dtype) @ kernel + bias


def declare_spectral(module: nn.Module, features: int) -> None:
    """Gives a module its left singular vector [1, features], truncated normal at the start, if it asks for one."""
    if module.spectral and module.is_initializing():
        module.variable("spectral", "u", lambda: truncated_normal(1.0)(module.make_rng("params"), (1, features)))


def spectral_normalise(params: Mapping, spectral: Mapping, stop_gradient: bool = False) -> tuple[dict, dict]:
    """Divides every kernel that has a ``u`` by an estimate of its largest singular value (Miyato et al., ICLR 2018).

    One power iteration: with W as [rest, out] and n(a) = a / (|a| + 1e-12), v = n(u W^T), u' = n(v W), sigma = v W u'^T. By default
    gradients flow through u' and v as well, as in COCO-GAN's published code; ``stop_gradient`` holds them fixed, as Miyato et al. do.

    Args:
      params: a network's parameters.
      spectral: the network's 'spectral' collection: the same tree with only the leaves ``u``, float32 [1, out].

    Returns:
      (params with the normalised kernels, spectral with the iterated vectors, without gradient).
    """
    new_params, new_spectral = dict(params), {}
    for name, entry in spectral.items():
        if name != "u":
            new_params[name], new_spectral[name] = spectral_normalise(params[name], entry, stop_gradient)
            continue
        kernel = params["kernel"]
        matrix = kernel.reshape(-1, kernel.shape[-1])
        right = _unit(entry @ matrix.T)
        left = _unit(right @ matrix)
        if stop_gradient:
            right, left = lax.stop_gradient(right), lax.stop_gradient(left)
        sigma = jnp.sum((right @ matrix) * left)
        new_params["kernel"] = kernel / sigma
        new_spectral["u"] = lax.stop_gradient(left)
    return new_params, new_spectral


def _unit(vector: jax.Array) -> jax.Array:
    return vector / (jnp.sqrt(jnp.sum(vector * vector)) + 1e-12)


def moments(x: jax.Array, axis_name: str | None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean, biased variance and number of values behind them, over all axes but the last, in float32 or wider.

    ``axis_name``: an axis of ``pmap`` or ``shard_map`` over which the batch is spread; on a mesh under ``jit`` it is not needed.
    """
    x = at_least_float32(x)
    axes = tuple(range(x.ndim - 1))
    count = jnp.asarray(x.size // x.shape[-1], x.dtype)
    mean = x.mean(axes)
    if axis_name is not None:
        mean = lax.pmean(mean, axis_name)
        count = count * lax.psum(jnp.ones((), x.dtype), axis_name)
    variance = jnp.square(x - mean).mean(axes)
    if axis_name is not None:
        variance = lax.pmean(variance, axis_name)
    return mean, variance, count


def batch_normalise(
    x: jax.Array,
    gamma: jax.Array,
    beta: jax.Array,
    running: Mapping[str, jax.Array],
    train: bool,
    decay: float = 0.9,
    epsilon: float = 1e-5,
    *,
    unbiased: bool = True,
    axis_name: str | None = None,
) -> tuple[jax.Array, Mapping[str, jax.Array]]:
    """Batch normalisation with scale and shift: (x [..., C] normalised, the running {'mean', 'variance'} after it).

    ``train``: by this batch's moments, which move the running ones to decay * running + (1 - decay) * batch, without gradient; else by
    the running ones, which stay. ``unbiased``: the running variance takes the unbiased batch variance, as in TensorFlow's fused kernel and
    in PyTorch (whose momentum is 1 - decay).
    """
    mean, variance = running["mean"], running["variance"]
    if train:
        mean, variance, count = moments(x, axis_name)
        spread = variance * (count / jnp.maximum(count - 1.0, 1.0)) if unbiased else variance
        running = {
            "mean": decay * running["mean"] + (1 - decay) * lax.stop_gradient(mean),
            "variance": decay * running["variance"] + (1 - decay) * lax.stop_gradient(spread),
        }
    scale = gamma * lax.rsqrt(variance + epsilon)
    return ((at_least_float32(x) - mean) * scale + beta).astype(x.dtype), running


class BatchNorm(nn.Module):
    """Batch normalisation with scale and shift; the running variance takes the unbiased batch variance, as TensorFlow's fused kernel.

    ``train``: normalise by this batch's moments and move the running ones (collection 'stats', float32).
    """

    decay: float = 0.9
    epsilon: float = 1e-5
    unbiased: bool = True
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train: bool):
        features = x.shape[-1]
        gamma = self.param("gamma", nn.initializers.ones, (features,))
        beta = self.param("beta", nn.initializers.zeros, (features,))
        running_mean = self.variable("stats", "mean", jnp.zeros, (features,), jnp.float32)
        running_variance = self.variable("stats", "variance", jnp.ones, (features,), jnp.float32)
        running = {"mean": running_mean.value, "variance": running_variance.value}
        unbiased = self.unbiased
        y, moved = batch_normalise(x, gamma, beta, running, train, self.decay, self.epsilon, unbiased=unbiased, axis_name=self.axis_name)
        if train and not self.is_initializing():
            running_mean.value, running_variance.value = moved["mean"], moved["variance"]
        return y
