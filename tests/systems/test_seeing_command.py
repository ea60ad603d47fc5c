"""`jaxgan seeing` from the command line: what it prints and writes, and what it refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jaxgan.__main__ import main


def test_the_command_prints_the_result_writes_the_report_and_remembers_what_it_segmented(tmp_path: Path, capsys) -> None:
    argv = ["seeing", "--real", "scenes:32", "--fake", "scenes:32", "--segmenter", "labels", "--out", str(tmp_path / "out"), "--n", "60"]
    argv += ["--resamples", "40", "--class", "person", "window", "--images", "1", "--cache", str(tmp_path / "cache")]
    assert main(argv) == 0
    said = capsys.readouterr()
    assert said.out.startswith("nothing is missing") and "\nFSD " in said.out and "\nreal against real " in said.out and said.err == ""
    assert "warning: Only 60 real and 60 fake images" in said.out and said.out.rstrip().endswith("report.html")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"report.html", "report.json", "classes.csv", "images.csv", "figure.png", "figure-dark.png", "images"}
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {gallery["name"] for gallery in report["galleries"]} <= {"person", "window"} and report["galleries"]
    first = said.out
    assert main(argv) == 0
    said = capsys.readouterr()
    assert said.err.count("60 of 60 images were segmented before") == 2 and said.out == first


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("--real {room} --fake scenes:32 --segmenter labels --out {room}/out", "holds no image"),
        ("--real scenes:32 --fake scenes:32 --segmenter lables --out {room}/out", "nearest: labels"),
        ("--real scenes:32 --fake scenes:32 --segmenter labels --out {room}/out --class persn", "nearest: person"),
        ("--real scenes:32 --fake scenes:32 --segmenter labels --out {room}/out --batch 0", "batch is 0; it must be at least 1"),
        ("--real scenes:32 --fake scenes:32 --segmenter labels --out {room}/out --smaple 3", "unknown option --smaple"),
        ("--real scenes:32 --fake scenes:32 --out {room}/out", "--segmenter"),
        ("--real scenes:32 --fake scenes:32 --segmenter onnx:absent --out gs://bucket/out", "gs://bucket/out is not a folder"),
    ],
)
def test_mistakes_are_named_in_one_line_and_nothing_is_written(argv, said, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert main(["seeing", *argv.format(room=tmp_path).split()]) == 2
    message = capsys.readouterr().err
    assert said in message and message.count("\n") == 1 and message.startswith("jaxgan seeing: ")
    assert not list(tmp_path.iterdir())
