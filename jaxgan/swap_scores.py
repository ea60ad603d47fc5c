"""How well does a system swap identity and pose? One table, with the floor and the ceiling of every figure beside it.

Pairs of two clips are drawn: x_i says who, x_j says how. Where the set can draw any identity in any pose the truth y of a swap is known.
The system's image is compared with it, beside four rows that need no system: the mean image, the copy of x_i, the copy of x_j, and y.
Only the last is right in everything; the mean image has a better PSNR than both copies, so that no column says enough alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgan import judges as judging
from jaxgan import swap_probes, viz
from jaxgan.fitting import in_blocks
from jaxgan.metrics import swap
from jaxgan.swap_probes import Codes
from jaxgan.swapping import Swapper

VERSION = 2
"""Raised when a figure is computed otherwise: kept scores of another version are computed anew."""
ROWS = ("model", "mean image", "copies x_i", "copies x_j", "truth")


def drawable(clips: Any) -> bool:
    """True where the set can draw any of its identities in any pose, so that the truth of a swap is known."""
    if clips.identity is None or not clips.factors or clips.pose(0) is None:
        return False
    return clips.render(clips.identity[0], clips.pose(0)[0]) is not None


def evaluate(
    swapper: Swapper,
    params: Any,
    clips: Any,
    judges: judging.Judges | None = None,
    *,
    n: int = 2000,
    seed: int = 1,
    batch: int = 64,
    frames: int = 4000,
    probe_steps: int = 1000,
    audit_steps: int = 2000,
    audit_pairs: Literal["clip", "group"] = "clip",
    width: int = 512,
    facts: dict[str, Any] | None = None,
    others: dict[str, dict[str, Any]] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """All figures of a system on a set of clips, as plain values.

    Args:
      swapper: the system's encoders and decoder, with its networks ``params``.
      clips: held out from training; of the swapper's size.
      judges: of such a set, for the figures of identity and pose; None leaves those out.
      n: pairs of two clips.
      batch: images computed at once.
      frames: most frames whose codes are probed.
      probe_steps, audit_steps: training of each probe and of the audit's estimator; 0: none.
      audit_pairs: the audit compares two frames of one clip, or of two clips of one group (the same figure), which share nothing else.
      width: of the audit's estimator.
      facts: what else the protocol shall say, for instance the run's step.
      others: the rows of the table in which no system has a part, of an earlier result of the same clips, judges, ``n`` and ``seed``; None:
        they are computed.

    Returns:
      'protocol'; 'table': {row: {column: value}} for the rows ``ROWS`` where the set can be drawn; 'same clip': the model where both images
      are frames of one clip, whose truth every set has; 'probes', 'retrieval', 'audit'; 'verifiability' where the system traces pixels.
      What the set cannot tell is left out. Where pose codes are drawn in training, all of this is of their means, as swaps use them, and
      what the drawn ones give away stands beside: noise hides much of what a mean still tells.

    Raises:
      ValueError: clips of another size, fewer than two groups of clips, or clips of one frame.
    """
    if tuple(clips.image) != (swapper.size, swapper.size, 3):
        raise ValueError(f"clips of {clips.name} are {tuple(clips.image)}; this system takes images of {swapper.size} px")
    check_audit(clips, audit_pairs if audit_steps else "clip")
    apply = _Applied(swapper, params, batch)
    protocol = {"set": clips.name, "set digest": clips.digest, "clips": len(clips), "pairs": n, "seed": seed, **(facts or {})}
    result: dict[str, Any] = {"protocol": protocol}
    pairs = draw_pairs(clips, n, seed)
    if drawable(clips):
        say(f"{n:,} swaps")
        here, there, truth, mask = swaps(clips, pairs)
        mean = np.rint(np.concatenate([here, there]).mean(0, dtype=np.float64)).astype(np.uint8)
        made = apply.swap(here, there)
        images = dict(zip(ROWS, (made, np.broadcast_to(mean, here.shape), here, there, truth), strict=True))
        images = {row: fake for row, fake in images.items() if row == "model" or others is None}
        known = {"identity": clips.identity[pairs[:, 0]], "other": clips.identity[pairs[:, 2]]}
        known["pose"] = np.stack([clips.pose(j)[t] for _, _, j, t in pairs])
        result["table"] = {row: _row(fake, truth, mask, here, there, known, judges) for row, fake in images.items()} | (others or {})
        if swapper.size % 4 == 0:
            blocks = swap.block_errors(_unit(truth), _unit(made), 4).mean(0)
            result["block L1"] = [[float(value) for value in line] for line in blocks]
        if swapper.trace is not None:
            groups = {"true target": truth, "generated": made, "wrong identity": there}
            result["verifiability"] = {name: apply.trace(fake, here) for name, fake in groups.items()}
        if judges is not None:
            protocol |= {"judges": {key: judges.about[key] for key in ("digest", "steps", "renders", "ceiling") if key in judges.about}}
    say("frames of one clip")
    first, second = frames_of_one_clip(clips, n, seed)
    result["same clip"] = _same_clip(apply.swap(first, second), second, first)
    codes, drawn, at = _codes(apply, clips, frames, seed)
    protocol["probed frames"] = len(codes.clip)
    label = codes.clip if clips.identity is None else np.unique(clips.identity, axis=0, return_inverse=True)[1].reshape(-1)[codes.clip]
    several = any(len(np.unique(codes.clip[label == one])) > 1 for one in np.unique(label))
    apart = codes.clip if several else None
    result["retrieval"] = {name: swap.retrieval(getattr(codes, name), label, apart=apart) for name in ("identity", "pose")}
    protocol["retrieval"] = "from other clips" if several else "from the same clip"
    say("probes")
    probed = _probes(codes, drawn, at, clips, probe_steps, seed) if probe_steps else {}
    if probed:
        result["probes"] = probed
    whole, apart = (codes.clip, None) if audit_pairs == "clip" else (np.asarray(clips.group)[codes.clip], codes.clip)
    if audit_steps and len(np.unique(whole)) >= 10:
        say(f"audit of mutual information, {audit_steps:,} steps")
        for name, some in (("audit", codes), ("audit of drawn codes", drawn)):
            if some is not None:
                result[name] = swap_probes.audit(some._replace(clip=whole), apart=apart, steps=audit_steps, seed=seed, width=width)
    return result


def check_audit(clips: Any, pairs: str) -> None:
    """Raises ValueError where no group has the two clips that pairs of a 'group' need."""
    if pairs == "group" and len(np.unique(clips.group)) == len(clips):
        raise ValueError(f"{clips.name}: no two clips are of one group, so the audit has no pairs of two clips: use audit pairs 'clip'")


def draw_pairs(clips: Any, n: int, seed: int) -> np.ndarray:
    """int [n, 4]: clip i, its frame, clip j of another group, its frame. The poses of the two frames differ, where poses are known: where
    they do not, the first frame itself is the truth.

    Raises:
      ValueError: all clips are of one group, or all frames of one pose.
    """
    group = np.asarray(clips.group)
    if len(np.unique(group)) < 2:
        raise ValueError(
            f"{clips.name}: its {len(clips)} clips are of one group, so that there is nothing to swap between: give more clips"
        )
    if clips.pose(0) is not None and len(np.unique(np.concatenate([clips.pose(i) for i in range(len(clips))]), axis=0)) < 2:
        raise ValueError(f"{clips.name}: all frames show one pose, so that a swap changes nothing: give clips that move")
    rng = np.random.default_rng((seed, 1))
    found = []
    while len(found) < n:
        i, j = (int(k) for k in rng.integers(0, len(clips), 2))
        if group[i] != group[j]:
            s, t = int(rng.integers(0, clips.length(i))), int(rng.integers(0, clips.length(j)))
            if clips.pose(i) is None or not np.array_equal(clips.pose(i)[s], clips.pose(j)[t]):
                found.append((i, s, j, t))
    return np.array(found)


def swaps(clips: Any, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of the pairs of a set that can be drawn: images of who, images of how, and the truth of the swaps with its masks."""
    here = np.stack([clips.frame(i, s) for i, s, _, _ in pairs])
    there = np.stack([clips.frame(j, t) for _, _, j, t in pairs])
    drawn = [clips.render(clips.identity[i], clips.pose(j)[t]) for i, _, j, t in pairs]
    truth, mask = (np.stack([one[k] for one in drawn]) for k in (0, 1))
    return here, there, truth, mask


def frames_of_one_clip(clips: Any, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two different frames of each of n clips drawn at random: uint8 [n, S, S, 3] twice.

    Raises:
      ValueError: every clip has one frame.
    """
    rng = np.random.default_rng((seed, 2))
    lengths = np.array([clips.length(i) for i in range(len(clips))])
    long = np.flatnonzero(lengths > 1)
    if not len(long):
        raise ValueError(f"{clips.name}: every clip has one frame; pose can only be told apart in clips of two or more")
    chosen = [(i, *rng.choice(lengths[i], 2, replace=False)) for i in rng.choice(long, n)]
    here, there = (np.stack([clips.frame(int(one[0]), int(one[k])) for one in chosen]) for k in (1, 2))
    return here, there


class _Applied:
    """A swapper over uint8 images of any number, as uint8 images: what is measured is what would be written."""

    def __init__(self, swapper: Swapper, params: Any, batch: int):
        self.swapper, self._params, self._batch = swapper, params, batch

    def swap(self, identity: np.ndarray, pose: np.ndarray) -> np.ndarray:
        one = self.swapper

        def some(params: Any, who: Any, how: Any) -> jax.Array:
            return one.decode(params, one.identity(params, _signed(who)), one.pose(params, _signed(how)))

        return viz.to_uint8(self._made(some, identity, pose))

    def codes(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        one = self.swapper

        def some(params: Any, images: Any) -> tuple[jax.Array, jax.Array]:
            given = _signed(images)
            return one.identity_vector(one.identity(params, given)), one.pose_vector(one.pose(params, given))

        return self._made(some, images)

    def drawn(self, images: np.ndarray, noise: np.ndarray) -> np.ndarray:
        one = self.swapper
        return self._made(lambda params, images, noise: one.pose_vector(one.drawn(params, _signed(images), noise)), images, noise)

    def trace(self, images: np.ndarray, reference: np.ndarray) -> dict[str, float]:
        def some(params: Any, images: Any, reference: Any) -> dict[str, jax.Array]:
            return {name: array.mean((1, 2)) for name, array in self.swapper.trace(params, _signed(images), _signed(reference)).items()}

        found = self._made(some, images, reference)
        return {name: float(found[name].mean()) for name in ("score", "residual")}

    def _made(self, function: Callable[..., Any], *images: np.ndarray) -> Any:
        return in_blocks(functools.partial(jax.jit(function), self._params), *images, block=self._batch)


def swap_figures(fake: Any, truth: Any, mask: Any) -> dict[str, float]:
    """'PSNR', 'fg L1' and 'MSE [-1,1]' of swaps, uint8 [N, S, S, 3] twice with the truth's masks: means over the images."""
    return {name: float(np.nanmean(values)) for name, values in _by_image(_differences, fake, truth, mask).items()}


def same_clip_psnr(fake: Any, truth: Any) -> float:
    """PSNR of images made of two frames of one clip, uint8 [N, S, S, 3]: the median, as two frames that are equal have an infinite one."""
    return float(np.median(_by_image(lambda made, right: {"PSNR": swap.psnr(right, made)}, fake, truth)["PSNR"]))


def _same_clip(fake: Any, truth: Any, source: Any) -> dict[str, float]:
    """Identity and pose from two different frames of one clip, of which ``source`` says who; the second is the truth."""

    def compare(made: Any, right: Any, who: Any) -> dict[str, np.ndarray]:
        found = {"SSIM": swap.ssim(right, made), "MSE [-1,1]": 4 * swap.squared_error(right, made)}
        return {**found, "copies x_i": swap.copied(made, right, who)}

    found = {name: float(values.mean()) for name, values in _by_image(compare, fake, truth, source).items()}
    return {**found, "PSNR": same_clip_psnr(fake, truth), "PSNR of the copy": same_clip_psnr(source, truth)}


def _by_image(compare: Callable[..., dict[str, Any]], *arrays: Any) -> dict[str, np.ndarray]:
    """``compare`` of 256 images at a time, images in [0, 1] and masks as they are; float64 [N] by name."""
    parts: dict[str, list[np.ndarray]] = {}
    for first in range(0, len(arrays[0]), 256):
        some = (np.asarray(array[first : first + 256]) for array in arrays)
        for name, values in compare(*(one if one.dtype == bool else _unit(one) for one in some)).items():
            parts.setdefault(name, []).append(np.asarray(values, np.float64))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _differences(made: Any, right: Any, mask: Any) -> dict[str, np.ndarray]:
    found = {"PSNR": swap.psnr(right, made), "fg L1": swap.foreground_error(right, made, mask)}
    return {**found, "MSE [-1,1]": 4 * swap.squared_error(right, made)}


def _row(fake: Any, truth: Any, mask: Any, here: Any, there: Any, known: dict[str, Any], judges: judging.Judges | None) -> dict[str, float]:
    def compare(made: Any, right: Any, mask: Any, who: Any, how: Any) -> dict[str, np.ndarray]:
        found = _differences(made, right, mask)
        copies = {"copies x_i": swap.copied(made, right, who), "copies x_j": swap.copied(made, right, how)}
        return {"PSNR": found["PSNR"], "SSIM": swap.ssim(right, made), **found, **copies}

    found = {name: float(np.nanmean(values)) for name, values in _by_image(compare, fake, truth, mask, here, there).items()}
    if judges is None:
        return found
    said = judging.judge(judges, np.ascontiguousarray(fake))
    for k, (name, _) in enumerate(judges.factors):
        found[f"ID {name}"] = float(np.mean(said["identity"][:, k] == known["identity"][:, k]))
        differ = known["identity"][:, k] != known["other"][:, k]
        if differ.any():
            found[f"leak {name}"] = float(np.mean((said["identity"][:, k] == known["other"][:, k])[differ]))
    return {**found, **judging.pose_errors(judges.columns, said["pose"], known["pose"], judges.size)}


def _codes(apply: _Applied, clips: Any, frames: int, seed: int) -> tuple[Codes, Codes | None, np.ndarray]:
    """Codes of up to ``frames`` frames, the same with pose codes as drawn in training (None: nothing is drawn), and which frame of its clip
    each is of: up to 8 of a clip, of as many clips as that allows."""
    rng = np.random.default_rng((seed, 3))
    order = rng.permutation(len(clips))[: max(2, frames // 8)]
    chosen = [(int(i), int(t)) for i in np.sort(order) for t in np.sort(rng.permutation(clips.length(int(i)))[:8])]
    images = np.stack([clips.frame(i, t) for i, t in chosen])
    identity, pose = apply.codes(images)
    clip, at = np.array(chosen, np.int32).T
    codes, drawn = Codes(identity.astype(np.float32), pose.astype(np.float32), clip), None
    if apply.swapper.drawn is not None:
        noise = np.random.default_rng((seed, 4)).standard_normal(pose.shape, np.float32)
        drawn = codes._replace(pose=apply.drawn(images, noise).astype(np.float32))
    return codes, drawn, at


def _probes(codes: Codes, drawn: Codes | None, at: np.ndarray, clips: Any, steps: int, seed: int) -> dict[str, Any]:
    """What probes read of the two codes, by clips that they have not seen."""
    found: dict[str, Any] = {}
    train, test = swap_probes.parts(codes.clip, (0.7,), seed)
    if clips.identity is not None and clips.factors:
        labels = clips.identity[codes.clip]
        read = {"pose": codes.pose, "identity": codes.identity} | ({"drawn pose": drawn.pose} if drawn is not None else {})
        for code, values in read.items():
            found[f"identity from {code} code"] = {
                name: swap_probes.factor_accuracy(values, labels[:, k], count, train, test, steps=steps, seed=seed)
                for k, (name, count) in enumerate(clips.factors)
            }
    columns = judging.columns_of(clips)
    if columns:
        wanted = judging.targets(columns, np.stack([clips.pose(i)[t] for i, t in zip(codes.clip, at, strict=True)]))
        names = [word for column in columns for word in _words(column)]
        for code in ("pose", "identity"):
            values = swap_probes.regression(getattr(codes, code), wanted, train, test, steps=steps, seed=seed)
            found[f"pose from {code} code, R2"] = {name: float(value) for name, value in zip(names, values, strict=True)}
    return found


def _words(column: judging.Column) -> list[str]:
    if column.kind == judging.CIRCLE:
        return [f"cos {column.name}", f"sin {column.name}"]
    return [f"{column.name} {k}" for k in range(column.count)] if column.kind == judging.CLASS else [column.name]


def _unit(images: np.ndarray) -> np.ndarray:
    return np.asarray(images, np.float32) / 255


def _signed(images: Any) -> jax.Array:
    return jnp.asarray(images).astype(jnp.float32) / 127.5 - 1.0


def plain(result: Any) -> Any:
    """The result as JSON takes it: what is not finite becomes 'inf', '-inf' or None."""
    if isinstance(result, dict):
        return {key: plain(value) for key, value in result.items()}
    if isinstance(result, (list, tuple)):
        return [plain(value) for value in result]
    if isinstance(result, (float, np.floating)):
        return float(result) if math.isfinite(result) else None if math.isnan(result) else f"{result}"
    return result


def to_text(result: dict[str, Any]) -> str:
    """The result as tables for people."""
    lines = [", ".join(f"{key} {value}" for key, value in result["protocol"].items() if key != "judges")]
    if "table" in result:
        lines += ["", *table(result["table"])]
    if "judges" in result["protocol"]:
        ceiling = result["protocol"]["judges"].get("ceiling", {})
        lines.append("judges on renders they have not seen: " + _line({**ceiling.get("identity", {}), **ceiling.get("pose", {})}))
    lines += ["", "same clip: " + _line(result["same clip"])]
    for code, values in result["retrieval"].items():
        lines.append(f"retrieval of identity by {code} code: " + _line(values))
    for name, values in result.get("probes", {}).items():
        if name.endswith("R2"):
            lines.append(f"{name}: {_line(values)}")
        else:
            for factor, one in values.items():
                lines.append(f"{name}, {factor}: " + _line({key: one[key] for key in ("accuracy", "chance", "leak")}))
    if "audit" in result:
        lines.append("mutual information of the two codes: " + _line(result["audit"]))
    if "audit of drawn codes" in result:
        lines.append("the same, pose codes as drawn in training: " + _line(result["audit of drawn codes"]))
    for name, values in result.get("verifiability", {}).items():
        lines.append(f"verifiability, {name}: " + _line(values))
    return "\n".join(lines)


def table(rows: dict[str, dict[str, float]]) -> list[str]:
    """Rows of figures under their columns, as lines of text."""
    names = list(dict.fromkeys(name for values in rows.values() for name in values))
    first = max(map(len, rows), default=0)
    words = {row: [_number(values.get(name)) for name in names] for row, values in rows.items()}
    widths = [max(len(name), 7, *(len(line[k]) for line in words.values())) for k, name in enumerate(names)]
    lines = {"": names, **words}
    return [
        f"{row:<{first}}" + "".join(f"  {word:>{width}}" for word, width in zip(line, widths, strict=True)) for row, line in lines.items()
    ]


def _line(values: dict[str, float]) -> str:
    return ", ".join(f"{key} {_number(value)}" for key, value in values.items())


def _number(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}" if abs(value) < 1 else f"{value:.2f}"
