"""The loop: a run that was interrupted is the run that was not, and what goes wrong is said before it does harm."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from workdirs import log, newest

from jaxgan import checkpoint, configure, files, report, viz
from jaxgan.checkpoint import Checkpoints
from jaxgan.data import pipeline
from jaxgan.train import Result, dry_run, train

# Where one array cannot be read, orbax closes its event loop while other reads still come in; their threads then complain to nobody.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ROOT = Path(__file__).resolve().parent.parent


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


@pytest.fixture(scope="module")
def whole(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 steps without interruption."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    assert train(toy.experiment(), workdir, quiet=True) == Result(40, 40, "finished")
    return workdir


@pytest.fixture
def started(_started: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_started, tmp_path / "run"))


@pytest.fixture(scope="module")
def _started(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, stopped after 23 steps; steps 10, 20 and 23 are saved."""
    workdir = tmp_path_factory.mktemp("started") / "run"
    assert train(toy.experiment(), workdir, quiet=True, stop_after_steps=23) == Result(23, 40, "stopped")
    return workdir


def start(workdir: Path, seconds: float = 0.02, **options: Any) -> subprocess.Popen:
    """The run in a process of its own, on as many devices as here."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TOY_SECONDS": str(seconds)}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "toy.py"), str(workdir), json.dumps(options)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition: Any, process: subprocess.Popen, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "the process took too long"
        time.sleep(0.01)


def test_a_workdir_holds_what_it_should(whole: Path) -> None:
    assert configure.read(whole / "config.json").run.kimg == 0.64
    assert checkpoint.steps_in(whole / "checkpoints") == [20, 30, 40]
    assert [line["step"] for line in log(whole)] == list(range(5, 45, 5))
    assert {"loss/D", "loss/G", "data", "kimg"} <= set(log(whole)[0])
    samples = sorted(path.name for path in (whole / "samples").iterdir())
    assert samples == ["fakes_00000000.png", "fakes_00000020.png", "fakes_00000040.png", "reals.png"]
    first, last = (viz.read_png(whole / "samples" / samples[index]) for index in (0, 2))
    assert first.shape == (18, 18, 3) and (first != last).any()
    assert not [path for path in whole.rglob("*") if "tmp" in path.name]


def test_stopped_twice_and_resumed_is_the_same_run(toy: Any, whole: Path, started: Path) -> None:
    assert train(toy.experiment(), started, quiet=True, stop_after_steps=8) == Result(31, 40, "stopped")
    assert train(toy.experiment(), started, quiet=True) == Result(40, 40, "finished")
    assert newest(started) == newest(whole)
    assert log(started) == log(whole)


def test_a_finished_run_says_so_and_changes_nothing(toy: Any, whole: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    assert train(toy.experiment(), whole) == Result(40, 40, "already finished")
    assert "already finished (40 steps, 0.64 kimg)" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()} == before


def test_a_schedule_of_another_length_is_said_and_none_goes_on_at_rates_of_zero():
    from jaxgan.run_checks import check_schedule

    assert check_schedule(40, 0, 40) == check_schedule(0, 30, 40) == []
    assert check_schedule(0, 0, 40) == check_schedule(40, 40, 40) == []
    assert "model.steps is 60" in check_schedule(60, 0, 40)[0]
    assert "the run has 40 steps" in check_schedule(30, 10, 40)[0]
    with pytest.raises(ValueError, match=r"fallen to 0 at step 30 .* stands at 30.*--run.start"):
        check_schedule(30, 30, 40)


def test_the_console_has_one_line_per_log_with_everything_in_it(toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train(toy.experiment(), tmp_path / "run", stop_after_steps=10)
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("kimg ")]
    assert len(lines) == 2
    rate, losses = r"[\d.]+ images/s  [\d.]+ s/kimg", r"D [\d.]+  G [\d.]+  data \S+"
    assert re.fullmatch(rf"kimg 0\.160/0\.640  {rate}  {losses}  [\d.]+ GB  ETA .+", lines[1]), lines[1]
    assert "Stopped at step 10 of 40; the same command resumes." in out
    train(toy.experiment(), tmp_path / "run", stop_after_steps=1, quiet=True)
    assert capsys.readouterr().out == ""


def test_killed_and_resumed_is_the_same_run(toy: Any, whole: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    process = start(workdir)
    wait_for(lambda: checkpoint.steps_in(workdir / "checkpoints"), process)
    time.sleep(random.uniform(0, 0.3))
    process.kill()
    process.communicate()
    assert train(toy.experiment(), workdir, quiet=True).status == "finished"
    assert newest(workdir) == newest(whole) and log(workdir) == log(whole)


def test_sigterm_saves_and_exits_0(toy: Any, whole: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    process = start(workdir, save_every=1000)
    wait_for(lambda: report.read_metrics(workdir / "metrics.jsonl"), process)
    process.terminate()
    out = process.communicate(timeout=60)[0]
    stopped = re.search(r"Stopped at step (\d+) of 40; the same command resumes", out)
    assert process.returncode == 0 and stopped, out
    assert checkpoint.steps_in(workdir / "checkpoints") == [int(stopped[1])]
    train(toy.experiment(), workdir, quiet=True)
    assert newest(workdir) == newest(whole) and log(workdir) == log(whole)


def test_interrupt_saves_and_returns(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_SECONDS", "0.05")
    handler, workdir = signal.getsignal(signal.SIGINT), tmp_path / "run"

    def interrupt() -> None:
        while not report.read_metrics(workdir / "metrics.jsonl"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    result = train(toy.experiment(), workdir, quiet=True)
    assert result.status == "stopped" and 5 <= result.step < 40
    assert checkpoint.steps_in(workdir / "checkpoints")[-1] == result.step
    assert signal.getsignal(signal.SIGINT) is handler, "the caller's handler is back"


@pytest.mark.slow
def test_twenty_random_kills_leave_the_same_run(toy: Any, tmp_path: Path) -> None:
    options = {"kimg": 3.2, "save_every": 3, "log_every": 2, "sample_every": 50}
    reference, workdir = tmp_path / "reference", tmp_path / "run"
    train(toy.experiment(**options), reference, quiet=True)
    kills = 0
    while kills < 20:
        before = (checkpoint.steps_in(workdir / "checkpoints") or [0])[-1]
        process = start(workdir, seconds=0.05, **options)
        # At least one save further, so that the run comes to an end, and not so far that it ends before the twentieth kill.
        wait_for(lambda: (checkpoint.steps_in(workdir / "checkpoints") or [0])[-1] > before, process)  # noqa: B023
        time.sleep(random.uniform(0, 0.2))
        process.kill()
        process.communicate()
        kills += 1
    assert train(toy.experiment(**options), workdir, quiet=True).status == "finished"
    assert newest(workdir) == newest(reference) and log(workdir) == log(reference)


def test_a_damaged_newest_checkpoint_costs_steps_but_not_the_run(
    toy: Any, whole: Path, started: Path, capsys: pytest.CaptureFixture
) -> None:
    for path in (started / "checkpoints" / "23" / "arrays").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:-40])
    assert train(toy.experiment(), started).status == "finished"
    out = capsys.readouterr().out
    assert "checkpoint 23 is damaged" in out and "going on from step 20" in out
    assert newest(started) == newest(whole) and log(started) == log(whole)


def test_resumes_on_another_mesh(toy: Any, whole: Path, started: Path) -> None:
    assert train(toy.experiment(mesh=(4, 2), keep=1), started, quiet=True).status == "finished"
    state = {}
    for workdir in (started, whole):
        _, state[workdir] = checkpoint.load_networks(workdir / "checkpoints")
    for name, array in state[whole].items():
        np.testing.assert_allclose(state[started][name], array, rtol=1e-5, atol=1e-6, err_msg=name)
    assert checkpoint.steps_in(started / "checkpoints") == [40]


def test_another_configuration_is_refused_with_its_fields(toy: Any, started: Path) -> None:
    before = {path: path.read_bytes() for path in started.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"holds another run: model\.width is 8 there and 9 here; run\.seed is 3 there and 4 here"):
        train(toy.experiment({"width": 9}, seed=4), started, quiet=True)
    assert {path: path.read_bytes() for path in started.rglob("*") if path.is_file()} == before


def test_a_checkpoint_of_another_configuration_is_refused_by_leaf(toy: Any, started: Path) -> None:
    configure.write(toy.experiment({"width": 9}), started / "config.json")
    before = {path: path.read_bytes() for path in started.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"ema/G/into is \[4, 8\] float32 in it and \[4, 9\] float32 in this run"):
        train(toy.experiment({"width": 9}), started, quiet=True)
    assert {path: path.read_bytes() for path in started.rglob("*") if path.is_file()} == before


def test_a_longer_run_and_other_intervals_may_be_asked_for(toy: Any, started: Path, capsys: pytest.CaptureFixture) -> None:
    assert train(toy.experiment(kimg=0.48, log_every=3), started) == Result(30, 30, "finished")
    assert "run.kimg was 0.64 and is 0.48 from now on." in capsys.readouterr().out
    assert configure.read(started / "config.json").run.kimg == 0.48
    assert [line["step"] for line in log(started)] == [5, 10, 15, 20, 24, 27, 30]


def test_a_run_can_begin_from_the_networks_of_another(toy: Any, whole: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"
    train(toy.experiment(start=str(whole), seed=5, sample_every=0), workdir, quiet=True, stop_after_steps=1)
    _, begun = checkpoint.load_networks(whole / "checkpoints")
    found = Checkpoints(workdir / "checkpoints").restore(jax.eval_shape(toy.Config().system().init, jax.random.key(0)))
    assert found.step == 1 and found.state.opt["G"][0].count == 1
    assert np.abs(found.state.params["G"]["out"] - begun["params/G/out"]).max() < 0.011, "one Adam step of 0.01 away"
    with pytest.raises(ValueError, match=r"run\.start = .*the networks do not fit: .*params/G/into is \[4, 8\] there and \[4, 9\] here"):
        train(toy.experiment({"width": 9}, start=str(whole)), tmp_path / "other", quiet=True)
    assert not list((tmp_path / "other").glob("*"))


def test_a_value_that_is_not_finite_stops_the_run_and_is_named(toy: Any, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"step 14, player G: the gradient of G/out is not finite.*the last checkpoint, step 10"):
        train(toy.experiment({"bad_step": 13}), tmp_path / "run", quiet=True)
    assert checkpoint.steps_in(tmp_path / "run" / "checkpoints") == [10]
    _, arrays = checkpoint.load_networks(tmp_path / "run" / "checkpoints")
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert [line["step"] for line in log(tmp_path / "run")] == [5, 10]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 12}, "batch 12 does not divide over the 8 devices"),
        ({"mesh": (3, 1)}, r"mesh \(3, 1\) does not use the 8 devices"),
        ({"kimg": 0.0}, "run.kimg = 0.0"),
        ({"keep": 0}, "run.keep = 0: give at least 1"),
        ({"start": "/nowhere"}, "no intact checkpoint in /nowhere/checkpoints"),
    ],
)
def test_a_run_that_cannot_work_is_refused_with_nothing_written(toy: Any, tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(toy.experiment(**change), tmp_path / "run", quiet=True)
    assert not list((tmp_path / "run").glob("*"))


def test_too_little_space_is_said_before_anything_is_written(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 5000, 5000))
    with pytest.raises(OSError, match=r"has 0\.0 MB free and this run's checkpoints need .* MB: free some space"):
        train(toy.experiment(), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_workdir_that_cannot_be_written_is_said(toy: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write to .*file/run.*choose a workdir that can be written"):
        train(toy.experiment(), tmp_path / "file" / "run", quiet=True)


@contextlib.contextmanager
def small_disk(path: Path) -> Any:
    """A file system of 1 MB."""
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_disk_that_fills_up_ends_in_one_error_and_can_be_resumed(
    toy: Any, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk"):
        workdir, save = tmp_path / "disk" / "run", Checkpoints.save

        def fill_then_save(self: Checkpoints, step: int, *rest: Any) -> None:
            if step == 20:
                self.wait()
                with contextlib.suppress(OSError), open(tmp_path / "disk" / "filler", "wb", buffering=0) as file:
                    while True:
                        file.write(b"x" * 4096)
            save(self, step, *rest)

        monkeypatch.setitem(sys.modules, "tensorboardX", None)  # its thread would find the disk full first
        with monkeypatch.context() as patch:
            patch.setattr(Checkpoints, "save", fill_then_save)
            with pytest.raises(OSError, match=r"no checkpoint was written: saving .* failed .*\[10\] before it.*Free some space"):
                train(toy.experiment(), workdir, quiet=True)
        (tmp_path / "disk" / "filler").unlink()
        assert checkpoint.steps_in(workdir / "checkpoints") == [10]
        assert train(toy.experiment(), workdir, quiet=True).status == "finished"
        assert newest(workdir) == newest(whole) and log(workdir) == log(whole)


def test_dry_run_counts_and_writes_nothing(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = dry_run(toy.experiment())
    assert "model.width = 8" in text and "run.batch = 16" in text
    assert f"G: {4 * 8 + 8 * 64:,} parameters in 2 arrays" in text and "D: 65 parameters in 2 arrays" in text
    assert "40 steps of 16 samples on 8 × cpu, mesh (8, 1)" in text and "batch image: [16, 8, 8, 1] float32" in text
    # The products alone are more than 2,000 multiplications a sample, and all of it less than 20,000.
    flops = float(re.search(r"FLOPs of a step: ([\d.e+]+)", text)[1])
    assert 16 * 2 * 2000 < flops < 16 * 2 * 20000
    assert "Memory per device" in text and not list(tmp_path.iterdir())


def test_a_profiler_window_leaves_a_trace(toy: Any, tmp_path: Path) -> None:
    train(toy.experiment(sample_every=0), tmp_path / "run", quiet=True, stop_after_steps=4, trace=(2, 3))
    assert list((tmp_path / "run" / "traces").rglob("*.xplane.pb"))


def test_what_a_source_says_of_an_epoch_is_in_its_first_line_and_repeats_when_the_run_is_resumed(
    toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watched(toy.Pictures):
        """64 pictures, 16 a step: an epoch has four steps."""

        def watch(self, epoch: int) -> dict[str, float]:
            return {"watched": float(epoch)}

    monkeypatch.setattr(pipeline, "open_source", lambda data, image: Watched())
    settings = {"kimg": 0.24, "log_every": 3, "save_every": 0, "samples": 0}
    assert train(toy.experiment(**settings), tmp_path / "whole", quiet=True).status == "finished"
    found = {line["step"]: line.get("watched") for line in log(tmp_path / "whole")}
    assert found == {3: 0, 6: 1, 9: 2, 12: 3, 15: None}
    assert train(toy.experiment(**settings), tmp_path / "parts", quiet=True, stop_after_steps=7).status == "stopped"
    assert train(toy.experiment(**settings), tmp_path / "parts", quiet=True).status == "finished"
    assert log(tmp_path / "parts") == log(tmp_path / "whole")
