"""Every kind of source reads alike: in order, at its own size, under a digest of its content; what cannot be one is named."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxgan import sources
from jaxgan.data.folders import import_folder
from jaxgan.data.scenes import CLASSES, draw_scene
from jaxgan.sources import open_images


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five images of several sizes and modes, one in a subfolder, and a file that is none."""
    home = tmp_path / "photographs"
    (home / "a").mkdir(parents=True)
    for name, shape in (("b.png", (9, 7, 3)), ("c.png", (4, 6)), ("a/z.png", (5, 5, 3)), ("d.png", (8, 8, 4)), ("e.png", (8, 8, 3))):
        Image.fromarray(noise(*shape, seed=ord(name[0]))).save(home / name)
    (home / "notes.txt").write_text("not an image")
    return home


def test_a_folder_is_read_in_the_order_of_a_sorted_walk_at_each_files_own_size(folder: Path) -> None:
    images = open_images(folder)
    assert [images.name(i) for i in range(len(images))] == ["b.png", "c.png", "d.png", "e.png", "a/z.png"]
    assert [images[i].shape for i in range(5)] == [(9, 7, 3), (4, 6, 3), (8, 8, 3), (8, 8, 3), (5, 5, 3)]
    np.testing.assert_array_equal(images[0], noise(9, 7, 3, seed=ord("b")))
    np.testing.assert_array_equal(images[1], np.repeat(noise(4, 6, seed=ord("c"))[..., None], 3, -1))
    assert images.label(0) is None and not images.has_labels


def test_the_digest_follows_content_names_and_selection_not_dates(folder: Path) -> None:
    before = open_images(folder).digest
    os.utime(folder / "b.png", (1, 1))
    assert open_images(str(folder)).digest == before and len(before) == 64
    assert open_images(folder, n=4).digest != before
    (folder / "b.png").rename(folder / "bb.png")
    assert open_images(folder).digest != before
    (folder / "bb.png").rename(folder / "b.png")
    Image.fromarray(noise(9, 7, 3, seed=1)).save(folder / "b.png")
    assert open_images(folder).digest != before


def test_n_takes_the_first_and_a_seed_the_published_shuffle(folder: Path) -> None:
    order = list(range(5))
    random.Random(2).shuffle(order)
    everything = open_images(folder)
    assert [open_images(folder, n=3).name(i) for i in range(3)] == ["b.png", "c.png", "d.png"]
    chosen = open_images(folder, n=3, seed=2)
    assert [chosen.name(i) for i in range(3)] == [everything.name(i) for i in order[:3]]
    assert "seed 2" in chosen.facts["selection"]


def test_an_imported_set_keeps_names_and_pixels_of_both_splits(folder: Path, tmp_path: Path) -> None:
    report = import_folder(folder, tmp_path / "set", size=(4, 4), upscale=True, test_share=0.5)
    train, test = open_images(tmp_path / "set"), open_images(tmp_path / "set", split="test")
    assert (len(train), len(test)) == (report.count, report.test_count)
    assert {images.name(i) for images in (train, test) for i in range(len(images))} == {"b.png", "c.png", "d.png", "e.png", "a/z.png"}
    assert train[0].shape == (4, 4, 3) and train.digest != test.digest
    with pytest.raises(ValueError, match="no split 'dev'.*it has: train"):
        open_images(tmp_path / "set", split="dev")


def test_scenes_come_with_their_labels_and_nothing_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAXGAN_DATA", str(tmp_path))
    images = open_images("scenes:32x48", n=3)
    image, labels = draw_scene(2, 32, 48)
    np.testing.assert_array_equal(images[2], image)
    np.testing.assert_array_equal(images.label(2), labels)
    assert images.label(2).dtype == np.int32 and images.classes == CLASSES and len(images) == 3 and not list(tmp_path.iterdir())
    np.testing.assert_array_equal(open_images("scenes:32x48", split="test", n=1)[0], draw_scene(0, 32, 48, seed=1)[0])
    assert open_images("scenes:32x48", split="test", n=3).digest != images.digest


def test_scenes_without_a_class_are_a_source_of_their_own() -> None:
    plain, without = (open_images(spec, n=40) for spec in ("scenes:32", "scenes:32:without=boat,car"))
    assert without.facts["without"] == ["car", "boat"] and "without" not in plain.facts
    assert without.digest == open_images("scenes:32:without=car,boat", n=40).digest != plain.digest
    absent = [CLASSES.index("car"), CLASSES.index("boat")]
    assert not any(np.isin(without.label(i), absent).any() for i in range(40))
    assert any(np.isin(plain.label(i), absent).any() for i in range(40))
    np.testing.assert_array_equal(without[3], draw_scene(3, 32, 32, without=("boat", "car"))[0])
    assert len(open_images("scenes:without=boat", n=1)[0]) == 64
    with pytest.raises(ValueError, match="scenes cannot be drawn without 'house'; they can without person"):
        open_images("scenes:32:without=house")
    with pytest.raises(ValueError, match="write scenes, scenes:SIZE.*scenes:32:without=boat,car"):
        open_images("scenes:32:without=")


@pytest.mark.parametrize("threads", [1, 4])
def test_batches_come_in_order_whatever_the_threads(threads: int) -> None:
    images = open_images("scenes:16", n=11)
    parts = list(sources.batches(images, lambda image: image.mean((0, 1)), 4, threads=threads))
    assert [list(index) for index, _ in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    np.testing.assert_array_equal(np.concatenate([array for _, array in parts]), [images[i].mean((0, 1)) for i in range(11)])
    some = list(sources.batches(images, None, 4, indices=range(3, 9, 2), threads=threads))
    assert [list(index) for index, _ in some] == [[3, 5, 7]] and some[0][1].shape == (3, 16, 16, 3)


def test_what_is_no_source_is_named_with_what_is(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist; give a folder of PNG"):
        open_images(tmp_path / "nowhere")
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"is a \.mp4 file, not a source of images"):
        open_images(tmp_path / "clip.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image: no file below it ends in .png"):
        open_images(tmp_path / "empty")
    with pytest.raises(ValueError, match="holds 5 images; at least 6 are needed"):
        open_images(folder, least=6)
    with pytest.raises(ValueError, match="holds 5 images, fewer than n = 9"):
        open_images(folder, n=9)
    with pytest.raises(ValueError, match="have no splits"):
        open_images(folder, split="train")
    with pytest.raises(ValueError, match="write scenes, scenes:SIZE"):
        open_images("scenes:large")


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "b.png").write_bytes(b"<html>no image</html>")
    images = open_images(folder)
    with pytest.raises(ValueError, match=r"b\.png: it is not a PNG, JPEG or WebP image.*jaxgan data import"):
        images[0]
    with pytest.raises(ValueError, match=r"b\.png"):
        list(sources.batches(images, None, 2))


def test_a_batch_of_several_sizes_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"images of several sizes \(4x6x3, 9x7x3\)"):
        list(sources.batches(open_images(folder), None, 2))
