"""A progressive GAN on drawn scenes, grown from 8 to 32 px, small: the generator that layer inversion is shown on; nothing to download.

Reproduces: nothing published; it shows growing with WGAN-GP, and it is what the encoders of `layer_inversion_*.py` start from.
Command:    jaxgan train configs/progan_scenes.py --workdir runs/progan_scenes
            and one that never saw a boat: --data.without boat --workdir runs/progan_scenes_without_boat
Hardware:   1 CPU core.
Expected:   about ten minutes on one core, of which one compiles the five stages; skies, suns, clouds, grass, water, houses and nights.
Measured:   495 s for all 80 kimg (479 CPU-seconds, one core of a shared Xeon), 5.9 s/kimg at 32 px. Skies by day and night, suns, clouds,
            grass, water and roofs can be told; trees and houses are smeared, people, cars and signs are not to be told.

Chosen for a short run, away from the published recipe: narrow networks, 6 to 12 kimg in place of 800 for each part of the growing,
minibatches of 8 (more updates in the same time than 16) in groups of 4, twice its learning rate, and an average with a shorter memory.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.progan import Config


def config() -> Experiment:
    return Experiment(
        model=Config(
            sizes=(64, 64, 48, 24, 12),
            start=8,
            train_kimg=6.0,
            fade_kimg=12.0,
            rates=((4, 0.002),),
            batches=((4, 8),),
            group=4,
            ema=2.0,
        ),
        data=Data(source="scenes", count=20_000),
        run=Run(batch=8, kimg=80.0, save_every=2000, sample_every=2000),
    )


def tiny() -> Experiment:
    model = dataclasses.replace(config().model, sizes=(8, 8, 8, 4), train_kimg=0.04, fade_kimg=0.04, batches=((4, 8),))
    return Experiment(
        model=model,
        data=Data(source="scenes", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
