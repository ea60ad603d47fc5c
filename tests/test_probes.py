"""Scores in training: they change nothing of what is learned, repeat when a run is resumed, and are refused before anything is written."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan import checkpoint, features, generators, report
from jaxgan.data import pipeline
from jaxgan.metrics import frechet
from jaxgan.system import Probe, Reads
from jaxgan.train import Result, train

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

PROBED = {"probes": ("fid", "prdc"), "probe_every": 10, "probe_images": 70, "kimg": 0.4}


def brightness(params: Any, images: jax.Array) -> jax.Array:
    """Means of the four quarters of a picture: [B, 8, 8, 3] -> [B, 4]."""
    return images.mean(-1).reshape(-1, 2, 4, 2, 4).mean((2, 4)).reshape(-1, 4) * params


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The toy system with a small feature network in the place of Inception, and with a probe of its own."""
    spec = importlib.util.spec_from_file_location("jaxgan.systems.toy", Path(__file__).parent / "toy.py")
    module, opened = importlib.util.module_from_spec(spec), pipeline.open_source
    sys.modules["jaxgan.systems.toy"] = module
    spec.loader.exec_module(module)

    def small() -> features.Measure:
        return features.network_measure("quarters", 4, brightness, np.float32(1), lambda image: image.astype(np.float32) / 255, {})

    monkeypatch.setattr(features, "inception", small)
    yield module
    pipeline.open_source = opened
    del sys.modules["jaxgan.systems.toy"]


def with_probe(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the toy system a probe 'level': the mean of its images, and how many it looked at."""
    plain = toy.system

    def system(config: Any) -> Any:
        made = plain(config)

        def add(sums: Any, state: Any, batch: Any, key: jax.Array) -> Any:
            n = batch["image"].shape[0]
            return {"n": sums["n"] + float(n), "total": sums["total"] + made.sample(state, key, n).mean((1, 2, 3)).sum()}

        probe = Probe(
            lambda: {"n": np.zeros((), np.float32), "total": np.zeros((), np.float32)},
            add,
            lambda a, b: {name: a[name] + b[name] for name in a},
            lambda sums: {"level": float(sums["total"] / sums["n"]), "images": float(sums["n"])},
        )
        return made._replace(probes={"level": probe})

    monkeypatch.setattr(toy, "system", system)


def test_a_run_that_is_told_to_stop_saves_before_its_probes(toy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Probes may take minutes, and what sent the signal may not wait for them."""
    calls = []

    def fail_while_stopping(self: Any, state: Any) -> dict[str, float]:
        calls.append(int(state.step))
        if calls[-1] == 10:
            raise KeyboardInterrupt
        return {}

    monkeypatch.setattr("jaxgan.train.Probes.__call__", fail_while_stopping)
    monkeypatch.setattr("jaxgan.train.Stop.__call__", lambda self, step: step == 10)
    with pytest.raises(KeyboardInterrupt):
        train(toy.experiment(**PROBED), tmp_path, quiet=True)
    assert calls == [0, 10] and checkpoint.steps_in(tmp_path / "checkpoints") == [10]


def leaves(workdir: Path) -> dict[str, str]:
    step = checkpoint.steps_in(workdir / "checkpoints")[-1]
    manifest = json.loads((workdir / "checkpoints" / str(step) / "manifest" / "metadata").read_text())
    return {name: leaf[2] for name, leaf in manifest["leaves"].items()} | {"positions": manifest["positions"]}


def log(workdir: Path) -> list[dict[str, Any]]:
    lines = report.read_metrics(workdir / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name not in report.CLOCK} for line in lines]


def test_a_run_is_the_same_with_and_without_probes_and_resumes_to_the_same_values(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(toy.experiment(kimg=0.4), tmp_path / "plain", quiet=True) == Result(25, 25, "finished")
    with_probe(toy, monkeypatch)
    assert train(toy.experiment(**PROBED), tmp_path / "probed", quiet=True) == Result(25, 25, "finished")
    assert leaves(tmp_path / "probed") == leaves(tmp_path / "plain")
    lines = {line["step"]: line for line in log(tmp_path / "probed")}
    names = {"fid", "precision", "recall", "density", "coverage", "level", "level/images"}
    assert {step for step, line in lines.items() if names <= line.keys()} == {0, 10, 20, 25}
    for line in log(tmp_path / "plain"):
        assert line.items() <= lines[line["step"]].items(), "what was logged without probes is logged with them"
    assert lines[10]["level/images"] == 80, "batches of 16 until 70 images are there"

    assert train(toy.experiment(**PROBED), tmp_path / "parts", quiet=True, stop_after_steps=10).status == "stopped"
    assert train(toy.experiment(**PROBED), tmp_path / "parts", quiet=True).status == "finished"
    assert log(tmp_path / "parts") == log(tmp_path / "probed") and leaves(tmp_path / "parts") == leaves(tmp_path / "probed")


def test_a_systems_own_probe_is_given_what_is_held_out_from_training(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batch by batch, each sample once, as it is, and rounded up to whole batches."""
    plain, asked = toy.system, []

    def held(data: Any, n: int) -> dict[str, np.ndarray]:
        asked.append((data.source, n))
        return {"number": np.arange(n, dtype=np.int32)}

    def system(config: Any) -> Any:
        def add(sums: Any, state: Any, batch: Any, key: jax.Array) -> Any:
            assert set(batch) == {"number"}
            return jnp.concatenate([sums, batch["number"]])

        def read(sums: np.ndarray) -> dict[str, float]:
            assert sums.tolist() == list(range(80))
            return {"order": float(len(sums))}

        probe = Probe(lambda: np.zeros(0, np.int32), add, lambda a, b: np.concatenate([a, b]), read)
        made = plain(config)
        reads = Reads(lambda data: toy.Pictures(), lambda n: {"image": np.zeros((n, 8, 8, 1), np.uint8)}, held)
        return made._replace(probes={"order": probe}, reads=reads)

    monkeypatch.setattr(toy, "system", system)
    settings = PROBED | {"probes": (), "kimg": 0.16}
    assert train(toy.experiment(**settings), tmp_path / "run", quiet=True).status == "finished"
    assert asked == [("toy", 80)]
    assert {line["step"]: line["order"] for line in log(tmp_path / "run") if "order" in line} == {0: 80, 10: 80}


def test_the_score_is_that_of_the_averaged_networks_and_reals_are_computed_once(toy: Any, tmp_path: Path) -> None:
    experiment = toy.experiment(**PROBED)
    train(experiment, tmp_path / "run", quiet=True, stop_after_steps=10)
    kept = (tmp_path / "run" / "probes" / "features.safetensors").read_bytes()
    step, arrays = checkpoint.load_networks(tmp_path / "run" / "checkpoints")
    assert step == 10
    key = jax.random.fold_in(jax.random.key(experiment.run.seed), np.uint32(2**32 - 3))
    ema, fakes = generators.nested(arrays, "ema")["G"], []
    for block in range(2):
        latents = jax.random.normal(jax.random.fold_in(key, np.uint32(block)), (64, 4))
        fakes.append(jnp.tanh(jnp.tanh(latents @ ema["into"]) @ ema["out"]).reshape(64, 8, 8, 1))
    fakes = np.round((np.concatenate(fakes)[:70].astype(np.float64) + 1) * 127.5).clip(0, 255)
    reals = np.stack([toy.Pictures()[i]["image"] for i in range(64)]).astype(np.float64)
    rows = [(images / 255).reshape(-1, 2, 4, 2, 4).mean((2, 4)).reshape(-1, 4) for images in (reals, fakes)]
    line = next(line for line in log(tmp_path / "run") if line["step"] == 10)
    assert line["fid"] == pytest.approx(frechet.from_rows(*rows).total, rel=1e-3)
    train(experiment, tmp_path / "run", quiet=True)
    assert (tmp_path / "run" / "probes" / "features.safetensors").read_bytes() == kept


def test_probes_may_change_when_a_run_is_resumed(toy: Any, tmp_path: Path) -> None:
    train(toy.experiment(kimg=0.4), tmp_path / "run", quiet=True, stop_after_steps=10)
    changed = toy.experiment(**(PROBED | {"probe_images": 40}))
    assert train(changed, tmp_path / "run", quiet=True).status == "finished"
    assert [line["step"] for line in log(tmp_path / "run") if "fid" in line] == [20, 25]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probes": ("fidd",)}, "there is no probe 'fidd'; nearest: fid"),
        ({"probes": ()}, "names nothing to measure"),
        ({"probes": ("fsd",)}, "fsd needs run.probe_segmenter"),
        ({"probe_images": 4}, "run.probe_images = 4: these probes need at least 6"),
        ({"probe_every": -1}, "run.probe_every = -1: give at least 0"),
    ],
)
def test_probes_that_cannot_work_are_refused_with_nothing_written(toy: Any, tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(toy.experiment(**(PROBED | change)), tmp_path / "run", quiet=True)
    assert not list((tmp_path / "run").glob("*"))


def test_a_set_with_too_few_images_is_refused_with_nothing_written(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy.Pictures, "__len__", lambda self: 5)
    with pytest.raises(ValueError, match="fid, prdc need at least 6 reals, and the data holds 5"):
        train(toy.experiment(**PROBED, batch=2, mesh=(0, 4)), tmp_path / "run", quiet=True)
    assert not list((tmp_path / "run").glob("*"))


def test_missing_weights_are_said_before_anything_is_written(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("JAXGAN_WEIGHTS", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError, match="inception"):
        train(toy.experiment(**PROBED), tmp_path / "run", quiet=True)
    assert not list((tmp_path / "run").glob("*"))
