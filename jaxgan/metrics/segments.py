"""Segmentation statistics: how much of the images every object class covers, and the Fréchet Segmentation Distance (FSD).

Bau et al. 2019, section 3. A *tally* holds one row of area fractions for each image, ``[n, classes]``; column 0 of the published
vocabulary is the null class, which is part of FSD and not of the figure. Statistics are on the host, in float64.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxgan.metrics import bootstrap, frechet
from jaxgan.metrics.frechet import Frechet

PRESENT = 0.001
"""A class counts as seen in an image when it covers more than this fraction of it."""


def tally(labels: np.ndarray | Sequence[np.ndarray], classes: int) -> np.ndarray:
    """Area fraction of every class in every label map.

    Args:
      labels: integers ``[N, H, W]``, or a list of maps ``[H, W]`` of any sizes; each is divided by its own H * W.
      classes: labels run from 0 to classes - 1.

    Returns:
      float64 ``[N, classes]``; rows sum to 1.

    Raises:
      ValueError: maps that are not integer, empty, or hold a label outside; names the map and the label.
    """
    if classes < 1:
        raise ValueError(f"a tally of {classes} classes is empty; at least 1 class is needed")
    fractions = np.zeros((len(labels), classes))
    for number, one in enumerate(labels):
        one = np.asarray(one)
        if one.ndim != 2 or not one.size or one.dtype.kind not in "iu":
            raise ValueError(f"label map {number} is {one.dtype} {one.shape}; integers [H, W] are needed")
        least, most = int(one.min()), int(one.max())
        if least < 0 or most >= classes:
            raise ValueError(
                f"label map {number} holds the label {least if least < 0 else most}; {classes} classes have the labels 0 to {classes - 1}: "
                "give the segmenter's own number of classes"
            )
        fractions[number] = np.bincount(one.ravel(), minlength=classes) / one.size
    return fractions


def fsd(real: np.ndarray, fake: np.ndarray) -> Frechet:
    """Fréchet Segmentation Distance of two tallies, in squared percent of the image area (fractions times 100).

    Raises:
      ValueError: different class counts, fewer than 2 images in a set, or numbers that are not area fractions.
    """
    _check(real, fake)
    return frechet.from_rows(np.asarray(real, np.float64) * 100, np.asarray(fake, np.float64) * 100)


def subset_order(count: int, size: int | None = None, seed: int = 1) -> list[int]:
    """Which images of a sorted folder the published tool takes, in its order: a shuffle by Python's generator, cut off at `size`.

    Args:
      count: images in the folder.
      size: images wanted (published: 10,000); None or more than there are takes all.
      seed: 1 for both sets; 2 for the second one where a folder is compared with itself.
    """
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order if size is None else order[:size]


def bootstrap_fsd(real: np.ndarray, fake: np.ndarray, *, resamples: int = 200, seed: int = 0, level: float = 0.95) -> bootstrap.Interval:
    """Interval of FSD by resampling the images of both sets (``bootstrap.interval``), never below 0. ValueError as in ``fsd``."""
    _check(real, fake)
    used = np.any(real, axis=0) | np.any(fake, axis=0)
    real, fake = (np.asarray(rows, np.float64)[:, used] * 100 for rows in (real, fake))
    if not used.any():
        return bootstrap.Interval(0.0, 0.0, 0.0)
    found = bootstrap.interval(lambda a, b: frechet.from_rows(a, b).total, real, fake, resamples=resamples, seed=seed, level=level)
    return found._replace(low=max(found.low, 0.0), high=max(found.high, 0.0))


class Floor(NamedTuple):
    """FSD of real images against other real images: what a perfect generator would score."""

    mean: float
    spread: float
    """Standard deviation over the repeats (divisor: their number less 1)."""
    images: int
    """Images in each half. FSD falls about as 1 / images: compare with scores of as many."""
    values: tuple[float, ...]


def floor(real: np.ndarray, *, images: int | None = None, repeats: int = 10, seed: int = 0) -> Floor:
    """FSD of two disjoint random parts of one tally, repeated.

    Args:
      real: tally ``[n, classes]``.
      images: rows in each part; default and most: half of them.
      repeats: number of random divisions, at least 2.
      seed: of the divisions.

    Raises:
      ValueError: fewer than 4 images, parts of fewer than 2 or more than half, fewer than 2 repeats.
    """
    half = len(real) // 2 if images is None else images
    if repeats < 2 or not 2 <= half <= len(real) // 2:
        raise ValueError(
            f"{repeats} divisions of {len(real)} real images into parts of {half}: at least 2 divisions, and 2 images to half in a part"
        )
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        order = rng.permutation(len(real))
        values.append(fsd(real[order[:half]], real[order[half : 2 * half]]).total)
    return Floor(float(np.mean(values)), float(np.std(values, ddof=1)), half, tuple(values))


def self_comparison(tallied: np.ndarray, size: int = 10_000) -> Frechet:
    """The published floor: FSD of the seed-1 and the seed-2 subset of one folder; they share images, more the larger they are.

    Args:
      tallied: tally of the whole folder, in the order of its sorted files.
      size: images in each subset. With as many as there are, both are the whole folder and the distance is 0.
    """
    return fsd(*(tallied[subset_order(len(tallied), size, seed)] for seed in (1, 2)))


class ClassRow(NamedTuple):
    """One class in both sets. Areas are percent of the image area, intervals (low, high)."""

    index: int
    name: str
    real: float
    fake: float
    delta: float | None
    """(fake - real) / real; None where no real image holds the class."""
    delta_interval: tuple[float, float] | None
    """Its upper end is infinite where the class is so rare that resamples lack it."""
    difference: float
    """fake - real."""
    difference_interval: tuple[float, float]
    share: float
    """Share of this class in the squared distance of the means."""
    p: float
    """Two-sided permutation test of equal mean areas."""
    p_corrected: float
    """Corrected for testing all classes (``bootstrap.permutation_p_values``)."""
    significant: bool
    """p_corrected is at most 1 - level, and the interval of the difference excludes 0."""
    frequency_real: float
    """Share of the images in which the class covers more than 0.1 %."""
    frequency_fake: float
    fake_only: bool
    """Only the generator draws it."""


def class_table(
    real: np.ndarray, fake: np.ndarray, names: Sequence[str], *, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> list[ClassRow]:
    """Every class: areas, relative delta and its interval, part in the distance, and whether the difference is more than chance.

    Args:
      real: tally ``[n, classes]``.
      fake: tally ``[m, classes]``.
      names: of the classes, in column order.
      resamples: bootstrap resamples, and permutations.
      seed: of both.
      level: of the intervals; significance is at 1 - level over all classes together.

    Returns:
      One row for each class, in column order.

    Raises:
      ValueError: as in ``fsd``, another number of names, fewer than 2 resamples, or a level outside (0, 1).
    """
    _check(real, fake)
    bootstrap.check_level(level)
    real, fake = np.asarray(real, np.float64) * 100, np.asarray(fake, np.float64) * 100
    if len(names) != real.shape[1]:
        raise ValueError(f"{len(names)} class names for {real.shape[1]} columns: give one for each")
    used = np.flatnonzero(real.any(axis=0) | fake.any(axis=0))
    mean_real, mean_fake = real.mean(axis=0), fake.mean(axis=0)
    squared = np.square(mean_fake - mean_real)
    shares = squared / squared.sum() if squared.sum() > 0 else squared
    frequencies = [(rows > 100 * PRESENT).mean(axis=0) for rows in (real, fake)]
    differences, deltas = np.zeros((2, len(names))), np.zeros((2, len(names)))
    p, corrected = np.ones(len(names)), np.ones(len(names))
    if used.size:
        # Different seeds: equal ones would draw the same positions of both sets, and two sets of equal size would be resampled in pairs.
        drawn_real = bootstrap.means(real[:, used], resamples=resamples, seed=2 * seed)
        drawn_fake = bootstrap.means(fake[:, used], resamples=resamples, seed=2 * seed + 1)
        drawn = drawn_fake - drawn_real
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = np.where(drawn == 0, 0.0, drawn / drawn_real)
        ends = [(1 - level) / 2, (1 + level) / 2]
        differences[:, used] = np.quantile(drawn, ends, axis=0, method="inverted_cdf")
        # An order statistic, since nothing can be interpolated next to infinity.
        deltas[:, used] = np.quantile(relative, ends, axis=0, method="inverted_cdf")
        p[used], corrected[used] = bootstrap.permutation_p_values(real[:, used], fake[:, used], resamples=resamples, seed=seed)
    table = []
    for c, name in enumerate(names):
        there = mean_real[c] > 0
        low, high = (float(x) for x in differences[:, c])
        table.append(
            ClassRow(
                index=c,
                name=str(name),
                real=float(mean_real[c]),
                fake=float(mean_fake[c]),
                delta=float(mean_fake[c] / mean_real[c] - 1) if there else None,
                delta_interval=(float(deltas[0, c]), float(deltas[1, c])) if there else None,
                difference=float(mean_fake[c] - mean_real[c]),
                difference_interval=(low, high),
                share=float(shares[c]),
                p=float(p[c]),
                p_corrected=float(corrected[c]),
                significant=bool(corrected[c] <= 1 - level and (low > 0 or high < 0)),
                frequency_real=float(frequencies[0][c]),
                frequency_fake=float(frequencies[1][c]),
                fake_only=bool(not there and mean_fake[c] > 0),
            )
        )
    return table


def missing(table: Sequence[ClassRow], lost: float = 0.5) -> list[ClassRow]:
    """Classes that the generator leaves out: significant, `lost` or more of the area gone, the interval below 0; largest loss first."""
    rows = [r for r in table if r.significant and r.delta is not None and r.delta <= -lost and r.delta_interval[1] < 0]
    return sorted(rows, key=lambda r: (r.delta, r.difference))


class Histogram(NamedTuple):
    """What the published figure shows: areas above, relative deltas below; drawn elsewhere."""

    index: tuple[int, ...]
    """Columns of the classes shown, by falling real area."""
    names: tuple[str, ...]
    """First words of the class names."""
    train: np.ndarray
    """Real mean area in percent, ``[bars]``."""
    gen: np.ndarray
    """Fake mean area in percent, ``[bars]``."""
    delta: np.ndarray
    """(gen - train) / train, ``[bars]``."""
    ylim_top: tuple[float, float]
    ylim_bottom: tuple[float, float]
    xlim: tuple[float, float]
    overflow: tuple[tuple[float, float, str], ...]
    """(x, y, text) for the bars that leave the lower panel."""


def histogram(
    real: np.ndarray, fake: np.ndarray, names: Sequence[str], categories: Sequence[str], labelcount: int = 30, maxscale: float = 50.0
) -> Histogram:
    """The figure's numbers: classes by falling real area, without the null class, materials, and classes that no real image holds.

    Args:
      real: tally ``[n, classes]``.
      fake: tally ``[m, classes]``.
      names: of the classes, in column order.
      categories: 'object', 'material', 'part' ... of each.
      labelcount: most bars.
      maxscale: upper end of the log axis in percent; it starts at a 5,000th of that.

    Raises:
      ValueError: different class counts, other numbers of names or categories, fewer than 1 bar.
    """
    _check(real, fake)
    classes = np.shape(real)[1]
    if len(names) != classes or len(categories) != classes or labelcount < 1:
        raise ValueError(f"{len(names)} names, {len(categories)} categories, {labelcount} bars for {classes} classes")
    train, gen = (np.asarray(rows, np.float64).mean(axis=0) * 100 for rows in (real, fake))
    kept: list[int] = []
    for c in np.argsort(-train, kind="stable").tolist():
        if train[c] == 0 or len(kept) == labelcount:
            break
        if c != 0 and categories[c] != "material":
            kept.append(c)
    delta = (gen[kept] - train[kept]) / train[kept]
    overflow: list[tuple[float, float, str]] = []
    for x, value in enumerate(delta.tolist()):
        if value > 1.15:
            beside = bool(overflow) and overflow[-1][:2] == (x - 1, 1.15)
            overflow.append((float(x), 1.25 if beside else 1.15, f"{value:.1f}"))
    words = tuple((names[c].split() or [""])[0] for c in kept)
    limits = ((maxscale / 5000, float(maxscale)), (-1.0, 1.1), (-1.0, float(len(kept))))
    return Histogram(tuple(kept), words, train[kept], gen[kept], delta, *limits, tuple(overflow))


def _check(real: np.ndarray, fake: np.ndarray) -> None:
    """ValueError unless both are area fractions of the same classes."""
    for name, rows in (("real", real), ("fake", fake)):
        if np.ndim(rows) != 2 or not np.shape(rows)[1]:
            raise ValueError(f"the {name} tally has the shape {np.shape(rows)}; [images, classes] is needed")
        if not len(rows):
            raise ValueError(f"the {name} tally has no images")
        if not (np.min(rows) >= 0 and np.max(np.sum(rows, axis=1)) <= 1 + 1e-3):  # NaN fails both
            raise ValueError(f"the {name} tally is not area fractions: rows must be at least 0 and sum to at most 1 (were they percent?)")
    if np.shape(real)[1] != np.shape(fake)[1]:
        raise ValueError(
            f"the real tally has {np.shape(real)[1]} classes and the fake one {np.shape(fake)[1]}: both must come from the same segmenter"
        )
