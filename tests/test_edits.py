"""Edits of codes: the formulas of the paper, exactly, on numbers that are easy to follow."""

import numpy as np
import pytest

from jaxgan import edits

RNG = np.random.default_rng(0)
A, B, C = RNG.normal(size=(3, 6, 4)).astype(np.float32)


def test_a_morph_is_linear_and_its_ends_are_the_codes():
    shares = np.float32([0, 0.25, 0.5, 1, 1.5])
    found = np.asarray(edits.morph(A, B, shares))
    np.testing.assert_array_equal(found[[0, 3]], [A, B])
    expected = A.astype(float) + shares.astype(float)[:, None, None] * (B.astype(float) - A)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_array_equal(edits.morph(A, B, 0.25), found[1])


def test_a_crossover_takes_the_first_rows_of_the_first_code():
    np.testing.assert_array_equal(edits.crossover(A, B, 2), np.concatenate([A[:2], B[2:]]))
    np.testing.assert_array_equal(edits.crossover(A, B, 0), B)
    np.testing.assert_array_equal(edits.crossover(np.stack([A, C]), B, 6), [A, C])


def test_a_transfer_leaves_out_the_rows_that_hardly_differ():
    neutral, expressive = B, B.copy()
    expressive[1] += [0.6, 0, 0, 0.8]  # norm 1
    expressive[2] += [0, 0.5, 0.5, 0]  # 0.71
    expressive[4] += [3, 0, 4, 0]  # 5
    moved = np.asarray(edits.transfer(A, neutral, expressive, 2.0, 0.99))
    np.testing.assert_allclose(moved - A, 2 * (expressive - neutral) * np.float32([0, 1, 0, 0, 1, 0])[:, None], atol=1e-5)
    for all_rows in (None, 0.0):
        np.testing.assert_allclose(edits.transfer(A, neutral, expressive, 1.0, all_rows), A + expressive - neutral, atol=1e-6)
    np.testing.assert_array_equal(edits.transfer(A, neutral, expressive, 1.0, 5.1), A)
    by_strength = edits.transfer(A, neutral, expressive, np.float32([0, 2]), 0.99)
    np.testing.assert_allclose(by_strength, [A, moved], atol=1e-6)


def test_mixing_copies_the_rows_that_are_named():
    expected = A.copy()
    expected[[0, 5]] = B[[0, 5]]
    np.testing.assert_array_equal(edits.mix(A, B, (0, 5)), expected)


@pytest.mark.parametrize("psi", [-1.0, 0.0, 0.7, 1.0])
def test_truncation_goes_towards_the_mean_code_and_through_it(psi):
    mean = C[0]
    np.testing.assert_allclose(edits.truncate(A, mean, psi), mean + psi * (A - mean), atol=1e-6)


def test_the_bands_of_a_generator_of_1024_px_are_those_of_the_papers_figure():
    sides = [4 << (i // 2) for i in range(18)]
    assert edits.style_rows(sides) == {"coarse": (0, 1, 2, 3), "middle": (4, 5, 6, 7), "fine": tuple(range(8, 18))}
    assert edits.style_rows(sides[:6]) == {"coarse": (0, 1, 2, 3), "middle": (4, 5)}
