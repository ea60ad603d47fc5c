"""StyleGAN's discriminator (Karras et al., CVPR 2019): the progressive GAN's, with blur before every halving.

Scores depend on the batch: minibatch deviation compares each image with the others of its group, so real and fake images go through
in separate passes, and a batch must be a multiple of the group.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxgan.nets.layers import at_least_float32, average_pool, convolve, convolve_pool
from jaxgan.nets.stylegan import EPSILON, blur, leaky_relu
from jaxgan.nets.stylegan_layout import GAIN, Leaf, channel_widths, initialise, scaled, scaled_kernel

Tree = Any


@dataclasses.dataclass(frozen=True)
class Discriminator:
    """The static choices; the defaults are those of the published networks at 1024 px."""

    widths: tuple[int, ...] = channel_widths(1024)
    """Channels at 4, 8, 16, ... px (``stylegan.channel_widths``); their number sets the resolution."""
    dense_width: int = 512
    """Width of the dense layer behind 4 x 4 px."""
    label_size: int = 0
    """0: one score; else one for each class, of which the image's label picks its own."""
    channels: int = 3
    blur: bool = True
    group: int = 4
    """Images compared by minibatch deviation; 1 or less: the layer is left out."""
    group_features: int = 1
    scaling: str = "equalised"
    """As in ``stylegan.Generator``."""

    def __post_init__(self):
        if not self.widths:
            raise ValueError("a discriminator needs the channels of at least one resolution in widths")
        if self.scaling not in ("equalised", "initial", "folded"):
            raise ValueError(f"scaling {self.scaling!r}: expected 'equalised', 'initial' or 'folded'")

    @property
    def resolution(self) -> int:
        return 4 << (len(self.widths) - 1)


def layout(network: Discriminator) -> dict[str, dict[str, Leaf]]:
    """The tree of the trained arrays: 'from_rgb64', 'conv64', 'down64', ..., 'conv4', 'dense4', 'score'."""
    shapes: dict[str, tuple[tuple[int, ...], float]] = {}
    for i, width in enumerate(network.widths):
        side = 4 << i
        shapes[f"from_rgb{side}"] = ((1, 1, network.channels, width), GAIN)
        if i:
            shapes[f"conv{side}"] = ((3, 3, width, width), GAIN)
            shapes[f"down{side}"] = ((3, 3, width, network.widths[i - 1]), GAIN)
    extra = network.group_features if network.group > 1 else 0
    least = network.widths[0]
    shapes["conv4"] = ((3, 3, least + extra, least), GAIN)
    shapes["dense4"] = ((16 * least, network.dense_width), GAIN)
    shapes["score"] = ((network.dense_width, max(network.label_size, 1)), 1.0)
    return {
        name: {"kernel": scaled_kernel(network.scaling, shape, gain), "bias": Leaf((shape[-1],))} for name, (shape, gain) in shapes.items()
    }


def init(network: Discriminator, key: jax.Array) -> Tree:
    """Parameters before training."""
    return initialise(key, layout(network))


def minibatch_deviation(x: jax.Array, group: int = 4, features: int = 1) -> jax.Array:
    """Appends, as last channels, how much the images of a group differ: [N, H, W, C] -> [N, H, W, C + features].

    Image j is in group j mod (N / G), with G = min(group, N). Each new channel holds one number: the standard deviation over the group
    (variance + 1e-8), averaged over the pixels and C / features channels (Karras et al., ICLR 2018, section 3).

    Raises:
      ValueError: N is no multiple of G, or C none of ``features``.
    """
    batch, height, width, channels = x.shape
    group = min(group, batch)
    if batch % group or channels % features:
        raise ValueError(
            f"minibatch deviation of {batch} images in groups of {group} and {channels} channels in {features} parts: "
            f"take a batch that is a multiple of {group}"
        )
    wide = at_least_float32(x).reshape(group, batch // group, height, width, features, channels // features)
    variance = jnp.square(wide - wide.mean(0)).mean(0)
    deviation = jnp.sqrt(variance + EPSILON).mean((1, 2, 4))
    each = jnp.tile(deviation, (group, 1)).astype(x.dtype)
    return jnp.concatenate([x, jnp.broadcast_to(each[:, None, None], (batch, height, width, features))], -1)


def scores(
    network: Discriminator,
    params: Tree,
    images: jax.Array,
    labels: jax.Array | None = None,
    *,
    level: int = 0,
    fade: float | jax.Array | None = None,
    dtype: Any = jnp.float32,
) -> jax.Array:
    """Scores (logits, higher is more real) [N], float32.

    Args:
      network, params: static choices and arrays.
      images: [N, R, R, 3], reduced to R / 2^level by 2x2 means; or [N, R / 2^level, R / 2^level, 3], taken as they are.
      labels: one-hot [N, L] for a network with labels.
      level: whole halvings of progressive growing: the upper blocks are not run.
      fade: share of the features of the image at half that side; None: they are not made.
      dtype: what convolutions compute in.

    Raises:
      ValueError: images or labels of another shape, a level that the network lacks, or a batch that the groups do not divide.
    """
    lowest = len(network.widths) - 1
    if not 0 <= level <= lowest or (level == lowest and fade is not None):
        raise ValueError(f"level {level} with fade {fade}: a {network.resolution} px network goes from 0 to {lowest}, with no fade there")
    side = network.resolution >> level
    known = [(s, s, network.channels) for s in (network.resolution, side)]
    if images.ndim != 4 or images.shape[1:] not in known:
        expected = f"[N, {network.resolution}, {network.resolution}, {network.channels}]"
        raise ValueError(f"images of shape {images.shape}; expected {expected}" + f", or of side {side} at level {level}" * bool(level))
    if network.label_size and (labels is None or labels.shape != (images.shape[0], network.label_size)):
        found = None if labels is None else labels.shape
        raise ValueError(f"labels of shape {found}; this network needs {(images.shape[0], network.label_size)}")
    p = scaled(layout(network), params)
    images = images.astype(dtype)
    for _ in range(level if images.shape[1] != side else 0):
        images = average_pool(images)

    def activate(name, x, operation=convolve):
        return leaky_relu(operation(x, p[name]["kernel"]) + p[name]["bias"].astype(x.dtype))

    x = activate(f"from_rgb{side}", images)
    while side > 4:
        x = activate(f"conv{side}", x)
        x = activate(f"down{side}", blur(x) if network.blur else x, convolve_pool)
        side //= 2
        if fade is not None:
            lower = activate(f"from_rgb{side}", average_pool(images))
            x, fade = x + jnp.asarray(fade, x.dtype) * (lower - x), None
    if network.group > 1:
        x = minibatch_deviation(x, network.group, network.group_features)
    x = at_least_float32(activate("conv4", x)).reshape(x.shape[0], -1)
    x = leaky_relu(x @ p["dense4"]["kernel"] + p["dense4"]["bias"])
    x = x @ p["score"]["kernel"] + p["score"]["bias"]
    if network.label_size:
        x = x * labels.astype(x.dtype)
    return x.sum(1)
