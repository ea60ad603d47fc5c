"""One step of a game against a loop written by hand in double precision, and the same step over devices, parts and rests."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from jaxgan import parallel
from jaxgan.play import draw, follow, half_life_decay, init_opt, play
from jaxgan.system import Player, State, leaf_names

RATE, MOMENTUM, DECAY = 0.1, 0.5, 0.9
RNG = np.random.default_rng(0)
START = {
    "D": {"bias": RNG.normal(size=1), "kernel": RNG.normal(size=3)},
    "G": {"kernel": RNG.normal(size=3)},
    "A": {"kernel": RNG.normal(size=3)},
}
BATCHES = [{"x": RNG.normal(size=(16, 3)), "y": RNG.normal(size=16)} for _ in range(4)]


def first_loss(own, params, model, batch, key):
    nets = {**params, **own}
    gap = batch["x"] @ (nets["D"]["kernel"] - nets["G"]["kernel"]) + nets["D"]["bias"]
    aside = batch["x"] @ nets["A"]["kernel"] - batch["y"]
    model = {**model, "D": {"mean": 0.9 * model["D"]["mean"] + 0.1 * batch["x"].mean(0)}}
    return 0.5 * jnp.square(gap).mean() + 0.5 * jnp.square(aside).mean(), (model, {"gap": gap.mean()})


def second_loss(own, params, model, batch, key):
    nets = {**params, **own}
    gap = batch["x"] @ (nets["G"]["kernel"] - nets["D"]["kernel"]) - nets["D"]["bias"]
    aside = batch["x"] @ (nets["A"]["kernel"] - nets["G"]["kernel"])
    return 0.5 * jnp.square(gap).mean() + 0.5 * jnp.square(aside).mean(), (model, {})


def game(every: int = 1) -> dict[str, Player]:
    tx = optax.sgd(RATE, MOMENTUM)
    return {"first": Player(("D", "A"), first_loss, tx), "second": Player(("G", "A"), second_loss, tx, every)}


def single(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), tree)


def begin(players) -> State:
    params = jax.device_put(single(START))
    model = {"D": {"mean": jnp.zeros(3)}}
    return State(jnp.zeros((), jnp.int32), params, init_opt(players, params), model, {"G": params["G"]}, {})


def by_hand(every: int, steps: int) -> tuple[dict, dict, np.ndarray, list]:
    """(parameters, average of G, running mean, [loss of first, loss of second] of each step) by the rules of ``play``."""
    d, b, g, a = START["D"]["kernel"], START["D"]["bias"], START["G"]["kernel"], START["A"]["kernel"]
    speed = {name: 0.0 for name in ("d", "b", "a of first", "g", "a of second")}
    average, mean, losses = g, np.zeros(3), []

    def move(name, value, gradient):
        speed[name] = MOMENTUM * speed[name] + gradient
        return value - RATE * speed[name]

    for step, batch in enumerate(BATCHES[:steps]):
        x, y = batch["x"], batch["y"]
        gap, aside = x @ (d - g) + b, x @ a - y
        losses.append([np.mean(gap**2) / 2 + np.mean(aside**2) / 2, 0.0])
        d, b, a = move("d", d, x.T @ gap / 16), move("b", b, gap.mean()), move("a of first", a, x.T @ aside / 16)
        mean = 0.9 * mean + 0.1 * x.mean(0)
        if step % every == 0:  # the second player sees the first one's update, of the head that both own too
            gap, aside = x @ (g - d) - b, x @ (a - g)
            losses[-1][1] = np.mean(gap**2) / 2 + np.mean(aside**2) / 2
            g, a = move("g", g, x.T @ (gap - aside) / 16), move("a of second", a, x.T @ aside / 16)
        average = DECAY * average + (1 - DECAY) * g
    return {"D": {"bias": b, "kernel": d}, "G": {"kernel": g}, "A": {"kernel": a}}, average, mean, losses


def close(found, expected, tolerance=2e-6):
    jax.tree.map(lambda f, e: np.testing.assert_allclose(f, e, rtol=tolerance, atol=tolerance), found, expected)


@pytest.mark.parametrize("every", [1, 2])
def test_steps_equal_a_loop_by_hand(every):
    players = game(every)
    state, losses = begin(players), []
    step = jax.jit(play(players, ema_decay=DECAY))
    for batch in BATCHES:
        state, info = step(state, single(batch), jax.random.key(0))
        losses.append([info["loss/first"], info["loss/second"]])
        assert info["finite"]["first"].all() and info["finite"]["second"].all()
    params, average, mean, expected = by_hand(every, len(BATCHES))
    close(state.params, params)
    close(state.ema["G"]["kernel"], average)
    close(state.model["D"]["mean"], mean)
    close(np.asarray(losses), np.asarray(expected))
    assert state.step == len(BATCHES)


def test_gradient_norms_are_reported():
    players = game()
    _, info = jax.jit(play(players))(begin(players), single(BATCHES[0]), jax.random.key(0))
    x, y = BATCHES[0]["x"], BATCHES[0]["y"]
    gap, aside = x @ (START["D"]["kernel"] - START["G"]["kernel"]) + START["D"]["bias"], x @ START["A"]["kernel"] - y
    close(info["gradient/first"], np.linalg.norm([*(x.T @ gap / 16), gap.mean(), *(x.T @ aside / 16)]))


def test_two_parts_accumulated_equal_the_whole_batch_for_a_mean():
    players = game()
    whole, info = jax.jit(play(players))(begin(players), single(BATCHES[0]), jax.random.key(0))
    parts, found = jax.jit(play(players, accumulate=2))(begin(players), single(BATCHES[0]), jax.random.key(0))
    close((parts.params, parts.opt), (whole.params, whole.opt))
    close(found["loss/first"], info["loss/first"])
    with pytest.raises(ValueError, match="batch of 16 does not split into 3 parts"):
        play(players, accumulate=3)(begin(players), single(BATCHES[0]), jax.random.key(0))


def noisy(axis_name):
    """A preparation whose draws must be one batch's, however the batch is spread."""
    return lambda batch, key: {**batch, "x": batch["x"] + draw(jax.random.normal, key, batch["x"].shape, axis_name)}


@pytest.mark.parametrize("how", ["pmap", "shard_map", "vmap"])
def test_a_batch_spread_over_an_axis_is_one_batch(how):
    players, key = game(), jax.random.key(5)
    state, batch = begin(players), single(BATCHES[0])
    expected = jax.jit(play(players, prepare=noisy(None), ema_decay=DECAY))(state, batch, key)
    step = play(players, prepare=noisy("batch"), ema_decay=DECAY, axis_name="batch")
    split = jax.tree.map(lambda leaf: leaf.reshape(8, 2, *leaf.shape[1:]), batch)
    if how == "pmap":
        found = jax.pmap(step, axis_name="batch", in_axes=(None, 0, None))(state, split, key)
    elif how == "vmap":
        found = jax.jit(jax.vmap(step, axis_name="batch", in_axes=(None, 0, None)))(state, split, key)
    else:
        mesh = jax.make_mesh((8,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
        whole, spread = PartitionSpec(), PartitionSpec("batch")
        # each device's copy is kept, to see that none drifts
        each = jax.shard_map(
            lambda *a: jax.tree.map(lambda leaf: leaf[None], step(*a)),
            mesh=mesh, in_specs=(whole, spread, whole), out_specs=spread, check_vma=False,
        )  # fmt: skip
        found = jax.jit(each)(state, batch, key)
    found = jax.device_get(found)
    for device in range(8):
        close(jax.tree.map(lambda leaf, device=device: leaf[device], found), expected)


def test_shared_draws_are_made_once_and_each_player_has_its_own_key():
    def report(name):
        def loss(own, params, model, batch, key):
            drawn = jax.random.uniform(key)
            return jnp.square(own["D"]["kernel"]).sum(), (model, {f"shared/{name}": batch["drawn"], f"own/{name}": drawn})

        return Player(("D",), loss, optax.sgd(0.1))

    players, key = {"first": report("first"), "second": report("second")}, jax.random.key(3)
    step = play(players, prepare=lambda batch, key: {**batch, "drawn": jax.random.uniform(key)})
    _, info = jax.jit(step)(begin(players), single(BATCHES[0]), key)
    for name, number in (("shared/first", 0), ("shared/second", 0), ("own/first", 1), ("own/second", 2)):
        assert info[name] == jax.random.uniform(jax.random.fold_in(key, number)), name


@pytest.mark.parametrize("bad, names", [("x", ["loss", "A/kernel", "D/bias", "D/kernel"]), ("y", ["loss", "A/kernel"]), ("", [])])
def test_finite_vector_names_what_went_wrong(bad, names):
    players = game()
    batch = {name: np.array(value) for name, value in BATCHES[0].items()}
    if bad:
        batch[bad][0] = np.inf
    _, info = jax.jit(play(players))(begin(players), single(batch), jax.random.key(0))
    listed = leaf_names(begin(players).params, players["first"].owns)
    assert sorted(listed) == ["A/kernel", "D/bias", "D/kernel", "loss"]
    assert sorted(np.asarray(listed)[~np.asarray(info["finite"]["first"])]) == sorted(names)


def test_an_infinite_gradient_of_a_finite_loss_is_named():
    def loss(own, params, model, batch, key):
        return jnp.sqrt(own["G"]["kernel"] - own["G"]["kernel"]).sum() + own["D"]["bias"].sum(), (model, {})

    players = {"only": Player(("D", "G"), loss, optax.sgd(0.1))}
    _, info = jax.jit(play(players))(begin(players), single(BATCHES[0]), jax.random.key(0))
    listed = leaf_names(begin(players).params, ("D", "G"))
    assert [name for name, finite in zip(listed, info["finite"]["only"], strict=True) if not finite] == ["G/kernel"]
    assert jnp.isfinite(info["loss/only"])


def test_frozen_networks_are_seen_and_pass_through():
    def loss(own, params, model, batch, key):
        return (own["D"]["kernel"] * params["F"]["scale"]).sum(), (model, {})

    players = {"only": Player(("D",), loss, optax.sgd(0.1))}
    state = begin(players)._replace(frozen={"F": {"scale": jnp.full(3, 2.0)}})
    after, _ = jax.jit(play(players))(state, single(BATCHES[0]), jax.random.key(0))
    close(after.params["D"]["kernel"], START["D"]["kernel"] - 0.2)
    close(after.frozen, state.frozen)
    assert "F" not in after.params


def test_moving_average_halves_its_memory_every_so_many_images():
    decay = half_life_decay(50, 2.0)
    ema = {"G": jnp.ones(())}
    for _ in range(40):  # 40 * 50 images = 2 kimg
        ema = follow(ema, {"G": jnp.zeros(()), "D": jnp.ones(())}, decay)
    assert float(ema["G"]) == pytest.approx(0.5, rel=1e-5) and set(ema) == {"G"}


def test_on_a_mesh_the_step_needs_no_axis():
    players, key = game(), jax.random.key(5)
    state, batch = begin(players), single(BATCHES[0])
    expected = jax.jit(play(players, prepare=noisy(None)))(state, batch, key)
    mesh = parallel.make_mesh((4, 2))
    with jax.set_mesh(mesh):
        step = jax.jit(play(players, prepare=noisy(None)))
        found = step(parallel.replicate(state, mesh), parallel.global_batch(batch, mesh, 16), key)
    close(found, expected)
