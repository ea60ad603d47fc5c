"""Encoders of a progressive GAN of drawn scenes: all stages in one run, small, on one CPU core, with nothing to download.

Reproduces: nothing published; it goes through the published stages: layers 1 to 4, the image encoder, and all of them together.
Command:    jaxgan train configs/progan_scenes.py --workdir runs/progan_scenes
            jaxgan train configs/layer_inversion_scenes.py --workdir runs/layer_inversion_scenes
            Another generator: ... --model.generator FOLDER. Single stages, on several machines and then joined: with --model.stages layer3
            --model.steps 1500 --model.rates 0.002 --run.kimg 24 each, and at the end --model.stages joint --model.start DIR1 DIR2 ...
Hardware:   1 CPU core.
Expected:   seven to twelve minutes, most of them for the image encoder and the joint training.
Measured:   387 s (385 CPU-seconds, one core of a shared Xeon). At the end, on fresh images of the generator: cosine error of the target
            activation 0.060, of z once generated again 0.52, mean square of the pixels in [-1, 1] 0.068.

Chosen for a short run, away from the published recipe: about a thousand steps in place of 10,000 and 100,000, higher rates, batches of
16, and an image encoder of narrow stages.
"""

import dataclasses

from jaxgan.configure import Experiment, Run
from jaxgan.systems.layer_inversion import Config

STEPS = (1500, 1500, 1500, 1500, 900, 800)


def config() -> Experiment:
    return Experiment(
        model=Config(
            generator="runs/progan_scenes",
            stages=("layer1", "layer2", "layer3", "layer4", "image", "joint"),
            steps=STEPS,
            batch=16,
            rates=(2e-3, 2e-3, 2e-3, 2e-3, 2e-3, 5e-4),
            milestones=(0.6, 0.85),
            factor=0.3,
            widths=(16, 24, 48, 64),
        ),
        run=Run(batch=16, kimg=16 * sum(STEPS) / 1000, save_every=500, sample_every=500),
    )


def tiny() -> Experiment:
    small = dict(generator="untrained:6-6-6-4", steps=(2,) * 6, batch=8, widths=(4, 4, 4, 4))
    return Experiment(
        model=dataclasses.replace(config().model, **small),
        run=Run(batch=8, kimg=0.096, log_every=2, save_every=5, sample_every=6, samples=4),
    )
