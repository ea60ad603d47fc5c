"""Clips of catalogue sets: turntables in the order of their angles, videos by the boxes of their masks, with the splits of the set.

The sets are made with the layout that TFDS itself declares for them, and with pictures of our own: nothing is downloaded.
"""

import json

import numpy as np
import pytest

from jaxgan import configure
from jaxgan.__main__ import main
from jaxgan.data import builders, clip_import, clips
from jaxgan.data.drawers import encode_png

tfds = builders.tfds


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The folder of prepared sets, and the only one that is looked into."""
    monkeypatch.setenv("JAXGAN_DATA", str(tmp_path / "sets"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    return str(tmp_path / "sets")


def prepare(root, name, splits):
    """A set of the catalogue with examples of ours: TFDS shuffles them, as it does its own."""
    name, _, config = name.partition("/")
    with builders.quiet():
        known = tfds.builder_cls(name)

        class Ours(known, skip_registration=True):
            url_infos: dict = {}  # nothing is downloaded: no checksums are looked for

            def _split_generators(self, dl_manager):
                return {split: iter(enumerate(examples)) for split, examples in splits.items()}

        Ours.name = name
        builder = Ours(data_dir=root, config=config or None, file_format="array_record")
    builders.generate(builder)


def norb(categories, instances, azimuths=18):
    """Pictures of one grey each that names category, instance and azimuth."""
    return [
        {
            **dict.fromkeys(("image", "image2"), encode_png(np.full((96, 96, 1), 60 * category + 20 * instance + azimuth, np.uint8))),
            **{"label_category": category, "instance": instance, "label_azimuth": azimuth},
            **{"label_elevation": 4, "label_lighting": lighting},
        }
        for category in categories
        for instance in instances
        for lighting in (0, 5)
        for azimuth in range(azimuths)
    ]


def test_a_thing_on_a_turntable_is_a_group_and_its_views_are_clips_in_order(tmp_path, root, capsys):
    prepare(root, "smallnorb", {"train": norb((0, 3), (0, 2)), "test": norb((0,), (1, 3), 17) + norb((1, 2), (1,))})
    words = ["--size", "48", "--clips"]
    assert main(["data", "import", "tfds:smallnorb", str(tmp_path / "out"), *words]) == 0
    assert "clips of 18 frames of 48x48x3, 8 train, 4 test; 4 videos or tracks rejected" in capsys.readouterr().out
    train, test = (clips.open_clips(configure.Data(source=str(tmp_path / "out"), split=split), (48, 48, 3)) for split in ("train", "test"))
    assert train.group.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and test.group.tolist() == [0, 0, 1, 1]
    for i, first in enumerate((0, 0, 40, 40, 180, 180, 220, 220)):
        np.testing.assert_array_equal(train.frames(i), np.broadcast_to((first + np.arange(18))[:, None, None, None], (18, 48, 48, 3)))
    rejects = json.loads((tmp_path / "out" / "rejects.json").read_text())
    assert rejects["test: label_category 0, instance 3, label_elevation 4, label_lighting 5"] == (
        "17 frames are fewer than the 18 of a clip (--length)"
    )
    with pytest.raises(ValueError, match=r"smallnorb has splits of its own .*; leave it out"):
        clip_import.import_clips("tfds:smallnorb", tmp_path / "other", size=(48, 48), test_share=0.1)
    assert not (tmp_path / "other").exists()


def test_a_set_of_one_split_is_parted_by_its_things(tmp_path, root):
    def example(thing, angle):
        image = encode_png(np.full((128, 128, 3), (thing, angle // 5, 0), np.uint8))
        return {"image": image, "angle_label": str(angle), "angle": angle, "object_id": f"obj{thing + 1}"}

    prepare(root, "coil100", {"train": [example(thing, angle) for thing in range(12) for angle in range(0, 360, 5)]})
    report = clip_import.import_clips("tfds:coil100", tmp_path / "out", size=(64, 64), length=8, stride=3, test_share=0.4)
    assert sum(report.counts.values()) == 12 * 3 and set(report.counts) == {"train", "test"} and not report.rejects
    things = {}
    for split in report.counts:
        found = clips.open_clips(configure.Data(source=str(tmp_path / "out"), split=split), (64, 64, 3))
        things[split] = {int(found.frame(i, 0)[0, 0, 0]) for i in range(len(found))}
        np.testing.assert_array_equal(found.frames(1)[:, 0, 0, 1], 24 + 3 * np.arange(8))
    assert not things["train"] & things["test"] and things["train"] | things["test"] == set(range(12))


def test_each_thing_with_a_mask_is_cut_out_of_its_video(tmp_path, root, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (3, 6, 60, 80, 3), dtype=np.uint8)

    def example(number, things):
        masks = np.zeros((6, 60, 80, 1), np.uint8)
        for thing, (frames, y, x, side) in things.items():
            masks[frames, y : y + side, x : x + side] = thing
        return {
            "video": {"frames": list(map(encode_png, noise[number])), "segmentations": list(map(encode_png, masks))},
            "metadata": {"num_frames": 6, "video_name": f"film{number}"},
        }

    films = [
        example(0, {1: (slice(None), 20, 30, 20), 2: (slice(0, 2), 2, 2, 10)}),
        example(1, {1: (slice(1, 6), 27, 27, 20), 7: (slice(2, 6), 7, 7, 20)}),
    ]
    prepare(root, "davis/480p", {"train": films, "validation": [*films[:1], example(2, {1: (slice(None), 20, 30, 20)})]})
    words = ["--size", "26", "--clips", "--length", "4", "--filter", "nearest"]
    assert main(["data", "import", "tfds:davis/480p", str(tmp_path / "out"), *words]) == 0
    assert "clips of 4 frames of 26x26x3, 3 train, 2 validation; 2 videos or tracks rejected" in capsys.readouterr().out
    found = clips.open_clips(configure.Data(source=str(tmp_path / "out")), (26, 26, 3))
    expected = [noise[0, :4, 17:43, 27:53], noise[1, 1:5, 24:50, 24:50], noise[1, 2:6, 4:30, 4:30]]
    assert {found.frames(i).tobytes() for i in range(3)} == {np.ascontiguousarray(clip).tobytes() for clip in expected}
    assert sorted(np.bincount(found.group).tolist()) == [1, 2]
    rejects = json.loads((tmp_path / "out" / "rejects.json").read_text())
    assert any(name.endswith("track film0/2 from frame 0") for name in rejects)


@pytest.mark.parametrize(
    "source,options,message",
    [
        ("tfds:mnist", {}, "clips are made of tfds:smallnorb, tfds:coil100, tfds:davis; of another set, write frames"),
        ("tfds:smallnorb", {}, r"catalogue set smallnorb is not prepared .*pip install \"jaxgan\[tfds\]\" and then"),
        ("tfds:davis/480p", {"size": (8, 16)}, "size is 8x16, but the things of tfds:davis/480p are cut out as squares"),
        ("tfds:smallnorb", {"boxes": "x.csv", "size": (8, 8)}, "leave --boxes out"),
        ("tfds:smallnorb", {"length": 1}, "length is 1"),
    ],
)
def test_what_cannot_be_imported_is_named_and_nothing_is_written(tmp_path, root, source, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        clip_import.import_clips(source, tmp_path / "out", **{"size": (16, 16), **options})
    assert not list(tmp_path.iterdir())


def test_a_run_that_names_the_set_itself_is_told_to_import_it():
    with pytest.raises(ValueError, match="`jaxgan data import tfds:smallnorb OUT --clips --size 64`"):
        clips.open_clips(configure.Data(source="tfds:smallnorb"), (64, 64, 3))
