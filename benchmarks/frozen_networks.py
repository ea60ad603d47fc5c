"""How many images a second do the frozen networks take, and how many CPU-seconds is one image?

python benchmarks/frozen_networks.py [--networks inception bisenetv2 vgg16 lpips] [--batch N] [--precision highest]
    [--windows 3] [--seconds 1]

Runs each network on all devices there are, the batch split over them, with its published weights where they are found, and otherwise
VGG-16 and LPIPS with random ones of the same shapes. Prints images per second of wall time, CPU-seconds per image (which other processes on
the machine disturb less), and the share of the chips' peak bfloat16 FLOP/s where they are known to ``jaxgan.timing``. Appends a line to
benchmarks/results/frozen_networks.jsonl.
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
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxgan import timing, weights
from jaxgan.metrics import lpips
from jaxgan.nets import bisenet, inception, vgg

RESULTS = Path(__file__).parent / "results" / "frozen_networks.jsonl"
WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


def random_vgg() -> dict[str, np.ndarray]:
    rng, arrays, channels = np.random.default_rng(0), {}, 3
    for name, width in zip(vgg.LAYERS, WIDTHS, strict=True):
        arrays[f"{name}.kernel"] = rng.normal(0, (2 / (9 * channels)) ** 0.5, (3, 3, channels, width)).astype(np.float32)
        arrays[f"{name}.bias"], channels = np.zeros(width, np.float32), width
    return arrays


def load(name: str) -> tuple[dict[str, np.ndarray] | None, str]:
    """(arrays, 'published'), or random arrays, or (None, why not)."""
    if weights.find(name):
        return weights.load(name), "published"
    if name == "vgg16":
        return random_vgg(), "random"
    if name == "lpips":
        return {f"vgg.lin{i}": np.ones(width, np.float32) for i, width in enumerate((64, 128, 256, 512, 512))}, "random"
    return None, f"weights {name!r} are not on this machine"


def prepare(name: str, precision: str):
    """(function of parameters and images, parameters, image side, images per device, which weights), or the reason why not."""
    arrays, which = load("vgg16" if name == "lpips" else name)
    if arrays is None:
        return which
    if name == "inception":
        return lambda p, x: inception.features(p, x, precision=precision), inception.params(arrays), 299, 16, which
    if name == "bisenetv2":
        return lambda p, x: bisenet.labels(p, x, precision=precision), bisenet.params(arrays), 448, 4, which
    if name == "vgg16":
        return lambda p, x: vgg.features(p, x, ["relu5_3"], precision=precision), vgg.params(arrays), 224, 8, which
    params = lpips.params(arrays, load("lpips")[0])
    return lambda p, x: lpips.distance(p, x, -x, precision=precision), params, 64, 16, which


def measure(name: str, arguments: argparse.Namespace) -> dict | None:
    prepared = prepare(name, arguments.precision)
    if isinstance(prepared, str):
        print(f"{name:>10}: left out, {prepared}")
        return None
    function, params, side, batch, which = prepared
    devices = jax.devices()
    batch = arguments.batch or batch * len(devices)
    mesh = jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,))
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    images = np.random.default_rng(0).uniform(-1, 1, (batch, side, side, 3)).astype(np.float32)
    images = 127.5 * (images + 1) if name == "inception" else images
    images = jax.device_put(jnp.asarray(images), NamedSharding(mesh, PartitionSpec("data")))
    start = time.perf_counter()
    lowered = jax.jit(function).lower(params, images)
    flops = timing.flops_of(lowered)
    compiled = lowered.compile()
    compile_seconds = time.perf_counter() - start
    taken = timing.benchmark(lambda: compiled(params, images), windows=arguments.windows, seconds=arguments.seconds, warm_up=1)
    share = timing.mfu(flops, taken.seconds, len(devices), devices[0].device_kind) if flops else None
    record = {
        "weights": which,
        "batch": batch,
        "side": side,
        "images_per_second": batch / taken.seconds,
        "cpu_seconds_per_image": taken.cpu_seconds / batch,
        "gflop_per_image": flops / batch / 1e9 if flops else None,
        "mfu": share,
        "compile_seconds": compile_seconds,
        "windows": taken.windows,
    }
    known = "" if share is None else f", MFU {share:.1%}"
    print(
        f"{name:>10}: batch {batch} at {side} px, {record['images_per_second']:.2f} images/s, "
        f"{record['cpu_seconds_per_image']:.4f} CPU-s per image{known} ({which} weights, compiled in {compile_seconds:.1f} s)",
        flush=True,
    )
    return record


def main() -> None:
    names = ["inception", "bisenetv2", "vgg16", "lpips"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument("--batch", type=int, default=0, help="images per call; default 16, 4, 8, 16 per device (LPIPS: pairs)")
    parser.add_argument("--precision", default="highest", choices=("highest", "default"))
    parser.add_argument("--windows", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    networks = {name: found for name in arguments.networks if (found := measure(name, arguments))}
    record = {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
        "precision": arguments.precision,
        "networks": networks,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
