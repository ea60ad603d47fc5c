"""Runs of ``jaxgan.invert`` in files: one safetensors file that is whole or absent, from which a run goes on bit by bit.

``search`` is a run that keeps itself in such a file while it goes, and that can be told to stop.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import invert
from jaxgan.arrays import arrays_checksum, check_arrays, read_safetensors
from jaxgan.files import write_atomic
from jaxgan.invert import Run


class Interrupted(Exception):
    """A search was told to stop; what it had is saved where a file was given."""


def search(
    run: Run,
    loss: invert.Loss,
    tx: Any,
    frozen: Any,
    targets: Any,
    *,
    steps: int,
    path: Path | None = None,
    about: Mapping[str, str] | None = None,
    watch: Callable[[Run], bool] | None = None,
    save_seconds: float = 60.0,
    **options: Any,
) -> Run:
    """``invert.run`` from where it was saved, or from `run`.

    Args:
      run: from ``invert.start``; the template of what is in the file.
      loss, tx, frozen, targets, steps: as for ``invert.run``; so are `options` (chunk, stop, after, mesh, one_by_one).
      path: a file for the state; what is there is gone on with, where it is of the same search. None: nothing is read or written.
      about: what the search belongs to, as for ``save``.
      watch: ``watch(run)`` after every chunk of steps and at the end; true interrupts.
      save_seconds: between two states in the file; one more is written when `watch` interrupts, and one at the end.

    Raises:
      Interrupted: `watch` said so. ValueError: as ``load`` and ``invert.run``.
    """
    if path is not None and path.exists():
        run = load(path, run, about)
    asked, written = [False], [time.monotonic()]

    def look(now: Run) -> bool:
        asked[0] = watch is not None and bool(watch(now))
        if path is not None and (asked[0] or now.step == steps or time.monotonic() - written[0] >= save_seconds):
            save(path, now, about)
            written[0] = time.monotonic()
        return asked[0]

    begun = run.step
    run = invert.run(run, loss, tx, frozen, targets, steps=steps, callback=look, **options)
    if asked[0]:
        raise Interrupted(f"stopped after {run.step} of {steps} steps")
    if run.step > begun:
        look(run)
    return run


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
