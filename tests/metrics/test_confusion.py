"""Confusion matrices against counting pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgan.metrics import confusion


def maps(seed, shape=(3, 6, 7), classes=5, void=None):
    rng = np.random.default_rng(seed)
    labels, predictions = rng.integers(0, classes, (2, *shape))
    if void is not None:
        labels[rng.random(shape) < 0.3] = void
    return labels, predictions


def count(labels, predictions, classes, void):
    matrix = np.zeros((classes, classes), int)
    for label, prediction in zip(labels.ravel(), predictions.ravel(), strict=True):
        if label != void:
            matrix[label, prediction] += 1
    return matrix


@pytest.mark.parametrize("void", [None, 2, 11, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_counts_are_those_of_a_loop(void, dtype):
    labels, predictions = maps(0, void=void)
    sums = confusion.add(confusion.zero(5), labels.astype(dtype), predictions.astype(dtype), void)
    np.testing.assert_array_equal(sums["counts"], count(labels, predictions, 5, void))


def test_scores_by_hand():
    # Class 0: 3 right, 1 called 1. Class 1: 2 right, 2 called 0. Class 2: never labelled nor predicted. Class 3: one label, called 0.
    labels = np.asarray([0, 0, 0, 0, 1, 1, 1, 1, 3])
    predictions = np.asarray([0, 0, 0, 1, 1, 1, 0, 0, 0])
    scores = confusion.read(confusion.add(confusion.zero(4), labels, predictions))
    np.testing.assert_allclose(scores.iou, [3 / 7, 2 / 5, np.nan, 0])
    np.testing.assert_allclose(scores.class_accuracy, [3 / 4, 2 / 4, np.nan, 0])
    np.testing.assert_allclose(scores.share, [4 / 9, 4 / 9, 0, 1 / 9])
    assert scores.mean_iou == pytest.approx((3 / 7 + 2 / 5) / 3) and scores.accuracy == pytest.approx(5 / 9)
    text = confusion.table(scores, ("sky", "road", "moon", "car"))
    assert "0.4286" in text and "moon" in text and f"{(3 / 7 + 2 / 5) / 3:.4f}" in text


def test_merged_shards_are_one_pass_and_the_parts_stay_as_they_were():
    labels, predictions = maps(1, shape=(8, 5, 5), void=4)
    whole = confusion.add(confusion.zero(5), labels, predictions, 4)
    first = confusion.add(confusion.zero(5), labels[:3], predictions[:3], 4)
    kept = first["counts"].copy()
    second = confusion.add(confusion.add(confusion.zero(5), labels[3:5], predictions[3:5], 4), labels[5:], predictions[5:], 4)
    np.testing.assert_array_equal(confusion.merge(first, second)["counts"], whole["counts"])
    np.testing.assert_array_equal(first["counts"], kept)


def test_nothing_counted_is_not_a_score():
    scores = confusion.read(confusion.add(confusion.zero(3), np.full((2, 2), 9), np.zeros((2, 2), int), 9))
    assert np.isnan(scores.mean_iou) and np.isnan(scores.accuracy)


def test_what_cannot_be_counted_is_named():
    zero = confusion.zero(3)
    with pytest.raises(ValueError, match="label 3 is none of the 3 classes"):
        confusion.add(zero, np.asarray([3]), np.asarray([0]))
    with pytest.raises(ValueError, match="prediction -1"):
        confusion.add(zero, np.asarray([0]), np.asarray([-1]))
    with pytest.raises(ValueError, match="cannot be compared"):
        confusion.add(zero, np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(ValueError, match="float64"):
        confusion.add(zero, np.zeros(2), np.zeros(2, int))
    with pytest.raises(ValueError, match="3 and 4 classes"):
        confusion.merge(zero, confusion.zero(4))
