"""`jaxgan data show`: a sheet that holds the images of the set, and facts that were counted."""

import numpy as np
import pytest
from PIL import Image

from jaxgan import configure
from jaxgan.__main__ import main
from jaxgan.data import clips, figures, pipeline
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


def tile(sheet, row, column, side, zoom):
    """One tile of a sheet of square frames, at its own size."""
    y, x = (2 + k * (side * zoom + 2) for k in (row, column))
    return sheet[y : y + side * zoom : zoom, x : x + side * zoom : zoom]


def test_clips_are_rows_their_frames_columns_and_figures_are_drawn_without_a_set_on_disk(tmp_path, capsys):
    out, root = tmp_path / "sheet.png", tmp_path / "sets"
    assert main(["data", "show", "figures", "--size", "32", "--out", str(out), "--count", "48"]) == 0
    said = capsys.readouterr().out
    for fact in ("clips: 2400", "frames: 16", "groups: 600", "size: [32, 32, 3]", "identity: shape 4, body 8, accent 8, pattern 3"):
        assert fact in said
    sheet = np.asarray(Image.open(out))
    assert sheet.shape == (3 * 98 + 2, 16 * 98 + 2, 3)
    facts = figures.facts("train", 2400)
    for row, column in ((0, 0), (1, 5), (2, 15)):
        image, _ = figures.render(facts.identity[row * 200], facts.pose[row * 200, column], 32)  # 600 identities, four clips of each
        np.testing.assert_array_equal(tile(sheet, row, column, 32, 3), image)
    data = configure.Data(source="figures", root=str(root), count=10, ground="frame", split="test")
    drawn, prepared = (clips.open_clips(data, (32, 32, 3), drawn=drawn) for drawn in (True, False))
    assert len(drawn) == len(prepared) == 8 and drawn.digest == prepared.digest
    for i in range(8):
        np.testing.assert_array_equal(drawn.frames(i), prepared.frames(i))


def test_clips_of_different_lengths_are_shown_from_end_to_end(tmp_path, monkeypatch):
    frames = [np.random.default_rng(k).integers(0, 200, (length, 96, 96, 3), dtype=np.uint8) for k, length in enumerate((40, 5))]
    mixed = clips.Clips(lambda i: (frames[i], None), [40, 5], (96, 96, 3), name="mixed", digest="", group=[0, 1])
    monkeypatch.setattr(clips, "names_clips", lambda source: True)
    monkeypatch.setattr(clips, "open_clips", lambda data, image, drawn: mixed)
    facts = show(configure.Data(source="mixed"), (96, 96, 3), tmp_path / "sheet.png", n=64)
    assert facts == {"source": "mixed", "split": "train", "clips": 2, "frames": "5 to 40", "groups": 2, "size": [96, 96, 3]}
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * 98 + 2, 16 * 98 + 2, 3)
    np.testing.assert_array_equal(tile(sheet, 0, 15, 96, 1), frames[0][37])
    np.testing.assert_array_equal(tile(sheet, 1, 4, 96, 1), frames[1][4])
    assert (tile(sheet, 1, 5, 96, 1) == 255).all()


def test_an_imported_folder_of_clips_is_shown_at_its_own_size(tmp_path, capsys):
    pictures = np.random.default_rng(0).integers(0, 256, (2, 5, 24, 24, 3), dtype=np.uint8)
    for k, frames in enumerate(pictures):
        (tmp_path / "in" / f"s{k}").mkdir(parents=True)
        for t, frame in enumerate(frames):
            Image.fromarray(frame).save(tmp_path / "in" / f"s{k}" / f"{t}.png")
    imported = str(tmp_path / "clips")
    assert main(["data", "import", str(tmp_path / "in"), imported, "--size", "24", "--clips", "--length", "5"]) == 0
    assert main(["data", "show", imported, "--out", str(tmp_path / "sheet.png")]) == 0
    assert "clips: 2\nframes: 5\ngroups: 2\nsize: [24, 24, 3]\n" in capsys.readouterr().out
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (2 * 98 + 2, 5 * 98 + 2, 3)
    np.testing.assert_array_equal(tile(sheet, 1, 3, 24, 4), pictures[1, 3])


def test_clips_that_cannot_be_opened_leave_no_sheet(tmp_path):
    with pytest.raises(FileNotFoundError, match="sprites_components.npz is not there"):
        show(configure.Data(source=f"sprites:{tmp_path}"), (64, 64, 3), tmp_path / "sheet.png")
    assert not list(tmp_path.iterdir())
