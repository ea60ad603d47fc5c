"""UPerNet: object, part, material and scene scores from one network, for inference.

Xiao, Liu, Zhou, Jiang and Sun, "Unified Perceptual Parsing for Scene Understanding", ECCV 2018. A ResNet-50 encoder
(``jaxgan.nets.resnet``), a pyramid of pooled maps on its last stage, a feature pyramid from coarse to fine, and one head for each task.

The widths, the names in the state dicts and the order of operations are those of the authors' published program. The published weights
were not at hand when this was written: nothing here has been compared with their output. What is checked is each piece against an
independent formula, and the import of state dicts with the published names and shapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.nets import resnet
from jaxgan.nets.resampling import bilinear, precise_pooling, resample
from jaxgan.nets.resnet import Unit, convolve

SCALES = (1, 2, 3, 6)
"""Bins along each side in the pooled pyramid."""
HEADS = ("object", "part", "material", "scene")


class Layout(NamedTuple):
    """Widths; the defaults are those of the published weights."""

    encoder: resnet.Layout = resnet.RESNET50
    pooled: int = 512
    """Channels of each pooled map."""
    width: int = 512
    """Channels of the feature pyramid and of the heads."""


RELEASED = Layout()


def units(classes: Mapping[str, int], layout: Layout = RELEASED) -> list[Unit]:
    """All convolutions of the decoder. ``classes``: outputs of each of ``HEADS``."""
    *lateral, last = layout.encoder.outputs
    width = layout.width
    found = [Unit(f"pooled.{k}", f"ppm_conv.{k}.0", f"ppm_conv.{k}.1", (1, 1, last, layout.pooled)) for k in range(len(SCALES))]
    found.append(Unit("pyramid", "ppm_last_conv.0", "ppm_last_conv.1", (3, 3, last + len(SCALES) * layout.pooled, width)))
    found += [Unit(f"lateral.{k}", f"fpn_in.{k}.0", f"fpn_in.{k}.1", (1, 1, channels, width)) for k, channels in enumerate(lateral)]
    found += [Unit(f"smooth.{k}", f"fpn_out.{k}.0.0", f"fpn_out.{k}.0.1", (3, 3, width, width)) for k in range(len(lateral))]
    found.append(Unit("fuse", "conv_fusion.0", "conv_fusion.1", (3, 3, 4 * width, width)))
    for head in HEADS:
        found.append(Unit(f"{head}.hidden", f"{head}_head.0.0", f"{head}_head.0.1", (3, 3, width, width)))
        scores = f"{head}_head.{2 if head == 'scene' else 1}"  # the scene head has its mean over the map in between
        found.append(Unit(f"{head}.scores", scores, None, (1, 1, width, classes[head])))
    return found


def params(
    encoder: Mapping[str, np.ndarray], decoder: Mapping[str, np.ndarray], classes: Mapping[str, int], layout: Layout = RELEASED
) -> dict[str, np.ndarray]:
    """Parameters from the two PyTorch state dicts, float32, kernels HWIO, batch normalisation folded in.

    Args:
      classes: outputs of each of ``HEADS``; 'part' is the sum of the lengths of all owners' part lists.

    Raises:
      ValueError: a state dict with missing, unknown or differently shaped arrays (``resnet.fold``).
    """
    folded = resnet.fold(encoder, resnet.units(layout.encoder), "the encoder")
    return folded | resnet.fold(decoder, units(classes, layout), "the decoder")


def _resize(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    return x if x.shape[1:3] == size else resample(x, bilinear(x.shape[1], size[0]), bilinear(x.shape[2], size[1]))


def pyramid(params: Mapping[str, jax.Array], last: jax.Array) -> jax.Array:
    """The pooled pyramid on the last stage: [N, h, w, C] -> [N, h, w, width].

    The authors resize each pooled map before its 1x1 convolution and its ReLU. The convolution (with the folded normalisation) commutes
    with the resizing, whose weights sum to 1; the ReLU does not. So: convolution on the small map, resizing, ReLU.
    """
    height, width = last.shape[1:3]
    maps = [last]
    for k, scale in enumerate(SCALES):
        small = resample(last, precise_pooling(height, scale), precise_pooling(width, scale))
        maps.append(jax.nn.relu(_resize(convolve(params, f"pooled.{k}", small), (height, width))))
    return jax.nn.relu(convolve(params, "pyramid", jnp.concatenate(maps, -1)))


def logits(
    params: Mapping[str, jax.Array], images: jax.Array, heads: Sequence[str] = ("object", "material", "part")
) -> dict[str, jax.Array]:
    """Scores before the softmax.

    Args:
      images: [N, H, W, 3], BGR, 0..255 less the mean (``upernet_segmenter.network_input``).
      heads: which of ``HEADS``; what none of them needs is not computed.

    Returns:
      'object', 'part', 'material': [N, ceil(H / 4), ceil(W / 4), classes]; 'scene': [N, classes].

    Raises:
      ValueError: an unknown head.
    """
    if unknown := sorted(set(heads) - set(HEADS)):
        raise ValueError(f"heads {unknown} are not known: choose among {', '.join(HEADS)}")
    maps = resnet.stages(params, images)
    coarse = pyramid(params, maps[-1])
    found = {}
    if "scene" in heads:
        hidden = jax.nn.relu(convolve(params, "scene.hidden", coarse)).mean((1, 2), keepdims=True)
        found["scene"] = convolve(params, "scene.scores", hidden)[:, 0, 0]
    dense = [head for head in heads if head != "scene"]
    if not dense:
        return found
    x, levels = coarse, [coarse]
    for k in reversed(range(3)):
        lateral = jax.nn.relu(convolve(params, f"lateral.{k}", maps[k]))
        x = lateral + _resize(x, lateral.shape[1:3])
        levels.insert(0, jax.nn.relu(convolve(params, f"smooth.{k}", x)))
    if set(dense) - {"material"}:
        size = levels[0].shape[1:3]
        fused = jax.nn.relu(convolve(params, "fuse", jnp.concatenate([_resize(level, size) for level in levels], -1)))
    for head in dense:
        source = levels[0] if head == "material" else fused
        found[head] = convolve(params, f"{head}.scores", jax.nn.relu(convolve(params, f"{head}.hidden", source)))
    return found
