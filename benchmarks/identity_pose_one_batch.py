"""Can the networks of identity and pose draw everything that a figure is? They learn one batch of triplets by heart.

python benchmarks/identity_pose_one_batch.py [--steps 600] [--batch 8] [--out rows.png]

The small card's model with constant rates and averages of half-life 7 steps, on the same triplets in every step. What a short run on the
whole set lacks is then not for want of capacity. Appends a line to benchmarks/results/identity_pose_one_batch.jsonl:
mean squared error on [-1, 1] of the results every 50 steps, and that of the mean of the targets. `--out`: a picture of identity image,
pose image, result and target.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import platform
import runpy
import time
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from jaxgan import train
from jaxgan.stages import open_data

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "identity_pose_one_batch.jsonl"
CARD = HERE.parent / "configs" / "identity_pose_figures32.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    experiment = runpy.run_path(str(CARD))["config"]()
    system = dataclasses.replace(experiment.model, steps=0, pv_ramp=(33, 100), ema=0.9).system()
    source, rng = open_data(system, experiment.data), np.random.default_rng(0)
    drawn = [source.draw(int(i), rng) for i in rng.integers(0, len(source), options.batch)]
    batch = {name: np.stack([one[name] for one in drawn]) for name in ("image", "gap")}
    targets = batch["image"][:, 2] / np.float32(127.5) - 1
    state = jax.jit(lambda: train.init_state(system, 0))()
    step, show = jax.jit(train.step_function(system, 0), donate_argnums=0), jax.jit(system.translate)
    side, errors, cpu = targets.shape[1], {}, time.process_time()
    for done in range(1, options.steps + 1):
        state, _ = step(state, batch)
        if done % 50 == 0 or done == options.steps:
            rows = np.asarray(show(state, batch["image"]))
            errors[done] = round(float(np.square(rows[:, :, 2 * side : 3 * side] - targets).mean()), 5)
            print(f"step {done}: {errors[done]}", flush=True)
    if options.out:
        pixels = ((rows.reshape(-1, rows.shape[2], 3) + 1) * 127.5).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(options.out)
    line = {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "batch": options.batch,
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "mean_of_targets": round(float(np.square(targets - targets.mean(0)).mean()), 5),
        "mse": errors,
    }
    print(line)
    with RESULTS.open("a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
