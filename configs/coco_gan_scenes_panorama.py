"""COCO-GAN panoramas on drawn, horizontally periodic scenes at 64x128: the cylindrical coordinates, with nothing to download.

Reproduces: nothing published; the wrap seam is to be no worse than the inner seams.
Command:    jaxgan train configs/coco_gan_scenes_panorama.py --workdir runs/panorama
Hardware:   2 CPU cores.
Measured:   not yet.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.coco_gan import Config


def config() -> Experiment:
    return Experiment(
        model=Config(full=(64, 128), macro=(32, 32), micro=(16, 16), g_width=16, d_width=16, coordinates="cylindrical"),
        data=Data(source="scenes", periodic=True),
        run=Run(batch=16, kimg=32.0, save_every=500, sample_every=500),
    )


def tiny() -> Experiment:
    model = dataclasses.replace(config().model, full=(16, 32), macro=(8, 8), micro=(4, 4), latent=8, g_width=4, d_width=4, aux_width=8)
    return Experiment(
        model=model,
        data=Data(source="scenes", periodic=True, count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
