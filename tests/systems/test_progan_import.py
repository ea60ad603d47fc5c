"""`jaxgan weights import progan`: state dicts become generators that draw the original code's images; other files are refused."""

import re

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxgan.__main__ import main
from jaxgan.generators import nested, open_generator
from jaxgan.nets import progan


@pytest.fixture(scope="module")
def published(golden):
    """The 8 px network of the original code: (state dict, z, its images)."""
    with np.load(golden / "seeing_proggan_8px.npz") as arrays:
        state = {name.removeprefix("b/sd/"): arrays[name] for name in arrays.files if name.startswith("b/sd/")}
        return state, arrays["b/z"][:, :, 0, 0], np.moveaxis(arrays["b/y"], 1, -1)


def imported(path, out, capsys):
    code = main(["weights", "import", "progan", str(path), "--out", str(out)])
    return code, capsys.readouterr()


def test_the_folder_draws_what_the_original_code_drew(published, tmp_path, capsys):
    state, z, truth = published
    save_file(state, tmp_path / "proggan_tiny.safetensors")
    code, said = imported(tmp_path / "proggan_tiny.safetensors", tmp_path / "g", capsys)
    assert code == 0 and "a progan generator of 11 arrays" in said.out
    generator = open_generator(tmp_path / "g")
    network = generator.config.generator()
    assert network == progan.Generator((8, 8, 6)) and generator.config.start == 8
    params = nested(generator.arrays, "params")["G"]
    images = jax.jit(lambda params, z: progan.synthesise(network, params, {}, z))(params, z)
    np.testing.assert_allclose(images, truth, rtol=1e-4, atol=1e-5)
    assert main(["sample", str(tmp_path / "g"), "--out", str(tmp_path / "s.png"), "--n", "2"]) == 0


def ablated(scale=0.3):
    """A network of 4 px with learned scales, by the names of the published ones."""
    rng = np.random.default_rng(0)
    state = {f"features.{i}.conv.weight": rng.normal(size=(6, 5 if i == 0 else 6, *((4, 4) if i == 0 else (3, 3)))) for i in range(2)}
    state["output.conv.weight"] = rng.normal(size=(3, 6, 1, 1))
    for name in ("features.0", "features.1", "output"):
        state[f"{name}.wscale.b"] = np.zeros(3 if name == "output" else 6)
        state[f"{name}.wscale.scale"] = np.full(1, scale)
    return {name: array.astype(np.float32) for name, array in state.items()}


def test_learned_scales_need_the_name_of_their_file(tmp_path, capsys):
    for name, expected in [("Equalized_Learning_Rate-1.npz", "ends"), ("pixelwise-normalization.npz", True)]:
        np.savez(tmp_path / name, **ablated())
        assert imported(tmp_path / name, tmp_path / name[:4], capsys)[0] == 0
        config = open_generator(tmp_path / name[:4]).config
        assert (config.pixel_norm, config.scaling) == (expected, "learned")
    np.savez(tmp_path / "a.npz", **ablated())
    code, said = imported(tmp_path / "a.npz", tmp_path / "h", capsys)
    assert code == 2 and "keep 'equalized-learning-rate' or 'pixelwise-normalization' in the name" in said.err
    assert not (tmp_path / "h").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state | {"layer2.conv.weight": state["layer2.conv.weight"][:, :-1]}, r"layer2 kernel is \(3, 3, 7, 8\)"),
        (
            lambda state: {name: array for name, array in state.items() if name != "layer3.wscale.b"},
            "layer3 bias is absent",
        ),
        (
            lambda state: {name: array for name, array in state.items() if "layer4" not in name},
            "its layers are layer1, layer2, layer3, o",
        ),
        (lambda state: state | {"fc.weight": np.zeros((2, 2), np.float32)}, "'fc.weight' is no array of a progressive GAN's generator"),
        (lambda state: state | {"layer1.wscale.b": np.full(8, np.nan, np.float32)}, "not finite"),
        (lambda state: {"4x4/Dense/weight": np.zeros((4, 15), np.float32)}, "has the shape"),
        (lambda state: {"4x4/Dense/weight": np.zeros((4, 16), np.float32), "lod": np.float32(1.5)}, "saved while it grew"),
    ],
    ids=["shape", "missing", "layers", "other", "nan", "dense", "growing"],
)
def test_another_network_is_refused_and_nothing_is_written(published, change, said, tmp_path, capsys):
    np.savez(tmp_path / "a.npz", **change(dict(published[0])))
    code, captured = imported(tmp_path / "a.npz", tmp_path / "g", capsys)
    assert code == 2 and re.search(said, captured.err), captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
