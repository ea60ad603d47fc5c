"""Swap measures against loops in float64 and known numbers."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgan.metrics import swap


def images(n: int = 3, side: int = 9, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, side, side, 3))


def test_psnr_is_20_db_for_a_difference_of_a_tenth_and_infinite_for_equal_images():
    flat = np.full((2, 4, 4, 3), 0.5)
    np.testing.assert_allclose(swap.psnr(flat, flat + 0.1), 20.0)
    assert np.isinf(swap.psnr(flat, flat)).all()


def test_the_squared_error_on_minus_one_to_one_is_four_times_that_on_zero_to_one():
    a, b = images(seed=1), images(seed=2)
    np.testing.assert_allclose(swap.squared_error(2 * a - 1, 2 * b - 1), 4 * swap.squared_error(a, b))


def test_ssim_is_a_loop_over_windows_of_seven_pixels():
    a, b = images(seed=1), images(seed=2)
    expected = np.zeros(3)
    for n in range(3):
        values = []
        for top in range(3):
            for left in range(3):
                for c in range(3):
                    x = a[n, top : top + 7, left : left + 7, c].ravel()
                    y = b[n, top : top + 7, left : left + 7, c].ravel()
                    cov = np.cov(x, y)
                    light = (2 * x.mean() * y.mean() + 1e-4) / (x.mean() ** 2 + y.mean() ** 2 + 1e-4)
                    values.append(light * (2 * cov[0, 1] + 9e-4) / (cov[0, 0] + cov[1, 1] + 9e-4))
        expected[n] = np.mean(values)
    np.testing.assert_allclose(swap.ssim(a, b), expected, rtol=1e-10)
    np.testing.assert_allclose(swap.ssim(a, a), 1.0)


def test_the_foreground_error_sees_nothing_outside_the_mask():
    a = images()
    b = a + 0.25
    mask = np.zeros((3, 9, 9), bool)
    mask[:2, 2:4, 3:6] = True
    b[~mask] += 5
    found = swap.foreground_error(a, b, mask)
    np.testing.assert_allclose(found[:2], 0.25)
    assert np.isnan(found[2])


def test_block_errors_find_the_block_that_is_wrong_and_their_mean_is_the_whole_error():
    a = images(side=8)
    b = a.copy()
    b[1, 4:6, 2:4] += 0.5
    found = swap.block_errors(a, b, 4)
    assert found.shape == (3, 4, 4)
    assert found[1, 2, 1] == pytest.approx(0.5) and np.count_nonzero(found > 1e-12) == 1
    np.testing.assert_allclose(found.mean((1, 2)), swap.absolute_error(a, b))
    with pytest.raises(ValueError, match="3 x 3 blocks"):
        swap.block_errors(a, b, 3)


def test_a_copy_is_nearer_to_its_source_and_the_truth_is_no_copy():
    truth, source = images(seed=1), images(seed=2)
    fake = np.stack([source[0], truth[1], (0.4 * source + 0.6 * truth)[2]])
    assert swap.copied(fake, truth, source).tolist() == [True, False, False]


def test_angles_are_compared_around_the_circle():
    np.testing.assert_allclose(swap.angle_error([0.1, np.pi, -3.0, 7.0], [2 * np.pi, -np.pi, 3.0, 7.0]), [5.7296, 0, 16.2254, 0], atol=1e-4)


def test_positions_are_measured_in_pixels():
    np.testing.assert_allclose(swap.position_error([[0.0, 0.5], [0.3, 0.4]], [[0.0, 0.0], [0.0, 0.0]], 64), [16.0, 16.0])


def test_leak_is_zero_at_chance_and_one_for_a_probe_that_is_right():
    assert swap.leak(0.125, 0.125) == 0 and swap.leak(1.0, 0.125) == 1 and swap.leak(0.5, 0.25) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="one class"):
        swap.leak(1.0, 1.0)


def test_r2_of_the_mean_is_zero_and_of_the_truth_one():
    truth = np.random.default_rng(0).normal(size=(20, 2))
    predicted = np.stack([truth[:, 0], np.full(20, truth[:, 1].mean())], 1)
    np.testing.assert_allclose(swap.r2(truth, predicted), [1, 0], atol=1e-12)
    assert np.isnan(swap.r2(np.ones((4, 1)), np.zeros((4, 1)))).all()


def test_retrieval_is_a_loop_over_sorted_distances_without_the_query_itself():
    rng = np.random.default_rng(3)
    codes, labels = rng.normal(size=(30, 4)), rng.integers(0, 8, 30)
    labels[0] = 99  # alone: no query
    precisions, firsts = [], []
    for q in range(30):
        others = [i for i in range(30) if i != q]
        others.sort(key=lambda i: np.linalg.norm(codes[i] - codes[q]))
        right = [rank for rank, i in enumerate(others, 1) if labels[i] == labels[q]]
        if right:
            precisions.append(np.mean([(k + 1) / rank for k, rank in enumerate(right)]))
            firsts.append(right[0])
    found = swap.retrieval(codes, labels, block=7)
    assert found["map"] == pytest.approx(np.mean(precisions)) and found["queries"] == len(firsts) < 30
    for rank in (1, 2, 5, 10):
        assert found[f"top{rank}"] == pytest.approx(np.mean(np.array(firsts) <= rank))


def test_a_query_is_not_compared_with_images_of_its_own_part():
    rng = np.random.default_rng(4)
    labels, part = np.repeat(np.arange(6), 8), np.repeat(np.arange(12), 4)
    codes = rng.normal(size=(12, 3))[part] + 0.01 * rng.normal(size=(48, 3))  # alike within a part, and nothing else
    assert swap.retrieval(codes, labels)["top1"] == 1
    precisions, firsts = [], []
    for q in range(48):
        others = [i for i in range(48) if part[i] != part[q]]
        others.sort(key=lambda i: np.linalg.norm(codes[i] - codes[q]))
        right = [rank for rank, i in enumerate(others, 1) if labels[i] == labels[q]]
        precisions.append(np.mean([(k + 1) / rank for k, rank in enumerate(right)]))
        firsts.append(right[0])
    found = swap.retrieval(codes, labels, block=7, apart=part)
    assert found["map"] == pytest.approx(np.mean(precisions)) and found["top1"] == np.mean(np.array(firsts) <= 1) < 0.6


def test_retrieval_of_codes_that_are_their_identity_is_perfect_and_singles_are_refused():
    labels = np.repeat(np.arange(5), 3)
    found = swap.retrieval(np.eye(5)[labels], labels)
    assert found["map"] == found["top1"] == 1
    with pytest.raises(ValueError, match="two images of an identity"):
        swap.retrieval(np.eye(5), np.arange(5))


def test_images_that_do_not_pair_or_are_bytes_are_refused():
    with pytest.raises(ValueError, match="do not pair"):
        swap.psnr(images(2), images(3))
    with pytest.raises(ValueError, match="floats"):
        swap.ssim(images().astype(np.uint8), images())
    with pytest.raises(ValueError, match="at least 7 px"):
        swap.ssim(images(side=6), images(side=6))
