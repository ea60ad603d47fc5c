"""Runs of ``jaxgan.invert`` in files: one safetensors file that is whole or absent, from which a run goes on bit by bit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.arrays import arrays_checksum, check_arrays, read_safetensors
from jaxgan.files import write_atomic
from jaxgan.invert import Run


def save(path: Any, run: Run, about: Mapping[str, str] | None = None) -> None:
    """Writes a run to one safetensors file, whole or not at all.

    Args:
      path: local or an object store.
      run: as a callback or ``invert.run`` gives it.
      about: what the run belongs to (options, digests); ``load`` compares it.

    Raises:
      OSError: it cannot be written.
    """
    from safetensors.numpy import save as serialise

    arrays = {name: np.ascontiguousarray(leaf) for name, leaf in _named(run).items()}
    arrays |= {f"history/{name}": np.ascontiguousarray(rows) for name, rows in run.history.items()}
    about = json.dumps(dict(sorted((about or {}).items())))
    metadata = {"kind": "jaxgan inversion", "step": str(run.step), "about": about, "sha256": arrays_checksum(arrays)}
    write_atomic(path, serialise(arrays, metadata))


def load(path: str | Path, template: Run, about: Mapping[str, str] | None = None) -> Run:
    """Reads a run that ``save`` wrote; it goes on bit by bit as if it had not been interrupted.

    Args:
      path: local.
      template: from ``start`` with the same variables' shapes, transformation and ``keep_best``; its numbers are not read.
      about: must be what was saved.

    Raises:
      FileNotFoundError: no such file. ValueError: it is damaged, no saved run, or of another run; says how.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: there is no saved run to go on with")
    arrays, metadata = read_safetensors(path)
    if metadata.get("kind") != "jaxgan inversion":
        raise ValueError(f"{path} is a safetensors file, but no saved run of an inversion")
    if arrays_checksum(arrays) != metadata.get("sha256"):
        raise ValueError(f"{path} is damaged: its numbers are not those that were written; remove it to begin again")
    theirs, ours = json.loads(metadata["about"]), dict(about or {})
    for name in [name for name in {**theirs, **ours} if theirs.get(name) != ours.get(name)][:1]:
        values = f"its {name} is {theirs.get(name)!r}, here it is {ours.get(name)!r}"
        raise ValueError(f"{path} belongs to another run: {values}; remove it to begin again")
    history = {name.removeprefix("history/"): arrays.pop(name) for name in list(arrays) if name.startswith("history/")}
    named = _named(template)
    check_arrays(arrays, {name: (str(leaf.dtype), leaf.shape) for name, leaf in named.items()}, path, complete=True)
    leaves = [jnp.asarray(arrays[name]) for name in named]
    restored = jax.tree.unflatten(jax.tree.structure(template._replace(step=(), history={})), leaves)
    keys = jax.random.wrap_key_data(restored.keys, impl=jax.random.key_impl(template.keys))
    return restored._replace(keys=keys, step=int(metadata["step"]), history=history)


def _named(run: Run) -> dict[str, Any]:
    """The arrays of a run by name, in tree order, its keys as numbers."""
    flat, _ = jax.tree_util.tree_flatten_with_path(run._replace(step=(), history={}, keys=jax.random.key_data(run.keys)))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}
