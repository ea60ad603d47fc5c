"""`jaxgan segment`: the files hold what the segmenter said, and scores are those of the source's own labels."""

from __future__ import annotations

import io
import json
import sys
import types

import numpy as np
import pytest
from PIL import Image

from jaxgan.__main__ import main
from jaxgan.data.pairs import import_pairs

COLOURS = np.asarray([[20, 20, 20], [120, 120, 120], [230, 230, 230]], np.uint8)


def by_brightness(images):
    return (images.mean(-1) // 86).astype(int)


by_brightness.classes = ("dark", "grey", "bright")


@pytest.fixture(autouse=True)
def module(monkeypatch):
    own = types.ModuleType("own_segmenter")
    own.label = by_brightness
    monkeypatch.setitem(sys.modules, "own_segmenter", own)
    return own


@pytest.fixture
def pairs(tmp_path):
    """Eleven pairs of blocks; in pair 0 the label map is wrong in one quarter, in pair 1 void in one half. Classes in another order."""
    for i in range(11):
        true = np.random.default_rng(i).integers(0, 3, (4, 4)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
        label = 2 - true  # names below are turned round too
        if i == 0:
            label[:8, :8] = (label[:8, :8] + 1) % 3
        if i == 1:
            label[:8] = 7
        for kind, array in (("images", COLOURS[true]), ("maps", label)):
            out = io.BytesIO()
            Image.fromarray(array).save(out, "PNG")
            path = tmp_path / kind / f"deep/{i:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(out.getvalue())
    import_pairs(
        tmp_path / "images", tmp_path / "set", tmp_path / "maps", size=(16, 16), classes=("bright", "grey", "dark"), void=7
    )
    return tmp_path / "set"


def test_label_maps_overlays_and_scores(pairs, tmp_path, capsys):
    assert main(["segment", "own_segmenter:label", "--data", str(pairs), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    # 11 images of 256 pixels less 128 void ones, 64 wrong.
    counted = 11 * 256 - 128
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["accuracy"] == pytest.approx((counted - 64) / counted)
    assert "mean IoU" in said and f"{scores['mean_iou']:.4f}" in said
    assert sum(scores["area"].values()) == pytest.approx(1)
    for i in (0, 1, 10):
        true = np.random.default_rng(i).integers(0, 3, (4, 4)).repeat(4, 0).repeat(4, 1)
        with Image.open(tmp_path / "out" / "labels" / "deep" / f"{i:02d}.png") as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), true)
        with Image.open(tmp_path / "out" / "overlays" / "deep" / f"{i:02d}.png") as image:
            assert image.size == (3 * 16 + 4, 16)  # image, found, true
            np.testing.assert_array_equal(np.asarray(image)[:, :16], COLOURS[true])


def test_void_pixels_of_label_maps_are_a_class_after_the_others(pairs, tmp_path):
    from jaxgan import sources
    from jaxgan.segmenters import open_segmenter
    from jaxgan.systems import seeing, seeing_tally

    images = sources.open_images(pairs)
    assert images.classes == ("bright", "grey", "dark", "void")
    rows = seeing_tally.tally(images, open_segmenter("labels"), seeing.class_names(open_segmenter("labels"), images, images))
    np.testing.assert_array_equal(rows[:, 3], 0.5 * (np.arange(11) == 1))
    assert main(["segment", "labels", "--data", str(pairs), "--out", str(tmp_path / "out"), "--pictures", "none"]) == 0
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["area"]["void"] == pytest.approx(0.5 / 11)
    assert seeing.is_nothing(3, "void") and not seeing.is_nothing(3, "other")  # what nobody named cannot be missing


def test_a_source_without_labels_gets_areas(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for name, size in (("a.png", (16, 16)), ("b.jpg", (30, 20))):  # sizes may differ
        Image.new("RGB", size, (240, 240, 240)).save(tmp_path / "photos" / name)
    words = ["segment", "own_segmenter:label", "--data", str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--pictures", "labels"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "bright  100.000%" in said.replace("   ", " ").replace("  ", "  ") or "100.000%" in said
    assert "No scores" in said
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["labels", "scores.json"]
    with Image.open(tmp_path / "out" / "labels" / "b.png") as image:
        assert image.size == (30, 20) and set(np.asarray(image).ravel()) == {2}
    assert main(words) == 2 and "not an empty folder" in capsys.readouterr().err


def test_scenes_own_labels_are_all_right(tmp_path, capsys):
    assert main(["segment", "labels", "--data", "scenes:16", "--n", "5", "--out", str(tmp_path / "out"), "--pictures", "none"]) == 0
    assert "sky" in capsys.readouterr().out and not (tmp_path / "out" / "labels").exists()


def test_names_cannot_lead_out_of_the_folder():
    from jaxgan.segment import _file_name

    taken: set[str] = set()
    assert _file_name("a/b.jpg", 0, taken) == "a/b.png"
    assert _file_name("a/b.png", 1, taken) == "image_000001.png"
    assert _file_name(f"{80 * '写'}.png", 3, taken) == "image_000003.png"  # 240 bytes: no room for the ending of a temporary file
    for name in ("../x.png", "/etc/x.png", "a/../../x.png", "a//b.png", ".png/../x"):
        assert _file_name(name, 2, taken).startswith("image_") or ".." not in _file_name(name, 2, taken)


def test_a_failure_leaves_nothing(tmp_path, module, capsys):
    module.label = lambda images: np.full(images.shape[:3], 5)
    module.label.classes = ("a", "b")
    out = tmp_path / "out"
    assert main(["segment", "own_segmenter:label", "--data", "scenes:16", "--n", "2", "--out", str(out)]) == 2
    assert "label 5, but it has 2 classes" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main(["segment", "own_segmenter:label", "--data", "scenes:16", "--out", str(out), "--pictures", "some"]) == 2
    assert "pictures is 'some'" in capsys.readouterr().err


def test_folders_that_cannot_be_replaced_are_refused_at_once(tmp_path, monkeypatch, capsys):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    words = ["segment", "own_segmenter:label", "--data", "scenes:16", "--n", "2", "--out"]
    for out, text in ((".", "is the current folder"), ("gs://bucket/labels", "gs://bucket/labels is not a folder of this machine")):
        assert main([*words, out]) == 2
        assert text in capsys.readouterr().err and not list(here.iterdir())
    words[3] = str(tmp_path / "here")
    assert main([*words, str(tmp_path)]) == 2 and "holds the source" in capsys.readouterr().err


class Labelled:
    """A source of one image with any label map."""

    spec, classes, has_labels, facts, one = "own", ("dark", "grey", "bright"), True, {}, np.zeros((4, 4), int)

    def __len__(self):
        return 1

    def __getitem__(self, i):
        return np.zeros((4, 4, 3), np.uint8)

    def label(self, i):
        return self.one

    def name(self, i):
        return "one.png"


@pytest.mark.parametrize("segmenter", ["own_segmenter:label", "labels"])
@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (np.full((4, 4), 300), "label 300 is none of the 3 classes"),
        (np.full((4, 4), 70_000), "holds 70000; labels are numbers from 0 to 65535"),
        (np.full((4, 4), -1), "holds -1"),
        (np.zeros((4, 4, 3), np.uint8), r"its label map is uint8 \[4, 4, 3\]; integers \[height, width\]"),
        (np.zeros((4, 4)), "its label map is float64"),
    ],
)
def test_label_maps_that_are_none_are_named(segmenter, labels, text, tmp_path, monkeypatch):
    from jaxgan import sources
    from jaxgan.segment import segment

    source = Labelled()
    source.one = labels
    monkeypatch.setattr(sources, "open_images", lambda *arguments, **options: source)
    with pytest.raises(ValueError, match=text):
        segment(segmenter, "own", tmp_path / "out", pictures="none")
    assert not list(tmp_path.iterdir())
