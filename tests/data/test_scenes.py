"""Scenes: the same index is the same landscape, panoramas close, labels fit the picture, and no two are alike."""

import hashlib

import numpy as np
import pytest

from jaxgan.data import drawers, scenes
from jaxgan.data.canvas import Canvas
from jaxgan.data.scenes import CLASSES, RARE, draw_scene


@pytest.fixture(scope="module")
def thousand():
    """A thousand images and label maps of 32x32."""
    drawn = [draw_scene(index, 32, 32) for index in range(1000)]
    return np.stack([image for image, _ in drawn]), np.stack([labels for _, labels in drawn])


def test_an_index_is_one_landscape_and_another_seed_is_another():
    image, labels = draw_scene(12345, 32, 48)
    again, labels_again = draw_scene(12345, 32, 48)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(labels, labels_again)
    assert (draw_scene(12345, 32, 48, seed=1)[0] != image).mean() > 0.2
    assert (draw_scene(12346, 32, 48)[0] != image).mean() > 0.2


@pytest.mark.parametrize("size", [(16, 16), (16, 64), (64, 16), (33, 47), (96, 200)])
@pytest.mark.parametrize("periodic", [False, True])
def test_any_size_gives_bytes_of_that_size(size, periodic):
    for index in range(8):
        image, labels = draw_scene(index, *size, periodic=periodic)
        assert image.shape == (*size, 3) and image.dtype == np.uint8
        assert labels.shape == size and labels.dtype == np.uint8 and 0 < labels.min() and labels.max() < len(CLASSES)


def test_the_same_landscape_at_another_size():
    for index in range(20):
        small, small_labels = draw_scene(index, 32, 32)
        large, large_labels = draw_scene(index, 96, 96)
        averaged = large.reshape(32, 3, 32, 3, 3).mean((1, 3))
        assert np.abs(averaged - small).mean() < 4
        assert (large_labels[1::3, 1::3] == small_labels).mean() > 0.95


@pytest.mark.parametrize("height,width", [(32, 96), (64, 64), (48, 33)])
def test_a_periodic_scene_turned_by_whole_pixels_is_the_rolled_image(monkeypatch, height, width):
    """Everything is drawn k pixels further right, around the corner where need be: exactly the image rolled by k."""

    class Turned(Canvas):
        turn = 0

        def _offsets(self, left, right):
            move = self.turn * self.factor
            return [offset + move for offset in super()._offsets(left + move, right + move)]

    for index in range(12):
        plain = draw_scene(index, height, width, periodic=True)
        for turn in (1, 7, width // 2, width - 1):
            Turned.turn = turn
            with monkeypatch.context() as patch:
                patch.setattr(scenes, "Canvas", Turned)
                turned = draw_scene(index, height, width, periodic=True)
            np.testing.assert_array_equal(turned[0], np.roll(plain[0], turn, axis=1))
            np.testing.assert_array_equal(turned[1], np.roll(plain[1], turn, axis=1))


def test_the_wrap_seam_is_no_worse_than_inner_seams_and_a_plain_scene_has_one():
    def ratio(periodic):
        images = np.stack([draw_scene(index, 32, 64, periodic=periodic)[0] for index in range(150)]).astype(float)
        steps = np.abs(np.roll(images, -1, axis=2) - images).mean((0, 1, 3))
        return steps[-1] / steps[:-1].mean()

    assert ratio(True) < 1.15
    assert ratio(False) > 1.5


def test_labels_name_what_is_seen(thousand):
    images, labels = thousand
    colour = {name: images[labels == k].mean(0) for k, name in enumerate(CLASSES) if name != "void"}
    red, green, blue = 0, 1, 2
    assert colour["sky"][blue] > colour["sky"][red] + 20
    assert colour["water"][blue] > colour["water"][red] + 30
    assert colour["sun"][red] > 200 and colour["sun"][red] > colour["sun"][blue] + 80
    assert colour["moon"].min() > 150
    for name in ("grass", "hill"):
        assert colour[name][green] == colour[name].max()
    assert np.ptp(colour["road"]) < 30
    assert colour["window"].sum() > colour["road"].sum()
    # Sky is above, ground below.
    assert (labels[:, :8] == CLASSES.index("sky")).mean() > 0.6 and (labels[:, 24:] == CLASSES.index("sky")).mean() == 0


def test_edges_are_smooth_in_the_image_and_crisp_in_the_labels():
    image, labels = draw_scene(3, 64, 64)
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 300
    assert len(np.unique(labels)) <= len(CLASSES)


def test_rare_classes_are_small_rare_and_there(thousand):
    _, labels = thousand
    for name in RARE:
        holds = (labels == CLASSES.index(name)).any((1, 2))
        assert 0.04 < holds.mean() < 0.16, name
        assert 0.0003 < (labels == CLASSES.index(name)).mean() < 0.006, name
    common = {name: (labels == CLASSES.index(name)).any((1, 2)).mean() for name in ("sky", "grass", "tree", "house", "sun")}
    assert min(common.values()) > 0.7, common


@pytest.mark.parametrize("periodic", [False, True])
def test_a_withheld_class_is_gone_and_the_rest_of_the_landscape_stays(periodic):
    boat, met = CLASSES.index("boat"), 0
    for index in range(60):
        whole, labels = draw_scene(index, 48, 48, periodic=periodic)
        image, left = draw_scene(index, 48, 48, periodic=periodic, without=("boat",))
        assert not (left == boat).any()
        np.testing.assert_array_equal(left[labels != boat], labels[labels != boat])
        # pixels beside a boat have a part of it, those further away nothing
        around = np.pad(labels == boat, 1, mode="wrap")
        near = np.any([around[down : down + 48, across : across + 48] for down in range(3) for across in range(3)], 0)
        np.testing.assert_array_equal(image[~near], whole[~near])
        if near.any():
            met += 1
            assert (image != whole).any()
    assert met >= 2


def test_only_the_small_things_can_be_withheld():
    assert not np.isin(draw_scene(7, 32, 32, without=RARE)[1], [CLASSES.index(name) for name in RARE]).any()
    for names in (("grass",), ("boat", "boats")):
        with pytest.raises(ValueError, match="without '(grass|boats)'; they can without person, car, fence, boat, sign"):
            draw_scene(0, 32, 32, without=names)


def _hashes(indices):
    return {hashlib.blake2b(draw_scene(index, 16, 16)[0].tobytes(), digest_size=16).digest() for index in indices}


def test_no_two_of_two_thousand_are_alike():
    """A world of only 50,000 images would show 40 pairs among 2,000 draws; none is seen (chance e^-40)."""
    assert len(_hashes(range(0, 2000 * 25, 25))) == 2000


@pytest.mark.slow
def test_fifty_thousand_distinct_images():
    pngs = drawers.draw_pngs(50_000, 16, 16, periodic=False, seed=0, processes=drawers.processes_for(50_000))
    assert len({hashlib.blake2b(image, digest_size=16).digest() for image, _ in pngs}) == 50_000


@pytest.mark.parametrize("arguments", [(0, 15, 32), (0, 32, 1025), (-1, 32, 32)])
def test_sizes_and_numbers_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="scenes are"):
        draw_scene(*arguments)
