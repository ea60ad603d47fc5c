"""The published MobileStyleGAN as a generator: its arrays in this library's trees, and the mean of w, which its file does not hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxgan.arrays import check_finite
from jaxgan.nets import mobile_stylegan as nets
from jaxgan.systems.mobile_stylegan import Config
from jaxgan.weights.readers import read

MEAN_OF = 10_000
"""Latents whose mean code is the centre of truncation."""


def import_file(path: str | Path) -> tuple[Config, dict[str, Any], dict[str, Any]]:
    """(config, params {'G'}, model {'G': {'w_avg', 'noise'}}) of the published arrays in a ``.safetensors`` file.

    Raises:
      ValueError: another file, or a damaged one; says what is wrong. FileNotFoundError: no such file.
    """
    arrays = {name: array for name, array in read(path).items() if array.dtype.kind == "f"}
    check_finite(arrays, path)
    try:
        params, noise = nets.params(arrays), nets.stored_noise(arrays)
        config = configuration(params)
        _check(config, params, noise)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return config, {"G": params}, {"G": {"w_avg": mean_code(params), "noise": noise}}


def configuration(params: Mapping[str, Any]) -> Config:
    """The sizes of a generator's trees."""
    mapping, synthesis = params["mapping"], params["synthesis"]
    widths = [synthesis["conv1"]["bias"].size]
    widths += [synthesis[f"layer{i}_conv2"]["bias"].size for i in range(nets.layers_of(params))]
    latent_size, w_size = mapping["dense0"]["kernel"].shape[0], synthesis["conv1"]["modulation_kernel"].shape[0]
    return Config(tuple(widths), latent_size, w_size, len(mapping))


def mean_code(params: Mapping[str, Any]) -> np.ndarray:
    """[W]: the mean w of ``MEAN_OF`` normal latents, always the same ones (numpy's generator from seed 0)."""
    import jax

    z = np.random.default_rng(0).standard_normal((MEAN_OF, params["mapping"]["dense0"]["kernel"].shape[0]), np.float32)
    return np.asarray(jax.jit(nets.map_latents)({"mapping": params["mapping"]}, z)).astype(np.float64).mean(0).astype(np.float32)


def _check(config: Config, params: Mapping[str, Any], noise: Mapping[str, np.ndarray]) -> None:
    """ValueError that names the first array whose shape is not what the widths say."""
    import jax

    wanted = jax.eval_shape(lambda key: nets.init(config.layout(), key), jax.random.key(0))
    flat = [
        {"/".join(key.key for key in path[1:]): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (wanted, (params, noise))
    ]
    wrong = [name for name in sorted({*flat[0], *flat[1]}) if flat[0].get(name) != flat[1].get(name)]
    if wrong:
        raise ValueError(
            f"array {wrong[0]} is {flat[1].get(wrong[0], 'absent')}; widths {config.widths} need {flat[0].get(wrong[0], 'none')}"
        )
