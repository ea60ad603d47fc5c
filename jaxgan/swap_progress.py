"""Swap measures while a run trains: the probe 'swap' of the systems that learn identity and pose, on clips held out from it.

It computes what `jaxgan swap evaluate` computes, of as many pairs drawn by the same seed, as far as that needs no judges.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.swapping import Swapper
from jaxgan.system import Probe, State

SPLIT, SEED = "test", 1
"""What `jaxgan swap evaluate` takes where it is told nothing else."""


def held(size: int) -> Callable[[Any, int], dict[str, np.ndarray]]:
    """``Reads.held`` for a system of this size.

    ``f(data, n) -> {'who', 'how', 'truth': uint8 [n, S, S, 3], 'mask': bool [n, S, S], 'swapped': bool [n]}``: pairs of two clips with the
    drawn truth of the swap where the set can draw it, else two frames of one clip, of which the second is the truth.
    """

    def held(data: Any, n: int) -> dict[str, np.ndarray]:
        from jaxgan import swap_scores
        from jaxgan.data import clips as sets

        remedy = "use a set that has both, or leave run.probe_every 0"
        if data.split == SPLIT:
            raise ValueError(f"data.split = {data.split!r}: the probe 'swap' needs clips that the run does not learn from; {remedy}")
        try:
            clips = sets.open_clips(dataclasses.replace(data, split=SPLIT), (size, size, 3))
            if swap_scores.drawable(clips):
                who, how, truth, mask = swap_scores.swaps(clips, swap_scores.draw_pairs(clips, n, SEED))
            else:
                who, how = swap_scores.frames_of_one_clip(clips, n, SEED)
                truth, mask = how, np.zeros(how.shape[:3], bool)
        except ValueError as error:
            raise ValueError(f"the probe 'swap' measures the split {SPLIT!r} of {data.source}: {error}; {remedy}") from error
        return {"who": who, "how": how, "truth": truth, "mask": mask, "swapped": np.full(n, swap_scores.drawable(clips))}

    return held


def probe(swapper: Swapper) -> Probe:
    """What the networks at hand, averaged ones where there are any, make of the samples of ``held``.

    'psnr', 'fg_l1' and 'mse' (in [-1, 1]) of swaps against their truth where the set can be drawn, else 'same_clip_psnr'. The sums are the
    images themselves, 8 bits: they are measured as they would be written.
    """

    def zero() -> dict[str, np.ndarray]:
        image = np.zeros((0, swapper.size, swapper.size, 3), np.uint8)
        return {"made": image, "truth": image, "mask": np.zeros(image.shape[:3], bool), "swapped": np.zeros(0, bool)}

    def add(sums: Mapping[str, jax.Array], state: State, batch: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        params = {**state.params, **state.ema}
        who, how = (batch[name].astype(jnp.float32) / 127.5 - 1.0 for name in ("who", "how"))
        images = swapper.decode(params, swapper.identity(params, who), swapper.pose(params, how))
        made = jnp.clip(jnp.round((images.astype(jnp.float32) + 1.0) * 127.5), 0, 255).astype(jnp.uint8)
        found = {"made": made, **{name: batch[name] for name in ("truth", "mask", "swapped")}}
        return {name: jnp.concatenate([sums[name], found[name]]) for name in found}

    def merge(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: np.concatenate([a[name], b[name]]) for name in a}

    def read(sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        from jaxgan import swap_scores

        if not sums["swapped"].all():
            return {"same_clip_psnr": swap_scores.same_clip_psnr(sums["made"], sums["truth"])}
        found = swap_scores.swap_figures(sums["made"], sums["truth"], sums["mask"])
        return {"psnr": found["PSNR"], "fg_l1": found["fg L1"], "mse": found["MSE [-1,1]"]}

    return Probe(zero, add, merge, read)
