"""COCO-GAN on CelebA at 128x128, N16M16S64 (Lin et al., ICCV 2019, arXiv:1904.00284).

Reproduces: N16M16S64: micro patches of 4 px, macro patches of 64 px, batch 64;
            aligned photographs cut to rows 50:178, columns 25:153, resized bilinearly.
            Three generator blocks without resizing stand in for the depth that 4 px patches lack.
Prepare:    pip install -e '.[tfds]', then once
            python -c "import tensorflow_datasets as tfds; tfds.builder('celeb_a', file_format='array_record').download_and_prepare()"
Command:    jaxgan train configs/coco_gan_celeba128_n16m16s64.py --workdir runs/celeba128_n16m16s64
Hardware:   one accelerator, or any number that divides the batch; --model.dtype bfloat16 where it is the faster type.
Expected:   no published figure is quoted: none could be confirmed.
Measured:   not measured with this code.

The authors set no end; the length here is 50 epochs of 152,599 images.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.coco_gan import Config


def config() -> Experiment:
    return Experiment(
        model=Config(full=(128, 128), macro=(64, 64), micro=(4, 4), g_extra_blocks=3),
        data=Data(source="tfds:celeb_a", crop="celeba", filter="bilinear"),
        run=Run(batch=64, kimg=7630.0, save_every=2000, sample_every=2000),
    )


def tiny() -> Experiment:
    model = dataclasses.replace(config().model, full=(128, 128), macro=(64, 64), micro=(4, 4), latent=8, g_width=4, d_width=4, aux_width=8)
    return Experiment(
        model=model,
        data=Data(source="scenes", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
