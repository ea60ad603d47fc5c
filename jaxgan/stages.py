"""The parts of a run: which step, batch and data order belong to a number of completed steps, and how many images they were.

A system without stages has one part. Where it has several, each reads the data in an order of its own, drawn from the run's seed and the
number of the stage, and its state passes through ``Stage.enter`` first; so a run that is resumed, in a stage or between two, is the run
that was not interrupted.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxgan import configure, parallel
from jaxgan.data import pipeline
from jaxgan.system import Stage, State, System


class Plan:
    """The stages of one run of a system.

    ``mesh``: of the run, where it is known, to check the batches against.

    Raises:
      ValueError: stages that do not follow each other, ``run.batch`` is not that of the last, or a batch does not fit the system
        (``System.check``), the mesh or the processes.
    """

    def __init__(self, system: System, run: configure.Run, mesh: Mesh | None = None):
        self.staged = bool(system.stages)
        stages = tuple(system.stages) or (Stage("", 0, 0, system.step, system.prepare, unchanged),)
        self.stages = tuple(stage if stage.batch else stage._replace(batch=run.batch) for stage in stages)
        self._system, self._seed = system, run.seed
        firsts = [stage.first for stage in self.stages]
        if firsts[0] != 0 or any(a >= b for a, b in zip(firsts, firsts[1:], strict=False)):
            raise ValueError(f"stages begin after {firsts} steps: the first must begin at 0, each of the others behind the one before")
        if self.stages[-1].batch != run.batch:
            last = self.stages[-1]
            raise ValueError(
                f"run.batch = {run.batch}, but the last stage, {last.name}, has {last.batch} samples in a step: use {last.batch}, "
                "or change the batches of the model (model.batches)"
            )
        for stage in self.stages:
            system.check(stage.batch)
        for stage in self.stages if mesh is not None else ():
            name = f"stage {stage.name}: " if self.staged else ""
            try:
                parallel.check_batch(stage.batch, mesh)
            except ValueError as error:
                raise ValueError(f"{name}{error}") from None
            if stage.batch % jax.process_count():
                raise ValueError(f"{name}batch {stage.batch} does not divide over {jax.process_count()} processes: use a multiple")
        self._before = [0]
        for stage, following in zip(self.stages, self.stages[1:], strict=False):
            self._before.append(self._before[-1] + (following.first - stage.first) * stage.batch)
        self.steps = self._steps(run.kimg)
        """Length of the run: ``run.kimg`` thousands of samples, rounded up to a whole batch."""
        self.last = self.number(self.steps - 1)
        """The last stage that the run enters."""
        self._kimg = run.kimg

    def _steps(self, kimg: float) -> int:
        wanted = kimg * 1000
        number = max(i for i, before in enumerate(self._before) if i == 0 or before < wanted)
        stage = self.stages[number]
        return max(1, stage.first + math.ceil((wanted - self._before[number]) / stage.batch - 1e-9))

    def number(self, step: int) -> int:
        """The stage whose steps follow so many completed ones."""
        return max(i for i, stage in enumerate(self.stages) if stage.first <= step)

    def end(self, number: int) -> int:
        """Completed steps behind a stage of this run."""
        return min(self.steps, self.stages[number + 1].first) if number + 1 < len(self.stages) else self.steps

    def images(self, step: int) -> int:
        """Samples in so many steps."""
        number = max(i for i, stage in enumerate(self.stages) if i == 0 or stage.first < step)
        return self._before[number] + (step - self.stages[number].first) * self.stages[number].batch

    def kimg(self, step: int) -> float:
        """Thousands of samples in so many steps."""
        return self.images(step) / 1000

    def system(self, number: int) -> System:
        """The system as it is in one stage."""
        return self._system._replace(step=self.stages[number].step, prepare=self.stages[number].prepare)

    def seed(self, number: int) -> int:
        """Seed of a stage's data order: the run's own for the first."""
        return self._seed if number == 0 else int(np.random.SeedSequence((self._seed, number)).generate_state(1)[0])

    def open(self, number: int, source: Any, workers: int) -> Any:
        """The batches of a stage from its beginning (``pipeline.batches``), for this process; ``source`` as ``open_data`` gives it."""
        given = {
            "batch": self.stages[number].batch,
            "prepare": self.stages[number].prepare,
            "seed": self.seed(number),
            "process_index": jax.process_index(),
            "process_count": jax.process_count(),
        }
        if source is None:
            return pipeline.SampleNumbers(**given)
        return pipeline.batches(source, records=self._system.records, workers=workers, **given)

    def describe(self) -> list[str]:
        """A line for each stage of the run; none for a run in one part."""
        lines = []
        for number, stage in enumerate(self.stages if self.staged else ()):
            if stage.first < self.steps:
                end = self.end(number)
                shown = f"{self.kimg(stage.first):g} to {self.kimg(end):g} kimg"
                lines.append(f"stage {stage.name}: steps {stage.first + 1:,} to {end:,} of {stage.batch} samples, {shown}")
        if lines:
            lines.extend(self.short())
            lines.append(f"the figures of a step are those of stage {self.stages[self.last].name}")
        return lines

    def short(self) -> list[str]:
        """A sentence where the run ends before its last stage begins."""
        if self.last == len(self.stages) - 1:
            return []
        end, full = self.stages[self.last], self.stages[-1]
        begin = self.kimg(full.first)
        return [f"run.kimg = {self._kimg:g} ends in stage {end.name}: the last stage, {full.name}, begins after {begin:g} kimg"]


def unchanged(state: State) -> State:
    """``Stage.enter`` of a stage that begins with what the one before has left."""
    return state


def open_data(system: System, data: configure.Data) -> Any:
    """What a run reads: images, or what ``System.reads`` opens; None where the system reads none (``System.records`` is 0).

    Raises:
      ValueError: as ``pipeline.open_source``; or fields of ``data`` were set for a system that reads none.
    """
    if system.reads:
        return system.reads.open(data)
    if system.records:
        return (pipeline.open_labelled if system.labels else pipeline.open_source)(data, system.image)
    set_here = [f.name for f in dataclasses.fields(data) if getattr(data, f.name) != f.default]
    if set_here:
        raise ValueError(
            f"data.{set_here[0]} is {getattr(data, set_here[0])!r}, but this system draws all that it learns from and reads no images: "
            f"leave {', '.join('data.' + name for name in set_here)} out"
        )
    return None


def batch_shapes(system: System, batch: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes and dtypes of a global batch of so many samples, from what ``prepare`` makes of black images; reads no data."""
    if system.reads:
        black = system.reads.blank(2)
    else:
        black = {"image": np.zeros((2 * system.records, *system.image), np.uint8)} if system.records else pipeline.sample_numbers(2)
    if system.labels:
        black["label"] = np.zeros((2 * system.records, *system.image[:2]), np.uint8)
    probe = system.prepare(black, np.random.default_rng(0))
    return {name: jax.ShapeDtypeStruct((batch, *np.shape(value)[1:]), np.asarray(value).dtype) for name, value in probe.items()}
