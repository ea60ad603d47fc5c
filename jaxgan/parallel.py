"""Several processes and several devices: start-up, the mesh, and where each sample lives.

Every array of a run is a global array on one mesh with the axes ``('data', 'patch')``. Samples lie over ``data``; where the batch is too
small for all devices, the patches of one sample lie over ``patch``. Sums over the batch (batch statistics, gradients, moments) are then
right on any number of devices by construction, and one device is the mesh (1, 1).
"""

from __future__ import annotations

import glob
import importlib.util
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "patch")
"""Mesh axes, outermost first."""

_VARIABLES = ("JAXGAN_COORDINATOR", "JAXGAN_PROCESSES", "JAXGAN_PROCESS_ID")


def cluster() -> tuple[str, str]:
    """Which kind of cluster this process was started in, and the evidence; touches no device and no network.

    Returns:
      (kind, why): kind is 'variables' (the user's ``JAXGAN_COORDINATOR``, ``JAXGAN_PROCESSES``, ``JAXGAN_PROCESS_ID``), 'slurm', 'ompi',
      'tpu', or '' for a single process.

    Raises:
      ValueError: some but not all of the three variables are set, or their values are out of range.
    """
    given = {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)}
    if given:
        missing = [name for name in _VARIABLES if name not in given]
        if missing:
            raise ValueError(f"{', '.join(given)} is set but {', '.join(missing)} is not: set all three, or none for a single process")
        coordinator, count, index = (given[name] for name in _VARIABLES)
        if ":" not in coordinator:
            raise ValueError(f"JAXGAN_COORDINATOR={coordinator!r} has no port: give the address of process 0 as HOST:PORT")
        if not (count.isdecimal() and index.isdecimal() and 0 <= int(index) < int(count)):
            raise ValueError(f"JAXGAN_PROCESS_ID={index!r} must be a number from 0 to JAXGAN_PROCESSES={count!r} minus 1")
        return "variables", f"JAXGAN_COORDINATOR={coordinator}, process {index} of {count}"
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "")
    if tasks.isdecimal() and int(tasks) > 1:
        return "slurm", f"srun started {tasks} tasks, this is task {os.environ.get('SLURM_PROCID', '?')}"
    tasks = os.environ.get("OMPI_COMM_WORLD_SIZE", "")
    if tasks.isdecimal() and int(tasks) > 1:
        return "ompi", f"mpirun started {tasks} processes, this is rank {os.environ.get('OMPI_COMM_WORLD_RANK', '?')}"
    platforms = os.environ.get("JAX_PLATFORMS") or jax.config.jax_platforms or "tpu"
    chips = glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*")
    if chips and "tpu" in platforms and importlib.util.find_spec("libtpu") is not None and "TPU_SKIP_MDS_QUERY" not in os.environ:
        return "tpu", f"{len(chips)} TPU chips in /dev and libtpu installed; the other hosts of the slice come from its metadata"
    tasks = os.environ.get("SLURM_NTASKS", "")
    if tasks.isdecimal() and int(tasks) > 1:
        return "", f"an allocation of {tasks} SLURM tasks, but srun did not start this process: start it with `srun` to use all of them"
    return "", "no JAXGAN_COORDINATOR, no srun or mpirun with several tasks, no TPU slice"


def start() -> str:
    """Joins the other processes of this run where a cluster is detected; call it before anything touches a device.

    Does nothing in a single process, and nothing the second time.

    Returns:
      One sentence that says what was decided and why.

    Raises:
      ValueError: as ``cluster``. RuntimeError: the processes did not find each other.
    """
    kind, why = cluster()
    if not kind:
        return f"One process: {why}."
    if not jax.distributed.is_initialized():
        if kind == "variables":
            coordinator, count, index = (os.environ[name] for name in _VARIABLES)
            arguments: dict[str, Any] = {"coordinator_address": coordinator, "num_processes": int(count), "process_id": int(index)}
        elif kind in ("slurm", "ompi"):
            arguments = {"cluster_detection_method": {"slurm": "slurm", "ompi": "ompi"}[kind]}
        else:
            arguments = {}
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        try:
            jax.distributed.initialize(**arguments)
        except Exception as error:
            raise RuntimeError(
                f"the processes of this run did not find each other ({why}): {error}. Check that all of them were started and that the "
                "coordinator's port is free and open between the hosts"
            ) from error
    return f"Process {jax.process_index()} of {jax.process_count()}, jax.distributed started: {why}."


def is_main() -> bool:
    """True in the one process that writes logs and images."""
    return jax.process_index() == 0


def make_mesh(shape: Sequence[int] = (0, 1), devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh of a run.

    Args:
      shape: devices along ('data', 'patch'); one of them may be 0: all that are left.
      devices: default all devices of all processes.

    Returns:
      A mesh with automatic axes. Devices are in the order of (process, id), so that each process holds a block of consecutive samples and
      the devices that share a sample are neighbours.

    Raises:
      ValueError: the shape does not use all devices, or the patches of a sample would lie in two processes.
    """
    available = sorted(jax.devices() if devices is None else devices, key=lambda device: (device.process_index, device.id))
    total = len(available)
    if len(shape) != 2 or any(size < 0 for size in shape) or tuple(shape) == (0, 0):
        raise ValueError(f"mesh {tuple(shape)} must be two numbers, devices along (data, patch), of which one may be 0 (all that are left)")
    known = math.prod(size for size in shape if size)
    if total % known or (0 not in shape and known != total):
        fits = ", ".join(f"({total // patch}, {patch})" for patch in (1, 2, 4, 8) if total % patch == 0)
        raise ValueError(f"mesh {tuple(shape)} does not use the {total} devices present; use one of {fits}, or 0 for all that are left")
    data, patch = (size or total // known for size in shape)
    grid = np.empty((data, patch), dtype=object)
    grid.reshape(-1)[:] = available
    for row in grid:
        if len({device.process_index for device in row}) > 1:
            local = sum(device.process_index == row[0].process_index for device in available)
            raise ValueError(
                f"mesh {(data, patch)} would split one sample over two processes, each with {local} devices: choose a size of `patch` "
                f"that divides {local}"
            )
    return Mesh(grid, AXES, axis_types=(AxisType.Auto, AxisType.Auto))


def check_batch(batch: int, mesh: Mesh) -> None:
    """Refuses a global batch that does not divide over the mesh.

    Raises:
      ValueError: with both numbers and the nearest batches that fit.
    """
    rows = mesh.shape["data"]
    if batch < 1 or batch % rows:
        below, above = batch // rows * rows, (batch // rows + 1) * rows
        near = f"{below} or {above}" if below > 0 else f"{above}"
        raise ValueError(
            f"batch {batch} does not divide over the {rows} devices along `data` of mesh {tuple(mesh.shape.values())}: use {near}, "
            "or a mesh with fewer devices along `data` and more along `patch`"
        )


def sample_axes(batch: int, mesh: Mesh) -> tuple[str, ...]:
    """Mesh axes over which the samples of a batch lie: both where the batch divides over all devices, else 'data' alone."""
    check_batch(batch, mesh)
    return AXES if batch % mesh.size == 0 else ("data",)


def batch_sharding(batch: int, mesh: Mesh) -> NamedSharding:
    """Sharding of every array of a batch: its first axis over ``sample_axes``."""
    return NamedSharding(mesh, PartitionSpec(sample_axes(batch, mesh)))


def replicate(tree: Any, mesh: Mesh) -> Any:
    """The tree with every leaf whole on every device; all processes must pass equal values."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def global_batch(local: Mapping[str, np.ndarray], mesh: Mesh, batch: int) -> dict[str, jax.Array]:
    """Global arrays from each process's share of a batch.

    Args:
      local: arrays ``[batch // processes, ...]`` by name, this process's samples.
      mesh: of the run.
      batch: global number of samples.

    Returns:
      Arrays ``[batch, ...]`` by name, split over ``sample_axes``.

    Raises:
      ValueError: the batch does not fit the mesh, or an array has another number of samples.
    """
    sharding = batch_sharding(batch, mesh)
    share = batch // jax.process_count()
    for name, array in local.items():
        if array.ndim < 1 or array.shape[0] != share:
            raise ValueError(f"batch entry {name!r} has shape {array.shape}: {share} samples are one process's share of a batch of {batch}")
    build = jax.make_array_from_process_local_data
    return {name: build(sharding, np.asarray(array), (batch, *array.shape[1:])) for name, array in local.items()}


def constrain(x: jax.Array, *axes: str) -> jax.Array:
    """Says over which mesh axes the first axis of an array lies; the other axes are whole.

    For use inside ``jit`` under ``jax.set_mesh(mesh)``. Where the first axis does not divide over all the named axes, the longest run of
    them from the left over which it does is used. Returns ``x`` unchanged where no mesh is set, the mesh lacks the axes, they have one
    device, or they are manual (``shard_map``, ``pmap``): there each device already holds its own part.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or any(axis not in mesh.axis_names for axis in axes):
        return x
    if any(mesh.axis_types[mesh.axis_names.index(axis)] == AxisType.Manual for axis in axes):
        return x
    while axes and x.shape[0] % math.prod(mesh.shape[axis] for axis in axes):
        axes = axes[:-1]
    if math.prod(mesh.shape[axis] for axis in axes) == 1:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes))


def agree(flag: bool) -> bool:
    """True in every process where any process says True; all of them must call it, at the same step."""
    if jax.process_count() == 1:
        return bool(flag)
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag, np.int32))))
