"""Folders of frames and video files become clips: cut, framed, grouped; what is damaged or short is named, and errors leave nothing."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxgan import configure
from jaxgan.__main__ import main
from jaxgan.data import clip_import, clips


def film(seed, frames, side=32):
    """Smooth pictures that differ from frame to frame: uint8 [T, side, side + 8, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (frames, 4, 5, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((side + 8, side), Image.Resampling.BILINEAR)) for c in coarse])


def write_frames(folder, pictures):
    folder.mkdir(parents=True)
    for t, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{t:03}.png")


def open_set(folder, **fields):
    return clips.open_clips(configure.Data(source=str(folder), **fields), (32, 32, 3))


def test_folders_are_cut_into_clips_of_their_centre_and_subjects_are_groups(tmp_path, capsys):
    a, b, c = film(0, 11), film(1, 4), film(2, 5)
    write_frames(tmp_path / "in" / "cat", a)
    write_frames(tmp_path / "in" / "dog" / "monday", b)
    write_frames(tmp_path / "in" / "dog" / "tuesday", c)
    write_frames(tmp_path / "in" / "short", film(3, 3))
    write_frames(tmp_path / "in" / "torn", film(4, 4))
    (tmp_path / "in" / "torn" / "002.png").write_bytes(b"\x89PNG\r\n\x1a\n cut short")
    assert main(["data", "import", str(tmp_path / "in"), str(tmp_path / "out"), "--size", "32", "--clips", "--length", "4"]) == 0
    said = capsys.readouterr().out
    assert "clips of 4 frames of 32x32x3, 4 train; 2 videos rejected" in said
    found = open_set(tmp_path / "out")
    for i, expected in enumerate((a[:4], a[4:8], b, c[:4])):
        np.testing.assert_array_equal(found.frames(i), expected[:, :, 4:36])
    assert found.group.tolist() == [0, 0, 1, 1] and found.identity is None and found.pose(0) is None and found.mask(0, 0) is None
    rejects = json.loads((tmp_path / "out" / "rejects.json").read_text())
    assert rejects["short"] == "3 frames are fewer than the 4 of a clip (--length)"
    assert rejects["torn"].startswith("frame 002.png: ")
    again = clip_import.import_clips(tmp_path / "in", tmp_path / "again", size=(32, 32), length=4)
    assert again.checksum == json.loads((tmp_path / "out" / "facts.json").read_text())["checksum"]


def test_videos_are_read_frame_by_frame_and_one_that_is_cut_short_is_rejected(tmp_path):
    from jaxgan.films import write_film

    pictures = {name: film(seed, 9, 64) for seed, name in enumerate(("a", "b"))}
    (tmp_path / "in").mkdir()
    for name, frames in pictures.items():
        write_film(tmp_path / "in" / f"{name}.mp4", frames)
    whole = (tmp_path / "in" / "a.mp4").read_bytes()
    (tmp_path / "in" / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "in" / "text.mp4").write_text("no film")
    report = clip_import.import_clips(tmp_path / "in", tmp_path / "out", size=(32, 32), length=4, stride=2, filter="box")
    assert report.counts == {"train": 2} and set(report.rejects) == {"cut.mp4", "text.mp4"}
    assert all("cannot be read to its end" in reason for reason in report.rejects.values())
    found = open_set(tmp_path / "out")
    expected = pictures["b"][:8:2, :, 4:68].reshape(4, 32, 2, 32, 2, 3).mean((2, 4))
    assert abs(found.frames(1) - expected).mean() < 12  # the film's coding loses a little


def test_groups_stay_on_one_side_of_the_split(tmp_path):
    for k in range(12):
        write_frames(tmp_path / "in" / f"s{k}", film(k, 4))
    report = clip_import.import_clips(tmp_path / "in", tmp_path / "out", size=(32, 32), length=2, test_share=0.4)
    facts = json.loads((tmp_path / "out" / "facts.json").read_text())["groups"]
    assert sum(report.counts.values()) == 24 and not set(facts["train"]) & set(facts["test"])
    assert len(open_set(tmp_path / "out", split="test")) == report.counts["test"]


@pytest.mark.parametrize(
    "names,options,message",
    [
        ((), {}, "no folder of images and no video"),
        (("one",), {}, "all 2 clips of the split 'train' are of one group"),
        (("one", "two"), {"length": 9}, "all 2 videos for the split 'train' were rejected"),
        (("one", "two"), {"length": 1}, "length is 1"),
        (("one", "two"), {"filter": "sharp"}, "no resize filter 'sharp'"),
    ],
)
def test_what_gives_no_set_is_refused_and_nothing_is_left(tmp_path, names, options, message):
    (tmp_path / "in").mkdir()
    for name in names:
        write_frames(tmp_path / "in" / name, film(0, 4))
    with pytest.raises(ValueError, match=message):
        clip_import.import_clips(tmp_path / "in", tmp_path / "out", size=(32, 32), **{"length": 2, **options})
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_set_that_does_not_fit_is_named_with_the_remedy(tmp_path):
    for name in ("one", "two"):
        write_frames(tmp_path / "in" / name, film(0, 4))
    clip_import.import_clips(tmp_path / "in", tmp_path / "out", size=(16, 16), length=2)
    with pytest.raises(ValueError, match="holds frames of 16x16x3, the model wants 32x32x3"):
        open_set(tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="is not a folder; use 'figures'"):
        open_set(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no split 'test' in .*it has: train \(4\)"):
        clips.open_clips(configure.Data(source=str(tmp_path / "out"), split="test"), (16, 16, 3))
