"""MobileStyleGAN's generator: mapping network, synthesis from wavelets with depthwise-separable modulated convolutions.

The architecture is that of Belousov, "MobileStyleGAN: A Lightweight Convolutional Neural Network for High-Fidelity Image Synthesis"
(2021): a small network trained to imitate a StyleGAN2. Its styles, constant input and noise are those of a style-based generator; it is
neither StyleGAN's nor StyleGAN2's synthesis network.

How this file was read. The published network is an inference graph exported for OpenVINO; every line below is an operation of that
graph, in its order, and the graph's own outputs are reproduced (see the tests). Three things the graph states otherwise:
  - Modulation factors 1 / sqrt(fan in) (the equalised learning rate of StyleGAN2's layers) are separate products in the graph and are
    multiplied into the modulation's arrays when they are read; the factors of the mapping network come folded already.
  - Noise is a constant map for each layer, already times its strength: the strengths are not in the graph. The maps stay arguments here.
  - No layer is demodulated at run time. If the training code demodulated, the factors are inside the published kernels.
The bands of a wavelet transform come interleaved in the graph (c0's three, c1's three, ...); channels are put band after band when the
arrays are read, which changes no value.

Trees: ``params = {'mapping': {'dense0': ...}, 'synthesis': {'constant', 'conv1', 'layer0_up', ...}}``; widths come from the arrays.
NHWC; kernels are HWIO.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgan.nets.layers import at_least_float32
from jaxgan.nets.mobile_stylegan_layers import convolve_small, depthwise, inverse_haar, leaky_relu, modulated_pointwise
from jaxgan.nets.mobile_stylegan_variables import params as params
from jaxgan.nets.mobile_stylegan_variables import stored_noise as stored_noise

Tree = Any

EPSILON = 1e-8
GAIN = 2.0**0.5
"""Of the mapping network's rectifiers; those of the synthesis network have none."""


class Layout(NamedTuple):
    """Sizes of a generator; the defaults are the published network's, 1024 px."""

    widths: tuple[int, ...] = (512, 512, 512, 512, 512, 256, 128, 64)
    """Channels of the constant and of its convolution, then of each layer; multiples of 4."""
    latent_size: int = 512
    w_size: int = 512
    mapping_layers: int = 8


def rows(layers: int) -> tuple[str, ...]:
    """Names of the modulated operators, shallowest first: row i of W+ is read by the i-th. Also the names of the activations."""
    between = (f"layer{i}_{part}" for i in range(layers) for part in ("up", "conv1", "conv2"))
    return ("conv1", *between, "to_img")


ROWS = rows(7)
"""Of the published network: 23."""


def layers_of(params: Tree) -> int:
    """Number of layers, each of which doubles the side; the last wavelets double it once more."""
    return sum(name.endswith("_up") for name in params["synthesis"])


def resolution_of(params: Tree) -> int:
    """Side of the images."""
    return params["synthesis"]["constant"].shape[0] << (layers_of(params) + 1)


def side_of(name: str, first: int = 4) -> int:
    """Side of an activation: of 'conv1' ``first`` (4), of 'layer0_up' twice that, ...; of 'to_img' that of the last bands."""
    return first if name == "conv1" else first << (int(name[5:].split("_")[0]) + 1)


def style(p: Mapping, w: jax.Array) -> jax.Array:
    """Factors of an operator's input channels: [N, W] -> [N, C]."""
    return w @ p["modulation_kernel"] + p["modulation_bias"]


def map_latents(params: Tree, z: jax.Array) -> jax.Array:
    """The mapping network: z [N, Z] -> w [N, W]. z is first divided by its root mean square.

    Raises:
      ValueError: latents of another size.
    """
    p = params["mapping"]
    size = p["dense0"]["kernel"].shape[0]
    if z.ndim != 2 or z.shape[1] != size:
        raise ValueError(f"latents of shape {z.shape}; this generator takes [N, {size}]")
    x = z * jax.lax.rsqrt(jnp.square(z).mean(1, keepdims=True) + EPSILON)
    for i in range(len(p)):
        x = leaky_relu(x @ p[f"dense{i}"]["kernel"] + p[f"dense{i}"]["bias"]) * jnp.asarray(GAIN, x.dtype)
    return x


def truncate(w: jax.Array, w_avg: jax.Array, psi: float | jax.Array) -> jax.Array:
    """w_avg + psi (w - w_avg), of any shape [..., W]."""
    return w_avg + jnp.asarray(psi, w.dtype) * (w - w_avg)


def extend(params: Tree, w: jax.Array) -> jax.Array:
    """W to W+: [N, W] -> [N, rows, W], every row the same."""
    return jnp.broadcast_to(w[:, None], (w.shape[0], len(rows(layers_of(params))), w.shape[1]))


def _operate(params: Tree, name: str, x: jax.Array | None, w: jax.Array, noise: Mapping[str, jax.Array]) -> jax.Array:
    """One modulated operator: the activation before it (None: the constant) and its row of codes [N, W] -> its activation."""
    p = params["synthesis"][name]
    factors = style(p, w)
    if name == "conv1":
        constant = params["synthesis"]["constant"].astype(w.dtype)
        x = convolve_small(constant * factors[:, None, None], p["kernel"])
    elif name.endswith("_up"):
        return inverse_haar(x * factors[:, None, None])
    elif name == "to_img":
        return modulated_pointwise(x, factors, p["kernel"]) + p["bias"]
    else:
        x = modulated_pointwise(depthwise(x, p["depthwise"]), factors, p["pointwise"])
    maps = noise[name].astype(x.dtype)
    maps = maps if maps.ndim == 3 else maps[None]
    return leaky_relu(x + maps[..., None] + p["bias"])


def _check(params: Tree, codes: jax.Array) -> tuple[str, ...]:
    names = rows(layers_of(params))
    size = params["synthesis"]["conv1"]["modulation_kernel"].shape[0]
    if codes.ndim != 3 or codes.shape[1:] != (len(names), size):
        raise ValueError(f"codes of shape {codes.shape}; this generator takes [N, {len(names)}, {size}]")
    return names


def synthesise(
    params: Tree,
    codes: jax.Array,
    noise: Mapping[str, jax.Array],
    *,
    start: tuple[str, jax.Array] | None = None,
    edits: Mapping[str, Callable[[jax.Array], jax.Array]] | None = None,
) -> jax.Array:
    """Images [N, R, R, 3] (about [-1, 1], not clipped) from extended codes.

    Args:
      params: arrays, from ``params`` or ``init``.
      codes: [N, rows, W], one row for each of ``rows(layers)``; with ``start`` the rows up to its layer are not read.
      noise: for 'conv1' and each 'layer.._conv.' [side, side] (the same for all images) or [N, side, side]; added as it is.
      start: (name, its activation [N, side, side, C]): begin behind that operator.
      edits: {name: f}: f(activation) takes the activation's place; of operators that run.

    Raises:
      ValueError: codes of another shape, or a start that the generator lacks.
    """
    names = _check(params, codes)
    first, x = (None, None) if start is None else start
    if first is not None and first not in names:
        raise ValueError(f"no activation {first!r} to start behind: this generator has {', '.join(names)}")
    for i in range(0 if first is None else names.index(first) + 1, len(names)):
        x = _operate(params, names[i], x, codes[:, i], noise)
        if edits and names[i] in edits:
            x = edits[names[i]](x)
    return inverse_haar(at_least_float32(x))


def activations(params: Tree, codes: jax.Array, noise: Mapping[str, jax.Array], names: Sequence[str] | None = None) -> dict[str, jax.Array]:
    """What the operators give, by name [N, side, side, C]; 'to_img' is the twelve bands of the image.

    ``names``: which ones (None: all); nothing behind the last one is computed. Channels that go into wavelets are band after band.

    Raises:
      ValueError: a name that the generator lacks, or codes of another shape.
    """
    known = _check(params, codes)
    names = known if names is None else tuple(names)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no activation {unknown[0]!r}: this generator has {', '.join(known)}")
    found, x = {}, None
    for i in range(max((known.index(name) for name in names), default=-1) + 1):
        x = _operate(params, known[i], x, codes[:, i], noise)
        found[known[i]] = x
    return {name: found[name] for name in names}


def init(layout: Layout, key: jax.Array) -> tuple[Tree, dict[str, jax.Array]]:
    """(params, noise) of random numbers in which every activation is of order 1: a network of these sizes that was never trained.

    Raises:
      ValueError: a width that is no multiple of 4.
    """
    if bad := [width for width in layout.widths if width % 4]:
        raise ValueError(f"widths {layout.widths}: {bad[0]} is no multiple of 4, the number of wavelet bands")
    keys = iter(jax.random.split(key, 8 * len(layout.widths) + layout.mapping_layers + 8))

    def normal(*shape: int, fan: int = 1) -> jax.Array:
        return jax.random.normal(next(keys), shape) * jnp.float32(fan**-0.5)

    def operator(inputs: int, **arrays: jax.Array) -> dict[str, jax.Array]:
        kernel = normal(layout.w_size, inputs, fan=16 * layout.w_size)
        return {"modulation_kernel": kernel, "modulation_bias": jnp.ones((inputs,)), **arrays}

    def separable(inputs: int, outputs: int) -> dict[str, jax.Array]:
        taps, points = normal(3, 3, inputs, 1, fan=9), normal(1, 1, inputs, outputs, fan=inputs)
        return operator(inputs, depthwise=taps, pointwise=points, bias=jnp.zeros((outputs,)))

    sizes = (layout.latent_size, *[layout.w_size] * layout.mapping_layers)
    mapping = {
        f"dense{i}": {"kernel": normal(sizes[i], sizes[i + 1], fan=sizes[i]), "bias": jnp.zeros((sizes[i + 1],))}
        for i in range(layout.mapping_layers)
    }
    first = layout.widths[0]
    synthesis: dict[str, Any] = {"constant": normal(4, 4, first)}
    synthesis["conv1"] = operator(first, kernel=normal(3, 3, first, first, fan=9 * first), bias=jnp.zeros((first,)))
    for i, (before, width) in enumerate(zip(layout.widths, layout.widths[1:], strict=False)):
        synthesis[f"layer{i}_up"] = operator(before)
        synthesis[f"layer{i}_conv1"] = separable(before // 4, width)
        synthesis[f"layer{i}_conv2"] = separable(width, width)
    last = layout.widths[-1]
    synthesis["to_img"] = operator(last, kernel=normal(1, 1, last, 12, fan=last), bias=jnp.zeros((12,)))
    noisy = [name for name in synthesis if "conv" in name]
    noise = {name: jnp.float32(0.1) * normal(side_of(name), side_of(name)) for name in noisy}
    return {"mapping": mapping, "synthesis": synthesis}, noise
