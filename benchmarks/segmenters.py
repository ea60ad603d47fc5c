"""How many images a second does a tally take, from pixels to rows of class areas?

python benchmarks/segmenters.py [--images 48] [--rounds 3]

Segments and tallies random pictures with BiSeNetV2 at 448 px (where its weights are found) and with an untrained U-Net of the size of
configs/segmentation_scenes.py at 128 px, through the same functions as `jaxgan seeing`. Prints images per second of wall time and
CPU-seconds per image, medians over the rounds; appends a line to benchmarks/results/segmenters.jsonl.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import os
import platform
import statistics
import time
from pathlib import Path

import jax
import numpy as np

from jaxgan import segmenters, sources, weights
from jaxgan.configure import load_config
from jaxgan.systems import segmentation
from jaxgan.systems.seeing_tally import tally

ROOT = Path(__file__).parent
RESULTS = ROOT / "results" / "segmenters.jsonl"


def unet(side: int) -> segmenters.Segmenter:
    """The card's network with its initial weights, for images of `side` pixels."""
    config = load_config(ROOT.parent / "configs" / "segmentation_scenes.py").model
    state = segmentation.system(config).init(jax.random.key(0))
    label = segmenters.on_devices(functools.partial(segmentation.label_maps, config), state.params["U"])
    return segmenters.Segmenter("unet", config.classes, label, (side, side), "untrained")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cases = {"U-Net at 128 px": (unet(128), 128)}
    if weights.find("bisenetv2"):
        cases["BiSeNetV2 at 448 px"] = (segmenters.open_segmenter("bisenetv2"), 448)
    record: dict = {"when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
    for name, (segmenter, side) in cases.items():
        pictures = np.random.default_rng(0).integers(0, 256, (arguments.images, side, side, 3), dtype=np.uint8)
        images = sources.in_memory(pictures)
        walls, cpus = [], []
        for turn in range(arguments.rounds + 1):
            wall, cpu = time.perf_counter(), time.process_time()
            tally(images, segmenter, segmenter.classes)
            if turn:  # the first round compiles
                walls.append(time.perf_counter() - wall)
                cpus.append(time.process_time() - cpu)
        rate, each = arguments.images / statistics.median(walls), statistics.median(cpus) / arguments.images
        record[name] = {"images_per_second": rate, "cpu_seconds_per_image": each, "rounds": arguments.rounds, "images": arguments.images}
        print(f"{name}: {rate:.1f} images/s, {each:.3f} CPU-s per image", flush=True)
    record["device"] = f"{len(jax.devices())} x {jax.devices()[0].device_kind}"
    record["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    record["versions"] = {"python": platform.python_version(), "jax": jax.__version__}
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
