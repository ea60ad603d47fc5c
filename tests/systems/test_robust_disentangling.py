"""Robust disentangling: who gets which gradient, what evolves beside the parameters, the ablations, and runs that resume."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxgan import checkpoint, parallel
from jaxgan.configure import Data, Experiment, Run
from jaxgan.nets import vgg
from jaxgan.systems import robust_disentangling as robust
from jaxgan.systems import robust_disentangling_terms as parts
from jaxgan.systems.robust_disentangling import Config
from jaxgan.train import Result, dry_run, step_function, train

CONFIG = Config(side=8, widths=(4, 6), code=3, estimator=8, blocks=1, warmup=0, lr=1e-3)
NETWORKS = parts.Networks(CONFIG)
SMALL = dataclasses.replace(CONFIG, auxiliary=False)


class Pairs:
    """Clips of one colour each, in which a white square moves."""

    image = (8, 8, 3)

    def __init__(self, n=24):
        rng = np.random.default_rng(0)
        self.frames = np.empty((n, 5, 8, 8, 3), np.uint8)
        self.frames[:] = rng.integers(0, 200, (n, 1, 1, 1, 3))
        for frames in self.frames:
            for frame, (top, left) in zip(frames, rng.integers(0, 6, (5, 2)), strict=True):
                frame[top : top + 3, left : left + 3] = 255

    def __len__(self):
        return len(self.frames)

    def draw(self, i, rng):
        return {"image": self.frames[i, rng.choice(5, 2, replace=False)], "group": np.int32(i)}

    def __getitem__(self, i):
        return self.draw(i, np.random.default_rng((0, int(i))))


def batch_of(n=8, first=0):
    source = Pairs()
    drawn = [source[first + i] for i in range(n)]
    return {name: np.stack([sample[name] for sample in drawn]) for name in drawn[0]}


def pulled(state):
    """The state with a constraint that pulls: a multiplier and estimates that are not 0."""
    model = dict(state.model)
    model["T"] = {**model["T"], "multiplier": jnp.asarray(0.7), "average": jnp.asarray(0.2), "updates": jnp.asarray(3, jnp.int32)}
    model["T_prime"] = {"gamma": jnp.asarray(1.3), "average": jnp.asarray(0.4)}
    return state._replace(model=model)


@pytest.fixture(scope="module")
def state():
    return pulled(jax.jit(robust.system(CONFIG).init)(jax.random.key(0)))


@pytest.fixture(scope="module")
def gradients(state):
    """{term: its gradient with respect to the parameters of all networks}."""
    config = dataclasses.replace(CONFIG, epsilon=-5.0)  # the constraint is then in force
    networks = parts.Networks(config)

    def found(params):
        return parts.terms(networks, params, {}, state.model, batch_of(4), jax.random.key(1))[0]

    return jax.jit(jax.jacrev(found))(state.params)


def largest(tree):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


MOVED = {
    "reconstruction": {"D", "E_pi", "E_alpha"},
    "bottleneck": {"E_pi"},
    "constraint": {"E_pi"},
    "T": {"T"},
    "T_prime": {"T_prime"},
    "pose_picture": {"A_pi"},
    "identity_picture": {"E_alpha", "A_alpha"},
}


@pytest.mark.parametrize("term", sorted(MOVED))
def test_each_term_moves_its_own_networks_and_gives_the_others_exactly_nothing(gradients, term):
    for name, tree in gradients[term].items():
        assert (largest(tree) > 0) == (name in MOVED[term]), name


@pytest.mark.slow
def test_the_sum_of_all_terms_gives_each_player_the_gradient_of_its_own_loss(gradients, state):
    networks = parts.Networks(dataclasses.replace(CONFIG, epsilon=-5.0))
    players = robust.make_players(networks)
    assert set(players) == set(state.params) == set(robust.LOSSES)

    def own_gradients(params):
        return {
            name: jax.grad(lambda own, p=p: p.loss(own, params, state.model, batch_of(4), jax.random.key(1))[0])({name: params[name]})[name]
            for name, p in players.items()
        }

    want = jax.jit(own_gradients)(state.params)
    for name, terms in robust.LOSSES.items():
        summed = jax.tree.map(lambda *leaves: sum(leaves), *[gradients[term][name] for term in gradients])
        assert {term for term in gradients if largest(gradients[term][name])} == set(terms)
        for one, two in zip(jax.tree.leaves(want[name]), jax.tree.leaves(summed), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


def test_the_terms_are_the_formulas(state):
    """From the networks' outputs, in double precision."""
    batch, key = batch_of(4), jax.random.key(1)
    batch["group"] = np.asarray([0, 0, 1, 2], np.int32)
    config = dataclasses.replace(CONFIG, epsilon=-1.0)
    found, read = jax.jit(lambda: parts.terms(parts.Networks(config), state.params, {}, state.model, batch, key))()
    images = batch["image"].astype(np.float64) / 127.5 - 1
    first, second = (jnp.asarray(images[:, i], jnp.float32) for i in (0, 1))
    given, alpha = NETWORKS.pose(state.params, first), NETWORKS.apply("E_alpha", state.params, second)
    noise = np.asarray(jax.random.normal(jax.random.fold_in(key, 0), (2, 4, 3)), np.float64)
    mean, logvar = np.asarray(given.mean, np.float64), np.asarray(given.logvar, np.float64)
    pi, judged = mean + np.exp(0.5 * logvar) * noise
    picture = np.asarray(NETWORKS.apply("D", state.params, jnp.asarray(pi, jnp.float32), alpha), np.float64)
    other, counted = parts.strangers(alpha, jnp.asarray(batch["group"]), jax.random.fold_in(key, 1))
    squares = (picture - images[:, 0]) ** 2
    np.testing.assert_allclose(found["reconstruction"], squares.sum((1, 2, 3)).mean(), rtol=1e-4)
    np.testing.assert_allclose(read["error"], squares.mean(), rtol=1e-4)
    np.testing.assert_allclose(found["bottleneck"], 1.3 * 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar).sum(-1).mean(), rtol=1e-4)
    for name, suffix in (("T", ""), ("T_prime", "_prime")):
        joint, marginal = (
            np.asarray(NETWORKS.apply(name, state.params, jnp.asarray(judged, jnp.float32), codes), np.float64) for codes in (alpha, other)
        )
        kept = marginal[np.asarray(counted)]
        want = 0.5 * np.logaddexp(0, -joint).mean() + 0.5 * np.logaddexp(0, kept).mean()
        np.testing.assert_allclose(found[name], want, rtol=1e-4)
        np.testing.assert_allclose(read[f"information{suffix}"], joint.mean(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(read[f"accuracy{suffix}"], 0.5 * (joint > 0).mean() + 0.5 * (kept < 0).mean(), rtol=1e-5)
        if name == "T":
            excess = joint.mean() + 1.0
            np.testing.assert_allclose(found["constraint"], 0.7 * excess + 0.05 * excess**2, rtol=1e-4)


def test_no_sample_is_its_own_stranger_and_samples_of_its_clip_do_not_count():
    alpha, clip = jnp.arange(5.0)[:, None], jnp.asarray([0, 1, 2, 2, 3])
    shifts = set()
    for number in range(40):
        other, counted = parts.strangers(alpha, clip, jax.random.key(number))
        at = np.asarray(other)[:, 0].astype(int)
        assert (at != np.arange(5)).all()
        np.testing.assert_array_equal(counted, np.asarray(clip) != np.asarray(clip)[at])
        shifts.add(int(at[0]))
    assert shifts == {1, 2, 3, 4}


# -- what evolves


def test_multiplier_gamma_and_averages_move_by_the_published_rules():
    model = {
        "T": {"multiplier": jnp.asarray(0.7), "average": jnp.asarray(0.02), "updates": jnp.asarray(4, jnp.int32)},
        "T_prime": {"gamma": jnp.asarray(2.0), "average": jnp.asarray(0.05)},
    }
    read = {"information": jnp.asarray(0.5), "information_prime": jnp.asarray(3.0)}
    averages = 0.99 * np.asarray([0.02, 0.05]) + 0.01 * np.asarray([0.5, 3.0])
    smooth = averages / (1 - 0.99**5)
    for warmup, multiplier, gamma in ((4, 0.7 + 0.1 * (0.5 - 0.125), 2.0 + 0.01 * (smooth[1] - smooth[0] - 0.01)), (5, 0.7, 2.0)):
        new, log = parts.advance(dataclasses.replace(CONFIG, warmup=warmup), model, read)
        np.testing.assert_allclose((new["T"]["multiplier"], new["T_prime"]["gamma"]), (multiplier, gamma), rtol=1e-5)
        np.testing.assert_allclose((new["T"]["average"], new["T_prime"]["average"]), averages, rtol=1e-5)
        np.testing.assert_allclose((log["average"], log["average_prime"]), smooth, rtol=1e-5)
        assert new["T"]["updates"] == 5
    for changes in ({"bottleneck": "fixed"}, {"deterministic": True}):
        assert parts.advance(dataclasses.replace(CONFIG, **changes), model, read)[0]["T_prime"]["gamma"] == 2
    off = dataclasses.replace(CONFIG, constraint=False, bottleneck="fixed")
    assert parts.advance(off, model, read)[0]["T"]["multiplier"] == jnp.float32(0.7)


def terms_of(config):
    """``f(state, key, updates) -> terms`` at the same pairs."""

    def found(state, key, updates):
        params = {name: state.params[name] for name in parts.Networks(config).modules}
        model = {**state.model, "T": {**state.model["T"], "updates": updates}}
        return parts.terms(parts.Networks(config), params, {}, model, batch_of(4), key)[0]

    return found


def test_the_ablations_leave_out_what_they_name(state):
    one, two, third, fourth = jax.random.key(1), jax.random.key(2), jnp.asarray(3, jnp.int32), jnp.asarray(4, jnp.int32)
    variational = dataclasses.replace(SMALL, constraint=False, bottleneck="fixed")
    rest = {"reconstruction", "T", "T_prime"}
    for config, names in ((CONFIG, set(MOVED)), (variational, rest | {"bottleneck"})):
        assert set(jax.eval_shape(terms_of(config), state, one, third)) == names
    adversarial = jax.jit(terms_of(dataclasses.replace(SMALL, deterministic=True)))
    here, there = adversarial(state, one, third), adversarial(state, two, third)
    assert set(here) == rest | {"constraint"} and here["reconstruction"] == there["reconstruction"]
    full = jax.jit(terms_of(dataclasses.replace(SMALL, warmup=4, epsilon=-5.0)))
    here, there = full(state, one, third), full(state, two, fourth)
    assert here["reconstruction"] != there["reconstruction"]
    assert here["constraint"] == 0 < there["constraint"]  # the warm-up ends


def test_the_leak_sends_the_encoder_a_gradient_through_the_second_classifier(state):
    """And its weights stay out of it: the broken variant differs from the sound one in the encoder's gradient alone."""

    def gradient(config):
        def constraint(params):
            return parts.terms(parts.Networks(config), params, {}, state.model, batch_of(4), jax.random.key(1))[0]["constraint"]

        return jax.jit(jax.grad(constraint))(state.params)

    sound, broken = (gradient(dataclasses.replace(CONFIG, epsilon=-5.0, leak=leak)) for leak in (False, True))
    assert largest(jax.tree.map(jnp.subtract, sound["E_pi"], broken["E_pi"])) > 1e-6
    assert all(largest(broken[name]) == 0 for name in broken if name != "E_pi")


# -- steps


@pytest.fixture(scope="module")
def stepped():
    system = robust.system(CONFIG)
    return system, jax.jit(system.step)


@pytest.mark.slow
def test_a_few_steps_learn_pairs_and_everything_is_finite(stepped):
    system, step = stepped
    state, batch, first = jax.jit(system.init)(jax.random.key(0)), batch_of(8), None
    for number in range(100):
        state, info = step(state, batch, jax.random.key(number))
        first = info if first is None else first
    assert float(info["error"]) < 0.5 * float(first["error"])
    assert all(np.asarray(vector).all() for vector in info["finite"].values())
    assert {name: len(vector) for name, vector in info["finite"].items()} == {
        name: 1 + len(jax.tree.leaves(state.params[name])) for name in state.params
    }
    assert set(info) >= {
        *("reconstruction", "kl", "information", "information_prime", "average", "average_prime"),
        *("overpowering", "multiplier", "gamma", "accuracy", "accuracy_prime"),
    }
    assert int(state.step) == int(state.model["T"]["updates"]) == 100
    shown = system.translate(state, batch["image"])
    assert shown.shape == (8, 8, 7 * 8, 3) and float(jnp.abs(shown).max()) <= 1
    swap = robust.swapper(CONFIG)
    images = jnp.asarray(batch["image"], jnp.float32) / 127.5 - 1
    identity, pose = swap.identity(state.params, images[:, 1]), swap.pose(state.params, images[:, 0])
    np.testing.assert_allclose(swap.decode(state.params, identity, pose), shown[:, :, 16:24], atol=1e-5)
    np.testing.assert_allclose(swap.decode(state.params, jnp.roll(identity, -1, 0), pose), shown[:, :, 32:40], atol=1e-5)
    assert swap.identity_vector(identity).shape == swap.pose_vector(pose).shape == (8, 3)


def test_the_same_key_gives_the_same_step_and_another_key_another(stepped, state):
    _, step = stepped
    one, two, other = (step(state, batch_of(8), jax.random.key(number))[0].params for number in (5, 5, 6))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), one, two)))
    assert largest(jax.tree.map(jnp.subtract, one, other)) > 0


@pytest.mark.slow
def test_a_step_without_compilation_is_the_same_step():
    system = robust.system(SMALL)
    state = pulled(jax.jit(system.init)(jax.random.key(0)))
    (plain, here), (compiled, there) = (run(state, batch_of(4), jax.random.key(1)) for run in (system.step, jax.jit(system.step)))
    for name in set(here) - {"finite"}:
        np.testing.assert_allclose(here[name], there[name], rtol=1e-4, atol=1e-5, err_msg=name)
    compare(plain, compiled)


def compare(one, two):
    """Adam's first steps are the learning rate times the gradient's sign where it is not tiny: compared by the moments, that are linear."""
    for a, b in zip(jax.tree.leaves((one.opt, one.model)), jax.tree.leaves((two.opt, two.model)), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(b).max()))


@pytest.mark.slow
def test_eight_devices_make_the_same_step_as_one(stepped, state):
    system, step = stepped
    batch, mesh = batch_of(16), parallel.make_mesh((8, 1))
    alone, there = step(state, batch, jax.random.fold_in(jax.random.key(0), state.step))
    with jax.set_mesh(mesh):
        whole = NamedSharding(mesh, PartitionSpec())
        program = jax.jit(step_function(system, 0), out_shardings=whole)
        spread, here = program(parallel.replicate(state, mesh), parallel.global_batch(batch, mesh, 16))
    for name in set(here) - {"finite"}:
        np.testing.assert_allclose(here[name], there[name], rtol=1e-4, atol=1e-5, err_msg=name)
    compare(spread, alone)
    for one, two in zip(jax.tree.leaves(spread.params), jax.tree.leaves(alone.params), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(two), atol=1e-5)


def test_a_frozen_identity_encoder_and_no_auxiliary_decoders_leave_fewer_players():
    config = dataclasses.replace(SMALL, e_alpha="frozen", e_alpha_from="somewhere")
    assert set(robust.make_players(parts.Networks(config))) == {"D", "E_pi", "T", "T_prime"}


def test_a_dry_run_names_the_missing_workdir_of_a_frozen_encoder_as_a_run_does(tmp_path):
    config = dataclasses.replace(SMALL, e_alpha="frozen", e_alpha_from=str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="gone does not exist"):
        dry_run(Experiment(config, Data(), Run(batch=8, kimg=0.08)))


def test_learning_rates_fall_to_nothing_and_the_classifiers_learn_faster():
    players = robust.make_players(parts.Networks(dataclasses.replace(SMALL, lr=1e-2, steps=10)))
    for name, rate in (("D", 1e-2), ("E_alpha", 1e-2), ("T", 2e-2), ("T_prime", 2e-2)):
        own, tx = {name: jnp.ones(1)}, players[name].tx
        opt, rates = tx.init(own), []
        with jax.numpy_dtype_promotion("standard"):
            for _ in range(12):
                updates, opt = tx.update(own, opt, own)
                rates.append(-float(updates[name][0]))  # Adam's step under a constant gradient is the learning rate
        np.testing.assert_allclose((rates[0], rates[5], rates[11]), (rate, rate / 2, 0), rtol=1e-3, atol=1e-8)


# -- runs


@pytest.fixture
def source(monkeypatch):
    monkeypatch.setattr(robust, "open_source", lambda config, data: Pairs())


def leaves(workdir):
    _, arrays = checkpoint.load_networks(workdir / "checkpoints")
    return arrays


@pytest.mark.slow
def test_an_interrupted_run_ends_as_the_uninterrupted_one_and_its_identity_encoder_serves_frozen(tmp_path, source):
    run = Run(batch=8, kimg=0.048, log_every=2, save_every=3, sample_every=3, samples=2)
    experiment = Experiment(dataclasses.replace(SMALL, warmup=2, ema=0.01), Data(), run)
    assert train(experiment, tmp_path / "whole", quiet=True) == Result(6, 6, "finished")
    assert train(experiment, tmp_path / "cut", quiet=True, stop_after_steps=4).status == "stopped"
    assert train(experiment, tmp_path / "cut", quiet=True) == Result(6, 6, "finished")
    whole, cut = leaves(tmp_path / "whole"), leaves(tmp_path / "cut")
    assert {"model/T/multiplier", "model/T_prime/gamma", "ema/E_pi/out/kernel"} <= set(whole)
    assert set(whole) == set(cut) and all((whole[name] == cut[name]).all() for name in whole)
    frozen = dataclasses.replace(experiment.model, e_alpha="frozen", e_alpha_from=str(tmp_path / "whole"))
    train(dataclasses.replace(experiment, model=frozen), tmp_path / "frozen", quiet=True, stop_after_steps=3)
    (tmp_path / "whole").rename(tmp_path / "moved")  # the run has its encoder in its own checkpoint
    assert train(dataclasses.replace(experiment, model=frozen), tmp_path / "frozen", quiet=True) == Result(6, 6, "finished")
    with pytest.raises(FileNotFoundError, match="whole does not exist"):
        train(dataclasses.replace(experiment, model=frozen), tmp_path / "another", quiet=True)
    assert not (tmp_path / "another" / "config.json").exists()
    (tmp_path / "moved").rename(tmp_path / "whole")
    later = leaves(tmp_path / "frozen")
    encoder = [name for name in later if name.startswith("params/E_alpha/")]
    assert encoder and all((later[name] == whole["ema" + name[6:]]).all() for name in encoder)
    other = robust.system(dataclasses.replace(frozen, code=4))
    with pytest.raises(ValueError, match="other sizes"):
        other.begin(jax.eval_shape(other.init, jax.random.key(0)))


def test_a_run_reads_pairs_of_frames_of_one_clip_and_its_blanks_are_like_them():
    system = robust.system(dataclasses.replace(CONFIG, side=32, widths=(2, 2, 2, 2), same_image=True))
    source = system.reads.open(Data(source="figures", count=3))
    assert source.same and len(source) == 3
    drawn, empty = source[2], system.reads.blank(2)
    assert {name: np.stack([drawn[name]] * 2).shape for name in empty} == {name: array.shape for name, array in empty.items()}
    assert all(np.asarray(drawn[name]).dtype == array.dtype for name, array in empty.items()) and drawn["group"] == source.clips.group[2]


def test_mirrored_images_are_about_half_and_each_for_itself():
    batch = {"image": np.random.default_rng(0).integers(0, 256, (200, 2, 8, 8, 3)).astype(np.uint8), "group": np.zeros(200, np.int32)}
    moved = robust.system(dataclasses.replace(CONFIG, flip=True)).prepare(batch, np.random.default_rng(1))["image"]
    mirrored = (moved == batch["image"][..., ::-1, :]).all((2, 3, 4))
    kept = (moved == batch["image"]).all((2, 3, 4))
    assert (mirrored ^ kept).all() and 0.4 < mirrored.mean() < 0.6 and 60 < (mirrored[:, 0] != mirrored[:, 1]).sum() < 140
    assert robust.system(CONFIG).prepare(batch, np.random.default_rng(1))["image"] is batch["image"]


def small_vgg(widths=(2, 3, 4, 5, 6)):
    rng, arrays, channels = np.random.default_rng(0), {}, 3
    for name in vgg.LAYERS:
        width = widths[int(name[4]) - 1]
        arrays |= {f"{name}.kernel": rng.normal(0, 0.3, (3, 3, channels, width)), f"{name}.bias": rng.normal(0, 0.1, width)}
        channels = width
    return vgg.params({name: array.astype(np.float32) for name, array in arrays.items()})


@pytest.mark.parametrize(("given", "scale"), [("torchvision", 57.63), ("caffe", 1.0)])
def test_the_perceptual_error_is_the_sum_over_pixels_and_maps_of_one_random_part(given, scale):
    config = Config(perceptual="vgg", side=32, widths=(4, 4, 4, 4), vgg_input=given)
    images, targets = jax.random.uniform(jax.random.key(0), (2, 3, 32, 32, 3), minval=-1, maxval=1)
    network, key = small_vgg(), jax.random.key(3)
    top, left = np.asarray(jax.random.randint(key, (2,), 0, 5))
    seen = [x[:, top : top + 28, left : left + 28] for x in (images, targets)]
    normal = [(x[..., ::-1] + 1) * 127.5 - np.float32([103.939, 116.779, 123.68]) for x in seen]
    maps = [vgg.features(network, vgg.scale_imagenet(x) if scale > 1 else y, parts.MAPS) for x, y in zip(seen, normal, strict=True)]
    total = 127.5 * np.abs(np.asarray(seen[0] - seen[1], np.float64)).mean()
    total += sum(scale * np.abs(np.asarray(maps[0][name] - maps[1][name], np.float64)).mean() for name in parts.MAPS)
    value, slope = jax.jit(jax.value_and_grad(lambda x: parts.perceptual_error(config, network, x, targets, key)))(images)
    np.testing.assert_allclose(value, 0.5e-3 * 32 * 32 * 3 * total, rtol=1e-3)
    changed = np.abs(np.asarray(slope)).max((0, 3)) > 0
    assert changed[top : top + 28, left : left + 28].all() and changed.sum() == 28 * 28


def test_vgg_is_an_argument_of_the_step_and_weights_of_another_input_are_refused(monkeypatch):
    from jaxgan import weights

    arrays = {f"{name}.{kind}": np.asarray(value) for name, layer in small_vgg().items() for kind, value in layer.items()}
    monkeypatch.setattr(weights, "load", lambda name, path=None: arrays)
    monkeypatch.setattr(weights, "about", lambda name, path=None: {"preprocessing": "caffe"})
    config = dataclasses.replace(SMALL, side=32, widths=(2, 2, 2, 2), perceptual="vgg", vgg_input="caffe")
    state = jax.eval_shape(robust.system(config).init, jax.random.key(0))
    assert set(state.frozen["vgg"]) == set(vgg.LAYERS) and "vgg" not in state.params
    assert config.first_gamma() == 7.5 and SMALL.first_gamma() == 1 and dataclasses.replace(config, gamma=3.0).first_gamma() == 3
    with pytest.raises(ValueError, match="set vgg_input to 'caffe'"):
        jax.eval_shape(robust.system(dataclasses.replace(config, vgg_input="torchvision")).init, jax.random.key(0))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"side": 16}, "3 widths fit 16 px"),
        ({"code": 0}, "code is 0"),
        ({"lr": 0.0}, "lr is 0"),
        ({"gamma": -1.0}, "gamma is -1"),
        ({"constraint": False}, "use bottleneck 'fixed'"),
        ({"constraint": False, "bottleneck": "fixed", "leak": True}, "needs constraint"),
        ({"e_alpha": "frozen"}, "'frozen' needs a workdir"),
        ({"perceptual": "vgg"}, "VGG would see 7 px"),
    ],
)
def test_settings_that_cannot_work_are_named(changes, text):
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(CONFIG, **changes)


def test_a_batch_of_one_has_no_stranger():
    with pytest.raises(ValueError, match="at least 2"):
        robust.system(CONFIG).check(1)
