"""Label maps as pictures: equal to the official renderer's, legible, and true to the pixels that a pair does not share."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jaxgan.systems import seeing_overlay as overlay


@pytest.fixture(scope="module")
def visual(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "seeing_visual.npz"))


def test_rendering_is_the_official_one(visual) -> None:
    maps, colours = visual["seg"], visual["palette"]
    assert (overlay.render(maps, colours) == visual["rgb"]).all()
    assert (overlay.render(maps[0], colours) == visual["rgb_single"]).all()
    assert (overlay.render(maps, colours, size=(48, 48)) == visual["rgb_zoom48"]).all()


def test_legend_border_and_truncation_are_the_official_ones(visual) -> None:
    names = [f"c{k}" for k in range(400)]
    assert [name for _, name in overlay.legend(visual["seg"], names)] == json.loads(visual["key_json"].item())
    assert (overlay.border(visual["mask"]) == visual["mask_border"]).all()
    assert (overlay.truncate(visual["x"]) == visual["x_bytes"]).all()


def test_a_label_alone_and_labels_beyond_the_palette() -> None:
    colours = overlay.palette(8)
    labels = np.array([[0, 1, 9], [9, 2, 2]])
    alone = overlay.render(labels, colours, single=9)
    assert (alone[labels == 9] == colours[1]).all() and (alone[labels != 9] == 0).all()
    with pytest.raises(ValueError, match="give"):
        overlay.render(np.zeros(3, int), colours)


def test_zoom_repeats_pixels_at_any_ratio() -> None:
    picture = np.arange(6).reshape(2, 3)
    assert overlay.zoom(picture, (4, 6)).tolist() == picture.repeat(2, 0).repeat(2, 1).tolist()
    assert overlay.zoom(picture, (3, 4)).tolist() == [[0, 0, 1, 2], [0, 0, 1, 2], [3, 3, 4, 5]]


def test_colours_are_black_for_nothing_and_all_different() -> None:
    colours = overlay.palette(256)
    assert colours[0].tolist() == [0, 0, 0] and len(np.unique(colours, axis=0)) == 256
    # The first twenty, those of a usual label set, are far apart in RGB too (largest possible distance: 441).
    early = colours[:20].astype(float)
    apart = np.sqrt(((early[:, None] - early[None]) ** 2).sum(-1))[~np.eye(20, dtype=bool)]
    assert apart.min() > 60
    with pytest.raises(ValueError, match="at most"):
        overlay.palette(100_000)


def test_highlight_keeps_the_class_and_darkens_the_rest() -> None:
    image = np.full((32, 32, 3), 200, np.uint8)
    mask = np.zeros((16, 16), bool)
    mask[4:8, 4:8] = True
    picture = overlay.highlight(image, mask)
    assert (picture[8:16, 8:16] == 200).all() and (picture[0, 0] == 100).all()
    assert (picture[7, 8] == overlay.OUTLINE).all() and (picture[6, 6] == overlay.OUTLINE).all() and (picture[5, 8] == 100).all()


def test_an_outline_changes_two_pixels_around_the_mask_alone() -> None:
    image = np.full((32, 32, 3), 200, np.uint8)
    mask = np.zeros((32, 32), bool)
    mask[8:16, 8:16] = True
    picture = overlay.outline(image, mask)
    line = np.zeros((32, 32), bool)
    line[6:18, 6:18] = True
    line[8:16, 8:16] = False
    np.testing.assert_array_equal((picture == overlay.OUTLINE).all(-1), line)
    assert (picture[~line] == 200).all() and (image == 200).all()


def test_tint_leaves_nothing_found_grey() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    labels = np.zeros((4, 4), int)
    labels[0] = 1
    picture = overlay.tint(image, labels, overlay.palette())
    assert (picture[2:] == picture[2:, :, :1]).all() and (picture[:2] != picture[:2, :, :1]).any()


def test_a_pair_says_what_was_lost() -> None:
    real, fake = np.array([[1, 1], [2, 0]]), np.array([[1, 2], [2, 0]])
    assert overlay.lost(real, fake, 1).tolist() == [[False, True], [False, False]]
    assert overlay.pair_table(real, fake, ("void", "hat", "hair", "rest")) == [("hat", 0.5, 0.25, -0.25), ("void", 0.25, 0.25, 0.0),
                                                                              ("hair", 0.25, 0.5, 0.25)]  # fmt: skip
    with pytest.raises(ValueError, match="one size"):
        overlay.lost(real, fake[:1], 1)
