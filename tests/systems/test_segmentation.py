"""The segmentation system: void pixels are not learned from, pairs stay together on the host, and a run learns and resumes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan import losses, viz
from jaxgan.__main__ import main
from jaxgan.generators import open_generator
from jaxgan.systems import segmentation
from jaxgan.systems.segmentation import Config, augment, tint, zoom

CONFIG = Config(classes=("left", "right", "dot"), size=(16, 16), width=8, depth=2, schedule="constant", lr=1e-2, void=9)
CARD = Path(__file__).resolve().parents[2] / "configs" / "segmentation_camvid.py"


def pairs(n=8, seed=0):
    """Pictures whose classes are their colours."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, (n, 4, 4)).repeat(4, 1).repeat(4, 2).astype(np.uint8)
    colours = np.asarray([[200, 30, 30], [30, 200, 30], [30, 30, 200]], np.uint8)
    image = np.clip(colours[label].astype(int) + rng.integers(-20, 20, (n, 16, 16, 3)), 0, 255).astype(np.uint8)
    return {"image": image, "label": label}


def test_cross_entropy_is_the_formula_and_void_pixels_take_no_part():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (2, 4, 5, 6)).astype(np.float32)
    labels = rng.integers(0, 6, (2, 4, 5))
    labels[rng.random(labels.shape) < 0.3] = 11
    weights = rng.uniform(0.5, 2, 6).astype(np.float32)
    wide = logits.astype(np.float64)
    rates = wide - np.log(np.exp(wide).sum(-1, keepdims=True))
    counted = labels != 11
    each = -np.asarray([rates[tuple(at)][labels[tuple(at)]] for at in np.argwhere(counted)])
    weight = weights[labels[counted]]
    value = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(labels), jnp.asarray(weights), 11)
    np.testing.assert_allclose(value, (weight * each).sum() / weight.sum(), rtol=1e-5)
    np.testing.assert_allclose(losses.cross_entropy(jnp.asarray(logits), jnp.asarray(labels), None, 11), each.mean(), rtol=1e-5)
    gradient = jax.grad(lambda logits: losses.cross_entropy(logits, jnp.asarray(labels), jnp.asarray(weights), 11))(jnp.asarray(logits))
    assert (np.asarray(gradient)[~counted] == 0).all() and (np.abs(np.asarray(gradient)[counted]).max(-1) > 0).all()
    changed = np.where(counted[..., None], logits, 1e6).astype(np.float32)
    assert losses.cross_entropy(jnp.asarray(changed), jnp.asarray(labels), jnp.asarray(weights), 11) == value


def test_a_batch_of_void_alone_has_no_loss_and_no_gradient():
    logits, labels = jnp.ones((1, 2, 2, 3)), jnp.full((1, 2, 2), 9, jnp.uint8)
    value, gradient = jax.value_and_grad(lambda logits: losses.cross_entropy(logits, labels, None, 9))(logits)
    assert value == 0 and not np.asarray(gradient).any()


def test_large_logits_do_not_overflow():
    logits = jnp.asarray([[1e4, -1e4], [-1e4, 1e4]])
    np.testing.assert_allclose(losses.cross_entropy(logits, jnp.asarray([0, 0])), 1e4, rtol=1e-6)


def test_a_few_steps_learn_the_colours():
    system = segmentation.system(dataclasses.replace(CONFIG, ema=0.01))
    batch = pairs()
    state, step = system.init(jax.random.key(0)), jax.jit(system.step)
    _, before = step(state, batch, jax.random.key(1))
    for number in range(30):
        state, info = step(state, batch, jax.random.key(number))
    assert float(info["loss/U"]) < 0.5 * float(before["loss/U"]) and float(info["accuracy"]) > 0.9
    assert bool(np.asarray(info["finite"]["U"]).all())
    found = segmentation.label_maps(CONFIG, state.ema["U"], batch["image"])
    assert float((np.asarray(found) == batch["label"]).mean()) > 0.7
    shown = system.translate(state, batch["image"])
    np.testing.assert_allclose(shown, segmentation.blend(batch["image"], found, 3), atol=1e-6)
    assert shown.shape == (8, 16, 16, 3) and float(jnp.abs(shown).max()) <= 1


def test_void_pixels_do_not_move_the_network():
    system, batch = segmentation.system(CONFIG), pairs(2)
    state = system.init(jax.random.key(0))
    batch["label"][:] = 9
    _, info = jax.jit(system.step)(state, batch, jax.random.key(0))
    assert float(info["gradient/U"]) == 0 and float(info["accuracy"]) == 0


def test_the_void_class_is_never_an_answer():
    inside = dataclasses.replace(CONFIG, void=1)
    system = segmentation.system(inside)
    state = system.init(jax.random.key(0))
    params = state.params["U"]
    params = {**params, "head_bias": jnp.asarray([0.0, 100.0, 0.0])}
    assert 1 not in np.unique(segmentation.label_maps(inside, params, pairs()["image"]))
    assert np.unique(segmentation.label_maps(CONFIG, params, pairs()["image"])) == [1]


def test_kernels_decay_and_norms_do_not():
    config = dataclasses.replace(CONFIG, weight_decay=0.5, lr=0.1)
    own = {"U": {"kernel": jnp.ones((3, 3, 2, 2)), "bias": jnp.ones((2,))}}
    tx = segmentation.optimiser(config)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = tx.update(jax.tree.map(jnp.zeros_like, own), tx.init(own), own)
    np.testing.assert_allclose(updates["U"]["kernel"], -0.05, rtol=1e-6)
    assert not np.asarray(updates["U"]["bias"]).any()


@pytest.mark.parametrize(("schedule", "half"), [("cosine", 0.5), ("poly", 0.5**0.9)])
def test_the_learning_rate_rises_and_falls_to_nothing(schedule, half):
    config = dataclasses.replace(CONFIG, schedule=schedule, steps=110, warmup=10, lr=0.01, weight_decay=0.0)
    own = {"U": {"bias": jnp.ones((1,))}}
    tx = segmentation.optimiser(config)
    state, rates = tx.init(own), []
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(112):
            updates, state = tx.update({"U": {"bias": jnp.ones((1,))}}, state, own)
            rates.append(-float(updates["U"]["bias"][0]))  # Adam's step under a constant gradient is the learning rate
    assert rates[0] == pytest.approx(0, abs=1e-8) and rates[5] == pytest.approx(0.005, rel=1e-3)
    assert rates[10] == pytest.approx(0.01, rel=1e-3) and rates[60] == pytest.approx(0.01 * half, rel=1e-2)
    assert rates[111] == pytest.approx(0, abs=1e-6)


def test_median_frequency_weights():
    frequency = (0.4, 0.1, 0.02, 0.0, 0.2)
    config = Config(classes=tuple("abcde"), schedule="constant", weighting="median", frequency=frequency, most_weight=5.0)
    np.testing.assert_allclose(config.weights(), [0.375, 1.5, 5.0, 1.0, 0.75], rtol=1e-6)


# -- on the host


def test_image_and_label_map_move_together():
    """The label map, written into the image, is found there again after every change of place."""
    config = dataclasses.replace(CONFIG, classes=tuple("abcdefgh"), size=(24, 40), scale=(0.5, 3.0))
    label = np.random.default_rng(0).integers(0, 8, (16, 3, 5)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    batch = {"image": np.repeat(30 * label[..., None], 3, -1), "label": label}
    moved = augment(config, batch, np.random.default_rng(1))
    assert moved["image"].shape == batch["image"].shape and moved["label"].shape == label.shape
    assert moved["image"].dtype == moved["label"].dtype == np.uint8
    agree = np.rint(moved["image"][..., 0] / 30) == moved["label"]
    assert agree.mean() > 0.8  # bilinear pixels between two blocks are neither
    assert (moved["label"] != label).any(axis=(1, 2)).all()


def test_mirroring_happens_to_about_half_and_to_both():
    batch = pairs(200)
    moved = augment(CONFIG, batch, np.random.default_rng(0))
    mirrored = [(moved["image"][i] == batch["image"][i][:, ::-1]).all() for i in range(200)]
    kept = [(moved["image"][i] == batch["image"][i]).all() for i in range(200)]
    assert 70 < sum(mirrored) < 130 and all(a or b for a, b in zip(mirrored, kept, strict=True))
    assert all((moved["label"][i] == (batch["label"][i][:, ::-1] if mirrored[i] else batch["label"][i])).all() for i in range(200))


def test_zoom_takes_the_part_it_says():
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3)).astype(np.uint8)
    label = np.arange(96, dtype=np.uint8).reshape(8, 12)
    np.testing.assert_array_equal(zoom(image, label, 2.0, (0, 0))[1], label[:4, :6].repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(zoom(image, label, 2.0, (1, 1))[1], label[4:, 6:].repeat(2, 0).repeat(2, 1))
    same = zoom(image, label, 1.0, (0.3, 0.7))
    np.testing.assert_array_equal(same[0], image)
    np.testing.assert_array_equal(same[1], label)
    small = zoom(image, label, 0.5, (0.5, 0.5))
    assert set(np.unique(small[1])) <= set(range(96)) and small[0].shape == image.shape


def test_tint_with_factors_of_one_changes_nothing_and_saturation_zero_is_grey():
    image = np.random.default_rng(0).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    np.testing.assert_allclose(tint(image, np.ones(3)).astype(int), image, atol=1)
    grey = tint(image, np.asarray([1.0, 1.0, 0.0]))
    assert (grey == grey[..., :1]).all()
    np.testing.assert_allclose(tint(image, np.asarray([0.5, 1.0, 1.0])), image / 2, atol=1)


def test_the_same_random_numbers_give_the_same_batch():
    config = dataclasses.replace(CONFIG, scale=(0.7, 2.0), jitter=0.4)
    one, two = (augment(config, pairs(), np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one["image"], two["image"])
    np.testing.assert_array_equal(one["label"], two["label"])


def test_a_label_that_is_no_class_stops_the_run_by_name():
    batch = pairs()
    batch["label"][3, 2, 1] = 4
    with pytest.raises(ValueError, match="hold the label 4, but the model has the 3 classes 0..2 and void 9"):
        augment(CONFIG, batch, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"classes": ("a", "a")}, "2 names, 1 different"),
        ({"schedule": "cosine"}, "needs steps"),
        ({"schedule": "poly", "steps": 5, "warmup": 5}, "warmup 5"),
        ({"scale": (0.2, 1.0)}, "scale is"),
        ({"jitter": 1.0}, "jitter is"),
        ({"weighting": "median"}, "needs the frequency of all 3 classes"),
        ({"depth": 0}, "depth is 0"),
    ],
)
def test_settings_that_cannot_work_are_named(changes, text):
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(CONFIG, **changes)


@pytest.mark.slow
def test_the_card_trains_resumes_shows_overlays_and_draws_no_images(tmp_path, capsys):
    room = ["--quiet", "--data.root", f"{tmp_path}/data", "--workdir", f"{tmp_path}/run"]
    assert main(["train", str(CARD), "--tiny", *room, "--stop-after-steps", "3"]) == 0
    assert main(["train", str(CARD), "--tiny", *room]) == 0
    assert open_generator(tmp_path / "run").step == 10
    reals, fakes = (viz.read_png(tmp_path / "run" / "samples" / f"{name}.png") for name in ("reals", "fakes_00000010"))
    assert reals.shape == fakes.shape
    assert main(["sample", str(tmp_path / "run"), "--out", str(tmp_path / "x.png")]) == 2
    assert "jaxgan segment" in capsys.readouterr().err
