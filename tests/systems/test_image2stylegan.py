"""Embedding: each method lowers its loss, formulas against numpy, every photo on its own, spaces and starts, refusals."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_style

from jaxgan import invert, perceptual
from jaxgan.systems import image2stylegan as method
from jaxgan.systems import image2stylegan_codes as codes
from jaxgan.systems import image2stylegan_plus as plus
from jaxgan.systems import image2stylegan_projector as projector
from jaxgan.systems.image2stylegan_options import Options, learning_rates

PIXELS = Options(perceptual_weight=0.0, learning_rate=0.05)


@pytest.fixture(scope="module")
def style():
    return small_style.generator()


@pytest.fixture(scope="module")
def photos(style):
    return np.clip(small_style.drawn(style, 3)[1], -1, 1)


def test_the_papers_method_lowers_its_loss_and_reports_its_parts(style, photos):
    options = Options(steps=30, learning_rate=0.05, taps=("conv1_1", "conv2_1"))
    found = method.embed(style, photos[:1], options, networks=small_style.networks())
    ((stage, history),) = found.history
    assert stage == "codes" and history["loss"].shape == (31, 1)
    assert (history["loss"][-1] < 0.6 * history["loss"][0]).all()
    np.testing.assert_allclose(history["loss"], history["mse"] + history["relu1_1"] + history["relu2_1"], rtol=1e-5)
    image = np.asarray(style.synthesise(style.arrays, jnp.asarray(found.codes), style.noise(style.arrays)))
    np.testing.assert_allclose(found.images, image, atol=1e-5)
    np.testing.assert_allclose(np.square(image - photos[:1]).mean((1, 2, 3)), history["mse"][-1], rtol=1e-4)
    assert found.noise is None and not found.failed.any()


def test_steps_on_pixels_alone_come_first_and_the_others_go_on_from_there(style, photos):
    options = Options(steps=4, pixel_steps=6, learning_rate=0.05, taps=("conv1_1", "conv2_1"), mse_weight=0.5)
    found = method.embed(style, photos[:2], options, networks=small_style.networks())
    (first, pixels), (second, both) = found.history
    assert (first, second) == ("pixels", "codes") and pixels["loss"].shape == (7, 2) and both["loss"].shape == (5, 2)
    np.testing.assert_allclose(pixels["loss"][0], np.square(found.before - photos[:2]).mean((1, 2, 3)), rtol=1e-5)  # with weight 1
    np.testing.assert_allclose(both["mse"][0], pixels["mse"][-1], rtol=1e-5)
    np.testing.assert_allclose(both["loss"], 0.5 * both["mse"] + both["relu1_1"] + both["relu2_1"], rtol=1e-5)
    with pytest.raises(ValueError, match="pixel_steps is 3, but belongs to"):
        Options(method="projector", pixel_steps=3).resolved()


@pytest.mark.slow
def test_the_projector_lowers_lpips_and_keeps_its_noise_normal():
    style = small_style.generator(side=16)
    photos = np.clip(small_style.drawn(style, 2)[1], -1, 1)
    found = method.embed(style, photos[:2], Options(method="projector", steps=60, noise_weight=1.0), networks=small_style.networks())
    history = found.history[0][1]
    assert (history["lpips"][-1] < 0.85 * history["lpips"][0]).all()
    np.testing.assert_allclose(history["loss"], history["lpips"] + history["noise"], rtol=1e-4)
    assert np.array_equal(found.codes[:, 0], found.codes[:, -1])  # one w for all rows
    for array in found.noise.values():
        np.testing.assert_allclose(array.mean((1, 2)), 0, atol=1e-5)
        np.testing.assert_allclose(np.square(array).mean((1, 2)), 1, rtol=1e-4)


@pytest.mark.slow
def test_plus_goes_on_with_the_noise_maps_from_the_code_it_found(style, photos):
    options = dataclasses.replace(PIXELS, method="image2stylegan++", steps=12, noise_steps=12, noise_learning_rate=0.1)
    found = method.embed(style, photos[:1], options, networks=method.Networks())
    (first, before), (second, after) = found.history
    assert (first, second) == ("codes", "noise")
    np.testing.assert_allclose(after["loss"][0], before["mse"][-1], rtol=1e-5)  # it begins where the first stage ended
    assert (after["loss"][-1] < 0.8 * after["loss"][0]).all()
    image = style.synthesise(style.arrays, jnp.asarray(found.codes), {k: jnp.asarray(v) for k, v in found.noise.items()})
    np.testing.assert_allclose(np.square(np.asarray(image) - photos[:1]).mean((1, 2, 3)), after["loss"][-1], rtol=1e-4)


def rms(noise):
    return {name: np.sqrt(np.square(array).mean()) for name, array in noise.items()}


def unmoved(stage, options, variables, frozen, targets, keys, *rest):
    return invert.start(variables, stage.tx, keys)


@pytest.mark.slow
def test_noise_maps_that_hold_their_strength_keep_it_and_are_never_worse_than_before(monkeypatch):
    style, photo, search = small_style.mobile(), np.full((1, 16, 16, 3), 0.3, np.float32), method._search
    monkeypatch.setattr(method, "_search", lambda stage, *rest: (search if stage.name == "noise" else unmoved)(stage, *rest))
    options = dataclasses.replace(PIXELS, method="image2stylegan++", steps=1, noise_steps=3, noise_learning_rate=150.0)
    found = method.embed(style, photo, options, networks=method.Networks())
    loss, (row,) = found.history[1][1]["loss"][:, 0], found.kept[1]
    np.testing.assert_allclose(loss[0], np.square(found.before - photo).mean(), rtol=1e-5)  # the maps come in as they are
    assert loss[row] == loss.min() < 0.8 * loss[0] and loss[-1] > loss[row]  # the last maps are not the best
    image = jax.jit(style.synthesise)(style.arrays, found.codes, found.noise)
    np.testing.assert_allclose(np.square(image - photo).mean(), loss[row], rtol=1e-4)
    stored = rms(style.noise(style.arrays))
    for name, value in rms(found.noise).items():  # three steps of Adam at 150, in units of the stored strength
        assert value < 500 * stored[name], name


@pytest.mark.slow
def test_the_projector_draws_noise_of_the_generators_strength_or_takes_that_of_the_start(monkeypatch):
    style, size = small_style.mobile(), (1, 16, 16, 3)
    problem = method.prepare(style, Options(method="projector", steps=1), small_style.networks())
    monkeypatch.setattr(method, "_search", unmoved)
    drawn = method.embed(style, np.zeros(size, np.float32), problem=problem)
    stored = rms(style.noise(style.arrays))
    for name, value in rms(drawn.noise).items():
        np.testing.assert_allclose(value, stored[name], rtol=0.6)  # the smallest map has 16 numbers
    start = {"code": np.ones((1, style.rows, style.w_size)), "noise": {name: 3 * array for name, array in drawn.noise.items()}}
    again = method.embed(style, np.zeros(size, np.float32), problem=problem, start=start)
    for name, array in start["noise"].items():
        np.testing.assert_allclose(again.noise[name], array, rtol=1e-5)
    image = jax.jit(style.synthesise)(style.arrays, start["code"].astype(np.float32), start["noise"])
    np.testing.assert_allclose(again.before, image, atol=1e-4)


def test_a_mask_lets_another_image_rule_outside(style, photos):
    mask = np.zeros((1, 8, 8, 1), np.float32)
    mask[:, :, :4] = 1
    images, other = jnp.asarray(photos[:1]), jnp.asarray(photos[1:2])
    inside = perceptual.Options(taps=("conv1_1",), weights=(2.0,), size=None)
    both = plus.losses(inside, 0.5, 3.0, "conv1_2")
    vgg = small_style.networks().vgg
    targets = plus.targets(vgg, images, jnp.asarray(mask[..., 0]), other, both)
    drawn = jnp.asarray(photos[2:3])
    total, parts = plus.compare(vgg, drawn, targets, both)
    x, y, g = (np.asarray(one, np.float64) for one in (images, other, drawn))
    expected = {"mse": np.square(mask * (g - x)).mean(), "outside": np.square((1 - mask) * (g - y)).mean()}

    def maps(image, name):
        taps = perceptual.Options(taps=(name,), weights=(1.0,), size=None)
        return np.asarray(perceptual.maps(vgg, jnp.asarray(image, jnp.float32), taps)[name], np.float64)

    def gram(features):
        weight = 1 - mask.astype(np.float64)
        return np.einsum("nhwi,nhwj->ij", features * weight, features) / weight.sum()

    expected["conv1_1"] = np.square(mask * (maps(g, "conv1_1") - maps(x, "conv1_1"))).mean()
    expected["style_conv1_2"] = np.square(gram(maps(g, "conv1_2")) - gram(maps(y, "conv1_2"))).mean()
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-4, err_msg=name)
    weights = {"mse": 1.0, "conv1_1": 2.0, "outside": 0.5, "style_conv1_2": 3.0}
    np.testing.assert_allclose(total, sum(weights[name] * expected[name] for name in weights), rtol=1e-4)


def test_the_noise_regulariser_and_renormalisation_are_their_formulas():
    rng = np.random.default_rng(0)
    maps = {f"layer{i}": rng.normal(size=(2, side, side)) for i, side in enumerate((4, 8, 32))}
    expected = np.zeros(2)
    for array in maps.values():
        while True:
            side = array.shape[1]
            wrapped = (np.arange(side) - 1) % side
            expected += (array * array[:, wrapped]).mean((1, 2)) ** 2 + (array * array[:, :, wrapped]).mean((1, 2)) ** 2
            if side <= 8:
                break
            array = (array[:, ::2, ::2] + array[:, 1::2, ::2] + array[:, ::2, 1::2] + array[:, 1::2, 1::2]) / 4
    given = {name: jnp.asarray(array, jnp.float32) for name, array in maps.items()}
    np.testing.assert_allclose(projector.noise_regulariser(given), expected, rtol=1e-4)
    for name, array in projector.renormalise(given).items():
        centred = maps[name] - maps[name].mean((1, 2), keepdims=True)
        np.testing.assert_allclose(array, centred / np.sqrt((centred**2).mean((1, 2), keepdims=True)), atol=1e-5)


def test_ramps_and_fading_noise_follow_the_published_formulas():
    options = Options(method="projector").resolved()
    rates = learning_rates(options, 1000)
    for step in (0, 10, 49, 50, 500, 750, 751, 900, 999):
        t = step / 1000
        ramp = (0.5 - 0.5 * np.cos(np.pi * min(1, (1 - t) / 0.25))) * min(1, t / 0.05)
        np.testing.assert_allclose(rates(step), 0.1 * ramp, rtol=1e-4, atol=1e-8)
        expected = 3.0 * 0.05 * max(0.0, 1 - t / 0.75) ** 2
        np.testing.assert_allclose(projector.code_deviation(step, 1000, jnp.float32(3.0)), expected, rtol=1e-4, atol=1e-7)


def test_mean_and_deviation_of_w_are_those_of_the_mapped_latents(style):
    mean, deviation = projector.mean_and_deviation(style, latents=1000)
    z = np.random.RandomState(123).randn(1000, style.latent_size).astype(np.float32)
    w = np.asarray(style.map_latents(style.arrays, jnp.asarray(z)), np.float64)
    np.testing.assert_allclose(mean, w.mean(0), atol=1e-5)
    np.testing.assert_allclose(deviation, np.sqrt(((w - w.mean(0)) ** 2).sum(1).mean()), rtol=1e-5)


def test_a_photo_alone_gets_the_code_it_gets_among_others(style, photos):
    options = dataclasses.replace(PIXELS, start="random", steps=20, seed=7)
    problem = method.prepare(style, options, method.Networks())
    together = method.embed(style, photos[:2], problem=problem)
    alone = method.embed(style, photos[1:2], problem=problem)
    np.testing.assert_allclose(together.before[1], alone.before[0], atol=1e-6)
    np.testing.assert_allclose(together.codes[1], alone.codes[0], atol=1e-4)
    np.testing.assert_allclose(together.history[0][1]["loss"][:, 1], alone.history[0][1]["loss"][:, 0], rtol=1e-4)
    assert np.abs(together.before[0] - together.before[1]).max() > 0.05  # starts of two photos differ


@pytest.mark.parametrize("space", ["z", pytest.param("w", marks=pytest.mark.slow)])
def test_smaller_spaces_stay_in_themselves(style, photos, space):
    found = method.embed(style, photos[:1], dataclasses.replace(PIXELS, space=space, steps=10), networks=method.Networks())
    assert found.latents.shape == (1, style.latent_size if space == "z" else style.w_size)
    assert np.array_equal(found.codes[0], np.broadcast_to(found.codes[0, :1], found.codes[0].shape))
    assert found.history[0][1]["loss"][-1, 0] < found.history[0][1]["loss"][0, 0]


@pytest.mark.slow
def test_the_weight_towards_the_mean_holds_the_code_there(style, photos):
    held, free = (
        method.embed(style, photos[:1], dataclasses.replace(PIXELS, steps=10, mean_weight=weight), networks=method.Networks())
        for weight in (100.0, 0.0)
    )
    mean = np.asarray(style.w_avg(style.arrays))
    assert np.linalg.norm(held.codes - mean) < 0.5 * np.linalg.norm(free.codes - mean)
    np.testing.assert_allclose(held.history[0][1]["mean"][-1, 0], np.square(held.codes[0] - mean).mean(), rtol=1e-4)


def test_starts(style):
    keys = codes.photo_keys(["ab" * 32, "cd" * 32], 0)
    mean = style.w_avg(style.arrays)
    for space, shape in (("w", (2, style.w_size)), ("w+", (2, style.rows, style.w_size))):
        options = Options(space=space, start="mean").resolved()
        assert np.array_equal(codes.start_codes(style, options, keys, mean), np.broadcast_to(mean, shape))
        drawn = codes.start_codes(style, dataclasses.replace(options, start="random"), keys, mean)
        assert drawn.shape == shape and np.abs(drawn).max() <= 1 and np.abs(drawn[0] - drawn[1]).max() > 0.1
    given = np.asarray(jax.random.normal(jax.random.key(0), (2, style.rows, style.w_size)))
    assert np.array_equal(codes.given_codes(style, Options(space="w+"), given), given)
    with pytest.raises(ValueError, match="rows that differ"):
        codes.given_codes(style, Options(space="w"), given)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"method": "image2stylegan+"}, "use one of image2stylegan, projector, image2stylegan[+][+]"),
        ({"space": "wplus"}, "use one of z, w, w[+]"),
        ({"space": "z", "start": "mean"}, "no z is known"),
        ({"method": "projector", "space": "z"}, "in W or W[+]"),
        ({"method": "projector", "optimiser": "lbfgs"}, "line search"),
        ({"start": "codes:"}, "codes:PATH"),
        ({"taps": ("conv6_1",)}, "conv6_1"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"steps": 0}, "at least 1"),
        ({"style_weight": 1.0}, "belongs to --method image2stylegan[+][+]"),
        ({"method": "projector", "taps": ("conv1_1",)}, "taps .* belongs to --method image2stylegan or"),
        ({"method": "projector", "pre_relu": True}, "pre_relu .* not to projector"),
        ({"method": "projector", "normalisation": "unit"}, "normalisation .* not to projector"),
        ({"code_noise": 0.1}, "code_noise is 0.1, but belongs to --method projector"),
        ({"method": "image2stylegan++", "noise_weight": 1.0}, "noise_weight .* belongs to --method projector"),
        ({"noise_learning_rate": 1.0}, "noise_learning_rate .* belongs to --method image2stylegan[+][+]"),
        ({"style_tap": "conv1_1"}, "style_tap .* belongs to --method image2stylegan[+][+]"),
        ({"optimiser": "lbfgs", "learning_rate": 0.1}, "learning_rate is 0.1, but lbfgs"),
        ({"optimiser": "lbfgs", "schedule": "cosine"}, "schedule is 'cosine', but lbfgs"),
        ({"mse_weight": 0.0, "perceptual_weight": 0.0}, "both 0"),
        ({"filter": "cubic"}, "resize filter"),
        ({"tolerance": float("nan")}, "finite"),
    ],
)
def test_options_that_do_not_exist_or_do_not_go_together_are_named(wrong, words):
    with pytest.raises(ValueError, match=words):
        Options(**wrong).resolved()


def test_a_rate_that_lbfgs_does_not_have_is_not_recorded():
    found = Options(optimiser="lbfgs").resolved().resolved().as_json()
    assert found["learning_rate"] is None and found["schedule"] is None


def test_what_the_generator_or_the_networks_lack_is_said(style, photos):
    with pytest.raises(ValueError, match="--vgg"):
        method.prepare(style, Options(), method.Networks())
    with pytest.raises(ValueError, match="LPIPS"):
        method.prepare(style, Options(method="projector"), method.Networks())
    with pytest.raises(ValueError, match="does not divide"):
        method.prepare(style, dataclasses.replace(PIXELS, resolution=5), method.Networks())
    with pytest.raises(ValueError, match="W[+] is W"):
        method.prepare(style._replace(rows=1), PIXELS, method.Networks())
    problem = method.prepare(style, PIXELS, method.Networks())
    with pytest.raises(ValueError, match="takes .N, 8, 8, 3."):
        method.embed(style, photos[:, :4], problem=problem)
    with pytest.raises(ValueError, match="masks belong"):
        method.embed(style, photos, problem=problem, mask=np.ones((3, 8, 8, 1)))


def test_an_interrupted_search_goes_on_to_the_same_numbers(style, photos, tmp_path):
    problem = method.prepare(style, dataclasses.replace(PIXELS, steps=12), method.Networks())
    whole = method.embed(style, photos[:1], problem=problem, chunk=4)

    def leave(stage, run: invert.Run, draw):
        return run.step == 4

    with pytest.raises(method.Interrupted, match="4 of 12"):
        method.embed(style, photos[:1], problem=problem, saved=tmp_path, watch=leave, chunk=4)
    code = np.zeros((1, style.rows, style.w_size), np.float32)
    with pytest.raises(ValueError, match="another run: its photos"):
        method.embed(style, photos[1:2], problem=problem, saved=tmp_path)
    with pytest.raises(ValueError, match="another run: its generator"):
        method.embed(small_style.generator(digest="1" * 64), photos[:1], problem=problem, saved=tmp_path)
    with pytest.raises(ValueError, match="another run: its sha256 of the given codes"):
        method.embed(style, photos[:1], problem=problem, saved=tmp_path, start={"code": code})
    with pytest.raises(ValueError, match="another run: its learning_rate is '0.05', here it is '0.01'"):
        other = problem._replace(options=dataclasses.replace(problem.options, learning_rate=0.01))
        method.embed(style, photos[:1], problem=other, saved=tmp_path)
    again = method.embed(style, photos[:1], problem=problem, saved=tmp_path, chunk=4)
    assert np.array_equal(whole.codes, again.codes)
    assert np.array_equal(whole.history[0][1]["loss"], again.history[0][1]["loss"])
