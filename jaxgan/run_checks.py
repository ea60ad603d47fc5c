"""What a run refuses: settings that cannot work, a workdir of another run, numbers that are not finite."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
from etils import epath

from jaxgan import checkpoint, configure
from jaxgan.system import State, System, leaf_names

MAY_CHANGE = frozenset(
    {
        *("run.kimg", "run.log_every", "run.save_every", "run.sample_every", "run.samples", "run.keep", "run.mesh", "data.root"),
        *("run.probes", "run.probe_every", "run.probe_images", "run.probe_segmenter"),
    }
)
"""Fields that may differ when a run is resumed: they change how long, how often and where, never what a step computes."""


def check_run(run: configure.Run) -> None:
    """Raises ValueError for a number out of range."""
    counts = {"log_every": 0, "save_every": 0, "sample_every": 0, "samples": 0, "keep": 1, "seed": 0, "probe_every": 0, "probe_images": 1}
    for name, least in {"batch": 1, **counts}.items():
        if getattr(run, name) < least:
            raise ValueError(f"run.{name} = {getattr(run, name)}: give at least {least}")
    if not (run.kimg > 0 and np.isfinite(run.kimg)):
        raise ValueError(f"run.kimg = {run.kimg}: give a number above 0")


def check_config(experiment: configure.Experiment, workdir: epath.Path, saved: checkpoint.Checkpoints) -> list[str]:
    """Compares with the workdir's own configuration; the sentences say which fields changed and may."""
    path = workdir / "config.json"
    if not path.exists():
        if saved.steps():
            raise ValueError(f"{workdir} has checkpoints but no config.json, so what they belong to cannot be told: choose a new workdir")
        return []
    changed = configure.differences(configure.read(path), experiment)
    refused = [entry for entry in changed if entry[0] not in MAY_CHANGE]
    if refused:
        listed = "; ".join(f"{name} is {there!r} there and {here!r} here" for name, there, here in refused)
        raise ValueError(f"{workdir} holds another run: {listed}. Continue it with its own settings, or choose a new workdir")
    return [f"{name} was {there!r} and is {here!r} from now on." for name, there, here in changed]


def check_schedule(falls: int, begun: int, steps: int) -> list[str]:
    """What to say where the learning rates fall to 0 (``System.falls``) over other steps than the run has.

    Raises:
      ValueError: a run that would go on with rates of 0.
    """
    if not falls or falls == steps:
        return []
    if steps > begun >= falls:
        raise ValueError(
            f"the learning rates have fallen to 0 at step {falls:,} (model.steps), and this run stands at {begun:,}: nothing would move. "
            "Begin another run from its networks: --workdir ANOTHER --run.start THIS_ONE, with model.steps as many as it has"
        )
    return [f"model.steps is {falls:,}, over which the learning rates fall to 0, and the run has {steps:,} steps."]


def check_finite(waiting: list[tuple[int, Mapping[str, jax.Array]]], state: State, system: System, saved: checkpoint.Checkpoints) -> None:
    """Raises where a loss or a gradient of the steps since the last check was not finite; empties the list."""
    vectors = jax.device_get([finite for _, finite in waiting])
    for (step, _), finite in zip(waiting, vectors, strict=True):
        for player, vector in finite.items():
            bad = np.flatnonzero(~np.asarray(vector, bool))
            if bad.size:
                names = leaf_names(state.params, system.owns[player])
                what = ["the loss" if names[i] == "loss" else f"the gradient of {names[i]}" for i in bad[:3]]
                more = f" and {bad.size - 3} more" if bad.size > 3 else ""
                saved.wait()
                kept = f"the last checkpoint, step {saved.steps()[-1]}, is from before it" if saved.steps() else "nothing was saved"
                raise FloatingPointError(
                    f"step {step}, player {player}: {', '.join(what)}{more} is not finite. The run stopped; {kept}. "
                    "Lower the learning rate, compute in float32, or look at that step's data"
                )
    waiting.clear()
