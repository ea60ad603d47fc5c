"""Runs in stages: images are counted exactly, every stage has its own data and optimisers, and resuming between two changes nothing."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from workdirs import log, newest

from jaxgan import doctor
from jaxgan.checkpoint import Checkpoints, steps_in
from jaxgan.configure import Run
from jaxgan.data import pipeline
from jaxgan.stages import Plan, unchanged
from jaxgan.system import Stage
from jaxgan.train import Result, dry_run, train

PARTS = ((0, 32), (4, 24), (11, 8))


@pytest.fixture(scope="module")
def toy() -> Any:
    """The toy system, as the module jaxgan.systems.toy, with its own pictures in place of `open_source`."""
    spec = importlib.util.spec_from_file_location("jaxgan.systems.toy", Path(__file__).parent / "toy.py")
    module, opened = importlib.util.module_from_spec(spec), pipeline.open_source
    sys.modules["jaxgan.systems.toy"] = module
    spec.loader.exec_module(module)
    yield module
    pipeline.open_source = opened
    del sys.modules["jaxgan.systems.toy"]


def staged(toy: Any, stages: Any = PARTS, **run: Any) -> Any:
    """4 steps of 32, 7 of 24, and 5 of 8 samples: 336 in 16 steps."""
    settings = {"batch": 8, "kimg": 0.336, "log_every": 1, "save_every": 5, "sample_every": 0}
    return toy.experiment({"stages": stages}, **(settings | run))


@pytest.fixture(scope="module")
def whole(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("staged") / "run"
    assert train(staged(toy), workdir, quiet=True) == Result(16, 16, "finished")
    return workdir


def test_steps_and_images_against_counting_them(toy: Any) -> None:
    system = toy.Config(stages=PARTS).system()
    sizes = [32] * 4 + [24] * 7 + [8] * 400
    for wanted in (1, 31, 32, 33, 127, 128, 129, 152, 296, 297, 336, 2000):
        plan = Plan(system, Run(batch=8, kimg=wanted / 1000))
        shown, steps = 0, 0
        while shown < wanted:
            shown, steps = shown + sizes[steps], steps + 1
        assert (plan.steps, plan.images(plan.steps)) == (steps, shown), wanted
    plan = Plan(system, Run(batch=8, kimg=1.0))
    assert [plan.images(step) for step in range(30)] == [sum(sizes[:step]) for step in range(30)]
    assert [plan.stages[plan.number(step)].batch for step in range(30)] == sizes[:30]


def test_the_log_counts_images_and_each_stage_has_its_batch_rate_and_data(toy: Any, whole: Path) -> None:
    lines = log(whole)
    assert [line["kimg"] for line in lines] == [0.032 * i for i in range(1, 5)] + [(128 + 24 * i) / 1000 for i in range(1, 8)] + [
        (296 + 8 * i) / 1000 for i in range(1, 6)
    ]
    system = toy.Config(stages=PARTS).system()
    plan = Plan(system, Run(batch=8, kimg=0.336, seed=3))
    assert len({plan.seed(number) for number in range(3)}) == 3 and plan.seed(0) == 3
    for number, (first, batch) in enumerate(PARTS):
        images = next(plan.open(number, toy.Pictures(), 0))["image"].reshape(batch, -1)
        assert lines[first]["data"] == pytest.approx(float((images * np.arange(1.0, 65.0)).sum()), rel=1e-4)
    like = jax.eval_shape(system.init, jax.random.key(0))
    found = Checkpoints(whole / "checkpoints").restore(like)
    assert found.step == 16 and found.note["kimg"] == 0.336
    assert found.state.opt["G"][0].count == 5, "updates since the last stage began"


@pytest.mark.parametrize("stops", [(2, 2, 7), (4, 7), (11, 1)], ids=["inside", "on the boundaries", "on the second"])
def test_a_resumed_run_in_stages_is_the_run_that_was_not_interrupted(toy: Any, whole: Path, tmp_path: Path, stops: tuple) -> None:
    for steps in stops:
        assert train(staged(toy), tmp_path / "run", quiet=True, stop_after_steps=steps).status == "stopped"
    assert train(staged(toy), tmp_path / "run", quiet=True).status == "finished"
    assert newest(tmp_path / "run") == newest(whole) and log(tmp_path / "run") == log(whole)


def test_a_stage_reads_what_the_networks_at_its_beginning_chose_and_a_resumed_run_still_does(toy: Any, tmp_path: Path) -> None:
    chooses = toy.experiment({"stages": PARTS, "chooses": True}, batch=8, kimg=0.336, log_every=1, save_every=4, sample_every=0)
    assert train(chooses, tmp_path / "run", quiet=True).status == "finished"
    lines, plan = log(tmp_path / "run"), Plan(chooses.model.system(), Run(batch=8, kimg=0.336, seed=3))
    firsts = [0, *(int((tmp_path / "run" / "sources" / f"{first}.txt").read_text()) for first in (4, 11))]
    assert len(set(firsts)) == 3
    assert steps_in(tmp_path / "run" / "checkpoints") == [11, 12, 16], "saved before it chose, also where no save was due"
    for number, (first, batch) in enumerate(PARTS):
        images = next(plan.open(number, toy.Pictures(firsts[number]), 0))["image"].reshape(batch, -1)
        assert lines[first]["data"] == pytest.approx(float((images * np.arange(1.0, 65.0)).sum()), rel=1e-4)

    for stops in ((2, 2, 7), (6, 2)):  # on the boundaries; inside twice
        again = tmp_path / str(stops)
        for steps in stops:
            assert train(chooses, again, quiet=True, stop_after_steps=steps).status == "stopped"
        assert train(chooses, again, quiet=True).status == "finished"
        assert newest(again) == newest(tmp_path / "run") and log(again) == lines

    train(chooses, tmp_path / "lost", quiet=True, stop_after_steps=6)
    (tmp_path / "lost" / "sources" / "4.txt").unlink()
    kept = newest(tmp_path / "lost")
    with pytest.raises(FileNotFoundError):
        train(chooses, tmp_path / "lost", quiet=True)
    assert newest(tmp_path / "lost") == kept


def test_stages_that_do_the_same_share_a_program_and_one_without_a_batch_has_the_runs(
    toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    alone = toy.experiment(kimg=0.16)
    system = alone.model.system()
    parts = [Stage(f"part {k}", first, 0, system.step, system.prepare, unchanged) for k, first in enumerate((0, 3, 7))]

    class Config(type(alone.model)):
        def system(self) -> Any:
            return system._replace(stages=parts)

    Config.__module__ = "jaxgan.systems.toy"
    experiment = dataclasses.replace(alone, model=Config())
    assert [stage.batch for stage in Plan(experiment.model.system(), experiment.run).stages] == [16, 16, 16]
    assert train(experiment, tmp_path / "run") == Result(10, 10, "finished")
    assert capsys.readouterr().out.count("Compiling") == 1


def test_the_console_and_the_dry_run_count_through_the_stages(toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train(staged(toy), tmp_path / "run", stop_after_steps=5)
    out = capsys.readouterr().out
    assert "kimg 0.152/0.336" in out and "Compiling the step of stage part 1 " in out
    train(staged(toy), tmp_path / "run")
    assert "Finished at step 16 (0.336 kimg)" in capsys.readouterr().out
    text = dry_run(staged(toy))
    assert "stage part 1: steps 5 to 11 of 24 samples, 0.128 to 0.296 kimg" in text and "\n16 steps on 8" in text


def test_a_run_shorter_than_its_stages_says_so_and_measures_a_stage_that_it_enters(
    toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    experiment = staged(toy, kimg=0.2)
    sentence = "run.kimg = 0.2 ends in stage part 1: the last stage, part 2, begins after 0.296 kimg"
    text = dry_run(experiment)
    assert sentence in text and "the figures of a step are those of stage part 1" in text and "batch image: [24, 8, 8, 1]" in text
    train(experiment, tmp_path / "run", stop_after_steps=1)
    assert sentence in capsys.readouterr().out
    assert "ends in stage" not in "".join(Plan(experiment.model.system(), Run(batch=8, kimg=0.3)).describe())
    result = doctor.measure(experiment)
    assert (result["stage"], result["batch"]) == ("part 1", 24) and "stage       part 1" in doctor.render(result)
    with pytest.raises(ValueError, match="stage part 1: batch 20 does not divide over the 8 devices"):
        doctor.measure(staged(toy, ((0, 32), (4, 20), (11, 8))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 16}, r"run\.batch = 16, but the last stage, part 2, has 8 samples in a step: use 8, .*\(model\.batches\)"),
        ({"stages": ((0, 32), (4, 20), (11, 8))}, "stage part 1: batch 20 does not divide over the 8 devices"),
        ({"stages": ((0, 32), (11, 8), (11, 8))}, r"stages begin after \[0, 11, 11\] steps"),
    ],
)
def test_stages_that_cannot_work_are_refused_with_nothing_written(toy: Any, tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(staged(toy, **change), tmp_path / "run", quiet=True)
    assert not list((tmp_path / "run").glob("*"))
