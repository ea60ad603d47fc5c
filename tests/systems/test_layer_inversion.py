"""The encoders' training: each stage learns and moves its own encoders alone, runs resume, and generators are told apart."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan import checkpoint, configure, generators, parallel, report
from jaxgan.__main__ import main
from jaxgan.configure import Experiment, Run
from jaxgan.nets import composed_encoder
from jaxgan.systems import layer_inversion, layer_inversion_stages
from jaxgan.systems.layer_inversion import Config, open_encoder, open_generator
from jaxgan.train import Result, train
from jaxgan.weights import save_generator

COMPILER = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
GENERATOR = "untrained:6-6-6-4"
ENCODERS = ("image", "layer4", "layer3", "layer2", "layer1")
STAGES = ("layer1", "layer2", "layer3", "layer4", "image", "joint")
EACH = 6


def quick(function):
    return jax.jit(function, compiler_options=COMPILER)


def experiment(stages=("layer1", "layer3"), *, generator=GENERATOR, steps=EACH, samples=0, **changes):
    """Six steps in each stage, saved between the stages and in their midst."""
    given = {"widths": (4, 4, 4, 4), "batch": 8, "steps": (steps,) * len(stages), "rates": (0.01,) * len(stages), **changes}
    run = Run(batch=8, kimg=8 * sum(given["steps"]) / 1000, log_every=1, save_every=3, sample_every=0, samples=samples, keep=50, seed=1)
    return Experiment(Config(generator, stages=stages, milestones=(0.9,), **given), run=run)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run of two stages without interruption."""
    workdir = tmp_path_factory.mktemp("encoders") / "whole"
    assert train(experiment(), workdir, quiet=True) == Result(12, 12, "finished")
    return workdir


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """The workdir of a run with all encoders, as they are before training but for their batch statistics."""
    workdir = tmp_path_factory.mktemp("encoders") / "written"
    given = experiment(STAGES)
    state = quick(given.model.system().init)(jax.random.key(0))
    rng = np.random.default_rng(0)
    stats = jax.tree.map(lambda leaf: leaf + np.abs(rng.normal(size=leaf.shape)).astype(np.float32), state.model["E"]["stats"])
    saved = checkpoint.Checkpoints(workdir / "checkpoints")
    saved.save(36, state._replace(model={"E": {**state.model["E"], "stats": stats}}), {"batches": 36})
    saved.close()
    configure.write(given, workdir / "config.json")
    return workdir


def leaves(workdir: Path, step: int) -> dict[str, str]:
    manifest = json.loads((workdir / "checkpoints" / str(step) / "manifest" / "metadata").read_text())
    return {name: leaf[2] for name, leaf in manifest["leaves"].items()}


@pytest.mark.parametrize("stage", ["layer1", "layer2", "bottom2"])
def test_a_stage_lowers_its_loss(stage):
    """Its loss on latents that it was not given, before and after twelve steps."""
    made = layer_inversion.system(experiment((stage,), steps=12).model, open_generator(GENERATOR))
    step, batch = quick(made.step), {"sample": jnp.arange(8, dtype=jnp.int32)}
    state = quick(made.init)(jax.random.key(0))
    _, before = step(state, batch, jax.random.key(99))
    for number in range(12):
        state, _ = step(state, batch, jax.random.key(number))
    _, after = step(state, batch, jax.random.key(99))
    assert float(after["loss/E"]) < 0.9 * float(before["loss/E"])


def test_the_joint_stage_learns_by_heart_what_it_sees_again_and_again():
    """All encoders at once are slow to learn latents that they have not seen; one draw, sixty times, they fit."""
    made = layer_inversion.system(experiment(("joint",), steps=60).model, open_generator(GENERATOR))
    step, state, losses = quick(made.step), quick(made.init)(jax.random.key(0)), []
    for _ in range(60):
        state, info = step(state, {"sample": jnp.arange(8, dtype=jnp.int32)}, jax.random.key(99))
        losses.append(float(info["loss/E"]))
    assert np.mean(losses[-5:]) < 0.75 * losses[0]


def moved(workdir: Path, begin: int, end: int) -> tuple[set[str], set[str]]:
    """Encoders whose parameters and whose statistics differ between two steps."""
    first, last = leaves(workdir, begin), leaves(workdir, end)
    names = [name.split("/") for name in first if first[name] != last[name]]
    return {path[2] for path in names if path[0] == "params"}, {path[3] for path in names if path[:3] == ["model", "E", "stats"]}


def test_a_run_goes_through_its_stages_and_each_moves_its_own_encoder_alone(whole):
    assert moved(whole, 3, 6) == ({"layer1"}, {"layer1"})
    assert moved(whole, 6, 12) == ({"layer3"}, {"layer3"})
    lines = report.read_metrics(whole / "metrics.jsonl")
    assert all({"estimate", "regenerate", "loss/E"} <= set(line) for line in lines if line["step"])
    for number in range(2):
        losses = [line["loss/E"] for line in lines if EACH * number < line["step"] <= EACH * (number + 1)]
        assert len(losses) == EACH and losses[-1] < losses[0]


@pytest.mark.slow
def test_one_run_goes_through_all_stages(tmp_path):
    steps = (6, 6, 6, 6, 12, 24)
    given = dataclasses.replace(experiment(STAGES, samples=4).model, steps=steps, rates=(0.01,) * 4 + (0.003, 0.003))
    run = dataclasses.replace(experiment(STAGES, samples=4).run, kimg=0.48, probe_every=30, probe_images=16)
    assert train(Experiment(given, run=run), tmp_path / "run", quiet=True) == Result(60, 60, "finished")
    lines, ends = report.read_metrics(tmp_path / "run" / "metrics.jsonl"), np.cumsum((0, *steps))
    for stage, begin, end in zip(STAGES, ends, ends[1:], strict=False):
        losses = [line["loss/E"] for line in lines if begin < line["step"] <= end]
        third = len(losses) // 3
        assert len(losses) == end - begin and (stage == "joint" or np.mean(losses[-third:]) < np.mean(losses[:third])), stage
        expected = set(ENCODERS) if stage == "joint" else {stage}
        assert moved(tmp_path / "run", begin + 3, end) == (expected, expected)
    first, last = leaves(tmp_path / "run", 39), leaves(tmp_path / "run", 60)
    third = [name for name in first if "/conv3/" in name and name.startswith("params")]
    assert len(third) == 4 and all(first[name] == last[name] for name in third)  # of layers 3 and 4: redundant, so fixed in joint
    probed = [line for line in lines if "encoder/x" in line]
    assert len(probed) == 3 and {"encoder/z", "encoder/layer4"} <= set(probed[-1])
    assert all(0 < line[f"encoder/{name}"] < 2 for line in probed for name in ("z", "layer1", "layer4", "x"))
    drawn = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert drawn == ["fakes_00000000.png", "fakes_00000060.png"]


def test_a_checkpoint_holds_the_encoders_and_of_the_generator_its_digest_alone(whole):
    step, arrays = checkpoint.load_networks(whole / "checkpoints", ("params", "model", "ema", "opt"))
    assert step == 12 and {name.split("/")[2] for name in arrays if name.startswith("params/E")} == {"layer1", "layer3"}
    assert bytes(arrays["model/E/generator"]).hex() == open_generator(GENERATOR).digest
    places = {"/".join(name.split("/")[:3]) for name in arrays if not name.startswith("opt/")}
    assert places == {"params/E/layer1", "params/E/layer3", "model/E/stats", "model/E/generator"}


def test_a_run_stopped_within_a_stage_and_at_its_end_is_the_same_run(whole, tmp_path):
    for more in (4, 2, 100):
        result = train(experiment(), tmp_path / "run", quiet=True, stop_after_steps=more)
    assert result == Result(12, 12, "finished")
    assert leaves(tmp_path / "run", 12) == leaves(whole, 12)


@pytest.mark.slow
def test_what_a_run_shows_is_an_image_beside_what_is_made_of_its_code():
    chain = open_generator(GENERATOR)
    made = layer_inversion.system(experiment(STAGES).model, chain)
    state = quick(made.init)(jax.random.key(0))
    pairs = quick(lambda state: made.show(state, jax.random.key(3), 5))(state)
    assert pairs.shape == (5, 16, 16, 3)
    normal = jax.random.normal(jax.random.key(3), (3, 6))
    composed = experiment(STAGES).model.composed(chain)

    def there_and_back(state):
        images, _ = chain.run(chain.arrays, chain.draw(chain.arrays, normal))
        found, _ = composed_encoder.apply(composed, state.params["E"], state.model["E"]["stats"], images)
        return images, chain.run(chain.arrays, found["z"])[0]

    images, again = quick(there_and_back)(state)
    np.testing.assert_allclose(pairs[::2], images, atol=1e-5)
    np.testing.assert_allclose(pairs[1::2], again[:2], atol=1e-3)


def test_an_opened_encoder_gives_every_estimate_of_the_run(written):
    chain = open_generator(GENERATOR)
    encoder = open_encoder(written, chain)
    assert encoder.names == ("layer4", "layer3", "layer2", "layer1", "z") and encoder.step == 36
    images, _ = chain.run(chain.arrays, chain.draw(chain.arrays, jax.random.normal(jax.random.key(5), (2, 6))))
    found = quick(encoder.encode)(encoder.arrays, images)
    shapes = {name: chain.shapes[name] for name in encoder.names[:-1]} | {"z": (6,)}
    assert {name: array.shape[1:] for name, array in found.items()} == shapes
    np.testing.assert_allclose(jnp.square(found["z"]).mean(-1), 1, rtol=1e-3)
    # batch norms are in evaluation mode: an image's code does not depend on the image beside it
    np.testing.assert_allclose(quick(encoder.encode)(encoder.arrays, images[:1])["z"], found["z"][:1], rtol=1e-3, atol=1e-4)
    _, arrays = checkpoint.load_networks(written / "checkpoints")
    params, stats = generators.nested(arrays, "params")["E"], generators.nested(arrays, "model")["E"]["stats"]
    composed = configure.read(written / "config.json").model.composed(chain)
    again, _ = quick(lambda params, stats: composed_encoder.apply(composed, params, stats, images))(params, stats)
    np.testing.assert_allclose(again["z"], found["z"], rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match=r"images of shape \(2, 8, 8, 3\): these encoders take \[N, 16, 16, 3\]"):
        encoder.encode(encoder.arrays, images[:, :8, :8])


def test_a_run_of_encoders_is_no_generator_to_draw_from(written, capsys):
    assert main(["sample", str(written), "--out", "nowhere"]) == 2
    assert "which draws no images; `jaxgan invert` uses its encoders" in capsys.readouterr().err


def test_encoders_of_another_generator_are_refused(written, tmp_path):
    other = open_generator("untrained:6-6-6-5")
    with pytest.raises(ValueError, match="holds encoders of another generator .* train them anew"):
        open_encoder(written, other)
    given = dataclasses.replace(experiment(("layer1",), start=(str(written),)).model, generator="untrained:6-6-6-5")
    with pytest.raises(ValueError, match="holds encoders of another generator"):
        train(Experiment(given, run=experiment(("layer1",)).run), tmp_path / "new", quiet=True)
    with pytest.raises(ValueError, match="is a progan, not a run of encoders"):
        open_encoder(_saved(tmp_path / "generator", 0), other)
    assert not (tmp_path / "new").exists()


def _saved(folder: Path, seed: int) -> Path:
    from jaxgan.systems import progan

    config = progan.Config(sizes=(6, 6, 6), start=8)
    state = quick(config.system().init)(jax.random.key(seed))
    flat, _ = jax.tree_util.tree_flatten_with_path({"params": {"G": state.params["G"]}, "model": {"G": state.model["G"]}})
    arrays = {"/".join(key.key for key in path): np.asarray(leaf) for path, leaf in flat}
    tree = configure.to_json(Experiment(config))["model"]
    save_generator(folder, "progan", tree, arrays, {"file": "test", "sha256": ""})
    return folder


@pytest.mark.slow
def test_a_run_is_not_resumed_where_its_generator_has_changed(tmp_path):
    path = _saved(tmp_path / "generator", 0)
    given = experiment(("layer1",), generator=str(path))
    assert train(given, tmp_path / "run", quiet=True, stop_after_steps=2).status == "stopped"
    before = leaves(tmp_path / "run", 2)
    path.rename(tmp_path / "first")
    _saved(path, 1)
    with pytest.raises(ValueError, match=r"this run holds encoders of another generator .* trained on"):
        train(given, tmp_path / "run", quiet=True)
    assert leaves(tmp_path / "run", 2) == before and checkpoint.steps_in(tmp_path / "run" / "checkpoints") == [2]


@pytest.mark.slow
def test_a_run_takes_encoders_from_runs_of_single_stages(tmp_path):
    for stage in ("layer1", "layer3"):
        train(experiment((stage,), steps=1), tmp_path / stage, quiet=True)
    both = (str(tmp_path / "layer1"), str(tmp_path / "layer3"))
    state = quick(experiment(("bottom3",), start=both).model.system().init)(jax.random.key(7))
    for name in ("layer1", "layer3"):
        _, arrays = checkpoint.load_networks(tmp_path / name / "checkpoints")
        np.testing.assert_array_equal(state.params["E"][name]["conv1"]["kernel"], arrays[f"params/E/{name}/conv1/kernel"])
        np.testing.assert_array_equal(state.model["E"]["stats"][name]["norm1"]["mean"], arrays[f"model/E/stats/{name}/norm1/mean"])
    with pytest.raises(ValueError, match="holds the encoders layer1; this run trains layer2"):
        experiment(("layer2",), start=both[:1]).model.system()
    with pytest.raises(ValueError, match="lacks the encoders image, layer4, layer3, layer2: it is a run of the stages layer1"):
        open_encoder(tmp_path / "layer1", open_generator(GENERATOR))


@pytest.mark.slow
def test_eight_devices_make_the_steps_of_one():
    """Losses of three steps; statistics of the first, behind which Adam moves on the rounding of biases that have no gradient."""
    batch = {"sample": np.arange(8, dtype=np.int32)}
    made = layer_inversion.system(experiment(("layer2",)).model, open_generator(GENERATOR))
    ends = []
    for devices in (jax.devices()[:1], jax.devices()):
        mesh = parallel.make_mesh((0, 1), devices)
        with jax.set_mesh(mesh):
            state = parallel.replicate(quick(made.init)(jax.random.key(0)), mesh)
            step, losses, statistics = quick(made.step), [], []
            for number in range(3):
                state, info = step(state, parallel.global_batch(batch, mesh, 8), jax.random.key(number))
                losses.append(float(info["loss/E"]))
                statistics.append(jax.device_get(state.model["E"]["stats"]["layer2"]["norm2"]))
        ends.append((losses, statistics[0]))
    np.testing.assert_allclose(ends[1][0], ends[0][0], rtol=1e-4)
    for name in ("mean", "variance"):
        np.testing.assert_allclose(ends[1][1][name], ends[0][1][name], rtol=1e-4, atol=1e-5)


def test_gradients_are_summed_up_or_cleared_and_the_rate_falls():
    """Against Adam written out in float64, with betas 0.9 and 0.999 and epsilon outside the root."""
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(6, 3))
    for accumulates in (None, False, True):
        tx = layer_inversion_stages.optimiser(0.1, (2, 4), 0.5, accumulates)
        variables = {"w": jnp.zeros(3)}
        state = tx.init(variables)
        w, m, v, total = np.zeros(3), 0.0, 0.0, 0.0
        for t, gradient in enumerate(gradients, 1):
            with jax.numpy_dtype_promotion("standard"):
                updates, state = tx.update({"w": jnp.asarray(gradient, jnp.float32)}, state, variables)
            variables = jax.tree.map(jnp.add, variables, updates)
            total = total + gradient
            g = total if accumulates else gradient
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            rate = 0.1 * 0.5 ** ((t > 2) + (t > 4))
            w = w - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        np.testing.assert_allclose(variables["w"], w, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": ("layer9",)}, "no stage 'layer9': the encoders of this generator are trained in layer1, .*, bottom5"),
        ({"stages": ("joint", "joint")}, "one is named twice"),
        ({"steps": (5,)}, "give one for each of the 6 stages"),
        ({"target": "layer7"}, "no layer 'layer7'"),
        ({"target": "output"}, "is the image itself"),
        ({"recover": ("w",)}, "'w' is none of"),
        ({"estimate": ("x",)}, "x can be recovered alone"),
        ({"estimate": (), "recover": ()}, "there is nothing to train"),
        ({"milestones": (0.6, 0.2)}, "must rise"),
        ({"generator": "untrained:64-a"}, "behind 'untrained:' stand sizes"),
        ({"generator": ""}, "generator is empty"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        system = Config(
            **({"generator": GENERATOR, "stages": ("joint",) if "recover" in changes or "estimate" in changes else ()} | changes)
        ).system()
        jax.eval_shape(lambda: system.step(system.init(jax.random.key(0)), {"sample": jnp.arange(8)}, jax.random.key(0)))
