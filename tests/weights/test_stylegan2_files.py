"""StyleGAN2 pickles, written as the official sources write them: the generator's arrays under their names, and no call is made."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import sys
import types
from collections import OrderedDict

import numpy as np
import pytest
from test_stylegan_files import EasyDict, Network, official, three, write
from written import storage, write_legacy

from jaxgan.weights.stylegan2_files import read_stylegan2
from jaxgan.weights.stylegan_files import read_stylegan

__all__ = ["EasyDict", "Network", "official"]
SOURCE = "raise RuntimeError('the source of a module must never be executed')\n"
RNG = np.random.default_rng(0)


def stand_in(module, name):
    function = types.FunctionType((lambda *args: args).__code__, {}, name)
    function.__module__, function.__qualname__ = module, name
    return function


RECONSTRUCT = stand_in("torch_utils.persistence", "_reconstruct_persistent_obj")
LOAD = stand_in("torch.storage", "_load_from_bytes")
TENSOR = stand_in("torch._utils", "_rebuild_tensor_v2")
PARAMETER = stand_in("torch._utils", "_rebuild_parameter")


@pytest.fixture
def torch(official, monkeypatch):
    """The names that Python's own pickle looks for, while a test writes; PyTorch itself is not needed."""
    for function in (RECONSTRUCT, LOAD, TENSOR, PARAMETER):
        package, _, name = function.__module__.partition(".")
        for module in (package, f"{package}.{name}"):
            monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    for function in (RECONSTRUCT, LOAD, TENSOR, PARAMETER):
        setattr(sys.modules[function.__module__], function.__name__, function)


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def stored(folder, array, key="94033", layout="C"):
    # A convolution may be kept in channels-last order: its numbers lie as OHWI and its strides say so.
    lying = array if layout == "C" else np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    numbers = lying.tobytes() if layout == "C" else lying.transpose(0, 2, 3, 1).tobytes()
    path = write_legacy(folder / "storage", b"\x80\x02" + storage(key, array.size, legacy=True) + b".", {key: numbers})
    strides = tuple(step // 4 for step in lying.strides)
    return Call(TENSOR, Call(LOAD, path.read_bytes()), 0, array.shape, strides, False, OrderedDict())


def module(kind, parameters=None, buffers=None, parts=None, source=SOURCE, **attributes):
    state = {"training": False, "_parameters": OrderedDict(parameters or {}), "_buffers": OrderedDict(buffers or {}),
             "_non_persistent_buffers_set": set(), "_backward_hooks": OrderedDict(), "_is_full_backward_hook": None,
             "_modules": OrderedDict(parts or {}), **attributes}  # fmt: skip
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": kind, "state": state}
    return Call(RECONSTRUCT, meta)


ARRAYS = {
    "synthesis.b4.const": RNG.normal(size=(3, 4, 4)),
    "synthesis.b4.conv1.weight": RNG.normal(size=(3, 2, 3, 3)),
    "synthesis.b4.conv1.noise_strength": RNG.normal(size=()),
    "synthesis.b4.conv1.noise_const": RNG.normal(size=(4, 4)),
    "mapping.fc0.weight": RNG.normal(size=(6, 4)),
    "mapping.fc0.bias": RNG.normal(size=6),
    "mapping.w_avg": RNG.normal(size=6),
}
ARRAYS = {name: array.astype(np.float32) for name, array in ARRAYS.items()}
OPTIONS = {
    "z_dim": 4,
    "c_dim": 0,
    "w_dim": 6,
    "img_resolution": 4,
    "mapping_kwargs": {"num_layers": 1},
    "synthesis_kwargs": {"conv_clamp": None},
}


def snapshot(folder, scale=1.0, source=SOURCE, drop=()):
    """What the training of StyleGAN2-ADA saves, with two layers."""

    def held(name, layout="C"):
        return stored(folder, ARRAYS[name] * np.float32(scale), layout=layout)

    def parameter(name, layout="C"):
        return Call(PARAMETER, held(name, layout), False, OrderedDict())

    conv = module(
        "SynthesisLayer",
        {key: parameter(f"synthesis.b4.conv1.{key}", "C" if key != "weight" else "last") for key in ("weight", "noise_strength")},
        {"noise_const": held("synthesis.b4.conv1.noise_const")},
        act_gain=np.sqrt(2.0),
    )
    block = module("SynthesisBlock", {"const": parameter("synthesis.b4.const"), "bias": None}, parts={"conv1": conv, "skip": None})
    dense = module("FullyConnectedLayer", {key: parameter(f"mapping.fc0.{key}") for key in ("weight", "bias")}, weight_gain=np.float64(0.5))
    mapping = module("MappingNetwork", buffers={"w_avg": held("mapping.w_avg")}, parts={"fc0": dense})
    synthesis = module("SynthesisNetwork", parts={} if "b4" in drop else {"b4": block})
    options = OPTIONS | {"mapping_kwargs": EasyDict(OPTIONS["mapping_kwargs"])}
    parts = {"synthesis": synthesis, "mapping": mapping}
    return module("Generator", parts=parts, source=source, _init_args=(), _init_kwargs=options, num_ws=2)


def write_snapshot(folder, protocol=4, **kwargs):
    value = {"training_set_kwargs": EasyDict(path="a.zip"), "G": snapshot(folder, 2.0), "D": None, "augment_pipe": None}
    path = folder / "network-snapshot.pkl"
    path.write_bytes(pickle.dumps(value | {"G_ema": snapshot(folder, **kwargs)}, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_the_average_generator_of_ada_for_pytorch(tmp_path, torch, protocol):
    read = read_stylegan2(write_snapshot(tmp_path, protocol))
    assert (read.name, read.function, read.version, read.static_kwargs) == ("G_ema", "Generator", 6, OPTIONS)
    assert set(read.variables) == set(ARRAYS) and read.source_sha256 == hashlib.sha256(SOURCE.encode()).hexdigest()
    for name, array in read.variables.items():
        np.testing.assert_array_equal(array, ARRAYS[name], err_msg=name, strict=True)
        assert array.flags.c_contiguous


def test_the_average_generator_of_the_tensorflow_files(tmp_path, official):
    networks = three(version=4, function="G_main")
    read = read_stylegan2(write(tmp_path / "a.pkl", networks))
    expected = dict(networks[2].state["components"]["mapping"].state["variables"])
    np.testing.assert_array_equal(read.all_variables()["G_mapping/Dense0/weight"], expected["Dense0/weight"])
    with pytest.raises(ValueError, match="built by G_style in format 3, is not of StyleGAN2"):
        read_stylegan2(write(tmp_path / "a.pkl", three()))
    (tmp_path / "a.pkl").write_bytes(b"<html>")
    with pytest.raises(ValueError, match="is an HTML page.*only pickles of StyleGAN2"):
        read_stylegan2(tmp_path / "a.pkl")


def test_sources_are_digested_and_other_generators_are_told(tmp_path, torch):
    source = f"open({str(tmp_path / 'sprung')!r}, 'w').close()\n"
    path = write_snapshot(tmp_path, source=source)
    assert read_stylegan2(path).source_sha256 == hashlib.sha256(source.encode()).hexdigest()
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(ValueError, match="asks for torch_utils.persistence.*StyleGAN2-ADA.*only pickles of StyleGAN .2019"):
        read_stylegan(path)
    with pytest.raises(ValueError, match="no constant input of 4x4.*StyleGAN3"):
        read_stylegan2(write_snapshot(tmp_path, drop=("b4",)))


@pytest.mark.parametrize("place", ["top", "meta", "state", "storage", "inside a storage", "tensor", "option", "part"])
def test_a_call_hidden_anywhere_is_refused_before_it_runs(tmp_path, torch, place):
    trap = Call(os.mkdir, str(tmp_path / "sprung"))
    made = snapshot(tmp_path)
    value = {"G_ema": made}
    state = made.args[0]["state"]
    if place == "top":
        value["D"] = trap
    elif place == "meta":
        made.args[0]["type"] = trap
    elif place == "state":
        made.args[0]["state"] = trap
    elif place == "storage":
        state["_buffers"]["a"] = Call(TENSOR, trap, 0, (1,), (1,), False, OrderedDict())
    elif place == "inside a storage":
        state["_buffers"]["a"] = Call(LOAD, write_legacy(tmp_path / "storage", pickle.dumps(trap, 2), {}).read_bytes())
    elif place == "tensor":
        state["_parameters"]["a"] = Call(PARAMETER, trap, False, OrderedDict())
    elif place == "option":
        state["_init_kwargs"]["z_dim"] = trap
    else:
        state["_modules"]["a"] = trap
    path = write(tmp_path / "a.pkl", value)
    with pytest.raises(ValueError, match=r"asks for (posix|nt)\.mkdir"):
        read_stylegan2(path)
    assert not (tmp_path / "sprung").exists()


def test_tensors_stay_within_their_storage_and_files_within_limits(tmp_path, torch):
    buffers = {}
    made = module("Generator", buffers=buffers)
    state = made.args[0]["state"]
    held = stored(tmp_path, np.ones(4, np.float32))
    content = held.args[0].args[0]
    plain = module("Generator")
    deep = plain
    for _ in range(10):
        deep = module("Generator", parts={"a": deep})
    for change, message in (
        ({"_buffers": {"a": Call(TENSOR, held.args[0], 1, (4,), (1,))}}, "leaves its storage of 4 numbers"),
        ({"_buffers": {"a": Call(TENSOR, Call(LOAD, content[:-1]), 0, (4,), (1,))}}, "a storage of 4 numbers has 15 bytes"),
        ({"_buffers": {"a": Call(LOAD, b"PK" + content)}}, "does not begin like a legacy torch file"),
        ({"_buffers": {"a": Call(TENSOR, content, 0, (4,), (1,))}}, "bytes where the storage of a tensor should be"),
        ({"_buffers": {"a": 1.0}}, "kind float where the tensor a should be"),
        ({"_buffers": {"a": [Call(LOAD, content) for _ in range(9)]}}, "its storages are more than .* or of more bytes than the file"),
        ({"_buffers": None}, "the module G_ema lacks parameters, buffers or parts"),
        ({"_modules": {"a": plain, "b": 1}}, "kind int where the module b should be"),
        ({"_modules": {"a": deep}}, "nested more than 8 deep"),
        ({"_init_kwargs": {"a": held}}, "among its options"),
    ):
        old = dict(state)
        state |= change
        with pytest.raises(ValueError, match=message) as refused:
            read_stylegan2(write(tmp_path / "a.pkl", {"G_ema": made}))
        assert str(tmp_path / "a.pkl") in str(refused.value)
        state |= old
    with pytest.raises(ValueError, match="not a dict with the module G_ema"):
        read_stylegan2(write(tmp_path / "a.pkl", {"G": made}))
    loop = b"\x80\x04" + b"}" + b"X\x01\x00\x00\x00atorch_utils.persistence."
    (tmp_path / "a.pkl").write_bytes(loop)
    with pytest.raises(ValueError, match="is not an intact pickle"):
        read_stylegan2(tmp_path / "a.pkl")


def test_damage_is_a_value_error_and_nothing_else(tmp_path, torch):
    whole, dice = bytearray(write_snapshot(tmp_path).read_bytes()), random.Random(0)
    file = tmp_path / "a.pkl"
    for length in range(200, len(whole), 101):
        file.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=str(file)):
            read_stylegan2(file)
    for _ in range(200):
        place, bit = dice.randrange(len(whole)), 1 << dice.randrange(8)
        whole[place] ^= bit
        file.write_bytes(whole)
        whole[place] ^= bit
        try:
            read_stylegan2(file)
        except ValueError as error:
            assert str(file) in str(error)
