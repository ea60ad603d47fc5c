"""Retrieval finds poses and not colours, searches exactly, never serves a group from itself, and is kept whole or made again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import swap_toy

from jaxgan import configure, generators, retrieval
from jaxgan.data import clips, figures, triplets


@pytest.fixture(scope="module")
def drawn():
    facts = figures.facts("train", 400)
    frames = np.stack([figures.draw_clip(facts.identity[i], facts.pose[i, ::4], 32, "plain", 0)[0] for i in range(400)])
    return clips.in_memory(frames, facts.identity, facts.pose[:, ::4], figures.FACTORS, figures.POSE)


def found_by(drawn, features, weights=""):
    """Nearest neighbours of all frames: medians of the errors of pose, and shares of equal factors."""
    index = retrieval.build_index(drawn, features, 1, weights=weights)
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


@pytest.fixture
def run_of_toys(monkeypatch):
    """A run wherever one is asked for, whose pose codes are the true poses of `swap_toy.Clips`; with kind 'leaky' the identities too."""
    asked = {"kind": "truth"}

    def opened(path):
        arrays = {"params/net/w": np.ones(1, np.float32)}
        return generators.Generator("swap_toy", swap_toy.Config(asked["kind"]), arrays, 100)

    monkeypatch.setattr(generators, "open_generator", opened)
    return asked


def test_an_encoder_of_poses_finds_the_frames_in_the_same_pose_whoever_they_show(run_of_toys, tmp_path, monkeypatch):
    toys = swap_toy.Clips()
    poses = np.concatenate([toys.pose(i) for i in range(len(toys))])
    vectors = np.stack([poses[:, 0], poses[:, 1], np.cos(poses[:, 2]), np.sin(poses[:, 2])], 1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    group = np.repeat(toys.group, 4)
    cosines = np.where(group[:, None] == group, -np.inf, vectors @ vectors.T)
    index = retrieval.open_index(toys, "encoder:run", 3, root=str(tmp_path))
    np.testing.assert_allclose(index.scores, -np.sort(-cosines, 1)[:, :3], atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(cosines, index.neighbours, 1), index.scores, atol=1e-6)
    assert (group[index.neighbours] != group[:, None]).all()
    run_of_toys["kind"] = "leaky"  # the run has gone on: its index is not one that was kept
    later = retrieval.open_index(toys, "encoder:run", 3, root=str(tmp_path))
    assert (later.scores < index.scores - 0.1).mean() > 0.9
    run_of_toys["kind"] = "truth"
    monkeypatch.setattr(retrieval, "build_index", None)  # those of the first networks are still there
    np.testing.assert_array_equal(retrieval.open_index(toys, "encoder:run", 3, root=str(tmp_path)).neighbours, index.neighbours)


def test_triplets_take_their_pose_images_by_a_run_and_say_which(run_of_toys, tmp_path):
    toys = swap_toy.Clips()
    settings = triplets.Triplets(features="encoder:run", gap_min=1, quality=0.0, histogram=1.0)
    source = triplets.TripletSource(toys, settings, root=str(tmp_path))
    errors = []
    for k in range(60):
        found = source.draw(k % len(source), np.random.default_rng(k))
        how, target = found["image"][1:]
        clip, other = int(found["clip"]), int(found["pose_clip"])
        assert toys.group[clip] != toys.group[other]
        there = next(t for t in range(4) if (toys.frame(other, t) == how).all())
        here = next(t for t in range(4) if (toys.frame(clip, t) == target).all())
        turn = toys.pose(other)[there, 2] - toys.pose(clip)[here, 2]
        errors.append(abs((turn + np.pi) % (2 * np.pi) - np.pi))
    assert np.mean(errors) < 0.2  # a quarter of a turn each way by chance: 1.6
    assert "by encoder:run: " in triplets.told(source, triplets.guards(source, 20))


def test_the_encoder_of_a_run_on_disk_is_the_averaged_one(tmp_path):
    from jaxgan.systems import identity_pose
    from jaxgan.weights import save_generator

    config = identity_pose.Config(
        side=16, widths=(4, 8), identity=8, tokens=8, read=8, heads=2, judge=(4, 8), embedding=(4, 8), pv_ramp=(0, 2)
    )
    shapes, rng = jax.eval_shape(identity_pose.system(config).init, jax.random.key(0)), np.random.default_rng(0)
    state = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), {"params": shapes.params, "ema": shapes.ema})
    arrays = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
    plain = configure.to_json(configure.Experiment(config))["model"]
    save_generator(tmp_path / "run", "identity_pose", plain, arrays, {"what": "random numbers"})
    frames = rng.integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    found = retrieval.encoder(str(tmp_path / "run"))(frames)
    swapper = identity_pose.swapper(config)

    @jax.jit
    def code(params):
        return swapper.pose_vector(swapper.pose(params, jnp.asarray(frames, jnp.float32) / 127.5 - 1))

    np.testing.assert_allclose(found, code({**state["params"], **state["ema"]}), rtol=1e-4, atol=1e-4)
    assert abs(found - code(state["params"])).max() > 0.1
    with pytest.raises(ValueError, match="run reads images of 16 pixels, the clips have 32x32"):
        retrieval.build_index(clips.in_memory(np.zeros((2, 2, 32, 32, 3), np.uint8)), f"encoder:{tmp_path / 'run'}", 1)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        retrieval.build_index(clips.in_memory(np.zeros((2, 2, 16, 16, 3), np.uint8)), f"encoder:{tmp_path / 'nowhere'}", 1)


def test_an_index_by_other_convnet_weights_is_another(tmp_path, monkeypatch):
    from jaxgan import weights

    asked = []
    monkeypatch.setattr(weights, "about", lambda name, path=None: {"preprocessing": "torchvision", "sha256": str(path)})
    monkeypatch.setattr(retrieval, "convnet", lambda path: asked.append(path) or (lambda frames: retrieval.luminance(frames)))
    frames = np.random.default_rng(0).integers(0, 256, (4, 2, 32, 32, 3), dtype=np.uint8)
    for path in ("a", "b", "a"):
        retrieval.open_index(clips.in_memory(frames), "convnet", 2, weights=path, root=str(tmp_path))
    assert asked == ["a", "b"] and len(list((tmp_path / "retrieval").iterdir())) == 2


@pytest.fixture(scope="module")
def published(shared):
    """The file of VGG-16's published weights."""
    from jaxgan import weights

    file = shared / "weights" / weights.KNOWN["vgg16"].file
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    return str(file)


def test_the_published_convnet_describes_a_frame_by_the_means_of_its_map(published):
    from jaxgan import perceptual, weights
    from jaxgan.nets import vgg

    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    images = perceptual.normalise(frames.astype(np.float32) / np.float32(127.5) - 1, weights.about("vgg16", published)["preprocessing"])
    maps = np.asarray(vgg.features(vgg.params(weights.load("vgg16", published)), images, ("relu4_3",))["relu4_3"])
    assert maps.shape == (2, 8, 8, 512)
    cells = maps.reshape(2, 4, 2, 4, 2, 512).mean((2, 4))
    cells /= np.linalg.norm(cells, axis=-1, keepdims=True)
    np.testing.assert_allclose(retrieval.convnet(published)(frames).reshape(2, 4, 4, 512), cells, atol=1e-5)


@pytest.mark.slow
def test_the_published_convnet_finds_places_and_is_less_bound_to_colours_than_rgb(published):
    facts = figures.facts("train", 80)
    frames = np.stack([figures.draw_clip(facts.identity[i], facts.pose[i, ::4], 32, "plain", 0)[0] for i in range(80)])
    few = clips.in_memory(frames, facts.identity, facts.pose[:, ::4], figures.FACTORS, figures.POSE)
    found = {features: found_by(few, features, published) for features in ("convnet", "rgb", "random")}
    assert found["convnet"]["pixels"] < 0.5 * found["random"]["pixels"]
    assert found["convnet"]["colour"] < found["rgb"]["colour"] - 0.1 and found["convnet"]["shape"] > found["rgb"]["shape"] + 0.1
