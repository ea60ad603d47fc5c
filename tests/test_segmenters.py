"""Segmenters by name: a U-Net's workdir, a user's own function, and what is refused."""

from __future__ import annotations

import sys
import types

import jax
import numpy as np
import pytest

from jaxgan import configure, segmenters
from jaxgan.checkpoint import name_leaves
from jaxgan.segmenters import Segmenter, open_segmenter, resize, resize_labels
from jaxgan.systems import segmentation
from jaxgan.weights import save_generator

CONFIG = segmentation.Config(classes=("sky", "road", "car"), size=(16, 16), width=4, depth=2, schedule="constant", ema=1.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A U-Net on disk, made of random numbers, with an average that differs from its parameters."""
    shapes = name_leaves(jax.eval_shape(CONFIG.system().init, jax.random.key(0)))
    rng = np.random.default_rng(0)
    wanted = [name for name in shapes if name.startswith(("params/", "ema/"))]
    arrays = {name: rng.normal(0, 0.5, shapes[name].shape).astype(np.float32) for name in wanted}
    folder = tmp_path_factory.mktemp("segmenters") / "unet"
    save_generator(folder, "segmentation", configure.to_json(configure.Experiment(CONFIG))["model"], arrays, {"what": "random numbers"})
    return folder


def images(n=3, seed=1, size=(16, 16)):
    return np.random.default_rng(seed).integers(0, 256, (n, *size, 3), dtype=np.uint8)


def nest(folder, part):
    from jaxgan.generators import nested, open_generator

    return nested(open_generator(folder).arrays, part)["U"]


def test_a_unet_labels_with_its_averaged_network_whatever_the_number_of_images(folder):
    segmenter = open_segmenter(f"unet:{folder}")
    assert segmenter.classes == ("sky", "road", "car") and segmenter.size == (16, 16)
    shown = images(19)  # more than a batch, and not a multiple
    found = segmenter.label(shown)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, segmentation.label_maps(CONFIG, nest(folder, "ema"), shown))
    assert (found != np.asarray(segmentation.label_maps(CONFIG, nest(folder, "params"), shown))).any()
    np.testing.assert_array_equal(segmenter.label(shown[:1]), found[:1])
    assert segmenter.label(images(2, size=(9, 21))).shape == (2, 9, 21)


def test_its_identity_is_that_of_its_weights(folder, tmp_path):
    assert open_segmenter(f"unet:{folder}").identity == open_segmenter(f"unet:{folder}").identity
    shapes = name_leaves(jax.eval_shape(CONFIG.system().init, jax.random.key(0)))
    arrays = {name: np.ones(leaf.shape, np.float32) for name, leaf in shapes.items() if name.startswith("params/")}
    save_generator(tmp_path / "other", "segmentation", configure.to_json(configure.Experiment(CONFIG))["model"], arrays, {})
    assert open_segmenter(f"unet:{tmp_path / 'other'}").identity != open_segmenter(f"unet:{folder}").identity


@pytest.fixture
def module(monkeypatch):
    """A user's module `own`."""
    own = types.ModuleType("own")
    monkeypatch.setitem(sys.modules, "own", own)
    return own


def bright(images):
    return (images.mean(-1) > 127).astype(np.uint8)


def test_a_users_function_with_names_is_a_segmenter(module):
    def label(images):
        return bright(images)

    label.classes, label.size = ["dark", "bright"], (16, 16)
    module.label = label
    segmenter = open_segmenter("own:label")
    assert segmenter.name == "own:label" and segmenter.classes == ("dark", "bright") and segmenter.size == (16, 16)
    shown = images()
    np.testing.assert_array_equal(segmenter.label(shown), bright(shown))
    assert segmenter.label(shown).dtype == np.int32


def test_a_users_function_may_build_the_segmenter(module):
    module.build = lambda level=127: Segmenter("mine", ("dark", "bright"), lambda images: (images.mean(-1) > level).astype(int), None, "1")
    module.ready = module.build(0)
    np.testing.assert_array_equal(open_segmenter("own:build").label(images()), bright(images()))
    assert open_segmenter("own:ready").label(images()).min() == 1


def test_classes_of_one_name_are_told_apart():
    made = Segmenter("mine", ("screen", "sky", "screen"), bright, None, "1")
    assert made.classes == ("screen", "sky", "screen (2)")


def test_names_that_are_no_text_become_printable():
    made = Segmenter("mine", ("sky\ud800", "sky\udfff", "帽子"), bright, None, "1")  # as JSON may spell them
    assert made.classes == ("sky?", "sky? (1)", "帽子")


def test_a_functions_own_identity_is_part_of_the_segmenters(module):
    def label(images):
        return bright(images)

    label.classes = ("dark", "bright")
    module.label, found = label, set()
    for text in (None, "weights 1", "weights 2"):
        if text is not None:
            label.identity = text
        found.add(open_segmenter("own:label").identity)
    assert len(found) == 3
    label.identity = 3
    with pytest.raises(ValueError, match="its attribute identity is 3; it must be text"):
        open_segmenter("own:label")


def test_a_module_in_the_current_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "my_segmenter.py").write_text(
        "import numpy as np\ndef label(images):\n    import my_helper\n    return np.full(images.shape[:3], my_helper.ANSWER)\n"
        "label.classes = ('a', 'b')\n"
    )
    (tmp_path / "my_helper.py").write_text("ANSWER = 1\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    segmenter = open_segmenter("my_segmenter:label")
    monkeypatch.chdir("/")
    assert (segmenter.label(images()) == 1).all()  # what it imports when it runs is found too
    assert sys.path == before and len(segmenter.identity) == 64
    del sys.modules["my_segmenter"], sys.modules["my_helper"]


def test_a_function_that_a_package_hands_on_is_known_by_its_own_text(tmp_path, monkeypatch):
    # Otherwise tallies of the old function would be taken for those of the new one.
    (tmp_path / "handing").mkdir()
    (tmp_path / "handing" / "__init__.py").write_text("from handing.model import label\n")
    monkeypatch.chdir(tmp_path)
    found = set()
    for answer in ("zeros", "ones"):
        text = f"import numpy as np\ndef label(images):\n    return np.{answer}(images.shape[:3], int)\nlabel.classes = ('a', 'b')\n"
        (tmp_path / "handing" / "model.py").write_text(text)
        found.add(open_segmenter("handing:label").identity)
        del sys.modules["handing"], sys.modules["handing.model"]
    assert len(found) == 2


def test_wrong_answers_of_a_user_are_named(module):
    for answer, text in (
        (lambda images: images.mean(-1), r"float64 \[3, 16, 16\] for 3 images"),
        (lambda images: np.zeros((1, 16, 16), int), r"int64 \[1, 16, 16\] for 3 images"),
        (lambda images: np.full(images.shape[:3], 2), "label 2, but it has 2 classes"),
        (lambda images: np.full(images.shape[:3], -1), "label -1"),
    ):
        module.label = answer
        module.label.classes = ("a", "b")
        with pytest.raises(ValueError, match=text):
            open_segmenter("own:label").label(images())


def test_what_is_no_segmenter_is_refused(module, folder, tmp_path):
    module.bare, module.number, module.nothing = bright, 3, lambda: None
    module.text = lambda images: images
    module.text.classes = "sky road"
    for spec, text in (
        ("bisenet", "there is no segmenter 'bisenet'; nearest: bisenetv2"),
        ("unet:", "there is no segmenter 'unet:'"),
        ("own:missing", "own has no 'missing'"),
        ("own:number", "is a int, not a function"),
        ("own:bare", "takes 'images' and has no names for its labels"),
        ("own:nothing", "returned a NoneType"),
        ("own:text", "must be the names"),
        ("no_such_module_here:f", "cannot be imported"),
    ):
        with pytest.raises(ValueError, match=text):
            open_segmenter(spec)
    with pytest.raises(FileNotFoundError):
        open_segmenter(f"unet:{tmp_path / 'nothing'}")
    with pytest.raises(ValueError, match="stands for the label maps of a source"):
        open_segmenter("labels").label(images())


def test_the_published_face_parser_labels_photographs(shared, monkeypatch):
    monkeypatch.setenv("JAXGAN_WEIGHTS", str(shared / "weights"))
    monkeypatch.setattr(segmenters, "BATCH", 1)
    with np.load(shared / "data" / "faces_lfw128_train.npz") as data:
        import io

        from PIL import Image

        ends = data["offsets"][:2]
        face = np.asarray(Image.open(io.BytesIO(data["jpeg_bytes"][ends[0] : ends[1]].tobytes())).convert("RGB"))
    segmenter = open_segmenter("bisenetv2")
    labels = segmenter.label(face[None])[0]
    assert labels.shape == (448, 448) and len(segmenter.classes) == 19
    centre = np.bincount(labels[150:300, 150:300].ravel(), minlength=19) / 150**2
    assert centre[[segmenter.classes.index(name) for name in ("skin", "nose", "mouth", "u_lip", "l_lip", "l_eye", "r_eye")]].sum() > 0.6


def test_label_maps_change_size_by_the_nearest_pixel():
    labels = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(resize_labels(labels, (6, 8)), labels.repeat(2, 0).repeat(2, 1))
    np.testing.assert_array_equal(resize_labels(labels.repeat(3, 0).repeat(3, 1), (3, 4)), labels)
    from PIL import Image

    odd = np.random.default_rng(0).integers(0, 256, (7, 9)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(odd).resize((5, 11), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(resize_labels(odd, (11, 5)), expected)
    assert resize(images(1, size=(7, 9))[0], (14, 5)).shape == (14, 5, 3)


def test_labels_are_computed_on_this_processs_devices_whatever_mesh_a_run_has_set() -> None:
    from jaxgan import parallel

    label = segmenters.on_devices(lambda params, images: images[..., 0] + params, np.uint8(1))
    images = np.random.default_rng(0).integers(0, 200, (5, 8, 8, 3), dtype=np.uint8)
    with jax.set_mesh(parallel.make_mesh((0, 1), jax.devices()[:4])):  # as in several processes: other devices than those of `label`
        np.testing.assert_array_equal(label(images), images[..., 0].astype(np.int32) + 1)
