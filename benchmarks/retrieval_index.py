"""What does an index of neighbours cost, in time and memory?

python benchmarks/retrieval_index.py [--frames 100000] [--side 64] [--features hog] [--neighbours 8]

Clips of 16 frames of drawn figures: 200 are drawn, the others are these moved sideways, so that reading frames costs next to nothing.
Prints CPU-seconds and wall-seconds of the whole index, and by how much the process grew at its peak; descriptions of more than 512 MB lie
in a temporary file whose pages the kernel may count to the process while memory is free. Appends a line to
benchmarks/results/retrieval_index.jsonl.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import time
from pathlib import Path

import numpy as np

from jaxgan import retrieval
from jaxgan.data import figures
from jaxgan.data.clips import Clips

RESULTS = Path(__file__).parent / "results" / "retrieval_index.jsonl"
DRAWN = 200


def clips_of(frames: int, side: int) -> Clips:
    count = -(-frames // figures.FRAMES)
    facts = figures.facts("train", min(count, DRAWN))
    drawn = [figures.draw_clip(facts.identity[i], facts.pose[i], side, "plain", int(facts.seeds[i])) for i in range(len(facts.identity))]

    def load(i: int):
        image, mask = drawn[i % len(drawn)]
        return np.roll(image, i // len(drawn) % side, 2), np.roll(mask, i // len(drawn) % side, 2)

    lengths = np.full(count, figures.FRAMES)
    return Clips(load, lengths, (side, side, 3), name="moved figures", digest="0" * 64, group=np.arange(count))


def peak() -> float:
    """Largest resident size of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--features", default="hog", choices=[name for name in retrieval.FEATURES if name != "oracle"])
    parser.add_argument("--neighbours", type=int, default=8)
    options = parser.parse_args()
    clips = clips_of(options.frames, options.side)
    before, wall, cpu = peak(), time.perf_counter(), time.process_time()
    index = retrieval.build_index(clips, options.features, options.neighbours)
    line = {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
        "frames": len(index.neighbours),
        "side": options.side,
        "features": options.features,
        "neighbours": options.neighbours,
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "wall_seconds": round(time.perf_counter() - wall, 1),
        "growth_mb": round(peak() - before),
        "index_mb": round(sum(array.nbytes for array in index) / 2**20, 1),
    }
    print(line)
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
