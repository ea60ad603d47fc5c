"""StyleGAN on CelebA-HQ at 256x256 with WGAN-GP (Karras et al., CVPR 2019, arXiv:1812.04948).

Reproduces: the published recipe for eight devices with the loss and the learning rates (at most 0.002) of its CelebA-HQ runs, at a
            quarter of its resolution.
Prepare:    `jaxgan data import` of the 30,000 images, --size 256 --crop none, into imported/celebahq256.
Command:    jaxgan train configs/stylegan_celebahq256.py --workdir runs/stylegan_celebahq256
Hardware:   as stylegan_ffhq256.py.
Measured:   not measured with this code.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.stylegan import Config


def config() -> Experiment:
    return Experiment(
        model=Config(resolution=256, loss="wgan_gp", rates=((4, 0.001), (128, 0.0015), (256, 0.002))),
        data=Data(source="imported/celebahq256", workers=4),
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
