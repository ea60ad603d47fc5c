"""A StyleGAN of 16 px, small enough that drawing costs nothing, as a tuple and as a folder."""

from __future__ import annotations

import jax
import numpy as np

from jaxgan import configure
from jaxgan.nets import stylegan
from jaxgan.systems.stylegan import Config
from jaxgan.weights import save_generator

CONFIG = Config(resolution=16, fmap_base=32, fmap_max=8, latent_size=6, w_size=5, mapping_width=7, mapping_layers=2, start=8)


def networks(seed: int = 0):
    """(network, params, state) with noise strengths, biases and a mean code that are not 0."""
    network = CONFIG.generator()
    params, state = stylegan.init(network, jax.random.key(seed))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda a: a + rng.normal(0, 0.1, a.shape).astype(np.float32), params)
    return network, params, {**state, "w_avg": rng.normal(size=network.w_size).astype(np.float32)}


def write_folder(folder, seed: int = 0, lod: float = 0.0):
    """A generator folder of it."""
    _, params, state = networks(seed)
    tree = {"params": {"G": params}, "model": {"G": {**state, "lod": np.float32(lod)}}}
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    arrays = {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in flat}
    save_generator(folder, "stylegan", configure.to_json(configure.Experiment(CONFIG))["model"], arrays, {"seed": seed})
    return folder
