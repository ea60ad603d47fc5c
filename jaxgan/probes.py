"""Scores in training: the metrics of ``jaxgan.evaluate`` and a system's own probes, on fakes of the state at hand.

Latents, reals and their order depend on the configuration alone, and nothing here touches the state, the data position or the keys of the
steps: a run is the same to the bit with and without probes, and a resumed run logs the values that an uninterrupted one would have.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec

from jaxgan import configure, features, generators, parallel, scores, sources
from jaxgan.data import pipeline
from jaxgan.evaluate import tally_measure
from jaxgan.features import Measure
from jaxgan.metrics import streaming
from jaxgan.metrics.streaming import Rows, Sums
from jaxgan.system import Probe, State, System

METRICS = ("fid", "kid", "prdc", "fsd")
NEIGHBOURS = 5

# Beside the keys of the steps (0, 1, 2, ...) and those of ``jaxgan.train``.
_PROBE_KEY = 2**32 - 3


class Probes:
    """What a run with ``run.probe_every`` measures. It makes and loads all it needs when it is made; nothing is written before a call."""

    def __init__(self, experiment: configure.Experiment, system: System, source: Any, mesh: Any, workdir: Any, say: Callable[[str], None]):
        """
        Args:
          source: of the run, read by position; the reals are spread evenly over it. None: the run reads no data.
          mesh: of the run.
          workdir: statistics of the reals are kept in its folder ``probes``.

        Raises:
          ValueError: an unknown metric, or one that this system, these settings or these data cannot serve. FileNotFoundError: missing
            weights.
        """
        self._run, self._system, self._source, self._mesh, self._say = experiment.run, system, source, mesh, say
        self._folder = epath.Path(workdir) / "probes"
        self._data = dataclasses.asdict(experiment.data)
        for field in ("root", "workers"):  # where and how fast, not what
            del self._data[field]
        self._metrics = check(experiment.run, system)
        self._count = 0 if source is None else min(experiment.run.probe_images, len(source))
        if self._metrics and self._count < (least := _least(self._metrics)):
            raise ValueError(f"run.probes: {', '.join(self._metrics)} need at least {least} reals, and the data holds {len(source)}")
        self._measures: dict[str, tuple[Measure, tuple[str, ...]]] = {}
        if any(metric in scores.FEATURES for metric in self._metrics):
            self._measures["features"] = features.inception(), ()
        if "fsd" in self._metrics:
            self._measures["segments"] = tally_measure(experiment.run.probe_segmenter)
        self._reals: dict[str, Sums] = {}
        self._batches = -(-experiment.run.probe_images // experiment.run.batch)
        held = system.reads.held if system.probes and system.reads else None
        self._held = held(experiment.data, self._batches * experiment.run.batch) if held else None
        whole, root = NamedSharding(mesh, PartitionSpec()), jax.random.key(experiment.run.seed)
        self._key = jax.random.fold_in(root, np.uint32(_PROBE_KEY))

        def draw(state: State, key: jax.Array) -> jax.Array:
            return system.sample(generators.averaged(state), key, generators.DRAWN_AT_ONCE)

        self._draw = jax.jit(draw, out_shardings=whole)
        self._adders = {name: jax.jit(functools.partial(_added, probe), out_shardings=whole) for name, probe in system.probes.items()}

    def __call__(self, state: State) -> dict[str, float]:
        """The scores by name; all processes call it at the same step."""
        values = self._systems_own(state)
        if self._measures:
            fakes = sources.in_memory(self._fakes(state), "fakes")
        for family, (measure, names) in self._measures.items():
            real = self._real(family, measure)
            drawn = features.collect(fakes, measure)
            metrics = [metric for metric in self._metrics if metric in (scores.FEATURES if family == "features" else scores.SEGMENTS)]
            if family == "features":
                found = scores.feature_scores(real, drawn, metrics, {}, neighbours=NEIGHBOURS)
            else:
                found = scores.segment_scores(Rows.read(real), Rows.read(drawn), names, metrics, {})
            values |= {name: score.value for name, score in found.items()}
        return values

    def _systems_own(self, state: State) -> dict[str, float]:
        values: dict[str, float] = {}
        if not self._adders:
            return values
        for name, probe in self._system.probes.items():
            sums = jax.device_get(probe.zero())
            for number in range(self._batches):
                part = self._adders[name](state, self._given(number), jax.random.fold_in(self._key, np.uint32(number)))
                sums = probe.merge(sums, jax.device_get(part))
            values |= {name if key == name else f"{name}/{key}": float(value) for key, value in probe.read(sums).items()}
        return values

    def _given(self, number: int) -> dict[str, jax.Array]:
        """What the system's probes add as their batch of this number: samples held out from training, where the system names some."""
        if self._held is None:
            return self._batch
        share = self._run.batch // jax.process_count()
        first = number * self._run.batch + jax.process_index() * share
        local = {name: array[first : first + share] for name, array in self._held.items()}
        return parallel.global_batch(local, self._mesh, self._run.batch)

    @functools.cached_property
    def _batch(self) -> dict[str, jax.Array]:
        """One batch for the system's probes, always the same: it is not the training's, whose position must not move."""
        share = self._run.batch // jax.process_count()
        first, count = jax.process_index() * share * self._system.records, share * self._system.records
        if self._source is None:
            stacked = pipeline.sample_numbers(share, jax.process_index() * share)
        else:
            records = [self._source[i % len(self._source)] for i in range(first, first + count)]
            stacked = {name: np.stack([record[name] for record in records]) for name in records[0]}
        local = self._system.prepare(stacked, np.random.default_rng((self._run.seed, jax.process_index())))
        return parallel.global_batch(local, self._mesh, self._run.batch)

    def _fakes(self, state: State) -> np.ndarray:
        """uint8 [probe_images, H, W, 3]."""
        size, made = generators.DRAWN_AT_ONCE, []
        for block in range(-(-self._run.probe_images // size)):
            images = self._draw(state, jax.random.fold_in(self._key, np.uint32(block)))
            made.append(generators.quantise(jax.device_get(images)))
        return np.concatenate(made)[: self._run.probe_images]

    def _real(self, family: str, measure: Measure) -> Sums:
        """Rows of the reals: computed once in a run, then read from the workdir."""
        if family in self._reals:
            return self._reals[family]
        path = self._folder / f"{family}.safetensors"
        reals = sources.in_memory(Spread(self._source, self._count))
        of_reals = {"data": self._data, "images": self._count, "size": list(self._system.image), "content": reals.digest}
        protocol = {**measure.protocol, **of_reals}
        try:
            self._reals[family] = streaming.load(path, protocol).sums
        except (FileNotFoundError, ValueError):  # none yet, or of other settings
            self._say(f"Computing {measure.name} of {self._count:,} reals, once for this run.")
            sums = features.collect(reals, measure, title=f"{measure.name} of reals")
            if parallel.is_main():
                streaming.save(path, sums, protocol)
            self._reals[family] = sums
        return self._reals[family]


class Spread:
    """`count` images spread evenly over a training source: ``[i] -> uint8 [H, W, 3]``."""

    def __init__(self, source: Any, count: int):
        self._source, self._count = source, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, i: int) -> np.ndarray:
        image = self._source[i * len(self._source) // self._count]["image"]
        return np.repeat(image, 3, -1) if image.shape[-1] == 1 else image[..., :3]


def check(run: configure.Run, system: System) -> tuple[str, ...]:
    """The metrics among ``run.probes`` that are not the system's own probes.

    Raises:
      ValueError: a name that is neither, nothing to measure, or a metric that needs what the system or the settings do not have.
    """
    known = [*METRICS, *system.probes]
    for name in run.probes:
        if name not in known:
            raise ValueError(f"run.probes: there is no probe {name!r}{configure.nearest(name, known)}; use some of {', '.join(known)}")
    metrics = tuple(name for name in run.probes if name in METRICS and name not in system.probes)
    if not metrics and not system.probes:
        raise ValueError(f"run.probe_every = {run.probe_every}, but run.probes names nothing to measure; use some of {', '.join(known)}")
    if metrics and system.sample is None:
        raise ValueError(f"run.probes = {', '.join(metrics)}: this system draws no images from latents to compare with reals")
    if metrics and not system.records:
        raise ValueError(f"run.probes = {', '.join(metrics)}: a run of this system reads no reals to compare with")
    if "fsd" in metrics and run.probe_segmenter in ("", "labels"):
        raise ValueError("run.probes: fsd needs run.probe_segmenter, a segmenter that labels fakes too (for instance unet:WORKDIR)")
    if run.probe_images < (least := _least(metrics)):
        raise ValueError(f"run.probe_images = {run.probe_images}: these probes need at least {least}")
    return metrics


def _least(metrics: tuple[str, ...]) -> int:
    """Images that each side must have."""
    return NEIGHBOURS + 1 if "prdc" in metrics else 2


def _added(probe: Probe, state: State, batch: Any, key: jax.Array) -> Any:
    return probe.add(probe.zero(), state, batch, key)
