"""Pickles that would run code: none does, whichever way it is written and wherever it is put, and the refusal names what it asked for."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import tracemalloc

import numpy as np
import pytest
from written import MAGIC, ordered, several, storage, tensor, text, whole, write_legacy, write_zip

from jaxgan import weights
from jaxgan.weights import pickles


def programs(path: str) -> dict[str, tuple[bytes, str]]:
    """By the trick: (pickle that makes the folder `path`, what its refusal says)."""
    given, short = text(path), text("mkdir")
    tuple1 = given + b"\x85"
    make = b"cos\nmkdir\n" + tuple1 + b"R"
    empty = b"ccollections\nOrderedDict\n)R"
    shell = text(f"mkdir {path}") + b"\x85"
    code = text(f"__import__('os').mkdir({path!r})") + b"\x85"
    return {
        "reduce": (b"cos\nmkdir\n" + tuple1 + b"R.", "os.mkdir"),
        "shell": (b"cos\nsystem\n" + shell + b"R.", "os.system"),
        "eval": (b"cbuiltins\neval\n" + code + b"R.", "builtins.eval"),
        "in Python 2": (b"c__builtin__\neval\n" + code + b"R.", "__builtin__.eval"),
        "stack global": (b"\x80\x04" + text("os") + short + b"\x93" + tuple1 + b"R.", "os.mkdir"),
        "names through the memo": (
            b"\x80\x04" + text("collections") + b"\x940" + short + b"\x940" + text("os") + b"q\x00" + b"h\x01\x93" + tuple1 + b"R.",
            "os.mkdir",
        ),
        "function through the memo": (b"cos\nmkdir\nq\x050}" + b"h\x05" + tuple1 + b"R0.", "os.mkdir"),
        "inst": (b"(" + given + b"ios\nmkdir\n.", "os.mkdir"),
        "obj": (b"(cos\nmkdir\n" + given + b"o.", "os.mkdir"),
        "newobj of partial": (
            b"cfunctools\npartial\n(cos\nmkdir\n" + given + b"t\x81)R.",
            "functools.partial",
        ),
        "newobj with keywords": (b"\x80\x04cfunctools\npartial\n(cos\nmkdir\n" + given + b"t}\x92)R.", "functools.partial"),
        "attribute of a module": (
            b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n" + text("os") + b"\x85R" + short + b"tR" + tuple1 + b"R.",
            "builtins.getattr",
        ),
        "nested": (empty + b"(((" + text("a") + make + b"ttt.", "os.mkdir"),
        "as a key": (b"}cos\nmkdir\n" + tuple1 + b"RNs.", "os.mkdir"),
        "setstate": (empty + b"}" + text("__setstate__") + b"cos\nmkdir\nsb0" + make + b".", "os.mkdir"),
        "in a persistent identifier": (b"(" + text("storage") + make + b"tQ.", "os.mkdir"),
        "after the tensors": (ordered({"a": tensor(storage("0", 1), 0, [1], [1])})[:-1] + b"0" + make + b".", "os.mkdir"),
    }


NAMES = sorted(programs(""))
# The others need a torch to be there, or stop Python's machine only after they have run, or are of Python 2.
RUN_BY_PYTHON = sorted({*NAMES} - {"in Python 2", "nested", "in a persistent identifier", "after the tensors"})


@pytest.mark.parametrize("trick", RUN_BY_PYTHON)
def test_python_itself_would_run_them(trick, tmp_path):
    # Without this, a pickle that is merely broken would pass for one that is refused.
    try:
        pickle.loads(programs(str(tmp_path / "sprung"))[trick][0])
    except Exception as error:
        assert (tmp_path / "sprung").exists(), error
    assert (tmp_path / "sprung").exists()


@pytest.mark.parametrize("trick", NAMES)
def test_no_reader_runs_them_and_the_name_is_told(trick, tmp_path):
    program, name = programs(str(tmp_path / "sprung"))[trick]
    one = {"0": bytes(4)}
    plain = ordered({"a": tensor(storage("0", 1, legacy=True), 0, [1], [1])})
    version = pickle.dumps(1001, 2)
    # Around the tensors no name at all is known, not even that of a dict.
    around = f"asks for ({name}|persistent object|collections.OrderedDict)"
    for file, message in {
        write_zip(tmp_path / "zip.pth", program, one): f"asks for {name}",
        write_legacy(tmp_path / "legacy.pth", program, one): f"asks for {name}",
        write_legacy(tmp_path / "second.pth", plain, one, prefix=MAGIC + program): around,
        write_legacy(tmp_path / "third.pth", plain, one, prefix=MAGIC + version + program): around,
        write_legacy(tmp_path / "fifth.pth", plain + program, one): around,
    }.items():
        with pytest.raises(ValueError, match=message) as refused:
            weights.read(file)
        assert str(file) in str(refused.value)
        with pytest.raises(ValueError):
            weights.import_weights("vgg16", file, cache=tmp_path / "cache")
    with pytest.raises(pickles.Refused, match="asks for"):
        pickles.unpickle(io.BytesIO(program), {})
    for suffix in (".pth", ".pkl", ".npz", ".safetensors", ".h5"):
        (tmp_path / f"bare{suffix}").write_bytes(b"\x80\x04" + program)
        with pytest.raises(ValueError, match="a pickle, which could run any code"):
            weights.read(tmp_path / f"bare{suffix}")
    assert not (tmp_path / "sprung").exists() and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "program, message",
    [
        (text("os.system") + text("true") + b"\x85R.", "a call of 'os.system'"),
        (b"ctorch\nFloatStorage\n)R.", "a call of torch.FloatStorage"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(N}" + text("__code__") + b"Nstb.", "a state for Global"),
        (b"ccollections\nOrderedDict\n}" + text("__reduce__") + b"Nsb.", "a state for Global"),
        (b"ccollections\nOrderedDict.fromkeys\n)R.", "collections.OrderedDict.fromkeys"),
        (b"\x80\x04" + text("torch._utils") + text("_rebuild_tensor_v2.__globals__") + b"\x93.", "_rebuild_tensor_v2.__globals__"),
        (b"ctorch.storage\n_load_from_bytes\n(C\x01.tR.", "torch.storage._load_from_bytes"),
        (b"cnumpy.core.multiarray\n_reconstruct\n.", "numpy.core.multiarray._reconstruct"),
        (b"Pos.system\n.", "persistent object 'os.system'"),
        (text("os.system") + b"Q.", "persistent object 'os.system'"),
        (b"(" + text("module") + text("os") + text("m.py") + text("import os") + b"tQ.", "persistent object .'module'"),
        (b"(" + text("storage") + b"ctorch\nSize\n" + text("0") + text("cpu") + whole(1) + b"tQ.", "persistent object"),
        (storage("0", -1) + b".", "persistent object"),
        (storage("0", 4, legacy=True, view=b"(" + text("v") + several([3, 2])[1:]) + b".", "persistent object"),
        (b"\x82\x01.", "extension 1"),
    ],
)
def test_what_is_allowed_cannot_be_turned_into_more(program, message, tmp_path):
    with pytest.raises(ValueError, match=f"asks for .*{message}"):
        weights.read(write_zip(tmp_path / "a.pth", program, {"0": bytes(16)}))


def test_a_registered_extension_is_not_called(tmp_path):
    copyreg.add_extension("os", "mkdir", 240)
    try:
        program = b"\x80\x02\x82\xf0" + text(str(tmp_path / "sprung")) + b"\x85R."
        pickle.loads(program)
        os.rmdir(tmp_path / "sprung")
        with pytest.raises(ValueError, match="extension 240"):
            weights.read(write_zip(tmp_path / "a.pth", program, {}))
    finally:
        copyreg.remove_extension("os", "mkdir", 240)
        copyreg.clear_extension_cache()
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "program",
    [b"", b".", b"0.", b"(.", b"}.", b"h\x07.", b"))R.", b"(NNNt", b"X\xff\xff\xff\x7fab.", b"\x8e" + b"\xff" * 8 + b"a.", b"]s.", b"(Nd.",
     b"Nu.", b"ccollections\nOrderedDict\n(NtR.", b"\xff.", b"Iabc\n.", b"I" + b"9" * 5000 + b"\n.",
     b"}" + b")" + b"\x85" * 100_000 + b"Ns.",
     b"]q\x00h\x00a.", b"]q\x00(h\x00h\x00e."],
)  # fmt: skip
def test_broken_pickles_are_value_errors(program, tmp_path):
    for file in (write_zip(tmp_path / "a.pth", program, {}), write_legacy(tmp_path / "b.pth", program, {})):
        with pytest.raises(ValueError, match=str(file)):
            weights.read(file)


def test_dicts_that_hold_each_other_many_times_over_end_quickly(tmp_path):
    # Fourteen levels of ten references to the one below: 10**14 paths to one tensor.
    program = tensor(storage("0", 1), 0, [1], [1]) + b"q\x10"
    for level in range(14):
        pairs = b"".join(text(str(i)) + bytes([ord("h"), 16 + level]) for i in range(10))
        program += b"}(" + pairs + b"uq" + bytes([17 + level])
    with pytest.raises(ValueError, match="hold more than|tensors of"):
        weights.read(write_zip(tmp_path / "a.pth", b"\x80\x02(" + program + b"t.", {"0": bytes(4)}))


DOUBLED = b")q\x00" + b"2\x86" * 60
"""A tuple of two tuples of two tuples ...: 120 bytes whose text would have 2**60 of them."""
MILLION = b"]q\x01(" + b"h\x01" * 300_000 + b"e"
"""A list that holds itself 300,000 times."""


@pytest.mark.parametrize(
    "program",
    [
        DOUBLED + b"Q.",
        b"(" + text("storage") + DOUBLED + b"tQ.",
        DOUBLED + text("mkdir") + b"\x93.",
        text("os") + DOUBLED + b"\x93.",
        DOUBLED + b")R.",
        b"\x80\x04ctorch\nSize\n)" + DOUBLED + b"\x92.",
        b"\x80\x04" + DOUBLED + b"}" + text("a") + b"Ns\x92.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage("0", 4) + whole(0) + DOUBLED + DOUBLED + b"tR.",
        MILLION + b".",
        b"ctorch\nSize\nq\x02" + MILLION + b"(" + b"h\x02h\x01\x85R" * 1000 + b"t.",
        b"}" + b"X" + (100_000).to_bytes(4, "little") + b"a" * 100_000 + b"](" + b"N" * 10_000 + b"es.",
    ],
)
def test_a_small_pickle_does_not_fill_the_memory(program, tmp_path):
    file = write_zip(tmp_path / "a.pth", program, {"0": bytes(16)})
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=str(file)):
            weights.read(file)
        assert tracemalloc.get_traced_memory()[1] < 120e6
    finally:
        tracemalloc.stop()


def test_object_arrays_in_npz_are_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.savez(tmp_path / "a.npz", trap=np.array([Trap()], dtype=object))
    np.savez(tmp_path / "b.npz", fields=np.zeros(2, [("a", "f4"), ("b", "O")]))
    for name in ("a", "b"):
        with pytest.raises(ValueError, match="has dtype .*only numbers and text are read"):
            weights.read(tmp_path / f"{name}.npz")
    assert not (tmp_path / "sprung").exists()
