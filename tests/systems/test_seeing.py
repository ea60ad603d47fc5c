"""`jaxgan seeing`: it singles out what was left out, says nothing of what was not, resumes, and refuses what it cannot compare."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from jaxgan import sources, viz
from jaxgan.data import scenes
from jaxgan.metrics import segments
from jaxgan.systems import seeing, seeing_files, seeing_gallery, seeing_tally

PERSON = scenes.CLASSES.index("person")


class Segmenter(NamedTuple):
    """As `jaxgan.segmenters` makes them."""

    name: str
    classes: tuple[str, ...]
    label: Callable[[np.ndarray], np.ndarray] | None = None
    size: tuple[int, int] | None = None
    identity: str = "0"


LABELS = Segmenter("labels", ())


@pytest.fixture(scope="module")
def landscapes() -> tuple[sources.Images, sources.Images]:
    """Scenes at 32 px, 700 as real and, of 700 others, those without people as fake."""
    everything = sources.open_images("scenes:32", n=1400)
    fake = [i for i in range(700, 1400) if not (everything.label(i) == PERSON).any()]
    return everything.take(range(700)), everything.take(fake)


@pytest.fixture(scope="module")
def without_people(landscapes, tmp_path_factory) -> tuple[dict[str, Any], Path]:
    out = tmp_path_factory.mktemp("report") / "new"
    return seeing.seeing(*landscapes, LABELS, out, seeing.Settings(images=3)), out


def test_people_that_were_left_out_are_singled_out_and_nothing_else(without_people) -> None:
    report, _ = without_people
    assert [entry["name"] for entry in report["classes"] if entry["verdict"]] == ["person"]
    person = next(entry for entry in report["classes"] if entry["name"] == "person")
    assert person["verdict"] == "missing" and person["delta"] == -1 and person["interval"] == [-1, -1] and person["p"] < 0.05
    assert [line["class"] for line in report["headline"]] == ["person"]
    assert report["headline"][0]["text"].startswith("missing: person: 0.1") and "−100 %" in report["headline"][0]["text"]
    assert report["galleries"][0]["name"] == "person"
    fsd = report["fsd"]
    low, high = fsd["interval"]
    assert low <= fsd["total"] <= high and fsd["total"] == pytest.approx(fsd["mean"] + fsd["covariance"])


def test_the_same_source_twice_takes_other_images_and_finds_nothing() -> None:
    report, _, _ = seeing.report("scenes:32", "scenes:32", LABELS, seeing.Settings(n=300, images=1))
    assert "seed 1" in report["protocol"]["real"]["selection"] and "seed 2" in report["protocol"]["fake"]["selection"]
    assert report["protocol"]["real"]["sha256"] != report["protocol"]["fake"]["sha256"]
    assert not [entry["name"] for entry in report["classes"] if entry["verdict"]]
    assert report["headline"][0]["text"].startswith("nothing is missing") and not report["paired"]
    # The distance is of the size that the floor leads one to expect.
    size = report["fsd"]["total"] / report["fsd"]["floor"]["expected"]
    assert 0.3 < size < 3 and (size <= 1) == any("no larger than noise" in warning for warning in report["warnings"])


def test_the_choice_of_images_is_the_official_one() -> None:
    images = seeing.choose("scenes:32", 5, 1)
    assert [int(images.name(i)) for i in range(5)] == segments.subset_order(50_000, 5, 1)


def test_files_say_the_same_as_the_report(without_people) -> None:
    report, out = without_people
    assert json.loads((out / "report.json").read_text()) == json.loads(json.dumps(report))
    table = {row["name"]: row for row in csv.DictReader((out / "classes.csv").read_text().splitlines())}
    assert table["person"]["verdict"] == "missing" and float(table["person"]["interval_high"]) == -1
    lines = list(csv.DictReader((out / "images.csv").read_text().splitlines()))
    assert len(lines) == report["protocol"]["real"]["images"] + report["protocol"]["fake"]["images"]
    mean = np.mean([float(line["person"]) for line in lines if line["side"] == "real"])
    assert mean == pytest.approx(float(table["person"]["real"]), rel=1e-3)
    tile = report["galleries"][0]["images"][0]
    mask = viz.read_png(out / "images" / f"{tile['views'][0]['plain'].removesuffix('-plain')}-mask.png")
    assert 100 * (mask > 0).mean() == pytest.approx(tile["area"]) and tile["area"] >= report["galleries"][0]["images"][1]["area"]
    assert viz.read_png(out / "figure.png").shape[1] > 500 and not list(out.glob(".*"))


def test_a_folder_of_somebody_elses_report_is_left_alone(tmp_path) -> None:
    photo = tmp_path / "images" / "photo.png"
    photo.parent.mkdir()
    photo.write_bytes(b"mine")
    for text in ('{"passed": 3}', "[1]", '{"fsd": 1, "protocol": {"program": "another 1"}}', "no JSON"):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(ValueError, match="not empty and holds no earlier report"):
            seeing_files.check(tmp_path)
    assert photo.read_bytes() == b"mine"


def test_an_interrupted_report_leaves_no_folder_of_its_own_behind(without_people, tmp_path, monkeypatch) -> None:
    gallery = seeing_gallery.Gallery()
    gallery.files = {"a.png": b"", "b.png": b""}
    written = seeing_files.files.write_atomic

    def interrupted(path, data: bytes) -> None:
        if path.name == "b.png":
            raise KeyboardInterrupt
        written(path, data)

    monkeypatch.setattr(seeing_files.files, "write_atomic", interrupted)
    monkeypatch.setattr(seeing_files.seeing_page, "page", lambda report, pictures: "")
    report = {**without_people[0], "images": {"real": [], "fake": []}}
    with pytest.raises(KeyboardInterrupt):
        seeing_files.write(tmp_path, report, {"real": np.zeros((0, 64)), "fake": np.zeros((0, 64))}, gallery)
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "classes.csv", "images.csv"}


def test_a_line_of_pixels_is_framed_without_the_picture_it_would_become() -> None:
    line = np.zeros((2, 15_000_000, 3), np.uint8)
    for image in (line, line.transpose(1, 0, 2)):
        assert seeing_tally.frame(image, (448, 448)).shape == (448, 448, 3)
        assert seeing_tally.frame(image, (30, 70)).shape == (30, 70, 3)


def by_colour(pictures: np.ndarray) -> np.ndarray:
    """Reddish pixels are 'hat', bluish ones 'sky', the rest 'void'."""
    red, blue = pictures[..., 0].astype(int), pictures[..., 2].astype(int)
    return np.where(red > blue + 60, 2, np.where(blue > red + 60, 1, 0)).astype(np.int32)


def write_images(folder: Path, count: int, hat: Callable[[int], int], *, name: str = "photo{:03d}.png") -> Path:
    """Blue images with a red square of side `hat(i)` in the middle."""
    from PIL import Image

    folder.mkdir(parents=True)
    size = (20, 24)
    for i in range(count):
        pixels = np.full((*size, 3), (20, 60 + i, 200), np.uint8)
        side = hat(i)
        top, left = (size[0] - side) // 2, (size[1] - side) // 2
        pixels[top : top + side, left : left + side] = (220, 30, 40)
        Image.fromarray(pixels).save(folder / name.format(i))
    return folder


COLOURS = Segmenter("colours", ("void", "sky", "hat"), by_colour, (16, 16), "abc")


def test_label_0_is_left_out_where_it_stands_for_nothing_and_shown_where_it_is_a_class(tmp_path: Path) -> None:
    real, fake = write_images(tmp_path / "real", 20, lambda i: 8), write_images(tmp_path / "fake", 20, lambda i: 0, name="f{}.png")
    shown = {}
    for first in ("void", "road", "class 0", "label 0"):
        segmenter = COLOURS._replace(label=lambda x: 2 - by_colour(x), classes=(first, "sky", "rest"), size=None)  # red is label 0
        report, _, _ = seeing.report(str(real), str(fake), segmenter, seeing.Settings(images=1))
        shown[first] = (report["histogram"]["classes"], [line["class"] for line in report["headline"]])
    assert "void" not in shown["void"][0] and "void" not in shown["void"][1]
    for first in ("road", "class 0", "label 0"):  # numbers are names of classes that nobody named, for instance of an exported network
        assert first.split()[0] in shown[first][0] and shown[first][1][0] == first


def test_bars_of_classes_that_share_their_first_word_have_the_whole_name() -> None:
    rows = np.tile([0.5, 0.3, 0.2], (4, 1))
    assert seeing._bars(rows, rows, ["class 0", "class 1", "sky, heaven"], 30).names == ("class 0", "class 1", "sky,")


def test_pairs_are_ranked_by_the_area_that_was_lost(tmp_path: Path) -> None:
    real = write_images(tmp_path / "real", 12, lambda i: i)
    fake = write_images(tmp_path / "fake", 12, lambda i: i if i < 9 else 2)
    settings = seeing.Settings(classes=("hat",), images=2, batch=5, paired="yes")
    report = seeing.seeing(str(real), str(fake), COLOURS, tmp_path / "out", settings)
    assert report["paired"] and [gallery["name"] for gallery in report["galleries"]] == ["hat"]
    tiles = report["galleries"][0]["images"]
    assert [tile["name"] for tile in tiles] == ["photo011.png", "photo010.png"] and tiles[0]["area"] > tiles[1]["area"] > 0
    assert tiles[0]["classes"][0]["class"] == "hat" and tiles[0]["classes"][0]["change"] == pytest.approx(-tiles[0]["area"])
    for paired in ("no", "auto"):  # photo000, photo001, ... may be anybody's
        assert not seeing.report(str(real), str(fake), COLOURS, seeing.Settings(paired=paired, images=1))[0]["paired"]


def test_names_that_only_count_are_no_pairs_unless_asked_for() -> None:
    for form in ("img_{:04d}.png", "cat/seed{}.jpg", "out-{:03d}_rgb.png"):
        counted = [form.format(i) for i in range(3)]
        assert seeing_gallery.pair_names(counted, counted, "auto") == [] and len(seeing_gallery.pair_names(counted, counted, "yes")) == 3
    folders = ["cat/001.png", "dog/001.png"]
    assert seeing_gallery.pair_names(folders, folders, "auto") == []
    streets = ["0001TP_006690.png", "0006R0_f00930.png", "Seq05VD_f00000.png"]
    assert len(seeing_gallery.pair_names(streets, streets, "auto")) == 3
    numbers = [f"{i:05d}.png" for i in range(3)]
    assert seeing_gallery.pair_names(numbers, numbers, "auto") == []
    assert seeing_gallery.pair_names(numbers, numbers[::-1], "yes") == [(0, 2), (1, 1), (2, 0)]
    assert seeing_gallery.pair_names(["a.png", "b.png"], ["b.jpg", "a.jpg"], "auto") == [(0, 1), (1, 0)]
    assert seeing_gallery.pair_names(["a.png", "b.png"], ["b.jpg"], "auto") == []
    with pytest.raises(ValueError, match="no image of the real source"):
        seeing_gallery.pair_names(["a.png"], ["b.png"], "yes")
    with pytest.raises(ValueError, match="'a' twice"):
        seeing_gallery.pair_names(["a.png", "a.jpg"], ["a.png"], "yes")


def test_framing_is_the_shorter_side_and_the_centre() -> None:
    ramp = np.broadcast_to(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], (30, 60, 3)).copy()
    assert (seeing_tally.frame(ramp, (30, 30)) == ramp[:, 15:45]).all()
    assert (seeing_tally.frame(ramp, None) == ramp).all()
    assert seeing_tally.frame(ramp, (64, 64)).shape == (64, 64, 3) and seeing_tally.frame(ramp, (7, 31)).shape == (7, 31, 3)
    turned = seeing_tally.frame(ramp.transpose(1, 0, 2), (30, 30))
    assert (turned == ramp[:, 15:45].transpose(1, 0, 2)).all()


def test_an_interrupted_tally_goes_on_and_a_whole_one_segments_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(seeing_tally, "PART", 8)
    images = sources.open_images(str(write_images(tmp_path / "images", 21, lambda i: i % 9)))
    seen: list[int] = []

    def failing(pictures: np.ndarray) -> np.ndarray:
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(len(pictures))
        return by_colour(pictures)

    plain = seeing_tally.tally(images, COLOURS, COLOURS.classes, batch=3)
    cache = tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        seeing_tally.tally(images, COLOURS._replace(label=failing), COLOURS.classes, batch=3, cache=cache)
    assert len(list(cache.rglob("*.npz"))) == 1  # 12 images were segmented; parts of 8 are kept
    seen.clear()
    counting = COLOURS._replace(label=lambda pictures: seen.append(len(pictures)) or by_colour(pictures))
    told: list[str] = []
    assert (seeing_tally.tally(images, counting, COLOURS.classes, batch=3, cache=cache, say=told.append) == plain).all()
    assert sum(seen) == 15 and "8 of 21 images were segmented before" in told[0]  # 13 are left: 5 batches of 3
    seen.clear()
    assert (seeing_tally.tally(images, counting, COLOURS.classes, batch=3, cache=cache) == plain).all() and not seen
    # A damaged part is computed again; another segmenter, framing or content is another tally.
    damaged = sorted(cache.rglob("*.npz"))[1]
    damaged.write_bytes(damaged.read_bytes()[:-40])
    assert (seeing_tally.tally(images, counting, COLOURS.classes, batch=8, cache=cache) == plain).all() and seen == [8]
    for other in (counting._replace(identity="other"), counting._replace(size=(8, 8))):
        seen.clear()
        seeing_tally.tally(images, other, COLOURS.classes, batch=8, cache=cache)
        assert sum(seen) == 24


def test_classes_that_only_the_generator_draws_are_named(tmp_path: Path) -> None:
    real, fake = write_images(tmp_path / "real", 30, lambda i: 0), write_images(tmp_path / "fake", 30, lambda i: i % 3 * 4, name="f{}.png")
    report, _, _ = seeing.report(str(real), str(fake), COLOURS, seeing.Settings(images=1))
    hat = next(entry for entry in report["classes"] if entry["name"] == "hat")
    assert hat["verdict"] == "only fake" and hat["delta"] is None and hat["real"] == 0 < hat["fake"]
    assert any(line["text"].startswith("only fake: hat: ") and "none in real" in line["text"] for line in report["headline"])
    assert report["histogram"]["classes"] == ["sky"]


def test_one_stray_pixel_is_in_the_table_and_makes_no_headline() -> None:
    real, fake = np.tile([0.5, 0.5, 0.0], (40, 1)), np.tile([0.5, 0.5, 0.0], (40, 1))
    real[::2] = fake[::2] = [0.4, 0.6, 0.0]
    fake[0] = [0.4 - 1e-4, 0.6, 1e-4]
    report = seeing.compare(real, fake, ["wall", "sky", "hat"], resamples=100)
    assert next(entry for entry in report["classes"] if entry["name"] == "hat")["verdict"] == "only fake"
    assert [line["kind"] for line in report["headline"]] == ["none"] and "none is shown to differ" in report["headline"][0]["text"]


def test_what_cannot_be_compared_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    good = str(write_images(tmp_path / "good", 4, lambda i: i))
    one, none = write_images(tmp_path / "one", 1, lambda i: i), tmp_path / "none"
    none.mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("mine")
    cases = [
        ((good, str(one), COLOURS), {}, "one holds 1 image; at least 2"),
        ((str(none), good, COLOURS), {}, "none holds no image"),
        ((good, str(tmp_path / "absent"), COLOURS), {}, "absent"),
        ((good, "scenes:32", LABELS), {}, "good holds no label maps"),
        ((good, good, COLOURS), {"classes": ("hats",)}, "there is no class 'hats' among the 3 of the segmenter; nearest: hat"),
        ((good, good, COLOURS), {"n": 1}, "n is 1; it must be at least 2"),
        ((good, good, COLOURS), {"paired": "maybe"}, "paired is 'maybe'"),
    ]
    for arguments, options, said in cases:
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            seeing.seeing(*arguments, tmp_path / "out", seeing.Settings(**options))
        assert not (tmp_path / "out").exists()
    for remote in ("gs://bucket/report", Path("gs://bucket/report")):
        with pytest.raises(ValueError, match="gs:/+bucket/report is not a folder of this machine"):
            seeing.seeing(str(tmp_path / "absent"), good, COLOURS, remote)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="cannot write to .*file/report.*: name another folder with --out"):
        seeing.seeing(good, good, COLOURS, tmp_path / "file" / "report")
    with pytest.raises(ValueError, match="is not empty and holds no earlier report"):
        seeing.seeing(good, good, COLOURS, tmp_path / "full")
    assert (tmp_path / "full" / "precious.txt").read_text() == "mine" and len(list((tmp_path / "full").iterdir())) == 1


def test_label_maps_of_different_classes_are_refused(landscapes) -> None:
    content = landscapes[0]._content._replace(classes=("void", "sky"))
    other = sources.Images("other", content, range(4), {})
    with pytest.raises(ValueError, match="different classes cannot be compared: .* has 19 classes .* has 2 classes"):
        seeing.report(landscapes[0], other, LABELS, seeing.Settings())


def test_a_segmenter_that_answers_nonsense_is_named(tmp_path: Path) -> None:
    folder = str(write_images(tmp_path / "real", 4, lambda i: i))
    for label, said in (
        (lambda x: by_colour(x) + 7, "segmenter colours: label map 0 holds the label"),
        (lambda x: by_colour(x).astype(np.float32), "the segmenter colours gives float32"),
        (lambda x: by_colour(x)[0], "it must give integers"),
    ):
        with pytest.raises(ValueError, match=said):
            seeing.report(folder, folder, COLOURS._replace(label=label), seeing.Settings())


def test_an_earlier_report_is_replaced_whole(tmp_path: Path) -> None:
    folder = str(write_images(tmp_path / "real", 6, lambda i: i))
    settings = seeing.Settings(n=3, classes=("hat",), images=2)
    seeing.seeing(folder, folder, COLOURS, tmp_path / "out", settings)
    before = {path.relative_to(tmp_path) for path in (tmp_path / "out").rglob("*")}
    seeing.seeing(folder, folder, COLOURS, tmp_path / "out", seeing.Settings(n=3, classes=("sky",), images=1))
    after = {path.relative_to(tmp_path) for path in (tmp_path / "out").rglob("*")}
    assert Path("out/images/002-hat") in before - after and Path("out/images/001-sky") in after
    assert len(list((tmp_path / "out" / "images").iterdir())) == 1
