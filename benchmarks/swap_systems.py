"""What does a training step of the two disentanglers cost, and where does it go?

python benchmarks/swap_systems.py [--systems identity_pose robust_disentangling] [--sizes tiny base] [--batch 0] [--steps 3] [--windows 2]
    [--profile]

``--batch 0``: 16 for 'tiny', 32 for the others. ``--profile``: steps with one part left out each, in turn with the whole, so that what is
missing is that part's cost: double duty, pixel verification, the judgement with its maps, reading codes back, the margins; or the decoders
of one code, and the constraint. Random images: the time does not depend on them. Prints CPU-seconds per step, which other processes disturb
less than wall time, those of compilation, and images (triplets or pairs) a second. Appends lines to benchmarks/results/swap_systems.jsonl.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import time
from pathlib import Path

import jax
import numpy as np

from jaxgan.nets.disentangling import SIZES
from jaxgan.systems import identity_pose, robust_disentangling

RESULTS = Path(__file__).parent / "results" / "swap_systems.jsonl"
WITHOUT = {
    "identity_pose": {
        "double duty": {"self_decode": False},
        "pixel verification": {"w_pv": 0.0},
        "reading back": {"w_back": 0.0},
        "margins": {"w_dis": 0.0},
        "adversary and maps": {"w_adv": 0.0, "perceptual": "none"},
    },
    "robust_disentangling": {"decoders of one code": {"auxiliary": False}, "constraint": {"constraint": False, "bottleneck": "fixed"}},
}


def configured(name: str, size: str):
    if name == "identity_pose":
        return identity_pose.sized(size)
    return robust_disentangling.Config(**SIZES[size]._asdict(), warmup=0)


def stepper(config, batch: int):
    """(a function that takes one step, CPU-seconds of compilation)."""
    system = config.system()
    images = system.reads.blank(batch)
    images["image"] = np.random.default_rng(0).integers(0, 256, images["image"].shape, dtype=np.uint8)
    images = {name: jax.numpy.asarray(value) for name, value in images.items()}
    held, key = [jax.jit(system.init)(jax.random.key(0))], jax.random.key(1)
    begun = time.process_time()
    step = jax.jit(system.step, donate_argnums=0).lower(held[0], images, key).compile()

    def go() -> None:
        held[0], _ = step(held[0], images, key)
        jax.block_until_ready(held[0].step)

    return go, time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", choices=tuple(WITHOUT), default=list(WITHOUT))
    parser.add_argument("--sizes", nargs="+", choices=("tiny", "base", "large"), default=["tiny"])
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    for name in arguments.systems:
        for size in arguments.sizes:
            batch = arguments.batch or (16 if size == "tiny" else 32)
            whole = configured(name, size)
            cases = {"whole": whole}
            if arguments.profile:
                cases |= {f"without {part}": dataclasses.replace(whole, **changes) for part, changes in WITHOUT[name].items()}
            measure(name, size, batch, {case: stepper(config, batch) for case, config in cases.items()}, arguments)


def measure(name: str, size: str, batch: int, cases: dict, arguments) -> None:
    taken: dict[str, list[tuple[float, float]]] = {case: [] for case in cases}
    for go, _ in cases.values():
        go()
    for _ in range(arguments.windows):
        for case, (go, _) in cases.items():
            processor, wall = time.process_time(), time.perf_counter()
            for _ in range(arguments.steps):
                go()
            taken[case].append(((time.process_time() - processor) / arguments.steps, (time.perf_counter() - wall) / arguments.steps))
    RESULTS.parent.mkdir(exist_ok=True)
    for case, windows in taken.items():
        processor, wall = (float(np.median(column)) for column in zip(*windows, strict=True))
        record = {
            "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "device": f"{len(jax.devices())} x {jax.devices()[0].device_kind}",
            "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
            "versions": {"python": platform.python_version(), "jax": jax.__version__},
            "system": name,
            "size": size,
            "batch": batch,
            "case": case,
            "cpu_seconds_per_step": processor,
            "seconds_per_step": wall,
            "images_per_second": batch / wall,
            "compile_cpu_seconds": cases[case][1],
        }
        print(
            f"{name} {size}, batch {batch}, {case}: {processor:.2f} CPU-s a step, {batch / wall:.1f} images/s "
            f"({batch / processor:.1f} a CPU-s), compiled in {cases[case][1]:.0f} CPU-s",
            flush=True,
        )
        with RESULTS.open("a") as file:
            file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
