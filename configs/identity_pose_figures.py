"""Identity from here, pose from there on drawn figures at 64x64, size 'base': nothing to download.

Reproduces: the mechanism of Xiao, Liu, Lee (ICCV 2019): real targets from unlabelled clips, double duty of the codes, pixel verification.
            The paper's layers, weights and training are not known here and were chosen; no published number is claimed.
Command:    jaxgan train configs/identity_pose_figures.py --workdir runs/identity_pose_figures
Hardware:   one GPU; for two CPU cores take configs/identity_pose_figures32.py.
Expected:   rows of identity image, pose image, result and target in which the result has the colours and shape of the first and stands as
            the second; hue of the swap right in 90 of 100, position within 2.5 px, heading within 15 degrees, PSNR 24 dB (targets, to be
            confirmed by a run).
Measured:   not run yet.

Ablations are switches of the model: --model.self_decode False, --model.w_pv 0, --model.hinge False, --model.w_dis 0, --model.w_adv 0,
--model.augment False, --model.reader False, and --model.triplets.features none, rgb, random, hog, encoder or oracle.
"""

import dataclasses

from jaxgan.configure import Data, Experiment, Run
from jaxgan.data.triplets import Triplets
from jaxgan.systems.identity_pose import sized


def config() -> Experiment:
    return Experiment(
        model=sized("base", triplets=Triplets(features="oracle")),
        data=Data(source="figures"),
        run=Run(batch=32, kimg=1920.0, save_every=2000, sample_every=2000),
    )


def tiny() -> Experiment:
    small = {"side": 32, "widths": (4, 8, 8), "identity": 8, "tokens": 8, "read": 8, "judge": (4, 8, 8), "embedding": (4, 8)}
    model = dataclasses.replace(config().model, **small, steps=10, pv_ramp=(0, 5))
    return Experiment(
        model=model,
        data=Data(source="figures", count=64),
        run=Run(batch=8, kimg=0.08, log_every=2, save_every=5, sample_every=5, samples=4),
    )
