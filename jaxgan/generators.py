"""A trained generator, wherever it is: the workdir of a run, or a generator folder (generator.json and params.safetensors)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxgan import configure


class Generator(NamedTuple):
    """What a family's own functions need to make images."""

    family: str
    """The module below `jaxgan.systems`."""
    config: Any
    """That module's Config."""
    arrays: dict[str, np.ndarray]
    """By flat name: 'params/G/output/kernel', 'model/G/stats/norm/mean', 'ema/G/output/kernel'."""
    step: int | None
    """Step of the checkpoint; None for a generator folder."""


def open_generator(path: Any) -> Generator:
    """Reads the newest intact checkpoint of a workdir, or a generator folder; local or gs://.

    Raises:
      FileNotFoundError: neither of the two is there. ValueError: it is damaged, or of a system that is not installed.
    """
    from etils import epath

    folder = epath.Path(path)
    if (folder / "generator.json").exists():
        from jaxgan.weights import load_generator

        family, config, arrays = load_generator(folder)
        return Generator(family, configure.model_from_json(family, config), arrays, None)
    if (folder / "config.json").exists():
        from jaxgan.checkpoint import load_networks

        experiment = configure.read(folder / "config.json")
        step, arrays = load_networks(folder / "checkpoints")
        return Generator(configure.system_name(experiment.model), experiment.model, arrays, step)
    what = "does not exist" if not folder.exists() else "is neither a workdir (config.json) nor a generator folder (generator.json)"
    raise FileNotFoundError(f"{folder} {what}")


def nested(arrays: dict[str, np.ndarray], part: str) -> dict[str, Any]:
    """The arrays of one part ('params', 'model', 'ema') as a tree of dicts."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        first, *path, leaf = name.split("/")
        if first == part:
            branch = tree
            for key in path:
                branch = branch.setdefault(key, {})
            branch[leaf] = array
    return tree
