"""A progressive GAN on LSUN bedrooms at 256x256 (Karras et al., ICLR 2018, arXiv:1710.10196).

Reproduces: the recipe of the paper's appendix A.1 for one device, with the sizes of the published 256 px generators: those on which
            layer inversion was published.
Prepare:    pip install -e '.[tfds]', then once
            python -c "import tensorflow_datasets as tfds; tfds.builder('lsun/bedroom', file_format='array_record').download_and_prepare()"
Command:    jaxgan train configs/progan_lsun256.py --workdir runs/progan_lsun256
Hardware:   one accelerator: its minibatches of 16, and 14 at 256 px, do not divide over several. For eight set batches=BATCHES[8]
            (jaxgan.systems.stylegan_schedule), group=4 and run.batch to 32.
Measured:   not measured with this code: a template that was never run.

The fade to 256 px ends after 9,600 kimg; the length is a choice of ours.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.nets.progan import PRESETS
from jaxgan.systems.progan import Config


def config() -> Experiment:
    return Experiment(
        model=Config(sizes=PRESETS[256], mirror=False),
        data=Data(source="tfds:lsun/bedroom", workers=4),
        run=Run(batch=14, kimg=12_000.0, save_every=5000, sample_every=5000),
    )


def tiny() -> Experiment:
    model = dataclasses.replace(config().model, sizes=(8, 8, 8, 4), start=8, train_kimg=0.04, fade_kimg=0.04, batches=((4, 8),), group=4)
    return Experiment(
        model=model,
        data=Data(source="scenes", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
