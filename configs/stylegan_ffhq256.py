"""StyleGAN on FFHQ at 256x256, row F of table 1 (Karras et al., CVPR 2019, arXiv:1812.04948).

Reproduces: the published recipe for eight devices at a quarter of its resolution; 256 px are reached after 6000 kimg.
Prepare:    `jaxgan data import` of the 70,000 aligned images, --size 256 --crop none, into imported/ffhq256.
Command:    jaxgan train configs/stylegan_ffhq256.py --workdir runs/stylegan_ffhq256
Hardware:   published wall time at 256 px: 3 d 8 h on 8 V100, 4 d 21 h on 4, 9 d 5 h on 2, 14 d 22 h on 1. For 4, 2 or 1
            devices set batches=BATCHES[devices] (jaxgan.systems.stylegan_schedule) and run.batch to 16, 8 or 8.
Measured:   not measured with this code.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.stylegan import Config


def config() -> Experiment:
    return Experiment(
        model=Config(resolution=256),
        data=Data(source="imported/ffhq256", workers=4),
        run=Run(batch=32, kimg=25_000.0, save_every=5000, sample_every=5000),
    )


def tiny() -> Experiment:
    small = dict(resolution=16, fmap_base=64, fmap_max=8, latent_size=8, w_size=8, mapping_width=8, mapping_layers=2)
    model = dataclasses.replace(config().model, **small, start=8, train_kimg=0.04, fade_kimg=0.04, batches=((4, 8),))
    return Experiment(
        model=model,
        data=Data(source="scenes", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
