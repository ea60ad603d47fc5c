"""Runs that read no data: the loop goes as with data, stops and goes on bitwise, and data asked for are refused."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from workdirs import log, newest

from jaxgan import configure, doctor, generators
from jaxgan.data import pipeline
from jaxgan.play import init_opt, play
from jaxgan.stages import batch_shapes
from jaxgan.system import Player, Probe, State, System
from jaxgan.train import Result, dry_run, train

FILE = {"content": 1.0}
"""Stands for a file that the system reads: what the target of its game is."""


@dataclasses.dataclass(frozen=True)
class Config:
    """One kernel learns to double what it draws."""

    rate: float = 0.01

    def system(self) -> System:
        target = FILE["content"]

        def loss(own, params, model, batch, key):
            x = jax.random.normal(key, (batch["sample"].shape[0], 4))
            numbers = batch["sample"].astype(jnp.float32).sum()
            return jnp.square(x @ own["E"] - 2 * target * x).mean(), (model, {"numbers": numbers, "noise": batch["noise"].mean()})

        players = {"E": Player(("E",), loss, optax.adam(self.rate))}

        def init(key):
            params = {"E": jax.random.normal(key, (4, 4))}
            return State(jnp.zeros((), jnp.int32), params, init_opt(players, params), {"E": {"of": jnp.float32(target)}}, {}, {})

        def verify(state):
            if float(state.model["E"]["of"]) != target:
                raise ValueError(f"this run belongs to the file {float(state.model['E']['of'])}, not {target}")

        def prepare(numbers, rng):
            return {**numbers, "noise": rng.random(len(numbers["sample"])).astype(np.float32)}

        def add(sums, state, batch, key):
            return sums + batch["sample"].sum().astype(jnp.float32)

        return System(
            init=init,
            step=play(players),
            sample=None,
            probes={"sum": Probe(lambda: jnp.zeros(()), add, lambda a, b: a + b, lambda sums: {"sum": float(sums)})},
            image=(8, 8, 1),
            records=0,
            prepare=prepare,
            owns={"E": ("E",)},
            show=lambda state, key, n: jnp.tanh(jax.random.normal(key, (n, 8, 8, 1)) + state.params["E"].mean()),
            verify=verify,
        )


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Config, "__module__", "jaxgan.systems.doubling")
    monkeypatch.setitem(sys.modules, "jaxgan.systems.doubling", sys.modules[__name__])
    monkeypatch.setitem(FILE, "content", 1.0)


def experiment(**run: Any) -> configure.Experiment:
    settings = {"batch": 16, "kimg": 0.32, "log_every": 5, "save_every": 5, "sample_every": 10, "samples": 4, "seed": 3}
    return configure.Experiment(Config(), run=configure.Run(**(settings | run)))


def test_a_run_without_data_is_the_same_when_it_is_stopped_and_opens_no_source(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "open_source", lambda *_: pytest.fail("a source was opened"))
    probed = {"probe_every": 10, "probe_images": 32}
    assert train(experiment(**probed), tmp_path / "whole", quiet=True) == Result(20, 20, "finished")
    assert train(experiment(**probed), tmp_path / "parts", quiet=True, stop_after_steps=7).status == "stopped"
    assert train(experiment(**probed), tmp_path / "parts", quiet=True) == Result(20, 20, "finished")
    assert newest(tmp_path / "parts") == newest(tmp_path / "whole")
    assert newest(tmp_path / "whole")["positions"] == [{"batches": 20}]
    whole, parts = log(tmp_path / "whole"), log(tmp_path / "parts")
    assert [line for line in parts if line in whole] == whole
    steps = [line for line in whole if "numbers" in line]
    assert [line["numbers"] for line in steps] == [120.0] * 4 and len({line["noise"] for line in steps}) == 4
    assert steps[-1]["loss/E"] < steps[0]["loss/E"]
    assert [line["sum"] for line in whole if "sum" in line] == [240.0] * 3
    drawn = sorted(path.name for path in (tmp_path / "whole" / "samples").iterdir())
    assert drawn == ["fakes_00000000.png", "fakes_00000010.png", "fakes_00000020.png"]


def test_processes_share_the_numbers_of_a_batch_and_draw_for_themselves():
    def prepare(numbers, rng):
        return {**numbers, "draw": rng.random(len(numbers["sample"]))}

    flows = [pipeline.SampleNumbers(batch=8, prepare=prepare, seed=5, process_index=p, process_count=2) for p in (0, 1)]
    first, second = ([next(flow) for flow in flows] for _ in range(2))
    for batches in (first, second):
        assert np.concatenate([batch["sample"] for batch in batches]).tolist() == list(range(8))
    draws = np.stack([batch["draw"] for batch in (*first, *second)])
    assert len(np.unique(draws)) == draws.size
    with pytest.raises(ValueError, match="a batch of 9 does not divide over 2 processes; use a multiple of 2"):
        pipeline.SampleNumbers(batch=9, prepare=prepare, seed=5, process_count=2)


def test_data_for_a_run_without_data_and_scores_against_reals_are_refused(tmp_path):
    given = dataclasses.replace(experiment(), data=configure.Data(source="photos", split="test"))
    with pytest.raises(ValueError, match=r"data.source is 'photos', but this system .* reads no images: leave data.source, data.split out"):
        train(given, tmp_path / "run", quiet=True)
    with pytest.raises(ValueError, match="run.probes = fid: this system draws no images"):
        train(experiment(probe_every=5, probes=("fid",)), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_state_of_other_files_is_refused_when_it_is_resumed_and_when_a_run_starts_from_it(tmp_path):
    train(experiment(), tmp_path / "run", quiet=True, stop_after_steps=5)
    before = newest(tmp_path / "run")
    FILE["content"] = 3.0
    for start, workdir in (("", "run"), (str(tmp_path / "run"), "new")):
        with pytest.raises(ValueError, match="this run belongs to the file 1.0, not 3.0"):
            train(experiment(start=start), tmp_path / workdir, quiet=True)
    assert newest(tmp_path / "run") == before and not (tmp_path / "new" / "config.json").exists()


def test_dry_run_doctor_and_shapes_know_a_batch_without_images():
    shapes = batch_shapes(Config().system(), 16)
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in shapes.items()} == {"sample": ((16,), np.int32), "noise": ((16,), np.float32)}
    assert "batch sample: [16] int32" in dry_run(experiment())
    assert doctor.measure(experiment())["batch"] == 16


def test_a_workdir_whose_system_only_shows_is_no_generator(tmp_path):
    train(experiment(), tmp_path / "run", quiet=True, stop_after_steps=5)
    with pytest.raises(ValueError, match="draws no images; name a generator's workdir"):
        generators.drawing(generators.open_generator(tmp_path / "run"))
