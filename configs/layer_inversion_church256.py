"""The published encoders of a progressive GAN of 256 px: all stages in one run, with the published losses, rates and lengths.

Reproduces: "Seeing what a GAN cannot generate" (Bau et al., ICCV 2019), section 3.2: the encoders of layers 1 to 4, the image encoder, and
            their joint training. The published loops never clear their gradients, by oversight; --model.accumulate True does the same.
Command:    jaxgan weights import progan FILE --out generators/church
            jaxgan train configs/layer_inversion_church256.py --workdir runs/layer_inversion_church256
            The bottom-up curriculum: ... --model.stages bottom1 bottom2 bottom3 bottom4 bottom5 --run.kimg 16000
Hardware:   one GPU or TPU.
Measured:   never run: a template.
"""

import dataclasses

from jaxgan.configure import Experiment, Run
from jaxgan.systems.layer_inversion import Config


def config() -> Experiment:
    # 5 stages of 10,000 steps, and 100,000 of joint training
    return Experiment(model=Config(generator="generators/church"), run=Run(batch=32, kimg=4800.0, save_every=5000, sample_every=5000))


def tiny() -> Experiment:
    small = dict(generator="untrained:6-6-6-4", steps=(2,) * 6, batch=8, widths=(4, 4, 4, 4))
    return Experiment(
        model=dataclasses.replace(config().model, **small),
        run=Run(batch=8, kimg=0.096, log_every=2, save_every=5, sample_every=6, samples=4),
    )
