"""StyleGAN on FFHQ at 1024x1024, row F of table 1 (Karras et al., CVPR 2019, arXiv:1812.04948).

Reproduces: the published recipe for eight devices: grown from 8 px, 600 + 600 kimg for each doubling, 25,000 kimg in all.
Prepare:    `jaxgan data import` of the 70,000 aligned images, --size 1024 --crop none, into imported/ffhq1024.
Command:    jaxgan train configs/stylegan_ffhq1024.py --workdir runs/stylegan_ffhq1024
Hardware:   published wall time 6 d 14 h on 8 V100, 11 d 8 h on 4, 21 d 22 h on 2, 41 d 4 h on 1. For 4, 2 or 1 devices set
            batches=BATCHES[devices] (jaxgan.systems.stylegan_schedule) and run.batch to 16, 8 or 4.
Expected:   FID 4.4159 (of the published generator, 50,000 images, without truncation; not measured here).
Measured:   not measured with this code.

Images are read at 1024 px at every stage and reduced on the host, so the first stages are bound by decoding: 256 images of 1024 px for a
step at 8 px.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.stylegan import Config


def config() -> Experiment:
    return Experiment(
        model=Config(),
        data=Data(source="imported/ffhq1024", workers=8),
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
