"""What a StyleGAN generator is made of: its static choices, the rows of the paper's table 1, and the shapes and scales of its arrays."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Tree = Any

GAIN = math.sqrt(2.0)
MAPPING_RATE = 0.01
"""The mapping network learns this many times slower than the rest."""


def channel_widths(resolution: int, base: int = 8192, decay: float = 1.0, maximum: int = 512) -> tuple[int, ...]:
    """Channels at 4, 8, ..., ``resolution`` px: min(floor(base / 2^(s decay)), maximum) for s = 1, 2, ...

    Raises:
      ValueError: a resolution that is no power of two from 4 up.
    """
    if resolution < 4 or resolution & (resolution - 1):
        raise ValueError(f"resolution {resolution}: StyleGAN needs a power of two from 4 up")
    return tuple(min(int(base / 2.0 ** (s * decay)), maximum) for s in range(1, resolution.bit_length() - 1))


@dataclasses.dataclass(frozen=True)
class Generator:
    """The static choices of a generator; the defaults are those of the published networks at 1024 px."""

    widths: tuple[int, ...] = channel_widths(1024)
    """Channels at 4, 8, 16, ... px (``channel_widths``); their number sets the resolution."""
    latent_size: int = 512
    w_size: int = 512
    mapping_width: int = 512
    """Width of the hidden mapping layers; the last one has ``w_size``."""
    mapping_layers: int = 8
    label_size: int = 0
    channels: int = 3
    styles: bool = True
    """Scale and shift every layer by its row of w. Without: one row of w, read by the first layer alone."""
    constant: bool = True
    """The first layer is a learned constant; without, a linear function of w."""
    noise: bool = True
    instance_norm: bool = True
    pixel_norm: bool = False
    normalise_latents: bool = True
    blur: bool = True
    """Blur behind every doubling, which makes it bilinear."""
    fused: bool | str = "auto"
    """Meaning of the kernels that double the image: True, the transposed convolution (which reads the kernel turned by 180 degrees);
    False, nearest neighbour and then a convolution; 'auto', fused where the result has 128 px or more, as in published networks."""
    scaling: str = "equalised"
    """'equalised': unit kernels, scaled at run time. 'initial': scaled at the start only. 'folded': no factor is left to apply."""

    def __post_init__(self):
        if not self.widths:
            raise ValueError("a generator needs the channels of at least one resolution in widths")
        if self.scaling not in ("equalised", "initial", "folded"):
            raise ValueError(f"scaling {self.scaling!r}: expected 'equalised', 'initial' or 'folded'")
        if self.fused not in (True, False, "auto"):
            raise ValueError(f"fused {self.fused!r}: expected True, False or 'auto'")
        inputs = self.latent_size * (2 if self.label_size else 1)
        if not self.mapping_layers and self.w_size != inputs:
            raise ValueError(f"without mapping layers w is the {inputs} values of latent and label, but w_size is {self.w_size}")

    @property
    def resolution(self) -> int:
        return 4 << (len(self.widths) - 1)

    @property
    def layers(self) -> int:
        """Style layers: two for each resolution."""
        return 2 * len(self.widths)

    @property
    def rows(self) -> int:
        """Rows of an extended code (W+)."""
        return self.layers if self.styles else 1

    def side(self, layer: int) -> int:
        return 4 << (layer // 2)


class Ablation(NamedTuple):
    """A row of table 1 of the paper."""

    changes: dict[str, Any]
    """Fields of ``Generator`` that differ from the defaults."""
    mixing: float
    """Probability of style mixing in training."""
    truncation: bool
    what: str


_PLAIN = dict(styles=False, constant=False, noise=False, instance_norm=False, pixel_norm=True, mapping_layers=0)
TABLE_1 = {
    "A": Ablation({**_PLAIN, "blur": False}, 0.0, False, "progressive GAN; trained with WGAN-GP, no blur in the discriminator either"),
    "B": Ablation(_PLAIN, 0.0, False, "tuned, bilinear resampling"),
    "C": Ablation(dict(constant=False, noise=False), 0.0, True, "mapping network and styles"),
    "D": Ablation(dict(noise=False), 0.0, True, "constant in place of the traditional input"),
    "E": Ablation({}, 0.0, True, "noise inputs"),
    "F": Ablation({}, 0.9, True, "style mixing"),
}
"""The configurations of table 1: ``dataclasses.replace(generator, **TABLE_1['C'].changes)``."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One trained array: its shape, how it starts, and the factor it gets at run time."""

    shape: tuple[int, ...]
    deviation: float = 0.0
    """Of the normal distribution that it starts from; 0: it starts at ``fill``."""
    fill: float = 0.0
    factor: float = 1.0


def scaled_kernel(scaling: str, shape: tuple[int, ...], gain: float = GAIN, rate: float = 1.0) -> Leaf:
    """A kernel [..., I, O] whose effective values start with the deviation gain / sqrt(fan in); ``rate`` multiplies its learning rate."""
    effective = gain / math.sqrt(math.prod(shape[:-1]))
    if scaling == "equalised":
        return Leaf(shape, 1.0 / rate, factor=effective * rate)
    return Leaf(shape, effective) if scaling == "folded" else Leaf(shape, effective / rate, factor=rate)


def mapping_layout(network: Generator) -> dict[str, dict[str, Leaf]]:
    layout, inputs = {}, network.latent_size
    if network.label_size:
        layout["label"] = {"kernel": Leaf((network.label_size, network.latent_size), 1.0)}
        inputs *= 2
    for i in range(network.mapping_layers):
        width = network.w_size if i == network.mapping_layers - 1 else network.mapping_width
        layout[f"dense{i}"] = {
            "kernel": scaled_kernel(network.scaling, (inputs, width), GAIN, MAPPING_RATE),
            "bias": Leaf((width,), factor=1.0 if network.scaling == "folded" else MAPPING_RATE),
        }
        inputs = width
    return layout


def synthesis_layout(network: Generator) -> dict[str, dict[str, Leaf]]:
    layout: dict[str, dict[str, Leaf]] = {}
    inputs = network.widths[0]
    for i in range(network.layers):
        width = network.widths[i // 2]
        if i:
            layer = {"kernel": scaled_kernel(network.scaling, (3, 3, inputs, width))}
        elif network.constant:
            layer = {"constant": Leaf((4, 4, width), fill=1.0)}
        else:
            layer = {"kernel": scaled_kernel(network.scaling, (network.w_size, 16 * width), GAIN / 4)}
        layer["bias"] = Leaf((width,))
        if network.noise:
            layer["noise"] = Leaf((width,))
        if network.styles:
            layer["style_kernel"] = scaled_kernel(network.scaling, (network.w_size, 2 * width), 1.0)
            layer["style_bias"] = Leaf((2 * width,))
        layout[f"layer{i:02d}"] = layer
        inputs = width
    for i, width in enumerate(network.widths):
        layout[f"rgb{4 << i}"] = {
            "kernel": scaled_kernel(network.scaling, (1, 1, width, network.channels), 1.0),
            "bias": Leaf((network.channels,)),
        }
    return layout


def layout(network: Generator) -> dict[str, dict[str, dict[str, Leaf]]]:
    """The tree of the generator's trained arrays, with a ``Leaf`` in the place of each."""
    return {"mapping": mapping_layout(network), "synthesis": synthesis_layout(network)}


def initialise(key: jax.Array, leaves: Tree) -> Tree:
    """float32 arrays for a layout: normal where a deviation is given, else constant."""
    flat, structure = jax.tree.flatten(leaves)
    sizes = [math.prod(leaf.shape) if leaf.deviation else 0 for leaf in flat]
    drawn = jax.random.normal(key, (sum(sizes),))  # one draw: compiling fifty of them takes ten seconds
    arrays, start = [], 0
    for leaf, size in zip(flat, sizes, strict=True):
        part = drawn[start : start + size].reshape(leaf.shape) * leaf.deviation if size else jnp.full(leaf.shape, leaf.fill)
        arrays.append(part)
        start += size
    return jax.tree.unflatten(structure, arrays)


def scaled(leaves: Tree, params: Tree) -> Tree:
    """``params`` with the run-time factors of their layout."""
    return jax.tree.map(lambda leaf, array: array if leaf.factor == 1.0 else array * leaf.factor, leaves, params)
