"""Segmenters from ONNX files, built here node by node: what they label, what is read from them, and what is refused."""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the ONNX tests need onnx: pip install 'jaxgan[export]'")
pytest.importorskip("onnxruntime", reason="the ONNX tests need onnxruntime: pip install 'jaxgan[export]'")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from jaxgan import onnx_files  # noqa: E402
from jaxgan.onnx_segmenter import class_names, open_onnx  # noqa: E402

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(4, 3)).astype(np.float32)
BIAS = RNG.normal(size=4).astype(np.float32) * 0.2
IMAGES = RNG.integers(0, 256, (5, 6, 7, 3), np.uint8)


def write(path, *, layout="NCHW", shape=("n", 3, "h", "w"), labels=None, kind=TensorProto.FLOAT, metadata=None, kernel=None, extra=()):
    """A network of one 1x1 convolution to four classes; `labels`: the type of an argmax at the end."""
    nodes, x = [], "image"
    if kind == TensorProto.UINT8:
        nodes.append(helper.make_node("Cast", [x], ["float"], to=TensorProto.FLOAT))
        x = "float"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [x], ["channels_first"], perm=[0, 3, 1, 2]))
        x = "channels_first"
    nodes.append(helper.make_node("Conv", [x, "kernel", "bias"], ["scores"]))
    output, out_type = "scores", TensorProto.FLOAT
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [output], ["channels_last"], perm=[0, 2, 3, 1]))
        output = "channels_last"
    if labels is not None:
        nodes.append(helper.make_node("ArgMax", [output], ["best"], axis=1 if layout == "NCHW" else 3, keepdims=int(labels == "kept")))
        output, out_type = "best", TensorProto.INT64
    weights = [kernel or numpy_helper.from_array(KERNEL[:, :, None, None], "kernel"), numpy_helper.from_array(BIAS, "bias")]
    inputs, outputs = [helper.make_tensor_value_info("image", kind, shape)], [helper.make_tensor_value_info(output, out_type, None)]
    graph = helper.make_graph([*nodes, *extra], "segmenter", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    path.write_bytes(model.SerializeToString())
    return path


def expected(images=IMAGES, low=0.0, high=1.0, mean=0.0, std=1.0, bgr=False):
    """The same in float64; the smallest distance between the best two scores is large enough for float32."""
    x = (low + (high - low) * images.astype(np.float64) / 255 - np.asarray(mean)) / np.asarray(std)
    scores = np.einsum("nhwc,kc->nhwk", x[..., ::-1] if bgr else x, KERNEL) + BIAS
    best = np.sort(scores, -1)
    assert (best[..., -1] - best[..., -2]).min() > 1e-4
    return scores.argmax(-1)


def test_scores_become_labels_and_are_named_by_number(tmp_path):
    path = write(tmp_path / "net.onnx")
    segmenter = open_onnx(f"onnx:{path}")
    found = segmenter.label(IMAGES)
    assert found.dtype == np.int32 and len(np.unique(found)) > 1
    np.testing.assert_array_equal(found, expected())
    assert segmenter.classes == ("class 0", "class 1", "class 2", "class 3") and segmenter.size is None
    assert segmenter.identity == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_command_lines_spec_opens_it(tmp_path):
    from jaxgan.segmenters import open_segmenter

    np.testing.assert_array_equal(open_segmenter(f"onnx:{write(tmp_path / 'net.onnx')}").label(IMAGES[:1]), expected()[:1])


def test_channels_last_uint8_and_label_outputs(tmp_path):
    last = open_onnx(write(tmp_path / "last.onnx", layout="NHWC", shape=("n", "h", "w", 3)))
    np.testing.assert_array_equal(last.label(IMAGES), expected())
    raw = open_onnx(write(tmp_path / "bytes.onnx", kind=TensorProto.UINT8))
    np.testing.assert_array_equal(raw.label(IMAGES), expected(high=255.0))
    for labels in ("kept", "dropped"):
        for layout, shape in (("NCHW", (2, 3, 6, 7)), ("NHWC", (2, 6, 7, 3))):
            path = write(tmp_path / f"{labels}{layout}.onnx", layout=layout, shape=shape, labels=labels)
            segmenter = open_onnx(path, classes=4)
            assert segmenter.size == (6, 7)
            np.testing.assert_array_equal(segmenter.label(IMAGES), expected())  # five images in batches of two


def test_preprocessing_options_by_argument_and_beside_the_file(tmp_path):
    path = write(tmp_path / "net.onnx")
    options = {"value_range": [-1, 1], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "channels": "bgr"}
    want = expected(low=-1, high=1, mean=options["mean"], std=options["std"], bgr=True)
    by_argument = open_onnx(path, **options)
    np.testing.assert_array_equal(by_argument.label(IMAGES), want)
    plain = open_onnx(path).identity
    (tmp_path / "net.onnx.json").write_text(json.dumps(options | {"classes": ["sky", "sea", "land", "rest"]}))
    beside = open_onnx(path)
    np.testing.assert_array_equal(beside.label(IMAGES), want)
    assert beside.classes == ("sky", "sea", "land", "rest")
    assert len({plain, by_argument.identity, beside.identity}) == 3  # other settings are another segmenter


def test_other_sizes_are_resized_to_the_wanted_one(tmp_path):
    from jaxgan.segmenters import resize

    segmenter = open_onnx(write(tmp_path / "net.onnx", shape=(1, 3, 4, 4)))
    small = np.stack([resize(image, (4, 4)) for image in IMAGES])
    np.testing.assert_array_equal(segmenter.label(IMAGES), expected(small))


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("classes", '["a", "b", "c", "d"]'),
        ("names", "{0: 'a', 1: 'b', 2: 'c', 3: 'd'}"),
        ("id2label", '{"3": "d", "1": "b", "0": "a", "2": "c"}'),
    ],
)
def test_class_names_from_metadata(tmp_path, key, text):
    assert open_onnx(write(tmp_path / "net.onnx", metadata={key: text})).classes == ("a", "b", "c", "d")


def test_class_names_from_files_and_numbers(tmp_path):
    (tmp_path / "names.txt").write_text("sky\n\nsea \n")
    (tmp_path / "names.json").write_text('["sky", "sea"]')
    assert class_names(tmp_path / "names.txt") == class_names(str(tmp_path / "names.json")) == ("sky", "sea")
    (tmp_path / "notepad.txt").write_bytes("\ufeffsky\r\nsea\r\n".encode())
    assert class_names(tmp_path / "notepad.txt") == ("sky", "sea")
    assert class_names("2") == class_names(2) == ("class 0", "class 1")
    (tmp_path / "bad.json").write_text('{"sky": 1}')
    for wrong in (0, [], ["a", 3], tmp_path / "bad.json"):
        with pytest.raises(ValueError, match="classes|names"):
            class_names(wrong)
    with pytest.raises(FileNotFoundError, match="class names"):
        class_names(tmp_path / "nowhere.txt")


@pytest.mark.parametrize(
    ("made", "options", "words"),
    [
        ({}, {"classes": 5}, r"output 'scores' is \(1, 4, 256, 256\), but there are 5 class names"),
        ({"labels": "kept"}, {}, "how many there are: give classes"),
        ({"labels": "kept"}, {"classes": 2}, "labels from 0 to [23]; they must be whole numbers below 2"),
        ({"shape": ("n", "c", "h", "w")}, {}, "which side has the three channels"),
        ({"shape": (1, 4, 6, 7)}, {}, "which side has the three channels"),
        ({"shape": (1, 3, 6, "w")}, {}, "fixes one side of its input"),
        ({"shape": (1, 3, 6, 7)}, {"size": 8}, "wants images of 6 x 7 pixels, not of 8 x 8"),
        ({"kind": TensorProto.UINT8}, {"mean": 0.5}, "wants uint8 images"),
        ({"kind": TensorProto.INT32}, {}, "cannot be run by onnxruntime|one input, a batch of images"),
        ({}, {"output": "other"}, "no output 'other'; it has scores"),
        ({}, {"std": [1, 0, 1]}, "std = .* above 0"),
        ({}, {"value_range": [1, 1]}, "value_range"),
        ({}, {"size": [8, 0]}, "size"),
        ({"shape": (1025, 3, 8, 8)}, {}, "wants 1,025 images of 8 x 8 pixels at once; at most 1,024"),
        ({"shape": (1024, 3, 16384, 16384)}, {}, "wants 1,024 images of 16384 x 16384 pixels at once"),
        ({}, {"channels": "grb"}, "'rgb' or 'bgr'"),
        ({"shape": (1, 3, 6, 7)}, {"layout": "NHWC"}, "which side has the three channels"),
        ({}, {"providers": ["NoSuchProvider"]}, "has no NoSuchProvider here; it has .*CPUExecutionProvider"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, made, options, words):
    path = write(tmp_path / "net.onnx", **made)
    with pytest.raises(ValueError, match=words):
        open_onnx(path, **options).label(RNG.integers(0, 256, (1, 64, 64, 3), np.uint8))


def test_a_damaged_or_foreign_file_gives_one_error(tmp_path):
    whole = write(tmp_path / "net.onnx").read_bytes()
    contents = {"half": whole[: len(whole) // 2], "empty": b"", "text": b"no network" * 99, "png": b"\x89PNG\r\n\x1a\n" + whole}
    for name, data in contents.items():
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}.onnx (is not a readable ONNX file|cannot be run)"):
            open_onnx(path)
    unknown = helper.make_node("Surprise", ["scores"], ["more"], domain="elsewhere")
    with pytest.raises(ValueError, match="cannot be run by onnxruntime"):
        open_onnx(write(tmp_path / "unknown.onnx", extra=[unknown]))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_onnx(tmp_path / "nowhere.onnx")
    (tmp_path / "net.onnx.json").write_text('{"sizes": 3}')
    with pytest.raises(ValueError, match="net.onnx.json must be a JSON object with some of"):
        open_onnx(tmp_path / "net.onnx")


def kept_elsewhere(location):
    """The kernel as a reference to a file."""
    tensor = TensorProto(name="kernel", data_type=TensorProto.FLOAT, dims=[4, 3, 1, 1], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "48")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def test_weights_beside_the_file_are_read_and_are_part_of_its_identity(tmp_path):
    (tmp_path / "weights.bin").write_bytes(KERNEL.tobytes())
    path = write(tmp_path / "net.onnx", kernel=kept_elsewhere("weights.bin"))
    before = open_onnx(path)
    np.testing.assert_array_equal(before.label(IMAGES), expected())
    (tmp_path / "weights.bin").write_bytes((KERNEL * 2).tobytes())
    assert open_onnx(path).identity != before.identity


def test_weights_outside_the_folder_are_refused(tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(KERNEL.tobytes())
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "link.bin").symlink_to(secret)
    for location in ("../secret.bin", str(secret), "link.bin", "", "*/_ORT_MEM_ADDR_/*", "a/../../secret.bin"):
        path = write(folder / "net.onnx", kernel=kept_elsewhere(location))
        with pytest.raises(ValueError, match="not a readable ONNX file: the weights of 'kernel' .*(only files inside|leads out)"):
            open_onnx(path)
    with pytest.raises(ValueError, match="'gone.bin', which is not in"):
        open_onnx(write(folder / "net.onnx", kernel=kept_elsewhere("gone.bin")))


def test_weights_are_found_wherever_the_format_has_them(tmp_path):
    constant = helper.make_node("Constant", [], ["c"], value=kept_elsewhere("../deep.bin"))
    branch = helper.make_graph([constant], "branch", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, None)])
    choice = helper.make_node("If", ["flag"], ["unused"], then_branch=branch, else_branch=branch)
    with pytest.raises(ValueError, match="'../deep.bin'; only files inside"):
        open_onnx(write(tmp_path / "net.onnx", extra=[choice]))


def test_without_the_libraries_the_remedy_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"pip install 'jaxgan\[export\]'"):
        onnx_files.open_session(path)
