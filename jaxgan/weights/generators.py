"""Generators on disk: a folder of ``generator.json`` (family, configuration, provenance) and ``params.safetensors``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import shutil
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxgan.arrays import check_arrays, check_finite, checksum


def import_generator(family: str, path: str | Path, out: str | Path, experiment: Any = None) -> str:
    """Turns published variables of a generator into a generator on disk.

    Args:
      family: 'coco-gan': ``jaxgan.systems.coco_gan_import.import_variables(config, variables)`` gives its params and model. 'stylegan':
        ``jaxgan.systems.stylegan_import.import_file(path)`` gives (config, params, model), for such a file holds its configuration.
      path: the published file; for 'coco-gan' ``.npz``, ``.safetensors`` or what else ``jaxgan.weights.read`` reads, with the published
        variable names.
      out: the folder to make.
      experiment: its model is the configuration of the published run, where the file does not hold it.

    Returns:
      One sentence that says what was written.

    Raises:
      ValueError: no such family, no or another family's configuration, variables that do not fit; nothing is written.
      FileExistsError: the folder holds something.
    """
    import jax

    from jaxgan import configure
    from jaxgan.weights.readers import read

    module = family.replace("-", "_")
    name = f"jaxgan.systems.{module}_import"
    if not module.isidentifier() or (name not in sys.modules and importlib.util.find_spec(name) is None):
        raise ValueError(f"{family!r} is no family of generators that can be imported; {', '.join(importable())} are")
    importer = importlib.import_module(name)
    path = Path(path).expanduser()
    _check_empty(out)
    if hasattr(importer, "import_file"):
        if experiment is not None:
            raise ValueError(f"a file of the family {family} holds its configuration: leave --config out")
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist or is not a file")
        config, params, model = importer.import_file(path)
        experiment, what = configure.Experiment(model=config), f"{path}"
    else:
        if experiment is None or configure.system_name(experiment.model) != module:
            raise ValueError(f"the variables do not hold their configuration: give the config of the run, --config configs/{module}_....py")
        variables = {key: value for key, value in read(path).items() if value.dtype.kind in "fiub"}
        check_finite(variables, path)
        trained = importer.import_variables(experiment.model, variables)
        params, model, what = trained.params, trained.model, f"the {len(variables)} variables of {path}"
    flat, _ = jax.tree_util.tree_flatten_with_path({"params": params, "model": model})
    arrays = {"/".join(str(key.key) for key in keys): np.asarray(leaf) for keys, leaf in flat}
    save_generator(out, module, configure.to_json(experiment)["model"], arrays, {"file": path.name, "sha256": checksum(path)})
    return f"{out}: a {module} generator of {len(arrays)} arrays from {what}"


def importable() -> list[str]:
    """Families of generators for which ``jaxgan.systems`` has an import, as the command line names them."""
    import pkgutil

    import jaxgan.systems

    modules = (module.name for module in pkgutil.iter_modules(jaxgan.systems.__path__))
    return sorted(name.removesuffix("_import").replace("_", "-") for name in modules if name.endswith("_import"))


def save_generator(
    folder: Any, family: str, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray], provenance: Mapping[str, Any]
) -> None:
    """Writes a generator on disk: ``generator.json`` and ``params.safetensors``; whole, or not at all.

    Args:
      folder: local or ``gs://``; must not exist yet, or be empty.
      family: module below ``jaxgan.systems``.
      config: its static configuration, plain JSON values.
      arrays: numeric arrays by flat name ('params/G/fc/kernel').
      provenance: where they come from, plain JSON values.

    Raises:
      ValueError: arrays that are not numeric or not finite. FileExistsError: the folder holds something.
    """
    from safetensors.numpy import save

    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}  # ascontiguousarray would give a scalar an axis
    if not arrays:
        raise ValueError("a generator without arrays is not saved: there would be nothing to load")
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise ValueError(f"array {name!r} has dtype {array.dtype}: save float32 (or another plain numeric type)")
    check_finite(arrays, folder)
    data = save(arrays)
    about = {"family": family, "config": dict(config), "provenance": dict(provenance), "sha256": hashlib.sha256(data).hexdigest()}
    about["arrays"] = {name: [str(array.dtype), list(array.shape)] for name, array in sorted(arrays.items())}
    text = json.dumps(about, indent=1, allow_nan=False)
    folder = _check_empty(folder)
    if "://" in str(folder):
        # An object store has no rename of folders; a generator without its JSON is not one, so that comes last.
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "params.safetensors").write_bytes(data)
        (folder / "generator.json").write_text(text)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        part.mkdir()
        (part / "params.safetensors").write_bytes(data)
        (part / "generator.json").write_text(text)
        os.replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_empty(folder: Any) -> Any:
    """``epath.Path`` of a folder that is not there yet, or empty; FileExistsError for another."""
    from etils import epath

    folder = epath.Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not an empty folder: choose another, or remove it first")
    return folder


def load_generator(folder: Any) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """(family, config, arrays) of a generator on disk, after checking every array against ``generator.json``.

    Raises:
      FileNotFoundError: no such generator. ValueError: it is damaged; says how.
    """
    from etils import epath
    from safetensors import SafetensorError
    from safetensors.numpy import load as parse

    folder = epath.Path(folder)
    for name in ("generator.json", "params.safetensors"):
        if not (folder / name).exists():
            raise FileNotFoundError(f"{folder} is not a generator: it has no {name}")
    try:
        about = json.loads((folder / "generator.json").read_text())
        family, config, digest = about["family"], about["config"], about["sha256"]
        expected = {name: (dtype, tuple(shape)) for name, (dtype, shape) in about["arrays"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder / 'generator.json'} is damaged: {type(error).__name__} {error}") from error
    if not isinstance(family, str) or not isinstance(config, dict):
        raise ValueError(f"{folder / 'generator.json'} is damaged: family must be a name and config an object")
    data = (folder / "params.safetensors").read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise ValueError(f"{folder / 'params.safetensors'} is damaged or of another generator: its sha256 is not the one in generator.json")
    try:
        arrays = parse(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{folder / 'params.safetensors'} is not a safetensors file: {error}") from error
    check_arrays(arrays, expected, folder, complete=True)
    check_finite(arrays, folder)
    return family, config, arrays
