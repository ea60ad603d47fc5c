"""Confusion matrices of label maps: counted in pieces, merged, and read as intersection over union."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Scores(NamedTuple):
    """What a confusion matrix says. NaN where nothing was counted."""

    mean_iou: float
    """Mean of `iou` over the classes that are labelled or predicted anywhere."""
    iou: np.ndarray
    """[K] intersection over union of each class: counted pixels that are labelled and predicted so, over those that are either."""
    accuracy: float
    """Share of the counted pixels whose class is right."""
    class_accuracy: np.ndarray
    """[K] share of each class's labelled pixels that are predicted so."""
    share: np.ndarray
    """[K] share of the counted pixels that carry this label."""


def zero(classes: int) -> dict[str, np.ndarray]:
    """Nothing counted yet: {'counts': int64 [K, K]}, row: label, column: prediction."""
    if classes < 1:
        raise ValueError(f"classes is {classes}: give at least 1")
    return {"counts": np.zeros((classes, classes), np.int64)}


def add(sums: dict[str, np.ndarray], labels: np.ndarray, predictions: np.ndarray, void: int | None = None) -> dict[str, np.ndarray]:
    """The sums with the pixels of these maps counted too; pixels labelled `void` are not counted.

    Args:
      sums: from ``zero`` or another ``add``; not changed.
      labels: whole numbers, any shape.
      predictions: whole numbers of the same shape, in 0..K-1 wherever the label is not `void`.
      void: a label that stands for 'not known'; it may lie outside 0..K-1.

    Raises:
      ValueError: shapes that differ, values that are not whole numbers, or a class outside 0..K-1.
    """
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    classes = len(sums["counts"])
    if labels.shape != predictions.shape:
        raise ValueError(f"labels of shape {labels.shape} and predictions of shape {predictions.shape} cannot be compared pixel by pixel")
    for name, values in (("labels", labels), ("predictions", predictions)):
        if values.dtype.kind not in "iu":
            raise ValueError(f"{name} have dtype {values.dtype}: give class numbers (integers)")
    labels, predictions = labels.reshape(-1).astype(np.int64), predictions.reshape(-1).astype(np.int64)
    if void is not None:
        counted = labels != void
        labels, predictions = labels[counted], predictions[counted]
    for name, values in (("label", labels), ("prediction", predictions)):
        if values.size and (values.min() < 0 or values.max() >= classes):
            wrong = values.min() if values.min() < 0 else values.max()
            raise ValueError(f"{name} {wrong} is none of the {classes} classes (0..{classes - 1}); name the void label if it is one")
    counts = np.bincount(labels * classes + predictions, minlength=classes * classes).reshape(classes, classes)
    return {"counts": sums["counts"] + counts}


def merge(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The sums of both. ValueError where they count different numbers of classes."""
    if first["counts"].shape != second["counts"].shape:
        raise ValueError(f"matrices of {len(first['counts'])} and {len(second['counts'])} classes cannot be merged")
    return {"counts": first["counts"] + second["counts"]}


def read(sums: dict[str, np.ndarray]) -> Scores:
    """Scores of what was counted (IoU as in the PASCAL VOC challenge, Everingham et al., IJCV 2010: TP / (TP + FP + FN))."""
    counts = sums["counts"].astype(np.float64)
    right, labelled, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
    iou = _ratio(right, labelled + predicted - right)
    there = ~np.isnan(iou)
    total = counts.sum()
    return Scores(
        mean_iou=float(iou[there].mean()) if there.any() else float("nan"),
        iou=iou,
        accuracy=float(right.sum() / total) if total else float("nan"),
        class_accuracy=_ratio(right, labelled),
        share=_ratio(labelled, np.full_like(labelled, total)),
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def table(scores: Scores, names: tuple[str, ...]) -> str:
    """The scores as lines of text: one for each class, then the means."""
    if len(names) != len(scores.iou):
        raise ValueError(f"{len(names)} names for {len(scores.iou)} classes")
    width = max(map(len, (*names, "mean IoU")))
    lines = [f"{'class':{width}}      IoU  accuracy  share of pixels"]
    for name, iou, accuracy, share in zip(names, scores.iou, scores.class_accuracy, scores.share, strict=True):
        cells = [f"{value:.4f}" if np.isfinite(value) else "-" for value in (iou, accuracy)]
        lines.append(f"{name:{width}}  {cells[0]:>7}  {cells[1]:>8}  {100 * share:14.3f}%")
    lines.append(f"{'mean IoU':{width}}  {scores.mean_iou:7.4f}  {scores.accuracy:8.4f} of the pixels are right")
    return "\n".join(lines)
