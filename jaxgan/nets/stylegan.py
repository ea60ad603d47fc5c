"""StyleGAN's generator (Karras et al., CVPR 2019): mapping network, style-based synthesis, truncation, style mixing, progressive output.

Static choices are a ``Generator``; trained arrays are a tree ``params = {'mapping': ..., 'synthesis': ...}``; what is neither trained
nor static is ``state = {'w_avg': [W], 'noise': {'layer00': [4, 4], ...}}``. Everything is per image: a batch may be split over devices
in any way. Style layer i belongs to the side 4 * 2^(i // 2).

Kernels are stored raw, before their run-time factor (the equalised learning rate, section 4.1 of Karras et al., ICLR 2018); ``fold``
multiplies it in once where a network is frozen. On devices that round products, ``jax.default_matmul_precision('highest')`` around a
call gives full float32.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxgan.nets import frozen
from jaxgan.nets.layers import at_least_float32, convolve, upsample, upsample_convolve
from jaxgan.nets.stylegan_layout import TABLE_1 as TABLE_1
from jaxgan.nets.stylegan_layout import Generator as Generator
from jaxgan.nets.stylegan_layout import channel_widths as channel_widths
from jaxgan.nets.stylegan_layout import initialise, mapping_layout, scaled, synthesis_layout
from jaxgan.nets.stylegan_layout import layout as layout

Tree = Any

EPSILON = 1e-8
FUSED_FROM = 128
"""Side of the larger image from which published networks resample inside the convolution."""


def init(network: Generator, key: jax.Array) -> tuple[Tree, Tree]:
    """(params, state) of a generator before training: the average w is 0, the stored noise N(0, 1)."""
    arrays, noise = jax.random.split(key)
    stored = {name: maps[0] for name, maps in draw_noise(network, noise, 1).items()}
    return initialise(arrays, layout(network)), {"w_avg": jnp.zeros((network.w_size,)), "noise": stored}


def fold(network: Generator, params: Tree) -> tuple[Generator, Tree]:
    """The same function with no factors left: a frozen network need not multiply its kernels at every step."""
    return dataclasses.replace(network, scaling="folded"), scaled(layout(network), params)


def freeze(network: Generator, params: Tree, *, minimal: bool | None = None) -> tuple[Generator, Tree]:
    """``fold``, and the 3x3 kernels made ready for gradients with respect to codes and noise alone: what embedding runs.

    ``minimal``: minimal filtering where it pays (``jaxgan.nets.frozen``); None: on a CPU. It keeps two sets of 16 / 9 of each such
    kernel in the place of one.
    """
    minimal = jax.default_backend() == "cpu" if minimal is None else minimal
    network, params = fold(network, params)
    synthesis = dict(params["synthesis"])
    for i in range(1, network.layers):
        kernel, doubling = synthesis[f"layer{i:02d}"]["kernel"], i % 2 == 0
        if doubling and _is_fused(network, i):
            kernel = kernel[::-1, ::-1]
        pays = minimal and frozen.pays(kernel, network.side(i) >> doubling)
        ready = frozen.freeze_upsample(kernel, pays) if doubling else frozen.freeze(kernel, pays)
        synthesis[f"layer{i:02d}"] = {**synthesis[f"layer{i:02d}"], "kernel": ready}
    return dataclasses.replace(network, fused=False), {**params, "synthesis": synthesis}


def _is_fused(network: Generator, layer: int) -> bool:
    return network.side(layer) >= FUSED_FROM if network.fused == "auto" else bool(network.fused)


def pixel_norm(x: jax.Array) -> jax.Array:
    """x / sqrt(mean over the last axis of x^2 + 1e-8), in float32 or wider."""
    wide = at_least_float32(x)
    return (wide * lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + EPSILON)).astype(x.dtype)


def instance_norm(x: jax.Array) -> jax.Array:
    """Every channel of every image [N, H, W, C] to mean 0 and (biased) variance 1; epsilon 1e-8; in float32 or wider."""
    wide = at_least_float32(x)
    wide = wide - wide.mean((1, 2), keepdims=True)
    return (wide * lax.rsqrt(jnp.square(wide).mean((1, 2), keepdims=True) + EPSILON)).astype(x.dtype)


def leaky_relu(x: jax.Array) -> jax.Array:
    """max(x, 0.2 x)."""
    return jax.nn.leaky_relu(x, 0.2)


@jax.custom_vjp
def blur(x: jax.Array) -> jax.Array:
    """Convolution of every channel with [1, 2, 1] x [1, 2, 1] / 16, zeros beyond the border: [N, H, W, C] -> the same shape.

    The map is its own transpose, and so its own gradient.
    """
    y = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
    y = y[:, :-2] + 2 * y[:, 1:-1] + y[:, 2:]
    y = jnp.pad(y, ((0, 0), (0, 0), (1, 1), (0, 0)))
    return (y[:, :, :-2] + 2 * y[:, :, 1:-1] + y[:, :, 2:]) * 0.0625


blur.defvjp(lambda x: (blur(x), None), lambda _, cotangent: (blur(cotangent),))


@jax.custom_vjp
def modulate(x: jax.Array, noise: jax.Array, strength: jax.Array, bias: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
    """Noise, bias, leaky ReLU, instance norm and style of a layer, with a gradient of its own: two passes over the activation.

    [N, H, W, C]; noise [N or 1, H, W, 1], strength and bias [C], scale and shift [N, 1, 1, C]:
    (scale + 1) instance_norm(leaky_relu(x + strength noise + bias)) + shift. For reverse-mode differentiation alone, as ``blur``.
    """
    return _modulate(x, noise, strength, bias, scale, shift)[0]


def _modulate(x, noise, strength, bias, scale, shift):
    active = leaky_relu(x + noise * strength + bias)
    wide = at_least_float32(active)
    first = wide[:, :1, :1]  # a sum of equal numbers may be rounded, a sum of zeros is not: a constant map is its own mean on any machine
    mean = first + (wide - first).mean((1, 2), keepdims=True)
    inverse = lax.rsqrt(jnp.square(wide - mean).mean((1, 2), keepdims=True) + EPSILON)
    styled = ((wide - mean) * (inverse * (scale + 1)) + shift).astype(x.dtype)
    return styled, (active, noise, strength, mean, inverse, scale)


def _modulate_backward(saved, cotangent):
    active, noise, strength, mean, inverse, scale = saved
    centred, slope = at_least_float32(active) - mean, at_least_float32(cotangent)
    count = active.shape[1] * active.shape[2]
    to_shift = slope.sum((1, 2), keepdims=True)
    to_scale = inverse * (slope * centred).sum((1, 2), keepdims=True)
    factor = inverse * (scale + 1)
    to_active = factor * (slope - to_shift / count) - (factor * inverse * to_scale / count) * centred
    to_x = jnp.where(active > 0, to_active, 0.2 * to_active).astype(active.dtype)
    to_noise = (to_x * strength).sum(3, keepdims=True)
    to_noise = to_noise.sum(0, keepdims=True) if noise.shape[0] == 1 else to_noise
    return to_x, to_noise, (to_x * noise).sum((0, 1, 2)), to_x.sum((0, 1, 2)), to_scale, to_shift


modulate.defvjp(_modulate, _modulate_backward)


def upscale_convolve(x: jax.Array, kernel: jax.Array, fused: bool) -> jax.Array:
    """[N, H, W, I], [3, 3, I, O] -> [N, 2H, 2W, O]. ``fused``: the meaning of the kernel, see ``Generator.fused``."""
    if isinstance(kernel, frozen.FrozenKernel):
        return frozen.upsample_convolve_frozen(x, kernel)
    return upsample_convolve(x, kernel[::-1, ::-1] if fused else kernel)


def map_latents(network: Generator, params: Tree, z: jax.Array, labels: jax.Array | None = None) -> jax.Array:
    """The mapping network: z [N, Z] and one-hot labels [N, L] (None: all 0) -> w [N, W].

    Raises:
      ValueError: a latent or label of another size.
    """
    if z.ndim != 2 or z.shape[1] != network.latent_size:
        raise ValueError(f"latents of shape {z.shape}; this generator takes [N, {network.latent_size}]")
    p = scaled(mapping_layout(network), params["mapping"])
    x = z
    if network.label_size:
        labels = jnp.zeros((z.shape[0], network.label_size), z.dtype) if labels is None else labels
        if labels.shape != (z.shape[0], network.label_size):
            raise ValueError(f"labels of shape {labels.shape}; expected {(z.shape[0], network.label_size)}")
        x = jnp.concatenate([x, labels.astype(z.dtype) @ p["label"]["kernel"]], 1)
    if network.normalise_latents:
        x = pixel_norm(x)
    for i in range(network.mapping_layers):
        x = leaky_relu(x @ p[f"dense{i}"]["kernel"] + p[f"dense{i}"]["bias"])
    return x


def extend(network: Generator, w: jax.Array) -> jax.Array:
    """W to W+: [N, W] -> [N, rows, W], every row the same."""
    return jnp.broadcast_to(w[:, None], (w.shape[0], network.rows, w.shape[1]))


def truncate(w: jax.Array, w_avg: jax.Array, psi: float | jax.Array | None = 0.7, cutoff: int | None = 8) -> jax.Array:
    """w_avg + psi (w - w_avg) in the rows below ``cutoff`` (appendix B): [N, rows, W] -> the same shape.

    ``psi`` may be negative ("anti-faces"). psi 1 or None, or a cutoff None or below 1, leave w as it is.
    """
    if psi is None or cutoff is None or cutoff <= 0 or (isinstance(psi, int | float) and psi == 1):
        return w
    near = jnp.arange(w.shape[1]) < cutoff
    return jnp.where(near[:, None], w_avg + jnp.asarray(psi, w.dtype) * (w - w_avg), w)


def mix(w: jax.Array, other: jax.Array, cutoff: int | jax.Array) -> jax.Array:
    """Rows below ``cutoff`` from ``w``, the rest from ``other``: both [N, rows, W] (section 3.1)."""
    return jnp.where((jnp.arange(w.shape[1]) < cutoff)[:, None], w, other)


def mixing_cutoff(network: Generator, key: jax.Array, probability: float = 0.9, level: int = 0) -> jax.Array:
    """The first row that style mixing takes from the second code, int32; one draw for a whole batch.

    Uniform in 1 .. n - 1 with the given probability, else n, where n is the number of layers that run at ``level``.
    """
    layers = network.layers - 2 * level
    whether, where = jax.random.split(key)
    drawn = jax.random.randint(where, (), 1, layers)
    return jnp.where(jax.random.uniform(whether) < probability, drawn, layers)


def average_codes(w_avg: jax.Array, w: jax.Array, decay: float = 0.995) -> jax.Array:
    """The moving average of w [N, W]: m + decay (w_avg - m), m the batch's mean; without gradient."""
    mean = lax.stop_gradient(w).mean(0)
    return mean + decay * (w_avg - mean)


def training_codes(
    network: Generator,
    params: Tree,
    w_avg: jax.Array,
    z: jax.Array,
    key: jax.Array,
    labels: jax.Array | None = None,
    *,
    mixing: float = 0.9,
    level: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """Codes of a training step: (w [N, rows, W] after style mixing, the moved average of w before it). No truncation."""
    w = map_latents(network, params, z, labels)
    moved = average_codes(w_avg, w)
    codes = extend(network, w)
    if mixing > 0 and network.styles:
        second, where = jax.random.split(key)
        other = map_latents(network, params, jax.random.normal(second, z.shape, z.dtype), labels)
        codes = mix(codes, extend(network, other), mixing_cutoff(network, where, mixing, level))
    return codes, moved


def draw_noise(network: Generator, key: jax.Array, n: int) -> dict[str, jax.Array]:
    """Fresh noise for n images: {'layer00': [n, 4, 4], ..., N(0, 1)}; empty for a generator without noise."""
    if not network.noise:
        return {}
    sides = [network.side(i) for i in range(network.layers)]
    drawn = jax.random.normal(key, (n, sum(side * side for side in sides)))
    maps, start = {}, 0
    for i, side in enumerate(sides):
        maps[f"layer{i:02d}"] = drawn[:, start : start + side * side].reshape(n, side, side)
        start += side * side
    return maps


def split_lod(lod: float) -> tuple[int, float | None]:
    """A level of detail as (whole halvings, share of the next lower resolution or None): 2.25 -> (2, 0.25), 3.0 -> (3, None)."""
    level = math.floor(lod)
    return level, (lod - level) or None


def _layer(
    network: Generator, p: Mapping, index: int, x: Any, w: jax.Array, noise: Mapping, dtype: Any, normalised: bool = False
) -> tuple[jax.Array | None, jax.Array]:
    """One style layer: (what its style is applied to, if ``normalised`` asks for it; the result), both [N, side, side, C]."""
    if index == 0 and network.constant:
        x = jnp.broadcast_to(p["constant"].astype(dtype), (w.shape[0], *p["constant"].shape))
    elif index == 0:
        x = (w[:, 0] @ p["kernel"]).astype(dtype).reshape(w.shape[0], 4, 4, network.widths[0])
    elif index % 2:
        kernel = p["kernel"]
        x = frozen.convolve_frozen(x, kernel) if isinstance(kernel, frozen.FrozenKernel) else convolve(x, kernel)
    else:
        x = upscale_convolve(x, p["kernel"], _is_fused(network, index))
        if network.blur:
            x = blur(x)
    style = None
    if network.styles:
        style = (w[:, index] @ p["style_kernel"] + p["style_bias"]).reshape(-1, 2, 1, 1, x.shape[-1])
        style = style.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)
    maps = noise[f"layer{index:02d}"].astype(x.dtype) if network.noise else None
    if maps is not None:
        maps = (maps if maps.ndim == 3 else maps[None])[..., None]
    if style is not None and maps is not None and network.instance_norm and not network.pixel_norm and not normalised:
        return None, modulate(x, maps, p["noise"].astype(x.dtype), p["bias"].astype(x.dtype), style[:, 0], style[:, 1])
    if maps is not None:
        x = x + maps * p["noise"].astype(x.dtype)
    x = leaky_relu(x + p["bias"].astype(x.dtype))
    if network.pixel_norm:
        x = pixel_norm(x)
    if network.instance_norm:
        x = instance_norm(x)
    if style is None:
        return x, x
    style = style.astype(x.dtype)
    return x, x * (style[:, 0] + 1) + style[:, 1]


def _check(network: Generator, w: jax.Array, level: int, fade: Any) -> None:
    if w.ndim != 3 or w.shape[1:] != (network.rows, network.w_size):
        raise ValueError(f"codes of shape {w.shape}; this generator takes [N, {network.rows}, {network.w_size}]")
    lowest = len(network.widths) - 1
    if not 0 <= level <= lowest or (level == lowest and fade is not None):
        raise ValueError(f"level {level} with fade {fade}: a {network.resolution} px generator goes from 0 to {lowest}, with no fade there")


def _rgb(p: Mapping, x: jax.Array) -> jax.Array:
    return at_least_float32(convolve(x, p["kernel"])) + p["bias"]


def synthesise(
    network: Generator,
    params: Tree,
    w: jax.Array,
    noise: Mapping[str, jax.Array],
    *,
    level: int = 0,
    fade: float | jax.Array | None = None,
    full_size: bool = True,
    start: tuple[int, jax.Array] | None = None,
    edits: Mapping[str, Callable[[jax.Array], jax.Array]] | None = None,
    dtype: Any = jnp.float32,
) -> jax.Array:
    """Images [N, R, R, 3] (about [-1, 1], not clipped) from extended codes [N, rows, W].

    Args:
      network, params: static choices and arrays.
      w: one row for each style layer; rows of layers that do not run are not read.
      noise: for every layer [side, side] (the same for all images) or [N, side, side]; {} for a generator without noise.
      level: whole halvings of progressive growing: the image is made at R / 2^level.
      fade: share of the image of half that side, doubled; None: no such image is made.
      full_size: double the result up to R; else it is [N, R / 2^level, R / 2^level, 3].
      start: (layer, its styled activation [N, side, side, C]): begin behind that layer.
      edits: {'layer03': f}: f(styled activation) takes the activation's place; of layers that run.
      dtype: what convolutions and activations compute in; norms, sums and the image stay float32.

    Raises:
      ValueError: codes of another shape, or a level or start that the generator lacks.
    """
    _check(network, w, level, fade)
    p = scaled(synthesis_layout(network), params["synthesis"])
    end = network.layers - 2 * level
    first, x = (-1, None) if start is None else (start[0], start[1].astype(dtype))
    last_before = end - 1 if fade is None else end - 3
    if not -1 <= first <= last_before:
        raise ValueError(f"start behind layer {first}: the image needs one from layer 0 to {last_before}")
    below = x if first == end - 3 else None
    for i in range(first + 1, end):
        _, x = _layer(network, p[f"layer{i:02d}"], i, x, w, noise, dtype)
        if edits and f"layer{i:02d}" in edits:
            x = edits[f"layer{i:02d}"](x)
        if i == end - 3:
            below = x
    side = network.resolution >> level
    images = _rgb(p[f"rgb{side}"], x)
    if fade is not None:
        images = images + fade * (upsample(_rgb(p[f"rgb{side // 2}"], below)) - images)
    for _ in range(level if full_size else 0):
        images = upsample(images)
    return images


def synthesise_at(
    network: Generator,
    params: Tree,
    w: jax.Array,
    noise: Mapping[str, jax.Array],
    lod: jax.Array,
    *,
    dtype: Any = jnp.float32,
) -> jax.Array:
    """``synthesise`` at a level of detail that is known only when it runs: [N, R, R, 3]. All layers run, whatever the level.

    The image is linear in lod between whole levels, so it is the sum of all sides' images, doubled up to R, with the weights
    max(0, 1 - |lod - level|).
    """
    _check(network, w, 0, None)
    p = scaled(synthesis_layout(network), params["synthesis"])
    x = images = None
    for i in range(network.layers):
        _, x = _layer(network, p[f"layer{i:02d}"], i, x, w, noise, dtype)
        if i % 2:
            share = jnp.maximum(1.0 - jnp.abs(lod - (network.layers - 1 - i) // 2), 0.0)
            here = share * _rgb(p[f"rgb{network.side(i)}"], x)
            images = here if images is None else upsample(images) + here
    return images


def activations(
    network: Generator,
    params: Tree,
    w: jax.Array,
    noise: Mapping[str, jax.Array],
    names: Sequence[str] | None = None,
    *,
    dtype: Any = jnp.float32,
) -> dict[str, jax.Array]:
    """What the layers give, by name: 'layer03' behind its style, 'layer03_normalised' before it; both [N, side, side, C].

    ``names``: which ones (None: all); nothing behind the last one is computed.

    Raises:
      ValueError: a name that the generator lacks, or codes of another shape.
    """
    _check(network, w, 0, None)
    known = [f"layer{i:02d}{suffix}" for i in range(network.layers) for suffix in ("_normalised", "")]
    names = known if names is None else list(names)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no activation {unknown[0]!r}: this generator has layer00 to {known[-1]} (or layer.._normalised)")
    p = scaled(synthesis_layout(network), params["synthesis"])
    found, x = {}, None
    for i in range(max((int(name[5:7]) for name in names), default=-1) + 1):
        found[f"layer{i:02d}_normalised"], x = _layer(network, p[f"layer{i:02d}"], i, x, w, noise, dtype, normalised=True)
        found[f"layer{i:02d}"] = x
    return {name: found[name] for name in names}


def generate(
    network: Generator,
    params: Tree,
    state: Tree,
    z: jax.Array,
    labels: jax.Array | None = None,
    *,
    psi: float | jax.Array | None = 0.7,
    cutoff: int | None = 8,
    key: jax.Array | None = None,
    level: int = 0,
    fade: float | jax.Array | None = None,
) -> jax.Array:
    """Images [N, R, R, 3] from latents [N, Z]: mapping, truncation, synthesis; the published call.

    ``key``: draw fresh noise for every image; None: the stored noise for all. psi None for what FID is measured on.
    """
    w = truncate(extend(network, map_latents(network, params, z, labels)), state["w_avg"], psi, cutoff)
    noise = state["noise"] if key is None else draw_noise(network, key, z.shape[0])
    return synthesise(network, params, w, noise, level=level, fade=fade)
