"""Small generators of every family that is a chain, none of whose biases, statistics or noise strengths is 0."""

from __future__ import annotations

import jax
import numpy as np
import style_toy

from jaxgan.nets import mobile_stylegan, progan
from jaxgan.style_generators import StyleGenerator, of_mobile_stylegan, of_stylegan
from jaxgan.systems import coco_gan

COMPILER = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Programs compile in a third of the time."""


def style_generator(family: str) -> StyleGenerator:
    """16 pixels of StyleGAN, or 32 of MobileStyleGAN."""
    if family == "stylegan":
        return of_stylegan(*style_toy.networks(), "d")
    layout = mobile_stylegan.Layout(widths=(8, 8, 4), latent_size=6, w_size=5, mapping_layers=2)
    params, noise = mobile_stylegan.init(layout, jax.random.key(1))
    return of_mobile_stylegan(params, {"w_avg": np.arange(5, dtype=np.float32), "noise": noise}, "d")


def progressive(growing: bool = False, **changes):
    """(network, params, stats) of a progressive GAN of 16 px."""
    network = progan.Generator((6, 8, 8, 4), **changes)
    params, stats = progan.init(network, jax.random.key(0), growing)
    rng = np.random.default_rng(0)

    def moved(tree):
        return jax.tree.map(lambda a: np.asarray(a) + rng.normal(0, 0.2, a.shape).astype(np.float32), tree)

    params = moved(params)
    for layer in params.values():
        if "bias" in layer:  # away from pixels that are almost 0, where pixel norm turns a small step into a large one
            layer["bias"] = layer["bias"] + np.float32(0.5)
    return network, params, jax.tree.map(np.abs, moved(stats))


def coco(**changes):
    """(config, params of G, its model) of a COCO-GAN of 24 x 16 pixels, in patches of 8."""
    config = coco_gan.Config((24, 16), (16, 16), (8, 8), latent=6, g_width=2, d_width=2, g_extra_blocks=1, **changes)
    shapes = jax.eval_shape(coco_gan.Networks(config).init, jax.random.key(0))
    rng = np.random.default_rng(0)

    def filled(path, leaf):
        positive = path[-1].key in ("gamma", "variance")
        return (rng.uniform(0.5, 1.5, leaf.shape) if positive else rng.normal(0, 0.3, leaf.shape)).astype(np.float32)

    params, model = (jax.tree_util.tree_map_with_path(filled, tree["G"]) for tree in shapes)
    return config, params, model
