"""Identity from here, pose from there on your own clips at 128x128: a template for real video.

Reproduces: the mechanism of Xiao, Liu, Lee (ICCV 2019), as configs/identity_pose_figures.py; no published number is claimed.
Command:    jaxgan data import VIDEOS FOLDER --clips --size 128 128 --test-share 0.1
            jaxgan train configs/identity_pose_folder.py --workdir runs/identity_pose_folder --data.source FOLDER
            One object in each clip, in the middle. With VGG-16 on this machine (`jaxgan weights import vgg16 FILE`) take
            --model.triplets.features convnet, whose neighbours do not hang on shape as those of gradients do, and --model.perceptual vgg.
            --model.triplets.features encoder begins with gradients and goes over to the run's own pose encoder, every 5,000 steps anew.
Hardware:   one GPU with 40 GB, or several: the batch lies over all of them.
Expected:   what the clips allow: objects of one kind in poses that recur from clip to clip. Without other clips in like poses there is
            nothing to learn from.
Measured:   not run yet.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.data.triplets import Triplets
from jaxgan.systems.identity_pose import sized


def config() -> Experiment:
    return Experiment(
        model=sized("large", triplets=Triplets(features="hog")),
        data=Data(source="data/clips"),
        run=Run(batch=32, kimg=1920.0, save_every=2000, sample_every=2000),
    )


def tiny() -> Experiment:
    small = {"side": 32, "widths": (4, 8, 8), "identity": 8, "tokens": 8, "read": 8, "judge": (4, 8, 8), "embedding": (4, 8)}
    return Experiment(
        model=dataclasses.replace(config().model, **small, steps=10, pv_ramp=(0, 5)),
        data=Data(source="figures", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
