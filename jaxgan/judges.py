"""Frozen judges: small networks that say of a picture which identity factors and which pose it shows.

They are trained on fresh renders of a set of clips whose every identity and pose can be drawn, and never see a generated image. What they
reach on renders that they have not seen is the ceiling of every figure that they give. Architecture and training are chosen here.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgan.arrays import arrays_checksum, read_safetensors
from jaxgan.files import write_atomic
from jaxgan.fitting import fit, in_blocks
from jaxgan.metrics import swap

FORMAT = "jaxgan judges 2"
LINEAR, CIRCLE, CLASS = "linear", "circle", "class"
_CIRCLES = ("heading",)
_LINES = ("x", "y", "arm")
STEPS = 5000
"""Steps of training, of each of the two networks, unless it is said otherwise."""
CEILING = 0.98
"""Share of renders that judges should read right, in each factor of the identity."""
RENDERS_BYTES = 2**28
"""Most bytes of renders that are held for training."""


class Column(NamedTuple):
    """One number of a pose, and what a network says of it."""

    name: str
    kind: str
    """'linear': the number; 'circle': its cosine and sine; 'class': one of ``count``."""
    count: int


class Judges(NamedTuple):
    size: int
    """Side of the images in pixels."""
    factors: tuple[tuple[str, int], ...]
    """(name, number of values) of each factor of identity."""
    columns: tuple[Column, ...]
    """Of a pose."""
    params: dict[str, Any]
    """'identity' and 'pose': the networks; 'mean' and 'deviation': of the poses' linear numbers."""
    about: dict[str, Any]
    """'set', 'digest', 'steps', 'renders', 'seed', and 'ceiling': what they reach on renders that they have not seen."""


class Judge(nn.Module):
    """Images [N, S, S, 3] in [-1, 1] -> [N, outputs]: squares of 2 px become channels before each 3x3 layer, down to 4 px or less.

    Layers of 32, 64 and then 96 channels, each normalised; then one hidden layer of 192. S must be halved so by whole numbers.
    """

    outputs: int

    @nn.compact
    def __call__(self, x):
        width = 32
        while x.shape[1] > 4:
            n, height, _, channels = x.shape
            x = x.reshape(n, height // 2, 2, height // 2, 2, channels).transpose(0, 1, 3, 2, 4, 5).reshape(n, height // 2, height // 2, -1)
            x = nn.silu(nn.LayerNorm()(nn.Dense(width)(_neighbours(x))))
            width = min(width + 32, 96)
        x = nn.silu(nn.Dense(192)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.outputs)(x)


def _neighbours(x: jax.Array) -> jax.Array:
    """The 3x3 neighbourhood of every pixel as channels, zeros outside: a dense layer of it is a 3x3 convolution, whose gradient by XLA's
    own convolution takes several times as long on a CPU at these widths."""
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return jnp.concatenate([x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], -1)


def columns_of(clips: Any) -> tuple[Column, ...]:
    """The columns of the poses of a set; () where it has none. Whole numbers under another name than x, y, heading and arm are classes."""
    if not clips.pose_names or clips.pose(0) is None:
        return ()
    poses = np.concatenate([clips.pose(i) for i in range(len(clips))])
    found = []
    for name, values in zip(clips.pose_names, poses.T, strict=True):
        if name in _CIRCLES:
            found.append(Column(name, CIRCLE, 2))
        elif name in _LINES or (values < 0).any() or (values != np.round(values)).any():
            found.append(Column(name, LINEAR, 1))
        else:
            found.append(Column(name, CLASS, int(values.max()) + 1))
    return tuple(found)


def targets(columns: Sequence[Column], poses: np.ndarray) -> np.ndarray:
    """[N, P] poses -> float32 [N, sum of counts]: numbers, cosines and sines, one-hot classes, in the order of the columns."""
    parts = []
    for column, values in zip(columns, np.asarray(poses, np.float32).T, strict=True):
        if column.kind == CIRCLE:
            parts.append(np.stack([np.cos(values), np.sin(values)], 1))
        elif column.kind == CLASS:
            parts.append(np.eye(column.count)[values.astype(int)])
        else:
            parts.append(values[:, None])
    return np.concatenate(parts, 1).astype(np.float32)


def train(
    clips: Any, *, steps: int = STEPS, batch: int = 64, renders: int = 80_000, seed: int = 0, say: Callable[[str], None] | None = None
) -> Judges:
    """Judges of a set that can be drawn: identities uniform over all combinations, poses from the first nine tenths of its clips.

    Every number of a training pose is that of another frame, so that few clips give many poses. The ceiling is of renders with the poses of
    the other clips as they are. ``say`` is told of the progress.

    Raises:
      ValueError: a set without ``render``, factors or poses.
    """
    clip = _check(clips)
    size, columns = clips.image[0], columns_of(clips)
    rng = np.random.default_rng((seed, 0))
    renders = max(1, min(renders, RENDERS_BYTES // (3 * size * size)))
    split = max(1, len(clips) * 9 // 10)
    images, identities, poses = _renders(clips, clip[:split], renders, rng, mixed=True)
    if say:
        say(f"judges: {renders:,} renders of {clips.name}")
    wanted = targets(columns, poses)
    linear = np.concatenate([np.full(column.count, column.kind == LINEAR) for column in columns])
    mean = np.where(linear, wanted.mean(0), 0).astype(np.float32)
    deviation = np.where(linear, np.maximum(wanted.std(0), 1e-6), 1).astype(np.float32)
    data = {"image": images, "identity": identities.astype(np.int32), "pose": (wanted - mean) / deviation}
    params: dict[str, Any] = {"mean": mean, "deviation": deviation}
    for part, outputs in _outputs(clips.factors, columns).items():
        network = Judge(outputs)
        first = network.init(jax.random.fold_in(jax.random.key(seed), outputs), jnp.zeros((1, size, size, 3), jnp.float32))
        score = functools.partial(_identity_loss, clips.factors) if part == "identity" else functools.partial(_pose_loss, columns)

        def loss(params: Any, batch: Any, key: Any, network: Any = network, score: Any = score) -> jax.Array:
            return score(network.apply(params, _floats(batch["image"])), batch)

        def watch(step: int, params: Any, value: float, part: str = part) -> None:
            if say and step % 500 == 0:
                say(f"judges: {part}, step {step:,} of {steps:,}, loss {value:.4f}")

        given = {name: data[name] for name in ("image", part)}
        params[part] = jax.device_get(fit(loss, first, given, steps=steps, batch=batch, seed=seed, watch=watch))["params"]
    about = {"set": clips.name, "digest": clips.digest, "steps": steps, "renders": renders, "seed": seed}
    judges = Judges(size, tuple(clips.factors), columns, params, about)
    count = min(2000, renders)
    images, identities, poses = _renders(clips, clip[split:] or clip, count, np.random.default_rng((seed, 1)))
    said = judge(judges, images)
    ceiling = {name: float(np.mean(said["identity"][:, k] == identities[:, k])) for k, (name, _) in enumerate(clips.factors)}
    return judges._replace(about={**about, "ceiling": {"identity": ceiling, "pose": pose_errors(columns, said["pose"], poses, size)}})


def judge(judges: Judges, images: np.ndarray, block: int = 64) -> dict[str, np.ndarray]:
    """Of images uint8 [N, S, S, 3]: 'identity', int32 [N, F], and 'pose', float32 [N, P] as the set's poses (classes as numbers)."""
    if images.dtype != np.uint8 or images.shape[1:] != (judges.size, judges.size, 3):
        raise ValueError(f"images are {images.dtype} {images.shape}; these judges look at uint8 [N, {judges.size}, {judges.size}, 3]")
    parts = _outputs(judges.factors, judges.columns)
    said = {
        part: in_blocks(functools.partial(_apply(outputs), judges.params[part]), images, block=block) for part, outputs in parts.items()
    }
    pose = said["pose"] * judges.params["deviation"] + judges.params["mean"]
    found, at = [], 0
    for _, count in judges.factors:
        found.append(said["identity"][:, at : at + count].argmax(1))
        at += count
    return {"identity": np.stack(found, 1).astype(np.int32), "pose": decoded(judges.columns, pose)}


def decoded(columns: Sequence[Column], values: np.ndarray) -> np.ndarray:
    """The inverse of ``targets`` for what a network says: [N, sum of counts] -> float32 [N, P]."""
    found, at = [], 0
    for column in columns:
        part = values[:, at : at + column.count]
        at += column.count
        if column.kind == CIRCLE:
            found.append(np.arctan2(part[:, 1], part[:, 0]))
        else:
            found.append(part.argmax(1) if column.kind == CLASS else part[:, 0])
    return np.stack(found, 1).astype(np.float32)


def pose_errors(columns: Sequence[Column], said: np.ndarray, truth: np.ndarray, size: int) -> dict[str, float]:
    """'position px', 'heading deg', 'arm deg': medians; of other linear numbers the median absolute error; of classes the accuracy."""
    found: dict[str, float] = {}
    names = [column.name for column in columns]
    if "x" in names and "y" in names:
        place = [names.index("x"), names.index("y")]
        found["position px"] = float(np.median(swap.position_error(said[:, place], truth[:, place], size)))
    for k, column in enumerate(columns):
        if column.name in ("heading", "arm"):
            found[f"{column.name} deg"] = float(np.median(swap.angle_error(said[:, k], truth[:, k])))
        elif column.kind == CLASS:
            found[f"{column.name} right"] = float(np.mean(said[:, k] == truth[:, k]))
        elif column.name not in ("x", "y"):
            found[column.name] = float(np.median(np.abs(said[:, k] - truth[:, k])))
    return found


def save(judges: Judges, path: Any) -> None:
    """Writes the judges as one safetensors file, whole or not at all."""
    from safetensors.numpy import save as pack

    arrays = _arrays(judges)
    about = {"size": judges.size, "factors": judges.factors, "columns": judges.columns, "about": judges.about}
    write_atomic(path, pack(arrays, {"format": FORMAT, "about": json.dumps(about), "arrays_sha256": arrays_checksum(arrays)}))


def load(path: Any, clips: Any = None) -> Judges:
    """Reads what ``save`` wrote; ``clips``: the set whose judges they must be.

    Raises:
      FileNotFoundError: no such file. ValueError: no judges, a damaged file, or the judges of another set.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: `jaxgan swap evaluate --judges DIR` trains judges and keeps them there")
    arrays, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT or metadata.get("arrays_sha256") != arrays_checksum(arrays):
        raise ValueError(f"{path} holds no judges, or is damaged: remove it, and they are trained anew")
    from jaxgan.generators import nested

    about = json.loads(metadata["about"])
    factors = tuple((name, count) for name, count in about["factors"])
    params = nested({f"params/{name}": array for name, array in arrays.items()}, "params")
    judges = Judges(about["size"], factors, tuple(Column(*column) for column in about["columns"]), params, about["about"])
    if clips is not None and judges.about["digest"] != clips.digest:
        raise ValueError(f"{path} holds the judges of another set ({judges.about['set']}): name another folder for those of {clips.name}")
    return judges


def kept(folder: Any, clips: Any, *, steps: int = STEPS, say: Callable[[str], None] | None = None) -> Judges:
    """The judges of a set from ``folder/judges-DIGEST.safetensors``, trained and written there where none are that had as many steps.

    ``say`` is told of the progress, and of factors that they read on fewer than ``CEILING`` of the renders they have not seen.
    """
    path = Path(folder) / f"judges-{clips.digest[:12]}.safetensors"
    judges = load(path, clips) if path.is_file() else None
    if judges is None or judges.about.get("steps", 0) < steps:
        judges = train(clips, steps=steps, say=say)
        save(judges, path)
    low = {name: share for name, share in judges.about.get("ceiling", {}).get("identity", {}).items() if share < CEILING}
    if low and say is not None:
        words = ", ".join(f"{name} on {share:.1%}" for name, share in low.items())
        say(f"judges of {clips.name} read {words} of renders they have not seen: their figures are not better than that")
    return judges


def checksum(judges: Judges) -> str:
    """sha256 of what the judges learned: two scores compare where it is the same."""
    return arrays_checksum(_arrays(judges))


def _arrays(judges: Judges) -> dict[str, np.ndarray]:
    flat, _ = jax.tree_util.tree_flatten_with_path(judges.params)
    return {"/".join(str(key.key) for key in keys): np.ascontiguousarray(leaf, np.float32) for keys, leaf in flat}


def _check(clips: Any) -> list[int]:
    identity = None if clips.identity is None or not len(clips) else clips.identity[0]
    pose = clips.pose(0) if len(clips) else None
    if not clips.factors or identity is None or pose is None or clips.render(identity, pose[0]) is None:
        raise ValueError(f"{clips.name} cannot draw any identity in any pose: judges need a set of known factors, such as figures")
    return list(range(len(clips)))


def _renders(
    clips: Any, chosen: Sequence[int], n: int, rng: np.random.Generator, mixed: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    identities = np.stack([rng.integers(0, count, n) for _, count in clips.factors], 1).astype(np.int32)
    known = np.concatenate([clips.pose(i) for i in chosen]).astype(np.float32)
    rows = rng.integers(0, len(known), (n, known.shape[1] if mixed else 1))
    poses = known[rows, np.arange(known.shape[1])]
    return np.stack([clips.render(*pair)[0] for pair in zip(identities, poses, strict=True)]), identities, poses


def _outputs(factors: Sequence[tuple[str, int]], columns: Sequence[Column]) -> dict[str, int]:
    return {"identity": sum(count for _, count in factors), "pose": sum(column.count for column in columns)}


@functools.cache
def _apply(outputs: int) -> Callable[[Any, Any], jax.Array]:
    return jax.jit(lambda params, images: Judge(outputs).apply({"params": params}, _floats(images)))


def _floats(images: Any) -> jax.Array:
    return jnp.asarray(images).astype(jnp.float32) / 127.5 - 1.0


def _identity_loss(factors: Sequence[tuple[str, int]], logits: jax.Array, batch: Any) -> jax.Array:
    total, at = 0.0, 0
    for k, (_, count) in enumerate(factors):
        part = jax.nn.log_softmax(logits[:, at : at + count])
        total -= jnp.take_along_axis(part, batch["identity"][:, k : k + 1], 1).mean()
        at += count
    return total


def _pose_loss(columns: Sequence[Column], values: jax.Array, batch: Any) -> jax.Array:
    total, at = 0.0, 0
    for column in columns:
        part, wanted = (array[:, at : at + column.count] for array in (values, batch["pose"]))
        total += -(jax.nn.log_softmax(part) * wanted).sum(1).mean() if column.kind == CLASS else jnp.square(part - wanted).mean()
        at += column.count
    return total
