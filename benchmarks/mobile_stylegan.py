"""How many CPU-seconds is one MobileStyleGAN image of 1024 px, and one value and gradient with respect to its codes?

python benchmarks/mobile_stylegan.py [--batch 1] [--repeats 3] [--alternatives]

Random arrays of the published sizes (the time does not depend on the numbers). Prints processor seconds over all threads, which other
processes disturb less than wall time, and the wall time where a device does the work. ``--alternatives``: what the forms of single
operations cost that were chosen between, at 256 px and 64 channels. Appends a line to benchmarks/results/mobile_stylegan.jsonl.

Large buffers come from the system anew at each call. Where a fresh 4 KiB page is dear, as on virtual machines,
GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in the environment (before Python starts) asks for pages of 2 MiB.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import lax

from jaxgan.nets import mobile_stylegan as nets
from jaxgan.nets import mobile_stylegan_layers as layers
from jaxgan.nets import windows
from jaxgan.nets.layers import convolve

RESULTS = Path(__file__).parent / "results" / "mobile_stylegan.jsonl"


def seconds(function: Callable, *arguments, repeats: int) -> tuple[float, float]:
    """(processor seconds, wall seconds) of the quickest of some calls of the compiled function."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*arguments))
    found = []
    for _ in range(repeats):
        processor, wall = time.process_time(), time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        found.append((time.process_time() - processor, time.perf_counter() - wall))
    return min(found)


def whole(batch: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Per image: forward, value and gradient, and a gradient inside a loop of one program, as an optimiser runs it."""
    params, noise = jax.jit(lambda key: nets.init(nets.Layout(), key))(jax.random.key(0))
    codes = jax.random.normal(jax.random.key(1), (batch, len(nets.ROWS), 512))
    steps = 5

    def loss(codes, params, noise):
        return jnp.square(nets.synthesise(params, codes, noise)).mean()

    def descend(codes, params, noise):
        return lax.fori_loop(0, steps, lambda _, codes: codes - jax.grad(loss)(codes, params, noise), codes)

    forward = seconds(lambda codes, params, noise: nets.synthesise(params, codes, noise), codes, params, noise, repeats=repeats)
    gradient = seconds(jax.value_and_grad(loss), codes, params, noise, repeats=repeats)
    loop = seconds(descend, codes, params, noise, repeats=1)
    return {
        "forward": (forward[0] / batch, forward[1] / batch),
        "value_and_grad": (gradient[0] / batch, gradient[1] / batch),
        "gradient in a loop": (loop[0] / batch / steps, loop[1] / batch / steps),
    }


def alternatives(repeats: int) -> dict[str, tuple[float, float]]:
    """Forms of the depthwise and the pointwise convolution: forward, and the gradient with respect to the image."""
    side, channels = 256, 64
    x = jax.random.normal(jax.random.key(0), (1, side, side, channels))
    taps = jax.random.normal(jax.random.key(1), (3, 3, channels, 1))
    kernel = jax.random.normal(jax.random.key(2), (1, 1, channels, channels))
    factors = jnp.ones((1, channels))

    def grouped(x, taps):
        dimensions = ("NHWC", "HWIO", "NHWC")
        turned = taps.transpose(0, 1, 3, 2)
        return lax.conv_general_dilated(x, turned, (1, 1), "SAME", dimension_numbers=dimensions, feature_group_count=channels)

    forms = {
        "depthwise: feature_group_count": (grouped, taps),
        "depthwise: nine shifts, gradient derived": (windows.depthwise, taps),
        "depthwise: nine shifts, gradient written": (layers.depthwise, taps),
        "pointwise: convolution": (convolve, kernel),
        "pointwise: product": (lambda x, kernel: layers.modulated_pointwise(x, factors, kernel), kernel),
    }
    found = {}
    for name, (function, weight) in forms.items():
        found[name + ", forward"] = seconds(function, x, weight, repeats=repeats)
        found[name + ", gradient"] = seconds(
            lambda x, weight, f=function: jax.grad(lambda x: jnp.square(f(x, weight)).sum())(x), x, weight, repeats=repeats
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alternatives", action="store_true")
    options = parser.parse_args()
    found = whole(options.batch, options.repeats)
    if options.alternatives:
        found |= alternatives(options.repeats)
    for name, (processor, wall) in found.items():
        print(f"{name:52} {processor:8.4f} processor seconds, {wall:8.4f} wall seconds")
    device = jax.devices()[0]
    line = {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device.device_kind,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "jax": jax.__version__,
        "python": platform.python_version(),
        "batch": options.batch,
        "hugetlb": "hugetlb=1" in os.environ.get("GLIBC_TUNABLES", ""),
        "seconds": {name: [round(value, 5) for value in both] for name, both in found.items()},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
