"""What an embedding minimises: squared differences of VGG-16's maps and of pixels (Abdal et al., Image2StyleGAN, ICCV 2019, section 3).

    L = sum_j weight_j * mean |F_j(image) - F_j(target)|^2 + mse * mean |image - target|^2

with the mean over all scalars of a map or an image. What the paper leaves unsaid (before or behind the ReLU, the images' range, the
network's input, how images are resized for it) are fields of ``Options``. Masks weigh the differences (Abdal et al., Image2StyleGAN++,
CVPR 2020), and maps may also be compared by their Gram matrices, as style (Gatys et al., CVPR 2016): sums of such losses make inpainting
and local style. Every value is per image, so that many images are fitted at once and each goes its own way; what is needed of the
targets is computed once, by ``targets``.
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
    style: tuple[str, ...] = ()
    """Maps whose Gram matrices are compared; these parts are named 'style_relu3_3'."""
    style_weights: tuple[float, ...] = ()
    """One for each map of ``style``."""
    precision: str = "highest"
    """Of the network's products, as in ``vgg.features``."""

    def __post_init__(self) -> None:
        allowed = {
            "mse_range": ("signed", "unit"), "normalisation": tuple(NORMALISATIONS), "kernel": KERNELS, "distance": ("squared", "absolute")
        }  # fmt: skip
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} {getattr(self, name)!r} is not one of {', '.join(values)}")
        for taps, weights in ((self.taps, self.weights), (self.style, self.style_weights)):
            if len(taps) != len(weights) or len(set(taps)) != len(taps):
                raise ValueError(f"taps {taps} and weights {weights}: each tap once, with one weight")
        weights = (*self.weights, *self.style_weights, self.mse)
        if not all(np.isfinite(weight) and weight >= 0 for weight in weights):
            raise ValueError(f"weights {weights[:-1]} and mse {self.mse}: finite numbers from 0 are taken")
        if not any(weights):
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
    taps = tuple(dict.fromkeys((*options.taps, *options.style)))
    if not taps:
        return {}
    seen = images if options.size is None else resize(images, options.size, options.kernel)
    return vgg.features(frozen, normalise(seen, options.normalisation), taps, precision=options.precision)


def gram(found: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Means over the pixels of products of channels: [N, h, w, C] -> [N, C, C]; with a mask [N, h, w, 1] weighted means (0 where it is)."""
    if mask is None:
        return jnp.einsum("nhwc,nhwd->ncd", found, found, precision="highest") / (found.shape[1] * found.shape[2])
    sums = jnp.einsum("nhwc,nhwd->ncd", found * mask, found, precision="highest")
    return sums / jnp.maximum(mask.sum((1, 2, 3)), 1e-6)[:, None, None]


def targets(frozen: Mapping[str, Any], images: jax.Array, options: Options, masks: jax.Array | None = None) -> dict[str, Any]:
    """What ``compare`` needs of the targets, computed once.

    Args:
      frozen: VGG-16's parameters (``vgg.params``); {} where the options name no maps.
      images: float32 [N, H, W, 3] in [-1, 1].
      options: the loss.
      masks: float32 [N, H, W], factors of the differences (1: counts, 0: does not), resized to each map by area; None: everything counts.
        Means are still over all scalars.

    Returns:
      A tree of arrays whose first axis is N: 'image', 'maps', 'grams' and, where there are masks, 'masks'.

    Raises:
      ValueError: masks of another size than the images.
    """
    found = maps(frozen, images, options)
    result: dict[str, Any] = {"image": images, "maps": {tap: found[tap] for tap in options.taps}}
    if masks is not None:
        if masks.shape != images.shape[:3]:
            raise ValueError(f"masks of shape {masks.shape} for images of {images.shape}: [N, H, W] with the images' sizes are needed")
        masks = masks[..., None].astype(images.dtype)
        result["masks"] = {"mse": masks, **{tap: resize(masks, array.shape[1:3]) for tap, array in found.items()}}
    result["grams"] = {tap: gram(found[tap], _mask(result, tap)) for tap in options.style}
    return result


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

    def distance(name, found, aim):
        difference, mask = found - aim, _mask(targets, name)
        difference = difference if mask is None else difference * mask
        return (jnp.square if options.distance == "squared" else jnp.abs)(difference).mean((1, 2, 3))

    scale = {("unit", "squared"): 0.25, ("unit", "absolute"): 0.5}.get((options.mse_range, options.distance), 1.0)
    found = maps(frozen, images, options)
    parts = {"mse": distance("mse", images, targets["image"]) * scale}
    parts |= {tap: distance(tap, found[tap], targets["maps"][tap]) for tap in options.taps}
    for tap in options.style:
        parts[f"style_{tap}"] = jnp.square(gram(found[tap], _mask(targets, tap)) - targets["grams"][tap]).mean((1, 2))
    weights = (options.mse, *options.weights, *options.style_weights)
    return sum(weight * part for weight, part in zip(weights, parts.values(), strict=True)), parts


def _mask(targets: Mapping[str, Any], name: str) -> jax.Array | None:
    return targets["masks"][name] if "masks" in targets else None
