"""Clips of figures, of sprites and of arrays: what is read is what was drawn, splits share nobody, unusable sets are refused."""

import dataclasses

import numpy as np
import pytest

from jaxgan import configure
from jaxgan.data import clips, figures, pipeline, sprites

IMAGE = (32, 32, 3)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(tmp_path_factory.mktemp("sets"))


def data_of(root, **fields):
    return configure.Data(source="figures", root=root, count=10, **fields)


def ramps(n=3, frames=4, size=16):
    return np.random.default_rng(0).integers(0, 256, (n, frames, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("split,ground", [("train", "plain"), ("test", "plain"), ("train", "clip")])
def test_figures_are_read_as_they_are_drawn(root, split, ground):
    found = clips.open_clips(data_of(root, split=split, ground=ground), IMAGE)
    facts = figures.facts(split, len(found))
    assert len(found) == (10 if split == "train" else 8) and found.image == IMAGE and found.length(0) == 16
    for i in (0, 7):
        frames, masks = figures.draw_clip(facts.identity[i], facts.pose[i], 32, ground, int(facts.seeds[i]))
        np.testing.assert_array_equal(found.frames(i), frames)
        np.testing.assert_array_equal(found.frame(i, 3), frames[3])
        np.testing.assert_array_equal(found.mask(i, 3), masks[3])
        assert found.mask(i, 3).dtype == bool and found.frame(i, 3).dtype == np.uint8
        np.testing.assert_array_equal(found.pose(i), facts.pose[i])
    np.testing.assert_array_equal(found.identity, facts.identity)
    assert found.factors == figures.FACTORS and found.pose_names == ("x", "y", "heading", "arm")


def test_what_tfds_reads_of_a_figure_agrees_with_what_is_known_of_the_clip(root):
    from jaxgan.data import clip_builders

    found = clips.open_clips(data_of(root), IMAGE)
    records = clip_builders.open_clips_of(clip_builders.prepare_figures(root, 32, "plain", 10), "train")
    for i in (0, 9):
        np.testing.assert_array_equal(records[i]["identity"], found.identity[i])
        np.testing.assert_array_equal(records[i]["pose"], found.pose(i))


@pytest.mark.parametrize("even", ["plain", "dark"])
def test_a_frame_on_even_ground_is_the_render_of_its_facts_and_a_texture_has_no_truth(root, even):
    found = clips.open_clips(data_of(root, ground=even), IMAGE)
    image, mask = found.render(found.identity[2], found.pose(2)[5])
    np.testing.assert_array_equal(image, found.frame(2, 5))
    np.testing.assert_array_equal(mask, found.mask(2, 5))
    other = clips.open_clips(data_of(root, ground="clip"), IMAGE)
    assert other.render(other.identity[0], other.pose(0)[0]) is None
    assert other.digest != found.digest


def test_a_set_that_names_no_number_has_four_clips_of_each_identity(monkeypatch, root):
    from jaxgan.data import clip_builders

    asked = []

    def stop(root, size, ground, count):
        asked.append(count)
        raise OSError("asked")

    monkeypatch.setattr(clip_builders, "prepare_figures", stop)
    for data in (configure.Data(source="figures"), configure.Data(source="figures", count=0)):
        with pytest.raises(OSError, match="asked"):
            clips.open_clips(data, IMAGE)
    assert asked == [2400, 2400]
    assert clip_builders.split_counts(2400) == {"train": 2400, "validation": 272, "test": 400}


def composed(layers, identity, pose):
    """The same character by PIL's own compositing."""
    from PIL import Image

    picture = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    for name, value in zip(("body", "bottomwear", "topwear", "hair", "shoes"), (*identity, 0), strict=True):
        picture = Image.alpha_composite(picture, Image.fromarray(layers[name][(value, *pose)]))
    return np.asarray(picture)[..., :3]


def test_sprites_are_composed_as_an_image_library_lays_layers_over_each_other(shared):
    found = sprites.load(str(shared / "data"), "train")
    rng = np.random.default_rng(0)
    for _ in range(60):
        identity, pose = found.characters[rng.integers(len(found.characters))], tuple(rng.integers(0, (3, 3, 8)))
        image, mask = sprites.compose(found.layers, identity, *pose)
        np.testing.assert_allclose(image.astype(int), composed(found.layers, identity, pose).astype(int), atol=1)
        assert mask.any() and (image[~mask] == 0).all()


def test_sprites_clips_are_characters_in_an_action_and_a_direction_and_no_character_is_in_two_splits(shared):
    data = configure.Data(source=f"sprites:{shared / 'data'}")
    train, test = (clips.open_clips(dataclasses.replace(data, split=split), (64, 64, 3)) for split in ("train", "test"))
    assert (len(train), len(test)) == (9000, 296 * 9)
    assert not {tuple(row) for row in train.identity.tolist()} & {tuple(row) for row in test.identity.tolist()}
    assert train.group.max() == 999 and (np.bincount(train.group) == 9).all() and train.length(0) == 8
    pairs = {(int(i // 9), *pose.tolist()) for i in range(18) for pose in train.pose(i)}
    assert len(pairs) == 2 * 3 * 3 * 8
    for i, t in ((0, 0), (4, 7), (8998, 3)):
        image, mask = train.render(train.identity[i], train.pose(i)[t])
        np.testing.assert_array_equal(image, train.frame(i, t))
        np.testing.assert_array_equal(mask, train.mask(i, t))
    half = clips.open_clips(data, IMAGE)
    np.testing.assert_allclose(half.frame(4, 7), train.frame(4, 7).reshape(32, 2, 32, 2, 3).mean((1, 3)), atol=0.5)
    np.testing.assert_array_equal(half.render(half.identity[4], half.pose(4)[7])[0], half.frame(4, 7))


def test_sprites_that_are_missing_or_wrong_are_refused(tmp_path, shared):
    with pytest.raises(FileNotFoundError, match="sprites_components.npz is not there"):
        clips.open_clips(configure.Data(source=f"sprites:{tmp_path}"), (64, 64, 3))
    data = configure.Data(source=f"sprites:{shared / 'data'}")
    with pytest.raises(ValueError, match="a whole fraction of it; the model wants 48x48"):
        clips.open_clips(data, (48, 48, 3))
    with pytest.raises(ValueError, match="no split 'validation'.*train and test"):
        clips.open_clips(dataclasses.replace(data, split="validation"), (64, 64, 3))
    np.savez(tmp_path / "sprites_split.npz", attributes=np.zeros((4, 4), np.uint8), n_train=2)
    np.savez(tmp_path / "sprites_components.npz", body=np.zeros(3))
    with pytest.raises(ValueError, match="holds no array 'bottomwear'"):
        clips.open_clips(configure.Data(source=f"sprites:{tmp_path}"), (64, 64, 3))
    (tmp_path / "sprites_components.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match="damaged"):
        clips.open_clips(configure.Data(source=f"sprites:{tmp_path}"), (64, 64, 3))


@pytest.mark.parametrize(
    "fields,image,message",
    [
        ({}, (32, 48, 3), "figures are square .* 32x48"),
        ({}, (32, 32, 1), "clips have 3 channels"),
        ({"split": "valid"}, IMAGE, "no split 'valid' of figures; it has: train, validation, test"),
        ({"ground": "grass"}, IMAGE, "data.ground is 'grass'"),
    ],
)
def test_figures_that_cannot_be_drawn_are_refused_with_nothing_written(tmp_path, fields, image, message):
    with pytest.raises(ValueError, match=message):
        clips.open_clips(data_of(str(tmp_path), **fields), image)
    assert not list(tmp_path.iterdir())


def test_clips_of_arrays_give_back_what_they_were_made_of():
    frames = ramps()
    found = clips.in_memory(frames, identity=[[0], [1], [1]], factors=(("hue", 2),), pose=np.zeros((3, 4, 1)), pose_names=("x",))
    np.testing.assert_array_equal(found.frames(2), frames[2])
    assert found.group.tolist() == [0, 1, 1] and found.mask(0, 0) is None and found.pose(1).dtype == np.float32
    assert found.render([0], [0.0]) is None
    assert found.digest == clips.in_memory(frames, [[0], [1], [1]], np.zeros((3, 4, 1)), (("hue", 2),), ("x",)).digest
    assert found.digest != clips.in_memory(frames).digest


@pytest.mark.parametrize(
    "frames,options,message",
    [
        (ramps(frames=1), {}, "clip 0 has 1 frame .* must show the same thing twice"),
        (ramps(n=1), {}, "all 1 clips are of one identity"),
        (ramps(), {"group": [5, 5, 5]}, "all 3 clips are of one identity"),
        (ramps(), {"identity": np.ones((3, 1)), "factors": (("hue", 2),)}, "all 3 clips are of one identity"),
        (ramps()[..., 0], {}, r"expected uint8 \[n, T, H, W, 3\]"),
        (ramps(), {"pose": np.zeros((3, 2, 1)), "pose_names": ("x",)}, r"pose has shape \(3, 2, 1\); it must be \(3, 4, 1\)"),
    ],
)
def test_clips_that_nothing_can_be_learned_from_are_refused(frames, options, message):
    with pytest.raises(ValueError, match=message):
        clips.in_memory(frames, **options)


def test_pairs_are_two_different_frames_of_one_clip_and_all_of_them_come():
    frames = ramps()
    source = clips.PairSource(clips.in_memory(frames, group=[4, 4, 7]))
    assert len(source) == 3 and source.image == (2, 16, 16, 3)
    seen = set()
    for k in range(200):
        drawn = source.draw(k % 3, np.random.default_rng(k))
        assert drawn["group"] == (4, 4, 7)[k % 3] and drawn["group"].dtype == np.int32 and drawn["group"].shape == ()
        places = [next(t for t in range(4) if (frames[k % 3, t] == image).all()) for image in drawn["image"]]
        seen.add(tuple(places))
    assert seen == {(a, b) for a in range(4) for b in range(4) if a != b}
    np.testing.assert_array_equal(source[1]["image"], source.draw(1, np.random.default_rng((0, 1)))["image"])
    same = clips.PairSource(source.clips, same=True)
    assert any((drawn[0] == drawn[1]).all() for drawn in (same.draw(0, np.random.default_rng(k))["image"] for k in range(30)))


def test_pairs_within_a_group_are_of_any_two_of_its_clips():
    frames = ramps(n=5)
    group = [4, 4, 7, 4, 9]
    source = clips.PairSource(clips.in_memory(frames, group=group), within="group")

    def clip_of(image):
        return next(i for i in range(5) if any((frame == image).all() for frame in frames[i]))

    seen = {tuple(clip_of(image) for image in source.draw(k % 5, np.random.default_rng(k))["image"]) for k in range(300)}
    assert seen == {(a, b) for a in (0, 1, 3) for b in (0, 1, 3)} | {(2, 2), (4, 4)}
    for k in range(40):
        first, second = source.draw(0, np.random.default_rng(k))["image"]
        assert not (first == second).all()  # also where both are of one clip
    with pytest.raises(ValueError, match="no two clips are of one group"):
        clips.PairSource(clips.in_memory(frames, group=[0, 1, 2, 3, 4]), within="group")
    with pytest.raises(ValueError, match="give 'clip' or 'group'"):
        clips.PairSource(source.clips, within="set")


def test_a_run_that_is_resumed_draws_the_pairs_that_it_would_have_drawn():
    source = clips.PairSource(clips.in_memory(ramps(n=6)))

    def flow():
        return pipeline.batches(source, batch=4, records=1, prepare=lambda images, rng: images, seed=3)

    whole = flow()
    first = [next(whole) for _ in range(3)]
    state = whole.get_state()
    rest = [next(whole) for _ in range(4)]
    resumed = flow()
    resumed.set_state(state)
    for expected in rest:
        found = next(resumed)
        for key in ("image", "group"):
            np.testing.assert_array_equal(found[key], expected[key])
    assert first[0]["image"].shape == (4, 2, 16, 16, 3)
