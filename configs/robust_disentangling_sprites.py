"""Robust disentangling (Esser, Haux, Ommer; ICCV 2019) of animated sprites at 64x64, where every swap of identity and pose has a truth.

Reproduces: not the published figure, whose sprites (Reed et al., 2015) are others; its order of the methods can be compared: mean squared
            error of the full method : multiplier alone : bottleneck alone = 1 : 2.2 : 2.7 there.
Command:    jaxgan train configs/robust_disentangling_sprites.py --workdir runs/robust_sprites --data.source sprites:FOLDER
            jaxgan swap grid runs/robust_sprites --out grid.png
            FOLDER holds the layers of the characters (sprites_components.npz, sprites_split.npz).
Hardware:   1 GPU.
Expected:   information within epsilon +- 0.1, average_prime - average below 0.05, multiplier and gamma settled at the end.
Measured:   not at this size. With --model.widths 8 16 32 64 64 --model.code 32 --model.estimator 128 --model.lr 6e-4 --model.warmup 200
            --model.steps 2000 --run.batch 16 --run.kimg 32 (11 CPU-minutes of one core): MSE of 8,000 swaps of the split 'test' 0.0280,
            multiplier alone 0.0251, bottleneck alone with gamma 7.5 0.0335, mean image 0.0925. Swaps are blurred and recognisable.

The number of steps and the warm-up are those of the authors' code; the batch is twice theirs. The ablations are those of
`robust_disentangling_figures.py`.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.robust_disentangling import Config


def config() -> Experiment:
    return Experiment(
        model=Config(pairs="group", steps=100_000),
        data=Data(source="sprites:sprites"),
        run=Run(batch=32, kimg=3200.0, save_every=5000, sample_every=2000, samples=8),
    )


def tiny() -> Experiment:
    """The same system on figures, which need no files."""
    small = {"side": 16, "widths": (4, 8, 8), "code": 4, "estimator": 8, "blocks": 1}
    return Experiment(
        model=dataclasses.replace(config().model, **small, pairs="clip", warmup=4, steps=10),
        data=Data(source="figures", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
