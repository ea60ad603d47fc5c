"""One layer's encoders against the published code: five small ones with random weights and batch statistics."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.arrays import read_npz
from jaxgan.nets import layer_encoders
from jaxgan.nets.layer_encoders import LayerEncoder
from jaxgan.weights import inversion_encoder_files as files

CASES = {"inv4": 4, "inv3": 3, "inv2": 2, "nopn": 15, "inv1": 1}
"""Name in the reference file, and the layer that such an encoder undoes; the image's (15) has no pixel norm in front."""


# Less time to compile, the same numbers.
COMPILER = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@pytest.fixture(scope="module")
def reference(golden):
    return read_npz(golden / "seeing_layer_encoders.npz")


def part(reference, prefix) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in reference.items() if name.startswith(prefix)}


def nhwc(array):
    return np.moveaxis(array, 1, -1)


def turned(tree, name_of):
    """Trees of kernels HWIO as a state dict."""
    return {
        name_of((module, part)): leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf
        for module, parts in tree.items()
        for part, leaf in parts.items()
    }


@pytest.mark.parametrize("case", CASES)
def test_results_gradients_and_statistics_are_those_of_the_published_code(reference, case):
    own = part(reference, f"{case}/")
    encoder, params, stats = files.of_layer(part(own, "sd/"), CASES[case], case)
    x = nhwc(own["x"])

    def compute(params, x):
        def loss(params, x):
            y, new = layer_encoders.apply(encoder, params, stats, x, train=True)
            return jnp.square(y).mean(), (y, new)

        evaluated, unchanged = layer_encoders.apply(encoder, params, stats, x)
        return evaluated, unchanged, jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)

    evaluated, unchanged, ((_, (y, new)), (by_params, by_x)) = jax.device_get(jax.jit(compute, compiler_options=COMPILER)(params, x))
    for mode, found in (("eval", evaluated), ("train", y)):
        expected = nhwc(own[f"y_{mode}"])
        np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, unchanged, stats)
    np.testing.assert_allclose(by_x, nhwc(own["grad_x_of_mean_sq_train"]), rtol=1e-3, atol=1e-6)
    gradients = turned(by_params, files.layer_name)
    expected = part(own, "grad/")
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-3, atol=1e-6, err_msg=name)
    running = turned(new, files.layer_name)
    expected = part(own, "sd_after_train_fwd/")
    assert running.keys() == expected.keys()
    for name, array in running.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_published_encoders_have_their_widths_and_strides():
    described = {layer: layer_encoders.official(layer) for layer in range(1, 16)}
    assert [layer for layer, encoder in described.items() if encoder.stride == 2] == [3, 5, 7, 9, 11, 13]
    assert [layer for layer, encoder in described.items() if not encoder.third] == [2]
    assert [layer for layer, encoder in described.items() if not encoder.pixel_norm] == [15]
    assert [(described[layer].inputs, described[layer].outputs) for layer in (1, 6, 7, 8, 14, 15)] == [
        *((512, 512), (512, 512), (256, 512), (256, 256), (32, 32), (3, 32))
    ]
    trees = [jax.eval_shape(lambda key, encoder=described[k]: layer_encoders.init(encoder, key)[0], jax.random.key(0)) for k in range(1, 5)]
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in trees]
    assert sizes == [4_458_496, 4_721_664, 4_984_320, 4_984_320]
    with pytest.raises(ValueError, match="layer 16: .* 1 to 15"):
        layer_encoders.official(16)


def made(encoder, before=()):
    """Compiled in one piece: f(x) of a fresh encoder's results; ``before``: also by encoders of other descriptions, on the same arrays."""

    def compute(x):
        params, stats = layer_encoders.init(encoder, jax.random.key(3))
        return params, [layer_encoders.apply(described, params, stats, x)[0] for described in (encoder, *before)]

    return jax.jit(compute, compiler_options=COMPILER)


def test_fresh_kernels_have_the_kaiming_variance_and_the_scale_of_the_input_does_not_matter():
    x = np.random.default_rng(5).normal(size=(2, 8, 8, 64)).astype(np.float32)
    compute = made(LayerEncoder(64, 48))
    params, (ours,) = compute(x)
    kernel = np.asarray(params["conv1"]["kernel"], np.float64)
    assert abs(kernel.var() * 64 * 9 / 2 - 1) < 0.03 and abs(kernel.mean()) < 1e-3
    assert all(not np.asarray(params[name]["bias"]).any() for name in ("conv1", "conv2", "conv3"))
    np.testing.assert_allclose(compute(300 * x)[1][0], ours, rtol=1e-4, atol=1e-5)
    assert 0.5 < np.std(ours) < 2


@pytest.mark.parametrize(
    "before, after, shape",
    [((5,), (4, 4, 6), (5,)), ((3, 5), (4, 6, 6), (3, 5)), ((4, 4, 7), (8, 8, 6), (4, 4, 7)), ((2, 3, 7), (8, 12, 6), (2, 3, 7))],
)
def test_an_encoder_for_any_two_shapes(before, after, shape):
    encoder = layer_encoders.between(before, after)
    x = np.random.default_rng(1).normal(size=(2, *after)).astype(np.float32)
    others = (layer_encoders.between(before, after, unit_latent=False),) if len(before) < 3 else ()
    _, (found, *free) = made(encoder, others)(x)
    assert found.shape == (2, *shape)
    for other in free:
        np.testing.assert_allclose(np.square(found).mean(-1), 1, rtol=1e-3)
        assert np.abs(np.square(other).mean(-1) - 1).max() > 0.01


def test_a_stride_reads_the_first_of_every_two_pixels():
    x = np.random.default_rng(1).normal(size=(1, 6, 6, 3)).astype(np.float32)
    _, (halved, whole) = made(LayerEncoder(3, 3, 2), (LayerEncoder(3, 3),))(x)
    np.testing.assert_allclose(halved, whole[:, ::2, ::2], rtol=1e-5, atol=1e-6)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match="from a map of 8 x 8 to one of 3 x 3"):
        layer_encoders.between((3, 3, 4), (8, 8, 4))
    with pytest.raises(ValueError, match="from a map of 4 x 4 to one of 8 x 8"):
        layer_encoders.between((8, 8, 4), (4, 4, 4))
    with pytest.raises(ValueError, match="third convolution"):
        LayerEncoder(4, 4, 2, third=False)
    encoder = layer_encoders.between((5,), (4, 4, 6))
    with pytest.raises(ValueError, match=r"\(1, 8, 8, 6\); this encoder takes \[N, 4, 4, 6\]"):
        layer_encoders.apply(encoder, {}, {}, np.zeros((1, 8, 8, 6), np.float32))
