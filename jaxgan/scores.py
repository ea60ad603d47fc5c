"""A score with its protocol, and the scores of rows: features give FID, KID, precision and recall; class areas give FSD and the classes.

The same functions serve ``jaxgan.evaluate`` over folders and ``jaxgan.probes`` in training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgan.metrics import bootstrap, frechet, kernel, prdc, segments
from jaxgan.metrics.streaming import Rows, Sums
from jaxgan.sources import Images

FEATURES = ("fid", "kid", "prdc")
"""Of features of a network."""
SEGMENTS = ("fsd", "classes")
"""Of class areas."""
PRDC = ("precision", "recall", "density", "coverage")


class Score(NamedTuple):
    """One number and how it was made."""

    value: float
    parts: dict[str, float]
    """What the value is made of, by name."""
    interval: tuple[float, float] | None
    """Bootstrap interval, where it was asked for."""
    protocol: dict[str, Any]
    """JSON values."""


def facts(images: Images) -> dict[str, Any]:
    """What a protocol says of a source."""
    return {"source": images.spec, "n": len(images), **images.facts}


def with_version(protocol: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The protocol with further fields and this library's version."""
    from jaxgan import __version__

    return {**protocol, **more, "jaxgan": __version__}


def resampling(resamples: int, level: float, seed: int) -> dict[str, Any]:
    """What a protocol says of an interval: nothing where there is none."""
    return {"resamples": resamples, "level": level, "seed": seed} if resamples else {}


def feature_scores(
    real: Sums,
    fake: Sums,
    metrics: Sequence[str],
    protocol: dict[str, Any],
    *,
    seed: int = 1,
    resamples: int = 0,
    level: float = 0.95,
    neighbours: int = 5,
    subsets: int = 100,
    subset_size: int = 1000,
) -> dict[str, Score]:
    """Scores of sums of features: rows, or moments where 'fid' alone is wanted without interval."""
    scores: dict[str, Score] = {}
    rows = None if "scatter" in real else (Rows.read(real), Rows.read(fake))
    if "fid" in metrics:
        found = frechet.from_sums(real, fake) if rows is None else frechet.from_rows(*rows)
        parts = {"mean": found.mean, "covariance": found.covariance, "raw": found.raw}
        note = {"note": "fewer images than features: biased upward"} if found.rank_deficient else {}
        about = with_version(protocol, **resampling(resamples, level, seed), **note)
        scores["fid"] = Score(found.total, parts, _interval(_fid, rows, resamples, seed, level, 0.0), about)
    if "kid" in metrics:
        size = min(subset_size, *map(len, rows))
        found = kernel.kid(*rows, subsets=subsets, subset_size=size, seed=seed)
        about = with_version({**protocol, **resampling(resamples, level, seed)}, subsets=subsets, subset_size=size, seed=seed)
        scores["kid"] = Score(found.mean, {"std": found.std}, _interval(kernel.mmd, rows, resamples, seed, level), about)
    if "prdc" in metrics:  # no interval: resampled rows are neighbours at distance 0
        about = with_version(protocol, neighbours=neighbours)
        scores |= {name: Score(value, {}, None, about) for name, value in prdc.prdc(*rows, k=neighbours).items()}
    return scores


def _fid(real: np.ndarray, fake: np.ndarray) -> float:
    return frechet.from_rows(real, fake).total


def _interval(function: Callable, rows, resamples: int, seed: int, level: float, least: float = -math.inf) -> tuple[float, float] | None:
    if not resamples:
        return None
    found = bootstrap.interval(function, *rows, resamples=resamples, seed=seed, level=level)
    return max(found.low, least), max(found.high, least)


def segment_scores(
    real: np.ndarray,
    fake: np.ndarray,
    names: Sequence[str],
    metrics: Sequence[str],
    protocol: dict[str, Any],
    *,
    seed: int = 1,
    resamples: int = 0,
    level: float = 0.95,
) -> dict[str, Score]:
    """Scores of tallies [n, classes]. The value of 'classes' is half the sum of the absolute differences of the mean areas, in percent."""
    scores: dict[str, Score] = {}
    if "fsd" in metrics:
        found = segments.fsd(real, fake)
        interval = None
        if resamples:
            interval = tuple(segments.bootstrap_fsd(real, fake, resamples=resamples, seed=seed, level=level)[:2])
        parts = {"mean": found.mean, "covariance": found.covariance, "raw": found.raw}
        about = with_version(protocol, **resampling(resamples, level, seed), unit="percent of the area, squared")
        scores["fsd"] = Score(found.total, parts, interval, about)
    if "classes" in metrics:
        tests = resamples or 200
        table = segments.class_table(real, fake, names, resamples=tests, seed=seed, level=level)
        parts = {}
        for row in table:
            if row.real or row.fake:
                parts |= {f"{row.name}/real": row.real, f"{row.name}/fake": row.fake, f"{row.name}/p": row.p_corrected}
                parts |= {f"{row.name}/delta": row.delta} if row.delta is not None else {}
        value = sum(abs(row.difference) for row in table) / 2
        about = with_version(protocol, permutations=tests, seed=seed, unit="percent of the area")
        scores["classes"] = Score(value, parts, None, about)
    return scores


def to_json(scores: dict[str, Score]) -> str:
    """The scores as JSON text; numbers that are not finite become null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps({name: plain(score._asdict()) for name, score in scores.items()}, indent=1, allow_nan=False) + "\n"


def to_text(scores: dict[str, Score]) -> str:
    """One line for each score, and for 'classes' one for each class."""
    lines = []
    for name, score in scores.items():
        line = f"{name:<10} {score.value:.5g}"
        if score.interval is not None:
            line += f"  [{score.interval[0]:.5g}, {score.interval[1]:.5g}]"
        if name == "classes":
            line += "  (percent of the area that differs)"
            classes = dict.fromkeys(key.rpartition("/")[0] for key in score.parts)
            for label in classes:
                real, fake = score.parts[f"{label}/real"], score.parts[f"{label}/fake"]
                delta = score.parts.get(f"{label}/delta")
                change = "only fake" if delta is None else f"{100 * delta:+.1f} %"
                line += f"\n  {label:<16} {real:8.3f} -> {fake:8.3f} %  {change:>10}"
                line += f"  p {score.parts[f'{label}/p']:.3g}"
        elif score.parts:
            line += "  (" + ", ".join(f"{key} {value:.5g}" for key, value in score.parts.items()) + ")"
        if "note" in score.protocol:
            line += f"  {score.protocol['note']}"
        lines.append(line)
    for side in ("real", "fake"):
        shown = next((score.protocol[side] for score in scores.values() if side in score.protocol), None)  # seam has no real
        if shown is not None:
            lines.append(f"{side}: " + ", ".join(f"{key} {value}" for key, value in shown.items()))
    return "\n".join(lines)
