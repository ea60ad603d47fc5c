"""Identity and pose: each term is its formula and moves what it should, switches switch one thing, devices and stops change none."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from small_identity_pose import BATCH, COMPILER, CONFIG, Squares, filled, triplets

from jaxgan import checkpoint, configure, parallel, train
from jaxgan.data.triplets import Triplets
from jaxgan.nets import identity_pose as nets
from jaxgan.nets import pixel_verification as pvm
from jaxgan.nets.layers import spectral_normalise
from jaxgan.systems import identity_pose
from jaxgan.systems import identity_pose_losses as terms
from jaxgan.systems.identity_pose import Config

ALL = {"rec", "self_rec", "perc", "self_perc", "adv", "pv", "dis_pose", "dis_id", "back"}


def terms_of(config, state, batch):
    """The terms of the generator's loss as a compiled function of its own networks and of phi."""
    parts = identity_pose.make_parts(config)

    def found(own, params):
        normal, _ = spectral_normalise(params["D"], state.model["D"]["spectral"], stop_gradient=True)
        return terms.generator_terms(config, parts, own, params, normal, state.model["phi"], batch)[0]

    return jax.jit(found, compiler_options=COMPILER), {name: state.params[name] for name in identity_pose.MOVED}


@pytest.fixture(scope="module")
def ready():
    """A state, a batch as the players get it, and the terms with all switches on."""
    state = jax.tree.map(jnp.asarray, filled(CONFIG))
    batch = jax.jit(lambda key: identity_pose.on_device(CONFIG, triplets(), key))(jax.random.key(0))
    function, own = terms_of(CONFIG, state, batch)
    return state, batch, function(own, state.params)


# -- the terms


def test_margins_and_distances_are_their_formulas():
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(3, 5, 2, 2, 3))
    d = [1 - (x * y).sum((1, 2, 3)) / np.sqrt((x * x).sum((1, 2, 3)) * (y * y).sum((1, 2, 3))) for x, y in ((a, b), (a, c))]
    one, two, three = (jnp.asarray(x, jnp.float32) for x in (a, b, c))
    np.testing.assert_allclose(terms.distance(one, two), d[0], atol=1e-5)
    moved = np.asarray([True, False, True, True, False])
    expected = np.maximum(0, d[0] - d[1] + 0.3)
    np.testing.assert_allclose(terms.pose_margin(one, two, three, jnp.asarray(moved)), (moved * expected).sum() / 5, rtol=1e-4)
    np.testing.assert_allclose(terms.identity_margin(one, three, two), expected.mean(), rtol=1e-4)
    same = jnp.ones((5, 4))
    assert float(terms.identity_margin(same, same, same)) == pytest.approx(0.3, abs=1e-5)  # a code of one value for all pays the margin
    zero = jnp.zeros((5, 4))
    assert np.isfinite(jax.grad(lambda x: terms.distance(x, x).sum())(zero)).all()


def test_an_object_that_hardly_moved_asks_for_nothing():
    identity = jnp.zeros((3, 4, 4, 3))
    target = jnp.asarray([0.5, 0.01, 0.5])[:, None, None, None] * jnp.ones((3, 4, 4, 3))
    assert terms.has_moved(identity, target, jnp.asarray([2, 5, 1])).tolist() == [True, False, False]


def test_gradients_of_the_three_copies_reach_what_they_should():
    def decode(network, identity, pose):
        return network * identity * pose

    def loss(network, identity, pose, weights):
        return sum(weight * image.sum() for weight, image in zip(weights, terms.route(decode)(network, identity, pose), strict=True))

    values = tuple(jnp.asarray(x) for x in (2.0, 3.0, 5.0))
    slopes = [jax.grad(loss, (0, 1, 2))(*values, weights) for weights in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))]
    assert np.asarray(slopes).tolist() == [[15, 10, 6], [15, 10, 0], [15, 0, 0]]


def test_terms_are_what_separate_networks_and_numpy_give(ready):
    """Each image is encoded and decoded alone here: the codes of the transfer are those of the double duty."""
    state, batch, found = ready
    params, parts = state.params, identity_pose.make_parts(CONFIG)
    names = ("identity", "pose", "target")
    normal, _ = spectral_normalise(params["D"], state.model["D"]["spectral"], stop_gradient=True)

    @jax.jit
    def codes(images):
        return parts.identity(params["E_id"], images), parts.pose(params["E_pose"], images, batch["disguise"])

    coded = {name: codes(batch[name]) for name in names}
    cross = jnp.roll(coded["pose"][1], 1, 0)
    decode = jax.jit(lambda identity, pose: parts.decode(params["G"], identity, pose))
    made = decode(coded["identity"][0], coded["pose"][1])
    pairs = [(made, batch["target"])]
    pairs += [(decode(*coded[name]), batch[name]) for name in ("pose", "identity")]
    crossed = decode(coded["identity"][0], cross)
    l1 = [np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).mean() for a, b in pairs]
    np.testing.assert_allclose([found["rec"], found["self_rec"]], [l1[0], (l1[1] + l1[2]) / 2], rtol=1e-4)

    judge = jax.jit(lambda images: parts.judge(normal, images, terms.unit(coded["identity"][0].code)))
    apart = [
        sum(np.abs(np.asarray(x, np.float64) - np.asarray(y)).mean() for x, y in zip(judge(a)[1], judge(b)[1], strict=True))
        for a, b in pairs
    ]
    np.testing.assert_allclose([found["perc"], found["self_perc"]], [apart[0], (apart[1] + apart[2]) / 2], rtol=1e-4)
    scores = [np.mean([np.asarray(x[scale]).mean() for x in (judge(made)[0], judge(crossed)[0])]) for scale in range(2)]
    np.testing.assert_allclose(found["adv"], -np.mean(scores), rtol=1e-3, atol=1e-5)

    total = 0.0
    for image, mask in (
        (made, pvm.demand(batch["target"], batch["pose"])),
        (crossed, pvm.demand(batch["identity"], jnp.roll(batch["pose"], 1, 0))),
    ):
        out = jax.tree.map(np.asarray, pvm.pvm_apply(params["phi"], image, batch["identity"]))
        total += 0.5 * (np.asarray(mask) * (np.maximum(out.residual - 0.05, 0) + 0.25 * np.maximum(0.9 - out.score, 0))).mean()
    np.testing.assert_allclose(found["pv"], total, rtol=1e-3)

    def d(a, b):
        a, b = (np.asarray(x, np.float64).reshape(BATCH, -1) for x in (a, b))
        return 1 - (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))

    i, p = ({name: coded[name][0].code if kind == "i" else coded[name][1] for name in names} for kind in "ip")
    moved = (np.asarray(batch["gap"]) >= 2) & (np.abs(np.asarray(batch["identity"] - batch["target"])).mean((1, 2, 3)) >= 0.02)
    assert 0 < moved.sum() < BATCH
    dis = np.maximum(0, d(p["target"], p["pose"]) - d(p["target"], p["identity"]) + 0.3)
    np.testing.assert_allclose(found["dis_pose"], (moved * dis).mean(), rtol=1e-3)
    dis = np.maximum(0, d(i["target"], i["identity"]) - d(i["target"], i["pose"]) + 0.3)
    np.testing.assert_allclose(found["dis_id"], dis.mean(), rtol=1e-3)
    back = [d(codes(x)[1], pose) + d(codes(x)[0].code, i["identity"]) for x, pose in ((made, p["pose"]), (crossed, cross))]
    np.testing.assert_allclose(found["back"], np.mean(back), rtol=1e-3)


@pytest.mark.slow
def test_each_term_moves_the_networks_that_it_should_and_no_others(ready):
    state, batch, _ = ready
    function, own = terms_of(CONFIG, state, batch)

    def largest(own, params):
        slopes = jax.jacrev(function.__wrapped__, (0, 1))(own, params)
        return {
            name: {
                net: jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(tree)]).max() for net, tree in (both[0] | both[1]).items()
            }
            for name, both in slopes.items()
        }

    rest = {name: state.params[name] for name in ("D", "phi")}
    found = jax.device_get(jax.jit(largest, compiler_options=COMPILER)(own, rest))
    everything = {"G", "E_id", "E_pose"}
    allowed = {name: everything for name in ("rec", "self_rec", "perc", "self_perc", "adv")}
    allowed |= {"pv": {"G", "E_id"}, "dis_pose": {"E_pose"}, "dis_id": {"E_id"}, "back": {"G"}}
    for name, by_network in found.items():
        moved = {network for network, slope in by_network.items() if slope != 0}
        # D is no network of this player's: its parameters are seen, and never differentiated by
        assert moved - {"D"} == allowed[name], name
        assert by_network["phi"] == 0, name


# -- switches


SWITCHES = [
    ({"self_decode": False}, {"self_rec", "self_perc"}, set()),
    ({"w_pv": 0.0}, {"pv"}, set()),
    ({"hinge": False}, set(), {"pv"}),
    ({"w_dis": 0.0}, {"dis_pose", "dis_id"}, set()),
    ({"w_adv": 0.0}, {"adv"}, set()),
    ({"perceptual": "none"}, {"perc", "self_perc"}, set()),
    ({"w_back": 0.0}, {"back"}, set()),
    ({"w_pv": 0.0, "w_back": 0.0, "w_adv": 0.0}, {"pv", "back", "adv"}, set()),
]


@pytest.mark.parametrize(("changes", "gone", "other"), SWITCHES)
def test_a_switch_leaves_out_its_own_term(changes, gone, other):
    state = filled(CONFIG)
    batch = jax.eval_shape(lambda key: identity_pose.on_device(CONFIG, triplets(), key), jax.random.key(0))

    def found(state, batch):
        function, own = terms_of(dataclasses.replace(CONFIG, **changes), state, batch)
        return function.__wrapped__(own, state.params)

    assert set(jax.eval_shape(found, state, batch)) == ALL - gone


@pytest.mark.slow
@pytest.mark.parametrize(("changes", "gone", "other"), SWITCHES[:4:2] + SWITCHES[-1:])
def test_a_switch_leaves_the_other_terms_as_they_are(ready, changes, gone, other):
    state, batch, everything = ready
    function, own = terms_of(dataclasses.replace(CONFIG, **changes), state, batch)
    found = jax.device_get(function(own, state.params))
    assert set(found) == ALL - gone
    for name, value in found.items():
        assert (abs(value - everything[name]) > 1e-3) if name in other else value == pytest.approx(float(everything[name]), rel=1e-4), name


@pytest.mark.slow
def test_the_reader_and_the_colours_can_be_left_out():
    plain = dataclasses.replace(CONFIG, reader=False, augment=False)
    full, less = (jax.eval_shape(config.system().init, jax.random.key(0)) for config in (CONFIG, plain))
    assert set(full.params["G"]) - set(less.params["G"]) == {"reader"} and set(less.params["G"]) < set(full.params["G"])
    ready = identity_pose.on_device(plain, triplets(), jax.random.key(0))
    assert ready["disguise"] is None
    np.testing.assert_allclose(ready["pose"], triplets()["image"][:, 1] / 127.5 - 1, atol=1e-6)
    params = filled(CONFIG).params
    colours, grey = (identity_pose.swapper(config).pose(params, ready["pose"]) for config in (plain, CONFIG))
    assert float(jnp.abs(colours - grey).max()) > 1e-3
    np.testing.assert_allclose(identity_pose.swapper(CONFIG).pose(params, nets.grey(ready["pose"])), grey, atol=1e-5)


def test_the_weight_of_pixel_verification_rises_between_its_steps():
    config = Config()
    assert [float(identity_pose.ramp(config, jnp.asarray(step))) for step in (0, 2000, 3000, 6000, 9000)] == [0, 0, 0.25, 1, 1]


def test_the_rate_is_constant_for_half_of_the_run_and_falls_to_nothing():
    tx, rates = identity_pose.optimiser(0.01, 40, 5.0), []
    own = {"G": jnp.ones((1,))}
    state = tx.init(own)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(41):
            updates, state = tx.update({"G": jnp.ones((1,))}, state, own)
            rates.append(-float(updates["G"][0]))
    np.testing.assert_allclose(rates[:20], 0.01, rtol=1e-3)
    assert rates[30] == pytest.approx(0.005, rel=1e-2) and rates[40] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"side": 32}, r"side 32 with 2 widths.*16 for 2"),
        ({"grid": 3}, "grid is 3"),
        ({"read": 9}, "read 9"),
        ({"heads": 0}, "into 0 heads"),
        ({"scales": 3}, "scales 3"),
        ({"pv_ramp": (5, 5)}, "pv_ramp"),
        ({"w_pv": -1.0}, "w_pv is -1.0"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"triplets": Triplets(features="encoder", renew=10)}, r"first used after 10 steps \(triplets.renew\), and the run has 10"),
    ],
)
def test_settings_that_cannot_work_are_named(changes, text):
    with pytest.raises(ValueError, match=text):
        dataclasses.replace(CONFIG, **changes)


def test_a_batch_of_one_has_no_other_pose_and_is_refused():
    with pytest.raises(ValueError, match="run.batch = 1"):
        CONFIG.system().check(1)


def test_averages_are_means_at_first_and_decay_at_their_rate_in_the_long_run():
    """The rates as the docstrings give them, followed with numbers in place of networks."""
    values = np.random.default_rng(0).normal(size=150)
    average = 0.0
    for done, value in enumerate(values):
        average += (value - average) / min(done + 1, 100)
        if done == 99:
            assert average == pytest.approx(values[:100].mean())
    model = {"phi": {"rho": jnp.float32(average), "v": jnp.float32(1)}}
    for done, share in ((0, 1.0), (99, 0.01), (150, 0.01), (10_000, 0.01)):
        phi = identity_pose.make_players(CONFIG, 0.0, done=done)["phi"]
        state, batch = filled(CONFIG), identity_pose.on_device(CONFIG, triplets(), jax.random.key(0))
        _, (moved, log) = phi.loss({"phi": state.params["phi"]}, state.params, {**state.model, **model}, batch, None)
        assert moved["phi"]["rho"] == pytest.approx(average + share * (float(log["real/rho"]) - average), rel=1e-4)


def test_there_are_three_sizes():
    assert [identity_pose.sized(name).side for name in ("tiny", "base", "large")] == [32, 64, 128]
    with pytest.raises(ValueError, match="none of tiny, base, large"):
        identity_pose.sized("huge")


# -- steps


@pytest.fixture(scope="module")
def stepped():
    """One step on one device from the filled state, and its log."""
    step = jax.jit(train.step_function(CONFIG.system(), 0), compiler_options=COMPILER)
    return jax.device_get(step(filled(CONFIG), triplets()))


@pytest.mark.slow
def test_a_step_moves_every_network_and_follows_real_residuals(stepped):
    state, info = stepped
    before = filled(CONFIG)
    for name, tree in before.params.items():
        assert any((old != new).any() for old, new in zip(jax.tree.leaves(tree), jax.tree.leaves(state.params[name]), strict=True)), name
    assert all(vector.all() for vector in info["finite"].values())
    # the second step: the mean of two; its average has the decay (1 + 1) / (10 + 1)
    assert state.model["phi"]["rho"] == pytest.approx((0.05 + info["real/rho"]) / 2, rel=1e-5)
    assert state.model["phi"]["v"] == pytest.approx((0.9 + info["real/v"]) / 2, rel=1e-5)
    weights = {"rec": 10, "self_rec": 10, "perc": 10, "self_perc": 10, "adv": 1, "pv": 2.5, "dis_pose": 1, "dis_id": 1, "back": 1}
    assert info["loss/G"] == pytest.approx(sum(weight * info[f"term/{name}"] for name, weight in weights.items()), rel=1e-4)
    for name in identity_pose.MOVED:
        for old, new, mean in zip(
            *(jax.tree.leaves(tree) for tree in (before.ema[name], state.params[name], state.ema[name])), strict=True
        ):
            np.testing.assert_allclose(mean, old + 9 / 11 * (new - old), atol=1e-6)


@pytest.mark.slow
def test_eight_devices_make_the_step_that_one_makes(stepped):
    system, mesh = CONFIG.system(), parallel.make_mesh((8, 1))
    whole = NamedSharding(mesh, PartitionSpec())
    with jax.set_mesh(mesh):
        step = jax.jit(train.step_function(system, 0), out_shardings=whole, compiler_options=COMPILER)
        found, info = jax.device_get(step(parallel.replicate(filled(CONFIG), mesh), parallel.global_batch(triplets(), mesh, BATCH)))
    expected, expected_info = stepped
    for name, value in expected_info.items():
        if name != "finite":
            np.testing.assert_allclose(info[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
    for one, two in zip(jax.tree.leaves(found.model), jax.tree.leaves(expected.model), strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    for player, rate in (("phi", 1e-3), ("D", 2e-4), ("G", 2e-4)):
        one, two = (jax.tree.leaves(optax.tree_utils.tree_get(state.opt[player], "mu")) for state in (found, expected))
        largest = max(np.abs(leaf).max() for leaf in two)
        for a, b in zip(one, two, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * largest)  # sums in another order: 2e-5 where it was seen
        own = system.owns[player]
        for a, b, slope in zip(*(jax.tree.leaves({n: state.params[n] for n in own}) for state in (found, expected)), two, strict=True):
            # Adam's first step is the rate times the sign of the gradient: where rounding decides the sign, up to two of them lie between.
            sure = np.abs(slope) > 1e-3 * largest
            np.testing.assert_allclose(a[sure], b[sure], atol=1e-5)
            assert np.abs(a - b).max() < 2.1 * rate


@pytest.mark.slow
def test_a_row_shows_both_inputs_the_result_and_the_target_and_the_swapper_takes_several_images():
    state = jax.tree.map(jnp.asarray, filled(CONFIG))
    images = triplets(2)["image"]
    shown = np.asarray(jax.jit(CONFIG.system().translate)(state, images))
    assert shown.shape == (2, 16, 64, 3)
    for column, number in ((0, 0), (1, 1), (3, 2)):
        np.testing.assert_allclose(shown[:, :, 16 * column : 16 * (column + 1)], images[:, number] / 127.5 - 1, atol=1e-6)
    parts, inputs = identity_pose.swapper(CONFIG), jnp.asarray(images / 127.5 - 1, jnp.float32)
    pose = parts.pose(state.params, inputs[:, 1])
    one = parts.identity(state.params, inputs[:, 0])
    np.testing.assert_allclose(parts.decode(state.params, one, pose), shown[:, :, 32:48], atol=1e-4)
    assert parts.identity_vector(one).shape == (2, 8) and parts.pose_vector(pose).shape == (2, 256)
    several = parts.identity(state.params, inputs[:, ::2])
    assert parts.decode(state.params, several, pose).shape == (2, 16, 16, 3)
    traced = parts.trace(state.params, inputs[:, 2], inputs[:, 0])
    assert {name: value.shape for name, value in traced.items()} == {"score": (2, 8, 8), "residual": (2, 8, 8)}


@pytest.mark.slow
def test_interrupted_and_resumed_is_the_same_run_and_it_learns(tmp_path, monkeypatch):
    monkeypatch.setattr(identity_pose, "open_source", lambda config, data: Squares())
    run = configure.Run(
        batch=8, kimg=0.16, log_every=2, save_every=5, sample_every=10, samples=4, mesh=(1, 1) if jax.device_count() == 1 else (0, 1)
    )
    experiment = configure.Experiment(dataclasses.replace(CONFIG, steps=20, lr=2e-3), configure.Data(source="squares"), run)
    assert train.train(experiment, tmp_path / "whole", quiet=True).status == "finished"
    assert train.train(experiment, tmp_path / "parts", quiet=True, stop_after_steps=7).status == "stopped"
    assert train.train(experiment, tmp_path / "parts", quiet=True).status == "finished"
    manifests = []
    for name in ("whole", "parts"):
        folder = tmp_path / name / "checkpoints" / "20"
        assert checkpoint.steps_in(tmp_path / name / "checkpoints")[-1] == 20
        manifest = json.loads((folder / "manifest" / "metadata").read_text())
        manifests.append({leaf: entry[2] for leaf, entry in manifest["leaves"].items()} | {"positions": manifest["positions"]})
    assert manifests[0] == manifests[1]
    assert any(name.startswith("model/phi") for name in manifests[0]) and any(name.startswith("ema/G") for name in manifests[0])
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["term/rec"] for line in lines if "term/rec" in line]
    assert losses[-1] < 0.9 * losses[0]
    assert configure.read(tmp_path / "whole" / "config.json") == configure.check(experiment)
