"""What is on this machine, and does this experiment fit that topology.

The training step is the one that ``jaxgan.train`` runs, compiled on shapes alone: no array of the run is made. A TPU topology is compiled
for ahead of time by libtpu, with no TPU present; that settles layout, memory and what crosses between chips, not speed or numerics.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from jaxgan import collectives, configure, parallel

HBM = {"TPU v4": 15.25, "TPU v5 lite": 15.75, "TPU v5": 95.74, "TPU v6 lite": 31.25}
"""GiB that a program may use on one device (v4: one of a chip's two cores), as libtpu 0.0.42 states when a program needs more."""

TOPOLOGIES = "v4:2x2x4, v5e:2x2, v5e:4x4, v5e:16x16, v5p:2x2x4, v6e:4x4"

EXTRAS = {
    "tpu": ("libtpu", "TPUs, and compiling for them"),
    "cuda": ("jax_cuda13_plugin", "NVIDIA GPUs"),
    "tfds": ("tensorflow", "preparing catalogue data sets"),
    "log": ("tensorboardX", "TensorBoard files"),
    "export": ("onnxruntime", "exporting networks"),
    "test": ("pytest", "the tests"),
}
"""Extra: (module that it brings, what it is for)."""

FASTER = "JAX_EXEC_TIME_OPTIMIZATION_EFFORT=-1 is several times faster, and may overstate the memory"

_PACKAGES = "jaxgan jax jaxlib flax optax orbax-checkpoint grain tensorflow-datasets numpy libtpu".split()

# libtpu asks the metadata server of a TPU host for these unless they are given; the topology is named separately.
_TPU_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def doctor(
    experiment: configure.Experiment | None = None,
    *,
    topology: str = "",
    platform: str = "",
    batch: int = 0,
    per_chip: int = 0,
    mesh: tuple[int, int] | None = None,
) -> str:
    """The report of ``jaxgan doctor``.

    Args:
      experiment: None reports on this machine; else its training step is compiled.
      topology: TPU slice to compile for ahead of time, such as 'v5e:4x4'; empty: the devices that are here.
      platform: 'cuda', 'rocm', 'tpu' or 'cpu': lower for this platform only, without compiling.
      batch: global batch in place of the experiment's.
      per_chip: samples per device in place of the experiment's batch. Without either, the batch of every stage is checked.
      mesh: devices along ('data', 'patch') in place of the experiment's.

    Raises:
      ValueError: contradicting arguments, an unknown topology, a batch that does not fit the mesh, libtpu missing.
    """
    if experiment is None:
        return machine()
    if platform and topology:
        raise ValueError("give --platform (lowering only) or --topology (compiles for TPU), not both")
    if platform:
        return lower_for(experiment, platform, batch=batch, per_chip=per_chip, mesh=mesh)
    if topology and importlib.util.find_spec("libtpu"):
        print(f"Compiling for {topology}; minutes on a small machine. {FASTER}.", file=sys.stderr, flush=True)
    return render(measure(experiment, topology=topology, batch=batch, per_chip=per_chip, mesh=mesh))


def machine() -> str:
    """Facts about this machine; starts no cluster."""
    from importlib import metadata

    versions = []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} absent")
    kind, why = parallel.cluster()
    if kind:
        devices = ["not asked: the other processes of this cluster would have to answer too"]
    else:
        devices = [f"{d.platform} {d.id}: {d.device_kind}{_memory_of(d)}" for d in jax.local_devices()]
    data = os.environ.get("JAXGAN_DATA") or "~/.cache/jaxgan/data"
    weights = os.environ.get("JAXGAN_WEIGHTS") or "~/.cache/jaxgan/weights"
    lines = [
        f"python      {sys.version.split()[0]}, {os.cpu_count()} processors",
        *(f"{'packages' if not i else '':11} {', '.join(versions[i : i + 4])}" for i in range(0, len(versions), 4)),
        *(f"{'devices' if not i else '':11} {device}" for i, device in enumerate(devices)),
        f"cluster     {kind or 'none'}: {why}",
        f"cache       {jax.config.jax_compilation_cache_dir or 'none: set JAX_COMPILATION_CACHE_DIR to keep compiled programs'}",
        f"data        {_folder(data)}",
        f"weights     {_folder(weights)}",
    ]
    for index, (extra, (module, use)) in enumerate(EXTRAS.items()):
        state = "present" if importlib.util.find_spec(module) else f"absent; pip install 'jaxgan[{extra}]'"
        lines.append(f"{'extras' if not index else '':11} {extra} ({use}): {state}")
    return "\n".join(lines)


def measure(
    experiment: configure.Experiment, *, topology: str = "", batch: int = 0, per_chip: int = 0, mesh: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Compiles the training step and returns what ``render`` prints, as plain JSON values. Arguments and errors as ``doctor``."""
    if batch and per_chip:
        raise ValueError(f"give --batch ({batch}) or --per-chip ({per_chip}), not both")
    if not topology:
        return _compile(experiment, jax.devices(), batch, per_chip, mesh)
    if not re.fullmatch(r"v\d+[a-z]*:\d+x\d+(x\d+)?", topology):
        raise ValueError(f"topology {topology!r} is not of the form KIND:AxB or KIND:AxBxC; for instance {TOPOLOGIES}")
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError("compiling for a TPU needs libtpu (500 MB; no TPU has to be present): pip install 'jaxgan[tpu]'")
    # libtpu reads its environment once, takes hold of signals, and aborts the process on some errors.
    request = {"experiment": configure.to_json(experiment), "topology": topology, "batch": batch, "per_chip": per_chip, "mesh": mesh}
    with tempfile.TemporaryDirectory(prefix="jaxgan-doctor-") as folder:
        question, answer = Path(folder, "question.json"), Path(folder, "answer.json")
        question.write_text(json.dumps(request))
        command = [sys.executable, "-m", "jaxgan.doctor", str(question), str(answer)]
        environment = {**os.environ, **_TPU_ENVIRONMENT, "TPU_LOG_DIR": "disabled", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        result = json.loads(answer.read_text()) if answer.exists() else {"error": f"the compiler ended with status {done.returncode}"}
    if "error" in result:
        tail = "" if _said(result) else "\n" + "\n".join(done.stderr.splitlines()[-8:])
        raise ValueError(f"{result['error']}{tail}")
    return {"topology": topology, **result}


def _said(result: dict[str, Any]) -> bool:
    """True where the error was raised as a ValueError, whose text says all there is to say."""
    return result.get("kind") == "ValueError"


def shapes(system: Any, seed: int, batch: int, mesh: jax.sharding.Mesh) -> tuple[Any, dict[str, Any]]:
    """(state, batch) of a training step as ``jax.ShapeDtypeStruct`` with the shardings of a run."""
    from jaxgan import train

    def placed(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    whole, split = NamedSharding(mesh, PartitionSpec()), parallel.batch_sharding(batch, mesh)
    state = jax.tree.map(lambda leaf: placed(leaf, whole), jax.eval_shape(lambda: train.init_state(system, seed)))
    return state, {name: placed(leaf, split) for name, leaf in train.batch_shapes(system, batch).items()}


def _lower(
    experiment: configure.Experiment, devices: Any, batch: int, per_chip: int, mesh: Any, **options: Any
) -> tuple[Any, Any, int, Any, str]:
    """(lowered step, mesh, batch, state, name of the stage: the last that the run enters, '' for a run in one part)."""
    from jaxgan import stages, train

    grid = parallel.make_mesh(mesh or experiment.run.mesh, devices)
    system, given = experiment.model.system(), batch or per_chip * grid.size
    plan = stages.Plan(system, experiment.run, None if given else grid)
    stage, system = plan.stages[plan.last], plan.system(plan.last)
    batch = given or stage.batch
    parallel.check_batch(batch, grid)
    system.check(batch)
    with jax.set_mesh(grid):
        state, spec = shapes(system, experiment.run.seed, batch, grid)
        step = jax.jit(
            train.step_function(system, experiment.run.seed), donate_argnums=0, out_shardings=NamedSharding(grid, PartitionSpec())
        )
        lowered = step.trace(state, spec).lower(**options)
    return lowered, grid, batch, state, stage.name


def _compile(experiment: configure.Experiment, devices: Any, batch: int, per_chip: int, mesh: Any) -> dict[str, Any]:
    begin = time.perf_counter()
    lowered, grid, batch, state, stage = _lower(experiment, devices, batch, per_chip, mesh)
    lowering = time.perf_counter() - begin
    device = grid.devices.flat[0]
    result: dict[str, Any] = {
        "system": type(experiment.model).__module__.rpartition(".")[2],
        "device_kind": device.device_kind,
        "devices": grid.size,
        "mesh": [grid.shape["data"], grid.shape["patch"]],
        "batch": batch,
        "stage": stage,
        "sample_axes": list(parallel.sample_axes(batch, grid)),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "hbm_gib": _hbm(device),
        "versions": _versions(),
        "effort": jax.config.jax_exec_time_optimization_effort,
        "lower_seconds": round(lowering, 1),
    }
    begin = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        needed = oversize(str(error))
        if needed is None:
            raise
        seconds = round(time.perf_counter() - begin, 1)
        return {**result, "fits": False, "memory": {"total": int(needed[0] * 2**30)}, "hbm_gib": needed[1], "compile_seconds": seconds}
    result["compile_seconds"] = round(time.perf_counter() - begin, 1)
    memory = compiled.memory_analysis()
    parts = {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "program": memory.generated_code_size_in_bytes,
    }
    parts["total"] = sum(parts.values())
    cost = compiled.cost_analysis() or {}
    found = collectives.read(compiled.as_text())
    known = {tuple(leaf.shape) for leaf in jax.tree.leaves(state.params)}
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for one in found:
        entry = groups[collectives.purpose(one, known), one.kind, one.origin]
        entry[0] += one.times
        entry[1] += one.bytes
    purposes: dict[str, list[int]] = {}
    for (use, _, _), (count, size) in groups.items():
        entry = purposes.setdefault(use, [0, 0])
        entry[0] += count
        entry[1] += size
    return {
        **result,
        "fits": None if result["hbm_gib"] is None else parts["total"] <= result["hbm_gib"] * 2**30,
        "memory": parts,
        "flops": float(cost.get("flops", 0.0)),
        "collectives": {kind: list(total) for kind, total in collectives.totals(found).items()},
        "purposes": purposes,
        "origins": [[*key, *value] for key, value in sorted(groups.items(), key=lambda item: -item[1][1])],
    }


def oversize(message: str) -> tuple[float, float] | None:
    """(GiB needed, GiB there are) of a compiler's message that a program does not fit; None for any other message."""
    if "RESOURCE_EXHAUSTED" not in message and "Ran out of memory" not in message:
        return None
    needed = re.search(r"(?:Used|required for [\w ]+?\(|[Pp]rogram hbm requirement)\s*([\d.]+)([KMGT])", message)
    there = re.search(r"(?:of|available HBM \()\s*([\d.]+)([KMGT])i?(?:B)?\)?(?: hbm)?", message)
    if not needed or not there:
        return None
    scale = {"K": 2**-20, "M": 2**-10, "G": 1.0, "T": 2**10}
    return float(needed.group(1)) * scale[needed.group(2)], float(there.group(1)) * scale[there.group(2)]


def render(result: dict[str, Any]) -> str:
    """The report of ``measure`` for people."""
    where = result.get("topology") or "the devices of this machine"
    data, patch = result["mesh"]
    per_chip = result["batch"] / result["devices"]
    lines = [
        f"{result['system']}, {result['parameters'] / 1e6:.1f} M parameters, on {where} ({result['devices']} x {result['device_kind']})",
        f"batch       {result['batch']}, {per_chip:g} samples per device; mesh (data {data}, patch {patch}), samples over "
        + " and ".join(result["sample_axes"]),
    ]
    if result.get("stage"):
        lines.append(f"stage       {result['stage']}, whose figures these are")
    memory, limit = result["memory"], result["hbm_gib"]
    verdict = {True: "fits", False: "DOES NOT FIT", None: "limit not known"}[result["fits"]]
    there = f" of {limit:.2f} GiB" if limit else ""
    lines.append(f"memory      {memory['total'] / 2**30:.2f} GiB per device{there}: {verdict}")
    if "arguments" not in memory:
        lines.append(f"            use a smaller batch or more devices; refused after {result['compile_seconds']} s")
        return "\n".join(lines)
    lines.append("            " + ", ".join(f"{name} {size / 2**20:,.1f} MiB" for name, size in memory.items() if name != "total"))
    lines.append(f"FLOPs       {result['flops'] / 1e9:,.1f} G per device and step, as the compiler counts them")
    lines.append(f"compile     {result['compile_seconds']} s after {result['lower_seconds']} s of tracing")
    if not result["collectives"]:
        lines.append("traffic     none: nothing crosses between devices")
    else:
        lines.append("traffic     per step, size on one device")
        lines.extend(_traffic(result["collectives"]))
        lines.append("            of which")
        lines.extend(_traffic(result["purposes"]))
        moved = [entry for entry in result["origins"] if entry[0] == "samples"]
        lines.extend(f"            samples: {kind} {size / 2**20:.3f} MiB from {origin}" for _, kind, origin, _, size in moved[:12])
    return "\n".join(lines)


def _traffic(table: dict[str, list[int]]) -> list[str]:
    return [f"            {name:19} {count:5} arrays {size / 2**20:10.3f} MiB" for name, (count, size) in table.items()]


def lower_for(
    experiment: configure.Experiment, platform: str, *, batch: int = 0, per_chip: int = 0, mesh: tuple[int, int] | None = None
) -> str:
    """Lowers the training step for a platform that need not be here; says what came out. Errors as ``doctor``."""
    if platform not in ("cpu", "cuda", "rocm", "tpu"):
        raise ValueError(f"platform {platform!r} is not one of cpu, cuda, rocm, tpu")
    begin = time.perf_counter()
    lowered, grid, batch, _, stage = _lower(experiment, jax.devices(), batch, per_chip, mesh, lowering_platforms=(platform,))
    text = lowered.as_text()
    seconds = time.perf_counter() - begin
    operations = len(re.findall(r"\bstablehlo\.\w+", text))
    return (
        f"The training step {f'of stage {stage} ' if stage else ''}lowers for {platform}: {operations:,} operations, batch {batch}, "
        f"mesh {tuple(grid.shape.values())}, {seconds:.1f} s. Memory and traffic are settled when it is compiled, which needs that platform"
        f"{' (or --topology)' if platform == 'tpu' else ''}."
    )


def _versions() -> dict[str, str]:
    from importlib import metadata

    found = {"python": sys.version.split()[0], "jax": jax.__version__, "jaxlib": metadata.version("jaxlib")}
    if importlib.util.find_spec("libtpu"):
        found["libtpu"] = metadata.version("libtpu")
    return found


def _hbm(device: Any) -> float | None:
    if device.device_kind in HBM:
        return HBM[device.device_kind]
    try:
        limit = (device.memory_stats() or {}).get("bytes_limit")
    except (jax.errors.JaxRuntimeError, NotImplementedError):
        limit = None
    return limit / 2**30 if limit else None


def _memory_of(device: Any) -> str:
    limit = _hbm(device)
    return f", {limit:.1f} GiB" if limit else ""


def _folder(name: str) -> str:
    path = Path(name).expanduser()
    return f"{path} ({len(list(path.iterdir()))} entries)" if path.is_dir() else f"{path} (not there yet)"


def _answer(question: Path, answer: Path) -> None:
    """Runs in the process that loads libtpu."""
    from jax.experimental import topologies

    request = json.loads(question.read_text())
    try:
        experiment = configure.from_json(request["experiment"])
        try:
            devices = topologies.get_topology_desc(platform="tpu", topology_name=request["topology"]).devices
        except jax.errors.JaxRuntimeError as error:
            raise ValueError(f"topology {request['topology']!r} is not known to libtpu ({error}); for instance {TOPOLOGIES}") from error
        mesh = tuple(request["mesh"]) if request["mesh"] else None
        result = _compile(experiment, devices, request["batch"], request["per_chip"], mesh)
    except Exception as error:
        result = {"error": str(error), "kind": type(error).__name__}
    answer.write_text(json.dumps(result))


if __name__ == "__main__":
    _answer(Path(sys.argv[1]), Path(sys.argv[2]))
