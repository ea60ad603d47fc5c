"""COCO-GAN beyond the border: post-training on LSUN bedrooms at 256x256 (Lin et al., ICCV 2019, arXiv:1904.00284).

Reproduces: one step of coordinates outside [-1, 1] on every side, spatial weight 10,000, from a finished run of coco_gan_lsun256_n2m2s128.
Prepare:    pip install -e '.[tfds]', then once
            python -c "import tensorflow_datasets as tfds; tfds.builder('lsun/bedroom', file_format='array_record').download_and_prepare()"
Command:    jaxgan train configs/coco_gan_lsun256_extrapolation.py --workdir runs/lsun256_extrapolation --run.start runs/lsun256_n2m2s128
Hardware:   one accelerator, or any number that divides the batch; --model.dtype bfloat16 where it is the faster type.
Expected:   no published figure is quoted: none could be confirmed.
Measured:   not measured with this code.

Three to five epochs, chosen by eye (the authors); the length here is 4 epochs of 2,983,042 images. Sampled images have 384x384 pixels.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.coco_gan import Config


def config() -> Experiment:
    return Experiment(
        model=Config(full=(256, 256), macro=(128, 128), micro=(64, 64), spatial_weight=10_000.0, extrapolate=1),
        data=Data(source="tfds:lsun/bedroom", crop="none", filter="bilinear"),
        run=Run(batch=128, kimg=11930.0, save_every=2000, sample_every=2000),
    )


def tiny() -> Experiment:
    model = dataclasses.replace(config().model, full=(16, 16), macro=(8, 8), micro=(4, 4), latent=8, g_width=4, d_width=4, aux_width=8)
    return Experiment(
        model=model,
        data=Data(source="scenes", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
