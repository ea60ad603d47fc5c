"""COCO-GAN on drawn scenes at 32x32, N2M2S16, small: the main job of the README, with nothing to download.

Reproduces: nothing published; it shows that images made by parts become whole ones (sky, ground, objects) on two CPU cores.
Command:    jaxgan train configs/coco_gan_scenes.py --workdir runs/scenes
Hardware:   2 CPU cores.
Expected:   sky, ground and objects that a person recognises, in at most 15 minutes with the installation.
Measured:   seam statistic 1.74 on 64 images (500 drawn scenes: 1.18), 817 s with the installation on two cores; sky, ground, water, sun,
            houses, roads and nights can be told.

Chosen for a short run, away from the published code's settings: narrow networks and few latents, ten times its learning rates, which
fall to 0 over the last 64 kimg, the textbook forms of conditional batch norm and gradient penalty, and an averaged generator for sampling.
The textbook penalty bounds the critic's coordinate term, so the coordinate error needs a hundredth of the published weight beside it; at
100 the generator paints coordinates as colours. More steps of narrow networks served better than fewer of wide ones: generator and critic
of width 16 had 1.94 after 64 kimg and 12 minutes of training.
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
            spatial_weight=1.0,
            g_lr=1e-3,
            d_lr=2e-3,
            anneal=(6000, 10_000),
            ema=2.0,
        ),
        data=Data(source="scenes", count=20_000),
        run=Run(batch=16, kimg=160.0, save_every=1000, sample_every=1000),
    )


def tiny() -> Experiment:
    model = dataclasses.replace(config().model, full=(16, 16), macro=(8, 8), micro=(4, 4), latent=8, g_width=4, d_width=4, aux_width=8)
    return Experiment(
        model=model,
        data=Data(source="scenes", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
