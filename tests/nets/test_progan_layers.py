"""The chain of a progressive GAN: beginning, ending and editing at any layer, growing, frozen forms, and what is refused."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.nets import layers, progan

SMALL = progan.Generator((5, 6, 4, 3))


def arrays(network, seed=0, growing=False):
    """Random (params, stats), with biases and statistics that are not those of the start."""
    params, stats = progan.init(network, jax.random.key(seed), growing)
    rng = np.random.default_rng(seed)
    moved = jax.tree.map(lambda x: x + jnp.asarray(rng.uniform(-0.2, 0.2, x.shape), x.dtype), (params, stats))
    return moved


def latents(network, n=2):
    return jnp.asarray(progan.standard_z(3, n, network.latent_size))


def test_the_published_network_of_256_px():
    network = progan.Generator(progan.PRESETS[256])
    assert len(progan.names(network)) == 15 and network.resolution == 256
    leaves = jax.tree.leaves(progan.layout(network), is_leaf=lambda leaf: hasattr(leaf, "shape"))
    assert sum(math.prod(leaf.shape) for leaf in leaves) == 18_344_995
    assert progan.shape(network, "layer4") == (8, 8, 512) and progan.shape(network, "layer11") == (128, 128, 64)
    for side, sizes in progan.PRESETS.items():
        assert progan.Generator(sizes).resolution == side


def test_going_on_from_a_layer_ending_at_one_and_edits():
    params, stats = arrays(SMALL)
    z = latents(SMALL)

    @jax.jit
    def all_ways(params, z):
        whole = progan.run(SMALL, params, stats, z, keep=progan.names(SMALL))
        shift = {"layer3": lambda x: x + 0.5, "output": lambda x: -x}
        edited = progan.run(SMALL, params, stats, z, edits=shift, keep=("layer3", "output"))
        resumed = progan.run(SMALL, params, stats, None, start=("layer3", whole.kept["layer3"] + 0.5), keep=("layer3",))
        ended = progan.synthesise(SMALL, params, stats, z, until="layer3")
        found = progan.activations(SMALL, params, stats, z, ("layer1", "layer3"))
        return whole, edited, resumed, ended, found

    whole, edited, resumed, ended, found = all_ways(params, z)
    np.testing.assert_allclose(edited.kept["layer3"], whole.kept["layer3"] + 0.5, atol=1e-6)
    np.testing.assert_allclose(edited.images, -resumed.images, atol=1e-5)
    assert float(jnp.abs(edited.images + whole.images).max()) > 1e-3
    np.testing.assert_allclose(ended, whole.kept["layer3"], atol=1e-6)
    assert set(found) == {"layer1", "layer3"}
    np.testing.assert_allclose(found["layer1"], whole.kept["layer1"], atol=1e-6)


def test_growing_makes_the_images_of_a_smaller_network_and_fades_between_two():
    network = dataclasses.replace(SMALL, clamp=False)
    params, _ = arrays(network, growing=True)
    assert {"output4", "output8", "output"} < set(params)
    z = latents(network)
    smaller = progan.Generator(SMALL.sizes[:-1], clamp=False)
    smaller_params = {**{name: params[name] for name in progan.names(smaller)[:-1]}, "output": params["output8"]}

    @jax.jit
    def all_ways(params, smaller_params, z, lods):
        half = progan.synthesise(smaller, smaller_params, {}, z)
        whole = progan.synthesise(network, params, {}, z)
        level = progan.synthesise(network, params, {}, z, level=1, full_size=False)
        faded = progan.synthesise(network, params, {}, z, fade=0.25)
        quarter = progan.synthesise(network, params, {}, z, level=1, fade=0.5)
        return half, whole, level, faded, quarter, [progan.synthesise_at(network, params, {}, z, lod) for lod in lods]

    half, whole, level, faded, quarter, at = all_ways(params, smaller_params, z, jnp.float32([0.0, 0.25, 1.5]))
    np.testing.assert_allclose(level, half, atol=1e-5)
    expected = 0.75 * whole + 0.25 * layers.upsample(half)
    np.testing.assert_allclose(faded, expected, atol=1e-5)
    for found, known in zip(at, (whole, expected, quarter), strict=True):
        np.testing.assert_allclose(found, known, atol=1e-5)


@pytest.mark.parametrize("name", ["G128_simple", "G128_equallr"])
def test_frozen_forms_of_networks_with_statistics_and_learned_scales(name):
    network = progan.Generator((5, 6, 4), **progan.ABLATIONS[name])
    params, stats = arrays(network)
    frozen, frozen_params = progan.freeze(network, params, stats, minimal=True)
    z = latents(network)
    whole, fast = jax.jit(
        lambda a, b, z: (progan.synthesise(network, a, stats, z), progan.synthesise(frozen, b, {}, z)),
    )(params, frozen_params, z)
    assert set(frozen_params["layer2"]) == {"kernel", "bias"}
    np.testing.assert_allclose(fast, whole, atol=2e-5)


def test_half_precision_stays_near_and_double_is_kept():
    params, _ = arrays(SMALL)
    z = latents(SMALL)

    @jax.jit
    def both(params, z):
        return progan.synthesise(SMALL, params, {}, z, dtype=jnp.bfloat16), progan.synthesise(SMALL, params, {}, z)

    half, single = both(params, z)
    assert half.dtype == single.dtype == jnp.float32
    assert 1e-5 < float(jnp.abs(half - single).mean()) < 0.03
    with jax.enable_x64(True):
        wide = jax.eval_shape(lambda z: progan.synthesise(SMALL, params, {}, z), jnp.zeros((2, 5), jnp.float64))
    assert wide.dtype == jnp.float64


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(until="layer9"), "no layer 'layer9': there are layer1 to layer6 and output"),
        (dict(edits={"r": abs}), "no layer 'r' runs here; those that do: layer1, layer2"),
        (dict(start=("layer4", np.zeros((2, 8, 8, 4), np.float32)), edits={"layer4": abs}), "no layer 'layer4' runs here"),
        (dict(start=("layer4", np.zeros((2, 8, 8, 3), np.float32))), r"layer4 of shape \(2, 8, 8, 3\); .* takes \[N, 8, 8, 4\]"),
        (dict(start=("layer4", np.zeros((2, 8, 8, 4), np.float32)), until="layer2"), "until 'layer2' lies before the start, layer4"),
        (dict(start=("layer5", np.zeros((2, 16, 16, 3), np.float32)), fade=0.5), "start 'layer5' lies behind layer4"),
        (dict(keep=("layer5",), level=1), "no layer 'layer5' runs here"),
        (dict(level=3), "level 3 with fade None: a 16 px generator goes from 0 to 2"),
        (dict(z=np.zeros((2, 6), np.float32)), r"latents of shape \(2, 6\); this generator takes \[N, 5\]"),
        (dict(z=None), r"latents of shape None; this generator takes \[N, 5\]"),
    ],
)
def test_what_does_not_run_is_said(options, said):
    params = jax.eval_shape(lambda: arrays(SMALL, growing=True)[0])
    options = {"z": latents(SMALL)} | options
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(lambda params: progan.run(SMALL, params, {}, **options).images, params)


def test_choices_that_are_none():
    for options, said in [
        (dict(sizes=(8,)), "give the size of z and the channels"),
        (dict(pixel_norm="all"), "pixel_norm 'all'"),
        (dict(scaling="equalised"), "scaling 'equalised'"),
        (dict(activation="tanh"), "activation 'tanh'"),
        (dict(batch_norm=True), "batch normalisation undoes any scale"),
    ]:
        with pytest.raises(ValueError, match=said):
            progan.Generator(**options)
    network = progan.Generator((5, 6), **progan.ABLATIONS["G128_simple"])
    with pytest.raises(ValueError, match="needs its batch statistics"):
        progan.synthesise(network, arrays(network)[0], {}, latents(network))
