"""StyleGAN on drawn scenes, grown from 8 to 32 px, small: the whole recipe on one CPU core, with nothing to download.

Reproduces: nothing published; it shows that growing, styles and R1 work together.
Command:    jaxgan train configs/stylegan_scenes.py --workdir runs/stylegan_scenes
Hardware:   1 CPU core.
Measured:   39 minutes on one core, of which two and a half compile the five stages; 5.6 s/kimg at 32 px. In a grid of 16, sky, clouds, sun,
            grass, trees, houses, roads with their marks, water, sunsets and nights can be told.

Chosen for a short run, away from the published recipe: narrow networks, 20 kimg in place of 600 for each part of the growing, minibatches
of 16 throughout, three times its learning rate, a tenth of its R1 weight (there are 32 x 32 in place of 1024 x 1024 pixels), and an
average with a shorter memory.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.stylegan import Config


def config() -> Experiment:
    return Experiment(
        model=Config(
            resolution=32,
            fmap_base=128,
            fmap_max=64,
            latent_size=32,
            w_size=32,
            mapping_width=32,
            mapping_layers=4,
            start=8,
            train_kimg=20.0,
            fade_kimg=20.0,
            rates=((4, 0.003),),
            batches=((4, 16),),
            r1_weight=1.0,
            ema=3.0,
        ),
        data=Data(source="scenes", count=20_000),
        run=Run(batch=16, kimg=420.0, save_every=2000, sample_every=2000),
    )


def tiny() -> Experiment:
    small = dict(resolution=16, fmap_base=64, fmap_max=8, latent_size=8, w_size=8, mapping_width=8, mapping_layers=2)
    model = dataclasses.replace(config().model, **small, start=8, train_kimg=0.04, fade_kimg=0.04, batches=((4, 8),))
    return Experiment(
        model=model,
        data=Data(source="scenes", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
