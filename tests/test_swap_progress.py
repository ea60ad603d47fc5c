"""The probe 'swap': it logs what `jaxgan swap evaluate` says of the same networks and pairs, on clips that the run does not learn from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
import swap_toy

from jaxgan import configure, swap_progress, swap_scores
from jaxgan.data import clips as sets
from jaxgan.system import State
from jaxgan.train import train

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
CLIPS = swap_toy.Clips(n=60)
TOYS = configure.Data(source="toys")


def measured(kind: str, clips: swap_toy.Clips, monkeypatch: pytest.MonkeyPatch, batch: int = 8) -> dict[str, float]:
    """What the probe reads of 24 samples in three batches."""
    asked = []

    def opened(data, image):
        asked.append((data, image))
        return clips

    monkeypatch.setattr(sets, "open_clips", opened)
    samples = swap_progress.held(swap_toy.SIZE)(TOYS, 24)
    assert asked == [(dataclasses.replace(TOYS, split="test"), clips.image)]
    probe, state = swap_progress.probe(swap_toy.make(kind, CLIPS)), State(*({},) * 6)
    add, sums = jax.jit(lambda part: probe.add(probe.zero(), state, part, jax.random.key(0))), probe.zero()
    for first in range(0, 24, batch):
        part = add({name: array[first : first + batch] for name, array in samples.items()})
        sums = probe.merge(sums, jax.device_get(part))
    return probe.read(sums)


@pytest.mark.parametrize("kind", ["truth", "identity", "pose", "mean"])
def test_swaps_are_measured_as_in_the_table_of_scores(kind, monkeypatch):
    found = measured(kind, CLIPS, monkeypatch)
    scores = swap_scores.evaluate(swap_toy.make(kind, CLIPS), {}, CLIPS, n=24, frames=16, probe_steps=0, audit_steps=0)
    table = scores["table"]["model"]
    assert found == {"psnr": table["PSNR"], "fg_l1": table["fg L1"], "mse": table["MSE [-1,1]"]}
    assert (found["mse"] == 0) == (kind == "truth")


def test_a_set_that_draws_no_truth_is_measured_by_two_frames_of_a_clip(monkeypatch):
    bare = swap_toy.Clips(n=60, drawn=False)
    found = measured("identity", bare, monkeypatch)
    scores = swap_scores.evaluate(swap_toy.make("identity", CLIPS), {}, bare, n=24, frames=16, probe_steps=0, audit_steps=0)
    assert found == {"same_clip_psnr": scores["same clip"]["PSNR"]} and np.isfinite(found["same_clip_psnr"])
    assert scores["same clip"]["PSNR"] == scores["same clip"]["PSNR of the copy"]


def test_averaged_networks_are_measured(monkeypatch):
    monkeypatch.setattr(sets, "open_clips", lambda data, image: CLIPS)
    samples = swap_progress.held(swap_toy.SIZE)(TOYS, 4)
    swapper = swap_toy.make("identity", CLIPS)._replace(decode=lambda params, identity, pose: identity["image"] * params["G"])
    probe = swap_progress.probe(swapper)
    number, none = (np.float32(value) for value in (1, 0))
    last = State(0, {"G": none}, {}, {}, {"G": number}, {})
    made = probe.add(probe.zero(), last, samples, jax.random.key(0))["made"]
    np.testing.assert_array_equal(made, samples["who"])
    assert not (probe.add(probe.zero(), last._replace(ema={}), samples, jax.random.key(0))["made"] == samples["who"]).all()


@pytest.mark.parametrize("family", ["identity_pose_figures32", "robust_disentangling_figures"])
def test_a_run_without_held_out_clips_is_refused_before_anything_is_written(family, tmp_path, monkeypatch):
    asked = configure.load_config(CONFIGS / f"{family}.py", "tiny")
    asked = dataclasses.replace(asked, run=dataclasses.replace(asked.run, probe_every=5))

    def learned_from(data):
        return swap_toy.Clips()  # never read

    system = asked.model.system()
    monkeypatch.setattr(type(asked.model), "system", lambda self: system._replace(reads=system.reads._replace(open=learned_from)))
    on_test = dataclasses.replace(asked, data=dataclasses.replace(asked.data, split="test"))
    with pytest.raises(ValueError, match=r"data\.split = 'test': .*does not learn from; .*run\.probe_every 0"):
        train(on_test, tmp_path / "run", quiet=True)

    def none(data, image):
        raise ValueError("there is no split 'test' in toys; it has: train")

    monkeypatch.setattr(sets, "open_clips", none)
    with pytest.raises(ValueError, match=r"the split 'test' of figures: there is no split 'test'.*run\.probe_every 0"):
        train(asked, tmp_path / "run", quiet=True)
    assert not list((tmp_path / "run").glob("*"))
