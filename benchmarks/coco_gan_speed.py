"""How many CPU-seconds does a full-width COCO-GAN step take, what does each lever give, and what does sampling cost?

python benchmarks/coco_gan_speed.py [--rounds 5] [--batch 8] [--profile]

Compiles CelebA_64 N2M2S32 at full width in float32 in several forms and steps them in turn, so that noise falls on
all alike; prints the median CPU-seconds of a step and the ratio to the default form, then sampling, then peak memory. Each run appends a
line to benchmarks/results/coco_gan_speed.jsonl. `--profile` prints where the time of the default form goes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import gzip
import json
import os
import platform
import re
import resource
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import flax
import jax
import numpy as np

from jaxgan import train
from jaxgan.nets import layers
from jaxgan.systems import coco_gan, coco_gan_sample

RESULTS = Path(__file__).parent / "results" / "coco_gan_speed.jsonl"


@contextlib.contextmanager
def plain(*names: str) -> Iterator[None]:
    """Replaces the folded convolutions named by their plain two-step forms while a step is traced."""
    forms = {
        "upsample_convolve": lambda x, k: layers.convolve(layers.upsample(x), k),
        "convolve_pool": lambda x, k: layers.average_pool(layers.convolve(x, k)),
    }
    for form in forms.values():
        form.fun = form  # the folded forms' gradients ask each other for it
    kept = {name: getattr(layers, name) for name in names}
    try:
        for name in names:
            setattr(layers, name, forms[name])
        yield
    finally:
        for name, function in kept.items():
            setattr(layers, name, function)


def compile_step(config: coco_gan.Config, batch: int, *plain_forms: str):
    """(compiled step, state, batch) of one form."""
    system = config.system()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (batch * system.records, *system.image), dtype=np.uint8)
    arrays = jax.device_put(system.prepare({"image": images}, rng))
    state = jax.jit(system.init)(jax.random.key(0))
    with plain(*plain_forms):
        compiled = jax.jit(train.step_function(system, 0), donate_argnums=0).lower(state, arrays).compile()
    return compiled, state, arrays


def cpu_seconds(call) -> float:
    start = time.process_time()
    jax.block_until_ready(call())
    return time.process_time() - start


def where_time_goes(compiled, state, arrays, steps: int = 3) -> list[tuple[str, float]]:
    """Share of the operations' time by kind, from a profiler trace."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                state, _ = compiled(state, arrays)
            jax.block_until_ready(state)
        file = next(Path(folder).rglob("*.trace.json.gz"))
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    total = Counter()
    for event in events:
        operation = event.get("args", {}).get("hlo_op")
        if event.get("ph") == "X" and operation:
            total[re.sub(r"[.\d]+$", "", operation)] += event["dur"]
    whole = sum(total.values())
    return [(name, duration / whole) for name, duration in total.most_common(12)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--only-default", action="store_true", help="peak memory of the default form alone")
    arguments = parser.parse_args()
    config = coco_gan.Config()
    two_runs = dataclasses.replace(config, shared_forward=False)
    forms = {"default": (config,)}
    if not arguments.only_default:
        forms |= {
            "generator run twice": (two_runs,),
            "plain doubling": (config, "upsample_convolve"),
            "plain averaging": (config, "convolve_pool"),
            "all plain": (two_runs, "upsample_convolve", "convolve_pool"),
        }
    compiled = {}
    for name, (form, *plain_forms) in forms.items():
        start = time.perf_counter()
        compiled[name] = list(compile_step(form, arguments.batch, *plain_forms))
        print(f"{name}: compiled in {time.perf_counter() - start:.0f} s", flush=True)

    seconds: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(arguments.rounds + 1):
        for name, (step, state, arrays) in compiled.items():
            start = time.process_time()
            compiled[name][1], _ = jax.block_until_ready(step(state, arrays))
            if turn:  # the first turn warms up
                seconds[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        ratio = value / medians["default"]
        print(f"{name:>20}: {value:6.2f} CPU-s per step of {arguments.batch}, {ratio:.2f} of the default's", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

    trained = coco_gan_sample.generator_of(compiled["default"][1])
    latents = coco_gan_sample.random_latents(config, 0, 8)
    jax.block_until_ready(coco_gan_sample.full_images(config, trained, latents))
    sampling = [cpu_seconds(lambda: coco_gan_sample.full_images(config, trained, latents)) for _ in range(arguments.rounds)]
    print(f"sampling 8 full images: {statistics.median(sampling):.2f} CPU-s; peak memory of this process {peak:.2f} GiB")

    record = {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "batch": arguments.batch,
        "cpu_seconds_per_step": medians,
        "cpu_seconds_all": seconds,
        "sample_8_images_cpu_seconds": statistics.median(sampling),
        "peak_gib": peak,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "flax": flax.__version__},
    }
    if arguments.profile:
        record["profile"] = where_time_goes(*compiled["default"])
        for name, share in record["profile"]:
            print(f"{share:6.1%}  {name}")
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
