"""COCO-GAN's step: two ways to compute it, its players, batches cut on the host, number types, and sizes that do not work."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_coco_gan import BATCH, COMPILER, CONFIG, assert_same_step, filled, reals, step_of

from jaxgan import losses, play
from jaxgan.systems import coco_gan
from jaxgan.systems.coco_gan import Config, Networks, crop_batch

SYSTEM = CONFIG.system()
SQUARE = Config((16, 16), (8, 8), (4, 4), latent=8, g_width=2, d_width=2, aux_width=4)


@pytest.fixture(scope="module")
def step():
    return step_of(SYSTEM)


@pytest.fixture(scope="module")
def after(step):
    """Three states and what their steps told, from the filled state."""
    found, state = [], filled(SYSTEM)
    for number in range(3):
        state, info = step(state, reals(SYSTEM, BATCH, number))
        found.append(jax.device_get((state, info)))
    return found


@pytest.mark.slow
def test_one_run_of_the_generator_equals_two(after):
    """The form that shares it between D and G against ``play`` with players that each run it; H != W and N != M."""
    twice = dataclasses.replace(CONFIG, shared_forward=False).system()
    assert_same_step(CONFIG, after[0], step_of(twice)(filled(twice), reals(twice, BATCH)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"content_weight": 5.0, "extrapolate": 1, "channels": 1, "g_extra_blocks": 1},
        {"coordinates": "cylindrical", "sampling": "continuous", "channels": 4, "latent": 3, "gp_mode": "textbook", "cbn_norm": "std"},
    ],
    ids=["beyond and content", "cylinder"],
)
def test_one_run_equals_two_in_other_games(changes, monkeypatch):
    """With Adam's epsilon at 1 its first step is no mere sign, so that rounding stays rounding through five updates that build on it."""
    rms = optax.scale_by_rms(0.999, 1.0, eps_in_sqrt=False, bias_correction=True)
    monkeypatch.setattr(coco_gan, "adam", lambda rate, anneal=(0, 0): optax.chain(rms, optax.scale_by_learning_rate(rate)))
    config = dataclasses.replace(CONFIG, ema=0.0, **changes)
    once, twice = config.system(), dataclasses.replace(config, shared_forward=False).system()
    batch = reals(once, 8)
    assert batch["image"].shape == (8, once.records, *config.macro, config.channels)
    expected = step_of(twice)(filled(twice), batch)
    assert_same_step(config, step_of(once)(filled(once), batch), expected, 3e-5)
    assert set(expected[1]["finite"]) == set(once.owns) == set(coco_gan.make_players(Networks(config)))


def test_the_head_belongs_to_both_players():
    assert SYSTEM.owns == {"D": ("D", "A"), "G": ("G", "A")} and SYSTEM.records == 2
    config = dataclasses.replace(CONFIG, extrapolate=1, content_weight=1.0)
    assert config.system().owns == {"D": ("D", "A"), "G": ("G", "A"), "D_beyond": ("D", "A"), "G_beyond": ("G",), "Q": ("Q",)}
    assert config.system().records == 4


def test_moving_average_follows_its_formula(after):
    expected = filled(SYSTEM).params["G"]
    decay = 0.5 ** (BATCH / 1000)  # a half-life of 1 kimg
    for state, _ in after:
        expected = jax.tree.map(lambda old, new: decay * np.float64(old) + (1 - decay) * np.float64(new), expected, state.params["G"])
        jax.tree.map(lambda e, f: np.testing.assert_allclose(f, e, rtol=1e-6, atol=1e-7), expected, state.ema["G"])
    moved = jax.tree.map(lambda one, other: np.abs(one - other).max(), after[-1][0].ema["G"], after[-1][0].params["G"])
    assert min(jax.tree.leaves(moved)) > 1e-5


def test_running_state_moves_and_stays_float32(after):
    for name, leaf in jax.tree_util.tree_leaves_with_path(after[-1][0].model):
        start = filled(SYSTEM).model
        for entry in name:
            start = start[entry.key]
        assert leaf.dtype == np.float32 and not np.allclose(leaf, start), jax.tree_util.keystr(name)


def test_a_flat_discriminator_gives_a_finite_step(step):
    """Dead features have no slope anywhere: the penalty is its weight, and nothing is NaN."""
    state = filled(SYSTEM)
    state.params["D"]["block_1"]["conv_2"]["bias"][:] = -1e6
    _, info = step(state, reals(SYSTEM, BATCH))
    assert info["slope"] == 0.0 and info["penalty"] == CONFIG.gp_weight
    assert info["finite"]["D"].all() and info["finite"]["G"].all()


def test_the_step_number_changes_the_draws_and_the_key_fixes_them(step):
    batch = reals(SYSTEM, BATCH)
    _, one = step(filled(SYSTEM), batch)
    _, same = step(filled(SYSTEM), batch)
    _, later = step(filled(SYSTEM)._replace(step=np.int32(1)), batch)
    assert one["loss/D"] == same["loss/D"] != later["loss/D"]


@pytest.mark.slow
def test_bfloat16_computes_about_the_same_and_keeps_its_state_in_float32(after):
    half = dataclasses.replace(CONFIG, dtype="bfloat16").system()
    state, info = jax.device_get(step_of(half)(filled(half), reals(half, BATCH)))
    assert all(vector.all() for vector in info["finite"].values())
    _, expected = after[0]
    for name in ("loss/D", "loss/G", "penalty", "slope", "spatial/real", "spatial/fake"):
        assert info[name].dtype == np.float32
        assert float(info[name]) == pytest.approx(float(expected[name]), rel=0.05), name
        assert info[name] != expected[name]
    assert {leaf.dtype.name for leaf in jax.tree.leaves((state.params, state.opt, state.model, state.ema))} == {"float32", "int32"}
    # what must not be computed in 8 bits: power iterations and moments agree as float32 does where their inputs do
    u, exact = (s.model["G"]["spectral"]["block_0"]["conv_1"]["u"] for s in (state, after[0][0]))
    np.testing.assert_allclose(u, exact, rtol=1e-6)


def test_head_with_a_batch_of_one_gives_its_shift_and_finite_gradients():
    networks, state = Networks(SQUARE), filled(SQUARE.system())

    def error(params, features):
        value, _, prediction = coco_gan.head_error(networks, "A", params, state.model["A"], features, jnp.zeros((1, 2)))
        return value, prediction

    run = jax.jit(jax.value_and_grad(error, has_aux=True), compiler_options=COMPILER)
    (value, prediction), gradients = run(state.params["A"], np.ones((1, 16), np.float32))
    (_, other), _ = run(state.params["A"], np.full((1, 16), -3, np.float32))
    assert np.isfinite(value) and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    np.testing.assert_array_equal(prediction, other)


def test_beyond_the_border_the_coordinate_error_counts_and_pulls_nothing():
    config = dataclasses.replace(SQUARE, extrapolate=1)
    networks, state = Networks(config), filled(config.system())
    rng = np.random.default_rng(0)
    outside = np.array([[-1.5, 0.0], [1.0, 2.0], [-2.0, -2.0]], np.float32)
    drawn = {
        "real": rng.uniform(-1, 1, (3, 4, 8, 8, 3)).astype(np.float32),
        "coordinate": rng.uniform(-1, 1, (3, 2)).astype(np.float32),
        "coordinate_beyond": outside,
    }
    fake = rng.uniform(-1, 1, (3, 8, 8, 3)).astype(np.float32)

    @functools.partial(jax.jit, compiler_options=COMPILER)
    def run(params, fake, at):
        drawn_at = {**drawn, "coordinate_beyond": at}
        whole = jax.value_and_grad(
            lambda own, fake: coco_gan.generator_loss(networks, True, own, params, state.model, drawn_at, fake)[0], (0, 1)
        )

        def adversarial(fake):
            normalised, _ = networks.normalise("D", params["D"], state.model["D"])
            return losses.wasserstein_generator(networks.run("D", normalised, {}, fake, at)[0][1])

        (value, gradients), (least, pull) = whole({"A": params["A"]}, fake), jax.value_and_grad(adversarial)(fake)
        return value, gradients, least, pull

    value, (head, to_fake), least, pull = run(state.params, fake, outside)
    np.testing.assert_allclose(to_fake, pull, rtol=1e-5, atol=1e-6)
    assert value > least + 100 * 0.5 * np.mean((np.abs(outside) - 1).clip(0) ** 2)  # a prediction in (-1, 1) is at least so far off
    _, (_, inside_pull), _, adversarial_pull = run(state.params, fake, outside / 2)
    assert np.abs(inside_pull - adversarial_pull).max() > 1e-3
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(head)) > 0  # the reals still train the head


def test_post_training_of_the_generator_moves_its_first_two_blocks_only():
    config = dataclasses.replace(SQUARE, extrapolate=1, g_extra_blocks=2)
    player = coco_gan.make_players(Networks(config))["G_beyond"]
    own = {"G": filled(config.system()).params["G"]}
    ones = jax.tree.map(np.ones_like, own)

    def move(own, gradients):
        return play.move(player, own, player.tx.init(own), jnp.zeros(()), gradients).own

    moved = jax.device_get(jax.jit(move, compiler_options=COMPILER)(own, ones))
    change = jax.tree.map(lambda new, old: np.abs(new - old).max(), moved, own)["G"]
    assert {name for name, part in change.items() if max(jax.tree.leaves(part)) > 0} == {"block_0", "block_1"} < set(change)
    assert min(jax.tree.leaves((change["block_0"], change["block_1"]))) == pytest.approx(config.g_lr, rel=1e-2)


def test_fakes_beyond_the_border_are_drawn_from_all_positions():
    config = dataclasses.replace(SQUARE, extrapolate=1)
    batch = {"image": np.zeros((4000, 4, 8, 8, 3), np.uint8), "corner": np.zeros((4000, 2), np.int32)}
    drawn = jax.jit(lambda key: {k: v for k, v in coco_gan.draw_step(config, None, batch, key).items() if "corner" in k or "coord" in k})(
        jax.random.key(0)
    )
    corners, counts = np.unique(drawn["corner_beyond"], axis=0, return_counts=True)
    assert {tuple(corner) for corner in corners.tolist()} == {(row, column) for row in range(-4, 13, 4) for column in range(-4, 13, 4)}
    assert np.sum((counts - 160) ** 2 / 160) < 51.2  # chi-square, 24 degrees of freedom, 99.9 %
    np.testing.assert_allclose(drawn["coordinate_beyond"], drawn["corner_beyond"] / 4 - 1, atol=1e-6)


# -- batches cut on the host -------------------------------------------------------------------------------------------------------


def numbered(n: int, config: Config) -> np.ndarray:
    """Images whose values are (number of the image, row, column)."""
    number, row, column = np.meshgrid(np.arange(n) % 256, np.arange(config.full[0]), np.arange(config.full[1]), indexing="ij")
    return np.stack([number, row, column], -1).astype(np.uint8)


@pytest.mark.parametrize("extrapolate, records", [(0, 2), (1, 4)])
def test_batches_are_crops_at_the_corner_which_is_the_same_for_all_images_of_a_sample(extrapolate, records):
    config = dataclasses.replace(CONFIG, extrapolate=extrapolate)
    images = numbered(6 * records, config)
    batch = crop_batch(config, {"image": images}, np.random.default_rng(0))
    assert batch["image"].shape == (6, records, 16, 8, 3) and batch["image"].dtype == np.uint8 and batch["corner"].dtype == np.int32
    for sample, (top, left) in enumerate(batch["corner"]):
        for record in range(records):
            expected = images[sample * records + record, top : top + 16, left : left + 8]
            np.testing.assert_array_equal(batch["image"][sample, record], expected)


@pytest.mark.parametrize("sampling, steps", [("discrete", (4, 7)), ("continuous", (25, 49))])
def test_corners_are_uniform_over_all_positions(sampling, steps):
    config = dataclasses.replace(CONFIG, sampling=sampling)
    images = np.broadcast_to(np.zeros((1, 40, 56, 1), np.uint8), (8000, 40, 56, 1))
    corner = crop_batch(config, {"image": images}, np.random.default_rng(1))["corner"]
    stride = 8 if sampling == "discrete" else 1
    assert not (corner % stride).any()
    for axis, limit in ((0, {4: 16.3, 25: 51.2}), (1, {7: 22.5, 49: 84.0})):  # chi-square, 99.9 %
        counts = np.bincount(corner[:, axis] // stride, minlength=steps[axis])
        expected = 4000 / steps[axis]
        assert len(counts) == steps[axis] and np.sum((counts - expected) ** 2 / expected) < limit[steps[axis]]
    assert abs(np.corrcoef(corner.T)[0, 1]) < 0.05


@pytest.mark.parametrize("sampling", ["discrete", "continuous"])
def test_panoramas_are_rolled_by_one_shift_for_the_whole_batch(sampling):
    config = dataclasses.replace(CONFIG, coordinates="cylindrical", sampling=sampling)
    rng, shifts, columns, wrapped = np.random.default_rng(0), set(), set(), False
    for _ in range(60):
        batch = crop_batch(config, {"image": numbered(16, config)}, rng)
        row, column = batch["image"][:, :, :, :, 1].astype(int), batch["image"][:, :, :, :, 2].astype(int)
        np.testing.assert_array_equal(row[:, :, 0, 0], np.broadcast_to(batch["corner"][:, :1], (8, 2)))
        shift = (column[:, :, 0, 0] - batch["corner"][:, 1:]) % 56
        assert len(np.unique(shift)) == 1
        np.testing.assert_array_equal(column, np.broadcast_to((column[..., :1, :1] + np.arange(8)) % 56, column.shape))
        wrapped = wrapped or bool((np.diff(column) < 0).any())
        shifts.add(int(shift[0, 0]))
        columns |= set(batch["corner"][:, 1].tolist())
    assert len(shifts) > 20 and wrapped
    assert len(columns) == 7 and not any(column % 8 for column in columns) if sampling == "discrete" else len(columns) > 45


# -- what is refused ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes, message",
    [
        ({"full": (24, 24), "macro": (12, 12), "micro": (6, 6)}, "micro patch 6x6: .* power of two from 4 up"),
        ({"full": (24, 24), "macro": (24, 24), "micro": (8, 12)}, "micro patch 8x12: .* multiple of it"),
        ({"micro": (2, 2)}, "micro patch 2x2: .* power of two from 4 up"),
        ({"macro": (4, 4)}, "macro patch 4x4: .* at least 8"),
        ({"full": (72, 64), "macro": (36, 32)}, "macro patch 36x32: .* halves it 3 times.* divisible by 8"),
        ({"full": (18, 16)}, "height: the micro patch of 4 px must divide .*18 px"),
        ({"macro": (8, 32)}, r"width: the macro patch \(32 px\) is larger than the full image \(16 px\)"),
        ({"extrapolate": -1}, "extrapolate -1 must be 0 or more"),
        ({"channels": 0}, "channels 0"),
        ({"latent": 0}, "latent 0"),
    ],
)
def test_sizes_that_do_not_work_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SQUARE, **sizes)


@pytest.mark.parametrize(
    "full, macro, micro",
    [((24, 32), (8, 32), (4, 8)), ((16, 16), (16, 16), (16, 16))],
    ids=["oblong micro patches", "one micro patch is all"],
)
def test_networks_fit_any_sizes_that_are_accepted(full, macro, micro):
    config = Config(full, macro, micro, channels=2, latent=3, g_width=2, d_width=2, aux_width=4)
    system = config.system()
    batch = {"image": jax.ShapeDtypeStruct((2, 2, *macro, 2), np.uint8), "corner": jax.ShapeDtypeStruct((2, 2), np.int32)}
    state = jax.eval_shape(system.init, jax.random.key(0))
    after, info = jax.eval_shape(system.step, state, batch, jax.random.key(0))
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    assert info["loss/G"].shape == ()
    assert jax.eval_shape(lambda s: system.sample(s, jax.random.key(0), 3), state).shape == (3, *full, 2)


def test_annealed_learning_rates_fall_linearly_to_0_between_their_steps():
    """Against the update without annealing: whole before, half in the middle, none at the end."""
    gradients = {"w": jnp.asarray([1.0, -2.0])}
    plain, annealed = coco_gan.adam(0.1), coco_gan.adam(0.1, (2, 6))
    states = [tx.init(gradients) for tx in (plain, annealed)]
    shares = []
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(7):
            (whole, states[0]), (part, states[1]) = (
                tx.update(gradients, state) for tx, state in zip((plain, annealed), states, strict=True)
            )
            shares.append(float(part["w"][0] / whole["w"][0]))
    np.testing.assert_allclose(shares, [1, 1, 1, 0.75, 0.5, 0.25, 0], atol=1e-6)
    with pytest.raises(ValueError, match="anneal"):
        coco_gan.Config(anneal=(5, 5))
