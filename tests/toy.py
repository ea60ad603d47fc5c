"""A small game for the tests of the loop: a linear generator and critic on 8×8 pictures made by code.

It is seen as the module ``jaxgan.systems.toy``, and its data source takes the place of ``open_source``. As a program it trains in a process
of its own: ``python tests/toy.py WORKDIR '{"kimg": 1, ...}'``.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgan import configure
from jaxgan.data import pipeline
from jaxgan.files import write_atomic
from jaxgan.system import Stage, State, System, leaf_names


class Pictures:
    """64 pictures ``[8, 8, 1]``, a function of their index and of `first`."""

    def __init__(self, first: int = 0):
        self.first = first

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {"image": np.random.default_rng(self.first + int(index)).integers(0, 255, (8, 8, 1)).astype(np.uint8)}


def chosen(first: int, source: Pictures, state: State | None, folder: Any) -> Pictures:
    """Pictures that the networks at the beginning of a stage choose, by a number that is kept in a file of the stage's `first` step."""
    file = folder / f"{first}.txt"
    if state is not None:
        write_atomic(file, str(int(1e6 * float(jnp.abs(state.params["G"]["out"]).sum()))).encode())
    return Pictures(int(file.read_text()))


@dataclasses.dataclass(frozen=True)
class Config:
    width: int = 8
    """Hidden units of the generator."""
    rate: float = 0.01
    """Learning rate."""
    bad_step: int = -1
    """At this step (from 0) the gradient of G/out is made infinite."""
    stages: tuple[tuple[int, int], ...] = ()
    """(first step, batch) of each stage; every stage learns at half the rate of the one before, with fresh optimisers."""
    chooses: bool = False
    """The stages after the first read `chosen` pictures."""

    def system(self) -> System:
        return system(self)


def system(config: Config) -> System:
    """The game, in stages where the configuration names some."""
    parts = [part(dataclasses.replace(config, rate=config.rate / 2**number)) for number in range(len(config.stages))]
    stages = [
        Stage(f"part {number}", first, batch, alone.step, alone.prepare, lambda state, alone=alone: state._replace(opt=fresh(state)))
        for number, ((first, batch), alone) in enumerate(zip(config.stages, parts, strict=True))
    ]
    if config.chooses:
        stages = [stage._replace(reads=functools.partial(chosen, stage.first)) if stage.first else stage for stage in stages]
    return part(config)._replace(stages=stages) if stages else part(config)


def fresh(state: State) -> dict[str, Any]:
    return jax.tree.map(jnp.zeros_like, state.opt)


def part(config: Config) -> System:
    tx = optax.adam(config.rate)
    owns = {"D": ("D",), "G": ("G",)}

    def init(key: jax.Array) -> State:
        one, two, three = jax.random.split(key, 3)
        params = {
            "G": {"into": jax.random.normal(one, (4, config.width)), "out": jax.random.normal(two, (config.width, 64)) * 0.1},
            "D": {"kernel": jax.random.normal(three, (64, 1)) * 0.1, "bias": jnp.zeros((1,))},
        }
        opt = {player: tx.init({name: params[name] for name in nets}) for player, nets in owns.items()}
        model = {"G": {"mean": jnp.zeros((64,))}, "D": {}}
        return State(jnp.zeros((), jnp.int32), params, opt, model, {"G": jax.tree.map(jnp.array, params["G"])}, {})

    def draw(net: Any, latents: jax.Array) -> jax.Array:
        return jnp.tanh(jnp.tanh(latents @ net["into"]) @ net["out"])

    def judge(net: Any, images: jax.Array) -> jax.Array:
        return images @ net["kernel"] + net["bias"]

    def step(state: State, batch: Any, key: jax.Array) -> tuple[State, dict[str, Any]]:
        real = batch["image"].reshape(batch["image"].shape[0], -1)
        latents = jax.random.normal(key, (real.shape[0], 4))
        params, opt, info, finite = dict(state.params), dict(state.opt), {}, {}

        def loss_d(own: Any) -> jax.Array:
            fake = draw(state.params["G"], latents)
            return jnp.mean(jax.nn.softplus(judge(own["D"], fake))) + jnp.mean(jax.nn.softplus(-judge(own["D"], real)))

        def loss_g(own: Any) -> jax.Array:
            return jnp.mean(jax.nn.softplus(-judge(state.params["D"], draw(own["G"], latents))))

        for player, loss in (("D", loss_d), ("G", loss_g)):
            value, grads = jax.value_and_grad(loss)({name: state.params[name] for name in owns[player]})
            if player == "G":
                grads["G"]["out"] = jnp.where(state.step == config.bad_step, jnp.inf, grads["G"]["out"])
            with jax.numpy_dtype_promotion("standard"):  # optax raises a float to the power of an integer count
                updates, opt[player] = tx.update(grads, state.opt[player])
            params |= optax.apply_updates({name: state.params[name] for name in owns[player]}, updates)
            info[f"loss/{player}"] = value
            finite[player] = jnp.stack([jnp.isfinite(value)] + [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(grads)])
            assert finite[player].shape == (len(leaf_names(state.params, owns[player])),)
        mean = 0.9 * state.model["G"]["mean"] + 0.1 * real.mean(0)
        ema = {"G": jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, state.ema["G"], params["G"])}
        # The images of the batch leave a mark in the log, so that the log shows the order of the data.
        info["data"] = (real * jnp.arange(1.0, 65.0)).sum()
        return State(state.step + 1, params, opt, {"G": {"mean": mean}, "D": {}}, ema, state.frozen), {**info, "finite": finite}

    def sample(state: State, key: jax.Array, n: int) -> jax.Array:
        return draw(state.params["G"], jax.random.normal(key, (n, 4))).reshape(n, 8, 8, 1)

    def prepare(records: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
        time.sleep(float(os.environ.get("TOY_SECONDS", 0)))  # so that a test can interrupt in time
        image = records["image"].astype(np.float32) / 127.5 - 1.0
        return {"image": np.where(rng.random((len(image), 1, 1, 1)) < 0.5, image[:, :, ::-1], image).astype(np.float32)}

    return System(init, step, sample, {}, (8, 8, 1), 1, prepare, owns)


def experiment(model: dict[str, Any] | None = None, **run: Any) -> configure.Experiment:
    """A run of 16 samples a step on one device, unless told otherwise; logs every 5 steps, saves every 10."""
    settings = {"batch": 16, "kimg": 0.64, "log_every": 5, "save_every": 10, "sample_every": 20, "samples": 4, "mesh": (0, 1), "seed": 3}
    return configure.Experiment(Config(**(model or {})), configure.Data(source="toy"), configure.Run(**(settings | run)))


Config.__module__ = "jaxgan.systems.toy"
sys.modules["jaxgan.systems.toy"] = sys.modules[__name__]
pipeline.open_source = lambda data, image: Pictures()


if __name__ == "__main__":
    from jaxgan.train import train

    options = json.loads(sys.argv[2])
    result = train(experiment(options.pop("model", None), **options), sys.argv[1])
    print(f"status {result.status} at {result.step}", flush=True)
