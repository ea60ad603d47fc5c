"""StyleGAN as a system: its stages, what the host makes of images, its losses, a mesh, and a tiny run that grows, stops and goes on."""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxgan import configure, generators, losses, parallel, report
from jaxgan.nets import stylegan as nets
from jaxgan.nets import stylegan_discriminator
from jaxgan.stages import Plan
from jaxgan.systems import growing, stylegan
from jaxgan.systems.stylegan import Config, table_1
from jaxgan.systems.stylegan_schedule import BATCHES
from jaxgan.train import Result, dry_run, train

CARD = Path(__file__).resolve().parents[2] / "configs" / "stylegan_scenes.py"
SMALL = dataclasses.replace(configure.load_config(CARD, "tiny").model, resolution=8, start=4)
COMPILER = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Compiles in a fraction of the time; these networks are small."""


def quick(function):
    return jax.jit(function, compiler_options=COMPILER)


def filled(config: Config, key: int = 0) -> stylegan.State:
    """A state with every array away from where it starts: noise strengths and biases are 0 there."""
    state = quick(config.system().init)(jax.random.key(key))
    rng = np.random.default_rng(key)

    def shake(tree):
        return jax.tree.map(lambda leaf: leaf + 0.2 * rng.standard_normal(leaf.shape).astype(np.float32), tree)

    return state._replace(params=shake(state.params), ema=shake(state.ema))


def test_the_stages_of_the_published_run():
    config = Config()
    plan = Plan(config.system(), configure.Run(batch=32, kimg=25_000.0))
    stages, phases = plan.stages, config.phases()
    sides = [8, *(side for side in (16, 32, 64, 128, 256, 512, 1024) for _ in range(2))]
    assert [stage.name.split()[1] for stage in stages] == [str(side) for side in sides]
    assert [stage.name.split()[0] for stage in stages] == ["train", *("fade", "train") * 7]
    assert [stage.batch for stage in stages] == [{8: 256, 16: 128, 32: 64}.get(side, 32) for side in sides]
    for stage, phase, begin in zip(stages, phases, range(0, 8401, 600), strict=True):
        assert phase.begin == begin and 0 <= plan.images(stage.first) - 1000 * begin < 256
    assert 0 <= plan.images(plan.steps) - 25_000_000 < 32
    assert Config(start=1024).system().stages == []


def test_phases_shorter_than_a_step_are_passed_over():
    config = dataclasses.replace(SMALL, resolution=32, train_kimg=0.04, fade_kimg=0.04, batches=BATCHES[8])
    plan = Plan(config.system(), configure.Run(batch=64, kimg=1.0))
    assert [(stage.name, stage.first) for stage in plan.stages] == [("train 4", 0), ("train 32", 1)]


@pytest.mark.parametrize("resolution", [256, 1024])
def test_the_batches_that_a_card_names_for_fewer_devices(resolution):
    text = CARD.with_name(f"stylegan_ffhq{resolution}.py").read_text()
    batches = re.search(r"4, 2 or 1\s+devices.*run.batch to (\d+), (\d+) or (\d+)", text, re.DOTALL).groups()
    for devices, batch in zip((4, 2, 1), batches, strict=True):
        system = Config(resolution=resolution, batches=BATCHES[devices]).system()
        assert Plan(system, configure.Run(batch=int(batch), kimg=1.0)).stages[-1].batch % devices == 0


def test_images_drawn_in_blocks_over_a_mesh_are_those_drawn_at_once(monkeypatch):
    config, key = dataclasses.replace(SMALL, resolution=4, start=4, mapping_layers=1), jax.random.key(5)
    rng, shapes = np.random.default_rng(0), jax.eval_shape(config.system().init, jax.random.key(0))
    state = jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape).astype(np.float32), shapes)
    state.model["G"]["lod"] = np.float32(0.0)
    expected = np.asarray(quick(lambda state: config.system().sample(state, key, 6))(state))
    assert expected.std((1, 2, 3)).min() > 0.01 and expected.std(0).min() > 0.01
    monkeypatch.setattr(growing, "SAMPLE_PIXELS", 16)
    with jax.set_mesh(parallel.make_mesh((4, 2))):
        assert [growing.images_together(n, 4) for n in (6, 8, 16, 20, 64, 17)] == [6, 8, 8, 5, 8, 1]
    mesh = parallel.make_mesh((1, 2), jax.devices()[:2])
    with jax.set_mesh(mesh):
        found = quick(lambda state: config.system().sample(state, key, 6))(parallel.replicate(state, mesh))
    assert [shard.data.shape for shard in found.addressable_shards] == [(3, 4, 4, 3)] * 2
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_host_reduces_with_a_rounded_box_filter_and_mirrors_about_half():
    images = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3)).astype(np.uint8)
    found = growing.reduce_batch(False, 2, {"image": images}, np.random.default_rng(1))["image"]
    expected = np.rint(images.astype(np.float64).reshape(64, 4, 4, 4, 4, 3).mean((2, 4)))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    turned = growing.reduce_batch(True, 0, {"image": images}, np.random.default_rng(1))["image"]
    same = [(a == b).all() for a, b in zip(turned, images, strict=True)]
    other = [(a == b[:, ::-1]).all() for a, b in zip(turned, images, strict=True)]
    assert all(a != b for a, b in zip(same, other, strict=True)) and 16 < sum(other) < 48


def test_a_level_known_at_run_time_gives_the_image_of_that_level():
    network, state = SMALL.generator(), filled(SMALL)
    w = jax.random.normal(jax.random.key(1), (2, network.rows, network.w_size))
    noise = nets.draw_noise(network, jax.random.key(2), 2)
    params = state.params["G"]
    found = quick(lambda lod: nets.synthesise_at(network, params, w, noise, lod))
    for lod in (0.0, 0.3, 1.0):
        level, fade = nets.split_lod(lod)
        expected = quick(functools.partial(nets.synthesise, network, level=level, fade=fade))(params, w, noise)
        np.testing.assert_allclose(found(jnp.float32(lod)), expected, atol=2e-5, err_msg=f"lod {lod}")


@pytest.mark.parametrize("loss", ["hinge", "wgan_gp"])
def test_the_other_losses_are_made_of_the_scores_they_should_be(loss):
    config = dataclasses.replace(SMALL, loss=loss, start=8, r1_weight=3.0, gp_weight=0.0)
    players, state, rng = stylegan.make_players(config, 0, False, given=True), filled(config), np.random.default_rng(0)
    batch = {name: jnp.asarray(rng.standard_normal((8, 8)), jnp.float32) for name in ("z_D", "z_G")}
    batch["image"] = jnp.asarray(rng.uniform(-1, 1, (8, 8, 8, 3)), jnp.float32)

    @quick
    def draw(z):
        return nets.generate(config.generator(), state.params["G"], state.model["G"], z, psi=None)

    def critic(images):
        return stylegan_discriminator.scores(config.discriminator(), state.params["D"], images)

    score = quick(critic)
    real, fake, fake_of_g = (np.asarray(score(images), np.float64) for images in (batch["image"], draw(batch["z_D"]), draw(batch["z_G"])))
    if loss == "hinge":
        slopes = quick(lambda x: losses.squared_slopes(critic, x))(batch["image"])
        expected = np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean() + 1.5 * np.asarray(slopes, np.float64).mean()
    else:
        expected = fake.mean() - real.mean() + 0.001 * (real**2).mean()
    arguments = (state.params, state.model, batch, jax.random.key(0))
    found, _ = quick(players["D"].loss)({"D": state.params["D"]}, *arguments)
    assert float(found) == pytest.approx(expected, rel=1e-5)
    found, _ = quick(players["G"].loss)({"G": state.params["G"]}, *arguments)
    assert float(found) == pytest.approx(-fake_of_g.mean(), rel=1e-4)


def test_hinge_without_r1_takes_no_slopes():
    def convolutions(weight):
        config = dataclasses.replace(SMALL, loss="hinge", start=8, r1_weight=weight)
        state, image = jax.eval_shape(config.system().init, jax.random.key(0)), jax.ShapeDtypeStruct((8, 8, 8, 3), jnp.float32)
        loss = stylegan.make_players(config, 0, False)["D"].loss
        trace = jax.make_jaxpr(lambda s, image, key: loss({"D": s.params["D"]}, s.params, s.model, {"image": image}, key)[0])
        return str(trace(state, image, jax.random.key(0))).count("conv_general_dilated[")

    assert convolutions(0.0) < convolutions(3.0)


@pytest.mark.slow
def test_a_step_on_eight_devices_equals_one():
    """Minibatch deviation compares images of different devices: groups are made of the whole batch."""
    stage, state = SMALL.system().stages[1], filled(SMALL)
    assert stage.name == "fade 8"
    state = state._replace(step=jnp.int32(stage.first + 2))
    batch = {"image": np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3)).astype(np.uint8)}
    key, results = jax.random.key(3), []
    for devices in (jax.devices()[:1], jax.devices()):
        mesh = parallel.make_mesh((0, 1), devices)
        with jax.set_mesh(mesh):
            step = jax.jit(stage.step, out_shardings=NamedSharding(mesh, PartitionSpec()), compiler_options=COMPILER)
            results.append(jax.device_get(step(parallel.replicate(state, mesh), parallel.global_batch(batch, mesh, 16), key)))
    (alone, info), (spread, info_spread) = results
    assert 1e-3 < info["lod"] < 1 and info["lod"] == info_spread["lod"]
    for name in ("loss/D", "loss/G", "penalty", "scores/real", "scores/fake", "gradient/D", "gradient/G"):
        np.testing.assert_allclose(info_spread[name], info[name], rtol=1e-5, atol=1e-6, err_msg=name)
    # the first step of Adam is the sign of the gradient, so the second moments are compared, not the parameters
    for player in ("D", "G"):
        for a, b in zip(jax.tree.leaves(spread.opt[player].square), jax.tree.leaves(alone.opt[player].square), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * max(np.abs(b).max(), 1e-12))
    np.testing.assert_allclose(spread.model["G"]["w_avg"], alone.model["G"]["w_avg"], atol=1e-6)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """tiny(): whole, and stopped at the end of its first stage and inside its second."""
    experiment = configure.load_config(CARD, "tiny")
    experiment = dataclasses.replace(experiment, run=dataclasses.replace(experiment.run, log_every=1, mesh=(0, 1)))
    whole, parts = (tmp_path_factory.mktemp(name) / "run" for name in ("whole", "parts"))
    assert train(experiment, whole, quiet=True) == Result(10, 10, "finished")
    assert train(experiment, parts, quiet=True, stop_after_steps=5) == Result(5, 10, "stopped")
    assert train(experiment, parts, quiet=True, stop_after_steps=2) == Result(7, 10, "stopped")
    assert train(experiment, parts, quiet=True) == Result(10, 10, "finished")
    return experiment, whole, parts


@pytest.mark.slow
def test_a_tiny_run_stopped_at_a_boundary_and_in_a_fade_is_the_same_run(runs):
    _, whole, parts = runs
    logs = [
        [{name: value for name, value in line.items() if name not in report.CLOCK} for line in report.read_metrics(run / "metrics.jsonl")]
        for run in (whole, parts)
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 10
    arrays = [generators.open_generator(run).arrays for run in (whole, parts)]
    for name, array in arrays[0].items():
        np.testing.assert_array_equal(array, arrays[1][name], err_msg=name)


@pytest.mark.slow
def test_a_tiny_run_follows_the_schedule(runs):
    experiment, whole, _ = runs
    model = experiment.model
    for line in report.read_metrics(whole / "metrics.jsonl"):
        before = line["kimg"] - 0.008
        phase = [phase for phase in model.phases() if phase.begin <= before + 1e-9][-1]
        expected = phase.level + (max(0.0, 1 - (before - phase.begin) / phase.fade) if phase.fade else 0)
        assert line["lod"] == pytest.approx(expected, abs=1e-5), line["step"]


@pytest.mark.slow
def test_a_trained_run_draws_images(runs):
    draw = generators.drawing(generators.open_generator(runs[1]))
    images = draw(0, 0)
    assert images.shape == (64, 16, 16, 3) and images.std() > 5 and (images[0] != images[1]).any()


def test_rows_of_table_1():
    rows = {row: table_1(Config(resolution=64), row) for row in "ABCDEF"}
    assert rows["A"].loss == "wgan_gp" and not rows["A"].blur and not rows["A"].discriminator().blur and rows["B"].blur
    assert [rows[row].generator().constant for row in "ABCDEF"] == [False] * 3 + [True] * 3
    assert [rows[row].mixing for row in "ABCDEF"] == [0.0] * 5 + [0.9]
    assert rows["A"].rates == (*Config().rates[:3], (512, 0.002)) and rows["B"].rates == Config().rates
    with pytest.raises(ValueError, match="row 'G': table 1 has A, B, C, D, E, F"):
        table_1(Config(), "G")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 48}, "resolution 48: StyleGAN needs a power of two"),
        ({"start": 2}, "start 2: growing begins at a power of two from 4"),
        ({"start": 16}, "start 16: growing begins at a power of two from 4 to the resolution, 8"),
        ({"resolution": 4, "start": 8}, "start 8: .*: set start to 4"),
        ({"batches": ()}, "batches"),
        ({"rates": ((4, -0.1),)}, "rates"),
        ({"mixing": 1.5}, "mixing 1.5"),
    ],
)
def test_choices_that_cannot_work_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


def test_a_batch_that_groups_do_not_divide_and_a_conditional_training_are_refused():
    with pytest.raises(ValueError, match="batches: 6 images at 4 px do not divide into groups of 4"):
        dataclasses.replace(SMALL, batches=((4, 6),)).system()
    config = dataclasses.replace(SMALL, label_size=3)
    with pytest.raises(ValueError, match="label_size 3: a conditional StyleGAN can be sampled, not trained"):
        jax.eval_shape(config.system().step, jax.eval_shape(config.system().init, jax.random.key(0)), {"image": jnp.zeros((4, 8, 8, 3))}, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"label_size": 3}, "label_size 3"), ({"group": 3, "start": 16}, "8 images in a step do not divide into groups of 3")],
)
def test_what_cannot_be_trained_is_refused_with_nothing_written(tmp_path, change, message):
    experiment = configure.load_config(CARD, "tiny")
    experiment = dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, **change))
    for attempt in (lambda: train(experiment, tmp_path / "run", quiet=True), lambda: dry_run(experiment)):
        with pytest.raises(ValueError, match=message):
            attempt()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("group", [0, -1, 1])
def test_a_group_of_one_or_less_leaves_the_deviation_out(group):
    config = dataclasses.replace(SMALL, group=group, batches=((4, 6),))
    assert Plan(config.system(), configure.Run(batch=6, kimg=0.1)).stages[-1].batch == 6
    assert stylegan_discriminator.layout(config.discriminator())["conv4"]["kernel"].shape[2] == config.widths()[0]
