"""A progressive GAN on drawn scenes, grown from 4 to 32 px, small: the generator that layer inversion is shown on; nothing to download.

Reproduces: nothing published; it shows growing with WGAN-GP, and it is what `jaxgan invert` and its encoders start from.
Command:    jaxgan train configs/progan_scenes.py --workdir runs/progan_scenes
            Without boats in its training data: ... --data.without boat --workdir runs/progan_scenes_without_boat
Hardware:   1 CPU core.
Measured:   not measured yet.

Chosen for a short run, away from the published recipe: narrow networks, minutes at each side in place of 800 kimg, minibatches of 16 and
groups of 4 throughout, twice its learning rate, and an average with a shorter memory.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.progan import Config


def config() -> Experiment:
    return Experiment(
        model=Config(
            sizes=(64, 64, 64, 48, 32),
            start=8,
            train_kimg=10.0,
            fade_kimg=10.0,
            rates=((4, 0.002),),
            batches=((4, 16),),
            group=4,
            ema=3.0,
        ),
        data=Data(source="scenes", count=20_000),
        run=Run(batch=16, kimg=150.0, save_every=1000, sample_every=1000),
    )


def tiny() -> Experiment:
    model = dataclasses.replace(config().model, sizes=(8, 8, 8, 4), train_kimg=0.04, fade_kimg=0.04, batches=((4, 8),))
    return Experiment(
        model=model,
        data=Data(source="scenes", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
