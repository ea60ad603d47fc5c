"""The log and the status line: complete, whole after an interruption, and silent in all processes but the first."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxgan import files, report, viz
from jaxgan.report import Report


@pytest.fixture(autouse=True)
def no_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)


def filled(workdir: Path, last: int) -> Path:
    log = Report(workdir, steps=100, batch=10, quiet=True)
    log.begin(0)
    for step in range(10, last + 1, 10):
        log.log(step, {"loss/G": step / 7, "gp": 0.5}, rate=200.0)
    log.close()
    return workdir / "metrics.jsonl"


def test_each_logged_step_is_one_json_line(tmp_path: Path) -> None:
    lines = [json.loads(text) for text in filled(tmp_path, 30).read_text().splitlines()]
    assert [(line["step"], line["kimg"], line["loss/G"]) for line in lines] == [(s, s / 100, s / 7) for s in (10, 20, 30)]
    assert lines[0]["images_per_second"] == 200.0 and lines[0]["seconds_per_kimg"] == 5.0
    assert {"seconds", "memory_gb"} <= set(lines[0]) and "mfu" not in lines[0]


def test_a_number_that_is_not_finite_is_null_and_not_broken_json(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    log = Report(tmp_path, steps=100, batch=10)
    log.begin(0)
    log.log(10, {"loss/G": float("nan"), "gp": float("inf")}, rate=None)
    log.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["gp"] is None
    assert "G not finite  gp not finite" in capsys.readouterr().out


def test_lines_behind_the_restored_step_and_a_torn_one_are_dropped(tmp_path: Path) -> None:
    path = filled(tmp_path, 50)
    with path.open("a") as file:
        file.write('{"step": 55, "los')
    log = Report(tmp_path, steps=100, batch=10, quiet=True)
    log.begin(30)
    log.log(40, {}, rate=None)
    log.close()
    assert [json.loads(text)["step"] for text in path.read_text().splitlines()] == [10, 20, 30, 40]
    assert "images_per_second" not in report.read_metrics(path)[-1]


def test_a_run_that_begins_anew_has_an_empty_log(tmp_path: Path) -> None:
    path = filled(tmp_path, 20)
    Report(tmp_path, steps=100, batch=10, quiet=True).begin(0)
    assert path.read_text() == ""


def test_only_the_first_process_writes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    log = Report(tmp_path / "run", steps=100, batch=10, main=False)
    log.begin(0)
    log.log(10, {"loss/G": 1.0}, rate=1.0)
    log.images("reals", np.zeros((1, 4, 4, 3), np.uint8))
    log.say("hello")
    log.close()
    assert not (tmp_path / "run").exists() and capsys.readouterr().out == ""


def test_the_status_line_tells_losses_first_and_the_time_left(tmp_path: Path) -> None:
    log = Report(tmp_path, steps=2000, batch=50, quiet=True)
    line = {"step": 500, "kimg": 25.0, "gp": 0.25, "loss/D": -1.5, "loss/G": 2.0, "memory_gb": 1.5}
    assert log.status(line) == "kimg 25.0/100.0  D -1.500  G 2.000  gp 0.250  1.50 GB"
    timed = log.status(line | {"images_per_second": 100.0, "seconds_per_kimg": 10.0, "mfu": 0.215})
    assert timed == "kimg 25.0/100.0  100.0 images/s  10.0 s/kimg  D -1.500  G 2.000  gp 0.250  1.50 GB  MFU 21.5 %  ETA 12 m 30 s"


@pytest.mark.parametrize(
    ("seconds", "text"), [(59.4, "59 s"), (60, "1 m 00 s"), (3599.7, "1 h 00 m"), (90000, "25 h 00 m"), (200000, "2 d 07 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert report.duration(seconds) == text


def test_on_a_terminal_one_live_line_is_rewritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "200")
    log = Report(tmp_path, steps=100, batch=10)
    log.begin(0)
    for step in (10, 20, 30):
        log.log(step, {"loss/G": 1.0}, rate=None)
    log.close()
    out = capsys.readouterr().out
    assert "kimg 0.100" in out and "kimg 0.300" in out and out.count("\n") == 1, repr(out)


def test_a_grid_with_values_that_are_not_finite_is_still_written(tmp_path: Path) -> None:
    images = np.zeros((1, 4, 4, 3), np.float32)
    images[0, 0, 0] = np.nan
    Report(tmp_path, steps=1, batch=1, quiet=True).images("fakes_00000001", images)
    sheet = viz.read_png(tmp_path / "samples" / "fakes_00000001.png")
    assert (sheet[0, 0] == 0).all() and (sheet[1, 1] == 128).all()


def test_tensorboard_gets_the_numbers_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int | None):
            self.calls: list[Any] = [(folder, purge_step)]
            writers.append(self)

        def add_scalar(self, *arguments: Any) -> None:
            self.calls.append(arguments)

        def close(self) -> None:
            raise OSError(28, "No space left on device")

    writers: list[SummaryWriter] = []
    monkeypatch.setitem(sys.modules, "tensorboardX", type("Module", (), {"SummaryWriter": SummaryWriter}))
    log = Report(tmp_path, steps=100, batch=10, quiet=True)
    log.begin(20)
    log.log(30, {"loss/G": 1.0}, rate=None)
    log.close()  # its full disk is not the run's
    assert writers[0].calls[0] == (str(tmp_path), 21) and ("loss/G", 1.0, 30) in writers[0].calls


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_atomic(tmp_path / "a", b"old")
    write = type(tmp_path).write_bytes

    def half(self: Path, data: bytes) -> int:
        write(self, data[:2])
        raise OSError(28, "No space left on device")

    from etils import epath

    monkeypatch.setattr(type(epath.Path(tmp_path)), "write_bytes", half)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(tmp_path / "a", b"new content")
    assert (tmp_path / "a").read_bytes() == b"old" and [path.name for path in tmp_path.iterdir()] == ["a"]
