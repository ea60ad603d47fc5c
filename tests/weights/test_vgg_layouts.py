"""VGG16 as users have it: every layout gives the same arrays, other networks are refused, and an import says what it was made from."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from written import save_torch

from jaxgan import weights
from jaxgan.__main__ import main
from jaxgan.weights import vgg

LAYOUTS = {
    ".safetensors": ("torchvision", "torchvision"),
    "_torchvision.pth": ("torchvision", "torchvision"),
    "_torchvision_legacy.pth": ("torchvision", "torchvision"),
    "_keras1.h5": ("keras", "caffe"),
    "_keras2.h5": ("keras", "caffe"),
}
FEATURES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAXGAN_WEIGHTS", raising=False)
    return tmp_path / "cache" / "jaxgan" / "weights"


def small(widths=(2,) * 13, seed=0) -> dict[str, np.ndarray]:
    """A VGG16 in torchvision's names and order of axes."""
    rng, arrays, before = np.random.default_rng(seed), {}, 3
    for index, width in zip(FEATURES, widths, strict=True):
        arrays[f"features.{index}.weight"] = rng.normal(size=(width, before, 3, 3)).astype(np.float32)
        arrays[f"features.{index}.bias"] = rng.normal(size=width).astype(np.float32)
        before = width
    return arrays


def keras(path, arrays) -> None:
    """The same network as Keras's second layout."""
    with h5py.File(path, "w") as made:
        layers = [f"block{name[4]}_{name[:4]}{name[6]}" for name in vgg.CONVOLUTIONS]
        made.attrs["layer_names"] = np.array([layer.encode() for layer in layers])
        for layer, index in zip(layers, FEATURES, strict=True):
            group = made.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/kernel:0".encode(), f"{layer}/bias:0".encode()]
            group[f"{layer}/kernel:0"] = arrays[f"features.{index}.weight"].transpose(2, 3, 1, 0)
            group[f"{layer}/bias:0"] = arrays[f"features.{index}.bias"]


@pytest.mark.parametrize("suffix", LAYOUTS)
def test_every_layout_gives_the_same_arrays(shared, suffix):
    reference = load_file(shared / "golden" / "vgg16_narrow.safetensors")
    file = shared / "golden" / f"vgg16_narrow{suffix}"
    arrays = weights.load("vgg16", file)
    assert list(arrays) == [f"{name}.{part}" for name in vgg.CONVOLUTIONS for part in ("kernel", "bias")]
    for name, index in zip(vgg.CONVOLUTIONS, FEATURES, strict=True):
        np.testing.assert_array_equal(arrays[f"{name}.kernel"], np.einsum("oihw->hwio", reference[f"features.{index}.weight"]))
        np.testing.assert_array_equal(arrays[f"{name}.bias"], reference[f"features.{index}.bias"])
        assert arrays[f"{name}.kernel"].dtype == np.float32 and arrays[f"{name}.kernel"].flags.c_contiguous
    about = weights.about("vgg16", file)
    assert (about["layout"], about["preprocessing"]) == LAYOUTS[suffix] and about["sha256"] == weights.checksum(file)
    assert about["numbers"] == "other than those of the published file"


def test_the_first_convolution_is_that_of_the_reference_maps(shared):
    # An independent convolution, written out: it ties names, axes and the order of channels to what the network computed.
    golden = np.load(shared / "golden" / "vgg16_narrow.npz")
    arrays = weights.load("vgg16", shared / "golden" / "vgg16_narrow_keras2.h5")
    for preprocessing in vgg.INPUTS:
        padded = np.pad(golden[f"input_{preprocessing}"].astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        made = np.einsum("ncyxhw,hwco->noyx", windows, arrays["conv1_1.kernel"].astype(np.float64)) + arrays["conv1_1.bias"][:, None, None]
        expected = golden[f"feat_{preprocessing}/conv1_1"]
        np.testing.assert_allclose(np.maximum(made, 0), expected, atol=5e-6 * np.abs(expected).max())


@pytest.mark.parametrize("legacy", [False, True])
def test_prefixes_classifiers_and_our_own_names_are_understood(tmp_path, legacy):
    arrays = small()
    expected = vgg.convert(arrays).arrays
    extra = {"classifier.0.weight": np.zeros((4, 4), np.float32)}
    save_torch(tmp_path / "a.pth", {f"module.{name}": array for name, array in (arrays | extra).items()}, legacy=legacy)
    np.savez(tmp_path / "b.npz", **expected)
    for file in ("a.pth", "b.npz"):
        read = weights.load("vgg16", tmp_path / file)
        assert read.keys() == expected.keys() and all(np.array_equal(read[name], expected[name]) for name in read)


def change(**changes):
    """Arrays of a small VGG16 in which some are replaced, or left out with None; `n5_weight`: features.5.weight."""
    arrays = small() | {f"features.{name[1:].replace('_', '.', 1)}": value for name, value in changes.items()}
    return {name: array for name, array in arrays.items() if array is not None}


@pytest.mark.parametrize(
    "arrays, message",
    [
        (change(n28_bias=None), "1 of the 26 arrays of a VGG16 are missing, the first conv5_3.bias"),
        (change(n16_weight=np.zeros((2, 2, 3, 3), np.float32)), r"another VGG than VGG16: .* features.16.kernel"),
        (change(n1_running_mean=np.zeros(2, np.float32)), "batch normalisation"),
        (change(n5_weight=np.zeros((2, 3, 3, 3), np.float32)), r"is \(3, 3, 3, 2\) as conv2_1.kernel, not \(3, 3, 2, 2\)"),
        (change(n5_weight=np.zeros((3, 3, 2, 2), np.float32)), "axes are in another order"),
        (change(n5_weight=np.zeros(4, np.float32)), "features.5.weight is"),
        (change(n0_weight=np.zeros((0, 3, 3, 3), np.float32), n0_bias=np.zeros(0, np.float32)), "features.0.weight"),
        (change(n7_bias=np.zeros(3, np.float32)), r"features.7.bias is \(3,\) as conv2_2.bias, not \(2,\)"),
        (change(n7_bias=np.array([1, np.nan], np.float32)), "not finite: features.7.bias"),
        (change(n7_bias=np.array([1, np.inf], np.float16)), "not finite: features.7.bias"),
        (change(n7_bias=np.array([1, 2])), "features.7.bias has dtype int64"),
        ({f"{p}.{name}": array for p in "ab" for name, array in small().items()}, "2 networks with `features`: 'a.', 'b.'"),
        ({"conv1.weight": np.zeros((2, 3, 3, 3))}, "not the weights of a VGG16: the names are conv1.weight"),
    ],
)
def test_other_networks_are_refused_by_what_is_wrong(tmp_path, monkeypatch, arrays, message):
    monkeypatch.setattr(vgg, "WIDTHS", (2,) * 13)
    np.savez(tmp_path / "a.npz", **arrays)
    for call in (weights.load, lambda name, path: weights.import_weights(name, path, cache=tmp_path / "cache")):
        with pytest.raises(ValueError, match=f"a.npz: .*{message}"):
            call("vgg16", tmp_path / "a.npz")
    assert not (tmp_path / "cache").exists()


def test_theano_kernels_are_not_taken_for_tensorflows(tmp_path):
    arrays = small()
    keras(tmp_path / "a.h5", {name: array.transpose(3, 2, 0, 1) if array.ndim == 4 else array for name, array in arrays.items()})
    with pytest.raises(ValueError, match="axes are in another order"):
        weights.load("vgg16", tmp_path / "a.h5")


def test_narrow_networks_are_for_explicit_paths_only(tmp_path, cache):
    save_torch(tmp_path / "vgg16.pth", small())
    assert weights.load("vgg16", tmp_path)["conv1_1.kernel"].shape == (3, 3, 3, 2)
    with pytest.raises(ValueError, match=r"as conv1_1.kernel, not \(3, 3, 3, 64\)"):
        weights.import_weights("vgg16", tmp_path)
    assert not cache.exists()


def test_imports_are_converted_once_and_remember_their_source(tmp_path, cache, monkeypatch, capsys):
    monkeypatch.setattr(vgg, "WIDTHS", (2,) * 13)
    arrays = small()
    source = save_torch(tmp_path / "mine.pth", arrays)
    keras(tmp_path / "vgg16_weights.h5", small(seed=1))
    assert main(["weights", "import", "vgg16", str(source)]) == 0
    target = cache / "vgg16_imported.safetensors"
    assert str(target) in (said := capsys.readouterr().out) and "mine.pth" in said and weights.find("vgg16") == target
    with safe_open(target, "numpy") as file:
        notes = file.metadata()
    assert (notes["source_file"], notes["source_sha256"]) == ("mine.pth", weights.checksum(source))
    assert (notes["reader"], notes["layout"], notes["preprocessing"]) == ("torch zip", "torchvision", "torchvision")
    np.testing.assert_array_equal(weights.load("vgg16")["conv2_1.kernel"], arrays["features.5.weight"].transpose(2, 3, 1, 0))
    # Given as vgg16, Keras's becomes the name whose kernels expect BGR, also out of a folder.
    assert weights.import_weights("vgg16", tmp_path) == cache / "vgg16_caffe_imported.safetensors"
    assert weights.about("vgg16_caffe")["preprocessing"] == "caffe" and weights.about("vgg16")["preprocessing"] == "torchvision"
    assert weights.about("vgg16", weights.find("vgg16_caffe"))["preprocessing"] == "caffe"
    with pytest.raises(ValueError, match="expects RGB.*import it as vgg16"):
        weights.import_weights("vgg16_caffe", source)
    assert main(["weights", "verify"]) == 0 and "imported from mine.pth" in capsys.readouterr().out
    assert main(["weights", "list"]) == 0 and str(target) in capsys.readouterr().out
    assert sorted(path.name for path in cache.iterdir()) == ["vgg16_caffe_imported.safetensors", "vgg16_imported.safetensors"]


def test_a_changed_import_is_found(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(vgg, "WIDTHS", (2,) * 13)
    target = weights.import_weights("vgg16", save_torch(tmp_path / "mine.pth", small()))
    data = bytearray(target.read_bytes())
    data[-1] ^= 1
    target.write_bytes(bytes(data))
    with pytest.raises(ValueError, match="vgg16: .*the sha256 of its arrays is not the recorded one"):
        weights.verify()
    save_file(small(), target)
    with pytest.raises(ValueError, match="was not written by an import"):
        weights.load("vgg16")


def test_the_published_numbers_are_recognised_in_float32_and_other_layouts(tmp_path, cache, shared):
    published = load_file(shared / "weights" / weights.KNOWN["vgg16"].file)
    wide = {}
    for name, index in zip(vgg.CONVOLUTIONS, FEATURES, strict=True):
        # A hundredth of float16's spacing: what rounding to float16 took away from the original.
        kernel = published[f"{name}.kernel"].astype(np.float32) * np.float32(1 + 2**-18)
        wide[f"features.{index}.weight"] = np.ascontiguousarray(np.einsum("hwio->oihw", kernel))
        wide[f"features.{index}.bias"] = published[f"{name}.bias"]
    source = save_torch(tmp_path / "vgg16-00000000.pth", wide)
    weights.import_weights("vgg16", source)
    assert weights.about("vgg16")["numbers"] == "published"
    loaded = weights.load("vgg16")
    assert all(loaded[name].dtype == array.dtype and np.array_equal(loaded[name], array) for name, array in published.items())
    np.savez(tmp_path / "lpips.npz", **load_file(shared / "weights" / weights.KNOWN["lpips"].file))
    assert weights.import_weights("lpips", tmp_path).name == "lpips_imported.safetensors"
    assert weights.about("lpips")["numbers"] == "published" and len(weights.load("lpips")) == 17
    np.savez(tmp_path / "other.npz", **{name: array + 1 for name, array in weights.load("lpips").items()})
    with pytest.raises(ValueError, match="does not hold the numbers of lpips_v0_1"):
        weights.load("lpips", tmp_path / "other.npz")


def test_folders_that_do_not_say_which_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="neither vgg16_imagenet_conv.safetensors nor .* it holds no file of weights"):
        weights.load("vgg16", tmp_path)
    for name in ("vgg16_a.npz", "vgg16_b.npz"):
        np.savez(tmp_path / name, **small())
    with pytest.raises(ValueError, match="2 such files .vgg16_a.npz, vgg16_b.npz.: name one"):
        weights.load("vgg16", tmp_path)
