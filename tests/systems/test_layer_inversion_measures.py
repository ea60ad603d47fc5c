"""Measures of inversions against numbers that are known."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgan.systems import layer_inversion_measures as measures
from jaxgan.systems.layer_inversion_search import Inverted


def test_errors_of_pixels_and_their_ratio_in_decibels():
    real = np.zeros((2, 4, 4, 3), np.float32)
    fake = real + np.array([0.2, 0], np.float32)[:, None, None, None]
    np.testing.assert_allclose(measures.pixel_error(real, fake), [4, 0], rtol=1e-6)
    np.testing.assert_allclose(measures.psnr(real, fake), [20, np.inf], rtol=1e-6)


def test_the_error_of_an_activation_is_that_of_directions():
    real = np.array([[[[3, 0], [0, 2]]], [[[1, 1], [0, 0]]]], np.float64)
    fake = np.array([[[[5, 0], [7, 0]]], [[[-2, -2], [1, 0]]]], np.float64)
    np.testing.assert_allclose(measures.activation_error(real, fake), [50, 150])
    with pytest.raises(ValueError, match="two of"):
        measures.activation_error(real, fake[0])


def test_correlations_are_pearson_s():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(2, 3, 4, 5))
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(real, fake, strict=True)]
    np.testing.assert_allclose(measures.correlations(real, fake), expected, rtol=1e-12)
    assert measures.correlation(real, fake) == pytest.approx(np.corrcoef(real.ravel(), fake.ravel())[0, 1])
    assert measures.correlation(real, 2 * real + 1) == pytest.approx(1)
    assert np.isnan(measures.correlations(real, np.ones_like(fake))).all()


def test_a_table_of_several_batches_is_the_mean_over_photos():
    def result(images, latents):
        images, latents = np.asarray(images, np.float32), np.asarray(latents, np.float32)
        count = len(images)
        return Inverted("d", latents, latents, {}, {"r": images}, images, images, images * 0, {}, np.zeros(count), np.zeros(count, bool))

    rng = np.random.default_rng(1)
    images, latents, truth = rng.uniform(-1, 1, (3, 2, 2, 3)), rng.normal(size=(3, 7)), rng.normal(size=(3, 7))
    batches = [
        measures.measure(result(images[part], latents[part]), {"z": truth[part], "r": images[part]}, "r")
        for part in (slice(2), slice(2, 3))
    ]
    found = measures.summarise(batches)
    assert found["pixel_error"] == pytest.approx(100 * np.square(images).mean(), rel=1e-6)
    assert found["activation_error"] == pytest.approx(0, abs=1e-5)
    assert found["correlation_activation"] == pytest.approx(1)
    assert found["correlation_z"] == pytest.approx(measures.correlations(truth, latents).mean(), abs=1e-6)
    assert np.isnan(found["correlation_pixels"])  # black photos
    with pytest.raises(ValueError, match="different measures"):
        measures.summarise([batches[0], {"psnr": np.zeros(1)}])
