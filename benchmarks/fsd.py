"""How many CPU-seconds do segmentation statistics take?

python benchmarks/fsd.py [--rounds 5] [--images 10000] [--classes 336]

Makes two tallies in which all classes occur (nothing can be left out), and times, in CPU-seconds of this process over all its
threads: FSD with its means and covariances, the class table, one bootstrap resample of FSD, and the tally of 256 px label maps. Prints
medians; each run appends a line to benchmarks/results/fsd.jsonl.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jaxgan.metrics import segments

RESULTS = Path(__file__).parent / "results" / "fsd.jsonl"


def tallies(images: int, classes: int, seed: int) -> np.ndarray:
    """Area fractions float32 ``[images, classes]`` with a long tail: most classes in few images, some in nearly all."""
    rng = np.random.default_rng(seed)
    areas = rng.gamma(0.3, 1.0, (images, classes)) / np.arange(1, classes + 1)
    areas[:, 1:] *= rng.random((images, classes - 1)) < 8 / np.arange(8, classes + 7)
    return (areas / areas.sum(axis=1, keepdims=True)).astype(np.float32)


def cpu_seconds(call: Callable[[], object], rounds: int) -> list[float]:
    """CPU-seconds of each of `rounds` calls, after one that warms up."""
    seconds = []
    for turn in range(rounds + 1):
        start = time.process_time()
        call()
        if turn:
            seconds.append(time.process_time() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=336)
    arguments = parser.parse_args()
    real, fake = (tallies(arguments.images, arguments.classes, seed) for seed in (0, 1))
    used = int(np.count_nonzero(real.any(axis=0) | fake.any(axis=0)))
    maps = np.random.default_rng(2).integers(0, arguments.classes, (100, 256, 256), dtype=np.int32)
    names = [f"class {c}" for c in range(arguments.classes)]
    seconds = {
        "fsd": cpu_seconds(lambda: segments.fsd(real, fake), arguments.rounds),
        "class_table, 1000 resamples": cpu_seconds(lambda: segments.class_table(real, fake, names), 1),
        "bootstrap_fsd, each resample": [s / 5 for s in cpu_seconds(lambda: segments.bootstrap_fsd(real, fake, resamples=4), 1)],
        "tally, 100 maps of 256 px": cpu_seconds(lambda: segments.tally(maps, arguments.classes), arguments.rounds),
    }
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name:>30}: {value:7.3f} CPU-s, {arguments.images} x {arguments.classes} ({used} classes occur)", flush=True)
    record = {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "images": arguments.images,
        "classes": arguments.classes,
        "classes_that_occur": used,
        "cpu_seconds": medians,
        "cpu_seconds_all": seconds,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
