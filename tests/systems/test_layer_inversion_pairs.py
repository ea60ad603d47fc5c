"""Pairs of photo and reconstruction: areas equal to counts by hand, the classes lost, and a sheet that shows what the maps hold."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgan.systems import layer_inversion_pairs as pairs
from jaxgan.systems import seeing_gallery, seeing_overlay

NAMES = ("void", "sky", "boat", "hat", "sea")


@pytest.fixture(scope="module")
def maps() -> tuple[np.ndarray, np.ndarray]:
    """16x16: a boat of 12 pixels that vanishes, a hat of 8 that loses 3, sky that becomes sea in places, void that grows."""
    photo = np.full((16, 16), 1)
    photo[10:] = 4
    photo[9:12, 2:6] = 2
    photo[0:2, 0:4] = 3
    result = np.full((16, 16), 1)
    result[11:] = 4
    result[0, 0:4], result[1, 0] = 3, 3
    result[15, :5] = 0
    return photo, result


def test_the_table_of_areas_is_what_counting_gives(maps):
    photo, result = maps
    entries = pairs.table(photo, result, NAMES)
    assert [entry.change for entry in entries] == sorted(entry.change for entry in entries)
    assert {entry.name for entry in entries} == set(NAMES)
    for entry in entries:
        a, b = (photo == entry.label), (result == entry.label)
        assert entry.name == NAMES[entry.label]
        expected = (a.mean(), b.mean(), b.mean() - a.mean(), (a & ~b).mean(), (b & ~a).mean())
        np.testing.assert_allclose([entry.photo, entry.result, entry.change, entry.gone, entry.new], expected, atol=1e-12)
    assert abs(sum(entry.change for entry in entries)) < 1e-12


def test_a_class_is_lost_when_more_than_half_of_it_is_gone_and_there_was_enough(maps):
    photo, result = maps
    assert [entry.name for entry in pairs.table(photo, result, NAMES) if entry.lost] == ["boat"]  # 12 of 12; the hat keeps 5 of 8
    result = np.where(result == 3, 1, result)
    assert {entry.name for entry in pairs.table(photo, result, NAMES) if entry.lost} == {"boat", "hat"}
    large = np.ones((64, 64), int)
    speck = large.copy()
    speck[0, :4] = 2  # 4 of 4,096 pixels: below a thousandth of the image
    assert not any(entry.lost for entry in pairs.table(speck, large, NAMES))
    speck[0, :5] = 2
    assert [entry.name for entry in pairs.table(speck, large, NAMES) if entry.lost] == ["boat"]
    assert not any(entry.lost for entry in pairs.table(np.where(speck == 2, 0, speck), large, NAMES))  # void is no class


def test_the_mask_marks_lost_classes_and_other_changes(maps):
    photo, result = maps
    picture = pairs.mask(photo, result, pairs.table(photo, result, NAMES))
    np.testing.assert_array_equal(picture == 255, photo == 2)
    np.testing.assert_array_equal(picture == 128, (photo != result) & (photo != 2))
    with pytest.raises(ValueError, match="one size"):
        pairs.table(photo, result[:4], NAMES)


@pytest.mark.parametrize("size", [(16, 16), (24, 48), (500, 400)])
def test_the_sheet_holds_both_images_and_their_maps_in_one_palette(size):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, *size, 3)).astype(np.uint8)
    labels = rng.integers(0, 5, (2, size[0] // 2, size[1] // 2))
    picture = pairs.sheet(*images, *labels, NAMES)
    where = pairs.places(*size)
    height, width = where.size
    assert max(where.size) <= pairs.SIDE and (max(size) >= pairs.SIDE or height % size[0] == 0)
    for image, one, left in zip(images, labels, where.lefts, strict=True):
        shown = picture[where.tops[0] : where.tops[0] + height, left : left + width]
        np.testing.assert_array_equal(shown, seeing_gallery.enlarge(image, pairs.SIDE))
        drawn = picture[where.tops[1] : where.tops[1] + height, left : left + width]
        np.testing.assert_array_equal(drawn, seeing_overlay.zoom(seeing_overlay.palette()[one] * (one > 0)[..., None], where.size))


def test_the_legend_names_what_was_lost_in_its_own_colour_however_small():
    names = tuple(f"class {k}" for k in range(60))
    rng = np.random.default_rng(1)
    result = rng.integers(1, 40, (64, 64))
    photo = result.copy()
    photo[0, :8] = 55  # lost, and rarer than all others
    picture = pairs.sheet(*np.zeros((2, 64, 64, 3), np.uint8), photo, result, names)
    below = picture[pairs.places(64, 64).tops[1] + pairs.SIDE :]
    assert (below == seeing_overlay.palette()[55]).all(-1).sum() == pairs.SWATCH**2
    shown = [k for k in range(1, 40) if (below == seeing_overlay.palette()[k]).all(-1).sum() == pairs.SWATCH**2]
    assert shown == sorted(label for label, _ in seeing_overlay.legend(np.stack([photo, result]), names, pairs.SIDE // 17))


def test_photos_are_ranked_by_what_they_lost_of_a_class(maps):
    photo, result = maps
    other = np.where(photo == 2, 1, photo)
    half = np.where((photo == 2) & (np.arange(16) < 4), 1, photo)  # loses 6 of 12 pixels: not more than half
    tables = {name: pairs.table(a, b, NAMES) for name, a, b in (("a", photo, half), ("b", photo, result), ("c", other, photo))}
    rows = pairs.ranking(tables, "boat")
    assert [(row["photo"], row["lost"]) for row in rows] == [("b", True), ("a", False)]  # c had no boat
    np.testing.assert_allclose([row["loss"] for row in rows], [12 / 256, 6 / 256])
    first = pairs.summary(tables)[0]
    assert (first["class"], first["photos"], first["lost"]) == ("boat", 2, 1)
    np.testing.assert_allclose([first["area"], first["result"]], [24 / 256 / 3, 18 / 256 / 3])
