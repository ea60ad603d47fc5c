"""A small StyleGAN with random weights, a narrow VGG-16 and LPIPS on it: what tests of embedding run on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.metrics import lpips
from jaxgan.nets import mobile_stylegan, stylegan, vgg
from jaxgan.style_generators import of_mobile_stylegan, of_stylegan
from jaxgan.systems.image2stylegan import Networks

SIDE = 8
"""A run on it compiles in seconds; LPIPS needs 16."""


def network(side: int = SIDE) -> stylegan.Generator:
    widths = stylegan.channel_widths(side, 32, maximum=8)
    return stylegan.Generator(widths=widths, latent_size=6, w_size=6, mapping_width=8, mapping_layers=2, channels=3)


def arrays(of: stylegan.Generator, seed: int = 0):
    """(params, state) of the generator; images stay near [-1, 1]."""
    rng = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: leaf.fill + jnp.asarray(rng.normal(scale=leaf.deviation or 0.3, size=leaf.shape), jnp.float32),
        stylegan.layout(of),
    )
    params["mapping"] = jax.tree.map(lambda x: x * 0.7, params["mapping"])
    top = params["synthesis"][f"rgb{of.resolution}"]
    params["synthesis"][f"rgb{of.resolution}"] = jax.tree.map(lambda x: x * 0.3, top)
    noise = {f"layer{i:02d}": jnp.asarray(rng.normal(size=(of.side(i),) * 2), jnp.float32) for i in range(of.layers)}
    return params, {"w_avg": jnp.asarray(rng.normal(size=of.w_size) * 0.1, jnp.float32), "noise": noise}


def generator(seed: int = 0, digest: str = "0" * 64, side: int = SIDE):
    return of_stylegan(network(side), *arrays(network(side), seed), digest)


def mobile(strength: float = 0.01):
    """A MobileStyleGAN of 16 px; the stored noise has about this root mean square, deeper maps less."""
    layout = mobile_stylegan.Layout(widths=(8, 8), latent_size=6, w_size=6, mapping_layers=2)
    params, noise = mobile_stylegan.init(layout, jax.random.key(1))
    noise = {name: 10 * strength / (1 + i) * array for i, (name, array) in enumerate(noise.items())}
    return of_mobile_stylegan(params, {"w_avg": jnp.zeros(6), "noise": noise}, "2" * 64)


def vgg_arrays(seed: int = 1) -> dict[str, np.ndarray]:
    """A VGG-16 of 4 to 8 channels, by this library's names."""
    rng, before, found = np.random.default_rng(seed), 3, {}
    for name in vgg.LAYERS:
        width = min(8, 2 + 2 * int(name[4]))
        found[f"{name}.kernel"] = rng.normal(scale=np.sqrt(2 / (9 * before)), size=(3, 3, before, width)).astype(np.float32)
        found[f"{name}.bias"] = rng.normal(scale=0.1, size=width).astype(np.float32)
        before = width
    return found


def networks() -> Networks:
    layers = vgg_arrays()
    rng = np.random.default_rng(2)
    linear = {f"vgg.lin{i}": rng.uniform(size=layers[f"conv{tap[4:]}.bias"].shape).astype(np.float32) for i, tap in enumerate(lpips.TAPS)}
    return Networks(vgg.params(layers), lpips.params(layers, linear), "torchvision", {"vgg": "narrow"})


def drawn(style, count: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """(codes [n, rows, W] of random latents, their images)."""
    z = jax.random.normal(jax.random.key(seed), (count, style.latent_size))
    codes = style.extend(style.map_latents(style.arrays, z))
    return np.asarray(codes), np.asarray(style.synthesise(style.arrays, codes, style.noise(style.arrays)))
