"""Segmentation statistics against the published tool's values, and a table that must find what is missing and nothing else."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxgan.metrics import frechet, segments

CASES = ["well", "singular_dropped", "fewer_than_dims", "identical", "const_second", "two_class", "longtail"]


@pytest.fixture(scope="module")
def published(golden):
    return np.load(golden / "seeing_fsd.npz", allow_pickle=False)


@pytest.fixture(scope="module")
def tallies(golden):
    return np.load(golden / "seeing_tally.npz", allow_pickle=False)


@pytest.mark.parametrize("case", CASES)
def test_fsd_equals_the_published_tool(published, case):
    real, fake = published[f"{case}/a"], published[f"{case}/b"]
    found = segments.fsd(real, fake)
    expected = published[f"{case}/fsd_mean_cov"]
    if case == "identical":
        assert abs(found.raw) < 1e-4 and found.total == max(found.raw, 0)
    else:
        np.testing.assert_allclose(found[:3], expected, rtol=1e-6)
        np.testing.assert_allclose(found.total, published[f"{case}/fsd_eigh"], rtol=1e-6)
    rows = [r.astype(np.float64) * 100 for r in (real, fake)]
    by_moments = frechet.distance(*((r.mean(axis=0), np.cov(r.T)) for r in rows))
    np.testing.assert_allclose(by_moments[:3], np.maximum(expected, 0), rtol=1e-6, atol=1e-4)
    assert found.rank_deficient == (case == "fewer_than_dims")
    if f"{case}/cov_a" in published.files:
        np.testing.assert_allclose(np.cov(rows[0].T), published[f"{case}/cov_a"], rtol=1e-9, atol=1e-9)


def test_tally_and_subsets_equal_the_published_tool(tallies):
    orders = [segments.subset_order(60, 40, seed) for seed in (1, 2)]
    np.testing.assert_array_equal(orders[0], tallies["subset_order"])
    np.testing.assert_array_equal(orders[1], tallies["subset_order_seed2"])
    found = [segments.tally(tallies[name][orders[0], 0], 336) for name in ("stack_a", "stack_b")]
    np.testing.assert_allclose(found[0], tallies["tally_a"], atol=1e-6)
    np.testing.assert_allclose(found[1], tallies["tally_b"], atol=1e-6)
    np.testing.assert_allclose(segments.fsd(*found)[:3], tallies["fsd_mean_cov"], rtol=1e-6)
    np.testing.assert_array_equal(segments.tally(tallies["stack_a"][:5, 0], 336) * 256, tallies["batch_bincount_objects_a"])


@pytest.mark.parametrize("bars", [30, 8])
def test_figure_equals_the_published_tool(tallies, bars):
    real, fake = tallies["tally_a"], tallies["tally_b"]
    expected = {key: tallies[f"hist{bars}/{key}"] for key in ("names_json", "train", "gen", "delta", "ylim_top", "ylim_bottom", "xlim")}
    words = json.loads(str(tallies["hist30/names_json"]))
    # The file holds no class list: the classes get the published words by their areas, and a second word to be cut off.
    names = ["-"] + ["absent"] * 335
    for word, area in zip(words, tallies["hist30/train"], strict=True):
        names[int(np.argmin(np.abs(real.mean(axis=0)[1:] * 100 - area))) + 1] = f"{word} thing"
    found = segments.histogram(real, fake, names, ["object"] * 336, labelcount=bars)
    assert list(found.names) == json.loads(str(expected["names_json"]))
    for key in ("train", "gen", "delta", "ylim_top", "ylim_bottom", "xlim"):
        np.testing.assert_allclose(getattr(found, key), expected[key], rtol=1e-4, err_msg=key)
    assert [list(text) for text in found.overflow] == json.loads(str(tallies[f"hist{bars}/overflow_text_json"]))


def test_figure_leaves_out_null_materials_and_what_is_not_real_and_lifts_every_second_text():
    areas = np.array([0.3, 0.2, 0.1, 0.05, 0.04, 0.03, 0.0])
    grown = np.array([0.0, 0.1, 0.1, 0.2, 0.2, 0.2, 0.2])
    categories = ["object", "object", "material", *["object"] * 4]
    found = segments.histogram(np.tile(areas, (2, 1)), np.tile(grown, (2, 1)), list("nabcdef"), categories)
    assert found.names == tuple("acde") and found.index == (1, 3, 4, 5)
    np.testing.assert_allclose(found.delta, [-0.5, 3, 4, 17 / 3])
    assert found.overflow == ((1, 1.15, "3.0"), (2, 1.25, "4.0"), (3, 1.15, "5.7"))


def test_every_map_is_divided_by_its_own_size():
    found = segments.tally([np.array([[0, 1], [1, 2]]), np.zeros((3, 5), np.uint8)], 4)
    np.testing.assert_array_equal(found, [[0.25, 0.5, 0.25, 0], [1, 0, 0, 0]])


def scenes(seed: int, n: int, drop: int | None = None, extra: bool = False) -> np.ndarray:
    """Tallies of made-up scenes: background, 14 independent classes from common and large to rare and small, one that reals never hold."""
    rng = np.random.default_rng(seed)
    k = np.arange(14)
    areas = (rng.random((n, 14)) < 0.9 * 0.85**k) * rng.gamma(2.0, 0.02 * 0.8**k, (n, 14))
    if drop is not None:
        areas[:, drop] = 0
    last = (rng.random((n, 1)) < 0.1) * 0.01 if extra else np.zeros((n, 1))
    areas = np.concatenate([areas, last], axis=1)
    return np.concatenate([1 - areas.sum(axis=1, keepdims=True), areas], axis=1)


NAMES = ["background", *(f"class {c}" for c in range(14)), "dream"]


@pytest.mark.parametrize("drop", [3, 9])
def test_the_table_singles_out_the_class_that_was_left_out(drop):
    real, fake = scenes(1, 700), scenes(2, 600, drop, extra=True)
    table = segments.class_table(real, fake, NAMES, resamples=400)
    assert [row.name for row in segments.missing(table)] == [f"class {drop}"]
    row = table[drop + 1]
    assert row.delta == -1 and row.delta_interval == (-1, -1) and row.difference_interval[1] < 0
    assert row.frequency_real > 0.05 and row.frequency_fake == 0
    # The background grows by what is gone, and may be told; no other class may.
    significant = {r.name for r in table if r.significant} - {"background"}
    assert significant == {f"class {drop}", "dream"}
    dream = table[-1]
    assert dream.fake_only and dream.delta is None and dream.delta_interval is None
    assert dream.frequency_fake == pytest.approx((fake[:, -1] > 0).mean()) and not table[0].fake_only


def test_the_numbers_of_the_table_are_what_they_say():
    real, fake = scenes(3, 300), scenes(4, 400, drop=2)
    table = segments.class_table(real, fake, NAMES, resamples=2000, level=0.9)
    mean_real, mean_fake = 100 * real.mean(axis=0), 100 * fake.mean(axis=0)
    np.testing.assert_allclose([r.real for r in table], mean_real)
    np.testing.assert_allclose([r.fake for r in table], mean_fake)
    np.testing.assert_allclose([r.difference for r in table], mean_fake - mean_real, atol=1e-12)
    np.testing.assert_allclose([r.delta for r in table[:15]], (mean_fake - mean_real)[:15] / mean_real[:15])
    np.testing.assert_allclose([r.share for r in table], np.square(mean_fake - mean_real) / segments.fsd(real, fake).mean, atol=1e-12)
    np.testing.assert_allclose([r.frequency_real for r in table], (real > 0.001).mean(axis=0))
    errors = 100 * np.sqrt(real.var(axis=0) / 300 + fake.var(axis=0) / 400)
    np.testing.assert_allclose([np.diff(r.difference_interval)[0] for r in table], 2 * 1.6449 * errors, rtol=0.1, atol=1e-12)
    blank = table[-1]  # in neither set
    assert (blank.delta, blank.delta_interval, blank.difference_interval, blank.p, blank.fake_only) == (None, None, (0, 0), 1, False)


def test_a_class_in_one_real_image_is_not_called_missing():
    real, fake = scenes(5, 100), scenes(6, 100)
    real[7, -1], real[7, 0] = 0.1, real[7, 0] - 0.1
    table = segments.class_table(real, fake, NAMES, resamples=300)
    assert table[-1].delta == -1 and not table[-1].significant
    assert segments.missing(table) == []
    # Without any fake image of it every resample that holds it loses all, and those that lack it lose nothing.
    assert table[-1].delta_interval == (-1, 0)
    swapped = segments.class_table(fake, real, NAMES, resamples=300)
    assert swapped[-1].fake_only and not swapped[-1].significant


def test_equal_tallies_and_tallies_of_one_class_have_nothing_to_report():
    real = scenes(7, 60)
    assert not any(r.significant for r in segments.class_table(real, real, NAMES, resamples=100))
    ones = np.ones((5, 1))
    (only,) = segments.class_table(ones, ones, ["all"], resamples=50)
    assert (only.share, only.delta, only.p, only.significant) == (0, 0, 1, False)
    assert segments.fsd(ones, ones).total == 0


def test_the_interval_of_fsd_is_about_fsd_and_as_wide_as_theory():
    # One class whose mean moves by 20 %: FSD is about the squared difference, its error about 2 |difference| times that of the mean.
    rng = np.random.default_rng(0)
    real, fake = rng.uniform(0.2, 0.4, (500, 1)), rng.uniform(0.4, 0.6, (400, 1))
    found = segments.bootstrap_fsd(real, fake, resamples=600)
    value = segments.fsd(real, fake).total
    error = 2 * np.sqrt(value) * 100 * np.sqrt(real.var() / 500 + fake.var() / 400)
    assert found.low < value < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.12)
    same = segments.bootstrap_fsd(scenes(1, 80), scenes(2, 80), resamples=50)
    assert same.low >= 0 and same.bias > 0
    assert segments.bootstrap_fsd(np.zeros((3, 2)), np.zeros((3, 2)), resamples=5)[:2] == (0, 0)


def test_the_floor_falls_with_the_number_of_images_and_lies_below_a_real_difference():
    real = scenes(1, 800)
    half, tenth = segments.floor(real), segments.floor(real, images=80)
    assert half.images == 400 and len(half.values) == 10
    assert half.mean == pytest.approx(np.mean(half.values)) and half.spread == pytest.approx(np.std(half.values, ddof=1))
    assert 2 < tenth.mean / half.mean < 12  # 5 where it falls as 1 / images
    assert half.mean + 3 * half.spread < segments.fsd(real, scenes(2, 800, drop=0)).total
    assert segments.floor(real) == half
    assert segments.self_comparison(real, 800).total < 1e-6 < segments.self_comparison(real, 400).total
    chosen = [real[segments.subset_order(800, 300, seed)] for seed in (1, 2)]
    assert segments.self_comparison(real, 300) == segments.fsd(*chosen)


def test_wrong_input_is_named():
    good = scenes(1, 9)
    with pytest.raises(ValueError, match="map 1 holds the label 4; 4 classes have the labels 0 to 3"):
        segments.tally(np.stack([np.zeros((2, 2), int), np.full((2, 2), 4)]), 4)
    with pytest.raises(ValueError, match="map 0 holds the label -1"):
        segments.tally(np.full((1, 2, 2), -1), 4)
    with pytest.raises(ValueError, match="map 0 is float64"):
        segments.tally(np.zeros((1, 2, 2)), 4)
    with pytest.raises(ValueError, match="real tally has 16 classes and the fake one 15"):
        segments.fsd(good, good[:, 1:])
    with pytest.raises(ValueError, match="fake tally is not area fractions"):
        segments.fsd(good, good * 100)
    with pytest.raises(ValueError, match="real tally is not area fractions"):
        segments.fsd(good * np.nan, good)
    with pytest.raises(ValueError, match="real set has 1 row"):
        segments.fsd(good[:1], good)
    with pytest.raises(ValueError, match="fake tally has no images"):
        segments.fsd(good, good[:0])
    with pytest.raises(ValueError, match="3 class names for 16 columns"):
        segments.class_table(good, good, ["a", "b", "c"])
    with pytest.raises(ValueError, match="level 95"):
        segments.class_table(good, good, NAMES, level=95)
    with pytest.raises(ValueError, match="10 divisions of 3 real images into parts of 1"):
        segments.floor(good[:3])
    with pytest.raises(ValueError, match="15 names, 16 categories, 30 bars for 16 classes"):
        segments.histogram(good, good, NAMES[1:], ["object"] * 16)
