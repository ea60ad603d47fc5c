"""StyleGAN's properties that reference files do not hold: table 1's networks against numpy in double precision, mixing, progressive
growing, starting from an activation, folding, initial scale, and refusals."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan import losses
from jaxgan.nets import layers, stylegan, stylegan_discriminator, stylegan_variables

TINY = stylegan.Generator(
    widths=stylegan.channel_widths(16, 32, maximum=6), latent_size=5, w_size=5, mapping_width=7, mapping_layers=2, channels=3
)


def network_of(letter):
    return dataclasses.replace(TINY, **stylegan.TABLE_1[letter].changes)


def filled(network, seed=0):
    """(params, state) with nothing at its neutral start."""
    rng = np.random.default_rng(seed)

    def normal(shape, deviation=1.0):
        return jnp.asarray(rng.normal(scale=deviation, size=shape), jnp.float32)

    params = jax.tree.map(lambda leaf: leaf.fill + normal(leaf.shape, leaf.deviation or 0.3), stylegan.layout(network))
    noise = {f"layer{i:02d}": normal((network.side(i), network.side(i))) for i in range(network.layers)}
    return params, {"w_avg": normal((network.w_size,)), "noise": noise}


def parameters(layout):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(layout))


def slow_convolution(x, kernel):
    """Correlation with zeros beyond the border: [N, H, W, I], [k, k, I, O]."""
    k = kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (k, k), (k, k), (0, 0)))
    height, width = x.shape[1:3]
    return sum(padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(kernel.shape[0]) for j in range(kernel.shape[1]))


def slow_generator(network, params, noise, z):
    """The generator as the paper words it, in float64, channels last; nothing of the library is used."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    z = np.asarray(z, np.float64)

    def kernel(array, gain, rate=1.0):
        return array * gain / np.sqrt(np.prod(array.shape[:-1])) * rate

    def lrelu(x):
        return np.maximum(x, 0.2 * x)

    w = z / np.sqrt((z**2).mean(1, keepdims=True) + 1e-8)
    for i in range(network.mapping_layers):
        dense = p["mapping"][f"dense{i}"]
        w = lrelu(w @ kernel(dense["kernel"], 2**0.5, 0.01) + dense["bias"] * 0.01)
    binomial = np.outer([1, 2, 1], [1, 2, 1]) / 16.0
    for i in range(2 * len(network.widths)):
        layer = p["synthesis"][f"layer{i:02d}"]
        width = layer["bias"].shape[0]
        if i == 0 and "constant" in layer:
            x = np.repeat(layer["constant"][None], len(z), 0)
        elif i == 0:
            x = (w @ kernel(layer["kernel"], 2**0.5 / 4)).reshape(-1, 4, 4, width)
        elif i % 2:
            x = slow_convolution(x, kernel(layer["kernel"], 2**0.5))
        else:
            x = slow_convolution(x.repeat(2, 1).repeat(2, 2), kernel(layer["kernel"], 2**0.5))
            if network.blur:
                x = slow_convolution(x, binomial[:, :, None, None] * np.eye(width))
        if "noise" in layer:
            x = x + np.asarray(noise[f"layer{i:02d}"], np.float64)[None, :, :, None] * layer["noise"]
        x = lrelu(x + layer["bias"])
        if network.pixel_norm:
            x = x / np.sqrt((x**2).mean(3, keepdims=True) + 1e-8)
        if network.instance_norm:
            x = (x - x.mean((1, 2), keepdims=True)) / np.sqrt(x.var((1, 2), keepdims=True) + 1e-8)
        if "style_kernel" in layer:
            style = w @ kernel(layer["style_kernel"], 1.0) + layer["style_bias"]
            x = x * (style[:, None, None, :width] + 1) + style[:, None, None, width:]
    last = p["synthesis"][f"rgb{network.resolution}"]
    return slow_convolution(x, kernel(last["kernel"], 1.0)) + last["bias"]


@pytest.mark.parametrize("letter", list(stylegan.TABLE_1))
def test_every_row_of_table_1_is_the_network_that_the_paper_describes(letter):
    network = network_of(letter)
    params, state = filled(network)
    z = jax.random.normal(jax.random.key(3), (2, 5))
    found = jax.jit(lambda z: stylegan.generate(network, params, state, z, psi=None))(z)
    expected = slow_generator(network, params, state["noise"], z)
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())


def test_table_1_tells_mixing_and_truncation():
    rows = {letter: (row.mixing, row.truncation) for letter, row in stylegan.TABLE_1.items()}
    assert rows == dict(A=(0.0, False), B=(0.0, False), C=(0.0, True), D=(0.0, True), E=(0.0, True), F=(0.9, True))


def test_numbers_of_parameters_are_the_published_ones():
    full = stylegan.Generator()
    assert (full.resolution, full.layers) == (1024, 18)
    assert parameters(stylegan.layout(full)) == 26_219_627
    assert parameters(stylegan.layout(full)["mapping"]) == 2_101_248
    assert parameters(stylegan_discriminator.layout(stylegan_discriminator.Discriminator())) == 23_087_249
    widths = stylegan.channel_widths(256)
    assert parameters(stylegan.layout(stylegan.Generator(widths))) == 26_086_229
    assert parameters(stylegan_discriminator.layout(stylegan_discriminator.Discriminator(widths))) == 23_052_353


@pytest.mark.parametrize("scaling, raw", [("equalised", 100.0), ("initial", 100.0 * 2**0.5 / 16), ("folded", 2**0.5 / 16)])
def test_effective_kernels_start_with_the_same_spread_however_they_are_scaled(scaling, raw):
    """Width 256: the effective deviation is sqrt(2 / 256), and the mapping network's kernels are stored 100 times as large."""
    network = stylegan.Generator((8,), 256, 256, 256, mapping_layers=1, scaling=scaling)
    params, state = jax.jit(stylegan.init, static_argnums=0)(network, jax.random.key(0))
    assert abs(float(params["mapping"]["dense0"]["kernel"].std()) / raw - 1) < 0.01
    _, folded = stylegan.fold(network, params)
    assert abs(float(folded["mapping"]["dense0"]["kernel"].std()) / (2**0.5 / 16) - 1) < 0.01
    assert state["noise"]["layer01"].shape == (4, 4) and not state["w_avg"].any()
    np.testing.assert_array_equal(params["synthesis"]["layer00"]["constant"], 1.0)


def test_a_folded_network_is_the_same_function_with_no_factor_left():
    params, state = filled(TINY)
    folded, plain = stylegan.fold(TINY, params)
    z = jax.random.normal(jax.random.key(3), (2, 5))
    one = jax.jit(lambda p: stylegan.generate(TINY, p, state, z))(params)
    two = jax.jit(lambda p: stylegan.generate(folded, p, state, z))(plain)
    np.testing.assert_allclose(one, two, atol=1e-5 * float(jnp.abs(one).max()))
    assert all(leaf.factor == 1.0 for leaf in jax.tree.leaves(stylegan.layout(folded)))


def test_level_and_start_are_parts_of_the_whole():
    """The small image doubled is the full one, and the image from an activation is that of the whole run."""
    params, state = filled(TINY)
    w = jax.random.normal(jax.random.key(4), (2, 6, 5))
    noise = state["noise"]

    @jax.jit
    def images(w):
        full = stylegan.synthesise(TINY, params, w, noise, level=1, fade=0.25)
        small = stylegan.synthesise(TINY, params, w, noise, level=1, fade=0.25, full_size=False)
        kept = stylegan.activations(TINY, params, w, noise, ["layer02", "layer01_normalised"])
        whole = stylegan.synthesise(TINY, params, w, noise)
        resumed = stylegan.synthesise(TINY, params, w, noise, start=(2, kept["layer02"]))
        return full, small, kept, whole, resumed

    full, small, kept, whole, resumed = images(w)
    assert small.shape == (2, 8, 8, 3) and set(kept) == {"layer02", "layer01_normalised"}
    np.testing.assert_array_equal(full, layers.upsample(small))
    np.testing.assert_allclose(resumed, whole, atol=1e-5 * float(jnp.abs(whole).max()))
    np.testing.assert_allclose(kept["layer01_normalised"].mean((1, 2)), 0.0, atol=1e-5)
    with pytest.raises(ValueError, match="start behind layer 5: .* from layer 0 to 3"):
        stylegan.synthesise(TINY, params, w, noise, start=(5, whole), fade=0.5)


def test_rows_drive_their_own_layers_and_noise_may_differ_between_images():
    params, state = filled(TINY)
    w = jnp.repeat(jax.random.normal(jax.random.key(4), (1, 6, 5)), 2, 0).at[1, 4].add(1.0)
    run = jax.jit(lambda w, noise: stylegan.activations(TINY, params, w, noise))
    found = run(w, state["noise"])
    for i in range(6):
        same = bool(jnp.allclose(found[f"layer{i:02d}"][0], found[f"layer{i:02d}"][1], atol=1e-5))
        assert same == (i < 4), i
    np.testing.assert_allclose(*found["layer04_normalised"], atol=1e-5)
    fresh = stylegan.draw_noise(TINY, jax.random.key(7), 2)
    found = run(jnp.repeat(w[:1], 2, 0), fresh)
    assert float(jnp.abs(found["layer00"][0] - found["layer00"][1]).max()) > 0.01
    alone = run(jnp.repeat(w[:1], 2, 0), {name: maps[1] for name, maps in fresh.items()})
    np.testing.assert_allclose(found["layer05"][1], alone["layer05"][0], atol=1e-4)


def test_mixing_cutoffs_are_uniform_over_the_layers_that_run():
    cutoff = jax.jit(jax.vmap(lambda key: stylegan.mixing_cutoff(TINY, key, 0.9, level=1)))(jax.random.split(jax.random.key(0), 6000))
    counts = np.bincount(np.asarray(cutoff), minlength=7)
    assert counts[0] == counts[5] == counts[6] == 0  # 4 of 6 layers run at level 1; 4 stands for no mixing
    np.testing.assert_allclose(counts[1:5] / 6000, [0.3, 0.3, 0.3, 0.1], atol=0.025)


def test_training_codes_mix_whole_batches_and_average_the_codes_before_mixing():
    params, state = filled(TINY)
    z = jax.random.normal(jax.random.key(4), (3, 5))
    run = jax.jit(lambda key: stylegan.training_codes(TINY, params, state["w_avg"], z, key, mixing=1.0))
    w = np.asarray(stylegan.map_latents(TINY, params, z))
    seen = set()
    for seed in range(12):
        codes, moved = run(jax.random.key(seed))
        own = np.isclose(codes, w[:, None], atol=1e-6).all(2)
        assert (own == own[0]).all() and own[0, 0] and not own[0, -1]
        seen.add(int(own[0].sum()))
        np.testing.assert_allclose(moved, 0.995 * np.asarray(state["w_avg"]) + 0.005 * w.mean(0), atol=1e-6)
    assert len(seen) > 2
    codes, _ = stylegan.training_codes(TINY, params, state["w_avg"], z, jax.random.key(0), mixing=0.0)
    np.testing.assert_array_equal(codes, np.repeat(w[:, None], 6, 1))


def test_truncation_is_off_where_the_published_call_has_it_off():
    w, mean = jnp.ones((1, 6, 5)), jnp.zeros(5)
    for psi, cutoff in ((1, 8), (None, 8), (0.5, 0), (0.5, None)):
        assert stylegan.truncate(w, mean, psi, cutoff) is w
    np.testing.assert_allclose(stylegan.truncate(w, mean, jnp.float32(-0.5), 2)[0, :, 0], [-0.5, -0.5, 1, 1, 1, 1])


def test_turned_kernels_change_one_form_of_doubling_into_the_other():
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 2))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 2, 3))
    fused = stylegan.upscale_convolve(x, kernel, True)
    np.testing.assert_allclose(fused, stylegan.upscale_convolve(x, kernel[::-1, ::-1], False), atol=1e-5)


def test_blur_is_its_own_gradient_to_second_order():
    x = jax.random.normal(jax.random.key(0), (1, 5, 4, 2))
    plain = layers.convolve(x, jnp.einsum("i,j,ab->ijab", *[jnp.array([0.25, 0.5, 0.25])] * 2, jnp.eye(2)))
    np.testing.assert_allclose(stylegan.blur(x), plain, atol=1e-6)
    first = jax.grad(lambda x: jnp.sum(stylegan.blur(x) ** 3))
    twice = jax.grad(lambda x: jnp.sum(first(x) ** 2))(x)
    step = 1e-2 * jax.random.normal(jax.random.key(1), x.shape)
    value = lambda x: float(jnp.sum(first(x) ** 2))  # noqa: E731
    np.testing.assert_allclose(value(x + step) - value(x - step), 2 * float(jnp.vdot(twice, step)), rtol=2e-2)


def test_small_images_score_as_their_doubled_form():
    network = stylegan_discriminator.Discriminator(TINY.widths, dense_width=8)
    params = jax.jit(stylegan_discriminator.init, static_argnums=0)(network, jax.random.key(0))
    small = jax.random.normal(jax.random.key(1), (4, 8, 8, 3))
    score = jax.jit(lambda x: stylegan_discriminator.scores(network, params, x, level=1, fade=0.3))
    np.testing.assert_allclose(score(small), score(layers.upsample(small)), rtol=1e-5)
    assert score(small).shape == (4,)


def test_logistic_and_hinge_losses_equal_double_precision():
    real, fake = np.random.default_rng(0).normal(scale=3, size=(2, 7))
    on = [jnp.asarray(a, jnp.float32) for a in (real, fake)]
    soft = lambda x: np.logaddexp(0, x)  # noqa: E731
    np.testing.assert_allclose(losses.logistic_discriminator(*on), soft(fake).mean() + soft(-real).mean(), rtol=1e-6)
    np.testing.assert_allclose(losses.nonsaturating_generator(on[1]), soft(-fake).mean(), rtol=1e-6)
    np.testing.assert_allclose(losses.saturating_generator(on[1]), -soft(fake).mean(), rtol=1e-6)
    hinge = np.maximum(0, 1 - real).mean() + np.maximum(0, 1 + fake).mean()
    np.testing.assert_allclose(losses.hinge_discriminator(*on), hinge, rtol=1e-6)
    np.testing.assert_allclose(losses.drift(on[0]), (real**2).mean(), rtol=1e-6)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 4, 1)), jnp.float32)
    found = losses.squared_slopes(lambda x: jnp.sum(x**2, (1, 2, 3)), images)
    np.testing.assert_allclose(found, (4 * np.asarray(images) ** 2).sum((1, 2, 3)), rtol=1e-5)


def test_wrong_inputs_are_refused_with_what_is_expected():
    params, state = filled(TINY)
    with pytest.raises(ValueError, match="resolution 96: .* power of two"):
        stylegan.channel_widths(96)
    with pytest.raises(ValueError, match="scaling 'none'.*'folded'"):
        dataclasses.replace(TINY, scaling="none")
    with pytest.raises(ValueError, match="without mapping layers w is the 4 values .* w_size is 5"):
        dataclasses.replace(TINY, mapping_layers=0, latent_size=4)
    with pytest.raises(ValueError, match=r"latents of shape \(2, 4\).*\[N, 5\]"):
        stylegan.map_latents(TINY, params, jnp.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"codes of shape \(2, 14, 5\).*\[N, 6, 5\]"):
        stylegan.synthesise(TINY, params, jnp.zeros((2, 14, 5)), state["noise"])
    with pytest.raises(ValueError, match="level 2 with fade 0.5: a 16 px generator goes from 0 to 2"):
        stylegan.synthesise(TINY, params, jnp.zeros((2, 6, 5)), state["noise"], level=2, fade=0.5)
    with pytest.raises(ValueError, match="no activation 'layer06'"):
        stylegan.activations(TINY, params, jnp.zeros((2, 6, 5)), state["noise"], ["layer06"])
    network = stylegan_discriminator.Discriminator(TINY.widths, 8, label_size=3)
    scored: dict = {}  # refused before it is read
    with pytest.raises(ValueError, match="labels of shape None"):
        stylegan_discriminator.scores(network, scored, jnp.zeros((4, 16, 16, 3)))
    with pytest.raises(ValueError, match=r"images of shape \(4, 32, 32, 3\); expected \[N, 16, 16, 3\]"):
        stylegan_discriminator.scores(network, scored, jnp.zeros((4, 32, 32, 3)))
    with pytest.raises(ValueError, match="6 images in groups of 4"):
        stylegan_discriminator.minibatch_deviation(jnp.zeros((6, 4, 4, 2)))


def test_variables_that_do_not_fit_are_refused_by_name(golden):
    with np.load(golden / "stylegan_cond_vars.npz") as file:
        variables = {key.removeprefix("Gs/"): file[key] for key in file.files if key.startswith("Gs/")}
    read = stylegan_variables.read_generator
    with pytest.raises(ValueError, match="variable 'G_synthesis/8x8/Conv1/bias' is missing"):
        read({key: array for key, array in variables.items() if key != "G_synthesis/8x8/Conv1/bias"})
    with pytest.raises(ValueError, match=r"G_synthesis/noise3 has shape \(1, 1, 4, 4\); expected \(1, 1, 8, 8\)"):
        read(variables | {"G_synthesis/noise3": np.zeros((1, 1, 4, 4))})
    with pytest.raises(ValueError, match="1 variables are not this network's, the first is 'G_synthesis/4x4/Conv/mod_weight'"):
        read(variables | {"G_synthesis/4x4/Conv/mod_weight": np.zeros(3)})
    with pytest.raises(ValueError, match="not the variables of a StyleGAN discriminator: '4x4/Conv/weight' is not among lod"):
        stylegan_variables.read_discriminator(variables)
    with pytest.raises(ValueError, match=r"Const/const has shape \(16, 4, 4\); expected \(1, 16, 4, 4\)"):
        read(variables | {"G_synthesis/4x4/Const/const": np.zeros((16, 4, 4))})
