"""Triplets: who from the clip, how from elsewhere; exclusions hold for every draw, and a resumed run draws the same."""

import numpy as np
import pytest

from jaxgan import configure, retrieval
from jaxgan.data import clips, figures, pipeline, triplets

T = 6


@pytest.fixture(scope="module")
def drawn():
    facts = figures.facts("train", 90)
    frames = np.stack([figures.draw_clip(facts.identity[i], facts.pose[i, :T], 32, "plain", 0)[0] for i in range(90)])
    return clips.in_memory(frames, facts.identity, facts.pose[:, :T], figures.FACTORS, figures.POSE)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(tmp_path_factory.mktemp("sets"))


def place_of(drawn, image, clip):
    """Number of the clip's frame that the image is."""
    return next(t for t in range(T) if (drawn.frame(clip, t) == image).all())


@pytest.mark.parametrize("features", ["hog", "rgb", "oracle", "random"])
def test_identity_and_target_are_of_one_clip_and_the_pose_image_is_one_of_the_neighbours_that_are_left(drawn, root, features):
    source = triplets.TripletSource(drawn, triplets.Triplets(features=features, quality=30.0), root=root)
    index = source.index
    gaps = set()
    for k in range(120):
        found = source.draw(k % len(source), np.random.default_rng(k))
        who, how, target = found["image"]
        clip, other = int(found["clip"]), int(found["pose_clip"])
        t, s = place_of(drawn, target, clip), place_of(drawn, who, clip)
        assert abs(t - s) == found["gap"] >= 2 and drawn.group[other] != drawn.group[clip]
        gaps.add(int(found["gap"]))
        frame = clip * T + t
        at = list(index.neighbours[frame]).index(other * T + place_of(drawn, how, other))
        assert index.colours[frame, at] <= 0.7
        if features != "random":
            scores = index.scores[clip * T : clip * T + T][index.colours[clip * T : clip * T + T] <= 0.7]
            assert index.scores[frame, at] >= np.percentile(scores, 30)
    assert gaps == set(range(2, T))


def test_the_gate_drops_the_share_of_neighbours_that_it_names(drawn, root):
    sources = [triplets.TripletSource(drawn, triplets.Triplets(quality=quality), root=root) for quality in (0.0, 20.0, 60.0)]
    left = [source.left.sum() for source in sources]
    np.testing.assert_allclose(left[1] / left[0], 0.8, atol=0.03)
    np.testing.assert_allclose(left[2] / left[0], 0.4, atol=0.03)


def test_without_retrieval_the_pose_image_is_the_target(drawn):
    found = triplets.TripletSource(drawn, triplets.Triplets(features="none"))[3]
    np.testing.assert_array_equal(found["image"][1], found["image"][2])
    assert found["pose_clip"] == found["clip"] == 3
    assert (found["image"][0] != found["image"][2]).any()


def test_identity_images_lie_on_both_sides_of_their_targets(drawn, root):
    source = triplets.TripletSource(drawn, triplets.Triplets(), root=root)
    later = 0
    for k in range(200):
        found = source.draw(k % len(source), np.random.default_rng(k))
        clip = int(found["clip"])
        later += place_of(drawn, found["image"][2], clip) > place_of(drawn, found["image"][0], clip)
    assert 70 < later < 130


def test_a_run_that_is_resumed_draws_the_triplets_that_it_would_have_drawn(drawn, root):
    def flow():
        source = triplets.TripletSource(drawn, triplets.Triplets(), root=root)
        return pipeline.batches(source, batch=4, records=1, prepare=lambda samples, rng: samples, seed=3)

    whole = flow()
    first = next(whole)
    assert first["image"].shape == (4, 3, 32, 32, 3) and first["gap"].shape == (4,) and first["gap"].dtype == np.int32
    for _ in range(30):  # into the second epoch
        next(whole)
    state, rest = whole.get_state(), [next(whole) for _ in range(3)]
    resumed = flow()
    resumed.set_state(state)
    for expected in rest:
        found = next(resumed)
        for key in expected:
            np.testing.assert_array_equal(found[key], expected[key])


def test_a_set_on_disk_gives_triplets_keeps_its_index_beside_it_and_says_how_good_they_are(tmp_path, capsys):
    data = configure.Data(source="figures", root=str(tmp_path), count=40)
    source = triplets.open_triplets(data, (32, 32, 3), triplets.Triplets())
    assert source[0]["image"].shape == (3, 32, 32, 3) and source.image == (3, 32, 32, 3)
    assert len(list((tmp_path / "retrieval").iterdir())) == 1
    said = capsys.readouterr().err
    assert "by hog" in said and "of 8 neighbours left" in said and "0.0% of the pose images are the target" in said
    assert "copying the pose image pays" in triplets.told(source, {**triplets.guards(source, 5), "same_pixels": 0.02})


def test_guards_tell_a_retrieval_of_copies_from_one_of_poses(drawn, root):
    good = triplets.guards(triplets.TripletSource(drawn, triplets.Triplets(), root=root), 100)
    assert good["same_pixels"] < 0.01 and good["colours"] < 0.3 and good["frames"] > 0.9 and good["clips"] == 1
    assert 1 <= good["neighbours"] <= 8
    copies = triplets.guards(triplets.TripletSource(drawn, triplets.Triplets(features="none")), 50)
    assert copies["same_pixels"] == 1 and copies["colours"] == 1
    rgb = triplets.guards(triplets.TripletSource(drawn, triplets.Triplets(features="rgb", histogram=1.0), root=root), 50)
    assert rgb["colours"] > good["colours"] + 0.15


def test_each_epoch_is_watched_anew_and_says_when_copies_of_the_target_come_through(drawn, root):
    index = retrieval.open_index(drawn, "hog", 8, root=root)
    frames = np.stack([drawn.frames(i) for i in range(90)])
    frames[1::2] = frames[::2]  # every second clip is the one before it again, under another group
    copy = (np.arange(540)[:, None] // T % 2 == 1) & (np.arange(8) < 4)
    index = index._replace(neighbours=np.where(copy, np.arange(540)[:, None] - T, index.neighbours), colours=np.zeros((540, 8)))
    source = triplets.TripletSource(clips.in_memory(frames), triplets.Triplets(quality=0.0), index=index)
    found = [source.watch(epoch) for epoch in (0, 0, 1)]
    assert found[0] == found[1] and found[0].keys() == found[2].keys()
    assert all(0.15 < each["triplets/same_pixels"] < 0.35 for each in found)
    assert found[0]["triplets/neighbours"] == source.left.sum(1)[source.usable].mean()
    assert len({source.watch(epoch)["triplets/same_pixels"] for epoch in range(5)}) > 1


def test_clips_whose_neighbours_are_all_excluded_are_left_out_or_refused(drawn, root):
    index = retrieval.open_index(drawn, "hog", 8, root=root)
    colours = index.colours.copy()
    colours[: 5 * T] = 0.9
    source = triplets.TripletSource(drawn, triplets.Triplets(), index=index._replace(colours=colours))
    assert len(source) == 85 and source[0]["clip"] == 5
    assert triplets.guards(source, 10)["clips"] == 85 / 90
    with pytest.raises(ValueError, match="no clip has a target with a neighbour left after the exclusions; raise triplets.neighbours"):
        triplets.TripletSource(drawn, triplets.Triplets(), index=index._replace(colours=np.full_like(colours, 0.9)))


def test_neighbours_that_are_renewed_are_those_of_the_description_and_are_read_again(drawn, root, tmp_path, capsys):
    def corners(frames):
        return np.concatenate([frames[:, :16, :16].mean((1, 2)), frames[:, 16:, 16:].mean((1, 2))], 1).astype(np.float32)

    settings = triplets.Triplets(features="encoder", begin="luminance", gap_min=1, histogram=1.0, quality=0.0)
    source = triplets.TripletSource(drawn, settings, root=root)
    np.testing.assert_array_equal(source.index.neighbours, retrieval.build_index(drawn, "luminance", 8).neighbours)
    file = tmp_path / "sources" / "7.npz"
    triplets.renewed(source, corners, file, "corners", keep=False)
    assert not file.exists()
    with pytest.raises(FileNotFoundError, match=r"7\.npz does not hold the neighbours by corners, which this run goes on with: bring"):
        triplets.renewed(source, None, file, "corners")
    fresh = triplets.renewed(source, corners, file, "corners")
    assert "by corners: 8.0 of 8 neighbours left" in capsys.readouterr().err.splitlines()[-1]

    vectors = corners(np.concatenate([drawn.frames(i) for i in range(len(drawn))])).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    group = np.repeat(drawn.group, [drawn.length(i) for i in range(len(drawn))])
    cosines = np.where(group[:, None] == group, -np.inf, vectors @ vectors.T)
    np.testing.assert_allclose(fresh.index.scores, -np.sort(-cosines, 1)[:, :8], atol=1e-6)
    again = triplets.renewed(source, None, file, "corners")
    for one, other in zip(fresh.index, again.index, strict=True):
        np.testing.assert_array_equal(one, other)

    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(FileNotFoundError, match="does not hold"):
        triplets.renewed(source, None, file, "corners")


def test_settings_and_clips_that_give_no_triplet_are_named(drawn):
    with pytest.raises(ValueError, match="longest clip has 6 frames, and a gap is at least 6: lower triplets.gap_min"):
        triplets.TripletSource(drawn, triplets.Triplets(gap_min=6))
    with pytest.raises(ValueError, match="triplets.begin is 'none'; before the encoder has learned, it must be one of: hog, "):
        triplets.Triplets(features="encoder", begin="none")
    with pytest.raises(ValueError, match="triplets.renew is 0"):
        triplets.Triplets(features="encoder", renew=0)
    with pytest.raises(ValueError, match="triplets.features is 'sift'"):
        triplets.Triplets(features="sift")
    with pytest.raises(ValueError, match="neighbours is 0"):
        triplets.Triplets(neighbours=0)
    with pytest.raises(ValueError, match="quality is 100"):
        triplets.Triplets(quality=100.0)
