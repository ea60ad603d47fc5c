"""COCO-GAN on CelebA-HQ at 1024x1024, N2M2S512 (Lin et al., ICCV 2019, arXiv:1904.00284).

Reproduces: N2M2S512: micro patches of 256 px, macro patches of 512 px, batch 20 ("not well tested", say the authors).
Prepare:    `jaxgan data import` of the 30,000 images, --size 1024 --crop none, into imported/celebahq1024.
Command:    jaxgan train configs/coco_gan_celebahq1024_n2m2s512.py --workdir runs/celebahq1024_n2m2s512
Hardware:   20 does not divide over 16 chips: ask
            `jaxgan doctor configs/coco_gan_celebahq1024_n2m2s512.py --topology v5e:4x4 --batch 16` first.
Expected:   FID 9.49 (published, 50,000 images; not measured here).
Measured:   not measured with this code.

The authors set no end; the length here is 200 epochs of 30,000 images.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.coco_gan import Config


def config() -> Experiment:
    return Experiment(
        model=Config(full=(1024, 1024), macro=(512, 512), micro=(256, 256)),
        data=Data(source="imported/celebahq1024"),
        run=Run(batch=20, kimg=6000.0, save_every=2000, sample_every=2000),
    )


def tiny() -> Experiment:
    model = dataclasses.replace(config().model, full=(16, 16), macro=(8, 8), micro=(4, 4), latent=8, g_width=4, d_width=4, aux_width=8)
    return Experiment(
        model=model,
        data=Data(source="scenes", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
