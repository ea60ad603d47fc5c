"""Files of arrays: each kind gives the numbers that were put in, and a damaged, oversize or wrong file is refused by what it is."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file
from written import ordered, save_torch, storage, tensor, write_legacy, write_zip

from jaxgan import weights

ROOT = Path(weights.__file__).parents[2]
RNG = np.random.default_rng(0)
ARRAYS = {"a.weight": RNG.normal(size=(4, 3, 2)).astype(np.float32), "a.bias": RNG.normal(size=4).astype(np.float32)}


def write_safetensors(path, header: bytes | dict, data: bytes):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_tensors_keep_their_numbers_names_and_order(tmp_path, legacy):
    # The suffix does not matter: a browser may have changed it.
    read = weights.read(save_torch(tmp_path / "a.bin", ARRAYS, legacy=legacy))
    assert list(read) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert read[name].dtype == np.float32 and read[name].flags.writeable
        np.testing.assert_array_equal(read[name], array)


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_tensors_may_be_views_of_one_storage(tmp_path, legacy):
    numbers = np.arange(24, dtype="<f4")
    whole = storage("s", 24, legacy=legacy)
    items = {"turned": tensor(whole, 0, [4, 6], [1, 4]), "part": tensor(whole, 5, [2, 3], [6, 1]), "scalar": tensor(whole, 23, [], [])}
    items["none"] = tensor(whole, 24, [0, 3], [3, 1])
    read = weights.read((write_legacy if legacy else write_zip)(tmp_path / "a.pth", ordered(items), {"s": numbers.tobytes()}))
    np.testing.assert_array_equal(read["turned"], numbers.reshape(6, 4).T)
    np.testing.assert_array_equal(read["part"], numbers.reshape(4, 6)[:2, 5:] + [[0, 1, 2], [0, 1, 2]])
    assert read["scalar"].shape == () and read["scalar"] == 23 and read["none"].shape == (0, 3)


@pytest.mark.parametrize(
    "kind, data, expected",
    [
        ("BFloat16Storage", np.array([0x3F80, 0xC020], "<u2"), np.array([1, -2.5], np.float32)),
        ("HalfStorage", np.array([1, -2.5], "<f2"), np.array([1, -2.5], np.float16)),
        ("DoubleStorage", np.array([1, np.pi], "<f8"), np.array([1, np.pi])),
        ("LongStorage", np.array([-1, 2**40], "<i8"), np.array([-1, 2**40])),
        ("BoolStorage", np.array([True, False]), np.array([True, False])),
    ],
)
def test_torch_dtypes_and_byte_orders(tmp_path, kind, data, expected):
    program = ordered({"a": tensor(storage("0", 2, kind), 0, [2], [1])})
    for name, content, order in (("l", data, b"little"), ("b", data.byteswap(), b"big")):
        read = weights.read(write_zip(tmp_path / f"{name}.pth", program, {"0": content.tobytes()}, {"byteorder": order}))["a"]
        assert read.dtype == expected.dtype
        np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize(
    "item, message",
    [
        (tensor(storage("0", 4), 0, [5], [1]), "leaves its storage of 4 numbers"),
        (tensor(storage("0", 4), 1, [4], [1]), "leaves its storage"),
        (tensor(storage("0", 4), 0, [2, 2], [3, 1]), "leaves its storage"),
        (tensor(storage("0", 4), 0, [100, 100], [0, 0]), "leaves its storage"),
        (tensor(storage("0", 4), -1, [1], [1]), "offset -1"),
        (tensor(storage("0", 4), 0, [2], [-1]), r"strides \(-1,\)"),
        (tensor(storage("0", 4), 0, [2, 2], [1]), r"size \(2, 2\), strides \(1,\)"),
        (tensor(storage("0", 4), 0, [2**61, 2**61], [1, 1]), "leaves its storage"),
        (tensor(storage("0", 2**60), 0, [2**60], [1]), "holds 1 tensors of .* bytes; at most|not 1,152,921"),
        (tensor(storage("0", 5), 0, [4], [1]), "storage '0' (has 16 bytes|says 4 numbers)"),
        (tensor(storage("1", 4), 0, [4], [1]), "archive/data/1|storage '[01]'"),
    ],
)
def test_torch_tensors_beyond_their_storage_are_refused(tmp_path, item, message):
    for file in (
        write_zip(tmp_path / "a.pth", ordered({"a": item}), {"0": bytes(16)}),
        write_legacy(tmp_path / "b.pth", ordered({"a": item}), {"0": bytes(16)}),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            weights.read(file)
        assert str(file) in str(refused.value)


def test_torch_archives_that_torch_would_not_write(tmp_path):
    program = ordered({"a": tensor(storage("0", 2**18), 0, [2**18], [1])})
    with pytest.raises(ValueError, match="compressed"):
        weights.read(write_zip(tmp_path / "bomb.pth", program, {"0": bytes(2**20)}, packed=zipfile.ZIP_DEFLATED))
    with pytest.raises(ValueError, match="TorchScript program; save its tensors alone"):
        weights.read(write_zip(tmp_path / "script.pth", program, {}, {"constants.pkl": b"."}))
    shared = ordered({str(i): tensor(storage("0", 2**18), 0, [2**18], [1]) for i in range(80)})
    with pytest.raises(ValueError, match="80 tensors of 83,886,080 bytes"):
        weights.read(write_zip(tmp_path / "many.pth", shared, {"0": bytes(2**20)}))


def test_safetensors_reads_as_its_library_wrote_it(tmp_path):
    arrays = {**ARRAYS, "h": np.ones((2, 0, 3), np.float16), "i": np.array(7, np.int64), "b": np.array([True, False])}
    save_file(arrays, tmp_path / "a.safetensors", {"note": "x"})
    read = weights.read(tmp_path / "a.safetensors")
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
    half = {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    read = weights.read(write_safetensors(tmp_path / "half.safetensors", half, struct.pack("<2H", 0x3F80, 0xC020)))
    np.testing.assert_array_equal(read["a"], np.array([1, -2.5], np.float32))


def entry(*offsets: int, shape=(2,), dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    "header, message",
    [
        ({"a": entry(0, 8), "b": entry(4, 12)}, "'b' overlaps 'a'"),
        ({"a": entry(0, 8), "b": entry(0, 8)}, "'b' overlaps 'a'"),
        ({"a": entry(0, 8), "b": entry(12, 20)}, "ends at byte 20 of 16"),
        ({"b": entry(8, 16)}, "leaves a gap"),
        ({"a": entry(0, 8)}, "8 bytes after the last array"),
        ({"a": entry(0, 2**40, shape=(2**38,))}, "ends at byte 1,099,511,627,776 of 16"),
        ({"a": entry(0, 16, shape=(2**62, 2**62))}, "does not have 16 bytes"),
        ({"a": entry(0, 16, shape=(5,))}, "does not have 16 bytes"),
        ({"a": entry(0, 16, shape=(-2, -2))}, "whole numbers from 0"),
        ({"a": entry(-16, 0)}, "whole numbers from 0"),
        ({"a": entry(8, 0)}, "does not have -8 bytes"),
        ({"a": entry(0, 16, shape=(True, 4))}, "whole numbers from 0"),
        ({"a": entry(0, 16, shape=(16,), dtype="F8_E4M3")}, "dtype 'F8_E4M3'"),
        ({"a": entry(0, 16, shape=(2,), dtype="O")}, "dtype 'O'"),
        ({"a": {"dtype": "F32", "shape": [4]}}, "data_offsets"),
        ({"a": [1, 2]}, "indices must be"),
        ({"__metadata__": {"a": 1}, "a": entry(0, 16, shape=(4,))}, "metadata that is not text"),
        (b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', "twice"),
        (b'{"a":' + b"[" * 10_000, "recursion"),
        (b'{"a": NaN}\xff', "codec"),
    ],
)
def test_safetensors_headers_that_lie_are_refused(tmp_path, header, message):
    with pytest.raises(ValueError, match=f"a.safetensors is not an intact safetensors file: .*{message}"):
        weights.read(write_safetensors(tmp_path / "a.safetensors", header, bytes(16)))


def test_shapes_that_no_program_makes_are_refused(tmp_path):
    # Zero numbers: the sizes fit the file, whatever the other sides are.
    for shape in ((0, 2**70), (0,) * 100):
        with pytest.raises(ValueError, match="a.safetensors is not an intact"):
            weights.read(write_safetensors(tmp_path / "a.safetensors", {"a": entry(0, 0, shape=shape)}, b""))
    deep = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({'-' * 9000}1,), }}".encode()
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(deep)) + deep)
    with pytest.raises(ValueError, match="a.npz is not an intact"):
        weights.read(tmp_path / "a.npz")


def test_torch_sides_of_one_may_have_any_stride(tmp_path):
    program = ordered({"a": tensor(storage("0", 2), 0, [1, 2], [2**61, 1])})
    np.testing.assert_array_equal(weights.read(write_zip(tmp_path / "a.pth", program, {"0": bytes(8)}))["a"], np.zeros((1, 2)))


def test_h5_names_cannot_multiply(tmp_path):
    with h5py.File(tmp_path / "many.h5", "w") as file:
        file["a/w"] = np.zeros(1, np.float32)
        file["a"].attrs["weight_names"] = np.array([b"/" * i + b"w" for i in range(150)])
        file.attrs["layer_names"] = np.array([b"/" * i + b"a" for i in range(150)])
    with pytest.raises(ValueError, match="more than 20,000 arrays"):
        weights.read(tmp_path / "many.h5")
    with h5py.File(tmp_path / "array.h5", "w") as file:
        file["model_weights"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="an array where a group should be"):
        weights.read(tmp_path / "array.h5")


def test_zip_bombs_are_refused_before_memory_is_taken(tmp_path):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (257 * 2**20,)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open("a.npy", "w") as entry:
        entry.write(file.getvalue())
        for _ in range(257):
            entry.write(bytes(2**20))
    with pytest.raises(ValueError, match="unpacks to 269,484,160 bytes, more than 200 times its own"):
        weights.read(tmp_path / "a.npz")
    with h5py.File(tmp_path / "a.h5", "w") as made:
        made.create_dataset("a", (2**28,), "f4", chunks=(2**20,), compression="gzip")[: 2**20] = 0
    with pytest.raises(ValueError, match="unpacks to 1 arrays of 1,073,741,824"):
        weights.read(tmp_path / "a.h5")


def test_h5_leads_nowhere_else(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.ones(3)
    (tmp_path / "raw").write_bytes(bytes(16))

    def external(made):
        made["a"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "secret")

    def soft(made):
        made["b"], made["a"] = np.ones(2), h5py.SoftLink("/b")

    def raw(made):
        made.create_dataset("a", (4,), "f4", external=[(str(tmp_path / "raw"), 0, 16)])

    def virtual(made):
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "secret", (3,))
        made.create_virtual_dataset("a", layout)

    def circle(made):
        made.create_group("g")["a"] = made["/"]

    def text(made):
        made["a"] = "text"

    def unwritten(made):
        made.create_dataset("a", (2**20,), "f4", chunks=(64,))

    def missing(made):
        made.attrs["layer_names"] = np.array([b"conv"])

    cases = {external: "is a link", soft: "is a link", raw: "another file", virtual: "another file", circle: "two names"}
    cases |= {text: "only numbers", unwritten: "no numbers in the file", missing: "'conv' is named and not there"}
    for make, message in cases.items():
        with h5py.File(tmp_path / "a.h5", "w") as made:
            make(made)
        with pytest.raises(ValueError, match=message):
            weights.read(tmp_path / "a.h5")


def test_h5_of_a_whole_keras_model_and_of_plain_groups(tmp_path):
    with h5py.File(tmp_path / "model.h5", "w") as made:
        group = made.create_group("model_weights")
        # Keras splits lists of names that do not fit one attribute.
        group.attrs["layer_names0"], group.attrs["layer_names1"] = np.array([b"norm"]), np.array([b"dense"])
        for layer, name in {"dense": "dense/kernel:0", "norm": "gamma:0"}.items():
            group.create_group(layer).attrs["weight_names"] = np.array([name.encode()])
            group[layer][name] = np.full(2, len(layer), ">f4")
        group.create_group("relu").attrs["weight_names"] = np.array([])
        made.create_group("optimizer_weights")["x"] = np.ones(2)
    read = weights.read(tmp_path / "model.h5")
    assert list(read) == ["norm/gamma:0", "dense/kernel:0"] and read["norm/gamma:0"].dtype == np.dtype("float32")
    np.testing.assert_array_equal(read["dense/kernel:0"], [5, 5])
    with h5py.File(tmp_path / "model.h5", "r+") as made:
        # Names of variable length, as h5py writes a list.
        for where, name in (("", "layer_names0"), ("/dense", "weight_names"), ("/norm", "weight_names")):
            made[f"model_weights{where}"].attrs[name] = [b"dense", b"norm"]
    again = weights.read(tmp_path / "model.h5")
    assert sorted(again) == sorted(read) and all(np.array_equal(again[name], read[name]) for name in read)
    with h5py.File(tmp_path / "plain.h5", "w") as made:
        made["layers/dense/vars/0"] = np.arange(3)
    np.testing.assert_array_equal(weights.read(tmp_path / "plain.h5")["layers/dense/vars/0"], [0, 1, 2])


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(zipfile.ZipInfo(name), b"x")  # without the time of day, which would name the tests otherwise in each process
    return file.getvalue()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".h5", ".npz"])
@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "is empty"),
        (b"\n\n<!DOCTYPE html><html><title>Quota exceeded</title>", "is an HTML page"),
        (b"<script></script><html>", "is an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 528\n", "is a git LFS pointer"),
        (b'{"error": "not found"}', "is a JSON text"),
        (b"Not Found\n", "is a text that begins 'Not Found"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "is a PNG image"),
        (b"\x1f\x8b\x08" + bytes(20), "is a gzip file .unpack it first"),
        (zipped("faces/1.jpg", "faces/2.PNG", "readme.txt"), "is a zip of images .2."),
        (zipped("a.bin", "b.bin"), "is a zip of 2 files"),
        (zipped(), "is an empty zip"),
        (zipped("a.npy")[:-10], "is a damaged zip archive"),
        (b"\x80\x04cdnnlib.tflib.network\nNetwork\n.", "is a StyleGAN pickle"),
        (bytes(100) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb", "is the index of a TensorFlow checkpoint"),
        (b'model_checkpoint_path: "model.ckpt"', "is the list of a TensorFlow checkpoint"),
        (bytes(300), "of no known kind"),
        (np.lib.format.magic(1, 0) + bytes(20), "single .npy array"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)}B",
)
def test_a_wrong_file_says_what_it_is(tmp_path, content, message, suffix):
    (tmp_path / f"vgg16{suffix}").write_bytes(content)
    calls = [weights.read, lambda path: weights.load("vgg16", path), lambda path: weights.import_weights("bisenetv2", path, cache=tmp_path)]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call(tmp_path / f"vgg16{suffix}")
    assert len(list(tmp_path.iterdir())) == 1


def test_the_data_of_a_tensorflow_checkpoint_is_known_by_name(tmp_path):
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(bytes(100))
    with pytest.raises(ValueError, match="data of a TensorFlow checkpoint"):
        weights.read(tmp_path / "model.ckpt.data-00000-of-00001")


def test_files_cut_short_anywhere_are_refused(tmp_path):
    save_file(ARRAYS, tmp_path / "a.safetensors")
    np.savez(tmp_path / "b.npz", **ARRAYS)
    save_torch(tmp_path / "c.pth", ARRAYS)
    save_torch(tmp_path / "d.pth", ARRAYS, legacy=True)
    with h5py.File(tmp_path / "e.h5", "w") as made:
        for name, array in ARRAYS.items():
            made[name] = array
    for file in sorted(tmp_path.iterdir()):
        data = file.read_bytes()
        for length in sorted({*range(0, len(data), max(len(data) // 40, 1)), len(data) - 1}):
            file.write_bytes(data[:length])
            with pytest.raises(ValueError, match=file.name):
                weights.read(file)


def test_importing_the_readers_loads_neither_jax_nor_hdf5():
    code = "import sys, jaxgan.weights; print([name for name in ('jax', 'h5py', 'torch', 'safetensors') if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert finished.stdout.strip() == "[]", finished.stderr
