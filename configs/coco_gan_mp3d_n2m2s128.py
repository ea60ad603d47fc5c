"""COCO-GAN panoramas on Matterport3D at 256x768, N2M2S128, cylindrical (Lin et al., ICCV 2019, arXiv:1904.00284).

Reproduces: micro patches of 64 px, macro patches of 128 px, batch 128; the horizontal axis is periodic.
Prepare:    equirectangular 768x384 images, 64 rows cut at the top and at the bottom;
            then `jaxgan data import FOLDER imported/matterport3d --size 256 768 --crop none`.
Command:    jaxgan train configs/coco_gan_mp3d_n2m2s128.py --workdir runs/mp3d_n2m2s128
Hardware:   one accelerator, or any number that divides the batch; --model.dtype bfloat16 where it is the faster type.
Expected:   no published figure is quoted: none could be confirmed.
Measured:   not measured with this code.

The authors set no end; the length here is 500 epochs of 10,912 images.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.coco_gan import Config


def config() -> Experiment:
    return Experiment(
        model=Config(full=(256, 768), macro=(128, 128), micro=(64, 64), coordinates="cylindrical"),
        data=Data(source="imported/matterport3d"),
        run=Run(batch=128, kimg=5456.0, save_every=2000, sample_every=2000),
    )


def tiny() -> Experiment:
    model = dataclasses.replace(config().model, full=(16, 48), macro=(8, 8), micro=(4, 4), latent=8, g_width=4, d_width=4, aux_width=8)
    return Experiment(
        model=model,
        data=Data(source="scenes", periodic=True, count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
