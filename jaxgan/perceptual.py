"""What an embedding minimises: squared differences of VGG-16's maps and of pixels (Abdal et al., Image2StyleGAN, ICCV 2019, section 3).

    L = sum_j weight_j * mean |F_j(image) - F_j(target)|^2 + mse * mean |image - target|^2

with the mean over all scalars of a map or an image. What the paper leaves unsaid (before or behind the ReLU, the images' range, the
network's input, how images are resized for it) are fields of ``Options``. Every value is per image, so that many images are fitted at once
and each goes its own way; the target's maps are computed once, by ``targets``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.nets import resampling, vgg

Tree = Any

NORMALISATIONS = {
    "torchvision": "RGB in [0, 1], minus (.485, .456, .406), over (.229, .224, .225)",
    "caffe": "BGR in [0, 255], minus (103.939, 116.779, 123.68)",
    "unit": "RGB in [0, 1]",
    "signed": "RGB in [-1, 1], as images are",
}
"""What the network is fed. Distances go with the square of its input: values of two of these do not compare."""
KERNELS = ("area", "bilinear", "bilinear_antialias")
"""How images are resized for the network; 'bilinear' takes no mean when it shrinks (PyTorch's default), the others do."""
CAFFE_MEAN = (103.939, 116.779, 123.68)


@dataclasses.dataclass(frozen=True)
class Options:
    """The loss. Hashable: a static argument.

    Raises:
      ValueError: a value that is not one of those listed, numbers of taps and weights that differ, a weight below 0, nothing to minimise.
    """

    taps: tuple[str, ...] = ("relu1_1", "relu1_2", "relu3_2", "relu4_2")
    """Maps: 'relu1_1' behind the ReLU, 'conv1_1' before it."""
    weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    """One for each tap."""
    mse: float = 1.0
    """Weight of the pixels' difference; taken at full size."""
    mse_range: str = "signed"
    """'signed': images in [-1, 1]; 'unit': in [0, 1], a squared difference is then a fourth."""
    normalisation: str = "torchvision"
    """A key of ``NORMALISATIONS``; it belongs to the weights."""
    kernel: str = "area"
    """One of ``KERNELS``."""
    size: int | None = 256
    """Side at which the network sees the images, smaller ones enlarged; None: as they are."""
    distance: str = "squared"
    """'squared', or 'absolute' (mean |a - b|, as layer inversion has it), of maps and pixels."""
    precision: str = "highest"
    """Of the network's products, as in ``vgg.features``."""

    def __post_init__(self) -> None:
        allowed = {
            "mse_range": ("signed", "unit"), "normalisation": tuple(NORMALISATIONS), "kernel": KERNELS, "distance": ("squared", "absolute")
        }  # fmt: skip
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} {getattr(self, name)!r} is not one of {', '.join(values)}")
        if len(self.taps) != len(self.weights) or len(set(self.taps)) != len(self.taps):
            raise ValueError(f"taps {self.taps} and weights {self.weights}: each tap once, with one weight")
        if not all(np.isfinite(weight) and weight >= 0 for weight in (*self.weights, self.mse)):
            raise ValueError(f"weights {self.weights} and mse {self.mse}: finite numbers from 0 are taken")
        if not (any(self.weights) or self.mse):
            raise ValueError("all weights are 0: there is nothing to minimise")
        if self.size is not None and self.size < 1:
            raise ValueError(f"size {self.size}: a side in pixels from 1, or None to leave the images as they are")


def resize(images: jax.Array, size: int | tuple[int, int], kernel: str = "area") -> jax.Array:
    """[N, H, W, C] -> [N, size, size, C] (or (height, width)), by one of ``KERNELS``; differentiable.

    'area': every pixel is the mean of what it covers; 'bilinear': half-pixel centres, no antialiasing (``align_corners=False``);
    'bilinear_antialias': the hat as wide as the ratio.

    Raises:
      ValueError: an unknown kernel, or not images.
    """
    if kernel not in KERNELS or images.ndim != 4:
        raise ValueError(f"resize takes [N, H, W, C] and one of {', '.join(KERNELS)}; not {images.shape} and {kernel!r}")
    wanted = (size, size) if isinstance(size, int) else tuple(size)
    batch, height, width, channels = images.shape
    if (height, width) == wanted:
        return images
    if kernel == "area" and height % wanted[0] == 0 and width % wanted[1] == 0:
        parts = (batch, wanted[0], height // wanted[0], wanted[1], width // wanted[1], channels)
        return images.reshape(parts).mean((2, 4))
    matrix = {"area": resampling.area, "bilinear": resampling.bilinear, "bilinear_antialias": resampling.bilinear_antialias}[kernel]
    return resampling.resample(images, matrix(height, wanted[0]), matrix(width, wanted[1]))


def normalise(images: jax.Array, normalisation: str) -> jax.Array:
    """Images [..., 3] in [-1, 1] as the network's weights expect them; ``normalisation``: a key of ``NORMALISATIONS``."""
    if normalisation == "torchvision":
        return vgg.scale_imagenet(images)
    if normalisation == "caffe":
        return (images[..., ::-1] + 1) * 127.5 - jnp.asarray(CAFFE_MEAN, images.dtype)
    if normalisation == "unit":
        return images * 0.5 + 0.5
    if normalisation == "signed":
        return images
    raise ValueError(f"normalisation {normalisation!r} is not one of {', '.join(NORMALISATIONS)}")


def maps(frozen: Mapping[str, Any], images: jax.Array, options: Options) -> dict[str, jax.Array]:
    """{tap: [N, h, w, C]} of images [N, H, W, 3] in [-1, 1], resized and normalised as ``options`` say; {} where there are no taps."""
    if not options.taps:
        return {}
    seen = images if options.size is None else resize(images, options.size, options.kernel)
    return vgg.features(frozen, normalise(seen, options.normalisation), options.taps, precision=options.precision)


def targets(frozen: Mapping[str, Any], images: jax.Array, options: Options) -> dict[str, Any]:
    """What ``compare`` needs of the targets, computed once.

    Args:
      frozen: VGG-16's parameters (``vgg.params``); {} where ``options.taps`` is empty.
      images: float32 [N, H, W, 3] in [-1, 1].
      options: the loss.

    Returns:
      {'image': [N, H, W, 3], 'maps': {tap: [N, h, w, C]}}: first axes N.
    """
    return {"image": images, "maps": maps(frozen, images, options)}


def compare(
    frozen: Mapping[str, Any], images: jax.Array, targets: Mapping[str, Any], options: Options
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Losses of images against targets.

    Args:
      frozen, options: as given to ``targets``.
      images: float32 [N, H, W, 3], about [-1, 1].
      targets: from ``targets``.

    Returns:
      (losses [N], {'mse': [N], tap: [N], ...}): the parts without their weights.

    Raises:
      ValueError: images of another shape than the targets.
    """
    if images.shape != targets["image"].shape:
        raise ValueError(f"images of shape {images.shape} and targets of {targets['image'].shape}: sizes must be equal")
    between = jnp.square if options.distance == "squared" else jnp.abs
    scale = {("unit", "squared"): 0.25, ("unit", "absolute"): 0.5}.get((options.mse_range, options.distance), 1.0)
    parts = {"mse": between(images - targets["image"]).mean((1, 2, 3)) * scale}
    for tap, found in maps(frozen, images, options).items():
        parts[tap] = between(found - targets["maps"][tap]).mean((1, 2, 3))
    weights = {"mse": options.mse, **dict(zip(options.taps, options.weights, strict=True))}
    return sum(weights[name] * parts[name] for name in parts), parts
