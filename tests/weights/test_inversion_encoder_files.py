"""State dicts of published encoders: every kind of file gives the same trees, and what is none of them is refused by name."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from written import save_torch

from jaxgan.nets import composed_encoder
from jaxgan.nets.image_encoder import ImageEncoder
from jaxgan.nets.layer_encoders import LayerEncoder
from jaxgan.weights import inversion_encoder_files as files

SHAPES = {"layer1": (4, 4, 5), "layer2": (4, 4, 5), "layer3": (8, 8, 6), "layer4": (8, 8, 7)}
COMPOSED = composed_encoder.between((3,), SHAPES, (32, 32, 3), widths=(2, 2, 3, 4))


def state_dict(seed=0) -> dict[str, np.ndarray]:
    """Random arrays of a small composition, in PyTorch's names."""
    random, found = np.random.default_rng(seed), {}
    for tree in jax.eval_shape(lambda key: composed_encoder.init(COMPOSED, key), jax.random.key(0)):
        for name, parts in tree.items():
            prefix, name_of = ("resnet.", files.image_name) if name == "image" else (f"inv{name[5:]}.", files.layer_name)
            for module, leaves in parts.items():
                for part, leaf in leaves.items():
                    shape = tuple(leaf.shape[k] for k in (3, 2, 0, 1)) if len(leaf.shape) == 4 else leaf.shape
                    found[prefix + name_of((module, part))] = np.abs(random.normal(size=shape)).astype(np.float32)
    return found


def part(arrays, prefix):
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def assert_same(found, expected):
    assert found.description == expected.description
    jax.tree.map(np.testing.assert_array_equal, (found.params, found.stats), (expected.params, expected.stats))


def test_every_file_and_prefix_gives_the_same_encoders(tmp_path):
    arrays = state_dict()
    expected = files.composed(arrays, 32, 8, "the arrays")
    assert expected.description == COMPOSED
    kernel = expected.params["layer4"]["conv1"]["kernel"]
    assert kernel.shape == (3, 3, 7, 6) and kernel[0, 2, 4, 1] == arrays["inv4.conv1.weight"][1, 4, 0, 2]
    assert expected.params["image"]["stage2.0.shortcut"]["gamma"][0] == arrays["resnet.layer2.0.downsample.1.weight"][0]
    assert expected.stats["image"]["stage4.1.conv2"]["variance"][3] == arrays["resnet.layer4.1.bn2.running_var"][3]
    save_torch(tmp_path / "plain.pth", arrays)
    save_torch(tmp_path / "old.pth", {f"module.{name}": array for name, array in arrays.items()}, legacy=True)
    counters = {f"state_dict.{name}.num_batches_tracked": np.ones(1, np.float32) for name in ("resnet.bn1", "inv4.bn1")}
    optimiser = {"optimizer.state.0.exp_avg": np.ones(3, np.float32)}
    np.savez(tmp_path / "checkpoint.npz", **{f"state_dict.{name}": array for name, array in arrays.items()}, **counters, **optimiser)
    for name in ("plain.pth", "old.pth", "checkpoint.npz"):
        assert_same(files.read_encoder(tmp_path / name, side=32), expected)


def test_one_encoder_alone(tmp_path):
    arrays = state_dict()
    save_torch(tmp_path / "inv3.pth", part(arrays, "inv3."))
    assert files.read_encoder(tmp_path / "inv3.pth", layer=3).description == LayerEncoder(6, 5, 2)
    with pytest.raises(ValueError, match="give the layer's number"):
        files.read_encoder(tmp_path / "inv3.pth")
    save_torch(tmp_path / "image.pth", part(arrays, "resnet."))
    assert files.read_encoder(tmp_path / "image.pth", side=128).description == ImageEncoder(7, 4, (2, 2, 3, 4))
    assert files.of_layer(part(arrays, "inv1."), 1, "it").description == LayerEncoder(5, 3, latent=(3,))


def changed(name, array):
    return {**state_dict(), name: array}


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({name: array for name, array in state_dict().items() if name != "inv3.bn2.bias"}, "inv3.*bn2.bias is missing"),
        (changed("inv4.conv4.weight", np.ones((1, 1, 1, 1), np.float32)), "conv4.weight is not known"),
        (changed("decoder.conv1.weight", np.ones((1, 1, 1, 1), np.float32)), "decoder.conv1.weight is of none of resnet., inv4."),
        (
            changed("inv2.conv2.weight", np.ones((5, 5, 1, 1), np.float32)),
            r"conv2.weight is float32 \(5, 5, 1, 1\), not float32 \(5, 5, 3, 3\)",
        ),
        (changed("resnet.bn1.running_var", np.full(2, -1, np.float32)), "bn1.running_var has the value -1; no variance"),
        (changed("inv1.conv2.bias", np.full(3, np.nan, np.float32)), "not finite: conv2.bias"),
        ({name: array for name, array in state_dict().items() if not name.startswith("inv2.")}, "inv2.*needs the kernel conv1.weight"),
        (
            {name: array for name, array in state_dict().items() if not name.startswith("inv3.conv3")},
            "no conv3, so it does not undo layer 3",
        ),
    ],
)
def test_what_is_no_encoder_is_refused_by_name(arrays, message):
    with pytest.raises(ValueError, match=f"(?s)weights.pth.*{message}"):
        files.composed(arrays, 32, 8, "weights.pth")


def test_parts_that_do_not_follow_one_another_are_refused():
    arrays = state_dict()
    wide = {name: array for name, array in arrays.items() if not name.startswith("inv2.")}
    for name, array in part(arrays, "inv2.").items():
        wide[f"inv2.{name}"] = np.ones((5, 9, 3, 3), np.float32) if name == "conv1.weight" else array
    with pytest.raises(ValueError, match="do not follow one another: channels"):
        files.composed(wide, 32, 8, "weights.pth")
