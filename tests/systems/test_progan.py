"""The progressive GAN as a system: its stages, its losses, a mesh, what it draws, and a tiny run that grows, stops and goes on."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxgan import configure, generators, parallel, report, viz, weights
from jaxgan.__main__ import main
from jaxgan.nets import progan as nets
from jaxgan.nets import stylegan_discriminator
from jaxgan.play import half_life_decay
from jaxgan.stages import Plan
from jaxgan.systems import progan
from jaxgan.systems.progan import Config
from jaxgan.train import Result, dry_run, train

CARD = Path(__file__).resolve().parents[2] / "configs" / "progan_scenes.py"
SMALL = dataclasses.replace(configure.load_config(CARD, "tiny").model, sizes=(8, 8, 6), start=4)
STILL = dataclasses.replace(SMALL, sizes=(8, 8))
"""4 px: nothing grows, and it compiles in a second."""
COMPILER = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def quick(function):
    return jax.jit(function, compiler_options=COMPILER)


def filled(config: Config, key: int = 0) -> progan.State:
    """A state with every array away from where it starts: biases are 0 there."""
    rng, shapes = np.random.default_rng(key), jax.eval_shape(config.system().init, jax.random.key(0))
    state = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), shapes)
    model = {"G": {**state.model["G"], "lod": np.float32(0.0)}, "D": {}}
    opt = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes.opt)
    return state._replace(step=jnp.int32(0), model=model, opt=opt)


def test_the_stages_of_the_published_run():
    config = Config()
    assert config.resolution == 1024
    plan = Plan(config.system(), configure.Run(batch=3, kimg=19_000.0))
    sides = [4, *(side for side in (8, 16, 32, 64, 128, 256, 512, 1024) for _ in range(2))]
    assert [stage.name for stage in plan.stages] == [f"{'fade' if i % 2 else 'train'} {side}" for i, side in enumerate(sides)]
    assert [stage.batch for stage in plan.stages] == [16] * 11 + [14] * 2 + [6] * 2 + [3] * 2
    for stage, begin in zip(plan.stages, range(0, 12_801, 800), strict=True):
        assert 0 <= plan.images(stage.first) - 1000 * begin < 16
    assert half_life_decay(16, config.ema) == pytest.approx(0.999, abs=2e-5)


@pytest.mark.parametrize("name", ["progan_lsun256", "progan_celebahq1024"])
def test_what_a_template_names_for_eight_devices_is_accepted(name):
    from jaxgan.systems.stylegan_schedule import BATCHES

    experiment = configure.load_config(CARD.with_name(f"{name}.py"))
    assert Plan(experiment.model.system(), experiment.run).stages[-1].batch == experiment.run.batch
    spread = dataclasses.replace(experiment.model, batches=BATCHES[8], group=4)
    assert all(stage.batch % 8 == 0 for stage in Plan(spread.system(), configure.Run(batch=32, kimg=1.0)).stages)


def test_the_players_losses_are_of_the_images_that_g_makes_before_they_are_clipped():
    config = dataclasses.replace(STILL, gp_weight=0.0, drift_weight=0.01)
    state, rng, key = filled(config), np.random.default_rng(1), jax.random.key(2)
    image = jnp.asarray(rng.uniform(-1, 1, (8, 4, 4, 3)), jnp.float32)
    players = progan.make_players(config)

    @quick
    def expected(params):
        network = dataclasses.replace(config.generator(), clamp=False)
        z = jax.random.normal(key, (8, 8)), jax.random.normal(jax.random.split(key)[0], (8, 8))
        made = [nets.synthesise(network, params["G"], {}, each) for each in z]
        scores = [stylegan_discriminator.scores(config.discriminator(), params["D"], images) for images in (*made, image)]
        return made[0], *scores

    made, of_g, of_d, of_reals = (np.asarray(array, np.float64) for array in expected(state.params))
    assert (np.abs(made) > 1).mean() > 0.1 and (np.abs(made) < 1).mean() > 0.1

    def loss(name):
        return quick(jax.value_and_grad(lambda own: players[name].loss(own, state.params, state.model, {"image": image}, key)[0]))

    found, _ = loss("D")({"D": state.params["D"]})
    np.testing.assert_allclose(found, of_d.mean() - of_reals.mean() + 0.01 * (of_reals**2).mean(), rtol=1e-4)
    found, slopes = loss("G")({"G": state.params["G"]})
    np.testing.assert_allclose(found, -of_g.mean(), rtol=1e-4)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slopes))


@pytest.mark.slow
def test_a_step_on_eight_devices_equals_one():
    """Minibatch deviation compares images of different devices: groups are made of the whole batch."""
    state, step = filled(STILL), STILL.system().step
    batch = {"image": np.random.default_rng(0).integers(0, 256, (16, 4, 4, 3)).astype(np.uint8)}
    key, results = jax.random.key(3), []
    for devices in (jax.devices()[:1], jax.devices()):
        mesh = parallel.make_mesh((0, 1), devices)
        with jax.set_mesh(mesh):
            run = jax.jit(step, out_shardings=NamedSharding(mesh, PartitionSpec()), compiler_options=COMPILER)
            results.append(jax.device_get(run(parallel.replicate(state, mesh), parallel.global_batch(batch, mesh, 16), key)))
    (alone, info), (spread, info_spread) = results
    for name in ("loss/D", "loss/G", "penalty", "scores/real", "scores/fake", "gradient/D", "gradient/G"):
        np.testing.assert_allclose(info_spread[name], info[name], rtol=1e-4, atol=1e-6, err_msg=name)
    # the first step of Adam is the sign of the gradient, so the second moments are compared, not the parameters
    for player in ("D", "G"):
        for a, b in zip(jax.tree.leaves(spread.opt[player].square), jax.tree.leaves(alone.opt[player].square), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * max(np.abs(b).max(), 1e-12))


def test_what_is_drawn_while_it_grows_is_the_averaged_generator_at_its_level_of_detail():
    state, system, key = filled(SMALL), SMALL.system(), jax.random.key(4)
    z = jax.random.normal(key, (8, 8))
    for lod in (1.0, 0.25):
        found = quick(lambda state: system.sample(state, key, 8))(
            state._replace(model={"G": {"stats": {}, "lod": np.float32(lod)}, "D": {}})
        )
        level, fade = int(lod), lod % 1 or None
        expected = quick(functools.partial(nets.synthesise, SMALL.generator(), level=level, fade=fade))(state.ema["G"], {}, z)
        assert found.shape == (8, 8, 8, 3) and np.abs(found).max() <= 1 and np.asarray(found).std() > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=f"lod {lod}")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A finished generator with only what an image of the full side needs: no outputs of smaller sides, no discriminator."""
    state = filled(SMALL)
    kept = {name: state.ema["G"][name] for name in nets.names(SMALL.generator())}
    arrays = {f"params/G/{name}/{leaf}": np.asarray(array) for name, layer in kept.items() for leaf, array in layer.items()}
    plain = configure.to_json(configure.Experiment(SMALL))["model"]
    folder = tmp_path_factory.mktemp("generators") / "small"
    weights.save_generator(folder, "progan", plain, {**arrays, "model/G/lod": np.float32(0)}, {})
    return folder


def test_a_finished_generator_that_was_saved_draws_what_the_run_draws(saved):
    found = generators.drawing(generators.open_generator(saved))(7, 0)
    key = jax.random.fold_in(jax.random.key(np.uint32(7)), np.uint32(0))
    expected = quick(lambda state: SMALL.system().sample(state, key, generators.DRAWN_AT_ONCE))(filled(SMALL))
    assert np.abs(found.astype(int) - generators.quantise(expected)).max() <= 1


def test_sample_writes_the_images_of_the_published_latents(saved, tmp_path):
    z = np.random.RandomState(3).standard_normal(5 * 8).reshape(5, 8).astype(np.float32)
    expected = quick(lambda params: nets.synthesise(SMALL.generator(), params, {}, z))(filled(SMALL).ema["G"])
    assert main(["sample", str(saved), "--out", str(tmp_path / "many"), "--n", "5", "--seed", "3", "--batch", "2"]) == 0
    files = sorted((tmp_path / "many").iterdir())
    assert [path.name for path in files] == [f"{i:06d}.png" for i in range(5)]
    found = np.stack([viz.read_png(path) for path in files])
    assert np.abs(found.astype(int) - generators.quantise(expected)).max() <= 1
    assert main(["sample", str(saved), "--out", str(tmp_path / "grid.png"), "--n", "5", "--seed", "3", "--batch", "2"]) == 0
    np.testing.assert_array_equal(viz.read_png(tmp_path / "grid.png"), viz.grid(found))


def test_sample_refuses_what_it_cannot_make_with_nothing_written(saved, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    for words, said in ((["--n", "0"], "--n is 0: give at least 1"), (["--out", str(tmp_path / "full")], "not an empty folder")):
        assert main(["sample", str(saved), "--out", str(tmp_path / "new"), *words]) != 0
        assert said in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["full", "mine.txt"]


def test_batch_statistics_move_where_there_are_any():
    config = dataclasses.replace(STILL, pixel_norm=False, scaling="none", batch_norm=True, activation="relu", mirror=False)
    state = quick(config.system().init)(jax.random.key(0))
    batch = {"image": np.random.default_rng(0).integers(0, 256, (8, 4, 4, 3)).astype(np.uint8)}
    after, _ = quick(config.system().step)(state, batch, jax.random.key(1))
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), after.model["G"]["stats"], state.model["G"]["stats"])
    assert set(moved) == {"layer1", "layer2"} and min(jax.tree.leaves(moved)) > 1e-4


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
    assert [line["lod"] for line in logs[0]] == pytest.approx([1.0] * 5 + [1.0, 0.8, 0.6, 0.4, 0.2], abs=1e-5)
    arrays = [generators.open_generator(run).arrays for run in (whole, parts)]
    for name, array in arrays[0].items():
        np.testing.assert_array_equal(array, arrays[1][name], err_msg=name)


@pytest.mark.slow
def test_a_trained_run_draws_images(runs):
    images = generators.drawing(generators.open_generator(runs[1]))(0, 0)
    assert images.shape == (64, 16, 16, 3) and images.std() > 5 and (images[0] != images[1]).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": (8,)}, r"sizes \(8,\)"),
        ({"start": 2}, "start 2: growing begins at a power of two from 4"),
        ({"start": 16}, "start 16: growing begins at a power of two from 4 to the resolution, 8"),
        ({"batches": ()}, "batches"),
        ({"rates": ((4, -0.1),)}, "rates"),
        ({"ema": 0.0}, "ema 0.0 must be above 0"),
        ({"batch_norm": True}, "scaling 'fixed' with batch_norm"),
    ],
)
def test_choices_that_cannot_work_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"batches": ((4, 6),)}, "batches: 6 images at 8 px do not divide into groups of 4"), ({"start": 16, "group": 3}, "groups of 3")],
)
def test_a_batch_that_groups_do_not_divide_is_refused_with_nothing_written(tmp_path, change, message):
    experiment = configure.load_config(CARD, "tiny")
    experiment = dataclasses.replace(experiment, model=dataclasses.replace(experiment.model, **change))
    for attempt in (lambda: train(experiment, tmp_path / "run", quiet=True), lambda: dry_run(experiment)):
        with pytest.raises(ValueError, match=message):
            attempt()
    assert not list(tmp_path.iterdir())
