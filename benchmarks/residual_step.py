"""What does a step of corrections cost: a progressive GAN at full width, three corrected layers, pixels and VGG-16 to conv4_2, Adam?

python benchmarks/residual_step.py [--side 256] [--batches 1 8] [--forms minimal turned derived] [--steps 10] [--windows 3]
    [--one-by-one auto] [--parts] [--whole-search 3000]

Forms of the frozen 3x3 convolutions, stepped in turn:

  minimal   kernels turned once for the gradient, minimal filtering where ``jaxgan.nets.frozen`` says that it pays: what is used on a CPU
  turned    kernels turned once, plain products: what is used on an accelerator
  derived   the plain layers, whose gradient JAX derives

``--parts``: without VGG-16 (generator alone), too. ``--whole-search``: times so many steps at once in the place of windows, for devices.
A window of n steps holds n + 1 evaluations, by which it is divided. Random weights: the time does not depend on the numbers. Prints
CPU-seconds per step and image, which other processes disturb less than wall time, and images x steps per second. ``taskset -c 0`` before
the command gives one thread. Appends lines to benchmarks/results/residual_step.jsonl.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from embedding_step import WIDTHS, random_vgg

from jaxgan import chains, invert, timing
from jaxgan.nets import frozen, progan, vgg
from jaxgan.systems import layer_inversion_corrections as corrections
from jaxgan.systems.layer_inversion_search import Perceptual

RESULTS = Path(__file__).parent / "results" / "residual_step.jsonl"


def products(network: progan.Generator) -> tuple[float, float]:
    """Multiplications of a forward pass (generator behind layer1, VGG-16 to conv4_2) as written, in 1e9: nearest doubling, then 9 taps."""
    shapes = [progan.shape(network, name) for name in progan.names(network)[:-1]]
    mine = sum(9 * side * side * channels * before[2] for before, (side, _, channels) in zip(shapes, shapes[1:], strict=False)) / 1e9
    theirs, channels = 0.0, 3
    for name, width in zip(vgg.LAYERS, WIDTHS, strict=False):
        theirs += 9 * (network.resolution >> (int(name[4]) - 1)) ** 2 * channels * width / 1e9
        channels = width
    return mine, theirs


def plain(arrays: dict) -> dict:
    """Frozen kernels in their plain form as kernels that JAX derives a gradient for."""
    return jax.tree.map(
        lambda leaf: leaf.forward[0] if isinstance(leaf, frozen.FrozenKernel) else leaf,
        arrays,
        is_leaf=lambda leaf: isinstance(leaf, frozen.FrozenKernel),
    )


def search(form: str, part: str, side: int, batch: int, one_by_one: bool | None):
    """A function of a number of steps that goes on with the search."""
    network = progan.Generator(progan.PRESETS[side])
    params, stats = jax.jit(lambda key: progan.init(network, key))(jax.random.key(0))
    chain = chains.of_progan(network, params, stats)
    arrays = progan.freeze(network, params, stats, minimal=form == "minimal")[1]
    chain = chain._replace(arrays=plain(arrays) if form == "derived" else arrays)
    judge = corrections.of_vgg(random_vgg(), side)
    kernels = vgg.freeze({name: layer for name, layer in random_vgg().items() if name in judge.arrays}, side, minimal=form == "minimal")
    judge = Perceptual(plain(kernels) if form == "derived" else kernels, judge.maps)
    options = corrections.Options(perceptual_weight=float(part == "whole"))
    problem = corrections.prepare(chain, options, perceptual=judge)
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.uniform(-1, 1, (batch, *chain.image)), jnp.float32)
    latents = jnp.asarray(rng.normal(size=(batch, *chain.latent)), jnp.float32)
    variables, targets = problem.begin(problem.frozen, images, latents, {})
    held = [invert.start(variables, problem.tx, jax.random.split(jax.random.key(1), batch))]

    def go(steps: int) -> None:
        done = held[0].step
        held[0] = invert.run(
            held[0], problem.loss, problem.tx, problem.frozen, targets, steps=done + steps, chunk=min(steps, 100), one_by_one=one_by_one
        )
        jax.block_until_ready(held[0].variables)

    return go


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, choices=tuple(progan.PRESETS), default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=[1])
    parser.add_argument("--forms", nargs="+", choices=("minimal", "turned", "derived"), default=["minimal"])
    parser.add_argument("--one-by-one", choices=("auto", "yes", "no"), default="auto", help="images within a step; auto: yes on a CPU")
    parser.add_argument("--steps", type=int, default=10, help="in one compiled loop, and one evaluation of the loss more")
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--whole-search", type=int, default=0, metavar="STEPS")
    arguments = parser.parse_args()
    parts = ("whole", "generator") if arguments.parts else ("whole",)
    one_by_one = {"auto": None, "yes": True, "no": False}[arguments.one_by_one]
    cases = {
        (form, part, batch): search(form, part, arguments.side, batch, one_by_one)
        for form in arguments.forms
        for part in parts
        for batch in arguments.batches
    }
    steps = arguments.whole_search or arguments.steps
    for go in cases.values():
        go(min(steps, 100))  # compiles
    taken: dict[tuple[str, str, int], list[tuple[float, float]]] = {case: [] for case in cases}
    for _ in range(1 if arguments.whole_search else arguments.windows):
        for case, go in cases.items():
            processor, wall = time.process_time(), time.perf_counter()
            go(steps)
            taken[case].append(((time.process_time() - processor) / (steps + 1), (time.perf_counter() - wall) / (steps + 1)))
    mine, theirs = products(progan.Generator(progan.PRESETS[arguments.side]))
    peak = timing.peak_flops(jax.devices()[0].device_kind)
    RESULTS.parent.mkdir(exist_ok=True)
    for (form, part, batch), windows in taken.items():
        processor, wall = (float(np.median(column)) for column in zip(*windows, strict=True))
        # forward and the gradient of the images, two operations a product, as written (before any lever)
        work = 4e9 * batch * (mine + (theirs if part == "whole" else 0))
        record = {
            "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
            "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
            "versions": {"python": platform.python_version(), "jax": jax.__version__},
            "side": arguments.side,
            "batch": batch,
            "form": form,
            "one_by_one": arguments.one_by_one,
            "part": part,
            "steps": steps,
            "cpu_seconds_per_step_and_image": processor / batch,
            "least_cpu_seconds_per_step_and_image": min(window[0] for window in windows) / batch,
            "seconds_per_step": wall,
            "forward_gmac": {"generator": mine, "vgg16": theirs},
            "mfu": work / wall / peak / len(jax.devices()) if peak else None,
        }
        share = f", MFU {record['mfu']:.1%}" if peak else ""
        print(
            f"{part:>9} {form:>8}: {arguments.side} px, batch {batch}: {processor / batch:.2f} CPU-s a step and image (least "
            f"{record['least_cpu_seconds_per_step_and_image']:.2f}), {batch / wall:.2f} images x steps/s, "
            f"{steps} steps in {wall * steps:.1f} s{share}",
            flush=True,
        )
        with RESULTS.open("a") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
