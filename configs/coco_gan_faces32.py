"""COCO-GAN on a folder of face photographs at 32x32, N2M2S16, width 16: a real set on two CPU cores.

Reproduces: nothing published; it is the way of a user with a folder of photographs.
Prepare:    jaxgan data import FOLDER imported/faces32 --size 32
Command:    jaxgan train configs/coco_gan_faces32.py --workdir runs/faces32
Hardware:   2 CPU cores; 4,125 steps.
Measured:   seam statistic 1.10 on 64 images of 5,200 photographs of LFW; grids over time in the README.

The short-run settings of coco_gan_scenes.py, at width 16.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.coco_gan import Config


def config() -> Experiment:
    return Experiment(
        model=Config(
            full=(32, 32),
            macro=(16, 16),
            micro=(8, 8),
            latent=64,
            g_width=16,
            d_width=16,
            cbn_norm="std",
            gp_mode="textbook",
            spatial_weight=1.0,
            g_lr=1e-3,
            d_lr=2e-3,
            ema=2.0,
        ),
        data=Data(source="imported/faces32"),
        run=Run(batch=16, kimg=66.0, save_every=500, sample_every=500),
    )


def tiny() -> Experiment:
    model = dataclasses.replace(config().model, full=(16, 16), macro=(8, 8), micro=(4, 4), latent=8, g_width=4, d_width=4, aux_width=8)
    return Experiment(
        model=model,
        data=Data(source="scenes", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
