"""Corrections and the six methods on a generator of 8 px: many photos at once, on several devices, interrupted, refused."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan import chains, invert_files, parallel
from jaxgan import photos as photos_module
from jaxgan.nets import progan, vgg
from jaxgan.systems import layer_inversion_corrections as corrections
from jaxgan.systems import layer_inversion_latents as latents
from jaxgan.systems import layer_inversion_methods as methods
from jaxgan.systems.layer_inversion_search import Perceptual, search

N, STEPS = 8, 12
SLOW = pytest.mark.slow
OPTIONS = corrections.Options(steps=STEPS, milestones=(4, 8))
ADAM = latents.Options("adam", steps=STEPS)


@pytest.fixture(scope="module")
def chain():
    network = progan.Generator((5, 6, 4))
    params, stats = progan.init(network, jax.random.key(3))
    return chains.of_progan(network, params, stats, "ab" * 32)


@pytest.fixture(scope="module")
def photos():
    return np.random.default_rng(1).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def encoder(chain):
    """A linear map of the image's 4x4 means for z, and of itself for the target."""
    rng = np.random.default_rng(2)
    h, w, c = chain.shapes[chain.target]
    arrays = {"z": jnp.asarray(rng.normal(size=(48, 5)), jnp.float32), "r": jnp.asarray(rng.normal(size=(3, c)), jnp.float32)}

    def encode(arrays, images):
        small = images.reshape(-1, 4, 2, 4, 2, 3).mean((2, 4))
        r = images.reshape(-1, h, 8 // h, w, 8 // w, 3).mean((2, 4)) @ arrays["r"]
        return {"z": small.reshape(-1, 48) @ arrays["z"], chain.target: r}

    return SimpleNamespace(arrays=arrays, encode=encode)


@pytest.fixture(scope="module")
def judge():
    kernel = np.random.default_rng(3).normal(size=(3, 7)).astype(np.float32)
    return Perceptual(jnp.asarray(kernel), lambda kernel, images: jax.nn.relu(images @ kernel), {"name": "one product"})


@pytest.fixture(scope="module")
def problem(chain, judge, encoder):
    return methods.prepare("f", chain, encoder=encoder, perceptual=judge, corrections_options=OPTIONS)


@pytest.fixture(scope="module")
def whole(problem, chain, photos, encoder):
    return methods.invert("f", chain, photos, problem=problem, encoder=encoder)


def alike(found, expected, limit):
    for name in ("latents", "images", "before", "targets"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=limit, err_msg=name)
    for kind in ("corrections", "activations", "history"):
        theirs = getattr(expected, kind)
        assert getattr(found, kind).keys() == theirs.keys()
        for name, array in theirs.items():
            np.testing.assert_allclose(getattr(found, kind)[name], array, atol=limit * max(1, np.abs(array).max()), err_msg=name)


def rows(result, index):
    """Some photos of a result."""
    pick = {kind: {name: array[index] for name, array in getattr(result, kind).items()} for kind in ("corrections", "activations")}
    history = {name: array[:, index] for name, array in result.history.items()}
    plain = {name: getattr(result, name)[index] for name in ("latents", "start", "images", "before", "targets", "kept", "failed")}
    return result._replace(**pick, **plain, history=history)


def test_the_loss_is_the_formula(chain, judge, encoder, photos, whole):
    """Every term from the images and the corrections that the search gives back, in numpy."""
    images, targets = whole.images.astype(np.float64), photos / 127.5 - 1
    maps = [np.maximum(x @ np.asarray(judge.arrays, np.float64), 0) for x in (images, targets)]
    expected = np.abs(images - targets).mean((1, 2, 3)) + np.abs(maps[0] - maps[1]).mean((1, 2, 3))
    for name in ("layer1", "layer2", "layer3"):
        expected += np.square(whole.corrections[name].astype(np.float64)).mean((1, 2, 3))
    np.testing.assert_allclose(whole.history["loss"][-1], expected, rtol=1e-5)
    np.testing.assert_allclose(whole.history["error_pixels"][-1], 100 * np.square(images - targets).mean((1, 2, 3)), rtol=1e-5)
    assert (whole.history["loss"][-1] < whole.history["loss"][0]).all()


def test_what_is_found_makes_the_images_again(chain, whole):
    edits = {name: (lambda x, d=d: x + d) for name, d in whole.corrections.items()}
    images, kept = chain.run(chain.arrays, jnp.asarray(whole.latents), edits=edits, keep=tuple(whole.activations))
    np.testing.assert_allclose(images, whole.images, atol=1e-5)
    for name, array in whole.activations.items():
        np.testing.assert_allclose(kept[name], array, atol=1e-5)
    again, _ = chain.run(chain.arrays, jnp.asarray(whole.latents), start=(chain.target, whole.activations[chain.target]))
    np.testing.assert_allclose(again, whole.images, atol=1e-5)


@pytest.fixture
def double(chain, photos, encoder, judge):
    """The same search in float64: what remains of rounding there is far below what Adam makes of it in float32."""
    with jax.enable_x64(True):
        wide, seen, looks = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), (chain.arrays, encoder.arrays, judge.arrays))
        chain = chain._replace(arrays=wide)
        encoder = SimpleNamespace(arrays=seen, encode=encoder.encode)
        problem = methods.prepare("f", chain, encoder=encoder, perceptual=judge._replace(arrays=looks), corrections_options=OPTIONS)
        photos = photos / 127.5 - 1

        def invert(index, **options):
            found = methods.invert("f", chain, photos[index], problem=problem, encoder=encoder, **options)
            assert found.images.dtype == np.float64
            return found

        yield SimpleNamespace(invert=invert, whole=invert(slice(None)))


def test_each_of_eight_photos_goes_where_it_goes_alone(double):
    """The eight go over the eight devices of the test session, the one over one."""
    assert len(jax.devices()) == N
    alike(double.invert(slice(5, 6)), rows(double.whole, slice(5, 6)), 1e-6)


@SLOW
@pytest.mark.parametrize("one_by_one", [True, False])
def test_eight_photos_on_one_device_go_where_they_go_on_eight(double, one_by_one):
    mesh = parallel.make_mesh((1, 1), jax.devices()[:1])
    alike(double.invert(slice(None), mesh=mesh, one_by_one=one_by_one), double.whole, 1e-6)


def test_a_search_that_was_stopped_goes_on_to_the_same_corrections(chain, photos, encoder, problem, whole, tmp_path):
    options = dict(problem=problem, encoder=encoder, saved=tmp_path, chunk=5)
    with pytest.raises(invert_files.Interrupted, match="5 of 12"):
        methods.invert("f", chain, photos, watch=lambda run, draw: draw().shape == (N, 8, 8, 3), **options)
    seen = []
    found = methods.invert("f", chain, photos, watch=lambda run, draw: seen.append(run.step), **options)
    assert seen == [10, 12]
    alike(found, whole, 0)
    with pytest.raises(ValueError, match="belongs to another run"):
        methods.invert("f", chain, photos[::-1], **options)


@pytest.mark.parametrize("layers", [("z",), pytest.param(("layer2",), marks=SLOW), pytest.param(("layer4",), marks=SLOW)])
def test_only_what_is_named_moves(chain, photos, judge, layers):
    options = dataclasses.replace(OPTIONS, layers=layers, steps=3)
    problem = corrections.prepare(chain, options, perceptual=judge)
    start = np.random.default_rng(4).normal(size=5).astype(np.float32)
    found = search(problem, "f", photos[:2], start, chunk=3)
    assert found.corrections.keys() == set(layers)
    np.testing.assert_array_equal(found.start, np.broadcast_to(start, (2, 5)))
    moved = found.corrections["z"] if layers == ("z",) else 0
    np.testing.assert_allclose(found.latents, found.start + moved)
    np.testing.assert_allclose(found.history[f"correction_{layers[0]}"][1], 1e-4, rtol=0.2)  # some numbers have no gradient


def test_rates_fall_at_the_published_shares():
    rate = corrections.rates(corrections.Options())
    at = {799: 0.01, 800: 0.005, 1199: 0.005, 1200: 0.0025, 1799: 0.0025, 1800: 0.00125, 2999: 0.00125}
    for step, expected in at.items():
        assert float(rate(step)) == pytest.approx(expected), step
    short = corrections.rates(corrections.Options(steps=30))
    assert [float(short(step)) for step in (7, 8, 12, 18)] == pytest.approx([0.01, 0.005, 0.0025, 0.00125])


def test_methods_begin_where_they_should(chain, photos, encoder):
    z = methods.encode(chain, encoder, photos)["z"]
    for method in "bd":
        found = methods.invert(method, chain, photos, encoder=encoder)
        np.testing.assert_array_equal(found.latents, z)
        np.testing.assert_array_equal(found.images, found.before)
        np.testing.assert_allclose(found.images, chain.run(chain.arrays, jnp.asarray(z))[0], atol=1e-5)
        assert found.method == method and not found.history and not found.corrections
    digests = [photos_module.content_digest(photo) for photo in photos]
    drawn = methods.start_latents("a", chain, photos, None, digests, 3)
    np.testing.assert_array_equal(methods.start_latents("a", chain, photos[4:5], None, digests[4:5], 3), drawn[4:5])
    assert len(np.unique(drawn.round(4), axis=0)) == N
    np.testing.assert_array_equal(methods.start_latents("f", chain, photos, None, digests, 3), np.zeros((N, 5)))


def test_the_latent_is_searched_from_the_encoder_s_with_the_encoder_s_view(chain, photos, encoder):
    problem = methods.prepare("e", chain, encoder=encoder, latents_options=ADAM)
    found = methods.invert("e", chain, photos, problem=problem, encoder=encoder)
    np.testing.assert_allclose(found.start, methods.encode(chain, encoder, photos)["z"], rtol=1e-6)
    z = [np.asarray(encoder.encode(encoder.arrays, jnp.asarray(x))["z"]) for x in (found.images, found.targets)]
    expected = np.abs(found.images - found.targets).mean((1, 2, 3)) + 0.25 * np.square(z[0] - z[1]).mean(1)
    np.testing.assert_allclose(found.history["loss"][-1], expected, rtol=1e-5)
    assert (found.history["loss"][-1] < found.history["loss"][0]).all()


def test_the_error_of_a_generated_photo_s_activation_is_recorded(chain, encoder, judge):
    z = np.random.default_rng(5).normal(size=(2, 5)).astype(np.float32)
    images, kept = chain.run(chain.arrays, jnp.asarray(z), keep=(chain.target,))
    problem = corrections.prepare(chain, dataclasses.replace(OPTIONS, steps=1), perceptual=judge, encoder=encoder)
    found = search(problem, "f", np.asarray(images), z, truth={"z": z, chain.target: kept[chain.target]})
    np.testing.assert_allclose(found.history["error_activation"][0], 0, atol=1e-4)
    np.testing.assert_allclose(found.history["loss"][0], 0, atol=1e-5)
    estimate = methods.encode(chain, encoder, np.asarray(images))[chain.target]
    np.testing.assert_allclose(found.history["estimate"][0], np.square(estimate - kept[chain.target]).mean((1, 2, 3)), rtol=1e-4)


def test_the_published_loss_sees_images_as_they_are():
    rng = np.random.default_rng(6)
    widths = dict(zip(vgg.LAYERS, (2, 2, 3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 6), strict=True))
    arrays, inputs = {}, 3
    for name, width in widths.items():
        arrays[f"{name}.kernel"] = rng.normal(size=(3, 3, inputs, width)).astype(np.float32) / inputs
        arrays[f"{name}.bias"], inputs = rng.normal(size=width).astype(np.float32), width
    params = vgg.params(arrays)
    found = corrections.of_vgg(params, 16)
    assert list(found.arrays)[-1] == "conv4_2"
    images = jnp.asarray(rng.uniform(-1, 1, (2, 16, 16, 3)), jnp.float32)
    np.testing.assert_allclose(found.maps(found.arrays, images), vgg.features(params, images, ("relu4_2",))["relu4_2"], atol=1e-5)
    with pytest.raises(ValueError, match="relu6_1"):
        corrections.of_vgg(params, 16, "relu6_1")


def test_what_does_not_fit_is_refused(chain, photos, encoder, judge, problem):
    for name in ("layer9", "output"):
        with pytest.raises(ValueError, match=f"no layer '{name}' to correct: .* z, layer1, layer2, layer3, layer4$"):
            corrections.prepare(chain, corrections.Options(layers=(name,)), perceptual=judge)
    with pytest.raises(ValueError, match="open_perceptual"):
        corrections.prepare(chain)
    with pytest.raises(ValueError, match="both 0"):
        corrections.Options(pixel_weight=0, perceptual_weight=0)
    with pytest.raises(ValueError, match="photos of 8 x 4 x 3; this progan generator makes 8 x 8 x 3"):
        methods.invert("f", chain, photos[:, :, :4], problem=problem, encoder=encoder)
    with pytest.raises(ValueError, match="begins with an encoder"):
        methods.prepare("e", chain)
    with pytest.raises(ValueError, match="method 'g'"):
        methods.prepare("g", chain)
    with pytest.raises(ValueError, match="latents of shape"):
        search(problem, "f", photos, np.zeros((3, 5), np.float32))
