"""Identity from here, pose from there on drawn figures at 32x32, size 'tiny': to be watched on two CPU cores; nothing to download.

Reproduces: the mechanism of Xiao, Liu, Lee (ICCV 2019), as configs/identity_pose_figures.py; no published number is claimed.
Command:    jaxgan train configs/identity_pose_figures32.py --workdir runs/identity_pose_figures32
Hardware:   2 CPU cores.
Expected:   after 1200 of 2400 steps results that stand where the pose image stands, in the colours of the identity image.
Measured:   2638 CPU-seconds (one core of a shared EPYC, 55 minutes beside other work; 90 s of them compile the step). On 2,000 swaps of the
            split 'test': PSNR 20.0 dB (mean image 19.4), hue of the identity in 97 of 100, place 0.85 px off, copy rates 0.03 and 0.06;
            shape, accent, heading and arm are still near chance. The hue is read from the pose code with 0.16 (chance 0.13), the pattern
            with 0.51 (0.39). The averaged networks held 9 % of their random beginning in that run (the average is quicker since): on 256
            swaps they drew the pattern of the identity in 48 of 100, the networks as they stood at the end in 81.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.data.triplets import Triplets
from jaxgan.systems.identity_pose import sized


def config() -> Experiment:
    return Experiment(
        model=sized("tiny", triplets=Triplets(features="oracle"), steps=2400, pv_ramp=(80, 240)),
        data=Data(source="figures"),
        run=Run(batch=8, kimg=19.2, log_every=25, save_every=200, sample_every=200, samples=8),
    )


def tiny() -> Experiment:
    small = {"widths": (4, 8, 8), "identity": 8, "tokens": 8, "read": 8, "judge": (4, 8, 8), "embedding": (4, 8)}
    return Experiment(
        model=dataclasses.replace(config().model, **small, steps=10, pv_ramp=(0, 5)),
        data=Data(source="figures", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
