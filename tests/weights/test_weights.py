"""Generators on disk, and named files: whole ones come back bitwise, all others are refused with nothing written."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxgan import arrays as reading
from jaxgan import weights

ARRAYS = {"params/G/fc/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "model/G/count": np.asarray(3, np.int32)}


@pytest.fixture
def generator(tmp_path):
    weights.save_generator(tmp_path / "g", "coco_gan", {"full": [64, 64]}, ARRAYS, {"run": "x"})
    return tmp_path / "g"


@pytest.fixture
def known(tmp_path, monkeypatch):
    """A registered file, and a cache folder of its own."""
    file = tmp_path / "user" / "toy.safetensors"
    file.parent.mkdir()
    save_file({"a.kernel": np.ones((2, 3), np.float16), "a.bias": np.zeros(3, np.float32)}, file)
    entry = weights.Weights(
        file.name, "a toy", "MIT", "nowhere", weights.checksum(file), file.stat().st_size, 2, {"a.kernel": ("float16", (2, 3))}
    )
    monkeypatch.setattr(weights, "KNOWN", {"toy": entry})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAXGAN_WEIGHTS", raising=False)
    return file


def test_generator_comes_back_bitwise(generator):
    family, config, arrays = weights.load_generator(generator)
    assert (family, config) == ("coco_gan", {"full": [64, 64]}) and arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    assert json.loads((generator / "generator.json").read_text())["provenance"] == {"run": "x"}
    assert sorted(path.name for path in generator.parent.iterdir()) == ["g"]


@pytest.mark.parametrize(
    "arrays, message",
    [({}, "without arrays"), ({"a": np.array([1.0, np.nan])}, "not finite: a"), ({"a": np.array(["x"])}, "'a' has dtype")],
)
def test_generator_that_could_not_be_used_is_not_written(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        weights.save_generator(tmp_path / "g", "coco_gan", {}, arrays, {})
    assert list(tmp_path.iterdir()) == []


def test_generator_does_not_replace_another(generator):
    before = (generator / "params.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match="not an empty folder"):
        weights.save_generator(generator, "coco_gan", {}, {"a": np.zeros(2)}, {})
    assert (generator / "params.safetensors").read_bytes() == before


def test_one_flipped_bit_is_found(generator):
    data = bytearray((generator / "params.safetensors").read_bytes())
    data[-1] ^= 1
    (generator / "params.safetensors").write_bytes(bytes(data))
    with pytest.raises(ValueError, match="sha256"):
        weights.load_generator(generator)


def test_missing_and_damaged_parts_are_named(generator, tmp_path):
    text = (generator / "generator.json").read_text()
    for bad in (text[:40], "[]", text.replace('"family"', '"fam"'), text.replace('"coco_gan"', "3")):
        (generator / "generator.json").write_text(bad)
        with pytest.raises(ValueError, match="generator.json is damaged"):
            weights.load_generator(generator)
    (generator / "generator.json").unlink()
    with pytest.raises(FileNotFoundError, match="no generator.json"):
        weights.load_generator(generator)


def test_arrays_that_the_json_does_not_name_are_refused(generator):
    about = json.loads((generator / "generator.json").read_text())
    about["arrays"]["params/G/fc/kernel"] = ["float32", [3, 2]]
    del about["arrays"]["model/G/count"]
    (generator / "generator.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"kernel is float32 \(2, 3\), not float32 \(3, 2\); model/G/count is not known"):
        weights.load_generator(generator)


def test_import_copies_and_is_found_and_verified(known, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*weights import toy FILE"):
        weights.load("toy")
    copy = weights.import_weights("toy", known)
    assert copy == tmp_path / "cache" / "jaxgan" / "weights" / known.name == weights.find("toy")
    assert weights.load("toy")["a.kernel"].shape == (2, 3)
    assert weights.import_weights("", known) == copy and weights.import_weights("toy", copy) == copy
    assert "intact" in weights.verify() and "is toy" in weights.verify(str(known)) and str(copy) in weights.list_weights()


def test_the_users_folder_comes_before_the_cache(known, monkeypatch):
    weights.import_weights("toy", known)
    monkeypatch.setenv("JAXGAN_WEIGHTS", str(known.parent))
    assert weights.find("toy") == known


def test_wrong_files_are_refused_and_nothing_is_copied(known, tmp_path):
    data = known.read_bytes()
    for name, content, message in [("short", data[:-1], "bytes"), ("flipped", data[:-1] + bytes([data[-1] ^ 1]), "sha256")]:
        bad = tmp_path / f"{name}.safetensors"
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            weights.import_weights("toy", bad)
    with pytest.raises(ValueError, match="none of the known files: toy"):
        weights.import_weights("", bad)
    with pytest.raises(ValueError, match="nearest: toy"):
        weights.import_weights("toyy", known)
    assert not (tmp_path / "cache").exists()


def test_a_file_damaged_after_import_is_reported(known):
    copy = weights.import_weights("toy", known)
    copy.write_bytes(copy.read_bytes()[:-4] + b"\xff\xff\xff\x7f")
    with pytest.raises(ValueError, match="toy: .*sha256"):
        weights.verify()


def test_registered_shapes_and_finiteness_are_checked_beyond_the_checksum(known, monkeypatch):
    entry = weights.KNOWN["toy"]
    monkeypatch.setattr(weights, "KNOWN", {"toy": entry._replace(arrays={"a.kernel": ("float16", (3, 2)), "b": ("float32", ())})})
    with pytest.raises(ValueError, match=r"a.kernel is float16 \(2, 3\), not float16 \(3, 2\); b is missing"):
        weights.import_weights("toy", known)
    monkeypatch.setattr(weights, "KNOWN", {"toy": entry._replace(count=3)})
    with pytest.raises(ValueError, match="2 arrays, not 3"):
        weights.import_weights("toy", known)


def test_known_files_pass_all_checks(shared, monkeypatch):
    monkeypatch.setenv("JAXGAN_WEIGHTS", str(shared / "weights"))
    assert weights.verify().count("intact") == sum(bool(entry.sha256) for entry in weights.KNOWN.values()) == 5


def test_npz_reads_as_numpy_does(tmp_path):
    arrays = {"G/conv:0": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "scalar": np.float32(2), "empty": np.zeros((0, 3), np.int8)}
    np.savez_compressed(tmp_path / "a.npz", note=np.array("text"), **arrays)
    read = weights.read_arrays(tmp_path / "a.npz")
    assert read.keys() == {*arrays, "note"} and str(read["note"]) == "text"
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype and read[name].flags.writeable
        np.testing.assert_array_equal(read[name], array)


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickles_are_never_opened(tmp_path):
    trap = np.array([Trap(tmp_path / "sprung")], dtype=object)
    np.savez(tmp_path / "a.npz", trap=trap)
    with pytest.raises(ValueError, match="'trap' has dtype object"):
        weights.read_arrays(tmp_path / "a.npz")
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(ValueError, match="type .pkl are not read .*pickle"):
        weights.read_arrays(tmp_path / "a.pkl")
    assert not (tmp_path / "sprung").exists()


def header(shape: tuple[int, ...]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue()


def test_small_files_that_would_take_much_memory_are_refused(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as archive:
        archive.writestr("a.npy", header((2**20, 2**20)) + bytes(16))
    with pytest.raises(ValueError, match="damaged: its header says"):
        weights.read_arrays(tmp_path / "lie.npz")
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(10**6, np.uint8))
    monkeypatch.setattr(reading, "MAX_BYTES", 10**5)
    assert (tmp_path / "bomb.npz").stat().st_size < 10**4
    with pytest.raises(ValueError, match="unpacks to 1 arrays, 1,000,"):
        weights.read_arrays(tmp_path / "bomb.npz")


def test_damaged_archives_are_refused_by_name(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.random.default_rng(0).normal(size=1000))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "flipped.npz").write_bytes(bytes(data))
    (tmp_path / "short.npz").write_bytes(bytes(data[:100]))
    (tmp_path / "short.safetensors").write_bytes(b"\xff" * 20)
    for name in ("flipped.npz", "short.npz", "short.safetensors"):
        with pytest.raises(ValueError, match=name):
            weights.read_arrays(tmp_path / name)


def test_import_of_a_generator_goes_through_the_familys_reader(tmp_path, monkeypatch):
    from jaxgan import configure
    from jaxgan.generators import open_generator
    from jaxgan.systems import coco_gan

    def reader(config, variables):
        assert config.latent == 5 and list(variables) == ["Generator/w"]
        return SimpleNamespace(params={"G": {"w": variables["Generator/w"]}}, model={"G": {"stats": {"n": np.zeros(3)}}})

    monkeypatch.setitem(sys.modules, "jaxgan.systems.coco_gan_import", SimpleNamespace(import_variables=reader))
    file, experiment = tmp_path / "v.npz", configure.Experiment(coco_gan.Config(latent=5))
    np.savez(file, note=np.array("by name"), **{"Generator/w": np.ones(2, np.float32)})
    said = weights.import_generator("coco-gan", file, tmp_path / "g", experiment)
    assert "2 arrays from the 1 variables" in said
    opened = open_generator(tmp_path / "g")
    assert opened.config == experiment.model and sorted(opened.arrays) == ["model/G/stats/n", "params/G/w"]
    provenance = json.loads((tmp_path / "g" / "generator.json").read_text())["provenance"]
    assert provenance == {"file": "v.npz", "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    for family, given, message in [("sys", experiment, "'sys' is no family"), ("coco-gan", None, "--config configs/coco_gan_")]:
        with pytest.raises(ValueError, match=message):
            weights.import_generator(family, file, tmp_path / "h", given)
    assert not (tmp_path / "h").exists()
