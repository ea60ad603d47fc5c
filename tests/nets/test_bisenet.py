"""BiSeNetV2's label maps against the reference, and its resize against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxgan import weights
from jaxgan.nets import bisenet


@pytest.fixture(scope="module")
def params(shared):
    return bisenet.params(weights.load("bisenetv2", shared / "weights" / weights.KNOWN["bisenetv2"].file))


@pytest.fixture(scope="module")
def reference(shared):
    with np.load(shared / "weights" / "bisenetv2_celebamask.golden.npz") as file:
        return dict(file)


def test_labels_of_four_portraits_are_those_of_the_published_graph(params, reference):
    """The weights are stored in float32: a label may differ only where two classes tie within rounding, 1 pixel in 100,000 at most."""
    assert tuple(reference["class_names"]) == bisenet.CLASSES
    found = np.asarray(bisenet.labels(params, jnp.asarray(reference["images"].astype(np.float32) / 127.5 - 1.0)))
    assert found.dtype == np.int32
    assert (found != reference["predicted"]).mean() <= 1e-5
    accuracy = (found == reference["ground_truth"]).mean((1, 2))
    assert accuracy.min() > 0.96 and accuracy.max() < 0.98  # what was measured with the published graph: 0.964 to 0.978


def test_a_batch_split_over_eight_devices_has_the_scores_of_each_image_alone(params, reference):
    images = jnp.asarray(reference["images"][:1, 96:160, 96:160].astype(np.float32) / 127.5 - 1.0)
    images = jnp.concatenate([images * factor for factor in np.linspace(0.3, 1, 8, dtype=np.float32)])
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    whole = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    found = bisenet.logits(whole, jax.device_put(images, NamedSharding(mesh, PartitionSpec("data"))))
    assert found.shape == (8, 64, 64, 19) and found.addressable_shards[0].data.shape[0] == 1
    np.testing.assert_allclose(found[5:6], bisenet.logits(params, images[5:6]), atol=2e-4)


@pytest.mark.parametrize("factor", [4, 8])
def test_resizing_reads_from_the_upper_left_corner_and_repeats_the_last_pixel(factor):
    x = np.random.default_rng(0).normal(size=(1, 3, 5, 2))
    height, width = x.shape[1] * factor, x.shape[2] * factor
    expected = np.zeros((1, height, width, 2))
    for i in range(height):
        for j in range(width):
            (row, down), (column, across) = divmod(i, factor), divmod(j, factor)
            for rows, a in ((row, 1 - down / factor), (min(row + 1, 2), down / factor)):
                for columns, b in ((column, 1 - across / factor), (min(column + 1, 4), across / factor)):
                    expected[:, i, j] += a * b * x[:, rows, columns]
    np.testing.assert_allclose(bisenet._resize(jnp.asarray(x, jnp.float32), factor), expected, atol=1e-6)


def test_wrong_images_and_arrays_are_refused(params):
    with pytest.raises(ValueError, match="multiples of 32 \\(448"):
        bisenet.logits(params, jnp.zeros((1, 450, 448, 3)))
    with pytest.raises(ValueError, match="no array of the published file is called 'conv1_1.kernel'"):
        bisenet.params({"conv1_1.kernel": np.zeros(3)})
    with pytest.raises(ValueError, match="arrays of 'detail_branch/stage_1/conv_block_1_repeat_1/3x3_conv' are missing"):
        bisenet.params({"logits/1x1_conv_block/W": np.zeros((1, 1, 256, 19), np.float32)})
