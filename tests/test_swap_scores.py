"""The table of swap scores for systems whose behaviour is known: one that is right, two that copy, one that draws the mean."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
import swap_toy

from jaxgan import judges, swap_probes, swap_scores


@functools.cache
def clips() -> swap_toy.Clips:
    return swap_toy.Clips(n=60)


@functools.cache
def judged() -> judges.Judges:
    return judges.train(clips(), steps=240, batch=24, renders=1500)


@functools.cache
def found(kind: str) -> dict:
    steps = {"probe_steps": 0, "audit_steps": 0} if kind in ("identity", "pose") else {"probe_steps": 300, "audit_steps": 0}
    return swap_scores.evaluate(swap_toy.make(kind, clips()), {}, clips(), judged(), n=120, frames=480, **steps, facts={"step": 7})


@pytest.mark.slow
def test_the_truth_is_the_ceiling_in_every_column_and_a_system_that_is_right_reaches_it():
    table = found("truth")["table"]
    assert set(table) == set(swap_scores.ROWS) and table["model"] == table["truth"]
    truth = table["truth"]
    assert np.isinf(truth["PSNR"]) and truth["SSIM"] == pytest.approx(1) and truth["fg L1"] == truth["MSE [-1,1]"] == 0
    assert truth["copies x_i"] == truth["copies x_j"] == 0
    assert min(truth["ID hue"], truth["ID mark"]) > 0.97 and max(truth["leak hue"], truth["leak mark"]) < 0.04
    assert truth["position px"] < 1.5


@pytest.mark.parametrize("kind, row", [("identity", "copies x_i"), ("pose", "copies x_j")])
def test_a_system_that_copies_is_its_row_of_the_table(kind, row):
    table = found(kind)["table"]
    assert table["model"] == table[row]
    copies = table["model"]
    own, other = ("copies x_i", "copies x_j") if kind == "identity" else ("copies x_j", "copies x_i")
    assert copies[own] > 0.85 and copies[other] < 0.3
    if kind == "identity":
        assert copies["ID hue"] > 0.97 and copies["leak hue"] < 0.04 and copies["position px"] > 1.5
    else:
        assert copies["leak hue"] > 0.97 and copies["position px"] < 1.5


def test_the_mean_image_is_as_near_to_the_source_as_to_the_truth_and_better_than_a_copy_without_knowing_who():
    table = found("truth")["table"]
    mean = table["mean image"]
    assert mean["MSE [-1,1]"] < table["copies x_i"]["MSE [-1,1]"] and 0.25 < mean["copies x_i"] < 0.75
    assert mean["ID hue"] < 0.6 and mean["fg L1"] > 0.1


def test_probes_find_identity_in_a_leaky_pose_code_and_not_in_a_clean_one():
    clean, leaky = (found(kind)["probes"]["identity from pose code"]["hue"] for kind in ("truth", "leaky"))
    assert leaky["leak"] > 0.95 and clean["leak"] < 0.35
    assert found("truth")["probes"]["identity from identity code"]["hue"]["accuracy"] == 1
    assert min(found("truth")["probes"]["pose from pose code, R2"].values()) > 0.9
    assert max(found("truth")["probes"]["pose from identity code, R2"].values()) < 0.3


def test_what_noise_hides_is_read_from_the_means_of_pose_codes_and_not_from_drawn_ones():
    toy = swap_toy.make("faint", clips())
    result = swap_scores.evaluate(toy, {}, clips(), n=4, frames=480, probe_steps=300, audit_steps=200, width=32)
    means, drawn = (result["probes"][f"identity from {code} code"]["hue"]["leak"] for code in ("pose", "drawn pose"))
    assert means > 0.95 and drawn < 0.35
    assert result["audit"]["nats"] > 0.5 > result["audit of drawn codes"]["nats"]
    text = swap_scores.to_text(result)
    assert "identity from drawn pose code, hue" in text and "pose codes as drawn in training" in text
    assert "drawn" not in str(found("leaky")["probes"])


def test_retrieval_by_identity_codes_is_perfect_where_they_are_the_identity():
    assert found("truth")["retrieval"]["identity"]["top1"] == 1
    assert found("truth")["retrieval"]["pose"]["top1"] < 0.6


def test_verifiability_stands_beside_true_generated_and_wrong_images():
    said = found("pose")["verifiability"]
    assert set(said) == {"true target", "generated", "wrong identity"}
    assert said["generated"] == said["wrong identity"]


def test_the_result_is_json_and_a_text_that_names_its_protocol():
    result = found("truth")
    again = json.loads(json.dumps(swap_scores.plain(result), allow_nan=False))
    assert again["table"]["truth"]["PSNR"] == "inf" and again["protocol"]["step"] == 7
    assert again["protocol"]["judges"]["ceiling"]["identity"].keys() == {"hue", "mark"}
    text = swap_scores.to_text(result)
    assert clips().digest in text and "mean image" in text and "pairs 120" in text and "seed 1" in text


def test_a_set_without_truth_has_what_needs_none():
    bare = swap_toy.Clips(n=60, drawn=False)
    result = swap_scores.evaluate(
        swap_toy.make("truth", clips()), {}, bare, None, n=20, frames=144, probe_steps=10, audit_steps=20, width=8
    )
    assert "table" not in result and "probes" not in result
    assert (
        result["same clip"]["MSE [-1,1]"] == 0 and result["retrieval"]["identity"]["queries"] > 0 and np.isfinite(result["audit"]["nats"])
    )


def test_clips_of_another_size_and_clips_of_one_group_are_refused():
    other = swap_toy.Clips(n=4)
    other.image = (32, 32, 3)
    with pytest.raises(ValueError, match="takes images of 16 px"):
        swap_scores.evaluate(swap_toy.make("truth", clips()), {}, other)
    other.group = np.zeros(4, np.int32)
    with pytest.raises(ValueError, match="of one group"):
        swap_scores.draw_pairs(other, 4, 0)


def test_no_pair_has_the_truth_of_its_swap_as_its_first_image():
    toys = clips()
    pairs = swap_scores.draw_pairs(toys, 300, 0)
    assert all((toys.pose(i)[s] != toys.pose(j)[t]).any() and toys.group[i] != toys.group[j] for i, s, j, t in pairs)
    here, _, truth, _ = swap_scores.swaps(toys, pairs)
    assert np.isfinite(swap_scores.swap_figures(here, truth, np.ones(truth.shape[:3], bool))["PSNR"])


def test_clips_that_never_move_are_refused():
    still = swap_toy.Clips(n=6)
    still._poses[:] = still._poses[0, 0]
    with pytest.raises(ValueError, match="all frames show one pose"):
        swap_scores.draw_pairs(still, 4, 0)


def test_rows_without_a_system_are_taken_from_an_earlier_result_and_only_the_model_is_scored():
    quick = {"n": 20, "frames": 16, "probe_steps": 0, "audit_steps": 0}
    whole = swap_scores.evaluate(swap_toy.make("leaky", clips()), {}, clips(), judged(), **quick)["table"]
    others = {row: values for row, values in whole.items() if row != "model"}
    seen, judge = [], judges.judge
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judges, "judge", lambda *given: seen.append(given) or judge(*given))
        again = swap_scores.evaluate(swap_toy.make("leaky", clips()), {}, clips(), judged(), others=others, **quick)["table"]
    assert again == whole and list(again) == list(whole) and len(seen) == 1


def test_an_audit_whose_estimator_only_learns_by_heart_finds_nothing_and_says_so():
    rng = np.random.default_rng(0)
    clip = np.repeat(np.arange(12), 2).astype(np.int32)
    own, noise = rng.normal(size=(12, 40))[clip].astype(np.float32), rng.normal(size=(24, 40)).astype(np.float32)
    found = swap_probes.audit(swap_probes.Codes(own, noise, clip), steps=200, width=64, rate=1e-2)
    assert found == {"nats": 0.0, "train nats": 0.0, "loss": pytest.approx(np.log(2)), "step": 0}


def test_the_audit_finds_nothing_in_independent_codes_and_much_in_codes_of_one_clip():
    rng = np.random.default_rng(0)
    clip = np.repeat(np.arange(150), 4).astype(np.int32)
    own = rng.normal(size=(150, 3))[clip]
    noise = rng.normal(size=(600, 3))
    free = swap_probes.audit(swap_probes.Codes(own.astype(np.float32), noise.astype(np.float32), clip), steps=300, width=32, rate=1e-3)
    bound = swap_probes.audit(swap_probes.Codes(own.astype(np.float32), own.astype(np.float32), clip), steps=300, width=32, rate=1e-3)
    assert abs(free["nats"]) < 0.1 and bound["nats"] > 1


def test_an_audit_of_frames_of_two_clips_does_not_count_what_only_the_frames_of_one_clip_share():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(75), 8).astype(np.int32)
    clip = np.repeat(np.arange(150), 4).astype(np.int32)
    who, place = rng.normal(size=(75, 3))[group], rng.normal(size=(150, 3))[clip]
    both, place = np.concatenate([who, place], 1).astype(np.float32), place.astype(np.float32)
    settings = {"steps": 300, "width": 32, "rate": 1e-3}
    assert swap_probes.audit(swap_probes.Codes(both, place, clip), **settings)["nats"] > 0.5
    assert abs(swap_probes.audit(swap_probes.Codes(both, place, group), apart=clip, **settings)["nats"]) < 0.1
    assert swap_probes.audit(swap_probes.Codes(both, who.astype(np.float32), group), apart=clip, **settings)["nats"] > 0.5
    with pytest.raises(ValueError, match="two parts"):
        swap_probes.audit(swap_probes.Codes(both, place, clip), apart=clip, **settings)
