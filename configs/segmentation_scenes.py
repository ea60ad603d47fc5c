"""A U-Net that labels drawn scenes at 32x32: the segmenter of the measurements on generated scenes; nothing to download.

Reproduces: nothing published; the classes are those of `scenes`, five of them small and rare.
Command:    jaxgan train configs/segmentation_scenes.py --workdir runs/scenes_segmenter
            jaxgan segment runs/scenes_segmenter --data scenes:32 --split test --n 500 --out runs/scenes_segmenter/test
Hardware:   2 CPU cores.
Expected:   minutes; large classes above 0.9 intersection over union, the rare ones well above 0.
Measured:   mean IoU 0.838 on 500 scenes of the test split, 98.1 % of the pixels right; person 0.48, sign 0.26, fence 0.58.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.data.scenes import CLASSES
from jaxgan.systems.segmentation import Config


def config() -> Experiment:
    return Experiment(
        model=Config(classes=CLASSES, size=(32, 32), width=16, depth=3, lr=3e-3, steps=3000, warmup=100, ema=2.0),
        data=Data(source="scenes", count=10_000),
        run=Run(batch=16, kimg=48.0, save_every=1000, sample_every=500),
    )


def tiny() -> Experiment:
    return Experiment(
        model=dataclasses.replace(config().model, size=(16, 16), width=4, depth=2, steps=10, warmup=2),
        data=Data(source="scenes", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
