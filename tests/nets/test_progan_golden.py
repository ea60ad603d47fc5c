"""Progressive GANs against what the original code computed: networks of 32 and 8 px, TensorFlow's arrays, four ablated ones of 128 px.

The 8 px network is kept here; the others are read from the folder `shared`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.nets import progan
from jaxgan.weights.progan_files import convert

TAGS = ("b", "a")


@pytest.fixture(scope="module")
def reference(request, golden):
    @functools.cache
    def read(name):
        path = golden / f"seeing_{name}.npz"
        if not path.exists():
            path = request.getfixturevalue("shared") / "golden" / path.name
        with np.load(path) as file:
            return dict(file)

    def of(tag):
        arrays = read("proggan_8px" if tag == "b" else "proggan" if tag == "a" else "ablation_gen")
        return {name.removeprefix(f"{tag}/"): array for name, array in arrays.items() if name.startswith(f"{tag}/")}

    return of


def below(arrays, folder):
    return {name.removeprefix(f"{folder}/"): array for name, array in arrays.items() if name.startswith(f"{folder}/")}


def nhwc(array):
    return np.moveaxis(array, 1, -1)


def assert_close(found, expected, what="", rtol=1e-4, atol=1e-5):
    np.testing.assert_allclose(np.asarray(found), expected, rtol=rtol, atol=atol, err_msg=what)


@functools.cache
def forward(network):
    """Images, activations by layer, and images of the network without its clamp, in one compiled program."""
    free = progan.Generator(network.sizes, clamp=False)

    def run(params, z):
        made = progan.run(network, params, {}, z, keep=progan.names(network))
        return made.images, made.kept, progan.synthesise(free, params, {}, z)

    return jax.jit(run)


@pytest.mark.parametrize("tag", TAGS)
def test_every_layer_and_any_length_of_z(reference, tag):
    arrays = reference(tag)
    network, params, stats = convert(below(arrays, "sd"))
    assert network == progan.Generator(tuple(arrays["sizes"])) and stats == {}
    z = arrays["z"][:, :, 0, 0]
    images, kept, free = forward(network)(params, np.concatenate([z, 7.5 * z, 1e-5 * z, 0 * z]).astype(np.float32))
    for name, expected in below(arrays, "act").items():
        name = "output" if name.startswith("output") else name
        assert_close(kept[name][:3], nhwc(expected), name)
        assert kept[name].shape[1:] == progan.shape(network, name) and kept[name].shape[1] == progan.side(network, name)
    assert_close(free[:3], nhwc(arrays["y_noclamp"]), "without clamp")
    for i, name in enumerate(("y", "y_scaled_z", "y_tiny_z", "y_zero_z")):
        assert_close(images[3 * i : 3 * i + 3], nhwc(arrays[name]), name)
    assert_close(images[:3], nhwc(arrays["y_vec"]))
    if tag == "a":
        _, params, _ = convert(below(arrays, "tf"))
        assert_close(forward(network)(params, np.tile(z, (4, 1)))[0][:3], nhwc(arrays["tf_y"]), "TensorFlow's arrays")


@pytest.mark.parametrize("tag", TAGS)
def test_gradients_of_a_reconstruction_loss(reference, tag):
    arrays = reference(tag)
    network, params, _ = convert(below(arrays, "sd"))

    def loss(z, params):
        return jnp.abs(nhwc(arrays["target"]) - progan.synthesise(network, params, {}, z)).mean()

    z = jnp.asarray(arrays["z"][:, :, 0, 0])
    value, (of_z, of_params) = jax.jit(jax.value_and_grad(loss, (0, 1)))(z, params)
    assert_close(value, arrays["l1_loss"])
    close = functools.partial(assert_close, rtol=1e-3, atol=1e-6)
    close(of_z, arrays["l1_grad_z"][:, :, 0, 0], "z")
    for layer in ("layer1", "layer3"):
        close(of_params[layer]["kernel"].transpose(3, 2, 0, 1), arrays[f"l1_grad_{layer}_w"], layer)
    close(of_params["layer3"]["bias"], arrays["l1_grad_layer3_b"], "bias")


def test_a_frozen_generator_goes_on_from_r4_and_has_the_same_gradient(reference):
    arrays = reference("a")
    network, params, _ = convert(below(arrays, "sd"))
    z = jnp.asarray(arrays["z"][:, :, 0, 0])
    for minimal in (False, True):
        frozen_network, frozen_params = progan.freeze(network, params, minimal=minimal)

        @jax.jit
        def both(params, z, r4, network=frozen_network):
            def loss(z):
                return jnp.abs(nhwc(arrays["target"]) - progan.synthesise(network, params, {}, z)).mean()

            return jax.grad(loss)(z), progan.synthesise(network, params, {}, None, start=("layer4", r4))

        gradient, images = both(frozen_params, z, jnp.asarray(nhwc(arrays["r4"])))
        assert_close(gradient, arrays["l1_grad_z"][:, :, 0, 0], f"minimal {minimal}", rtol=1e-3, atol=1e-6)
        assert_close(images, nhwc(arrays["from_r4"]), f"minimal {minimal}")


def test_arrays_of_tensorflow_and_of_older_files_become_the_same_trees(reference):
    arrays = reference("a")
    expected = convert(below(arrays, "tf_sd"))
    variables = below(arrays, "tf") | {"lod": np.float32(0), "ToRGB_lod1/weight": np.zeros((1, 1, 4, 3), np.float32)}
    older = {}
    for name, array in below(arrays, "tf_sd").items():
        layer, _, part = name.partition(".")
        older[f"output.{part}" if layer.startswith("output") else f"features.{int(layer[5:]) - 1}.{part}"] = array
    scales = {f"features.{i}.wscale.scale": np.float32([(2 / older[f"features.{i}.conv.weight"][0].size) ** 0.5]) for i in range(8)}
    scales["output.wscale.scale"] = np.float32([older["output.conv.weight"].shape[1] ** -0.5])
    saved = {f"state_dict.module.{name}": array for name, array in below(arrays, "tf_sd").items()} | {"epoch": np.float32(3)}
    for other in (variables, older, older | scales, saved):
        found = convert(other)
        assert found.network == expected.network and found.stats == {}
        jax.tree.map(np.testing.assert_array_equal, found.params, expected.params)


ABLATED = {"G128_simple": None, "G128_minibatch_disc": None, "G128_equallr": "ends", "G128_pixelwisenorm": True}


@pytest.mark.parametrize("name", ABLATED)
def test_ablated_generators(reference, name):
    arrays = reference(name)
    network, params, stats = convert(below(arrays, "sd"), ABLATED[name])
    assert progan.Generator(network.sizes, **progan.ABLATIONS[name]) == network and network.resolution == 128
    made = jax.jit(lambda *inputs: progan.run(network, *inputs, keep=("layer12",)))(params, stats, arrays["z"][:, :, 0, 0])
    assert_close(made.images[:, ::2, ::2], nhwc(arrays["y_eval"]), "images")
    assert_close(made.kept["layer12"][:, ::8, ::8], nhwc(arrays["feat_eval"]), "features")


def test_batch_statistics_of_the_batch_in_training(reference):
    arrays = reference("G128_simple")
    network, params, stats = convert(below(arrays, "sd"))
    made = jax.jit(lambda *inputs: progan.run(network, *inputs, train=True))(params, stats, arrays["z"][:, :, 0, 0])
    # Twelve normalisations amplify rounding: the reference itself is 2.8e-5 away from the same formulas in float64.
    assert_close(made.images[:, ::2, ::2], nhwc(arrays["y_train"]), atol=5e-5)
    z, kernel = arrays["z"][:, :, 0, 0].astype(float), np.asarray(params["layer1"]["kernel"], float)
    values = np.einsum("nc,hwco->nhwo", z, kernel[::-1, ::-1]).reshape(-1, kernel.shape[-1])
    before, after = stats["layer1"], made.stats["layer1"]
    assert_close(after["mean"], 0.9 * before["mean"] + 0.1 * values.mean(0))
    assert_close(after["variance"], 0.9 * before["variance"] + 0.1 * values.var(0, ddof=1))
    assert set(made.stats) == set(stats)


def test_the_stream_of_latents(golden):
    with np.load(golden / "seeing_proggan_8px.npz") as expected:
        np.testing.assert_array_equal(progan.standard_z(1, 4, 6), expected["standard_z_seed1_4x6"])
        np.testing.assert_array_equal(progan.standard_z(7, 2, 5), expected["standard_z_seed7_2x5"])
    np.testing.assert_array_equal(progan.standard_z(1, 9, 6)[:4], progan.standard_z(1, 4, 6))
