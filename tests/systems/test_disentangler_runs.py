"""Both disentanglers as they are started: killed without warning and started again they are the same run, and they log their swaps."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from workdirs import log, newest

from jaxgan import checkpoint, configure, generators, retrieval, swap_scores
from jaxgan.data import clips as sets
from jaxgan.nets.identity_pose import PoseEncoder
from jaxgan.swapping import open_swapper

ROOT = Path(__file__).resolve().parent.parent.parent
STEPS = 60
EVOLVES = {
    "identity_pose_figures32": {"model/phi/rho", "model/phi/v", "model/D/spectral/", "ema/G/", "ema/E_id/", "ema/E_pose/", "opt/phi/"},
    "robust_disentangling_figures": {
        *("model/T/multiplier", "model/T/average", "model/T/updates", "model/T_prime/gamma", "model/T_prime/average"),
        *("ema/D/", "ema/E_pi/", "ema/E_alpha/", "opt/T_prime/"),
    },
}
"""Leaves, or what they begin with, that a run is beside its networks: by config card."""
CHANGES: dict[str, dict[str, Any]] = {
    "identity_pose_figures32": {"triplets.features": "encoder", "triplets.renew": 7},
    "robust_disentangling_figures": {"ema": 0.05, "epsilon": -1.0, "mu": 0.5},  # the constraint pulls from the first steps
}
pytestmark = pytest.mark.slow


def settings(family: str, root: Path) -> dict[str, Any]:
    """Fields that replace those of the card's tiny()."""
    run = {"kimg": STEPS * 8 / 1000, "log_every": 1, "save_every": 4, "sample_every": 0, "samples": 0, "probe_every": 30}
    model = CHANGES[family] | {"steps": STEPS}
    return {
        "data.root": str(root),
        "run.probe_images": 12,
        **{f"run.{name}": value for name, value in run.items()},
        **{f"model.{name}": value for name, value in model.items()},
    }


def start(family: str, root: Path, workdir: Path) -> subprocess.Popen:
    """The run by the command line, in a process of its own, on one device: its program is compiled in a third of the time."""
    words = [word for name, value in settings(family, root).items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "jaxgan", "train", str(ROOT / "configs" / f"{family}.py"), "--tiny", "--workdir", str(workdir)]
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": " ".join(flags)}
    return subprocess.Popen([*command, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> str:
    """What it said, once it has ended well."""
    said = process.communicate(timeout=900)[0]
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module", params=sorted(EVOLVES, reverse=True))
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """A run without interruption: (config card, its workdir, root of its data)."""
    folder = tmp_path_factory.mktemp(request.param)
    assert f"Finished at step {STEPS}" in finish(start(request.param, folder / "data", folder / "run"))
    return request.param, folder / "run", folder / "data"


def test_killed_and_started_again_it_is_the_same_run(whole: tuple[str, Path, Path], tmp_path: Path) -> None:
    """The log of every step shows the order of pairs and triplets."""
    family, reference, root = whole
    workdir = tmp_path / "run"

    def saved() -> int:
        return (checkpoint.steps_in(workdir / "checkpoints") or [0])[-1]

    process, end = start(family, root, workdir), time.monotonic() + 900
    while not saved():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, "the process took too long"
        time.sleep(0.02)
    time.sleep(random.uniform(0, 0.3))
    process.kill()
    process.communicate()
    assert 0 < (killed := saved()) < STEPS, "killed in the middle"
    assert f"Resumed at step {killed} " in finish(start(family, root, workdir))

    expected, found = newest(reference), newest(workdir)
    for first in EVOLVES[family]:
        assert any(name.startswith(first) for name in found), first
    assert found == expected
    assert log(workdir) == log(reference)
    assert [line["step"] for line in log(workdir)] == list(range(STEPS + 1))


def test_what_evolves_beside_the_networks_has_moved(whole: tuple[str, Path, Path]) -> None:
    """Else to lose it in a resumed run would change nothing."""
    family, workdir, _ = whole
    _, arrays = checkpoint.load_networks(workdir / "checkpoints")
    if family == "robust_disentangling_figures":
        assert arrays["model/T/multiplier"] > 0 and arrays["model/T_prime/gamma"] != 1 and arrays["model/T/updates"] == STEPS
    else:
        assert arrays["model/phi/rho"] > 0 and arrays["model/phi/v"] < 1
    for name in (name for name in arrays if name.startswith("ema/") and name.endswith("kernel")):
        assert not np.array_equal(arrays[name], arrays["params" + name.removeprefix("ema")]), name


def test_its_neighbours_are_renewed_by_its_own_averaged_encoder_of_poses(whole: tuple[str, Path, Path], tmp_path: Path) -> None:
    family, workdir, root = whole
    if family != "identity_pose_figures32":
        assert not (workdir / "sources").exists()
        return
    assert sorted(int(file.stem) for file in (workdir / "sources").iterdir()) == list(range(7, STEPS, 7))
    config = configure.read(workdir / "config.json")
    clips = sets.open_clips(dataclasses.replace(config.data, root=str(root)), (32, 32, 3))
    frames = np.concatenate([clips.frames(i) for i in range(len(clips))])
    own = np.repeat(clips.group, [clips.length(i) for i in range(len(clips))])
    index = retrieval.read_index(workdir / "sources" / "00000056.npz", len(frames), 8)
    shutil.copytree(workdir / "checkpoints" / "56", tmp_path / "56")
    _, arrays = checkpoint.load_networks(tmp_path)
    networks = generators.nested(arrays, "ema")
    grey = np.repeat((frames.astype(np.float32) / 127.5 - 1).mean(-1, keepdims=True), 3, -1)
    pose = PoseEncoder(config.model.widths)
    codes = np.concatenate([pose.apply({"params": networks["E_pose"]}, part).reshape(len(part), -1) for part in np.array_split(grey, 8)])
    codes = codes.astype(np.float64) / np.linalg.norm(codes.astype(np.float64), axis=1, keepdims=True)
    cosines = np.where(own[:, None] == own, -np.inf, codes @ codes.T)
    np.testing.assert_allclose(index.scores, -np.sort(-cosines, 1)[:, :8], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(cosines, index.neighbours, 1), index.scores, atol=1e-5)


def test_a_run_logs_what_the_scores_of_its_networks_are(whole: tuple[str, Path, Path]) -> None:
    """12 pairs asked for are two batches of 8."""
    family, workdir, root = whole
    lines = {line["step"]: line for line in log(workdir)}
    names = {"swap/psnr", "swap/fg_l1", "swap/mse"}
    assert {step for step, line in lines.items() if names <= line.keys()} == {0, 30, STEPS}
    assert not any(names & line.keys() for step, line in lines.items() if step not in (0, 30, STEPS))
    assert lines[0]["swap/mse"] != lines[STEPS]["swap/mse"]

    swapper, params, _ = open_swapper(workdir)
    data = dataclasses.replace(configure.read(workdir / "config.json").data, split="test", root=str(root))
    clips = sets.open_clips(data, (swapper.size, swapper.size, 3))
    table = swap_scores.evaluate(swapper, params, clips, n=16, frames=16, probe_steps=0, audit_steps=0)["table"]["model"]
    for name, column in (("psnr", "PSNR"), ("fg_l1", "fg L1"), ("mse", "MSE [-1,1]")):
        assert lines[STEPS][f"swap/{name}"] == pytest.approx(table[column], rel=1e-4), name
