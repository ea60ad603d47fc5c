"""Robust disentangling of drawn figures at 32x32, size 'tiny': to be watched on two CPU cores; nothing to download.

Reproduces: nothing published; the mechanism and the numbers of configs/robust_disentangling_figures.py, narrower networks.
Command:    jaxgan train configs/robust_disentangling_figures32.py --workdir runs/robust_disentangling_figures32
            Ablations: the options that configs/robust_disentangling_figures.py lists.
Hardware:   2 CPU cores.
Expected:   after 3000 steps results that stand where the pose image stands, in the colours of the identity image.
Measured:   339 CPU-seconds (one core of a shared EPYC). On 500 swaps of the split 'test': MSE on [-1, 1] 0.043 (within one clip 0.042, the
            mean image 0.085). Read from the pose code: the place with R2 0.96; the hue with 0.56 from its mean and 0.15 as drawn in
            training (chance 0.13). A fresh estimator finds 1.35 nats in the means and 0.18 in drawn codes (some of it
            is that frames of a clip stand near each other), where the two classifiers read 0.02.
            With --model.lr 6e-4 --model.steps 2000 --run.kimg 32 and seeds 0, 1, 2: MSE 0.041, 0.057, 0.041; multiplier alone 0.039, 0.048,
            0.041; bottleneck alone with gamma 7.5 0.041, 0.049, 0.049. With 10,000 steps and --run.kimg 160 (17 CPU-minutes): MSE 0.037 and
            heading 73 degrees off; from --model.gamma 0.05 0.030 and 37, multiplier alone 0.027 and 10, bottleneck alone 0.038 and 80.
            On the plain ground: MSE 0.044 of swaps and 0.025 within one clip, because halves of the hues had opposite signs.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.nets.disentangling import SIZES
from jaxgan.systems.robust_disentangling import Config


def config() -> Experiment:
    return Experiment(
        model=Config(**SIZES["tiny"]._asdict(), pairs="group", warmup=200, steps=3000),
        data=Data(source="figures", ground="dark"),
        run=Run(batch=16, kimg=48.0, save_every=500, sample_every=500, samples=8),
    )


def tiny() -> Experiment:
    small = {"side": 16, "widths": (4, 8, 8), "code": 4, "estimator": 8, "blocks": 1}
    return Experiment(
        model=dataclasses.replace(config().model, **small, pairs="clip", warmup=4, steps=10),
        data=Data(source="figures", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
