"""Official StyleGAN pickles: exactly their arrays and options, nothing in them is run, and other files are told by what they are."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest
from test_hostile_pickles import NAMES, programs
from written import text

from jaxgan.weights.stylegan_files import read_networks, read_stylegan

SOURCE = "raise RuntimeError('embedded network source must never be executed')\n"
PARTS = ("G", "D", "Gs")


class Network:
    """Writes itself under the official name; its state is put together by the test."""

    def __init__(self, state):
        self.state = state

    def __getstate__(self):
        return self.state

    def __setstate__(self, state):
        self.state = state


class EasyDict(dict):
    pass


Network.__module__, EasyDict.__module__ = "dnnlib.tflib.network", "dnnlib.util"


@pytest.fixture
def official(monkeypatch):
    """The modules that Python's own pickle looks for, while a test writes."""
    for name in ("dnnlib", "dnnlib.tflib", "dnnlib.tflib.network", "dnnlib.util"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["dnnlib.tflib.network"].Network = Network
    sys.modules["dnnlib.util"].EasyDict = EasyDict


def network(name, function, variables, components=None, version=3, source=SOURCE, **kwargs):
    state = {"version": version, "name": name, "static_kwargs": kwargs, "components": components or {}, "build_module_src": source,
             "build_func_name": function, "variables": list(variables.items())}  # fmt: skip
    return Network(state)


def generator(seed, name="G", version=3, source=SOURCE, function="G_style", **kwargs):
    rng = np.random.default_rng(seed)
    mapping = {"Dense0/weight": rng.normal(size=(4, 6)).astype(np.float32), "Dense0/bias": rng.normal(size=6).astype(np.float32)}
    synthesis = {"lod": np.float32(0), "noise0": rng.normal(size=(1, 1, 4, 4)).astype(np.float32)}
    parts = {
        "synthesis": network("G_synthesis", "G_synthesis", synthesis, version=version, source=source),
        "mapping": network("G_mapping", "G_mapping", mapping, version=version, source=source),
    }
    own = {"lod": np.float32(0), "dlatent_avg": rng.normal(size=6).astype(np.float32)}
    return network(name, function, own, parts, version=version, source=source, resolution=4, **kwargs)


def three(**kwargs):
    critic = network("D", "D_basic", {"lod": np.float32(0), "4x4/Dense1/bias": np.ones(1, np.float32)}, resolution=4)
    return generator(0, **kwargs), critic, generator(1, "Gs", **kwargs)


def write(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def flat(networks):
    return {f"{part}/{name}": array for part in PARTS for name, array in getattr(networks, part).all_variables().items()}


def states(value, prefix):
    """Variables of a network which Python's own pickle has read."""
    state = value.state
    yield from ((prefix + name, array) for name, array in state["variables"])
    for part in state["components"].values():
        yield from states(part, f"{prefix}{part.state['name']}/")


class SecondOpinion(pickle.Unpickler):
    """Python's own machine, held to NumPy and to the class above."""

    def find_class(self, module, name):
        assert (module, name) == ("dnnlib.tflib.network", "Network") or (module.startswith("numpy") and name != "load"), (module, name)
        return super().find_class(module, name)


OPTIONS = {
    "small": {"num_channels": 3, "resolution": 64, "label_size": 0, "fmap_base": 256, "fmap_max": 24},
    "cond": {"num_channels": 3, "resolution": 16, "label_size": 3, "fmap_base": 128, "fmap_max": 16},
    "r128": {"num_channels": 3, "resolution": 128, "label_size": 0, "fmap_base": 256, "fmap_max": 8},
}
MAPPING = {"small": (32, 32, 8), "cond": (16, 24, 4), "r128": (16, 16, 8)}


@pytest.mark.parametrize("tag", OPTIONS)
def test_official_pickles_give_their_arrays_and_options(shared, tag):
    networks = read_stylegan(shared / "golden" / f"stylegan_{tag}.pkl")
    read = flat(networks)
    with np.load(shared / "golden" / f"stylegan_{tag}_vars.npz") as expected:
        assert set(read) == set(expected.files)
        for name, array in read.items():
            assert array.dtype == expected[name].dtype and array.shape == expected[name].shape, name
            np.testing.assert_array_equal(array, expected[name], err_msg=name)
    latent, dlatent, layers = MAPPING[tag]
    own = {"latent_size": latent, "dlatent_size": dlatent, "mapping_fmaps": dlatent, "mapping_layers": layers}
    assert networks.D.static_kwargs == OPTIONS[tag] and networks.D.function == "D_basic" and not networks.D.components
    for part in (networks.G, networks.Gs):
        assert part.static_kwargs == OPTIONS[tag] | own
        assert {key: (value.name, value.function) for key, value in part.components.items()} == {
            "synthesis": ("G_synthesis", "G_synthesis"),
            "mapping": ("G_mapping", "G_mapping"),
        }
    assert [part.name for part in networks] == list(PARTS) and {part.version for part in networks} == {3}
    assert networks.G.source_sha256 == hashlib.sha256(SOURCE.encode()).hexdigest()
    assert not any(name.partition(".")[0] in ("dnnlib", "tensorflow") for name in sys.modules)


@pytest.mark.parametrize("part", [0.01, 0.5, 0.99])
def test_an_official_pickle_cut_in_the_middle(shared, tmp_path, part):
    whole = (shared / "golden" / "stylegan_cond.pkl").read_bytes()
    (tmp_path / "a.pkl").write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match="a.pkl is not an intact StyleGAN pickle: (expected|pickle exhausted)"):
        read_stylegan(tmp_path / "a.pkl")


@pytest.mark.parametrize("tag", ["train_init", "train_fade_init"])
def test_networks_are_known_by_their_place_and_not_by_their_name(shared, tag, official):
    path = shared / "golden" / f"stylegan_{tag}.pkl"
    networks = read_stylegan(path)
    assert [part.name for part in networks] == ["GT", "DT", "GsT"]
    assert networks.G.static_kwargs["style_mixing_prob"] is None and networks.G.static_kwargs["randomize_noise"] is False
    trusted = SecondOpinion(io.BytesIO(path.read_bytes())).load()
    expected = dict(item for part, value in zip(PARTS, trusted, strict=True) for item in states(value, f"{part}/"))
    assert list(flat(networks)) == list(expected)
    for name, array in flat(networks).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name, strict=True)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_every_protocol_byte_order_and_layout_gives_the_same_arrays(tmp_path, official, protocol):
    networks = three(truncation_psi=np.float32(0.5), blur_filter=[1, 2, 1], structure=EasyDict(auto=True), extra=OrderedDict(a=(1, None)))
    matrix = np.arange(24.0).reshape(2, 3, 4)
    odd = {"big": matrix.astype(">f4"), "columns": np.asfortranarray(matrix), "half": matrix.astype("f2"), "whole": np.arange(-3, 3)}
    networks[1].state["variables"] += odd.items()
    read = read_stylegan(write(tmp_path / "a.pkl", networks, protocol))
    expected = dict(item for part, value in zip(PARTS, networks, strict=True) for item in states(value, f"{part}/"))
    assert list(flat(read)) == list(expected)
    for name, array in flat(read).items():
        assert array.dtype == np.asarray(expected[name]).dtype.newbyteorder("=")
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    options = {"resolution": 4, "truncation_psi": 0.5, "blur_filter": [1, 2, 1], "structure": {"auto": True}, "extra": {"a": (1, None)}}
    assert read.G.static_kwargs == options and type(read.G.static_kwargs["truncation_psi"]) is float


def test_older_files_have_no_components(tmp_path, official):
    networks = [network(part, "D_basic" if part == "D" else "G_style", {"lod": np.float32(1)}, version=2) for part in PARTS]
    for part in networks:
        del part.state["components"]
    read = read_stylegan(write(tmp_path / "a.pkl", tuple(networks)))
    assert [part.components for part in read] == [{}, {}, {}] and read.Gs.variables["lod"] == 1


def test_the_source_inside_is_digested_and_never_run(tmp_path, official):
    source = f"open({str(tmp_path / 'sprung')!r}, 'w').close()\n"
    before = set(sys.modules)
    read = read_stylegan(write(tmp_path / "a.pkl", three(source=source)))
    assert read.Gs.source_sha256 == read.G.components["mapping"].source_sha256 == hashlib.sha256(source.encode()).hexdigest()
    assert source not in repr(read) and set(sys.modules) == before and not (tmp_path / "sprung").exists()
    exec(source)
    assert (tmp_path / "sprung").exists()


class Trap:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def put(networks, place, trap):
    """`trap` in one of the places that a file of this family has."""
    state = networks[2].state
    mapping = state["components"]["mapping"].state
    if place == "network":
        return (*networks[:2], trap)
    if place == "fourth":
        return (*networks, trap)
    if place == "array of objects":
        mapping["variables"][0] = ("Dense0/weight", np.array([trap], object))
    elif place == "variable":
        mapping["variables"][0] = ("Dense0/weight", trap)
    elif place == "name of a variable":
        mapping["variables"][0] = (trap, np.zeros(1, np.float32))
    elif place == "option":
        state["static_kwargs"]["resolution"] = [trap]
    elif place == "component":
        state["components"]["extra"] = trap
    elif place == "state":
        networks[2].state = trap
    else:
        state[place] = trap
    return networks


PLACES = ["network", "fourth", "array of objects", "variable", "name of a variable", "option", "component", "state", "name", "version",
          "build_module_src", "build_func_name", "unknown_key"]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_call_hidden_anywhere_is_refused_by_its_name_before_it_runs(tmp_path, official, place):
    path = write(tmp_path / "a.pkl", put(three(), place, Trap(tmp_path / "sprung")))
    with pytest.raises(ValueError, match=r"asks for ((posix|nt)\.mkdir|numpy\.dtype\('O8'\))") as refused:
        read_stylegan(path)
    assert str(path) in str(refused.value) and not (tmp_path / "sprung").exists()
    # Python's own pickle runs it: what was refused is not merely a broken file.
    pickle.loads(path.read_bytes())
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("trick", NAMES)
def test_no_way_to_write_a_call_is_followed(tmp_path, trick):
    program, name = programs(str(tmp_path / "sprung"))[trick]
    for beginning in (b"\x80\x04", b"\x80\x02" + text("dnnlib.tflib.network") + b"0cdnnlib.tflib.network\nNetwork\n)\x810"):
        (tmp_path / "a.pkl").write_bytes(beginning + program)
        # Pickles of PyTorch are refused at their first name.
        with pytest.raises(ValueError, match=f"asks for ({name}|torch|persistent object|a state for dict)"):
            read_stylegan(tmp_path / "a.pkl")
    assert not (tmp_path / "sprung").exists()


NET = b"cdnnlib.tflib.network\nNetwork\n"
DTYPE = b"cnumpy\ndtype\n(" + text("f4") + b"K\x00K\x01tR"
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"


@pytest.mark.parametrize(
    "program, message",
    [
        (b"cnumpy\ndtype\n(" + text("O8") + b"K\x00K\x01tR", r"asks for numpy\.dtype\('O8'\)"),
        (b"cnumpy\ndtype\n(" + text("V8") + b"K\x00K\x01tR", r"asks for numpy\.dtype\('V8'\)"),
        (b"cnumpy\ndtype\n(cnumpy\nndarray\nK\x00K\x01tR", "asks for numpy.dtype of Global"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nmemmap\nK\x00\x85C\x01btR", "asks for numpy.memmap"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(" + NET + b"K\x00\x85C\x01btR", "asks for an array of the class dnnlib"),
        (b"cnumpy.core.numeric\n_frombuffer\n(C\x00tR", r"asks for numpy\.core\.numeric\._frombuffer"),
        (b"cnumpy.core.multiarray\n_reconstruct.__globals__\n", "asks for numpy.core.multiarray._reconstruct.__globals__"),
        (b"cnumpy\nndarray\nK\x00\x85R", "asks for a call of numpy.ndarray"),
        (b"c_codecs\nencode\n(" + text("x") + text("zlib") + b"tR", "asks for _codecs.encode of str to zlib"),
        (b"c_codecs\nencode\n(C\x01x" + text("latin1") + b"tR", "asks for _codecs.encode of bytes to latin1"),
        (NET + text("os") + b"\x85R", "damaged: TypeError"),
        (NET + b")\x81]b", "a network has two states, or one that is no dict"),
        (NET + b")\x81}b}b", "a network has two states"),
        (NET + b"}" + text("__reduce__") + b"Nsb", "asks for a state for Global"),
        (b"ccollections\nOrderedDict\n)R}b", "asks for a state for dict"),
        (DTYPE + b"(K\x03" + text(">") + b"(" + text("a") + b"tNNJ\xff\xff\xff\xffK\x00K\x00tb", "not that of plain numbers"),
        (ARRAY + b"(K\x01K\x02\x85" + DTYPE + b"\x89C\x04abcdtb", "has 4 bytes, not 8"),
        (ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + DTYPE + b"\x89C\x04abcdtb", "of shape -1, which none has"),
        (ARRAY + b"(K\x01K\x01\x85" + DTYPE + b"\x89]tb", "list where the bytes of an array should be"),
        (ARRAY, "it holds an array, not three networks"),
        (b"N", "it holds nothing, not three networks"),
        (NET + b")\x81" + NET + b")\x81" + NET + b")\x81\x87", "a network without a state where a network should be"),
        (b"\x8e" + (2**40).to_bytes(8, "little") + b"abc", "expected 1099511627776 bytes"),
    ],
)
def test_what_is_allowed_cannot_be_turned_into_more(tmp_path, program, message):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04" + program + b".")
    with pytest.raises(ValueError, match=message) as refused:
        read_stylegan(tmp_path / "a.pkl")
    assert str(tmp_path / "a.pkl") in str(refused.value)


def test_small_files_cannot_ask_for_much(tmp_path, official):
    shared_array = np.zeros(2**20, np.float32)
    many = three()
    many[0].state["variables"] += [(f"a{i}", shared_array) for i in range(100)]
    circle = three()
    circle[0].state["components"]["mapping"] = circle[0]
    wide = three()
    for name in "abcdefgh":
        wide[0].state["components"]["mapping"].state["components"][name] = wide[1]
        wide[0].state["components"][name] = wide[0].state["components"]["mapping"]
    doubled = three()
    value = []
    for _ in range(40):
        value = [value, value]
    doubled[0].state["static_kwargs"]["resolution"] = value
    for networks, message in (
        (many, "more than four times the bytes"),
        (circle, "contain each other"),
        (wide, "more than 64"),
        (doubled, "nested more than 8"),
    ):
        with pytest.raises(ValueError, match=message):
            read_stylegan(write(tmp_path / "a.pkl", networks))
    long = "x" * 100_000
    encode = b"c_codecs\nencode\nq\x00" + text(long) + b"q\x01" + text("latin1") + b"q\x02" + b"h\x00h\x01h\x02\x86R" * 10
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04" + encode + b".")
    with pytest.raises(ValueError, match="more bytes than the file has"):
        read_stylegan(tmp_path / "a.pkl")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"version": "3"}, "a network of format a value of the kind str"),
        ({"name": "a\nb"}, "where a name should be"),
        ({"build_func_name": None}, "nothing where a name should be"),
        ({"build_module_src": b"x"}, "without the text of its source"),
        ({"static_kwargs": []}, "no dict"),
        ({"static_kwargs": {"f": np.ones(2)}}, "an array among its options"),
        ({"static_kwargs": {3: 1}}, "where a name should be"),
        ({"components": {"mapping": 1}}, "kind int where a network should be"),
        ({"components": {}}, r"has the components \[\], not mapping and synthesis"),
        ({"variables": {}}, "without a list of variables"),
        ({"variables": [("a", 1.0)]}, "not a name and an array"),
        ({"variables": [("../a", np.ones(1))]}, "where a name should be"),
        ({"variables": [("a", np.ones(1))] * 2}, "two variables are named a"),
        ({"build_func_name": "G_paper"}, "Gs is built by G_paper, that of StyleGAN by G_style"),
    ],
)
def test_networks_that_are_not_as_the_official_code_writes_them(tmp_path, official, change, message):
    networks = three()
    networks[2].state |= change
    with pytest.raises(ValueError, match=message) as refused:
        read_stylegan(write(tmp_path / "a.pkl", networks))
    assert str(tmp_path / "a.pkl") in str(refused.value)


def test_a_file_cut_anywhere_is_a_value_error_that_names_it(tmp_path, official):
    whole = pickle.dumps(three(), 4)
    for length in [*range(2, 60), *range(60, len(whole), 37), len(whole) - 1]:
        (tmp_path / "a.pkl").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=str(tmp_path / "a.pkl")):
            read_stylegan(tmp_path / "a.pkl")
    (tmp_path / "a.pkl").write_bytes(whole[:-1] + b"0.")
    with pytest.raises(ValueError, match="0 values are left at its end"):
        read_stylegan(tmp_path / "a.pkl")
    (tmp_path / "a.pkl").write_bytes(whole + b"\n")
    with pytest.raises(ValueError, match="1 bytes follow the end"):
        read_stylegan(tmp_path / "a.pkl")


@pytest.mark.parametrize("protocol", [2, 4])
def test_flipped_bits_give_a_value_error_or_other_numbers_and_nothing_else(tmp_path, official, protocol):
    whole, dice = bytearray(pickle.dumps(three(), protocol)), random.Random(0)
    refused = 0
    for _ in range(600):
        place, bit = dice.randrange(len(whole)), 1 << dice.randrange(8)
        whole[place] ^= bit
        (tmp_path / "a.pkl").write_bytes(whole)
        whole[place] ^= bit
        try:
            read_stylegan(tmp_path / "a.pkl")
        except ValueError:
            refused += 1
    assert 100 < refused < 600


HTML = b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>"


@pytest.mark.parametrize(
    "content, message",
    [
        (HTML, "is an HTML page .*download the file itself"),
        (b"\n\n  " + HTML, "is an HTML page"),
        (b"<meta charset=utf-8>", "is an HTML page"),
        (b"", "is empty, not a StyleGAN pickle"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a git LFS pointer"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "is torch legacy, not a StyleGAN pickle"),
        (b"\x80\x03}X\x01\x00\x00\x00Gctorch_utils.persistence\n_reconstruct_persistent_obj\n.",
         "asks for torch_utils.persistence._reconstruct_persistent_obj.*StyleGAN2-ADA and StyleGAN3.*only pickles of StyleGAN"),
        (b"\x80\x04ctfutil\nNetwork\n.", "asks for tfutil.Network.*Progressive GAN"),
        (b"\x80\x04ctensorflow.python.framework.ops\nTensor\n.", "asks for tensorflow.*TensorFlow objects"),
    ],
)  # fmt: skip
def test_other_files_are_told_by_what_they_are(tmp_path, content, message):
    (tmp_path / "a.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_stylegan(tmp_path / "a.pkl")


def test_stylegan2_is_told_and_its_networks_can_be_read(tmp_path, official):
    path = write(tmp_path / "stylegan2.pkl", three(version=4, function="G_main"))
    with pytest.raises(ValueError, match="networks of StyleGAN2 .format 4; G is built by G_main.*karras2019stylegan"):
        read_stylegan(path)
    read = read_networks(path)
    assert read.Gs.function == "G_main" and read.Gs.all_variables()["G_mapping/Dense0/weight"].shape == (4, 6)
    single = write(tmp_path / "inception.pkl", network("inception_v3_features", "inception", {"a": np.ones(1)}))
    with pytest.raises(ValueError, match="holds one network, inception_v3_features, and not three"):
        read_stylegan(single)
    with pytest.raises(FileNotFoundError):
        read_stylegan(tmp_path / "none.pkl")


def test_reading_leaves_the_file_to_others(tmp_path, official):
    path = write(tmp_path / "a.pkl", three())
    arrays = flat(read_stylegan(path))
    with pytest.raises(ValueError, match="read-only"):
        arrays["G/dlatent_avg"][0] = 1
    with open(path, "wb") as file:
        file.write(b"")
    assert np.isfinite(arrays["G/dlatent_avg"]).all()
