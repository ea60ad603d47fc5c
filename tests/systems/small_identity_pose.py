"""A small identity_pose of images of 16 px: its configuration, triplets drawn by code, and a state of random numbers."""

from __future__ import annotations

import jax
import numpy as np

from jaxgan.system import State
from jaxgan.systems.identity_pose import Config

CONFIG = Config(
    side=16, widths=(4, 8), identity=8, tokens=8, read=8, heads=2, judge=(4, 8), embedding=(4, 8), pv_ramp=(0, 2), steps=10
)  # fmt: skip
BATCH = 8
COMPILER = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Squares:
    """24 triplets drawn by code: a square of some colour somewhere; the pose image has another colour at the target's place."""

    image = (3, 16, 16, 3)

    def __len__(self):
        return 24

    def draw(self, index, rng):
        images = np.full((3, 16, 16, 3), 30, np.uint8)
        colours = np.random.default_rng(index).integers(60, 255, (2, 3))
        start, end = rng.integers(0, 10, (2, 2))
        for image, colour, (down, across) in zip(images, colours[[0, 1, 0]], (start, end, end), strict=True):
            image[down : down + 6, across : across + 6] = colour
        return {"image": images, "clip": np.int32(index), "gap": np.int32(rng.integers(1, 5)), "pose_clip": np.int32(index + 1)}

    def __getitem__(self, index):
        return self.draw(index, np.random.default_rng((0, index)))


def triplets(n=BATCH):
    rng = np.random.default_rng(0)
    drawn = [Squares().draw(i, rng) for i in range(n)]
    return {"image": np.stack([one["image"] for one in drawn]), "gap": np.asarray([one["gap"] for one in drawn])}


def filled(config, step=1):
    """A state of random numbers, the reader's gate open, optimisers at the start; nothing is compiled."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(config.system().init, jax.random.key(0))
    fixed = {"log_tau": np.log(0.07), "slope": 10.0, "offset": -7.0, "gate": 0.5, "rho": 0.05, "v": 0.9}
    spread = {"kernel": 0.3, "bias": 0.1, "scale": 0.1, "shift": 0.1, "u": 1.0}

    def number(path, leaf):
        name = path[-1].key
        return np.asarray(fixed[name] if name in fixed else (name == "scale") + spread[name] * rng.normal(size=leaf.shape), np.float32)

    params, model = (jax.tree_util.tree_map_with_path(number, tree) for tree in (shapes.params, shapes.model))
    opt = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes.opt)
    return State(np.asarray(step, np.int32), params, opt, model, {name: params[name] for name in shapes.ema}, {})
