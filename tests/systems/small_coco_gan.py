"""A COCO-GAN small enough for tests, with all sizes distinct, and a state that is made without compiling anything."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax

from jaxgan import train
from jaxgan.system import State, System
from jaxgan.systems.coco_gan import Config

CONFIG = Config((40, 56), (16, 8), (8, 8), latent=8, g_width=2, d_width=2, aux_width=4, ema=1.0)
BATCH = 56
"""7 samples for each of 8 devices: no other size in the programs is 56, 112 (reals and fakes; micro patches) or 28."""
COMPILER = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""A step compiles in 13 instead of 30 CPU-seconds; how it is partitioned stays the same."""


def filled(system: System, seed: int = 0) -> State:
    """A state of random numbers: statistics, spectral vectors and biases away from their initial values; optimisers at the start."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(system.init, jax.random.key(0))

    def number(path: Any, leaf: Any) -> np.ndarray:
        name = path[-1].key
        spread = {"kernel": 0.3, "bias": 0.1, "gamma": 0.1, "beta": 0.1, "mean": 0.1, "u": 1.0}
        values = rng.uniform(0.5, 1.5, leaf.shape) if name == "variance" else spread[name] * rng.normal(size=leaf.shape)
        return np.asarray(values + (name == "gamma"), np.float32)

    params, model = (jax.tree_util.tree_map_with_path(number, tree) for tree in (shapes.params, shapes.model))
    opt = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes.opt)
    return State(np.zeros((), np.int32), params, opt, model, {name: params[name] for name in shapes.ema}, {})


def reals(system: System, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch as the loader gives it: waves of random lengths and phases."""
    rng = np.random.default_rng(seed)
    height, width, channels = system.image
    down, across = np.arange(height)[:, None, None], np.arange(width)[:, None]
    speed = rng.uniform(0.1, 0.5, (2, batch * system.records, 1, 1, channels))
    images = 127.5 + 120 * np.sin(speed[0] * down + speed[1] * across + rng.uniform(0, 6, (batch * system.records, 1, 1, channels)))
    return system.prepare({"image": images.astype(np.uint8)}, rng)


def step_of(system: System):
    """The loop's step, compiled quickly."""
    return jax.jit(train.step_function(system, 0), compiler_options=COMPILER)


def gradients_of(state: State) -> dict[str, Any]:
    """Absolute gradients of every player in its first step: Adam's second moment is then (1 - 0.999) g^2."""
    return {
        name: jax.tree.map(lambda nu: np.sqrt(np.asarray(nu) / 1e-3), optax.tree_utils.tree_get(opt, "nu"))
        for name, opt in state.opt.items()
    }


def assert_same_step(config: Config, found: tuple[State, dict], expected: tuple[State, dict], tolerance: float = 1e-5) -> None:
    """Losses, gradients, statistics and parameters after the first step from ``filled``.

    Adam's first step is the learning rate times the sign of the gradient. Where rounding decides that sign the parameters differ by up
    to two such steps, whatever the tolerance; elsewhere they agree as the gradients do.
    """
    (found, found_info), (expected, expected_info) = jax.device_get((found, expected))
    scale = max(abs(float(value)) for name, value in expected_info.items() if name.startswith("loss/"))
    for name, value in expected_info.items():
        if name != "finite":
            np.testing.assert_allclose(found_info[name], value, rtol=tolerance, atol=tolerance * scale, err_msg=name)
    assert all(vector.all() for info in (found_info, expected_info) for vector in info["finite"].values())
    for (path, leaf), (_, value) in zip(
        jax.tree_util.tree_leaves_with_path(expected.model), jax.tree_util.tree_leaves_with_path(found.model), strict=True
    ):
        place = jax.tree_util.keystr(path)
        # the bias before the head's normalisation has no gradient but rounding, D moves it by its sign, and the next two means (decay 0.9)
        # show it
        slack = 2 * config.d_lr * 0.19 if place == "['A']['stats']['norm']['mean']" else 0.0
        np.testing.assert_allclose(value, leaf, rtol=tolerance, atol=tolerance + slack, err_msg=place)
    one, other = gradients_of(found), gradients_of(expected)
    certain: dict[str, Any] = {}
    for player, tree in other.items():
        largest = max(leaf.max() for leaf in jax.tree.leaves(tree))
        assert largest > 1e-3
        for (path, leaf), (_, value) in zip(
            jax.tree_util.tree_leaves_with_path(tree), jax.tree_util.tree_leaves_with_path(one[player]), strict=True
        ):
            np.testing.assert_allclose(
                value, leaf, rtol=10 * tolerance, atol=tolerance * largest, err_msg=f"{player}{jax.tree_util.keystr(path)}"
            )
            place = jax.tree_util.keystr(path)
            certain[place] = certain.get(place, True) & (leaf > 20 * tolerance * largest)
    rate = {"D": config.d_lr, "G": config.g_lr, "A": config.d_lr + config.g_lr, "Q": config.q_lr}
    for (path, leaf), (_, value) in zip(
        jax.tree_util.tree_leaves_with_path(expected.params), jax.tree_util.tree_leaves_with_path(found.params), strict=True
    ):
        place = jax.tree_util.keystr(path)
        sure = certain[place]
        np.testing.assert_allclose(value[sure], leaf[sure], rtol=tolerance, atol=tolerance, err_msg=place)
        assert np.abs(value - leaf).max() < 2.1 * len(other) * rate[path[0].key], place
    assert np.mean(np.concatenate([np.ravel(sure) for sure in certain.values()])) > 0.5
    assert found.step == expected.step == 1
