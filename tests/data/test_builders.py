"""The scenes dataset on disk: what was drawn is what is read, and a killed preparation leaves no set behind."""

import dataclasses
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jaxgan import configure
from jaxgan.data import builders, drawers, pipeline
from jaxgan.data.scenes import draw_scene

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("size,periodic", [((16, 24), False), ((16, 32), True)])
def test_what_was_drawn_is_read(tmp_path, size, periodic):
    for split, seed in (("train", 0), ("test", builders.TEST_SEED)):
        data = configure.Data(root=str(tmp_path), count=30, periodic=periodic, split=split)
        source = pipeline.open_source(data, (*size, 3), labels=True)
        assert len(source) == (30 if split == "train" else 16)
        for index in range(len(source)):
            image, labels = draw_scene(index, *size, periodic=periodic, seed=seed)
            record = source[index]
            np.testing.assert_array_equal(record["image"], image)
            np.testing.assert_array_equal(record["label"], labels)


def test_a_set_without_classes_is_another_set_and_the_order_of_their_names_does_not_matter(tmp_path):
    data = configure.Data(root=str(tmp_path), count=30)
    plain = pipeline.open_source(data, (16, 16, 3), labels=True)
    without = [
        pipeline.open_source(dataclasses.replace(data, without=names), (16, 16, 3), labels=True)
        for names in (("boat", "car"), ("car", "boat"))
    ]
    assert sorted(path.name for path in (tmp_path / "scenes").iterdir()) == ["16x16-30", "16x16-without-car-without-boat-30"]
    for index in range(30):
        image, labels = draw_scene(index, 16, 16, without=("boat", "car"))
        for source in without:
            np.testing.assert_array_equal(source[index]["image"], image)
            np.testing.assert_array_equal(source[index]["label"], labels)
    assert any((plain[index]["image"] != without[0][index]["image"]).any() for index in range(30))


def test_several_processes_draw_without_a_class():
    alone = list(drawers.draw_pngs(200, 16, 16, periodic=False, seed=0, without=("boat",)))
    assert alone == list(drawers.draw_pngs(200, 16, 16, periodic=False, seed=0, without=("boat",), processes=2))
    assert alone != list(drawers.draw_pngs(200, 16, 16, periodic=False, seed=0))


def test_what_cannot_be_left_out_is_refused_with_nothing_drawn(tmp_path):
    with pytest.raises(ValueError, match="scenes cannot be drawn without 'grass'"):
        pipeline.open_source(configure.Data(root=str(tmp_path), without=("grass",)), (16, 16, 3))
    with pytest.raises(ValueError, match="data.without is boat: only scenes are drawn without a class"):
        pipeline.open_source(configure.Data(source=str(tmp_path), without=("boat",)), (16, 16, 3))
    assert not list(tmp_path.iterdir())


def test_several_processes_draw_the_same_in_the_same_order():
    alone = list(drawers.draw_pngs(200, 16, 16, periodic=False, seed=0))
    together = list(drawers.draw_pngs(200, 16, 16, periodic=False, seed=0, processes=2))
    assert alone == together


def test_a_failing_drawer_is_an_error_not_a_short_set():
    with pytest.raises(RuntimeError, match="at scene 0 of 100"):
        list(drawers.draw_pngs(100, 8, 8, periodic=False, seed=0, processes=2))


def test_a_set_is_drawn_once(tmp_path, monkeypatch):
    data = configure.Data(root=str(tmp_path), count=16)
    pipeline.open_source(data, (16, 16, 3))
    monkeypatch.setattr(drawers, "draw_pngs", lambda *_, **__: pytest.fail("drawn again"))
    pipeline.open_source(data, (16, 16, 3))


def test_a_killed_preparation_is_not_taken_for_a_set(tmp_path):
    code = "import sys; from jaxgan.data import builders; builders.prepare_scenes(sys.argv[1], 16, 16, periodic=False, count=999)"
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment, stderr=subprocess.DEVNULL)
    home = tmp_path / "scenes" / "16x16-999"
    deadline = time.monotonic() + 60
    while not list(home.glob("*incomplete*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    child.kill()
    assert child.wait() == -9
    assert list(home.glob("*incomplete*")) and not (home / "1.0.0").exists()
    source = pipeline.open_source(configure.Data(root=str(tmp_path), count=999), (16, 16, 3))
    assert len(source) == 999
    np.testing.assert_array_equal(source[998]["image"], draw_scene(998, 16, 16)[0])
    assert not list(home.glob("*incomplete*"))


# The child only lowers its limit and executes; a jax that an earlier test started in this process warns of the fork.
@pytest.mark.filterwarnings("ignore:os.fork", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_is_one_message_and_no_set(tmp_path):
    """Files may not grow beyond 20 kB here."""

    def small_disk():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    code = "import sys; from jaxgan.data import builders; builders.prepare_scenes(sys.argv[1], 32, 32, periodic=False, count=100)"
    environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1")
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, env=environment, preexec_fn=small_disk, capture_output=True, text=True)
    assert done.returncode == 1
    assert "make room there or name another folder" in done.stderr.splitlines()[-1], done.stderr
    assert [path.name for path in (tmp_path / "scenes" / "32x32-100").iterdir()] == [".lock"]


def test_a_root_that_cannot_be_written_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match=r"cannot be prepared under .*JAXGAN_DATA"):
        pipeline.open_source(configure.Data(root=str(tmp_path / "file"), count=16), (16, 16, 3))


def test_scenes_refuse_what_they_cannot_give(tmp_path):
    with pytest.raises(ValueError, match="3 channels, the model wants 1"):
        pipeline.open_source(configure.Data(root=str(tmp_path)), (16, 16, 1))
    with pytest.raises(ValueError, match="at least 1 image"):
        pipeline.open_source(configure.Data(root=str(tmp_path), count=0), (16, 16, 3))
    with pytest.raises(ValueError, match="16 to 1024 pixels"):
        pipeline.open_source(configure.Data(root=str(tmp_path)), (8, 8, 3))
    assert not list(tmp_path.rglob("*.array_record*"))


def test_the_root_comes_from_the_setting_then_the_environment_then_the_cache(monkeypatch):
    monkeypatch.setenv("JAXGAN_DATA", "/from/environment")
    assert pipeline.data_root("/given") == "/given"
    assert pipeline.data_root() == "/from/environment"
    monkeypatch.delenv("JAXGAN_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert pipeline.data_root() == "/cache/jaxgan/data"
