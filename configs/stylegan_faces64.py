"""StyleGAN on a folder of face photographs at 64x64, grown from 8 px, a quarter of the published width: a short run on one accelerator.

Reproduces: nothing published; it is the way of a user with some thousand photographs (LFW) and one GPU.
Prepare:    jaxgan data import FOLDER imported/faces64 --size 64
Command:    jaxgan train configs/stylegan_faces64.py --workdir runs/stylegan_faces64
Hardware:   one GPU. The length is chosen for about 20 minutes at 700 images/s, estimated from the 24 GFLOP that
            a step takes for each sample at 64 px.
Measured:   not measured.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.stylegan import Config


def config() -> Experiment:
    return Experiment(
        model=Config(
            resolution=64,
            fmap_base=2048,
            fmap_max=256,
            latent_size=256,
            w_size=256,
            mapping_width=256,
            train_kimg=40.0,
            fade_kimg=40.0,
            rates=((4, 0.002),),
            batches=((4, 64),),
            r1_weight=2.0,
        ),
        data=Data(source="imported/faces64"),
        run=Run(batch=64, kimg=800.0, save_every=1000, sample_every=500),
    )


def tiny() -> Experiment:
    small = dict(resolution=16, fmap_base=64, fmap_max=8, latent_size=8, w_size=8, mapping_width=8, mapping_layers=2)
    model = dataclasses.replace(config().model, **small, start=8, train_kimg=0.04, fade_kimg=0.04, batches=((4, 8),))
    return Experiment(
        model=model,
        data=Data(source="scenes", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
