"""COCO-GAN on LSUN bedrooms at 64x64, N2M2S32 (Lin et al., ICCV 2019, arXiv:1904.00284).

Reproduces: N2M2S32: micro patches of 16 px, macro patches of 32 px, batch 128; whole images resized, aspect not kept.
Prepare:    pip install -e '.[tfds]', then once
            python -c "import tensorflow_datasets as tfds; tfds.builder('lsun/bedroom', file_format='array_record').download_and_prepare()"
Command:    jaxgan train configs/coco_gan_lsun64_n2m2s32.py --workdir runs/lsun64_n2m2s32
Hardware:   one accelerator, or any number that divides the batch; --model.dtype bfloat16 where it is the faster type.
Expected:   no published figure is quoted: none could be confirmed.
Measured:   not measured with this code.

The authors set no end; the length here is 4 epochs of 2,983,042 images. Their resize filter is not recorded: bilinear is our choice.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.coco_gan import Config


def config() -> Experiment:
    return Experiment(
        model=Config(full=(64, 64), macro=(32, 32), micro=(16, 16)),
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
