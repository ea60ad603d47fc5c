"""VGG-16's thirteen convolutions (Simonyan and Zisserman, ICLR 2015), for perceptual distances; any channel widths.

Convolutions are 3x3 with zero padding 1, each followed by a ReLU; 2x2 maximum pooling stands before blocks 2 to 5. Who feeds it what:

- LPIPS, and embedding into a generator's codes (Image2StyleGAN): ``scale_imagenet`` of images in [-1, 1];
- layer inversion of *Seeing what a GAN cannot generate*: images in [-1, 1] as they are.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.nets import frozen
from jaxgan.nets.layers import convolve

BLOCKS = (2, 2, 3, 3, 3)
LAYERS = tuple(f"conv{block}_{i}" for block, count in enumerate(BLOCKS, 1) for i in range(1, count + 1))
"""conv1_1 ... conv5_3, in order."""

# Mean and standard deviation of ImageNet's pixels in [0, 1], as torchvision publishes them, moved to [-1, 1].
IMAGENET_MEAN = tuple(2.0 * mean - 1.0 for mean in (0.485, 0.456, 0.406))
IMAGENET_DEVIATION = tuple(2.0 * deviation for deviation in (0.229, 0.224, 0.225))

# torchvision numbers every convolution, ReLU and pooling of its `features` in a row.
_TORCHVISION = dict(zip(LAYERS, (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), strict=True))


def params(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, jax.Array]]:
    """The network's parameters, float32, from named arrays; the layout is told by the names, the widths by the shapes.

    Args:
      arrays: 'conv1_1.kernel' (HWIO) and 'conv1_1.bias', or torchvision's 'features.0.weight' (OIHW) and 'features.0.bias', and so on.
        The first layers alone will do: then ``features`` reaches as far as they do.

    Returns:
      {'conv1_1': {'kernel': [3, 3, I, O], 'bias': [O]}, ...}.

    Raises:
      ValueError: no such names, a layer left out in the middle, or shapes that do not follow one another.
    """
    torchvision = "features.0.weight" in arrays
    result, channels = {}, 3
    for name in LAYERS:
        prefix, kind = (f"features.{_TORCHVISION[name]}", "weight") if torchvision else (name, "kernel")
        keys = [f"{prefix}.{kind}", f"{prefix}.bias"]
        if not any(key in arrays for key in keys):
            break
        if missing := [key for key in keys if key not in arrays]:
            raise ValueError(f"VGG-16: array {missing[0]!r} is missing")
        kernel, bias = (np.asarray(arrays[key], np.float32) for key in keys)
        kernel = kernel.transpose(2, 3, 1, 0) if torchvision and kernel.ndim == 4 else kernel
        if kernel.ndim != 4 or kernel.shape[:3] != (3, 3, channels) or bias.shape != kernel.shape[3:]:
            raise ValueError(f"VGG-16 {name}: kernel {kernel.shape} and bias {bias.shape}; expected (3, 3, {channels}, n) and (n,)")
        channels = kernel.shape[3]
        result[name] = {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
    if not result:
        found = ", ".join(list(arrays)[:4]) or "no arrays"
        raise ValueError(f"not a VGG-16: neither 'conv1_1.kernel' nor 'features.0.weight' is among {found}")
    later = [key for key in arrays for name in LAYERS[len(result) :] if key.startswith((f"{name}.", f"features.{_TORCHVISION[name]}."))]
    if later:
        raise ValueError(f"VGG-16: {later[0]!r} is there, but {LAYERS[len(result)]} before it is not")
    return result


def freeze(params: Mapping[str, Mapping[str, jax.Array]], side: int, *, minimal: bool | None = None) -> dict[str, dict[str, Any]]:
    """The parameters made ready for gradients with respect to images of this side: see ``jaxgan.nets.frozen``.

    ``minimal``: minimal filtering where it pays; None: on a CPU. It keeps two sets of 16 of each such kernel in the place of one.
    """
    minimal = jax.default_backend() == "cpu" if minimal is None else minimal
    ready = {}
    for name, layer in params.items():
        pays = minimal and frozen.pays(layer["kernel"], side >> (int(name[4]) - 1))
        ready[name] = {**layer, "kernel": frozen.freeze(layer["kernel"], pays)}
    return ready


def scale_imagenet(images: jax.Array) -> jax.Array:
    """Images [..., 3] in [-1, 1] less ImageNet's mean, over its deviation; what torchvision's weights were trained on, and LPIPS uses."""
    return (images - jnp.asarray(IMAGENET_MEAN, images.dtype)) / jnp.asarray(IMAGENET_DEVIATION, images.dtype)


def features(
    params: Mapping[str, Mapping[str, jax.Array]], images: jax.Array, names: Sequence[str], *, precision: str = "highest"
) -> dict[str, jax.Array]:
    """Feature maps by name; nothing behind the last one asked for is computed.

    Args:
      params: from ``params``.
      images: float32 [N, H, W, 3], scaled as the caller's method says (see the head of this file).
      names: 'relu1_1' ... 'relu5_3' for maps after the ReLU, 'conv1_1' ... 'conv5_3' before it.
      precision: of the products on devices that round them; 'default' is faster there and not exact.

    Returns:
      {name: [N, h, w, C]}; block b has h = H // 2^(b - 1). Each image's maps depend on that image alone.

    Raises:
      ValueError: an unknown name, a layer beyond the parameters given, images of another shape or too small.
    """
    names = tuple(names)
    known = {f"{kind}{name[4:]}" for name in params for kind in ("conv", "relu")}
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no feature map {unknown[0]!r}: these parameters reach from relu1_1 to relu{list(params)[-1][4:]} (or conv...)")
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images of shape {images.shape}; expected [N, H, W, 3]")
    deepest = max((int(name[4]) for name in names), default=1)
    height, width, least = *images.shape[1:3], 2 ** (deepest - 1)
    if min(height, width) < least:
        raise ValueError(f"block {deepest} needs images of at least {least} px; these are {height} x {width}")
    return _features(dict(params), images, names, precision)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _features(params, images, names, precision):
    found, x = {}, images
    for name in LAYERS:
        if len(found) == len(set(names)):
            break
        number = name[4:]
        if number.endswith("_1") and number != "1_1":
            x = _halve(x)
        kernel = params[name]["kernel"]
        if isinstance(kernel, frozen.FrozenKernel):
            x = frozen.convolve_frozen(x, kernel, precision)
        else:
            x = convolve(x, kernel, precision=precision)
        x = x + params[name]["bias"].astype(x.dtype)
        if name in names:
            found[name] = x
        x = jax.nn.relu(x)
        if f"relu{number}" in names:
            found[f"relu{number}"] = x
    return found


def _halve(x: jax.Array) -> jax.Array:
    """2x2 maxima; an odd last row or column is left out."""
    batch, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))
