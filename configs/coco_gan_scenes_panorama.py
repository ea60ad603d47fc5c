"""COCO-GAN panoramas on drawn, horizontally periodic scenes at 32x64: the cylindrical coordinates, with nothing to download.

Reproduces: nothing published; the seam where the edges meet is to be no worse than the inner seams.
Command:    jaxgan train configs/coco_gan_scenes_panorama.py --workdir runs/panorama
Hardware:   2 CPU cores.
Measured:   seam statistic 2.14 on 64 images, 2.32 where the edges meet; the seven inner columns have 1.98 to 2.38. With a coordinate error
            of full weight, 48 kimg and no annealing: 2.03 and 2.92, the inner columns 1.54 to 2.56.

The short-run settings of coco_gan_scenes.py, with one more change: reals are rolled by a random shift, so that their horizontal coordinate
cannot be learnt, and a coordinate error of full weight makes the generator paint positions instead; it has a fiftieth of it here.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.systems.coco_gan import Config


def config() -> Experiment:
    return Experiment(
        model=Config(
            full=(32, 64),
            macro=(16, 16),
            micro=(8, 8),
            latent=32,
            g_width=8,
            d_width=8,
            coordinates="cylindrical",
            cbn_norm="std",
            gp_mode="textbook",
            spatial_weight=0.02,
            g_lr=1e-3,
            d_lr=2e-3,
            anneal=(2000, 3000),
            ema=2.0,
        ),
        data=Data(source="scenes", periodic=True, count=10_000),
        run=Run(batch=16, kimg=48.0, save_every=1000, sample_every=500),
    )


def tiny() -> Experiment:
    model = dataclasses.replace(config().model, full=(16, 32), macro=(8, 8), micro=(4, 4), latent=8, g_width=4, d_width=4, aux_width=8)
    return Experiment(
        model=model,
        data=Data(source="scenes", periodic=True, count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
