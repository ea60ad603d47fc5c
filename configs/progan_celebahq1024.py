"""A progressive GAN on CelebA-HQ at 1024x1024 (Karras et al., ICLR 2018, arXiv:1710.10196).

Reproduces: the recipe of the paper's appendix A.1 for one device: grown from 4 px, 800 + 800 kimg for each doubling.
Prepare:    `jaxgan data import` of the 30,000 images, --size 1024 --crop none, into imported/celebahq1024.
Command:    jaxgan train configs/progan_celebahq1024.py --workdir runs/progan_celebahq1024
Hardware:   one accelerator: its minibatches of 16, 14, 6 and 3 do not divide over several. For eight set batches=BATCHES[8]
            (jaxgan.systems.stylegan_schedule), group=4 and run.batch to 32.
Measured:   not measured with this code: a template that was never run.

The fade to 1024 px ends after 12,800 kimg; the length is a choice of ours. Images are read at 1024 px at every stage and reduced on the
host, so the first stages are bound by decoding.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.progan import Config


def config() -> Experiment:
    return Experiment(
        model=Config(),
        data=Data(source="imported/celebahq1024", workers=8),
        run=Run(batch=3, kimg=19_000.0, save_every=10_000, sample_every=10_000),
    )


def tiny() -> Experiment:
    model = dataclasses.replace(config().model, sizes=(8, 8, 8, 4), start=8, train_kimg=0.04, fade_kimg=0.04, batches=((4, 8),), group=4)
    return Experiment(
        model=model,
        data=Data(source="scenes", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
