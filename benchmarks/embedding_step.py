"""What does a step of embedding cost: StyleGAN at full width, W+, Adam, pixels and four maps of VGG-16, inside the compiled loop?

python benchmarks/embedding_step.py [--side 256] [--batch 1] [--forms minimal turned derived] [--steps 10] [--windows 3]
    [--one-by-one auto] [--parts]

Forms of the frozen 3x3 convolutions, stepped in turn:

  minimal   kernels turned once for the gradient, minimal filtering where ``jaxgan.nets.frozen`` says that it pays: what is used on a CPU
  turned    kernels turned once, plain products: what is used on an accelerator
  derived   the layers of training, whose gradient JAX derives

``--parts``: generator alone and VGG-16 alone, too. Random weights: the time does not depend on the numbers. Prints CPU-seconds per step
(all images of the batch), which other processes disturb less than wall time, and, where a device does the work, images x steps per second.
``taskset -c 0`` before the command gives one thread. Appends lines to benchmarks/results/embedding_step.jsonl.
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
import optax

from jaxgan import invert, perceptual, timing
from jaxgan.nets import stylegan, vgg

RESULTS = Path(__file__).parent / "results" / "embedding_step.jsonl"
WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512)


def random_vgg() -> dict:
    rng, arrays, channels = np.random.default_rng(0), {}, 3
    for name, width in zip(vgg.LAYERS, WIDTHS, strict=False):
        arrays[f"{name}.kernel"] = rng.normal(0, (2 / (9 * channels)) ** 0.5, (3, 3, channels, width)).astype(np.float32)
        arrays[f"{name}.bias"], channels = np.zeros(width, np.float32), width
    return vgg.params(arrays)


def products(network: stylegan.Generator, side: int) -> tuple[float, float]:
    """Multiplications of one forward pass (generator, VGG-16 to conv4_2) as written, in 1e9: nearest doubling, then 9 taps."""
    mine = theirs = 0.0
    for i in range(1, network.layers):
        inputs = network.widths[(i - 1) // 2]
        mine += 9 * network.side(i) ** 2 * inputs * network.widths[i // 2] / 1e9
    channels = 3
    for name, width in zip(vgg.LAYERS, WIDTHS, strict=False):
        theirs += 9 * (side >> (int(name[4]) - 1)) ** 2 * channels * width / 1e9
        channels = width
    return mine, theirs


def search(form: str, part: str, side: int, batch: int, one_by_one: bool | None):
    """(function of a number of steps that goes on with the search, its start)."""
    network = stylegan.Generator(widths=stylegan.channel_widths(side))
    params, state = jax.jit(lambda key: stylegan.init(network, key))(jax.random.key(0))
    options, judge = perceptual.Options(size=min(side, 256)), random_vgg()
    if form == "derived":
        network, params = stylegan.fold(network, params)
    else:
        network, params = stylegan.freeze(network, params, minimal=form == "minimal")
        judge = vgg.freeze(judge, min(side, 256), minimal=form == "minimal")
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (batch, side, side, 3)), jnp.float32)
    targets = jax.jit(lambda judge, images: perceptual.targets(judge, images, options))(judge, images)
    frozen = {"params": params, "noise": state["noise"], "vgg": judge}

    def loss(variables, frozen, targets, step, keys):
        if part == "VGG-16":  # an image that hangs on the codes without a generator
            made = 0.5 * targets["image"] + variables["code"].mean((1, 2))[:, None, None, None]
        else:
            made = stylegan.synthesise(network, frozen["params"], variables["code"], frozen["noise"])
        if part == "generator":
            return jnp.square(made).mean((1, 2, 3)), {}
        return perceptual.compare(frozen["vgg"], made, targets, options)

    keys = jax.random.split(jax.random.key(1), batch)
    begun = invert.start({"code": jax.random.normal(jax.random.key(2), (batch, network.rows, network.w_size))}, optax.adam(0.01), keys)
    held = [begun]

    def go(steps: int) -> None:
        run = held[0]
        held[0] = invert.run(run, loss, tx, frozen, targets, steps=run.step + steps, chunk=steps, one_by_one=one_by_one)
        jax.block_until_ready(held[0].variables)

    tx = optax.adam(0.01)
    return go


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--forms", nargs="+", choices=("minimal", "turned", "derived"), default=["minimal"])
    parser.add_argument("--one-by-one", choices=("auto", "yes", "no"), default="auto", help="images within a step; auto: yes on a CPU")
    parser.add_argument("--steps", type=int, default=10, help="in one compiled loop, and one evaluation of the loss more")
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--parts", action="store_true")
    arguments = parser.parse_args()
    parts = ("whole", "generator", "VGG-16") if arguments.parts else ("whole",)
    one_by_one = {"auto": None, "yes": True, "no": False}[arguments.one_by_one]
    cases = {(form, part): search(form, part, arguments.side, arguments.batch, one_by_one) for form in arguments.forms for part in parts}
    for go in cases.values():
        go(arguments.steps)  # compiles
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {case: [] for case in cases}
    for _ in range(arguments.windows):
        for case, go in cases.items():
            processor, wall = time.process_time(), time.perf_counter()
            go(arguments.steps)
            taken[case].append(((time.process_time() - processor) / arguments.steps, (time.perf_counter() - wall) / arguments.steps))
    mine, theirs = products(stylegan.Generator(widths=stylegan.channel_widths(arguments.side)), min(arguments.side, 256))
    peak = timing.peak_flops(jax.devices()[0].device_kind)
    RESULTS.parent.mkdir(exist_ok=True)
    for (form, part), windows in taken.items():
        processor, wall = (float(np.median(column)) for column in zip(*windows, strict=True))
        # forward and the gradient of the images, two operations a product, as written (before any lever)
        work = 4e9 * arguments.batch * {"whole": mine + theirs, "generator": mine, "VGG-16": theirs}[part]
        record = {
            "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
            "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
            "versions": {"python": platform.python_version(), "jax": jax.__version__},
            "side": arguments.side,
            "batch": arguments.batch,
            "form": form,
            "one_by_one": arguments.one_by_one,
            "part": part,
            "cpu_seconds_per_step": processor,
            "seconds_per_step": wall,
            "least_cpu_seconds": min(window[0] for window in windows),
            "forward_gmac": {"generator": mine, "vgg16": theirs},
            "mfu": work / wall / peak / len(jax.devices()) if peak else None,
        }
        share = f", MFU {record['mfu']:.1%}" if peak else ""
        print(
            f"{part:>9} {form:>8}: {arguments.side} px, batch {arguments.batch}: {processor:.2f} CPU-s a step (least "
            f"{record['least_cpu_seconds']:.2f}), {arguments.batch / wall:.2f} images x steps/s{share}",
            flush=True,
        )
        with RESULTS.open("a") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
