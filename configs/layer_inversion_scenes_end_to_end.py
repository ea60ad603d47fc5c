"""The same encoders as in layer_inversion_scenes.py without their layers' stages: trained end to end, the baseline b of the paper's table.

Reproduces: nothing published. The paper compares with such an encoder (section 3.2); its loss here is what the joint stage has of z and x.
Command:    jaxgan train configs/layer_inversion_scenes_end_to_end.py --workdir runs/layer_inversion_scenes_end_to_end
Hardware:   1 CPU core.
Expected:   as long as all stages of layer_inversion_scenes.py together.
Measured:   349 s (348 CPU-seconds, one core of a shared Xeon). At the end: cosine error of z 0.62, mean square of the pixels 0.073.
"""

import dataclasses

from jaxgan.configure import Experiment, Run
from jaxgan.systems.layer_inversion import Config

STEPS = 1800


def config() -> Experiment:
    return Experiment(
        model=Config(
            generator="runs/progan_scenes",
            stages=("joint",),
            steps=(STEPS,),
            batch=16,
            rates=(2e-3,),
            milestones=(0.6, 0.85),
            factor=0.3,
            estimate=(),
            recover=("z", "x"),
            widths=(16, 24, 48, 64),
        ),
        run=Run(batch=16, kimg=16 * STEPS / 1000, save_every=500, sample_every=500),
    )


def tiny() -> Experiment:
    small = dict(generator="untrained:6-6-6-4", steps=(4,), batch=8, widths=(4, 4, 4, 4))
    return Experiment(
        model=dataclasses.replace(config().model, **small),
        run=Run(batch=8, kimg=0.032, log_every=2, save_every=4, sample_every=4, samples=4),
    )
