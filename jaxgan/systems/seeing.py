"""What a generator leaves out: class statistics of real and fake images, the Fréchet Segmentation Distance, and the report about both.

Bau, Zhu, Wulff, Peebles, Strobelt, Zhou, Torralba: "Seeing What a GAN Cannot Generate", ICCV 2019, arXiv:1910.11626, sections 3 and 4.1.
Read from top to bottom: choose the images, tally both sources (``seeing_tally``), compare the tallies, pick the images that show
it (``seeing_gallery``), draw the figure (``seeing_figure``), write the report (``seeing_page``, ``seeing_files``).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxgan import files
from jaxgan.metrics import segments
from jaxgan.metrics.segments import ClassRow
from jaxgan.systems import seeing_figure, seeing_files, seeing_gallery, seeing_tally
from jaxgan.systems.seeing_page import between, percent, signed

LEVEL = 0.95
"""Of the intervals; a difference counts as shown at 1 - LEVEL, corrected for the number of classes."""
FSD_RESAMPLES = 200
"""The distance itself is resampled at most so often: each time costs an eigendecomposition."""
GALLERIES = 12
"""Galleries of a report whose classes nobody chose."""
SENTENCES = 5
"""Sentences of the headline about classes of which the generator draws less, or more; of missing ones all are named."""
NOTHING = ("void", "null", "none", "background", "unlabeled", "unlabelled", "unknown", "other", "-", "")
"""Names of a label 0 that stands for no class: part of the distance and the table, not of the figure and the headline, as published.
A class that nobody named ("class 0", "label 0") is one like all others."""
UNKNOWN = ("void", "unlabeled", "unlabelled")
"""Names that stand for no class at any label: what nobody named cannot be missing."""
UNNAMED = 256
"""Labels of a source whose classes have no names."""


@dataclass(frozen=True)
class Settings:
    """The choices of a report, with the published defaults."""

    n: int = 10_000
    """Images of each source; of a smaller one all."""
    seed: int = 1
    """Of the choice of images, ``random.Random(seed).shuffle`` of the sorted ones; a source compared with itself gets seed + 1 as fake."""
    classes: tuple[str, ...] = ()
    """Classes to show images of; empty: those that differ most."""
    images: int = 6
    """Images of each source, or pairs, in a gallery."""
    paired: str = "auto"
    """Whether images of equal name belong together: auto, yes, no (``seeing_gallery.pair_names``)."""
    labelcount: int = 30
    """Classes in the figure."""
    resamples: int = 1000
    """Bootstrap resamples and permutations."""
    batch: int = 8
    """Images segmented at a time."""
    cache: Path | None = None
    """Folder of tallies; None keeps none."""

    def __post_init__(self) -> None:
        for field, least in (("n", 2), ("images", 1), ("labelcount", 1), ("resamples", 20), ("batch", 1)):
            if getattr(self, field) < least:
                raise ValueError(f"{field} is {getattr(self, field)}; it must be at least {least}")
        if self.paired not in ("auto", "yes", "no"):
            raise ValueError(f"paired is {self.paired!r}; use auto, yes or no")


def choose(spec: Any, n: int, seed: int) -> Any:
    """At most `n` images of a source in the official order (a generator draws `n` from `seed`): a ``jaxgan.sources.Images``.

    `spec` may be such Images, of which the first `n` are then taken.

    Raises:
      FileNotFoundError, ValueError: as ``sources.open_images``; fewer than 2 images.
    """
    from jaxgan import sources

    images = spec if isinstance(spec, sources.Images) else sources.open_images(spec)
    if len(images) < 2:
        held = f"{len(images)} image{'s' * (len(images) != 1)}"
        raise ValueError(f"{images.spec} holds {held}; at least 2 are needed for a covariance, and some hundreds for a result")
    if images is spec:
        return images.take(range(min(n, len(images))))
    if images.facts.get("kind") == "generator":
        return sources.open_images(spec, n=n, seed=seed, least=2)
    order = segments.subset_order(len(images), n, seed)
    return images.take(order, selection=f"{len(order):,} of {len(images):,}, shuffled by seed {seed}")


def class_names(segmenter: Any, real: Any, fake: Any) -> tuple[str, ...]:
    """Names of the labels: the segmenter's, or those of sources that bring their own label maps.

    Raises:
      ValueError: the sources have no label maps, or maps of different classes.
    """
    if segmenter.name != "labels":
        return tuple(segmenter.classes)
    for images in (real, fake):
        if not images.has_labels:
            remedy = "name a segmenter that looks at the images"
            raise ValueError(f"{images.spec} holds no label maps, which the segmenter 'labels' reads; {remedy}")
    if real.classes != fake.classes:
        sides = (f"{images.spec} has {len(images.classes)} classes ({', '.join(images.classes[:4])}, ...)" for images in (real, fake))
        raise ValueError(f"label maps of different classes cannot be compared: {' and '.join(sides)}")
    return tuple(real.classes) or tuple(f"label {k}" for k in range(UNNAMED))


def is_nothing(label: int, name: str) -> bool:
    """Whether a label stands for no class. Where label 0 is a class of its own (CamVid: sky), it is one like all others."""
    return name.strip().lower() in (NOTHING if label == 0 else UNKNOWN)


def verdict(row: ClassRow, missing: set[int]) -> str:
    """'missing', 'less', 'more', 'only fake' (shown to be more than chance or not), or '' where no difference is shown."""
    if row.index in missing:
        return "missing"
    if row.fake_only:
        return "only fake"
    return "" if not row.significant else "less" if row.difference < 0 else "more"


def compare(
    real: np.ndarray, fake: np.ndarray, names: Sequence[str], *, resamples: int = 1000, seed: int = 1, level: float = LEVEL
) -> dict[str, Any]:
    """Two tallies compared: the part of a report that needs no images.

    Args:
      real, fake: area fractions [n, classes] and [m, classes].
      names: of the classes.
      resamples, seed, level: of the intervals and tests.

    Returns:
      'headline' (sentences), 'fsd', 'classes' (those with any area; areas, shares and frequencies in percent), 'warnings'.

    Raises:
      ValueError: fewer than 2 images, different class counts, or numbers that are not area fractions.
    """
    distance = segments.fsd(real, fake)
    interval = segments.bootstrap_fsd(real, fake, resamples=min(resamples, FSD_RESAMPLES), seed=seed, level=level)
    table = segments.class_table(real, fake, names, resamples=resamples, seed=seed, level=level)
    missing = segments.missing(table)
    lost = {row.index for row in missing}
    classes = [_entry(row, verdict(row, lost)) for row in table if row.real > 0 or row.fake > 0]
    classes.sort(key=lambda entry: -entry["real"])
    fsd = {
        "total": distance.total,
        "mean": distance.mean,
        "covariance": distance.covariance,
        "raw": distance.raw,
        "interval": [interval.low, interval.high],
        "level": level,
        "alpha": round(1 - level, 9),
        "resamples": resamples,
        "fsd_resamples": min(resamples, FSD_RESAMPLES),
        "floor": _floor(real, len(fake), seed),
    }
    warnings = []
    if distance.rank_deficient:
        warnings.append(
            f"There are fewer images ({len(real):,} real, {len(fake):,} fake) than classes in use ({len(classes)}): the distance is biased "
            "upward. Use more images."
        )
    if min(len(real), len(fake)) < 100:
        warnings.append(f"Only {len(real):,} real and {len(fake):,} fake images: rare classes cannot be judged. Use some thousands.")
    if fsd["floor"] is None:
        warnings.append("Real against real was not measured: it takes at least 4 real images.")
    elif distance.total <= fsd["floor"]["expected"]:
        noise = f"as many images of one source would be apart by about {fsd['floor']['expected']:.3g}"
        warnings.append(f"The distance is no larger than noise: {noise}. Single classes may differ nevertheless; see the table.")
    return {"headline": headline(classes), "fsd": fsd, "classes": classes, "warnings": warnings}


def _entry(row: ClassRow, verdict: str) -> dict[str, Any]:
    return {
        "label": row.index,
        "name": row.name,
        "real": row.real,
        "fake": row.fake,
        "delta": row.delta,
        # JSON knows no infinity: a class so rare that resamples lack it has no upper end.
        "interval": None if row.delta_interval is None else [end if math.isfinite(end) else None for end in row.delta_interval],
        "difference": row.difference,
        "difference_interval": list(row.difference_interval),
        "share": 100 * row.share,
        "p_uncorrected": row.p,
        "p": row.p_corrected,
        "significant": row.significant,
        "images_real": 100 * row.frequency_real,
        "images_fake": 100 * row.frequency_fake,
        "only_fake": row.fake_only,
        "verdict": verdict,
    }


def _floor(real: np.ndarray, fakes: int, seed: int) -> dict[str, Any] | None:
    if len(real) < 4:
        return None
    floor = segments.floor(real, seed=seed)
    # The distance of two samples of one distribution falls as 1/n + 1/m.
    expected = floor.mean * (1 / len(real) + 1 / fakes) / (2 / floor.images)
    parts = f"two parts of {floor.images:,} real images, {len(floor.values)} times, ± {floor.spread:.2g}"
    how = f"{parts}; about {expected:.3g} with as many as compared here"
    return {"value": floor.mean, "spread": floor.spread, "images": floor.images, "expected": expected, "how": how}


def headline(classes: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Sentences for people: what is missing, what is drawn less, what more, what only by the generator; 'kind', 'class' and 'text' each.

    Of what only the generator draws, sentences name what is more than chance: one stray pixel in one image is left to the table.
    """
    classes = [entry for entry in classes if not is_nothing(entry["label"], entry["name"])]
    shown = [entry for entry in classes if entry["significant"]]
    by_kind = {kind: [entry for entry in shown if entry["verdict"] == kind] for kind in ("missing", "less", "more", "only fake")}
    for kind, entries in by_kind.items():
        entries.sort(key=lambda entry: -entry["fake"] if kind == "only fake" else entry["delta"] * (-1 if kind == "more" else 1))
    lines = []
    for kind, entries in by_kind.items():
        for entry in entries if kind == "missing" else entries[:SENTENCES]:
            lines.append({"kind": kind.split()[0], "class": entry["name"], "text": f"{kind}: {entry['name']}: {_areas(entry)}"})
        rest = [] if kind == "missing" else entries[SENTENCES:]
        if rest:
            lines.append({"kind": kind.split()[0], "class": "", "text": f"{kind}, too: {', '.join(entry['name'] for entry in rest)}"})
    if not by_kind["missing"]:
        what = "differ" if not shown else "have lost more than half of its area"
        text = f"nothing is missing: of {len(classes)} classes none is shown to {what}"
        lines.insert(0, {"kind": "none", "class": "", "text": text})
    return lines


def _areas(entry: dict[str, Any]) -> str:
    if entry["delta"] is None:
        return f"{percent(entry['fake'])} % of the area in fake, in {percent(entry['images_fake'])} % of its images; none in real"
    areas = f"{percent(entry['real'])} % of the area in real, {percent(entry['fake'])} % in fake"
    return f"{areas} ({signed(entry['delta'])}, interval {between(entry['interval'])})"


def report(
    real: Any, fake: Any, segmenter: Any, settings: Settings, *, out: Any = None, say: Callable[[str], None] = lambda text: None
) -> tuple[dict[str, Any], dict[str, np.ndarray], seeing_gallery.Gallery]:
    """Everything that a report says, before it is written: (report, tallies by side, pictures).

    Args:
      real, fake: sources (``jaxgan.sources.ACCEPTED``), or ``jaxgan.sources.Images``.
      segmenter: a ``jaxgan.segmenters.Segmenter``.
      settings: see there.
      out: folder that will take the report; proved to be writable before the first image is segmented.
      say: told what happens, for people.

    Raises:
      FileNotFoundError, ValueError, OSError: a source, a class or the folder cannot be used; nothing has been segmented then.
    """
    if out is not None:
        files.local_folder(out)
    same = _place(real) == _place(fake)
    sides = {"real": choose(real, settings.n, settings.seed), "fake": choose(fake, settings.n, settings.seed + same)}
    names = class_names(segmenter, sides["real"], sides["fake"])
    wanted = [_label(name, names) for name in settings.classes]
    listed = [[images.name(i) for i in range(len(images))] for images in sides.values()]
    pairs = [] if same else seeing_gallery.pair_names(*listed, settings.paired)
    if out is not None:
        seeing_files.check(out)
    rows = {}
    for side, images in sides.items():
        rows[side] = seeing_tally.tally(
            images, segmenter, names, batch=settings.batch, cache=settings.cache, title=f"{side} images", say=say
        )
    result = compare(rows["real"], rows["fake"], names, resamples=settings.resamples, seed=settings.seed)
    if same and set(listed[0]) == set(listed[1]):
        result["warnings"].append("Both sources are the same images: choose fewer (n) to compare two samples of one source.")
    result["protocol"] = _protocol(sides, segmenter, names, settings)
    shown = _bars(rows["real"], rows["fake"], names, settings.labelcount)
    bars = {"real": shown.train.tolist(), "fake": shown.gen.tolist(), "delta": shown.delta.tolist()}
    result["histogram"] = {"classes": list(shown.names), **bars}
    gallery = seeing_gallery.Gallery()
    result["figure"] = None
    if shown.names:
        result["figure"] = {"light": "figure.png", "dark": "figure-dark.png"}
        for key, name in result["figure"].items():
            gallery.shown[name] = seeing_figure.png(seeing_figure.draw(shown, labelcount=settings.labelcount, dark=key == "dark"))
    _fill(gallery, wanted or _differing(result["classes"]), names, sides, rows, pairs, segmenter, settings)
    result["galleries"] = gallery.entries
    result["paired"] = bool(pairs)
    result["images"] = dict(zip(sides, listed, strict=True))
    return result, rows, gallery


def _bars(real: np.ndarray, fake: np.ndarray, names: Sequence[str], labelcount: int) -> segments.Histogram:
    """The figure's bars. ``segments.histogram`` leaves out label 0; where that is a class it moves to 1, behind an empty column."""
    if not is_nothing(0, names[0]):
        real, fake = (np.pad(rows, ((0, 0), (1, 0))) for rows in (real, fake))
        names = ["", *names]
    shown = segments.histogram(real, fake, names, ["object"] * len(names), labelcount)
    # The published figure has the first word of each name, which does not tell "class 3" from "class 4".
    words = (names[c][:24] if shown.names.count(word) > 1 else word for c, word in zip(shown.index, shown.names, strict=True))
    return shown._replace(names=tuple(words))


def _place(spec: Any) -> Any:
    """What tells one source from another."""
    if not isinstance(spec, (str, os.PathLike)):
        return id(spec)
    spec = os.fspath(spec)
    return os.path.realpath(os.path.expanduser(spec)) if os.path.exists(os.path.expanduser(spec)) else spec


def _label(name: str, names: Sequence[str]) -> int:
    from jaxgan.configure import nearest

    if name not in names:
        raise ValueError(f"there is no class {name!r} among the {len(names)} of the segmenter{nearest(name, list(names))}")
    return names.index(name)


def _differing(classes: Sequence[dict[str, Any]]) -> list[int]:
    """Labels in the order in which people will want to see them: what is missing first, then what differs, then the rest by its loss."""
    kinds = ["missing", "less", "only fake", "more", ""]
    order = sorted(classes, key=lambda entry: (kinds.index(entry["verdict"]), -1 if entry["delta"] is None else entry["delta"]))
    return [entry["label"] for entry in order[:GALLERIES]]


def _fill(gallery, labels, names, sides, rows, pairs, segmenter, settings) -> None:
    """The galleries of these classes; every image is segmented once, whatever it is shown for."""
    chosen: dict[int, Any] = {}
    needed: dict[str, set[int]] = {"real": set(), "fake": set()}
    for label in labels:
        if pairs:
            chosen[label] = seeing_gallery.most_lost(rows["real"], rows["fake"], pairs, label, settings.images)
            needed["real"] |= {i for i, _ in chosen[label]}
            needed["fake"] |= {j for _, j in chosen[label]}
        else:
            chosen[label] = {side: seeing_gallery.largest(rows[side], label, settings.images) for side in sides}
            for side in sides:
                needed[side] |= set(chosen[label][side])
    segmented = {side: seeing_gallery.segment(sides[side], segmenter, list(needed[side]), settings.batch) for side in sides}
    for label in labels:
        if pairs and chosen[label]:
            gallery.add_pairs(label, names[label], sides, rows, chosen[label], segmented, names)
        elif not pairs and any(chosen[label].values()):
            gallery.add(label, names[label], sides, rows, chosen[label], segmented)


def _protocol(sides: dict[str, Any], segmenter: Any, names: Sequence[str], settings: Settings) -> dict[str, Any]:
    from jaxgan import __version__

    return {
        **{side: {"source": one.spec, "images": len(one), **one.facts, "sha256": one.digest} for side, one in sides.items()},
        "segmenter": {"name": segmenter.name, "identity": segmenter.identity, "classes": list(names)},
        "framing": seeing_tally.protocol(sides["real"], segmenter, names)["framing"],
        "fsd": "percent of the image area, all classes, covariances with divisor n - 1, symmetric eigenvalue form in float64",
        "intervals": f"{LEVEL:.0%}, {settings.resamples} resamples, seed {settings.seed}",
        "significance": f"permutation test, corrected over classes (Westfall and Young), at {1 - LEVEL:.2g}, and an interval without 0",
        "program": f"jaxgan {__version__}",
    }


def seeing(
    real: Any, fake: Any, segmenter: Any, out: Any, settings: Settings | None = None, *, say: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Compares two sources and writes the report to the folder `out`; returns what report.json holds. Arguments and errors: ``report``.

    The folder then holds report.html (needs no other file), report.json, classes.csv, images.csv, figure.png and images/.
    """
    result, rows, gallery = report(real, fake, segmenter, settings or Settings(), out=out, say=say)
    seeing_files.write(out, result, rows, gallery)
    return result
