"""A U-Net that labels streets: CamVid (Brostow et al., 2009) at 160x120, 11 classes, imported from a folder of image and label pairs.

Reproduces: no published figure (those are at 480x360 and more, on the test split); scored on the 101 validation images.
Command:    jaxgan data import IMAGES imported/camvid160 --labels LABELS --classes names.txt --void 11 --size 120 160
            jaxgan train configs/segmentation_camvid.py --workdir runs/camvid --data.source imported/camvid160
            jaxgan segment runs/camvid --data imported/camvid160 --split validation --out runs/camvid/validation
            IMAGES and LABELS have the subfolders train and validation; names.txt names the classes below, then void.
Hardware:   2 CPU cores.
Expected:   mean IoU of at least 0.45 in at most 30 minutes of CPU time.
Measured:   mean IoU 0.506, 77.6 % of the pixels right, in 20.5 minutes of CPU time; poles (0.01) and pedestrians (0.07) are nearly lost.

The network works on squares of 2x2 pixels: that spares three quarters of the work at the cost of some detail. A pixel of a rare class
(poles, signs, people) counts up to five times as much as one of a class of median frequency.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.data.scenes import CLASSES as SCENES
from jaxgan.systems.segmentation import Config

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")

# Pixels of each class over those of the training images that hold it, from the import's facts.json.
FREQUENCY = (0.168886, 0.233826, 0.010013, 0.31655, 0.047173, 0.111798, 0.012259, 0.023907, 0.059783, 0.007407, 0.005327)


def config() -> Experiment:
    return Experiment(
        model=Config(
            classes=CLASSES,
            size=(120, 160),
            void=11,
            width=16,
            depth=4,
            patch=2,
            lr=2e-3,
            steps=2000,
            warmup=100,
            weight_decay=1e-2,
            weighting="median",
            frequency=FREQUENCY,
            most_weight=5.0,
            scale=(0.8, 1.6),
            jitter=0.3,
            ema=0.5,
        ),
        data=Data(source="imported/camvid160"),
        run=Run(batch=8, kimg=16.0, log_every=25, save_every=500, sample_every=500),
    )


def tiny() -> Experiment:
    """The same system on scenes, which need no import."""
    model = dataclasses.replace(
        config().model, classes=SCENES, size=(16, 16), width=4, depth=2, steps=10, warmup=2, frequency=(0.05,) * len(SCENES)
    )
    return Experiment(
        model=model,
        data=Data(source="scenes", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
