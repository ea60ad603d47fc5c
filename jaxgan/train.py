"""The loop: restore, step, probe, report, save, stop. It serves every system and names none.

What a run computes depends on its configuration alone: the key of a step is folded from the root seed and the step's number, the data
position is saved with the arrays, and the log repeats. So "the same command again" continues an interrupted run bitwise where it was saved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec

from jaxgan import checkpoint, configure, files, parallel, run_checks, timing
from jaxgan.data import pipeline
from jaxgan.probes import Probes
from jaxgan.report import Report, duration
from jaxgan.stages import Plan, open_data
from jaxgan.stages import batch_shapes as batch_shapes
from jaxgan.stopping import Stop
from jaxgan.system import State, System

# Keys beside those of the steps, which are folded from 0, 1, 2, ...
_INIT_KEY, _SAMPLE_KEY = 2**32 - 1, 2**32 - 2
_CHECK_AT_LEAST = 1000  # steps whose finite vectors may wait on the device, where logs and saves are rarer


class Result(NamedTuple):
    """How a call of ``train`` ended."""

    step: int
    """Completed steps, all of them saved."""
    steps: int
    """Length of the run in steps."""
    status: str
    """'finished', 'stopped' (the same command resumes) or 'already finished'."""


def init_state(system: System, seed: int) -> State:
    """The state at step 0 of a run with this root seed; traceable."""
    return system.init(jax.random.fold_in(jax.random.key(seed), np.uint32(_INIT_KEY)))


def step_function(system: System, seed: int) -> Callable[[State, Mapping[str, Any]], tuple[State, dict[str, Any]]]:
    """``f(state, batch) -> (state, info)``, what the loop jits with the state donated. ``frozen`` passes through in its own buffers."""

    def step(state: State, batch: Mapping[str, Any]) -> tuple[State, dict[str, Any]]:
        return system.step(state, batch, jax.random.fold_in(jax.random.key(seed), state.step))

    return step


def _networks_from(start: str, state: State, mesh: Any) -> tuple[State, str]:
    directory = epath.Path(start) / "checkpoints"
    step, arrays = checkpoint.load_networks(directory)
    try:
        filled = checkpoint.fill(state, arrays)
    except ValueError as error:
        raise ValueError(f"run.start = {start!r}: {error}") from error
    return parallel.replicate(filled, mesh), f"Networks from {start}, step {step}; optimisers start anew."


def train(
    experiment: configure.Experiment,
    workdir: Any,
    *,
    stop_after_steps: int | None = None,
    quiet: bool = False,
    trace: tuple[int, int] | None = None,
) -> Result:
    """Trains, or goes on with the run that the workdir holds; everything is checked before anything is written.

    Args:
      experiment: what to train, on what, how long.
      workdir: local path or ``gs://``: ``config.json``, ``checkpoints/``, ``metrics.jsonl``, ``samples/``, ``traces/``,
        and ``sources/`` where stages read what the run itself has found: a resumed run needs it.
      stop_after_steps: this call makes at most so many steps, saves and returns.
      quiet: nothing on the console; errors still raise.
      trace: first and last step of a profiler window, written to ``traces/``.

    Returns:
      A ``Result``. ^C and SIGTERM end the step, save, and return with the status 'stopped'.

    Raises:
      ValueError: a batch that does not fit the system or the mesh, the workdir of another run, a checkpoint of another configuration.
      FloatingPointError: a loss or gradient is not finite; names step, player and leaf, and nothing of it is saved.
      OSError: the workdir cannot be written, or the disk is full; earlier checkpoints are intact.
    """
    decided = parallel.start()
    run, workdir = experiment.run, epath.Path(workdir)
    run_checks.check_run(run)
    mesh = parallel.make_mesh(run.mesh)
    system: System = experiment.model.system()
    plan = Plan(system, run, mesh)
    steps = plan.steps
    report = Report(workdir, steps=steps, batch=run.batch, quiet=quiet, main=parallel.is_main(), images=plan.images)
    saved = checkpoint.Checkpoints(workdir / "checkpoints", keep=run.keep, say=report.say)
    changes = run_checks.check_config(experiment, workdir, saved)
    if trace is not None and not 1 <= trace[0] <= trace[1]:
        raise ValueError(f"trace {trace}: give the first and the last step, with 1 <= first <= last")
    if stop_after_steps is not None and stop_after_steps < 1:
        raise ValueError(f"stop_after_steps = {stop_after_steps}: give at least 1")
    report.say(decided)
    source = open_data(system, experiment.data)
    probes = Probes(experiment, system, source, mesh, workdir, report.say) if run.probe_every else None
    with jax.set_mesh(mesh), Stop() as stop:
        try:
            state, begun, position = _begin(experiment, workdir, system, plan, source, mesh, saved, report)
            changes += run_checks.check_schedule(system.falls, begun, steps)
            for sentence in [*changes, *(f"{sentence}." for sentence in plan.short())]:
                report.say(sentence)
            if begun >= steps:
                further = "Begin another run with run.start to go on." if system.falls else "Raise run.kimg to go on."
                report.say(f"{workdir}: already finished ({begun} steps, {plan.kimg(begun):g} kimg). {further}")
                return Result(begun, steps, "already finished")
            if parallel.is_main():
                configure.write(experiment, workdir / "config.json")
            report.begin(begun)
            last = steps if stop_after_steps is None else min(steps, begun + stop_after_steps)
            window = timing.Trace(workdir / "traces", trace)
            try:
                reached = _loop(
                    experiment, workdir, system, plan, source, position, mesh, state, begun, last, saved, report, window, stop, probes
                )
            finally:
                window.close()
            saved.wait()
        finally:
            try:
                saved.close()
            finally:
                report.close()
        if reached >= steps:
            report.say(f"Finished at step {reached} ({plan.kimg(reached):g} kimg): {workdir}")
            return Result(reached, steps, "finished")
        report.say(f"Stopped at step {reached} of {steps}; the same command resumes.")
        return Result(reached, steps, "stopped")


def _begin(
    experiment: configure.Experiment,
    workdir: epath.Path,
    system: System,
    plan: Plan,
    source: Any,
    mesh: Any,
    saved: checkpoint.Checkpoints,
    report: Report,
) -> tuple[State, int, Any]:
    """The state to go on from, its step, and its data position where there is one. Writes nothing but a test file."""
    run, whole = experiment.run, NamedSharding(mesh, PartitionSpec())
    initial = jax.jit(lambda: init_state(system, run.seed), out_shardings=whole)
    like: State = jax.eval_shape(initial)
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in checkpoint.name_leaves(like).values())
    on_disk = len(saved.steps())
    to_come = -(-plan.steps // run.save_every) if run.save_every else 1
    files.check_writable(workdir, size * max(1, min(run.keep + 1, to_come) - on_disk))
    if like.frozen:
        like = like._replace(frozen=jax.jit(lambda: init_state(system, run.seed).frozen, out_shardings=whole)())
    found = saved.restore(like, mesh, plan.open(0, source, experiment.data.workers).get_state())
    if found is not None:
        system.verify(found.state)
        report.say(f"Resumed at step {found.step} from {workdir / 'checkpoints' / str(found.step)}.")
        return found.state, found.step, found.position
    state = initial()
    if system.begin is not None:
        state = parallel.replicate(system.begin(state), mesh)
    if run.start:
        state, sentence = _networks_from(run.start, state, mesh)
        system.verify(state)
        report.say(sentence)
    return state, 0, None


def _loop(
    experiment: configure.Experiment,
    workdir: epath.Path,
    system: System,
    plan: Plan,
    source: Any,
    position: Any,
    mesh: Any,
    state: State,
    begun: int,
    last: int,
    saved: checkpoint.Checkpoints,
    report: Report,
    window: timing.Trace,
    stop: Stop,
    probes: Probes | None,
) -> int:
    """Steps from ``begun`` to ``last``, or to where a signal stops it; returns the completed steps, which are saved."""
    run, steps = experiment.run, plan.steps
    whole = NamedSharding(mesh, PartitionSpec())
    root = jax.random.key(run.seed)
    shown = pipeline.preview(source, run.samples) if system.translate and run.samples else None

    def picture(state: State, shown: np.ndarray | None) -> jax.Array:
        return system.grid(state, jax.random.fold_in(root, np.uint32(_SAMPLE_KEY)), run.samples, shown)

    sample = jax.jit(picture, out_shardings=whole)

    def draw(state: State, at: int) -> None:
        if run.samples:
            report.images(f"fakes_{at:08d}", np.asarray(jax.device_get(sample(state, shown)), np.float32), at)

    def due(every: int, at: int) -> bool:
        return every > 0 and at % every == 0

    def compiled(number: int, state: State, batch: Mapping[str, jax.Array]) -> tuple[Any, float | None]:
        """The step of a stage as a program, and its FLOPs where they are asked for."""
        stage, kind = plan.stages[number], jax.devices()[0].device_kind
        report.say(f"Compiling the step {f'of stage {stage.name} ' if plan.staged else ''}for {mesh.size} × {kind}.")
        began = time.perf_counter()
        step_of_stage = step_function(plan.system(number), run.seed)
        lowered = jax.jit(step_of_stage, donate_argnums=0, out_shardings=whole).lower(state, batch)
        flops = timing.flops_of(lowered) if timing.peak_flops(kind) else None
        program = lowered.compile()
        report.say(f"Compiled in {duration(time.perf_counter() - began)}; {steps - int(state.step)} steps to go.")
        return program, flops

    programs: dict[Any, tuple[Any, float | None]] = {}  # the one at hand: stages that differ only in what they read share it

    def work(number: int, state: State, step: int, position: Any) -> tuple[State, int, bool]:
        """Steps of one stage, to its end, to ``last`` or to a signal; ``position`` None: from the beginning of its data."""
        stage, until = plan.stages[number], min(last, plan.end(number))
        reading = source
        if stage.reads is not None:
            reading = stage.reads(source, state if step == stage.first else None, workdir / "sources")
        following = plan.stages[number + 1 : number + 2]
        searches = any(stage.reads is not None for stage in following)  # behind this stage, which takes a while and may fail
        iterator = plan.open(number, reading, experiment.data.workers)
        if position is not None:
            iterator.set_state(position)
        batch = parallel.global_batch(next(iterator), mesh, stage.batch)
        position = iterator.get_state()
        does = (stage.step, stage.prepare, stage.batch)
        if does not in programs:
            programs.clear()
            programs[does] = compiled(number, state, batch)
        program, flops = programs[does]

        watch, counted, kept = timing.Stopwatch(), 0, step
        waiting: list[tuple[int, Mapping[str, jax.Array]]] = []
        stopping = False
        while step < until and not stopping:
            window.before(step + 1)
            state, info = program(state, batch)
            step, counted = step + 1, counted + stage.batch
            waiting.append((step, info.pop("finite", {})))
            window.after(step, state.step)
            stopping = stop(step)
            ending = stopping or step == last
            here, position = position, None  # the position behind the batch of this step; the next batch is read while the step runs
            if not stopping and step < until:
                batch = parallel.global_batch(next(iterator), mesh, stage.batch)
                position = iterator.get_state()
            if len(waiting) > 1:  # at most two steps in flight, so that batches do not pile up on the device
                jax.block_until_ready(waiting[-2][1])
            logging = due(run.log_every, step) or step == steps
            saving = ending or (searches and step == until) or due(run.save_every, step)
            drawing = due(run.sample_every, step) or step == steps
            probing = probes is not None and (due(run.probe_every, step) or step == steps)
            if logging or saving or probing or step == until or len(waiting) >= _CHECK_AT_LEAST:
                run_checks.check_finite(waiting, state, system, saved)
            measured: dict[str, float] = {}
            if probing:
                jax.block_until_ready(state.step)
                watch.pause()
                if stopping:  # a probe may take longer than what a signal leaves
                    kept = _save(saved, state, here, step, plan.kimg(step))
                    saved.wait()
                measured = probes(state)
            if logging:
                values = measured | {name: float(value) for name, value in jax.device_get(info).items()}
                watch.pause()
                values |= _watched(reading, plan, step, run.log_every)
                rate = watch.window(counted)
                counted = 0
                usage = timing.mfu(flops, stage.batch / rate, mesh.size, jax.devices()[0].device_kind) if flops and rate else None
                report.log(step, values, rate, usage)
            elif measured:
                report.log(step, measured, None)
            if saving or drawing:
                jax.block_until_ready(state.step)
                watch.pause()
                if drawing:
                    draw(state, step)
                if saving and step > kept:
                    kept = _save(saved, state, here, step, plan.kimg(step))
            watch.go()
        iterator.close()
        return state, step, stopping

    if begun == 0:
        if run.samples and source is not None and parallel.is_main():
            report.images("reals", pipeline.side_by_side(pipeline.preview(source, run.samples)))
        draw(state, 0)
        if probes:
            report.log(0, probes(state), None)
    step, stopping = begun, False
    while step < last and not stopping:
        number = plan.number(step)
        if plan.staged and step == plan.stages[number].first:
            state, position = jax.jit(plan.stages[number].enter, donate_argnums=0, out_shardings=whole)(state), None
        state, step, stopping = work(number, state, step, position)
    return step


def _watched(source: Any, plan: Plan, step: int, every: int) -> dict[str, float]:
    """What the source says of itself (``Reads.open``) in the first line of each epoch, by the step alone: a resumed run says the same."""
    if not hasattr(source, "watch") or not parallel.is_main():
        return {}
    before = (step - 1) // every * every if every else 0
    epoch = plan.images(step) // len(source)
    return source.watch(epoch) if before == 0 or plan.images(before) // len(source) < epoch else {}


def _save(saved: checkpoint.Checkpoints, state: State, position: Any, step: int, kimg: float) -> int:
    saved.save(step, state, position, {"kimg": kimg, "jax": jax.__version__})
    return step


def dry_run(experiment: configure.Experiment) -> str:
    """What a run would be, without reading data or touching a workdir: settings, parameters, memory and FLOPs of a step.

    Raises:
      ValueError: as ``train``.
    """
    run = experiment.run
    run_checks.check_run(run)
    mesh = parallel.make_mesh(run.mesh)
    system: System = experiment.model.system()
    plan = Plan(system, run, mesh)
    system, size_of_batch = plan.system(plan.last), plan.stages[plan.last].batch
    whole = NamedSharding(mesh, PartitionSpec())
    with jax.set_mesh(mesh):
        state: State = jax.eval_shape(lambda: init_state(system, run.seed))
        if system.begin is not None:
            system.begin(state)  # refuses what a run would refuse
        placed = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), state)
        spread, shapes = parallel.batch_sharding(size_of_batch, mesh), batch_shapes(system, size_of_batch)
        batch = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=spread) for name, leaf in shapes.items()}
        began = time.perf_counter()
        lowered = jax.jit(step_function(system, run.seed), donate_argnums=0, out_shardings=whole).lower(placed, batch)
        flops = timing.flops_of(lowered)
        program = lowered.compile()
        seconds = time.perf_counter() - began

    def size(tree: Any) -> int:
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

    lines = []
    for name in configure.field_names(experiment):
        value: Any = experiment
        for part in name.split("."):
            value = getattr(value, part)
        lines.append(f"{name} = {value!r}")
    lines.append("")
    for name, tree in state.params.items():
        lines.append(f"{name}: {sum(leaf.size for leaf in jax.tree.leaves(tree)):,} parameters in {len(jax.tree.leaves(tree))} arrays")
    for part in ("params", "opt", "model", "ema", "frozen"):
        lines.append(f"{part}: {size(getattr(state, part)) / 1e6:,.1f} MB")
    for name, leaf in batch.items():
        lines.append(f"batch {name}: {list(leaf.shape)} {leaf.dtype}")
    devices = f"{mesh.size} × {jax.devices()[0].device_kind}, mesh {tuple(mesh.shape.values())}"
    lines += plan.describe()
    lines.append(f"{plan.steps:,} steps {'' if plan.staged else f'of {run.batch} samples '}on {devices}")
    if flops:
        lines.append(f"FLOPs of a step: {flops:.4g} ({flops / size_of_batch / 1e9:,.3f} GFLOP per sample)")
    memory = program.memory_analysis()
    if memory is not None:
        held, work = memory.argument_size_in_bytes, memory.temp_size_in_bytes
        extra = memory.output_size_in_bytes - memory.alias_size_in_bytes
        lines.append(
            f"Memory per device: {(held + work + extra) / 1e6:,.1f} MB "
            f"(state and batch {held / 1e6:,.1f}, work {work / 1e6:,.1f}, results {extra / 1e6:,.1f})"
        )
    lines.append(f"Compiled in {duration(seconds)}.")
    return "\n".join(lines)
