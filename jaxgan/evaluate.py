"""Scores of two sources of images: FID, KID, precision/recall, FSD, class areas, pairwise distances and seams, each with its protocol.

A score means something only together with how it was made: the network and its weights, the resize mode, how many images of what. Every
``Score`` carries that, and statistics of reals that were saved with another protocol are refused.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxgan import features, parallel, sources
from jaxgan.configure import nearest
from jaxgan.features import Measure
from jaxgan.metrics import bootstrap, seam, segments, streaming
from jaxgan.metrics.streaming import Moments, Rows, Sums
from jaxgan.pairs import METRICS as PAIRS
from jaxgan.pairs import check_size, pair_measure, pair_values, paired
from jaxgan.scores import FEATURES, PRDC, SEGMENTS, Score, facts, feature_scores, resampling, segment_scores, with_version

METRICS = (*FEATURES, *SEGMENTS, *PAIRS, "seam")


def evaluate(
    real: Any,
    fake: Any,
    metrics: Sequence[str] = ("fid",),
    *,
    n: int | None = None,
    split: str | None = None,
    fake_split: str | None = None,
    seed: int = 1,
    network: Measure | None = None,
    segmenter: Any = None,
    resize: str = "clean",
    batch: int = 32,
    resamples: int = 0,
    level: float = 0.95,
    neighbours: int = 5,
    subsets: int = 100,
    subset_size: int = 1000,
    patch: tuple[int, int] | None = None,
    cache: Any = None,
    reference: Any = None,
    save_reference: Any = None,
    progress: bool = False,
) -> dict[str, Score]:
    """Scores by name: 'fid', 'kid', 'precision', 'recall', 'density', 'coverage' (of 'prdc'), 'fsd', 'classes', 'lpips', ... 'seam'.

    In a run of several processes each computes its share of the images, and all return the same scores.

    Args:
      real: a source as in ``sources.open_images``, opened images, or None where `reference` holds all that is needed.
      fake: another.
      metrics: some of ``METRICS``. lpips, psnr, ssim and ms_ssim compare images of the same name; seam looks at `fake` alone.
      n: so many images of each source; default all.
      split, fake_split: of real and of fake, where they are imported or catalogue sets or scenes; default 'train'.
      seed: of a generator's latents, of the choice of n images, of KID's subsets and of resampling. A source that is compared with itself
        draws or chooses the second time by seed + 1.
      network: what FID, KID and precision/recall are computed on; default ``features.inception(resize)``.
      segmenter: a ``segmenters.Segmenter``, the name of one, or 'labels' for the sources' own maps; for fsd and classes.
      batch: images computed at once by each process.
      resamples: bootstrap resamples for intervals of fid and kid (slow), of fsd, and of means over pairs; 0: none.
      neighbours: k of precision, recall, density and coverage.
      subsets, subset_size: of KID; a subset is at most as large as the smaller set.
      patch: (height, width) of the patches for seam; default the micro patch of a generator that has one.
      cache: folder for rows, under which an interrupted pass resumes; None: none.
      reference, save_reference: folder of the reals' statistics to use, to write.
      progress: bars on the terminal.

    Raises:
      ValueError: an unknown metric, sources that do not fit, a reference of another protocol (names the field).
      FileNotFoundError: a source, a reference or weights that are not there.
    """
    metrics = _checked(metrics, resamples, level)
    wanted = {family: [m for m in metrics if m in names] for family, names in (("features", FEATURES), ("segments", SEGMENTS))}
    pairs = [m for m in metrics if m in PAIRS]
    if reference is not None and save_reference is not None:
        raise ValueError("a reference is either used or saved: give one of the two")
    if (reference is not None or save_reference is not None) and not any(wanted.values()):
        raise ValueError(f"a reference holds what {', '.join((*FEATURES, *SEGMENTS))} need, and none of them was asked for: leave it out")
    needing = pairs if reference is not None else [m for m in metrics if m != "seam"]
    if real is None and needing:
        raise ValueError(f"real is missing: {', '.join(needing)} need the images themselves{'' if reference else ', or a reference'}")
    fakes = _open(fake, fake_split, n, seed + _alike((real, split), (fake, fake_split)))
    reals = None if real is None else _open(real, split, n, seed)
    measures = {}  # all networks, references and pairs are there before the first image is computed
    if wanted["features"]:
        measures["features"] = network or features.inception(resize)
    if wanted["segments"]:
        measures["segments"], names = tally_measure(segmenter, fakes)
        if measures["segments"].name == "labels" and reference is None and reals.label_maps().classes != names:
            sides = (f"{images.spec} has {len(images.classes)} ({', '.join(images.classes[:4])}, ...)" for images in (reals, fakes))
            raise ValueError(f"label maps of different classes cannot be compared: {' and '.join(sides)}")
    saved = {}
    if reference is not None:
        for family, measure in measures.items():
            saved[family] = load_reference(_place(reference, family), measure, _whole(wanted[family], resamples))
    compared = [images for images in (None if reference is not None else reals, fakes) if images is not None]
    if "prdc" in metrics and not 1 <= neighbours < min(map(len, compared)):
        counts = " and ".join(f"{len(images)}" for images in compared)
        raise ValueError(f"neighbours is {neighbours}, but must be at least 1 and below the number of images ({counts}): give more images")
    pairing = (pair_measure(pairs), paired(reals, fakes)) if pairs else None
    if pairing is not None:
        check_size(pairs, pairing[1])
    if "seam" in metrics:
        _sizes_for_seam(fakes, patch)
    pass_options = {"batch": batch, "cache": cache}
    scores: dict[str, Score] = {}

    for family, measure in measures.items():
        whole = _whole(wanted[family], resamples)
        if reference is not None:
            sums, about = saved[family]
        else:
            images = _viewed(reals, measure)
            title = f"{measure.name} of {reals.spec}" if progress else ""
            sums, about = features.collect(images, measure, rows=whole, title=title, **pass_options), facts(reals)
            if save_reference is not None and parallel.is_main():
                streaming.save(_place(save_reference, family), sums, {**measure.protocol, "source": about})
        title = f"{measure.name} of {fakes.spec}" if progress else ""
        drawn = features.collect(_viewed(fakes, measure), measure, rows=whole, title=title, **pass_options)
        protocol = {**measure.protocol, "real": about, "fake": facts(fakes)}
        options = {"seed": seed, "resamples": resamples, "level": level}
        if family == "features":
            scores |= feature_scores(
                sums, drawn, wanted[family], protocol, neighbours=neighbours, subsets=subsets, subset_size=subset_size, **options
            )
        else:
            scores |= segment_scores(Rows.read(sums), Rows.read(drawn), names, wanted[family], protocol, **options)
    if pairing is not None:
        scores |= _pair_scores(reals, fakes, pairs, *pairing, pass_options, seed, resamples, level, progress)
    if "seam" in metrics:
        scores["seam"] = seam_score(fakes, patch, **pass_options)
    order = [name for m in metrics for name in (PRDC if m == "prdc" else (m,))]
    return {name: scores[name] for name in order}


def _checked(metrics: Sequence[str], resamples: int, level: float) -> tuple[str, ...]:
    metrics = (metrics,) if isinstance(metrics, str) else tuple(dict.fromkeys(metrics))  # each once
    for metric in metrics:
        if metric not in METRICS:
            raise ValueError(f"there is no metric {metric!r}{nearest(metric, METRICS)}; use some of {', '.join(METRICS)}")
    if not metrics:
        raise ValueError(f"no metric was named; use some of {', '.join(METRICS)}")
    if resamples == 1 or resamples < 0:
        raise ValueError(f"resamples is {resamples}; use 0 for no intervals, or some hundreds")
    bootstrap.check_level(level)
    return metrics


def _whole(metrics: Sequence[str], resamples: int) -> bool:
    """Whether rows are needed, and not moments alone."""
    return resamples > 0 or any(m != "fid" for m in metrics)


def _alike(*sides: tuple[Any, str | None]) -> bool:
    """Whether two names, each with a split, name one source: it may be written with a slash at its end or as a link."""
    if not all(isinstance(source, (str, os.PathLike)) for source, _ in sides):
        return False
    places = [os.path.expanduser(os.fspath(source)) for source, _ in sides]
    places = [os.path.realpath(place) if os.path.exists(place) else place for place in places]
    return places[0] == places[1] and (sides[0][1] or "train") == (sides[1][1] or "train")


def _open(source: Any, split: str | None, n: int | None, seed: int) -> sources.Images:
    if isinstance(source, np.ndarray):
        source = sources.in_memory(source)
    if not isinstance(source, sources.Images):
        return sources.open_images(source, split=split, n=n, seed=seed, least=2)
    return source if n is None else sources.selected(source, n, seed)


def _place(folder: Any, family: str):
    from etils import epath

    return None if folder is None else epath.Path(folder).expanduser() / f"{family}.safetensors"


def load_reference(path: Any, measure: Measure, rows: bool) -> tuple[Sums, dict[str, Any]]:
    """(sums of reals, facts of their source) of a saved reference.

    Raises:
      FileNotFoundError: there is no such file. ValueError: its protocol is another one (names the field), or it holds moments where rows
      are needed.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: make it with save_reference (--save-reference) and the same metrics")
    saved = streaming.load(path)
    found = dict(saved.protocol)
    about = found.pop("source", {})
    streaming.check_protocol(measure.protocol, found, path)
    if rows and "scatter" in saved.sums:
        raise ValueError(f"{path} holds mean and covariance alone, which serve fid without interval: save it again with the metrics wanted")
    if not rows and "scatter" not in saved.sums:
        return Moments.add(Moments.zero(measure.columns), Rows.read(saved.sums)), about
    return saved.sums, about


def tally_measure(segmenter: Any, images: sources.Images | None = None) -> tuple[Measure, tuple[str, ...]]:
    """(measure whose rows are area fractions by class, names of the classes) of a segmenter, of its name, or of 'labels'.

    Raises:
      ValueError: no segmenter, or 'labels' of a source that has none.
    """
    if segmenter is None:
        raise ValueError("fsd and classes need a segmenter: name one (for instance bisenetv2, unet:WORKDIR, onnx:FILE, or labels)")
    if getattr(segmenter, "name", segmenter) == "labels":
        if images is None or not images.has_labels or not images.classes:
            raise ValueError(f"segmenter labels: {images.spec if images else 'the source'} has no label maps with class names; use scenes")
        names = images.classes

        def tally(rows: np.ndarray) -> np.ndarray:
            return rows

        def count(labels: np.ndarray) -> np.ndarray:
            return segments.tally(labels[None], len(names))[0]

        return Measure("labels", len(names), count, tally, {"segmenter": "labels", "classes": list(names)}, np.float64), names
    if isinstance(segmenter, str):
        from jaxgan import segmenters

        segmenter = segmenters.open_segmenter(segmenter)
    from jaxgan.systems.seeing_tally import frame

    names = tuple(segmenter.classes)
    prepare = functools.partial(frame, size=segmenter.size)

    def compute(batch: np.ndarray) -> np.ndarray:
        return segments.tally(np.asarray(segmenter.label(batch)), len(names))

    protocol = {
        "segmenter": segmenter.name,
        "weights": segmenter.identity,
        "size": None if segmenter.size is None else list(segmenter.size),
        "framing": "as they are" if segmenter.size is None else "covered, centre cut out, bilinear",
    }
    return Measure(f"tally-{re.sub('[^A-Za-z0-9_.]+', '-', segmenter.name)}", len(names), prepare, compute, protocol, np.float64), names


def _viewed(images: sources.Images, measure: Measure) -> sources.Images:
    return images.label_maps() if measure.name == "labels" else images


def _pair_scores(
    reals: sources.Images,
    fakes: sources.Images,
    metrics: Sequence[str],
    measure: Measure,
    images: sources.Images,
    pass_options: dict[str, Any],
    seed: int,
    resamples: int,
    level: float,
    progress: bool,
) -> dict[str, Score]:
    rows = pair_values(metrics, Rows.read(features.collect(images, measure, title="pairs" if progress else "", **pass_options)))
    protocol = {**measure.protocol, "real": facts(reals), "fake": facts(fakes), **resampling(resamples, level, seed)}
    about = with_version(protocol, pairs=len(images))
    scores = {}
    for name, values in zip(metrics, rows.T, strict=True):
        interval = None
        if resamples and np.isfinite(values).all():
            drawn = bootstrap.means(values[:, None], resamples=resamples, seed=seed)[:, 0]
            interval = tuple(float(x) for x in np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]))
        spread = float(values.std()) if np.isfinite(values).all() else float("nan")  # the PSNR of equal images is infinite
        parts = {"std": spread, "least": float(values.min()), "median": float(np.median(values)), "most": float(values.max())}
        scores[name] = Score(float(values.mean()), parts, interval, about)
    return scores


def seam_score(images: sources.Images, patch: tuple[int, int] | None = None, *, batch: int = 32, cache: Any = None) -> Score:
    """COCO-GAN's seam statistic of a source. ValueError: no patch is known, or it does not divide the images."""
    patch, (height, width) = _sizes_for_seam(images, patch)

    def profile(array: np.ndarray) -> np.ndarray:
        return seam.profile(array)

    measure = Measure("seam", height + width - 1, lambda image: image, profile, {"statistic": "seam"})
    rows = Rows.read(features.collect(images, measure, batch=batch, cache=cache))
    found = seam.read(rows.mean(0, dtype=np.float64), (height, width), patch)
    value = found.pop("seam")
    return Score(value, found, None, with_version({"fake": facts(images)}, patch=list(patch)))


def _sizes_for_seam(images: sources.Images, patch: tuple[int, int] | None) -> tuple[tuple[int, int], tuple[int, int]]:
    """Sizes of the patches and of the images. A patch that does not fit is refused before anything is computed."""
    patch = tuple(patch or images.facts.get("patch", ()))
    if len(patch) != 2:
        raise ValueError(f"seam: {images.spec} does not say how large its patches are; give their height and width (--patch 16 16)")
    height, width, _ = images[0].shape
    seam.read(np.zeros(height + width - 1), (height, width), patch)
    return patch, (height, width)
