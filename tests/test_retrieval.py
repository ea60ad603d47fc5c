"""Retrieval finds poses and not colours, searches exactly, never serves a group from itself, and is kept whole or made again."""

import numpy as np
import pytest

from jaxgan import retrieval
from jaxgan.data import clips, figures


@pytest.fixture(scope="module")
def drawn():
    facts = figures.facts("train", 400)
    frames = np.stack([figures.draw_clip(facts.identity[i], facts.pose[i, ::4], 32, "plain", 0)[0] for i in range(400)])
    return clips.in_memory(frames, facts.identity, facts.pose[:, ::4], figures.FACTORS, figures.POSE)


def found_by(drawn, features):
    """Nearest neighbours of all frames: medians of the errors of pose, and shares of equal factors."""
    index = retrieval.build_index(drawn, features, 1)
    poses = np.concatenate([drawn.pose(i) for i in range(len(drawn))])
    identity = np.repeat(drawn.identity, 4, 0)
    neighbour = index.neighbours[:, 0]
    away = poses - poses[neighbour]
    turn = abs((away[:, 2] + np.pi) % (2 * np.pi) - np.pi)
    same = (identity == identity[neighbour]).mean(0)
    return {
        "pixels": float(np.median(np.hypot(away[:, 0], away[:, 1])) * 32),  # as if the frame had 64
        "degrees": float(np.degrees(np.median(turn))),
        "colour": float(same[1]),
        "shape": float(same[0]),
    }


@pytest.fixture(scope="module")
def table(drawn):
    return {features: found_by(drawn, features) for features in ("rgb", "hog", "luminance", "oracle", "random")}


def test_neighbours_in_rgb_have_the_colour_and_those_in_gradients_do_not(table):
    assert table["rgb"]["colour"] >= 0.9
    assert table["hog"]["colour"] <= 0.25 and table["random"]["colour"] <= 0.2  # 1/8 by chance
    assert table["hog"]["shape"] > table["random"]["shape"] + 0.2  # gradients tell the shape: the leak that the docs name


def test_gradients_find_the_heading_that_colours_miss_and_the_oracle_finds_all(table):
    assert table["oracle"]["degrees"] < 8 < table["hog"]["degrees"] < 0.85 * table["rgb"]["degrees"]
    assert table["rgb"]["degrees"] < 75 < table["random"]["degrees"] < 105
    assert max(table[name]["pixels"] for name in ("hog", "rgb", "oracle")) < 5 < 8 < table["random"]["pixels"]


def test_no_frame_is_served_by_its_own_clip_or_its_own_group(drawn):
    group = np.arange(400) // 4
    grouped = clips.in_memory(np.stack([drawn.frames(i) for i in range(400)]), group=group)
    for features in ("hog", "rgb", "random"):
        index = retrieval.build_index(grouped, features, 8, seed=2)
        own = np.repeat(group, 4)
        assert (index.neighbours >= 0).all() and (own[index.neighbours] != own[:, None]).all()


def test_the_search_agrees_with_all_products_in_double_precision_at_any_block_size():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(90, 12)).astype(np.float32)
    vectors[40] = vectors[7]  # equal ones come in order of their number
    vectors /= np.sqrt(np.square(vectors).sum(1, keepdims=True))
    group = rng.integers(0, 20, 90)
    for distance in (False, True):
        wide = vectors.astype(np.float64)
        all_scores = -np.square(wide[:, None] - wide).sum(-1) / 2 if distance else wide @ wide.T
        all_scores[group[:, None] == group] = -np.inf
        expected = np.argsort(-all_scores.round(9), axis=1, kind="stable")[:, :5]
        for block_bytes in (1, 4 * 90 * 7, 1 << 20):
            found, scores = retrieval.nearest(vectors, group, 5, distance=distance, block_bytes=block_bytes)
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_allclose(scores, np.take_along_axis(all_scores, expected, 1), atol=1e-6)
        assert found.dtype == np.int32


def test_of_many_frames_in_one_pose_each_gets_others_by_chance_and_none_that_is_further():
    vectors = np.repeat(np.array([[0.0, 0.0], [0.0, 1.0]], np.float32), 60, 0)
    group = np.arange(120)
    found, scores = retrieval.nearest(vectors, group, 4, distance=True, ties=5)
    assert (found // 60 == np.arange(120)[:, None] // 60).all() and (scores == 0).all()
    assert np.bincount(found.reshape(-1), minlength=120).max() < 16 and len(np.unique(found)) > 100
    np.testing.assert_array_equal(found, retrieval.nearest(vectors, group, 4, distance=True, ties=5, block_bytes=1000)[0])
    assert (found != retrieval.nearest(vectors, group, 4, distance=True, ties=6)[0]).any()


def test_what_is_missing_of_k_neighbours_is_minus_one():
    vectors = np.eye(4, dtype=np.float32)
    found, scores = retrieval.nearest(vectors, np.array([0, 0, 0, 1]), 3)
    assert found.tolist() == [[3, -1, -1]] * 3 + [[0, 1, 2]] and np.isneginf(scores[0, 1:]).all()
    assert (np.sort(retrieval.random_frames(np.array([0, 0, 0, 1]), 3, 0), 1) == [[-1, -1, 3]] * 3 + [[0, 1, 2]]).all()


def test_a_histogram_of_gradients_holds_what_the_formula_says():
    ramp = np.broadcast_to((np.arange(32) * 4).astype(np.uint8)[None, None, :, None], (1, 32, 32, 3))
    blocks = retrieval.hog(ramp).reshape(7, 7, 4, 9)
    # A ramp to the right: orientation 0, halfway between the first and the last of nine bins.
    np.testing.assert_allclose(blocks[3, 3, :, [0, 8]], 1 / np.sqrt(8), atol=1e-3)
    np.testing.assert_allclose(blocks[3, 3, :, 1:8], 0, atol=1e-6)
    assert retrieval.hog(np.zeros((2, 64, 64, 3), np.uint8)).shape == (2, 1764)
    swapped = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_allclose(retrieval.hog(swapped), retrieval.hog(255 - swapped[..., ::-1]), atol=1e-5)


def test_means_over_areas_and_shares_of_colours_are_those_of_the_pixels():
    frames = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    expected = frames.reshape(2, 16, 2, 16, 2, 3).mean((2, 4))
    np.testing.assert_allclose(retrieval.rgb(frames).reshape(2, 16, 16, 3), expected / 127.5 - 1, atol=1e-5)
    assert retrieval.luminance(frames).shape == (2, 256)
    shares = retrieval.histograms(frames)
    counts = np.zeros((8, 8, 8))
    for r, g, b in frames[1, 4:28, 4:28].reshape(-1, 3) // 32:
        counts[r, g, b] += 1
    np.testing.assert_allclose(shares[1], counts.reshape(-1) / 576, atol=1e-6)


def test_colours_are_compared_without_the_ground(drawn):
    index = retrieval.build_index(drawn, "random", 8)
    same = drawn.identity[np.arange(400).repeat(4)][:, None, 1] == drawn.identity[index.neighbours // 4][..., 1]
    assert index.colours[same].mean() > 0.45 and index.colours[~same].mean() < 0.25
    assert (index.colours >= 0).all() and (index.colours <= 1.001).all()


def test_an_index_is_kept_by_set_and_settings_and_a_damaged_one_is_made_again(tmp_path, drawn, monkeypatch):
    first = retrieval.open_index(drawn, "rgb", 4, root=str(tmp_path))
    files = list((tmp_path / "retrieval").iterdir())
    assert len(files) == 1 and first.neighbours.shape == (1600, 4)

    def build(*_):
        raise AssertionError("built again")

    with monkeypatch.context() as patch:
        patch.setattr(retrieval, "build_index", build)
        again = retrieval.open_index(drawn, "rgb", 4, root=str(tmp_path))
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a, b)
        with pytest.raises(AssertionError, match="built again"):
            retrieval.open_index(drawn, "rgb", 5, root=str(tmp_path))
    files[0].write_bytes(files[0].read_bytes()[:3000])
    np.testing.assert_array_equal(retrieval.open_index(drawn, "rgb", 4, root=str(tmp_path)).neighbours, first.neighbours)
    assert list((tmp_path / "retrieval").iterdir()) == files


def test_what_cannot_be_searched_is_named(drawn):
    with pytest.raises(ValueError, match="features is 'sift'; frames are described by one of: hog"):
        retrieval.build_index(drawn, "sift", 4)
    frames = np.zeros((2, 2, 32, 32, 3), np.uint8)
    with pytest.raises(ValueError, match="'oracle' compares true poses, and those of clips in memory are not known"):
        retrieval.build_index(clips.in_memory(frames), "oracle", 4)


def test_the_convnet_describes_areas_of_length_one(tmp_path, monkeypatch):
    from jaxgan import weights
    from jaxgan.nets import vgg

    rng, arrays, channels = np.random.default_rng(0), {}, 3
    for name in vgg.LAYERS[:10]:
        arrays[f"{name}.kernel"] = rng.normal(0, (2 / (9 * channels)) ** 0.5, (3, 3, channels, 4)).astype(np.float32)
        arrays[f"{name}.bias"] = np.full(4, 0.1, np.float32)
        channels = 4
    monkeypatch.setattr(weights, "load", lambda name, path=None: arrays)
    monkeypatch.setattr(weights, "about", lambda name, path=None: {"preprocessing": "torchvision", "sha256": "0" * 64})
    frames = rng.integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    cells = retrieval.convnet()(frames).reshape(2, 16, 4)
    lengths = np.sqrt(np.square(cells).sum(-1))
    np.testing.assert_allclose(lengths[lengths > 0], 1, atol=1e-5)
    assert (lengths > 0).any()
