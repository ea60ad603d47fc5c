"""Published generators of progressive GANs: the file's arrays as a generator on disk, sizes and switches read from them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from jaxgan.arrays import check_finite
from jaxgan.systems.progan import Config
from jaxgan.weights.progan_files import PixelNorm, ProganArrays, convert
from jaxgan.weights.readers import read

_NAMES: dict[str, PixelNorm] = {"equalized-learning-rate": "ends", "pixelwise-normalization": True}
"""Where pixel norm stands in the ablated networks with learned scales, which only the names of their files tell."""


def import_file(path: str | Path) -> tuple[Config, dict[str, Any], dict[str, Any]]:
    """(config, params {'G'}, model {'G': {'stats', 'lod'}}) of a generator in a PyTorch state dict or in TensorFlow's variables.

    Raises:
      ValueError: another file, or a damaged one; says what is wrong. FileNotFoundError: no such file.
    """
    path = Path(path).expanduser()
    arrays = {name: array for name, array in read(path).items() if array.dtype.kind in "fiu"}
    check_finite(arrays, path)
    name = path.name.lower().replace("_", "-")
    try:
        found = convert(arrays, next((where for part, where in _NAMES.items() if part in name), None))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return configuration(found), {"G": found.params}, {"G": {"stats": found.stats, "lod": np.float32(0)}}


def configuration(found: ProganArrays) -> Config:
    """The configuration of a generator that was read; training fields keep their defaults, and it does not grow."""
    fields = {field.name: getattr(found.network, field.name) for field in dataclasses.fields(found.network)}
    return Config(**fields, start=found.network.resolution)
