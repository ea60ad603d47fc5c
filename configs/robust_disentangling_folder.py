"""Robust disentangling (Esser, Haux, Ommer; ICCV 2019) of your own videos: a template. A clip is a video, or part of one, of one object.

Reproduces: nothing; the published sets of videos and of persons are not distributed with this library.
Command:    jaxgan data import VIDEOS imported/clips128 --clips --size 128 --test-share 0.1
            jaxgan train configs/robust_disentangling_folder.py --workdir runs/robust_videos --data.source imported/clips128
            jaxgan swap grid runs/robust_videos --out grid.png
Hardware:   1 GPU.
Expected:   information within epsilon +- 0.1, average_prime - average below 0.05, multiplier and gamma settled at the end.
Measured:   not run yet.

What to change: `flip=True` where a mirrored pose is as likely as the pose; `perceptual='vgg'` with `vgg_size=256`, the likelihood of the
published model of persons, where VGG-16's weights are at hand (gamma then begins at 7.5); `ema` for steadier pictures. Objects that never
move differently from their identity (one pose for each object) cannot be disentangled.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.robust_disentangling import Config


def config() -> Experiment:
    return Experiment(
        model=Config(side=128, widths=(32, 64, 128, 256, 256, 256), code=128, steps=100_000),
        data=Data(source="imported/clips128"),
        run=Run(batch=16, kimg=1600.0, save_every=5000, sample_every=2000, samples=8),
    )


def tiny() -> Experiment:
    """The same system on figures, which need no import."""
    return Experiment(
        model=dataclasses.replace(config().model, side=16, widths=(4, 8, 8), code=4, estimator=8, blocks=1, warmup=4, steps=10),
        data=Data(source="figures", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
