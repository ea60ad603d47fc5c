"""Identity from here, pose from there on sprites at 64x64: characters of four attributes, every action seen from three sides.

Reproduces: the mechanism of Xiao, Liu, Lee (ICCV 2019), as configs/identity_pose_figures.py; no published number is claimed.
Command:    jaxgan train configs/identity_pose_sprites.py --workdir runs/identity_pose_sprites --data.source sprites:FOLDER
            FOLDER holds sprites_components.npz and sprites_split.npz.
Hardware:   one GPU.
Expected:   results that wear what the identity image wears, in the action, direction and phase of the pose image.
Measured:   not run yet.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.data.triplets import Triplets
from jaxgan.systems.identity_pose import sized


def config() -> Experiment:
    return Experiment(
        model=sized("base", triplets=Triplets(features="hog", gap_min=1)),
        data=Data(source="sprites:data/sprites"),
        run=Run(batch=32, kimg=1920.0, save_every=2000, sample_every=2000),
    )


def tiny() -> Experiment:
    small = {"side": 32, "widths": (4, 8, 8), "identity": 8, "tokens": 8, "read": 8, "judge": (4, 8, 8), "embedding": (4, 8)}
    return Experiment(
        model=dataclasses.replace(config().model, **small, steps=10, pv_ramp=(0, 5)),
        data=Data(source="figures", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
