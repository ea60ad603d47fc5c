"""What do two codes give away? Probes of identity and pose, and an audit of their mutual information by a fresh estimator.

Probes and estimator are trained here, on codes of clips that none of the tested codes are of. Sizes and stopping are chosen here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.fitting import fit
from jaxgan.metrics import swap
from jaxgan.mutual_information import density_ratio_loss
from jaxgan.nets.density_ratio import DensityRatio

HIDDEN = {"linear": (), "mlp": (128, 128)}


class Codes(NamedTuple):
    """Codes of some frames of a set."""

    identity: np.ndarray
    """float32 [N, e]."""
    pose: np.ndarray
    """float32 [N, d]."""
    clip: np.ndarray
    """int32 [N]: which clip a frame is of."""


def parts(clip: np.ndarray, shares: Sequence[float], seed: int) -> list[np.ndarray]:
    """Rows of each part, disjoint by clip; the last part takes what is left. ValueError where a part would be empty."""
    clips = np.unique(clip)
    order = np.random.default_rng((seed, 7)).permutation(clips)
    ends = np.round(np.cumsum(shares) * len(order)).astype(int)
    groups = np.split(order, ends)
    if min(map(len, groups)) == 0:
        raise ValueError(f"{len(clips)} clips do not divide into {len(groups)} parts: probes need more clips")
    return [np.flatnonzero(np.isin(clip, group)) for group in groups]


def standard(codes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Codes with the mean 0 and the deviation 1 over these rows, in every number that varies."""
    mean, deviation = codes[rows].mean(0), codes[rows].std(0)
    return ((codes - mean) / np.where(deviation > 1e-6, deviation, 1)).astype(np.float32)


def _start(key: Any, sizes: Sequence[int]) -> list[dict[str, jax.Array]]:
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        {"w": jax.random.normal(k, (a, b)) * float(np.sqrt(1 / a)), "b": jnp.zeros((b,))}
        for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def _apply(params: Any, x: jax.Array) -> jax.Array:
    for layer in params[:-1]:
        x = jax.nn.relu(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


def factor_accuracy(
    codes: np.ndarray, labels: np.ndarray, count: int, train: np.ndarray, test: np.ndarray, *, steps: int = 1000, seed: int = 0
) -> dict[str, float]:
    """How well a linear probe and an MLP(128, 128) read a factor from codes [N, d].

    Returns:
      'linear' and 'mlp', the accuracies on the test rows; 'accuracy', the better one; 'chance', that of naming the most frequent value;
      'leak', (accuracy - chance) / (1 - chance). 'leak' is NaN where the test rows have one value only.
    """
    x = standard(codes, train)

    def loss(params: Any, batch: Any, key: Any) -> jax.Array:
        logits = jax.nn.log_softmax(_apply(params, batch["x"]))
        return -jnp.take_along_axis(logits, batch["y"][:, None], 1).mean()

    found: dict[str, float] = {}
    for name, hidden in HIDDEN.items():
        first = _start(jax.random.key(seed), (x.shape[1], *hidden, count))
        data = {"x": x[train], "y": labels[train].astype(np.int32)}
        params = fit(loss, first, data, steps=steps, batch=256, seed=seed, rate=3e-3, decay=1e-3)
        found[name] = float((np.asarray(_apply(params, jnp.asarray(x[test]))).argmax(1) == labels[test]).mean())
    frequent = np.bincount(labels[train], minlength=count).argmax()
    chance = max(1 / count, float((labels[test] == frequent).mean()))
    best = max(found["linear"], found["mlp"])
    return {**found, "accuracy": best, "chance": chance, "leak": swap.leak(best, chance) if chance < 1 else float("nan")}


def regression(
    codes: np.ndarray, values: np.ndarray, train: np.ndarray, test: np.ndarray, *, steps: int = 1000, seed: int = 0
) -> np.ndarray:
    """R2 on the test rows of each column of values [N, P] that probes read from codes [N, d], the better of linear and MLP; [P].

    Classes are given one-hot. NaN where a column does not vary.
    """
    x, y = standard(codes, train), standard(values, train)

    def loss(params: Any, batch: Any, key: Any) -> jax.Array:
        return jnp.square(_apply(params, batch["x"]) - batch["y"]).mean()

    found = []
    for hidden in HIDDEN.values():
        first = _start(jax.random.key(seed), (x.shape[1], *hidden, y.shape[1]))
        params = fit(loss, first, {"x": x[train], "y": y[train]}, steps=steps, batch=256, seed=seed, rate=3e-3, decay=1e-3)
        found.append(swap.r2(y[test], np.asarray(_apply(params, jnp.asarray(x[test])))))
    return np.fmax(*found)


def audit(
    codes: Codes,
    *,
    apart: np.ndarray | None = None,
    steps: int = 2000,
    batch: int = 256,
    seed: int = 0,
    width: int = 512,
    rate: float = 2e-4,
) -> dict[str, float]:
    """The mutual information in nats that a fresh density ratio estimator finds in pose and identity codes of two frames of a clip.

    The estimator T is trained by the loss of robust disentangling (Esser, Haux, Ommer, ICCV 2019): half the mean of softplus(-T) over
    pairs of one clip and half that of softplus(T) over pairs of two clips; the information is the mean of T over pairs of one clip. Clips
    are divided into 60, 20 and 20 %: to train on, to choose the step of least loss by, to measure on.

    ``apart``: int [N], a part of its clip for each frame; the two frames of a pair are then of two parts. With groups in the place of
    ``codes.clip`` and clips as their parts, what the frames of a clip share beside the identity is not counted.

    Returns:
      'nats' of the clips measured on, 'step' chosen, 'loss' of the clips chosen by, and 'train nats' at that step. Where no step's loss is
      below ln 2 = 0.693, that of an estimator which knows nothing, that one is chosen: 0 nats, step 0.

    Raises:
      ValueError: fewer than ten clips, or clips of one frame (of one part) only.
    """
    if len(np.unique(codes.clip)) < 10:
        raise ValueError(f"{len(np.unique(codes.clip))} clips: the audit of mutual information needs at least 10")
    rows = parts(codes.clip, (0.6, 0.2), seed)
    pose, identity = (jnp.asarray(standard(array, rows[0])) for array in (codes.pose, codes.identity))
    pairs = [_pairs(codes.clip, part, apart) for part in rows]
    network = DensityRatio(width=width)
    first = network.init(jax.random.key(seed), pose[:1], identity[:1])

    def ratios(params: Any, pairs: jax.Array, identity: jax.Array, pose: jax.Array, others: jax.Array) -> tuple[jax.Array, jax.Array]:
        return network.apply(params, pose[pairs[:, 0]], identity[pairs[:, 1]]), network.apply(params, pose[pairs[:, 0]], identity[others])

    clip = jnp.asarray(codes.clip.astype(np.int32))

    def loss(params: Any, given: Any, key: Any) -> jax.Array:
        chosen = given["pair"]
        shift = jax.random.randint(key, (), 1, chosen.shape[0])
        others = jnp.roll(chosen[:, 1], shift)
        joint, marginal = ratios(params, chosen, identity, pose, others)
        return density_ratio_loss(joint, marginal, clip[others] != clip[chosen[:, 0]])

    rng = np.random.default_rng((seed, 8))
    held = pairs[1][rng.permutation(len(pairs[1]))[:2048]]
    measure = jax.jit(ratios)
    apart = rng.permutation(held[:, 1])
    best: list[Any] = [math.log(2), 0, None]

    def watch(step: int, params: Any, value: float) -> None:
        joint, marginal = measure(params, held, identity, pose, apart)
        now = float(density_ratio_loss(joint, marginal, clip[apart] != clip[held[:, 0]]))
        if now < best[0]:
            best[:] = [now, step, jax.tree.map(jnp.copy, params)]

    fit(
        loss,
        first,
        {"pair": pairs[0]},
        steps=steps,
        batch=min(batch, len(pairs[0])),
        seed=seed,
        rate=rate,
        chunk=max(1, steps // 20),
        watch=watch,
    )
    if best[2] is None:
        return {"nats": 0.0, "train nats": 0.0, "loss": best[0], "step": 0}
    nats = [
        float(np.mean(np.asarray(measure(best[2], some, identity, pose, some[:, 1])[0]))) for some in (pairs[2][:4096], pairs[0][:4096])
    ]
    return {"nats": nats[0], "train nats": nats[1], "loss": best[0], "step": best[1]}


def _pairs(clip: np.ndarray, rows: np.ndarray, apart: np.ndarray | None = None) -> np.ndarray:
    """int32 [M, 2]: every ordered pair of two frames of one clip (and of two parts of it) among the rows, in a fixed random order."""
    part = np.arange(len(clip)) if apart is None else apart
    found = []
    for one in np.unique(clip[rows]):
        own = rows[clip[rows] == one]
        found += [(a, b) for a in own for b in own if part[a] != part[b]]
    if not found:
        raise ValueError("no clip has two frames among those given (of two parts, if there are parts): the audit needs pairs")
    return np.random.default_rng(0).permutation(np.array(found, np.int32))
