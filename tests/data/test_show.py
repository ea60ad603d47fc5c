"""`jaxgan data show`: a sheet that holds the images of the set, and facts that were counted."""

import numpy as np
import pytest
from PIL import Image

from jaxgan import configure
from jaxgan.data import pipeline
from jaxgan.data.scenes import CLASSES, draw_scene
from jaxgan.data.show import DrawnScenes, contact_sheet, show


def test_the_sheet_holds_images_beside_their_labels_and_the_facts_are_counts(tmp_path):
    data = configure.Data(root=str(tmp_path), count=24)
    facts = show(data, (16, 16, 3), tmp_path / "new" / "sheet.png", n=6)
    assert facts["count"] == 24 and facts["size"] == [16, 16, 3]
    labels = np.stack([draw_scene(i, 16, 16)[1] for i in range(24)])
    for k, name in enumerate(CLASSES):
        assert facts["classes"][name]["pixels"] == pytest.approx((labels == k).mean())
        assert facts["classes"][name]["images"] == pytest.approx((labels == k).any((1, 2)).mean())
    sheet = np.asarray(Image.open(tmp_path / "new" / "sheet.png"))
    assert sheet.shape == (3 * 98 + 2, 4 * 98 + 2, 3)  # 6 pairs, 16 px enlarged to 96, 2 px between
    np.testing.assert_array_equal(sheet[2:98:6, 2:98:6], draw_scene(0, 16, 16)[0])
    np.testing.assert_array_equal(sheet[2:98:6, 198:294:6], draw_scene(4, 16, 16)[0])


@pytest.mark.parametrize("split", ["train", "test"])
def test_scenes_drawn_to_be_shown_are_those_of_the_set(tmp_path, split):
    data = configure.Data(root=str(tmp_path), count=17, periodic=True, without=("boat", "person", "car"), split=split)
    drawn = DrawnScenes(data, (16, 32, 3))
    assert not list(tmp_path.iterdir())
    prepared = pipeline.open_source(data, (16, 32, 3), labels=True)
    assert len(drawn) == len(prepared)
    for i in range(len(drawn)):
        for name in ("image", "label"):
            np.testing.assert_array_equal(drawn[i][name], prepared[i][name])


def test_grey_and_transparent_tiles_are_shown_on_white():
    grey = contact_sheet(np.full((3, 4, 4, 1), 7, np.uint8), columns=2, gap=1)
    assert grey.shape == (11, 11, 3) and (grey[1:5, 1:5] == 7).all() and (grey[6:10, 6:10] == 255).all()
    clear = np.zeros((1, 4, 4, 4), np.uint8)
    assert (contact_sheet(clear, columns=1) == 255).all()


def test_an_empty_sheet_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1 image"):
        show(configure.Data(root=str(tmp_path)), (16, 16, 3), tmp_path / "sheet.png", n=0)
