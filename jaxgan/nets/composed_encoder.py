"""The encoders of layer inversion in one: an image -> estimates of every early activation, from the target r down to z.

E(x) = e_1(e_2(... e_t(e_f(x)))), as in Bau et al., "Seeing What a GAN Cannot Generate", ICCV 2019.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from jaxgan.nets import image_encoder, layer_encoders
from jaxgan.nets.image_encoder import ImageEncoder
from jaxgan.nets.layer_encoders import LayerEncoder

IMAGE = "image"
"""Name of the image encoder's arrays; those of a layer's encoder have the layer's name."""
LATENT = "z"
"""Name of the last estimate."""


@dataclasses.dataclass(frozen=True)
class ComposedEncoder:
    """Which encoders, and in which order."""

    image: ImageEncoder
    layers: tuple[tuple[str, LayerEncoder], ...]
    """(name of the activation that it takes, encoder), from the target r on: (('layer4', e_4), ..., ('layer1', e_1))."""

    @property
    def names(self) -> tuple[str, ...]:
        """What is estimated, in order: ('layer4', 'layer3', 'layer2', 'layer1', 'z')."""
        return (*(name for name, _ in self.layers), LATENT)


def official(side: int) -> ComposedEncoder:
    """The published composition for 256 px, or for 128 px its 'halfsize'; also 64 and 32 px, with fewer halvings.

    Raises:
      ValueError: another side.
    """
    if side not in (32, 64, 128, 256):
        raise ValueError(f"side {side}: the published encoders are described for 32, 64, 128 and 256 px")
    layers = tuple((f"layer{layer}", layer_encoders.official(layer)) for layer in (4, 3, 2, 1))
    return ComposedEncoder(image_encoder.between((side, side, 3), (8, 8, 512)), layers)


def between(
    latent: Sequence[int],
    shapes: Mapping[str, Sequence[int]],
    image: Sequence[int],
    *,
    widths: tuple[int, int, int, int] = (64, 128, 256, 512),
    pixel_norm: bool = True,
    unit_latent: bool = True,
) -> ComposedEncoder:
    """The composition for any generator.

    Args:
      latent: shape of one latent: (Z,), or (rows, W).
      shapes: (h, w, C) of each activation by name, in order of depth, from the first to the target r.
      image: (H, W, 3).
      widths: of the image encoder's stages.
      pixel_norm: whether layer encoders normalise their input; right where the generator's next layer does so, too.
      unit_latent: whether latents have root mean square 1; right for a z, wrong for a w.

    Raises:
      ValueError: sizes that no encoder can bring together; names them.
    """
    names = list(shapes)
    before = [tuple(latent), *(tuple(shapes[name]) for name in names[:-1])]
    # The published encoder of the second layer alone ends with a leaky ReLU, as the first layer of its generator does.
    found = [
        (name, layer_encoders.between(below, shapes[name], third=number != 2, pixel_norm=pixel_norm, unit_latent=unit_latent))
        for number, (name, below) in enumerate(zip(names, before, strict=True), 1)
    ]
    return ComposedEncoder(image_encoder.between(image, shapes[names[-1]], widths), tuple(reversed(found)))


def init(composed: ComposedEncoder, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
    """(params, stats), each {'image': ..., 'layer4': ..., ..., 'layer1': ...}."""
    keys = jax.random.split(key, len(composed.layers) + 1)
    made = {IMAGE: image_encoder.init(composed.image, keys[0])}
    for own, (name, encoder) in zip(keys[1:], composed.layers, strict=True):
        made[name] = layer_encoders.init(encoder, own)
    return {name: params for name, (params, _) in made.items()}, {name: stats for name, (_, stats) in made.items()}


def apply(
    composed: ComposedEncoder,
    params: Mapping[str, Any],
    stats: Mapping[str, Any],
    x: jax.Array,
    *,
    train: bool = False,
    start: str | None = None,
) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    """({'layer4': ..., ..., 'layer1': ..., 'z': ...}, new statistics): every estimate, each made from the one before.

    Args:
      composed: the description.
      params, stats: from ``init``; only those of the encoders that run are looked at.
      x: images [N, H, W, 3] in [-1, 1]; with ``start`` that activation, which is then not among the estimates.
      train: batch norms by the batch's own moments, which move the statistics (those of the others are returned as they are).
      start: name of an activation, as in the bottom-up curriculum; what lies before it is skipped.

    Raises:
      ValueError: a name that is not there, or a first argument of another shape.
    """
    names = composed.names
    if start is not None and start not in names[:-1]:
        raise ValueError(f"no layer {start!r} to start from: this encoder has {', '.join(names[:-1])}")
    new, found = dict(stats), {}
    if start is None:
        x, new[IMAGE] = image_encoder.apply(composed.image, params[IMAGE], stats[IMAGE], x, train=train)
        found[names[0]] = x
    first = names.index(start) if start is not None else 0
    for (name, encoder), result in zip(composed.layers[first:], names[first + 1 :], strict=True):
        x, new[name] = layer_encoders.apply(encoder, params[name], stats[name], x, train=train)
        found[result] = x
    return found, new


def joint_trainable(params: Mapping[str, Any]) -> dict[str, Any]:
    """True for each array that joint fine-tuning moves, in the tree of ``params``: all but the third convolutions.

    Those are linear and followed by another convolution (behind a normalisation of the pixel), so that they would add nothing.
    """
    return {
        name: {part: jax.tree.map(lambda _, moves=part != "conv3": moves, arrays) for part, arrays in parts.items()}
        for name, parts in params.items()
    }
