"""Robust disentangling (Esser, Haux, Ommer; ICCV 2019) of figures that move, drawn by code: identity and pose of each are known.

Reproduces: nothing published on these data; the networks are the published ones at 64x64, the numbers below those of the authors' code.
Command:    jaxgan train configs/robust_disentangling_figures.py --workdir runs/robust_figures
            jaxgan swap grid runs/robust_figures --out grid.png
Hardware:   1 GPU. On two CPU cores: configs/robust_disentangling_figures32.py.
Expected:   information within epsilon +- 0.1, average_prime - average below 0.05, multiplier and gamma settled at the end.
Measured:   not run yet.

Pairs are of two clips of one figure, for frames of one clip share about where it stands; all bodies are brighter than the ground, for on
mid-grey the pose code was read with opposite signs by halves of the hues (configs/robust_disentangling_figures32.py).

Ablations, each of them one or two options of the same command:
  adversarial alone (the multiplier, no bottleneck)   --model.deterministic True
  variational alone (the bottleneck, no constraint)   --model.constraint False --model.bottleneck fixed --model.gamma 30
  a fixed bottleneck beside the constraint            --model.bottleneck fixed --model.gamma 1
  the second classifier no longer apart (broken)      --model.leak True
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.robust_disentangling import Config


def config() -> Experiment:
    return Experiment(
        model=Config(pairs="group", steps=30_000),
        data=Data(source="figures", ground="dark"),
        run=Run(batch=32, kimg=960.0, save_every=2000, sample_every=1000, samples=8),
    )


def tiny() -> Experiment:
    small = {"side": 16, "widths": (4, 8, 8), "code": 4, "estimator": 8, "blocks": 1}
    return Experiment(
        model=dataclasses.replace(config().model, **small, pairs="clip", warmup=4, steps=10),
        data=Data(source="figures", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
