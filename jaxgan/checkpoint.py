"""Checkpoints that are proved intact before anything is made of them.

A step on disk is what orbax writes (committed by a rename, in the background) with two items: ``arrays``, every leaf of the state by name,
and ``manifest``, a JSON object with the shape, dtype and checksum of every leaf, the data position of every process, and a checksum of its
own. Storage that returns wrong bytes raises no error by itself, so every leaf is summed again when it is read.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from jaxgan import files
from jaxgan.system import State

_FORMAT = 1
_PARTS = ("step", "params", "opt", "model", "ema")


class Restored(NamedTuple):
    """What a checkpoint held."""

    state: State
    position: Any
    """What the data iterator's ``set_state`` takes."""
    note: dict
    step: int


class Damaged(Exception):
    """A step that cannot be trusted; the message says which part."""


def name_leaves(state: State | Mapping[str, Any]) -> dict[str, Any]:
    """The leaves that are saved, by name ('params/G/fc/kernel', 'opt/D/0/mu/D/fc/kernel'); ``frozen`` is not among them."""
    tree = {part: state[part] if isinstance(state, Mapping) else getattr(state, part) for part in _PARTS}
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {"/".join(str(getattr(k, "key", getattr(k, "idx", getattr(k, "name", k)))) for k in path): leaf for path, leaf in flat}


def checksum(array: np.ndarray) -> str:
    """BLAKE2b of a leaf's dtype, shape and bytes."""
    array = np.ascontiguousarray(array)
    digest = hashlib.blake2b(f"{array.dtype.name}{list(array.shape)}".encode(), digest_size=16)
    digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _manifest_sum(manifest: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in manifest.items() if key != "checksum"}
    return hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=16).hexdigest()


def _everywhere(ok: bool) -> bool:
    """True where all processes say True."""
    from jaxgan import parallel

    return not parallel.agree(not ok)


def _all_positions(position: Any) -> list[Any]:
    """The data positions of all processes, in the order of the processes."""
    text = position.decode() if isinstance(position, bytes) else position
    if jax.process_count() == 1:
        return [text]
    from jax.experimental import multihost_utils

    raw = np.frombuffer(json.dumps(text).encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray(raw.size, np.int32)).reshape(-1)
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: raw.size] = raw
    rows = multihost_utils.process_allgather(padded)
    return [json.loads(bytes(np.asarray(row[:size], np.uint8))) for row, size in zip(rows, sizes, strict=True)]


def _own_position(positions: list[Any], like: Any) -> Any:
    """This process's position. Shards advance together, so positions that are equal serve another number of processes too: the run goes on
    at the same place of the same permutation, with other images in each process."""
    if len(positions) == jax.process_count():
        mine = positions[jax.process_index()]
    elif all(other == positions[0] for other in positions):
        mine = positions[0]
    else:
        raise ValueError(
            f"the checkpoint was written by {len(positions)} processes whose data positions differ; there are {jax.process_count()} now: "
            f"continue with {len(positions)}"
        )
    return mine.encode() if isinstance(like, bytes) else mine


def _first_line(error: BaseException) -> str:
    """Kind and beginning of an error; orbax's go on for pages."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text[:200]}"


def steps_in(directory: Any) -> list[int]:
    """Steps that have a folder here, ascending, intact or not."""
    directory = epath.Path(directory)
    if not directory.exists():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal())


def _read_manifest(folder: epath.Path) -> dict[str, Any]:
    import orbax.checkpoint as ocp

    try:
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            manifest = reader.restore(folder / "manifest")
        intact = manifest["checksum"] == _manifest_sum(manifest)
    except Exception as error:  # storage and parser errors of many kinds; all mean the same here
        raise Damaged(f"the manifest cannot be read: {_first_line(error)}") from error
    if not intact:
        raise Damaged("the manifest does not match its checksum")
    if manifest["format"] != _FORMAT:
        raise ValueError(f"{folder} has checkpoint format {manifest['format']}, this jaxgan reads {_FORMAT}: use the version that wrote it")
    return manifest


def _read_arrays(folder: epath.Path, leaves: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The named leaves, each compared with its checksum."""
    import orbax.checkpoint as ocp

    like = {name: np.broadcast_to(np.zeros((), jax.numpy.dtype(dtype)), shape) for name, (shape, dtype, _) in leaves.items()}
    stored = {name: zero for name, zero in like.items() if zero.size}
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            arguments = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in stored}
            found = reader.restore(folder / "arrays", args=ocp.args.PyTreeRestore(stored, restore_args=arguments, partial_restore=True))
    except Exception as error:  # as above
        raise Damaged(f"the arrays cannot be read: {_first_line(error)}") from error
    arrays = {name: np.asarray(found[name]) if name in stored else np.array(zero) for name, zero in like.items()}
    for name, (_, _, expected) in leaves.items():
        if checksum(arrays[name]) != expected:
            raise Damaged(f"leaf {name} does not match its checksum")
    return arrays


def _compare(leaves: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> None:
    """Raises where the checkpoint is of another configuration."""
    for name in sorted(leaves.keys() | wanted.keys()):
        there = f"{list(leaves[name][0])} {leaves[name][1]}" if name in leaves else "absent"
        here = f"{list(wanted[name].shape)} {wanted[name].dtype}" if name in wanted else "absent"
        if there != here:
            raise ValueError(
                f"the checkpoint {where} is of another configuration: {name} is {there} in it and {here} in this run. "
                "Continue with the configuration in its workdir's config.json, or choose a new workdir"
            )


def _settle(arrays: Mapping[str, np.ndarray], like: State, mesh: Any) -> State:
    """A state with these arrays, on the mesh where one is given; ``frozen`` is the one of ``like``."""
    from jaxgan import parallel

    tree = {part: getattr(like, part) for part in _PARTS}
    structure = jax.tree.structure(tree)
    filled = jax.tree.unflatten(structure, [arrays[name] for name in name_leaves(tree)])
    if mesh is not None:
        filled = parallel.replicate(filled, mesh)
    return State(**filled, frozen=like.frozen)


class Checkpoints:
    """The checkpoints of one run."""

    def __init__(self, directory: Any, keep: int = 3, say: Any = print):
        """Touches nothing.

        Args:
          directory: ``WORKDIR/checkpoints``; local or ``gs://``.
          keep: newest steps kept.
          say: called with a sentence where a damaged step is passed over.

        Raises:
          ValueError: keep below 1.
        """
        if keep < 1:
            raise ValueError(f"keep = {keep}: keep at least 1 checkpoint")
        self._directory, self._keep, self._say, self._manager = files.absolute(directory), keep, say, None

    def steps(self) -> list[int]:
        """Steps on disk, ascending, intact or not."""
        return steps_in(self._directory)

    def _open(self) -> Any:
        if self._manager is None:
            import orbax.checkpoint as ocp

            options = ocp.CheckpointManagerOptions(max_to_keep=self._keep, enable_async_checkpointing=True, cleanup_tmp_directories=True)
            self._manager = ocp.CheckpointManager(self._directory, options=options)
        return self._manager

    def save(self, step: int, state: State, position: Any, note: Mapping[str, Any] | None = None) -> None:
        """Copies the state to the host and writes it in the background; waits first for the save before it.

        Args:
          step: completed steps; a folder of that number must not be there.
          state: replicated over the mesh; ``frozen`` is left out.
          position: the data iterator's ``get_state()``: a JSON value or UTF-8 bytes.
          note: JSON values to keep beside it.

        Raises:
          OSError: this save or the one before it could not be written (disk full, no permission); earlier steps are intact.
        """
        import orbax.checkpoint as ocp

        # A real copy: on CPU np.asarray shares the device's buffer, which the next step is about to be given.
        arrays = {name: np.array(jax.device_get(leaf), copy=True) for name, leaf in name_leaves(state).items()}
        manifest = {
            "format": _FORMAT,
            "step": step,
            "note": dict(note or {}),
            "positions": _all_positions(position),
            "leaves": {name: [list(array.shape), array.dtype.name, checksum(array)] for name, array in arrays.items()},
        }
        manifest["checksum"] = _manifest_sum(manifest)
        items = ocp.args.Composite(
            arrays=ocp.args.StandardSave({name: array for name, array in arrays.items() if array.size}),  # orbax refuses empty arrays
            manifest=ocp.args.JsonSave(manifest),
        )
        try:
            self.wait()
            self._open().save(step, args=items, force=True)
        except Exception as error:
            raise self._failure(step, error) from error

    def _failure(self, step: int | None, error: BaseException) -> OSError:
        if isinstance(error, OSError) and "no checkpoint was written" in str(error):
            return error
        which = "a checkpoint" if step is None else f"the checkpoint of step {step}"
        intact = f"the steps {self.steps()} before it are as they were" if self.steps() else "there is no earlier one"
        return OSError(
            f"no checkpoint was written: saving {which} to {self._directory} failed ({_first_line(error)}); {intact}. "
            "Free some space and run the same command again"
        )

    def wait(self) -> None:
        """Until the save in the background is on disk.

        Raises:
          OSError: it failed; earlier steps are intact.
        """
        if self._manager is not None:
            try:
                self._manager.wait_until_finished()
                self._manager.check_for_errors()
            except Exception as error:
                raise self._failure(None, error) from error

    def close(self) -> None:
        """Waits and lets go of the threads."""
        if self._manager is not None:
            try:
                self.wait()
            finally:
                manager, self._manager = self._manager, None
                try:
                    manager.close()
                except Exception:  # said by wait already
                    pass

    def restore(self, like: State, mesh: Any = None, position_like: Any = None) -> Restored | None:
        """The newest intact step, or None where there is no step at all.

        A step that is damaged is moved to ``checkpoints_damaged/`` once an older one has proved intact, so that its number is free again.

        Args:
          like: a state (arrays or ``ShapeDtypeStruct``) of the shapes expected; its ``frozen`` is taken as it is.
          mesh: where the arrays go, whole on every device; None: they stay numpy arrays.
          position_like: bytes where the iterator's state is bytes.

        Raises:
          ValueError: the newest readable step is of another configuration, or no step is intact; nothing was changed.
        """
        wanted, damaged = name_leaves(like), []
        for step in reversed(self.steps()):
            folder, reason, arrays, manifest = self._directory / str(step), "", {}, {}
            try:
                manifest = _read_manifest(folder)
                _compare(manifest["leaves"], wanted, str(folder))
                arrays = _read_arrays(folder, manifest["leaves"])
            except Damaged as error:
                reason = str(error)
            if not _everywhere(not reason):
                damaged.append((step, reason or "another process could not read it"))
                continue
            position = _own_position(manifest["positions"], position_like)
            for bad, why in damaged:
                self._say(f"checkpoint {bad} is damaged ({why}); {self._set_aside(bad)}; going on from step {step}")
            return Restored(_settle(arrays, like, mesh), position, manifest["note"], step)
        if damaged:
            listed = "; ".join(f"step {step}: {why}" for step, why in damaged)
            raise ValueError(
                f"no checkpoint in {self._directory} is intact ({listed}): bring one back from a copy, or choose a new workdir"
            )
        return None

    def _set_aside(self, step: int) -> str:
        target = self._directory.parent / "checkpoints_damaged" / f"{step}_{int(time.time())}"
        done = f"it was moved to {target}"
        if jax.process_index() == 0:
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                (self._directory / str(step)).rename(target)
            except Exception:  # an object store that cannot rename a folder; the number must become free
                (self._directory / str(step)).rmtree()
                done = "it was removed"
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices(f"damaged_{step}")
        return done


def load_networks(directory: Any, parts: tuple[str, ...] = ("params", "model", "ema")) -> tuple[int, dict[str, np.ndarray]]:
    """Some parts of the newest intact step, as numpy arrays by leaf name; reads nothing else and changes nothing.

    Raises:
      ValueError: no step, or none that is intact.
    """
    directory, damaged = files.absolute(directory), []
    for step in reversed(steps_in(directory)):
        try:
            leaves = _read_manifest(directory / str(step))["leaves"]
            return step, _read_arrays(directory / str(step), {name: leaf for name, leaf in leaves.items() if name.split("/")[0] in parts})
        except Damaged as error:
            damaged.append(f"step {step}: {error}")
    raise ValueError(f"no intact checkpoint in {directory}" + (f" ({'; '.join(damaged)})" if damaged else ": nothing was saved there yet"))


def fill(state: State, arrays: Mapping[str, np.ndarray], parts: tuple[str, ...] = ("params", "model", "ema")) -> State:
    """The state with the arrays of these parts in place of its own. A moving average that the arrays lack begins at the parameters.

    Raises:
      ValueError: names or shapes differ; lists the first five.
    """
    names = [name for name in name_leaves(state) if name.split("/")[0] in parts]
    given = dict(arrays)
    for name in names:
        if name.startswith("ema/") and name not in given and "params/" + name[4:] in given:
            given[name] = given["params/" + name[4:]]
    leaves, problems = name_leaves(state), []
    for name in sorted(set(names) | {name for name in given if name.split("/")[0] in parts and not name.startswith("ema/")}):
        here = f"{list(leaves[name].shape)}" if name in leaves else "absent"
        there = f"{list(given[name].shape)}" if name in given else "absent"
        if here != there:
            problems.append(f"{name} is {there} there and {here} here")
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ValueError(f"the networks do not fit: {'; '.join(problems[:5])}{more}. Use the model settings of that run")
    tree = {part: getattr(state, part) for part in _PARTS}
    filled = [given[name].astype(leaf.dtype) if name in names else leaf for name, leaf in leaves.items()]
    return State(**jax.tree.unflatten(jax.tree.structure(tree), filled), frozen=state.frozen)
