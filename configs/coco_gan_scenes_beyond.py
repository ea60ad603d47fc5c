"""COCO-GAN beyond the border on drawn scenes: post-training of a finished coco_gan_scenes run, with nothing to download.

Reproduces: nothing published; it shows the post-training of COCO-GAN's section on extrapolation on a small scale.
Command:    jaxgan train configs/coco_gan_scenes_beyond.py --workdir runs/beyond --run.start runs/scenes
            jaxgan sample runs/beyond --out runs/beyond/larger.png --beyond 1 1
Hardware:   2 CPU cores.
Measured:   whole images of 48x48, seam statistic 2.23 on 64 (their inner 32x32 alone: 1.98, before post-training 1.74). Sky and ground go
            on past the borders; the outer patches of objects are poor, left ones repeat suns, right ones white spots.

The networks are those of coco_gan_scenes.py; fakes are drawn one micro patch past the borders too, the coordinate error weighs a hundred
times what it did in training, as in the published configuration, and the learning rates are the published ones: the generator only adapts.
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
            latent=32,
            g_width=8,
            d_width=8,
            cbn_norm="std",
            gp_mode="textbook",
            ema=2.0,
            extrapolate=1,
            spatial_weight=100.0,
        ),
        data=Data(source="scenes", count=20_000),
        run=Run(batch=16, kimg=16.0, save_every=500, sample_every=250),
    )


def tiny() -> Experiment:
    model = dataclasses.replace(config().model, full=(16, 16), macro=(8, 8), micro=(4, 4), latent=8, g_width=4, d_width=4, aux_width=8)
    return Experiment(
        model=model,
        data=Data(source="scenes", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
