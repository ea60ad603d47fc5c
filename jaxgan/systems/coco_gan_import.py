"""Reads the variables of COCO-GAN's published TensorFlow checkpoints, given as arrays by TensorFlow name."""

from __future__ import annotations

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.systems.coco_gan import Config, Networks
from jaxgan.systems.coco_gan_sample import Trained

_NETWORKS = {"G_generator": "G", "D_discriminator": "D", "GD_spatial_prediction_head": "A", "Q_content_prediction_head": "Q"}
_LAYERS = {
    "g_z_fc": "input", "g_last_bn": "norm", "g_last_conv_2": "output", "main_steam_out": "output", "y_emb": "projection",
    "fc1": "hidden", "bn1": "norm", "fc2": "output", "conv_1": "conv_1", "conv_2": "conv_2", "conv_sc": "shortcut",
    "cbn_1": "cbn_1", "cbn_2": "cbn_2", "fully_connected": "gamma", "fully_connected_1": "beta",
}  # fmt: skip
_LEAVES = {
    "w": ("params", "kernel"), "b": ("params", "bias"), "weights": ("params", "kernel"), "biases": ("params", "bias"),
    "gamma": ("params", "gamma"), "beta": ("params", "beta"), "u": ("spectral", "u"),
    "mean_recorder": ("stats", "mean"), "var_recorder": ("stats", "variance"),
    "moving_mean": ("stats", "mean"), "moving_variance": ("stats", "variance"),
}  # fmt: skip
_NOT_WEIGHTS = re.compile(r"(/Adam(_\d+)?|beta[12]_power(_\d+)?|global_step|.*[Ee]poch.*|.*[Ii]teration.*)$")


def place(name: str) -> tuple[str, str, tuple[str, ...]] | None:
    """Where a TensorFlow variable lives here: (kind, network, path), kind 'params', 'spectral' or 'stats'; None for one that is no weight.

    Raises:
      ValueError: a name that is neither.
    """
    name = name.removesuffix(":0")
    scope, *middle, leaf = name.split("/") if "/" in name else (name, "")
    if _NOT_WEIGHTS.search(name):
        return None
    path = []
    for part in middle:
        block = re.fullmatch(r"[gd]_resblock_(\d+)", part)
        part = re.sub(r"^[gd]_resblock_(?=conv|cbn)", "", part)
        path.append(f"block_{block[1]}" if block else _LAYERS.get(part))
    if scope not in _NETWORKS or leaf not in _LEAVES or None in path or not path:
        raise ValueError(
            f"{name!r} is no variable of a COCO-GAN checkpoint; expected names such as 'G_generator/g_resblock_0/g_resblock_conv_1/w'"
        )
    kind, leaf = _LEAVES[leaf]
    return kind, _NETWORKS[scope], (*path, leaf)


def import_variables(config: Config, variables: Mapping[str, np.ndarray]) -> Trained:
    """Parameters and running state from checkpoint variables.

    Args:
      config: the checkpoint's sizes.
      variables: arrays by TensorFlow name (``tf.train.load_checkpoint`` lists them); optimiser slots are passed over. The content head is
        passed over where ``config`` has none.

    Raises:
      ValueError: an unknown name, a missing variable, or a shape that ``config`` does not have; all of the same kind are named.
    """
    networks = Networks(config)
    params, model = jax.eval_shape(networks.init, jax.random.key(0))
    found: dict[tuple, np.ndarray] = {}
    for name, value in variables.items():
        where = place(name)
        if where is not None and where[1] in params:
            found[where] = np.asarray(value)

    problems: list[str] = []

    def take(kind, network, path, shape):
        key = (kind, network, tuple(entry.key for entry in path))
        label = f"{network}/{'/'.join(key[2])}"
        if key not in found:
            problems.append(f"{label} is missing")
            return None
        value = found.pop(key)
        if value.shape != shape.shape:
            problems.append(f"{label} has shape {value.shape}, the config wants {shape.shape}")
        return jnp.asarray(value, jnp.float32)

    params = {n: jax.tree_util.tree_map_with_path(lambda p, s, n=n: take("params", n, p, s), tree) for n, tree in params.items()}
    model = {
        n: {kind: jax.tree_util.tree_map_with_path(lambda p, s, n=n, kind=kind: take(kind, n, p, s), tree) for kind, tree in kinds.items()}
        for n, kinds in model.items()
    }
    problems += [f"{network}/{'/'.join(path)} is not in the config's networks" for _, network, path in found]
    if problems:
        more = f" (and {len(problems) - 6} more)" if len(problems) > 6 else ""
        raise ValueError("the checkpoint does not fit the config: " + "; ".join(problems[:6]) + more)
    return Trained(params, model)
