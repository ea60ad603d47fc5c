"""The losses of Image2StyleGAN++ (Abdal, Qin, Wonka, CVPR 2020, arXiv:1911.11544): what counts is said by a mask M.

Where the mask is 1 the photo rules, elsewhere another image, by its pixels or by its style:

    L = sum_j weight_j * mean |M_j (F_j(image) - F_j(photo))|^2 + mse * mean |M (image - photo)|^2
        + outside * mean |(1 - M) (image - other)|^2 + style * mean |Gram_(1-M)(image) - Gram_(1-M)(other)|^2

Both lines are the loss of ``jaxgan.perceptual``, each with its image and its mask. The paper does not say how Gram matrices are scaled;
``perceptual.gram`` takes means over the pixels under the mask.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from jaxgan import perceptual


class Losses(NamedTuple):
    """Options of both lines; static."""

    inside: perceptual.Options
    outside: perceptual.Options | None
    """None: nothing counts outside the mask."""


def losses(inside: perceptual.Options, outside_weight: float = 0.0, style_weight: float = 0.0, style_tap: str = "relu3_3") -> Losses:
    """The options of both lines from those of the first and the weights of the second."""
    if not (outside_weight or style_weight):
        return Losses(inside, None)
    style = {"style": (style_tap,), "style_weights": (style_weight,)} if style_weight else {"style": (), "style_weights": ()}
    return Losses(inside, dataclasses.replace(inside, taps=(), weights=(), mse=outside_weight, **style))


def pixels(both: Losses) -> Losses:
    """Both lines with nothing but the mean squared errors, the photo's with weight 1: the loss of the noise maps."""

    def alone(options: perceptual.Options, weight: float) -> perceptual.Options:
        return dataclasses.replace(options, taps=(), weights=(), style=(), style_weights=(), mse=weight)

    outside = alone(both.outside, both.outside.mse) if both.outside is not None and both.outside.mse else None
    return Losses(alone(both.inside, 1.0), outside)


def targets(frozen: Mapping[str, Any], images: jax.Array, mask: jax.Array | None, other: jax.Array | None, both: Losses) -> dict[str, Any]:
    """What ``compare`` needs, computed once; first axes N.

    Args:
      frozen: VGG-16's parameters.
      images: the photos, [N, H, W, 3] in [-1, 1].
      mask: [N, H, W] in [0, 1]; 1 where the photo rules. None: everywhere.
      other: the other images, as ``images``; needed where something counts outside the mask.
    """
    found = perceptual.targets(frozen, images, both.inside, mask)
    if both.outside is not None:
        found["outside"] = perceptual.targets(frozen, other, both.outside, 1 - mask)
    return found


def compare(
    frozen: Mapping[str, Any], images: jax.Array, targets: Mapping[str, Any], both: Losses
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(losses [N], parts: those of ``perceptual.compare``, 'outside' and 'style_...'), without their weights."""
    total, parts = perceptual.compare(frozen, images, targets, both.inside)
    if both.outside is not None:
        more, others = perceptual.compare(frozen, images, targets["outside"], both.outside)
        total = total + more
        parts |= {"outside": others.pop("mse"), **others}
    return total, parts
