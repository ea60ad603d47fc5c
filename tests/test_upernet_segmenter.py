"""The merged label space and the preprocessing against the official program's values; the import of a small network from files."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan import upernet_segmenter
from jaxgan.nets import resnet, upernet

SMALL = upernet.Layout(resnet.Layout((4, 4, 6), (2, 3, 4, 5), (1, 1, 1, 1)), 3, 8)


@pytest.fixture(scope="module")
def official(shared):
    return np.load(shared / "golden" / "seeing_tally.npz")


@pytest.fixture(scope="module")
def labels(official):
    return json.loads(str(official["labels_json"]))


@pytest.fixture(scope="module")
def space(labels):
    return upernet_segmenter.label_space(labels)


def test_the_label_space_is_the_official_one(official, space):
    assert [list(pair) for pair in zip(space.names, space.categories, strict=True)] == json.loads(str(official["names_json"]))
    assert len(space.names) == int(official["num_classes"])
    assert space.objects == ("-", "sky", "building", "person", "door", "tree")
    # the door of a building has the object's id; window and roof have ids of their own
    assert space.parts[1] == (0, 9, 4, 10) and space.owners == (1, 2, 3) and space.classes["part"] == 9


def test_the_published_vocabulary_has_473_ids():
    objects = ["-", *(f"object {k}" for k in range(335))]
    materials = ["-", *(f"material {k}" for k in range(25))]
    parts = [[f"part {k}", f"part {k + 1}", "object 3"] for k in range(77)]  # 78 different parts, each of them with two owners
    parts[0] += [f"rare {k}" for k in range(34)]
    owned = {f"object {k}": ["-", *names] for k, names in enumerate(parts)}
    space = upernet_segmenter.label_space({"object": objects, "material": materials, "scene": ["s"], "object_part": owned})
    assert len(space.names) == 336 + 25 + 112 == 473
    assert space.names[336] == "material 0" and space.names[361:364] == ("part 0", "part 1", "rare 0")
    assert space.parts[1][:2] == (0, 362) and all(ids[3] == 4 for ids in space.parts)
    assert space.classes == {"object": 336, "material": 26, "part": 77 * 4 + 34, "scene": 1}


def test_merged_label_maps_are_the_official_ones(official, space):
    last = {name: official[f"raw/{name}"].transpose(0, 2, 3, 1) for name in ("object", "material", "part_0", "part_1", "part_2")}
    found = upernet_segmenter.merge(space, {**last, "part": [last[f"part_{k}"] for k in range(3)]})
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, official["segs"].transpose(0, 2, 3, 1))
    assert set(np.unique(found[..., 2])) > {0}


def test_the_network_sees_what_the_official_one_saw(official):
    pixels = jnp.asarray((official["img"].transpose(0, 2, 3, 1) + 1) * 127.5, jnp.float32)
    found = upernet_segmenter.network_input(pixels, 8)
    np.testing.assert_allclose(found, official["net_input_8x8_bgr_meansub"].transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-4)


def test_an_image_of_the_right_size_only_loses_the_mean():
    pixels = jnp.full((1, 4, 4, 3), jnp.asarray([10.0, 20.0, 30.0], jnp.float32))
    found = upernet_segmenter.network_input(pixels, 4)
    np.testing.assert_allclose(found[0, 0, 0], [30 - 102.9801, 20 - 115.9465, 10 - 122.7717], rtol=1e-6)


def random_files(folder, labels, suffix=".npz"):
    """The three files of a small network with the published names."""
    folder.mkdir()
    (folder / "labels.json").write_text(json.dumps(labels))
    classes = upernet_segmenter.label_space(labels).classes
    rng = np.random.default_rng(5)
    for kind, units in (("encoder", resnet.units(SMALL.encoder)), ("decoder", upernet.units(classes, SMALL))):
        shapes = resnet.state_shapes(units)
        gains = {name: np.sqrt(2 / np.prod(shape[1:])) if len(shape) == 4 else 0.3 for name, shape in shapes.items()}
        state = {name: rng.normal(size=shape) * gains[name] for name, shape in shapes.items()}
        arrays = {name: (np.abs(a) + 1 if name.endswith("running_var") else a).astype(np.float32) for name, a in state.items()}
        np.savez(folder / f"{kind}_epoch_40{suffix}", **arrays)
    return folder


def test_probabilities_are_resized_softmaxed_and_added_over_sizes(monkeypatch, space):
    pixels = np.random.default_rng(6).uniform(0, 255, (2, 40, 48, 3)).astype(np.float32)
    rng = np.random.default_rng(7)
    counts = {"object": 6, "part": 9}
    given = {size: {name: rng.normal(size=(2, size // 4, size // 4, n)) for name, n in counts.items()} for size in (32, 64)}

    def logits(params, images, heads):
        assert images.shape[1] == images.shape[2]
        return {name: jnp.asarray(given[images.shape[1]][name], jnp.float32) for name in heads}

    monkeypatch.setattr(upernet_segmenter.upernet, "logits", logits)
    found = upernet_segmenter.probabilities({}, space, pixels, sizes=(32, 64), downsample=2, heads=("object", "part"))
    assert [scores.shape for scores in (found["object"], *found["part"])] == [(2, 20, 24, classes) for classes in (6, 2, 4, 3)]
    # the list of 'building' is the slice 2:6 of the part scores; resized by the library's own function, which is half-pixel bilinear too
    expected = 0.0
    for size in (32, 64):
        resized = np.asarray(jax.image.resize(given[size]["part"].astype(np.float32), (2, 20, 24, 9), "linear", antialias=False))
        powers = np.exp(resized[..., 2:6])
        expected = expected + powers / powers.sum(-1, keepdims=True)
    np.testing.assert_allclose(found["part"][1], expected, rtol=1e-4)


def test_a_segmenter_from_files_labels_objects(tmp_path, labels, space):
    folder = random_files(tmp_path / "net", labels)
    segmenter = upernet_segmenter.open_upernet(f"upernet:{folder}", sizes=(32,), layout=SMALL)
    images = np.random.default_rng(7).integers(0, 256, (6, 48, 32, 3), np.uint8)
    found = segmenter.label(images)
    params, _, _ = upernet_segmenter.read_network(folder, SMALL)
    all_three = jax.jit(lambda params, images: upernet_segmenter.segment(params, space, images, sizes=(32,)))(params, images)
    assert found.shape == (6, 48, 32) and found.dtype == np.int32 and len(np.unique(found)) > 1
    assert (found == all_three[..., 0]).mean() > 0.999  # a tie may fall otherwise in another compilation
    assert segmenter.classes == space.objects and segmenter.size is None
    other = upernet_segmenter.open_upernet(folder, sizes=(32, 64), layout=SMALL)
    assert segmenter.identity != other.identity
    assert segmenter.identity == upernet_segmenter.open_upernet(folder, sizes=(32,), layout=SMALL).identity


def test_wrong_images_are_refused(tmp_path, labels):
    segmenter = upernet_segmenter.open_upernet(random_files(tmp_path / "net", labels), downsample=4, layout=SMALL)
    for images in (np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8, 4), np.uint8)):
        with pytest.raises(ValueError, match=r"uint8 \[N, H, W, 3\]"):
            segmenter.label(images)
    with pytest.raises(ValueError, match="3 x 8 pixels cannot be downsampled by 4"):
        segmenter.label(np.zeros((1, 3, 8, 3), np.uint8))


def test_a_folder_that_is_not_the_network_is_refused(tmp_path, labels):
    with pytest.raises(FileNotFoundError, match="labels.json"):
        upernet_segmenter.read_network(tmp_path / "nowhere")
    folder = random_files(tmp_path / "net", labels)
    with pytest.raises(ValueError, match="the encoder is not .* and 177 more; of another shape: conv1.weight"):
        upernet_segmenter.read_network(folder)  # small arrays, published widths
    (folder / "decoder_epoch_40.npz").unlink()
    with pytest.raises(FileNotFoundError, match=r"one file decoder\*.pth .*; found: none"):
        upernet_segmenter.read_network(folder, SMALL)
    with pytest.raises(ValueError, match="sizes .* whole numbers from 32"):
        upernet_segmenter.open_upernet(folder, sizes=(8,), layout=SMALL)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"object": "sky"}, "'object' must be a list of names"),
        ({"material": ["-", 3]}, "'material' must be a list of names"),
        ({"object_part": {}}, "'object_part' must give"),
        ({"object_part": {"window": ["-", "pane"]}}, "the owner 'window', which is not among the 6 objects"),
        ({"object_part": {"sky": []}}, "the parts of 'sky' must be a list of names"),
    ],
)
def test_a_labels_file_that_makes_no_sense_is_refused(tmp_path, labels, change, words):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(labels | change))
    with pytest.raises(ValueError, match=words):
        upernet_segmenter.read_labels(path)


def test_a_labels_file_that_is_no_json_is_refused(tmp_path):
    for text, words in (("{", "is not a JSON file"), ("[]", "must hold a JSON object")):
        (tmp_path / "labels.json").write_text(text)
        with pytest.raises(ValueError, match=words):
            upernet_segmenter.read_labels(tmp_path / "labels.json")
