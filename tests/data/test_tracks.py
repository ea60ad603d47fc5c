"""Boxes of a tracker become clips of what they hold: centred, steady, inside the image; what is no box is named and leaves nothing."""

import json

import numpy as np
import pytest
from PIL import Image

from jaxgan import configure
from jaxgan.__main__ import main
from jaxgan.data import clip_import, clips, tracks

HEAD = "frame,track,x,y,w,h\n"


def noise(seed, frames, height=60, width=80):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def write_frames(folder, pictures):
    folder.mkdir(parents=True)
    for t, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{t:03}.png")


def lines(frames, track, box):
    """Rows of a CSV file, the box a function of the frame."""
    return "".join(",".join(map(str, (t, track, *box(t)))) + "\n" for t in frames)


def open_set(folder, side, **fields):
    return clips.open_clips(configure.Data(source=str(folder), **fields), (side, side, 3))


def run(tmp_path, *words):
    return main(["data", "import", str(tmp_path / "in"), str(tmp_path / "out"), "--clips", "--boxes", str(tmp_path / "boxes"), *words])


def test_each_track_is_cut_out_as_the_square_around_its_box(tmp_path, capsys):
    a, b = noise(0, 9), noise(1, 8)
    write_frames(tmp_path / "in" / "cat" / "film", a)
    write_frames(tmp_path / "in" / "dog", b)
    write_frames(tmp_path / "in" / "empty", b)
    (tmp_path / "boxes" / "cat").mkdir(parents=True)
    still = lines(range(1, 9), "k1", lambda t: (30, 20, 20, 10)) + lines(range(3), "k2", lambda t: (10, 10, 10, 20))
    (tmp_path / "boxes" / "cat" / "film.csv").write_text(HEAD + still)
    (tmp_path / "boxes" / "dog.csv").write_text("track,frame,w,h,x,y,score\n" + "".join(f"7,{t},20,20,20,30,0.9\n" for t in range(8)))
    assert run(tmp_path, "--size", "26", "--length", "4", "--filter", "nearest") == 0
    said = capsys.readouterr()
    assert "clips of 4 frames of 26x26x3, 4 train; 2 videos or tracks rejected" in said.out and "2 rejected" in said.err
    found = open_set(tmp_path / "out", 26)
    for i, expected in enumerate((a[1:5, 12:38, 27:53], a[5:9, 12:38, 27:53], b[:4, 27:53, 17:43], b[4:8, 27:53, 17:43])):
        np.testing.assert_array_equal(found.frames(i), expected)
    assert found.group.tolist() == [0, 0, 1, 1]
    rejects = json.loads((tmp_path / "out" / "rejects.json").read_text())
    assert rejects == {
        "cat/film, track k2 from frame 0": "3 frames are fewer than the 4 of a clip (--length)",
        "empty": "there are no boxes of it",
    }


def test_a_thing_that_moves_in_a_video_stays_in_the_middle_and_its_rim_is_the_mean_of_areas(tmp_path):
    from jaxgan.films import write_film

    def at(t):
        return 20 + 6 * t, 40 + 2 * t

    (tmp_path / "in").mkdir()
    text = "video," + HEAD
    for name, colour in (("a.mp4", (255, 40, 40)), ("b.mp4", (40, 40, 255))):
        frames = np.zeros((16, 128, 192, 3), np.uint8)
        for t in range(16):
            x, y = at(t)
            frames[t, y : y + 40, x : x + 40] = colour
        write_film(tmp_path / "in" / name, frames)
        text += "".join(f"{name[0]},{line}\n" for line in lines(range(16), 1, lambda t: (*at(t), 40, 40)).splitlines())
    (tmp_path / "boxes").write_text(text)
    report = clip_import.import_clips(tmp_path / "in", tmp_path / "out", size=(26, 26), length=4, stride=2, boxes=tmp_path / "boxes")
    assert report.counts == {"train": 4} and json.loads((tmp_path / "out" / "facts.json").read_text())["settings"]["filter"] == "box"
    found = open_set(tmp_path / "out", 26)
    for i in range(4):
        for frame in found.frames(i)[..., (0, 0, 2, 2)[i]].astype(float)[1:3]:  # at a track's ends a steady square lags behind
            inside = frame > 128
            rows, columns = np.nonzero(inside)
            assert abs(rows.mean() - 12.5) < 1.1 and abs(columns.mean() - 12.5) < 1.1
            assert 19 <= np.sqrt(inside.sum()) <= 21  # 40 of 52 pixels


def test_squares_are_steady_where_boxes_jump_and_follow_where_they_go():
    rng = np.random.default_rng(0)
    path = np.stack([100 + 2.0 * np.arange(60), np.full(60, 90.0), np.full(60, 40.0), np.full(60, 30.0)], 1)
    found = tracks.squares(path + rng.normal(0, 2, (60, 4)), 400, 200)
    centre = found[:, :2] + found[:, 2:] / 2
    truth = path[:, :2] + path[:, 2:] / 2
    assert abs(centre[8:-8] - truth[8:-8]).mean() < 0.8 and abs(np.diff(found[:, 2])).max() < 1.5
    np.testing.assert_allclose(tracks.squares(path, 400, 200)[8:-8, 2], 52)
    np.testing.assert_allclose((tracks.squares(path, 400, 200)[:, :2] + 26)[8:-8], truth[8:-8])


def test_squares_stay_in_the_image_and_repeat_the_border_where_they_cannot(tmp_path):
    corner = tracks.squares(np.full((3, 4), [-10, -10, 20, 20.0]), 80, 60)
    np.testing.assert_allclose(corner, np.tile([0, 0, 13.0], (3, 1)))  # the part in the image is 10 x 10
    np.testing.assert_allclose(tracks.squares(np.full((3, 4), [70, 30, 10, 10.0]), 80, 60)[0], [67, 28.5, 13])
    picture = noise(3, 1)[0]
    settings = clip_import.Settings((78, 78), "center", "nearest", 3, "white", True, 10**6, 0.0)
    track = tracks.Track("1", 0, np.full((2, 4), [10, 0, 60, 60.0]))
    ((_, frames),) = tracks.cut_out([Image.fromarray(picture)] * 2, [track], settings, 1, "film")
    np.testing.assert_array_equal(frames[1], np.pad(picture, ((9, 9), (0, 0), (0, 0)), "edge")[:, 1:79])


def test_short_gaps_are_filled_on_a_line_and_long_ones_end_a_track():
    boxes = {0: (0, 0, 10, 10), 4: (8, 4, 10, 14), 4 + tracks.GAP + 1: (8, 4, 10, 14), 100: (50, 0, 5, 5), 101: (51, 0, 5, 5)}
    first, second = tracks.pieces("7", boxes)
    assert (first.first, len(first.boxes), second.first, len(second.boxes)) == (0, 5 + tracks.GAP + 1, 100, 2)
    np.testing.assert_allclose(first.boxes[1], [2, 1, 10, 11])
    boxes[5 + tracks.GAP + 1] = boxes.pop(4 + tracks.GAP + 1)
    assert [track.first for track in tracks.pieces("7", boxes)] == [0, 5 + tracks.GAP + 1, 100]


def test_things_smaller_than_the_size_are_left_out_unless_they_may_be_enlarged(tmp_path):
    for k in range(3):
        write_frames(tmp_path / "in" / f"s{k}", noise(k, 4))
    side = {0: 20, 1: 20, 2: 10}
    text = "".join(f"s{k},{line}\n" for k in side for line in lines(range(4), 1, lambda t, k=k: (20, 20, side[k], side[k])).splitlines())
    (tmp_path / "boxes").write_text("video," + HEAD + text)
    report = clip_import.import_clips(tmp_path / "in", tmp_path / "out", size=(24, 24), length=2, boxes=tmp_path / "boxes")
    assert report.rejects == {
        "s2, track 1 from frame 0": "its smallest square has 13 pixels a side, fewer than the 24 wanted (--upscale takes it)"
    }
    again = clip_import.import_clips(
        tmp_path / "in", tmp_path / "again", size=(24, 24), length=2, boxes=tmp_path / "boxes", upscale=True, test_share=0.0
    )
    assert again.counts == {"train": 6} and not again.rejects


@pytest.mark.parametrize(
    "text,message",
    [
        ("frame,track,x,y,w,h\n", "has no column 'video': its first line is 'frame,track,x,y,w,h', it must name video,frame,track"),
        ("video,frame,id,x,y,w,h\n", "has no column 'track'"),
        ("", "has no column 'video'"),
        ("video," + HEAD + "ctas,0,1,5,5,9,9\n", "line 2: there is no video 'ctas'; nearest: cats; it must be one of the 2"),
        ("video," + HEAD + "cats,0,1,5,5,9\n", r"line 2: 0,1,5,5,9, \(frame,track,x,y,w,h\) is no box"),
        ("video," + HEAD + "cats,0,1,5,5,9,0\n", "is no box; .* w and h above 0"),
        ("video," + HEAD + "cats,-1,1,5,5,9,9\n", "frame is a whole number from 0"),
        ("video," + HEAD + "cats,0.5,1,5,5,9,9\n", "frame is a whole number from 0"),
        ("video," + HEAD + "cats,0,1,nan,5,9,9\n", "is no box"),
        ("video," + HEAD + "cats,0,1,5,5,9,9\ncats,0,1,6,5,9,9\n", "line 3: track 1 of cats has two boxes at frame 0"),
        ("video," + HEAD + "cats,2,1,5,5,9,9\ncats,4,1,6,5,9,9\n", "cats has 4 frames, and track 1 has a box at frame 4; .* the last is 3"),
        ("video," + HEAD + "cats,0,1,80,5,9,9\n", "track 1 has the box 80,5,9,9 at frame 0, outside of the image of 80x60"),
        ("video," + HEAD + "cats,0,1,5,-9,9,9\n", "outside of the image of 80x60"),
        ("video," + HEAD, "all 2 videos for the split 'train' were rejected, the first .cats. because: there are no boxes of it"),
    ],
)
def test_what_is_no_box_is_named_and_nothing_is_left(tmp_path, text, message):
    for name in ("cats", "dogs"):
        write_frames(tmp_path / "in" / name, noise(0, 4))
    (tmp_path / "boxes").write_text(text)
    with pytest.raises(ValueError, match=message):
        clip_import.import_clips(tmp_path / "in", tmp_path / "out", size=(8, 8), length=2, boxes=tmp_path / "boxes")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["boxes", "in"]


def test_a_box_behind_the_end_of_a_video_file_is_named_and_nothing_is_left(tmp_path):
    from jaxgan.films import write_film

    (tmp_path / "in").mkdir()
    write_film(tmp_path / "in" / "a.mp4", noise(0, 5, 64, 64))
    (tmp_path / "boxes").write_text(HEAD + lines(range(1, 6), 1, lambda t: (20, 20, 20, 20)))
    with pytest.raises(ValueError, match="a.mp4 has 5 frames, and track 1 has a box at frame 5; frames are numbered from 0, the last is 4"):
        clip_import.import_clips(tmp_path / "in", tmp_path / "out", size=(8, 8), length=2, boxes=tmp_path / "boxes")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["boxes", "in"]


def test_files_of_boxes_that_fit_no_video_or_two_are_named(tmp_path, capsys):
    (tmp_path / "boxes").mkdir()
    videos = ["a.mp4", "a.mov", "b/c"]
    for name, message in (("a", "'a' may be a.mp4 or a.mov; write its ending too"), ("d", "there is no video 'd'")):
        file = tmp_path / "boxes" / f"{name}.csv"
        file.write_text(HEAD)
        with pytest.raises(ValueError, match=f"{name}.csv: {message}"):
            tracks.read_boxes(tmp_path / "boxes", videos)
        file.unlink()
    with pytest.raises(ValueError, match="no CSV file lies below"):
        tracks.read_boxes(tmp_path / "boxes", videos)
    with pytest.raises(FileNotFoundError, match="no file or folder .*nothing.csv"):
        tracks.read_boxes(tmp_path / "nothing.csv", videos)
    for name in ("b.mp4", "b"):
        (tmp_path / "boxes" / f"{name}.csv").write_text(HEAD)
    with pytest.raises(ValueError, match="another file has boxes of b.mp4 already"):
        tracks.read_boxes(tmp_path / "boxes", ["b.mp4"])
    with pytest.raises(ValueError, match="size is 8x16, but boxes are cut out as squares"):
        clip_import.import_clips(tmp_path / "in", tmp_path / "out", size=(8, 16), boxes=tmp_path / "boxes")
    assert main(["data", "import", "in", "out", "--size", "8", "--boxes", "x.csv"]) == 2
    assert "--length, --stride and --boxes cut videos: add --clips" in capsys.readouterr().err
