"""Does a config's training step fit a TPU slice, and what crosses between its chips? Compiled ahead of time; no TPU needed, libtpu is.

python benchmarks/doctor.py configs/coco_gan_celeba128_n2m2s64.py v5e:4x4 --batch 128
Each run appends one line to benchmarks/results/doctor.jsonl: command, versions, memory, FLOPs, collectives by kind, purpose and origin
([purpose, kind, origin, arrays, bytes]). JAX_EXEC_TIME_OPTIMIZATION_EFFORT=-1 compiles in a quarter of the time (`effort`).
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from jaxgan import configure, doctor

RESULTS = Path(__file__).parent / "results" / "doctor.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("topology")
    parser.add_argument("--batch", type=int, default=0)
    parser.add_argument("--per-chip", type=int, default=0)
    parser.add_argument("--mesh", type=int, nargs=2)
    parser.add_argument("--dtype", help="in place of the config's")
    options = parser.parse_args()
    experiment = configure.parse(options.config, ["--model.dtype", options.dtype] if options.dtype else [])
    mesh = tuple(options.mesh) if options.mesh else None
    result = doctor.measure(experiment, topology=options.topology, batch=options.batch, per_chip=options.per_chip, mesh=mesh)
    print(doctor.render(result))
    line = {"command": "python " + shlex.join(sys.argv), "date": time.strftime("%Y-%m-%d"), "config": Path(options.config).stem}
    git = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty"]
    line |= {"dtype": experiment.model.dtype, "commit": subprocess.run(git, capture_output=True, text=True).stdout.strip()}
    with RESULTS.open("a") as file:
        file.write(json.dumps({**line, **result}) + "\n")


if __name__ == "__main__":
    main()
