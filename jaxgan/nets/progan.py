"""The generator of progressive GANs (Karras et al., ICLR 2018) as a chain of layers, and its ablations.

Static choices are a ``Generator``; arrays are a tree {'layer1': {'kernel': [4, 4, Z, C], 'bias': [C]}, 'layer2': {'kernel': [3, 3, C, C],
...}, ..., 'output': {'kernel': [1, 1, C, 3], 'bias': [3]}}, and {} or {'layer1': {'mean', 'variance'}, ...} for batch statistics. Every
layer is pixel norm, doubling (layers 3, 5, 7, ...), convolution, scale, bias, activation, in this order: pixel norm stands before the
convolution, as in the published PyTorch networks, so that z is normalised too and the output layer reads normalised pixels.

Kernels are stored raw, before their run-time factor; ``freeze`` multiplies it in and makes them ready for inversion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgan.nets import frozen
from jaxgan.nets.layers import at_least_float32, batch_normalise, convolve, upsample, upsample_convolve
from jaxgan.nets.stylegan import leaky_relu, pixel_norm
from jaxgan.nets.stylegan_layout import Leaf, initialise, scaled, scaled_kernel

Tree = Any
Edit = Callable[[jax.Array], jax.Array]

PRESETS: dict[int, tuple[int, ...]] = {
    8: (512,) * 3,
    16: (512,) * 4,
    32: (512,) * 4 + (256,),
    64: (512,) * 4 + (256, 128),
    128: (512,) * 4 + (256, 128, 64),
    256: (512,) * 4 + (256, 128, 64, 32),
    1024: (512,) * 5 + (256, 128, 64, 32, 16),
}
"""``sizes`` of the published networks by the side of their images."""
EPSILON = 1e-5
"""Added to the variance of batch normalisation."""


@dataclasses.dataclass(frozen=True)
class Generator:
    """The static choices of a generator; the defaults are the published network of 256 px."""

    sizes: tuple[int, ...] = PRESETS[256]
    """Size of z, then the channels at 4, 8, 16, ... px; the images have 2^len(sizes) px."""
    channels: int = 3
    pixel_norm: bool | Literal["ends", "latents"] = True
    """Of what enters a layer: True, of every layer; 'ends', of layer1 and the output; 'latents', of layer1 alone; False, of none."""
    scaling: Literal["fixed", "learned", "none"] = "fixed"
    """What a convolution's result is multiplied by: the constant that equalises learning rates, a learned number for each layer, or
    nothing."""
    batch_norm: bool = False
    """Batch normalisation behind every hidden convolution, in the place of scale and bias."""
    activation: Literal["leaky_relu", "relu"] = "leaky_relu"
    """'leaky_relu': of slope 0.2."""
    clamp: bool = True
    """Clip the images to [-1, 1]; there is no gradient where they are beyond. Training leaves it out."""

    def __post_init__(self):
        if len(self.sizes) < 2 or min(self.sizes) < 1 or self.channels < 1:
            raise ValueError(f"sizes {self.sizes}, channels {self.channels}: give the size of z and the channels at 4, 8, ... px")
        if self.pixel_norm not in (True, False, "ends", "latents"):
            raise ValueError(f"pixel_norm {self.pixel_norm!r}: expected True, False, 'ends' or 'latents'")
        if self.scaling not in ("fixed", "learned", "none"):
            raise ValueError(f"scaling {self.scaling!r}: expected 'fixed', 'learned' or 'none'")
        if self.activation not in ("leaky_relu", "relu"):
            raise ValueError(f"activation {self.activation!r}: expected 'leaky_relu' or 'relu'")
        if self.batch_norm and self.scaling != "none":
            raise ValueError(f"scaling {self.scaling!r} with batch_norm: batch normalisation undoes any scale; set scaling to 'none'")

    @property
    def latent_size(self) -> int:
        return self.sizes[0]

    @property
    def resolution(self) -> int:
        return 2 ** len(self.sizes)

    @property
    def layers(self) -> int:
        """Hidden layers: two for each side."""
        return 2 * (len(self.sizes) - 1)


ABLATIONS: dict[str, dict[str, Any]] = {
    "G128_simple": dict(pixel_norm=False, scaling="none", batch_norm=True, activation="relu"),
    "G128_minibatch_disc": dict(pixel_norm="latents", scaling="none"),
    "G128_equallr": dict(pixel_norm="ends", scaling="learned"),
    "G128_pixelwisenorm": dict(scaling="learned"),
}
"""Fields of ``Generator`` in which the published ablated networks of 128 px differ from the defaults, by the name of their class."""


class Run(NamedTuple):
    """What ``run`` gives."""

    images: jax.Array
    """[N, S, S, C], or the activation at which it was asked to end."""
    kept: dict[str, jax.Array]
    """Activations by layer, after their edits."""
    stats: Tree
    """Running batch statistics after it; as given unless ``train``."""


def names(network: Generator) -> tuple[str, ...]:
    """Layers in order: ('layer1', ..., 'layerK', 'output')."""
    return (*(f"layer{i}" for i in range(1, network.layers + 1)), "output")


def side(network: Generator, name: str) -> int:
    """Side in pixels of what a layer gives."""
    return network.resolution if name == "output" else 4 << (_place(names(network), name) // 2)


def shape(network: Generator, name: str) -> tuple[int, int, int]:
    """(height, width, channels) of what a layer gives."""
    width = network.channels if name == "output" else network.sizes[1 + _place(names(network), name) // 2]
    return side(network, name), side(network, name), width


def layout(network: Generator, growing: bool = False) -> dict[str, dict[str, Leaf]]:
    """The tree of the trained arrays, with a ``Leaf`` in the place of each.

    ``growing``: with layers 'output4', 'output8', ... that make images of the smaller sides too.
    """
    found, inputs = {}, network.latent_size
    for i, name in enumerate(names(network)[:-1]):
        width = network.sizes[1 + i // 2]
        found[name] = _layer_layout(network, ((4, 4) if i == 0 else (3, 3)) + (inputs, width), 2**0.5)
        inputs = width
    outputs = {f"output{4 << i}": width for i, width in enumerate(network.sizes[1:-1])} if growing else {}
    for name, width in {**outputs, "output": inputs}.items():
        found[name] = _layer_layout(network, (1, 1, width, network.channels), 1.0, last=True)
    return found


def _layer_layout(network: Generator, kernel: tuple[int, ...], gain: float, last: bool = False) -> dict[str, Leaf]:
    scale = scaled_kernel("equalised", kernel, gain).factor
    if network.batch_norm and not last:
        return {"kernel": Leaf(kernel, scale), "gamma": Leaf(kernel[-1:], fill=1.0), "beta": Leaf(kernel[-1:])}
    bias = Leaf(kernel[-1:])
    if network.scaling == "learned":
        return {"kernel": Leaf(kernel, 1.0), "scale": Leaf((), fill=scale), "bias": bias}
    return {"kernel": Leaf(kernel, 1.0, factor=scale) if network.scaling == "fixed" else Leaf(kernel, scale), "bias": bias}


def init(network: Generator, key: jax.Array, growing: bool = False) -> tuple[Tree, Tree]:
    """(params, stats) before training: effective kernels of deviation sqrt(2 / fan in), biases 0. ``growing``: see ``layout``."""
    widths = {name: shape(network, name)[2] for name in names(network)[:-1]} if network.batch_norm else {}
    stats = {name: {"mean": jnp.zeros((width,)), "variance": jnp.ones((width,))} for name, width in widths.items()}
    return initialise(key, layout(network, growing)), stats


def freeze(network: Generator, params: Tree, stats: Tree | None = None, *, minimal: bool | None = None) -> tuple[Generator, Tree]:
    """The same function with no factors and batch statistics left, and its 3x3 kernels ready for gradients with respect to images alone.

    What inversion runs, with stats {}. ``minimal``: minimal filtering where it pays (``jaxgan.nets.frozen``); None: on a CPU. Outputs
    of smaller sides stay where ``params`` has them.
    """
    minimal = jax.default_backend() == "cpu" if minimal is None else minimal
    folded, leaves = {}, layout(network, growing=True)
    smaller = [name for name in leaves if name not in names(network) and name in params]
    for i, name in enumerate((*names(network), *smaller)):
        p = scaled(leaves[name], {leaf: params[name][leaf] for leaf in leaves[name]})
        if network.batch_norm and not name.startswith("output"):
            scale = p["gamma"] * lax.rsqrt(stats[name]["variance"] + EPSILON)
            kernel, bias = p["kernel"] * scale, p["beta"] - stats[name]["mean"] * scale
        else:
            kernel, bias = p["kernel"] * p.get("scale", jnp.ones((), p["kernel"].dtype)), p["bias"]
        if 0 < i < network.layers:
            doubling = i % 2 == 0
            pays = minimal and frozen.pays(kernel, side(network, name) >> doubling)
            kernel = frozen.freeze_upsample(kernel, pays) if doubling else frozen.freeze(kernel, pays)
        folded[name] = {"kernel": kernel, "bias": bias}
    return dataclasses.replace(network, scaling="none", batch_norm=False), folded


def run(
    network: Generator,
    params: Tree,
    stats: Tree,
    z: jax.Array | None,
    *,
    start: tuple[str, jax.Array] | None = None,
    edits: Mapping[str, Edit] | None = None,
    keep: Sequence[str] = (),
    until: str | None = None,
    level: int = 0,
    fade: float | jax.Array | None = None,
    full_size: bool = True,
    train: bool = False,
    dtype: Any = None,
) -> Run:
    """Runs the chain of layers from z, or from behind any of them, to the images or any of them.

    Args:
      network, params, stats: static choices, arrays, batch statistics ({} where there are none).
      z: latents [N, Z]; with pixel norm their length does not matter; not read, and may be None, with ``start``.
      start: (name, its activation [N, side, side, C]): begin behind that layer.
      edits: functions of layers' activations whose results take their places; that of 'output' gets the finished images.
      keep: layers whose activations are wanted, after their edits.
      until: end at this layer and give its activation; nothing behind it is computed.
      level: whole halvings of progressive growing: images of R / 2^level px, of a network with outputs for smaller sides.
      fade: share of the image of half that side, doubled; None: no such image is made.
      full_size: double the images of a level up to R.
      train: batch normalisation by the batch's moments, which move the running ones.
      dtype: what convolutions and activations compute in; None: that of z or of the activation, float32 or wider. Norms, sums and
        images are never narrower than float32.

    Raises:
      ValueError: a layer that the generator lacks or that does not run, latents or activations of another shape, or another level.
    """
    edits = edits or {}
    chain = _chain(network, level, fade)
    begin, end = 0, len(chain) - 1
    if start is not None:
        begin = _place(chain, start[0]) + 1
        _check_shape(start[1], shape(network, start[0]), f"an activation {start[0]}")
    else:
        _check_shape(z, (network.latent_size,), "latents")
    if until is not None:
        end = _place(chain, until)
    behind = chain[begin : end + 1]
    if end < begin - 1:
        raise ValueError(f"until {until!r} lies before the start, {start[0]}")
    if fade is not None and begin > len(chain) - 3:
        raise ValueError(f"start {start[0]!r} lies behind {chain[-4]}, from which the smaller image of a fade is made")
    given = () if start is None else (start[0],)
    for name in (*edits, *keep):
        if name not in behind and (name in edits or name not in given):
            raise ValueError(f"no layer {name!r} runs here; those that do: {', '.join(behind) or 'none'}")
    if network.batch_norm and not set(behind) - {"output"} <= set(stats):
        raise ValueError("a generator with batch normalisation needs its batch statistics (stats)")

    x = at_least_float32(z if start is None else start[1])
    dtype = x.dtype if dtype is None else dtype
    x = x if start is None else x.astype(dtype)
    kept, moved, below = dict.fromkeys(given, x), dict(stats), x
    leaves = layout(network, growing=True)
    for name in [name for name in behind if name != "output"]:
        x, moved[name] = _layer(network, scaled(leaves[name], params[name]), stats.get(name), name, x, train, dtype)
        kept[name] = x = edits[name](x) if name in edits else x
        below = x if fade is not None and name == chain[-4] else below
    if "output" in behind:
        x = _images(network, params, x, below, level, fade, full_size)
        kept["output"] = x = edits["output"](x) if "output" in edits else x
    return Run(x, {name: kept[name] for name in keep}, {name: moved[name] for name in stats})


def _chain(network: Generator, level: int, fade: Any) -> tuple[str, ...]:
    """The layers that run at a level of detail."""
    lowest = network.layers // 2 - 1
    if not 0 <= level <= lowest or (level == lowest and fade is not None):
        raise ValueError(f"level {level} with fade {fade}: a {network.resolution} px generator goes from 0 to {lowest}, with no fade there")
    return (*names(network)[: network.layers - 2 * level], "output")


def _place(chain: Sequence[str], name: str) -> int:
    if name not in chain:
        raise ValueError(f"no layer {name!r}: there are {chain[0]} to {chain[-2]} and {chain[-1]}")
    return chain.index(name)


def _check_shape(x: Any, expected: tuple[int, ...], what: str) -> None:
    if x is None or x.shape[1:] != expected:
        raise ValueError(f"{what} of shape {None if x is None else x.shape}; this generator takes [N, {', '.join(map(str, expected))}]")


def _images(network: Generator, params: Tree, x: jax.Array, below: jax.Array, level: int, fade: Any, full_size: bool) -> jax.Array:
    images = _output(network, params, network.resolution >> level, x)
    if fade is not None:
        images = images + fade * (upsample(_output(network, params, network.resolution >> (level + 1), below)) - images)
    if network.clamp:
        images = jnp.clip(images, -1.0, 1.0)
    for _ in range(level if full_size else 0):
        images = upsample(images)
    return images


def _output(network: Generator, params: Tree, side: int, x: jax.Array) -> jax.Array:
    """Images [N, side, side, C] from the activation of that side."""
    name = "output" if side == network.resolution else f"output{side}"
    p = scaled(layout(network, growing=True)[name], params[name])
    x = at_least_float32(convolve(pixel_norm(x) if _normalised(network, "output") else x, p["kernel"]))
    return (x * p["scale"].astype(x.dtype) if "scale" in p else x) + p["bias"].astype(x.dtype)


def _normalised(network: Generator, name: str) -> bool:
    """Whether a layer begins with pixel norm."""
    where = {"layer1": (True, "ends", "latents"), "output": (True, "ends")}
    return network.pixel_norm in where.get(name, (True,))


def _layer(network: Generator, p: Mapping, running: Tree, name: str, x: jax.Array, train: bool, dtype: Any) -> tuple[jax.Array, Tree]:
    """A hidden layer on [N, h, w, I], layer1 on z [N, Z]: (what it gives, its batch statistics)."""
    if _normalised(network, name):
        x = pixel_norm(x)
    kernel = p["kernel"]
    if name == "layer1":
        # A 4x4 convolution of one pixel with 3 pixels of padding: every output pixel meets one tap, in turned order.
        x = jnp.einsum("nc,hwco->nhwo", x.astype(dtype), kernel[::-1, ::-1].astype(dtype))
    elif int(name[5:]) % 2:
        x = frozen.upsample_convolve_frozen(x, kernel) if isinstance(kernel, frozen.FrozenKernel) else upsample_convolve(x, kernel)
    else:
        x = frozen.convolve_frozen(x, kernel) if isinstance(kernel, frozen.FrozenKernel) else convolve(x, kernel)
    if network.batch_norm:
        x, running = batch_normalise(x, p["gamma"], p["beta"], running, train, epsilon=EPSILON)
    else:
        x = x * p["scale"].astype(x.dtype) if "scale" in p else x
        x = x + p["bias"].astype(x.dtype)
    return (jax.nn.relu(x) if network.activation == "relu" else leaky_relu(x)), running


def synthesise(
    network: Generator,
    params: Tree,
    stats: Tree,
    z: jax.Array | None,
    *,
    start: tuple[str, jax.Array] | None = None,
    edits: Mapping[str, Edit] | None = None,
    until: str | None = None,
    level: int = 0,
    fade: float | jax.Array | None = None,
    full_size: bool = True,
    dtype: Any = None,
) -> jax.Array:
    """Images [N, R, R, C] in [-1, 1] from latents [N, Z], or the activation ``until``; arguments and errors as ``run``."""
    options = dict(start=start, edits=edits, until=until, level=level, fade=fade, full_size=full_size, dtype=dtype)
    return run(network, params, stats, z, **options).images


def synthesise_at(network: Generator, params: Tree, stats: Tree, z: jax.Array, lod: jax.Array, *, dtype: Any = None) -> jax.Array:
    """``synthesise`` at a level of detail that is known only when it runs: [N, R, R, C]. All layers run, whatever the level.

    The image is linear in lod between whole levels, so it is the sum of all sides' images, doubled up to R, with the weights
    max(0, 1 - |lod - level|). For a network with outputs for smaller sides.
    """
    last = [f"layer{2 * (i + 1)}" for i in range(network.layers // 2)]
    kept = run(network, params, stats, z, keep=last, until=last[-1], dtype=dtype).kept
    images: Any = None
    for i, name in enumerate(last):
        share = jnp.maximum(1.0 - jnp.abs(lod - (len(last) - 1 - i)), 0.0)
        here = share * _output(network, params, 4 << i, kept[name])
        images = here if images is None else upsample(images) + here
    return jnp.clip(images, -1.0, 1.0) if network.clamp else images


def activations(
    network: Generator, params: Tree, stats: Tree, z: jax.Array, names: Sequence[str], *, dtype: Any = None
) -> dict[str, jax.Array]:
    """What the named layers give, [N, side, side, C] each; nothing behind the last one is computed. Errors as ``run``."""
    chain = _chain(network, 0, None)
    until = chain[max((_place(chain, name) for name in names), default=0)]
    return run(network, params, stats, z, keep=names, until=until, dtype=dtype).kept


def standard_z(seed: int, n: int, dim: int) -> np.ndarray:
    """The published stream of latents, float32 [n, dim]: numpy's legacy generator; latent i is the same for every n."""
    return np.random.RandomState(seed).standard_normal(n * dim).reshape(n, dim).astype(np.float32)
