"""Judges of tiny renders: what they learn, what they keep, what they refuse."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import swap_toy

from jaxgan import judges
from jaxgan.judges import Column


@functools.cache
def trained() -> judges.Judges:
    return judges.train(swap_toy.Clips(), steps=240, batch=24, renders=1500)


def test_judges_tell_factors_and_pose_of_renders_they_have_not_seen():
    ceiling = trained().about["ceiling"]
    assert min(ceiling["identity"].values()) >= 0.98 and set(ceiling["identity"]) == {"hue", "mark"}
    assert ceiling["pose"]["position px"] < 1.5 and set(ceiling["pose"]) == {"position px", "heading deg"}


def test_a_judged_identity_is_that_of_the_image_and_not_of_its_place_in_the_block():
    clips = swap_toy.Clips(n=70, seed=5)
    images = np.stack([clips.frame(i, 0) for i in range(70)])
    said = judges.judge(trained(), images)
    assert said["identity"].dtype == np.int32 and said["pose"].shape == (70, 3)
    assert np.mean(said["identity"] == clips.identity) > 0.97
    np.testing.assert_array_equal(judges.judge(trained(), images[::-1])["identity"], said["identity"][::-1])


LOW = {"identity": {"hue": 0.97, "mark": 1.0}}


def test_judges_come_back_from_their_file_and_not_for_another_set(tmp_path, monkeypatch):
    clips = swap_toy.Clips()
    path = tmp_path / f"judges-{clips.digest[:12]}.safetensors"
    judges.save(trained(), path)
    said = []
    again = judges.kept(tmp_path, clips, steps=240, say=said.append)  # read, not trained
    assert not said
    assert again.about == trained().about and again.columns == trained().columns and again.factors == trained().factors
    monkeypatch.setattr(
        judges, "train", lambda clips, steps, say: trained()._replace(about={**trained().about, "steps": steps, "ceiling": LOW})
    )
    assert judges.kept(tmp_path, clips, steps=100).about["steps"] == 240  # those that had more steps serve
    assert judges.kept(tmp_path, clips, steps=241, say=said.append).about["steps"] == 241 == judges.load(path).about["steps"]
    assert "hue on 97.0%" in said[-1] and "mark" not in said[-1]
    assert judges.checksum(again) == judges.checksum(trained()) and len(judges.checksum(again)) == 64
    images = clips.frames(0)
    for name, array in judges.judge(trained(), images).items():
        np.testing.assert_array_equal(judges.judge(again, images)[name], array)
    clips.digest = "e" * 64
    with pytest.raises(ValueError, match="judges of another set"):
        judges.load(path, clips)
    path.write_bytes(path.read_bytes()[:-40] + bytes(40))
    with pytest.raises(ValueError, match="damaged"):
        judges.load(path)


def test_poses_go_to_targets_and_back():
    columns = (Column("x", "linear", 1), Column("heading", "circle", 2), Column("action", "class", 3))
    poses = np.array([[0.25, 3.0, 2.0], [-0.5, -1.0, 0.0]], np.float32)
    encoded = judges.targets(columns, poses)
    assert encoded.shape == (2, 6) and encoded[0, 5] == 1
    np.testing.assert_allclose(judges.decoded(columns, encoded), poses, atol=1e-6)


def test_pose_errors_are_medians_in_pixels_and_degrees_and_shares_of_classes():
    columns = (Column("x", "linear", 1), Column("y", "linear", 1), Column("heading", "circle", 2), Column("action", "class", 3))
    truth = np.zeros((3, 4), np.float32)
    said = np.array([[0.3, 0.4, np.pi / 2, 1], [0.3, 0.4, np.pi / 2, 0], [0, 0, 0, 0]], np.float32)
    found = judges.pose_errors(columns, said, truth, 64)
    assert found == pytest.approx({"position px": 16, "heading deg": 90, "action right": 2 / 3}, rel=1e-5)


def test_a_set_that_cannot_be_drawn_has_no_judges():
    with pytest.raises(ValueError, match="cannot draw"):
        judges.train(swap_toy.Clips(drawn=False))
    with pytest.raises(ValueError, match="judges look at"):
        judges.judge(trained(), np.zeros((1, 8, 8, 3), np.uint8))
