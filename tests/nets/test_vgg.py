"""VGG-16 against reference maps, of a narrow network kept here and of the published weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxgan import weights
from jaxgan.nets import vgg

# Reference maps were made in float32 by another library: 5e-5 of the largest value is the limit that came with them.
FLOAT32 = 5e-5
# Maps of the original float32 weights, ours are stored in float16 (a relative step of 5e-4 in every weight).
STORED_FLOAT16 = 2e-3


def nhwc(array):
    return jnp.asarray(np.moveaxis(array, 1, -1))


def assert_close(found, expected, limit):
    assert found.shape == expected.shape
    assert np.abs(np.asarray(found) - expected).max() <= limit * np.abs(expected).max()


@pytest.fixture(scope="module")
def narrow(golden):
    with np.load(golden / "vgg16_narrow.npz") as file:
        return dict(file)


def test_maps_of_a_narrow_network_agree_before_and_after_the_relu(narrow):
    """Widths 6, 6, 8, 8, 12, 12, 12, 16, 16, up to conv4_2, in torchvision's layout."""
    maps = vgg.features(vgg.params(narrow), vgg.scale_imagenet(nhwc(narrow["image"])), ["conv3_2", "relu4_2", "relu3_2"])
    assert_close(maps["conv3_2"], nhwc(narrow["feat_torchvision_pre_relu/conv3_2"]), FLOAT32)
    assert_close(maps["relu3_2"], nhwc(narrow["feat_torchvision/conv3_2"]), FLOAT32)
    assert_close(maps["relu4_2"], nhwc(narrow["feat_torchvision/conv4_2"]), FLOAT32)


def test_both_layouts_of_the_arrays_are_one_network(narrow):
    numbers = sorted({int(key.split(".")[1]) for key in narrow if key.startswith("features.")})
    own = {}
    for name, number in zip(vgg.LAYERS, numbers, strict=False):
        own[f"{name}.kernel"] = narrow[f"features.{number}.weight"].transpose(2, 3, 1, 0)
        own[f"{name}.bias"] = narrow[f"features.{number}.bias"]
    assert list(own)[-1] == "conv4_2.bias"
    jax.tree.map(np.testing.assert_array_equal, vgg.params(own), vgg.params(narrow))


def test_every_scaling_of_the_narrow_reference_gives_its_maps(shared):
    with np.load(shared / "golden" / "vgg16_narrow.npz") as file:
        reference = dict(file)
    from safetensors.numpy import load_file

    params = vgg.params(load_file(shared / "golden" / "vgg16_narrow.safetensors"))
    assert len(params) == 13
    assert_close(vgg.scale_imagenet(nhwc(reference["image"])), nhwc(reference["input_torchvision"]), 1e-6)
    for scaling in ("torchvision", "caffe", "unit"):
        maps = vgg.features(params, nhwc(reference[f"input_{scaling}"]), ["relu1_1", "relu1_2", "relu3_2", "relu4_2"])
        for name, found in maps.items():
            assert_close(found, nhwc(reference[f"feat_{scaling}/conv{name[4:]}"]), FLOAT32)


def test_maps_of_the_published_weights_agree_down_to_the_last_block(shared):
    params = vgg.params(weights.load("vgg16", shared / "weights" / weights.KNOWN["vgg16"].file))
    with np.load(shared / "weights" / "vgg16_lpips.golden.npz") as file:
        reference = dict(file)
    names = [key.removeprefix("ref_") for key in reference if key.startswith("ref_")]
    assert names == ["relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"]
    images = vgg.scale_imagenet(jnp.asarray(reference["ref"][None].astype(np.float32) / 127.5 - 1.0))
    for name, found in vgg.features(params, images, names).items():
        assert_close(found[0], reference[f"ref_{name}"], STORED_FLOAT16)


def test_nothing_behind_the_last_map_is_computed(narrow):
    params = vgg.params(narrow)
    images = jnp.zeros((1, 16, 16, 3))

    def convolutions(names):
        return str(jax.make_jaxpr(lambda p, x: vgg.features(p, x, names))(params, images)).count("conv_general_dilated[")

    assert [convolutions(["relu1_1"]), convolutions(["conv2_1"]), convolutions(["relu4_2", "relu1_1"])] == [1, 3, 9]


def test_a_batch_split_over_eight_devices_has_the_same_maps_and_stays_split(narrow):
    params = vgg.params(narrow)
    images = jax.random.normal(jax.random.key(0), (8, 16, 16, 3))
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    whole = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    found = vgg.features(whole, split, ["relu4_2"])["relu4_2"]
    assert len(found.addressable_shards) == 8 and found.addressable_shards[0].data.shape[0] == 1
    np.testing.assert_allclose(found, vgg.features(params, images, ["relu4_2"])["relu4_2"], atol=1e-5)


def test_wrong_arrays_and_names_are_refused_with_what_is_there(narrow):
    with pytest.raises(ValueError, match="reach from relu1_1 to relu4_2"):
        vgg.features(vgg.params(narrow), jnp.zeros((1, 32, 32, 3)), ["relu5_1"])
    with pytest.raises(ValueError, match="block 4 needs images of at least 8 px; these are 32 x 4"):
        vgg.features(vgg.params(narrow), jnp.zeros((1, 32, 4, 3)), ["relu4_2"])
    with pytest.raises(ValueError, match=r"expected \[N, H, W, 3\]"):
        vgg.features(vgg.params(narrow), jnp.zeros((32, 32, 3)), ["relu1_1"])
    with pytest.raises(ValueError, match="neither 'conv1_1.kernel' nor 'features.0.weight' is among conv.beta"):
        vgg.params({"conv.beta": np.zeros(32)})
    without = {key: array for key, array in narrow.items() if not key.startswith("features.5.")}
    with pytest.raises(ValueError, match=r"'features\.\d+\.\w+' is there, but conv2_1 before it is not"):
        vgg.params(without)
    with pytest.raises(ValueError, match="conv1_2: kernel .* expected \\(3, 3, 6, n\\)"):
        vgg.params(narrow | {"features.2.weight": np.zeros((6, 5, 3, 3))})
    with pytest.raises(ValueError, match="'features.2.bias' is missing"):
        vgg.params({key: array for key, array in narrow.items() if key != "features.2.bias"})
