"""Image-synthesis systems as pure functions in JAX. Each name below is imported when it is first used.

Contract: `State`, `Player`, `Probe`, `System` (`jaxgan.system`); `jaxgan.play` turns players into a step.
Systems:  `jaxgan.systems.coco_gan` (Lin et al., ICCV 2019, arXiv:1904.00284), `jaxgan.systems.seeing` (Bau et al., ICCV 2019,
          arXiv:1910.11626, segmentation statistics), `jaxgan.systems.segmentation` (U-Nets that label images),
          `jaxgan.systems.identity_pose` (Xiao et al., ICCV 2019), `jaxgan.systems.robust_disentangling` (Esser et al., ICCV 2019,
          arXiv:1910.10223).
Pieces:   `jaxgan.nets`, `jaxgan.losses`, `jaxgan.perceptual`, `jaxgan.coords`, `jaxgan.metrics`, plain functions of arrays;
          `jaxgan.mutual_information` (density ratio, constraint, bottleneck), `jaxgan.nets.pixel_verification`, `jaxgan.retrieval` (pose
          images among the frames of clips); `jaxgan.invert`, the latents of many images at once.
Running:  `jaxgan.train`, `jaxgan.checkpoint`, `jaxgan.parallel`, `jaxgan.data`, `jaxgan.weights`, `jaxgan.generators`, `jaxgan.report`,
          `jaxgan.timing`, `jaxgan.viz`, `jaxgan.doctor`. Experiments are `Experiment(model, data, run)` of `jaxgan.configure`.
Scores:   `jaxgan.sources`, `jaxgan.features`, `jaxgan.scores`, `jaxgan.evaluate`, `jaxgan.probes`, `jaxgan.segmenters`;
          of swaps of identity and pose, `jaxgan.metrics.swap` and `jaxgan.swap_scores`.

Importing this package touches no device, parses no flags and logs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from jaxgan.configure import Data as Data
    from jaxgan.configure import Experiment as Experiment
    from jaxgan.configure import Run as Run
    from jaxgan.system import Player as Player
    from jaxgan.system import Probe as Probe
    from jaxgan.system import State as State
    from jaxgan.system import System as System

_CLASSES = {
    "State": "jaxgan.system",
    "Player": "jaxgan.system",
    "Probe": "jaxgan.system",
    "System": "jaxgan.system",
    "Experiment": "jaxgan.configure",
    "Data": "jaxgan.configure",
    "Run": "jaxgan.configure",
}
_MODULES = (
    "checkpoint configure coords data doctor evaluate features generators invert losses metrics mutual_information nets parallel "
    "perceptual play probes report retrieval scores segmenters sources swap_scores system systems timing train viz weights"
).split()

__all__ = ["__version__", *_CLASSES, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(importlib.import_module(_CLASSES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"jaxgan.{name}")
    raise AttributeError(f"module 'jaxgan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
