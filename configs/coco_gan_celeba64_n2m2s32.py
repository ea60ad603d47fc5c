"""COCO-GAN on CelebA at 64x64, N2M2S32 (Lin et al., ICCV 2019, arXiv:1904.00284).

Reproduces: N2M2S32: micro patches of 16 px, macro patches of 32 px, batch 64;
            aligned photographs cut to rows 50:178, columns 25:153, resized bilinearly.
            A user of the original code reported just under 24 hours for 50 epochs on a Titan Xp.
Prepare:    pip install -e '.[tfds]', then once
            python -c "import tensorflow_datasets as tfds; tfds.builder('celeb_a', file_format='array_record').download_and_prepare()"
Command:    jaxgan train configs/coco_gan_celeba64_n2m2s32.py --workdir runs/celeba64_n2m2s32
Hardware:   one accelerator, or any number that divides the batch; --model.dtype bfloat16 where it is the faster type.
Expected:   FID 4.00 (published, 50,000 images; not measured here).
Measured:   not measured with this code.

The authors set no end; the length here is 50 epochs of 152,599 images.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.coco_gan import Config


def config() -> Experiment:
    return Experiment(
        model=Config(full=(64, 64), macro=(32, 32), micro=(16, 16)),
        data=Data(source="tfds:celeb_a", crop="celeba", filter="bilinear"),
        run=Run(batch=64, kimg=7630.0, save_every=2000, sample_every=2000),
    )


def tiny() -> Experiment:
    model = dataclasses.replace(config().model, full=(16, 16), macro=(8, 8), micro=(4, 4), latent=8, g_width=4, d_width=4, aux_width=8)
    return Experiment(
        model=model,
        data=Data(source="scenes", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
