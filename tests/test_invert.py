"""The batched optimiser on problems small enough to follow by hand: every image alone, on several devices, stopped, failed, resumed."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgan import invert, invert_files, parallel

AIMS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
SCALES = np.array([1.0, 10.0, 0.1, 3.0, 0.5], np.float32)


def quadratic(variables, frozen, targets, step, keys):
    """Two terms, as inversion has them: a distance scaled per image, and a penalty."""
    distance = targets["scale"] * jnp.square(frozen["gain"] * variables["x"] - targets["aim"]).mean(1)
    penalty = jnp.square(variables["x"]).mean(1)
    return distance + 0.1 * penalty, {"distance": distance, "penalty": penalty}


def noisy(variables, frozen, targets, step, keys):
    noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
    loss = jnp.square(variables["x"] + 0.3 * noise - targets["aim"]).mean(1)
    return loss, {}


def rosenbrock(variables, frozen, targets, step, keys):
    x = variables["x"]
    return (1 - x[:, 0]) ** 2 + targets["scale"] * (x[:, 1] - x[:, 0] ** 2) ** 2, {}


FROZEN = {"gain": jnp.float32(2.0)}
TARGETS = {"aim": AIMS, "scale": SCALES}
KEYS = jax.random.split(jax.random.key(7), 5)
ADAM = optax.adam(0.1)
LBFGS = optax.lbfgs(memory_size=5)


def go(loss, tx, x=None, rows=slice(None), keep_best=False, resumed=None, **options):
    x = np.zeros((5, 3), np.float32) if x is None else x
    state = invert.start({"x": x[rows]}, tx, KEYS[rows], keep_best=keep_best) if resumed is None else resumed
    return invert.run(state, loss, tx, FROZEN, jax.tree.map(lambda a: a[rows], TARGETS), **options)


def assert_same(found, expected):
    """Bit by bit."""
    found, expected = (run._replace(keys=jax.random.key_data(run.keys)) for run in (found, expected))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_adam_s_first_updates_are_as_exact_as_float32():
    rng = np.random.default_rng(3)
    gradients = rng.normal(size=(6, 40)).astype(np.float32)
    tx, m, v = invert.adam(lambda count: 0.01 * 0.5**count), 0.0, 0.0
    state = tx.init(jnp.zeros(40))
    for t, g in enumerate(gradients.astype(np.float64), 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        expected = -0.01 * 0.5 ** (t - 1) * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        update, state = tx.update(jnp.asarray(g, jnp.float32), state)
        np.testing.assert_allclose(update, expected, rtol=2e-6, atol=1e-10)


def test_adam_and_its_schedule_follow_the_formulas_in_double_precision():
    rate, steps = 0.1, 40
    schedule = invert.ramp(rate, steps, up=0.1, down=0.5)
    run = go(quadratic, optax.adam(schedule, b1=0.9, b2=0.999, eps=1e-8), steps=steps, chunk=16)
    x, m, v, rows = np.zeros((5, 3)), 0.0, 0.0, []
    for t in range(steps + 1):
        distance = SCALES * np.square(2 * x - AIMS).mean(1)
        penalty = np.square(x).mean(1)
        rows.append((distance + 0.1 * penalty, distance, penalty))
        if t == steps:
            break
        gradient = SCALES[:, None] * 4 * (2 * x - AIMS) / 3 + 0.2 * x / 3
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        now = rate * min(1, t / (0.1 * steps)) * (0.5 - 0.5 * np.cos(np.pi * min(1, (1 - t / steps) / 0.5)))
        x = x - now * (m / (1 - 0.9 ** (t + 1))) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
    for index, name in enumerate(("loss", "distance", "penalty")):
        assert run.history[name].shape == (steps + 1, 5)
        np.testing.assert_allclose(run.history[name], [row[index] for row in rows], rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(run.variables["x"], x, atol=1e-4)
    assert run.step == steps and (run.status == invert.RUNNING).all() and (run.stopped_at == -1).all()


@pytest.mark.parametrize("kind", ["clipped", pytest.param("lbfgs", marks=pytest.mark.slow), "noisy"])
def test_each_image_goes_where_it_goes_alone(kind):
    """With a gradient norm, a line search or random draws, that would mix images if they were one vector; five images on eight devices."""
    loss = {"clipped": quadratic, "lbfgs": rosenbrock, "noisy": noisy}[kind]
    tx = {"clipped": optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(0.2)), "lbfgs": LBFGS, "noisy": ADAM}[kind]
    start = AIMS[:, ::-1] * 2
    forms = ({"one_by_one": False}, {"one_by_one": True}, {"mesh": parallel.make_mesh()})
    together = [go(loss, tx, start, steps=25, chunk=10, **form) for form in forms]
    for i in range(5):
        alone = go(loss, tx, start, rows=slice(i, i + 1), steps=25, chunk=10)
        for run in together:
            assert run.variables["x"].shape == (5, 3) and run.history["loss"].shape == (26, 5)
            np.testing.assert_allclose(run.history["loss"][:, i], alone.history["loss"][:, 0], rtol=1e-4, atol=1e-9)
            np.testing.assert_allclose(run.variables["x"][i], alone.variables["x"][0], atol=1e-4)
    if kind == "lbfgs":
        assert (alone.history["loss"][-1] < 1e-6).all()


@pytest.mark.parametrize("mesh", [False, True])
def test_a_stopped_image_keeps_its_variables_and_the_others_go_on_as_before(mesh):
    options = {"steps": 60, "chunk": 10, "mesh": parallel.make_mesh() if mesh else None}
    free = go(quadratic, ADAM, **options)
    run = go(quadratic, ADAM, stop=invert.Stop(0.02, 4), **options)
    stopped = np.asarray(run.status) == invert.STALLED
    assert 0 < stopped.sum()
    curve = free.history["loss"]
    for i in range(5):
        reference, waited, row = np.inf, 0, 0
        for row in range(60):
            waited, reference = (0, curve[row, i]) if curve[row, i] < reference * (1 - 0.02) else (waited + 1, reference)
            if waited == 4:
                break
        if not stopped[i]:
            assert waited < 4
            np.testing.assert_allclose(run.variables["x"][i], free.variables["x"][i], atol=1e-6)
            continue
        assert run.stopped_at[i] == run.kept_at[i] == row
        np.testing.assert_allclose(run.history["loss"][: row + 1, i], curve[: row + 1, i], rtol=1e-5)
        np.testing.assert_array_equal(run.history["loss"][row:, i], np.full(61 - row, run.history["loss"][row, i]))
        kept = go(quadratic, ADAM, **options | {"steps": row}).variables["x"][i]
        np.testing.assert_allclose(run.variables["x"][i], kept, atol=1e-6)


def test_a_run_ends_when_all_images_have_stopped_and_its_history_has_every_row():
    seen = []
    run = go(quadratic, ADAM, stop=invert.Stop(0.5, 1), steps=1000, chunk=10, callback=lambda run: seen.append(run.step))
    assert (run.status == invert.STALLED).all() and len(seen) < 20
    assert run.step == 1000 and run.history["loss"].shape == (1001, 5)
    last = [run.history["loss"][row, i] for i, row in enumerate(np.asarray(run.kept_at))]
    np.testing.assert_array_equal(run.history["loss"][-1], last)


def root(variables, frozen, targets, step, keys):
    """Not a number below 0; at 0 the value is finite and the slope is not."""
    return jnp.sqrt(variables["x"][:, 0]) + jnp.square(variables["x"][:, 1] - 1), {}


@pytest.mark.parametrize("tx", [optax.sgd(0.1), optax.lbfgs(memory_size=3)], ids=["sgd", "lbfgs"])
def test_an_image_that_fails_keeps_its_last_finite_variables_and_hurts_no_other(tx):
    x = np.array([[9.0, 0, 0], [0.04, 0, 0], [0.0, 0, 0], [16.0, 3, 0], [4.0, 0, 0]], np.float32)
    run = go(root, tx, x, steps=10, chunk=4)
    sound = go(root, tx, x[[0, 0, 0, 3, 4]], steps=10, chunk=4)
    others = [0, 3, 4]
    np.testing.assert_array_equal(run.history["loss"][:, others], sound.history["loss"][:, others])
    np.testing.assert_array_equal(run.variables["x"][np.array(others)], sound.variables["x"][np.array(others)])
    assert run.status[2] == invert.FAILED and run.stopped_at[2] == 0
    np.testing.assert_array_equal(run.variables["x"][2], x[2])
    np.testing.assert_array_equal(run.history["loss"][:, 2], np.ones(11))
    assert np.isfinite(jax.tree.leaves(run.variables)[0]).all()
    if isinstance(run.opt[0], optax.EmptyState):  # plain descent: 0.04 - 0.1 / (2 * 0.2) is below 0 after one step
        assert list(np.asarray(run.status)) == [0, invert.FAILED, invert.FAILED, 0, 0]
        assert (run.stopped_at[1], run.kept_at[1]) == (1, 0)
        np.testing.assert_array_equal(run.variables["x"][1], x[1])
        curve = run.history["loss"][:, 1]
        assert np.isnan(curve[1]) and (np.delete(curve, 1) == curve[0]).all()


def test_a_last_step_into_the_void_is_seen_by_the_last_evaluation():
    x = np.full((5, 3), 0.04, np.float32)
    run = go(root, optax.sgd(0.1), x, steps=1, keep_best=True)
    assert (run.status == invert.FAILED).all() and np.isnan(run.history["loss"][-1]).all() and (run.kept_at == 0).all()
    np.testing.assert_array_equal(run.variables["x"], x)
    np.testing.assert_array_equal(run.best["x"], x)


def test_the_best_variables_are_those_of_the_lowest_row():
    tx = optax.sgd(0.9, momentum=0.9)  # swings
    run = go(quadratic, tx, rows=slice(2, 5), keep_best=True, steps=30, chunk=7)
    lowest = run.history["loss"].argmin(0)
    assert (lowest < 30).any()
    np.testing.assert_array_equal(run.best_at, lowest)
    np.testing.assert_array_equal(run.best_loss, run.history["loss"].min(0))
    for i, row in enumerate(lowest):
        there = go(quadratic, tx, rows=slice(2, 5), steps=int(row), chunk=7)
        np.testing.assert_array_equal(run.best["x"][i], there.variables["x"][i])
    assert go(quadratic, tx, rows=slice(2, 5), steps=3).best is None


@pytest.mark.parametrize("loss, tx", [(noisy, ADAM), (quadratic, LBFGS)], ids=["adam, random draws", "lbfgs"])
def test_a_saved_run_goes_on_bit_by_bit(tmp_path, loss, tx):
    options = {"steps": 50, "chunk": 10, "stop": invert.Stop(0.05, 20)}
    whole = go(loss, tx, keep_best=True, **options)
    path = tmp_path / "run.safetensors"

    def interrupt(run):
        invert_files.save(path, run, {"space": "W"})
        return run.step == 20

    half = go(loss, tx, keep_best=True, callback=interrupt, **options)
    assert half.step == 20 and half.history["loss"].shape == (21, 5)
    template = invert.start({"x": np.ones((5, 3), np.float32)}, tx, jax.random.split(jax.random.key(1), 5), keep_best=True)
    read = invert_files.load(path, template, {"space": "W"})
    assert read.step == 20 and read.history["loss"].shape == (20, 5)
    assert_same(go(loss, tx, resumed=read, **options), whole)
    assert_same(go(loss, tx, resumed=half, **options), whole)
    assert list(tmp_path.iterdir()) == [path]


def test_damaged_and_foreign_files_are_refused_with_the_reason(tmp_path):
    run = go(quadratic, ADAM, steps=3)
    path = tmp_path / "run.safetensors"
    template = invert.start({"x": np.zeros((5, 3), np.float32)}, ADAM, KEYS)
    invert_files.save(path, run, {"generator": "abc"})
    data = path.read_bytes()

    def refused(words, about=None, template=template):
        with pytest.raises(ValueError, match=words):
            invert_files.load(path, template, {"generator": "abc"} if about is None else about)

    refused("its generator is 'abc', here it is 'xyz'", {"generator": "xyz"})
    refused("belongs to another run: its generator", {})
    refused(r"not float32 \(4, 3\)", template=invert.start({"x": np.zeros((4, 3), np.float32)}, ADAM, KEYS[:4]))
    refused("best.* is missing", template=invert.start({"x": np.zeros((5, 3), np.float32)}, ADAM, KEYS, keep_best=True))
    refused("is not known|is missing", template=invert.start({"x": np.zeros((5, 3), np.float32)}, optax.sgd(1.0), KEYS))
    path.write_bytes(data[:-7] + bytes([data[-7] ^ 255]) + data[-6:])
    refused("is damaged: its numbers are not those that were written")
    path.write_bytes(data[: len(data) // 2])
    refused("not an intact safetensors file")
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(3)}, path)
    refused("no saved run of an inversion")
    with pytest.raises(FileNotFoundError, match="no saved run"):
        invert_files.load(tmp_path / "none", template)


def test_what_follows_every_step_sees_every_step_and_keys_of_its_own():
    def on_the_sphere(variables, keys):
        x = variables["x"] + 0.05 * jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
        return {"x": x / jnp.sqrt(jnp.square(x).sum(1, keepdims=True))}

    seen = []
    options = {"steps": 12, "chunk": 1, "after": on_the_sphere, "callback": lambda run: seen.append(np.asarray(run.variables["x"]))}
    run = go(quadratic, ADAM, AIMS, **options)
    seen.append(np.asarray(run.variables["x"]))
    np.testing.assert_allclose(np.square(np.stack(seen)).sum(-1), 1, rtol=1e-5)
    assert len(np.unique(np.stack(seen)[:, :, 0])) == 12 * 5
    alone = go(quadratic, ADAM, AIMS, rows=slice(3, 4), **options)
    np.testing.assert_allclose(alone.variables["x"][0], run.variables["x"][3], atol=1e-4)


def test_several_arrays_with_rates_of_their_own():
    """As layer inversion has it: a latent that stands still and two corrections of other shapes."""

    def loss(variables, frozen, targets, step, keys):
        parts = {name: jnp.square(x - 1).mean(tuple(range(1, x.ndim))) for name, x in variables.items()}
        return sum(parts.values()), parts

    start = {"z": np.zeros((4, 6), np.float32), "layer1": np.zeros((4, 2, 2, 3), np.float32), "layer2": np.zeros((4, 4, 4), np.float32)}
    rates = {"still": optax.set_to_zero(), "slow": optax.adam(0.01), "fast": optax.adam(0.1)}
    tx = optax.multi_transform(rates, {"z": "still", "layer1": "slow", "layer2": "fast"})
    run = invert.run(invert.start(start, tx, KEYS[:4]), loss, tx, {}, {}, steps=3)
    np.testing.assert_array_equal(run.variables["z"], start["z"])
    np.testing.assert_allclose(run.variables["layer1"], 0.03 + 0 * start["layer1"], rtol=0.02)
    np.testing.assert_allclose(run.variables["layer2"], 0.3 + 0 * start["layer2"], rtol=0.02)
    assert set(run.history) == {"loss", "z", "layer1", "layer2"}


def test_one_program_serves_every_number_of_steps_and_every_frozen_network():
    before = invert._advance._cache_size()
    tx = optax.adam(0.05)
    target = jax.tree.map(jnp.asarray, TARGETS)
    states = [invert.start({"x": np.zeros((5, 3), np.float32)}, tx, KEYS) for _ in range(3)]
    first = invert.run(states[0], quadratic, tx, FROZEN, target, steps=37, chunk=10)
    other = invert.run(states[1], quadratic, tx, {"gain": jnp.float32(-1.0)}, target, steps=10, chunk=10)
    again = invert.run(first, quadratic, tx, FROZEN, target, steps=41, chunk=10)
    straight = invert.run(states[2], quadratic, tx, FROZEN, target, steps=41, chunk=10)
    assert invert._advance._cache_size() == before + 1
    assert_same(again, straight)
    assert np.abs(other.variables["x"] - first.variables["x"]).max() > 0.1
    # what was given is still there: the loop works in copies
    np.testing.assert_array_equal(states[0].variables["x"], np.zeros((5, 3)))
    assert first.history["loss"].shape == (38, 5)


def test_what_does_not_fit_is_refused_with_numbers():
    good = np.zeros((5, 3), np.float32)
    start = functools.partial(invert.start, tx=ADAM, keys=KEYS)
    for variables, words in (
        ({}, "nothing to optimise"),
        ({"x": good[:4]}, r"\['x'\] is float32 \(4, 3\): floating numbers \[5, ...\]"),
        ({"x": good.astype(np.int32)}, "is int32"),
        ({"x": good + np.nan}, "not finite"),
    ):
        with pytest.raises(ValueError, match=words):
            start(variables)
    with pytest.raises(ValueError, match="a key array"):
        invert.start({"x": good}, ADAM, jax.random.key(0))
    run = functools.partial(invert.run, start({"x": good}), quadratic, ADAM, FROZEN)
    with pytest.raises(ValueError, match=r"targets\['aim'\] is \(4, 3\): the first axis must be the 5 images"):
        run(jax.tree.map(lambda a: a[:4], TARGETS), steps=1)
    with pytest.raises(ValueError, match="chunk 0"):
        run(TARGETS, steps=1, chunk=0)
    with pytest.raises(ValueError, match="the 5 steps already done"):
        go(quadratic, ADAM, resumed=go(quadratic, ADAM, steps=5), steps=4)
    with pytest.raises(ValueError, match="patience counts"):
        run(TARGETS, steps=1, stop=invert.Stop(0.1, 0))
    with pytest.raises(ValueError, match="tolerance is a share"):
        run(TARGETS, steps=1, stop=invert.Stop(1.5, 3))

    def scalar(variables, frozen, targets, step, keys):
        return jnp.square(variables["x"]).mean(), {}

    with pytest.raises(ValueError, match=r"'loss' has shape \(\)"):
        invert.run(start({"x": good}), scalar, ADAM, {}, {}, steps=1)
