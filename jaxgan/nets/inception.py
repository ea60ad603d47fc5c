"""The Inception network of 2015-12-05 up to its 2048 pooled features: what the Frechet inception distance is defined on.

It is the graph that Heusel et al. (NeurIPS 2017) took from TensorFlow's release, not the later Inception-v3 of Keras or torchvision: batch
normalisation has no scale, average pooling does not count its padding, the last block pools by maxima, and images come as x / 128 - 1.
Names are those of the graph's nodes. Everything is per image: a batch may be split over devices in any way.

``resize_for_inception`` brings images to 299 x 299 on the host. Published FIDs differ in this step more than in any other.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.nets.layers import convolve
from jaxgan.nets.windows import max_pool, mean_pool

SIZE = 299
FEATURES = 2048
EPSILON = 0.001
"""Added to the variance in batch normalisation."""

RESIZES = ("tf-bilinear", "bilinear", "clean", "lanczos")

_STEM = ("conv", "conv_1", "conv_2", "conv_3", "conv_4")
_BLOCKS = {
    # 35 x 35: 1x1 | 1x1, 5x5 | 1x1, 3x3, 3x3 | pool, 1x1
    **dict.fromkeys(
        ("mixed", "mixed_1", "mixed_2"),
        ("conv", "tower.conv", "tower.conv_1", "tower_1.conv", "tower_1.conv_1", "tower_1.conv_2", "tower_2.conv"),
    ),
    "mixed_3": ("conv", "tower.conv", "tower.conv_1", "tower.conv_2"),
    # 17 x 17: 1x1 | 1x1, 1x7, 7x1 | 1x1, 7x1, 1x7, 7x1, 1x7 | pool, 1x1
    **dict.fromkeys(
        ("mixed_4", "mixed_5", "mixed_6", "mixed_7"),
        (
            *("conv", "tower.conv", "tower.conv_1", "tower.conv_2"),
            *("tower_1.conv", "tower_1.conv_1", "tower_1.conv_2", "tower_1.conv_3", "tower_1.conv_4", "tower_2.conv"),
        ),
    ),
    "mixed_8": ("tower.conv", "tower.conv_1", "tower_1.conv", "tower_1.conv_1", "tower_1.conv_2", "tower_1.conv_3"),
    # 8 x 8: 1x1 | 1x1, then 1x3 beside 3x1 | 1x1, 3x3, then 1x3 beside 3x1 | pool, 1x1
    **dict.fromkeys(
        ("mixed_9", "mixed_10"),
        (
            *("conv", "tower_conv", "tower_mixed_conv", "tower_mixed_conv_1"),
            *("tower_1_conv", "tower_1_conv_1", "tower_1_mixed_conv", "tower_1_mixed_conv_1", "tower_2_conv"),
        ),
    ),
}
UNITS = (*_STEM, *(f"{block}.{name}" for block, names in _BLOCKS.items() for name in names))
"""The 94 convolutions."""


def params(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, jax.Array]]:
    """The network's parameters with batch normalisation folded in (in float64): {unit: {'kernel': HWIO, 'bias': [O]}}, float32.

    Args:
      arrays: for each of the 94 ``UNITS`` 'unit.weight' (HWIO), 'unit.beta', 'unit.mean' and 'unit.var'.

    Raises:
      ValueError: an array is missing or has another number of channels.
    """
    result = {}
    for unit in UNITS:
        keys = [f"{unit}.{part}" for part in ("weight", "beta", "mean", "var")]
        if missing := [key for key in keys if key not in arrays]:
            raise ValueError(f"Inception: array {missing[0]!r} is missing")
        weight, beta, mean, variance = (np.asarray(arrays[key], np.float64) for key in keys)
        if weight.ndim != 4 or not beta.shape == mean.shape == variance.shape == weight.shape[3:]:
            shapes = ", ".join(str(np.shape(arrays[key])) for key in keys)
            raise ValueError(f"Inception {unit}: weight, beta, mean, var of shapes {shapes}; expected (k, k, i, n), (n,), (n,), (n,)")
        scale = 1.0 / np.sqrt(variance + EPSILON)
        result[unit] = {
            "kernel": jnp.asarray((weight * scale).astype(np.float32)),
            "bias": jnp.asarray((beta - mean * scale).astype(np.float32)),
        }
    return result


@functools.partial(jax.jit, static_argnames="precision")
def features(params: Mapping[str, Mapping[str, jax.Array]], images: jax.Array, *, precision: str = "highest") -> jax.Array:
    """The 2048 pooled features: [N, 299, 299, 3] -> float32 [N, 2048].

    Args:
      params: from ``params``.
      images: 0..255, RGB, float32 or uint8, from ``resize_for_inception``. The network's x / 128 - 1 is done here.
      precision: of the products on devices that round them; 'default' is faster there and changes the features.

    Raises:
      ValueError: images of another shape.
    """
    if images.ndim != 4 or images.shape[1:] != (SIZE, SIZE, 3):
        raise ValueError(f"images of shape {images.shape}; expected [N, {SIZE}, {SIZE}, 3] (see resize_for_inception)")

    def unit(x, name, stride=1, padding="SAME"):
        x = convolve(x, params[name]["kernel"], padding, stride=stride, precision=precision)
        return jax.nn.relu(x + params[name]["bias"])

    def pooled_unit(x, name):
        """``unit(mean_pool(x), name)``: a mean and a 1x1 convolution commute, and after it there are fewer channels to average."""
        return jax.nn.relu(mean_pool(convolve(x, params[name]["kernel"], precision=precision), 3, 1) + params[name]["bias"])

    def chain(x, block, *names):
        for name in names:
            x = unit(x, f"{block}.{name}")
        return x

    x = images.astype(jnp.float32) / 128.0 - 1.0
    x = unit(x, "conv", 2, "VALID")  # 149
    x = unit(x, "conv_1", 1, "VALID")  # 147
    x = max_pool(unit(x, "conv_2"), 3, 2)  # 73
    x = unit(x, "conv_3", 1, "VALID")
    x = max_pool(unit(x, "conv_4", 1, "VALID"), 3, 2)  # 35

    for block in ("mixed", "mixed_1", "mixed_2"):
        x = jnp.concatenate(
            [
                chain(x, block, "conv"),
                chain(x, block, "tower.conv", "tower.conv_1"),
                chain(x, block, "tower_1.conv", "tower_1.conv_1", "tower_1.conv_2"),
                pooled_unit(x, f"{block}.tower_2.conv"),
            ],
            -1,
        )

    deep = unit(chain(x, "mixed_3", "tower.conv", "tower.conv_1"), "mixed_3.tower.conv_2", 2, "VALID")
    x = jnp.concatenate([unit(x, "mixed_3.conv", 2, "VALID"), deep, max_pool(x, 3, 2)], -1)  # 17

    for block in ("mixed_4", "mixed_5", "mixed_6", "mixed_7"):
        x = jnp.concatenate(
            [
                chain(x, block, "conv"),
                chain(x, block, "tower.conv", "tower.conv_1", "tower.conv_2"),
                chain(x, block, "tower_1.conv", "tower_1.conv_1", "tower_1.conv_2", "tower_1.conv_3", "tower_1.conv_4"),
                pooled_unit(x, f"{block}.tower_2.conv"),
            ],
            -1,
        )

    left = unit(chain(x, "mixed_8", "tower.conv"), "mixed_8.tower.conv_1", 2, "VALID")
    right = unit(chain(x, "mixed_8", "tower_1.conv", "tower_1.conv_1", "tower_1.conv_2"), "mixed_8.tower_1.conv_3", 2, "VALID")
    x = jnp.concatenate([left, right, max_pool(x, 3, 2)], -1)  # 8

    for block in ("mixed_9", "mixed_10"):
        left = chain(x, block, "tower_conv")
        right = chain(x, block, "tower_1_conv", "tower_1_conv_1")
        # the last block pools by maxima
        pooled = unit(max_pool(x, 3, 1, "SAME"), "mixed_10.tower_2_conv") if block == "mixed_10" else pooled_unit(x, "mixed_9.tower_2_conv")
        x = jnp.concatenate(
            [
                chain(x, block, "conv"),
                chain(left, block, "tower_mixed_conv"),
                chain(left, block, "tower_mixed_conv_1"),
                chain(right, block, "tower_1_mixed_conv"),
                chain(right, block, "tower_1_mixed_conv_1"),
                pooled,
            ],
            -1,
        )
    return x.mean((1, 2))


def resize_for_inception(image: np.ndarray, mode: str = "tf-bilinear") -> np.ndarray:
    """One image as ``features`` takes it, on the host: uint8 [H, W, 3] -> float32 [299, 299, 3] in 0..255, not rounded to integers.

    Args:
      image: RGB, uint8 (float32 in 0..255 is taken as it is).
      mode: 'tf-bilinear' is TensorFlow 1's resize inside the original FID's graph (corners of pixels aligned to the origin, no
        antialiasing; output i reads i * H / 299); 'bilinear' reads (i + 1/2) * H / 299 - 1/2, no antialiasing; 'clean' is Pillow's
        antialiased bicubic filter on each channel in float32, cut to 0..255, as in clean-fid (Parmar et al., CVPR 2022); 'lanczos' the
        same with Pillow's Lanczos filter. Images of 299 x 299 come back unchanged in every mode.

    Raises:
      ValueError: an unknown mode, another shape or dtype.
    """
    if mode not in RESIZES:
        raise ValueError(f"resize mode {mode!r}: one of {', '.join(RESIZES)}")
    if image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape or image.dtype not in (np.uint8, np.float32):
        raise ValueError(f"an image of shape {image.shape} and dtype {image.dtype}; expected uint8 [H, W, 3]")
    image = image.astype(np.float32)
    if image.shape[:2] == (SIZE, SIZE):
        return image
    if mode in ("clean", "lanczos"):
        return _filtered(image, mode)
    return bilinear(image, SIZE, SIZE, half_pixel=mode == "bilinear")


def bilinear(image: np.ndarray, height: int, width: int, *, half_pixel: bool) -> np.ndarray:
    """Two-tap bilinear resize in float32, no antialiasing: [H, W, C] -> [height, width, C].

    ``half_pixel``: pixels have their centres at 1/2 (TensorFlow 2, PyTorch); otherwise at 0 (TensorFlow 1, ``align_corners`` false).
    """
    left, right, across = _taps(image.shape[1], width, half_pixel)
    upper, lower, down = _taps(image.shape[0], height, half_pixel)
    rows = image[:, left] + (image[:, right] - image[:, left]) * across[:, None]
    return rows[upper] + (rows[lower] - rows[upper]) * down[:, None, None]


def _taps(length: int, size: int, half_pixel: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(lower pixel, upper pixel, weight of the upper one) of each output along one axis, in float32 as TensorFlow computes them."""
    scale, index = np.float32(length / size), np.arange(size, dtype=np.float32)
    place = (index + np.float32(0.5)) * scale - np.float32(0.5) if half_pixel else index * scale
    first = np.floor(place)
    lower = np.clip(first.astype(np.int64), 0, length - 1)
    upper = np.clip(first.astype(np.int64) + 1, 0, length - 1)
    return lower, upper, place - first


def _filtered(image: np.ndarray, mode: str) -> np.ndarray:
    from PIL import Image

    kind = Image.Resampling.BICUBIC if mode == "clean" else Image.Resampling.LANCZOS
    channels = [np.asarray(Image.fromarray(image[..., channel]).resize((SIZE, SIZE), kind)) for channel in range(3)]
    return np.clip(np.stack(channels, -1), 0.0, 255.0, dtype=np.float32)
