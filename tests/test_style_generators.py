"""One tuple for every style-based generator: it is the family's own network, and pictures of it are what the network computes."""

import jax
import numpy as np
import pytest
import style_toy

from jaxgan import generators
from jaxgan.nets import mobile_stylegan, stylegan
from jaxgan.style_generators import of_mobile_stylegan, of_stylegan, open_style_generator, renderer, style_generator


@pytest.fixture(scope="module")
def toy():
    return style_toy.networks()


@pytest.fixture(scope="module")
def small():
    layout = mobile_stylegan.Layout(widths=(8, 8, 4), latent_size=6, w_size=5, mapping_layers=2)
    params, noise = mobile_stylegan.init(layout, jax.random.key(1))
    return params, {"w_avg": np.arange(5, dtype=np.float32), "noise": noise}


@pytest.fixture(scope="module", params=["stylegan", "mobile_stylegan"])
def generator(request, toy, small):
    return of_stylegan(*toy, "d") if request.param == "stylegan" else of_mobile_stylegan(*small, "d")


@pytest.fixture(scope="module")
def codes(generator):
    z = np.random.default_rng(2).normal(size=(5, generator.latent_size)).astype(np.float32)
    return generator.extend(jax.jit(generator.map_latents)(generator.arrays, z))


@pytest.fixture(scope="module")
def images(generator, codes):
    return np.asarray(jax.jit(generator.synthesise)(generator.arrays, codes, generator.noise(generator.arrays)))


def test_the_image_can_be_made_from_any_of_its_activations(generator, codes, images):
    noise = generator.noise(generator.arrays)
    assert (
        images.shape == (5, generator.resolution, generator.resolution, 3) and len(generator.row_sides) == generator.rows == codes.shape[1]
    )
    for name in (generator.activation_names[0], generator.activation_names[-2]):

        @jax.jit
        def through(arrays, name=name):
            activation = generator.activations(arrays, codes, noise, (name,))[name]
            return generator.resume(arrays, (name, activation), codes, noise)

        again = through(generator.arrays)
        np.testing.assert_allclose(again, images, atol=1e-5 * float(np.abs(images).max()))
    with pytest.raises(ValueError, match="'layer77'"):
        generator.resume(generator.arrays, ("layer77", images), codes, noise)


def test_folded_kernels_draw_what_the_trained_ones_draw(toy):
    network, params, state = toy
    found = of_stylegan(*toy)
    z = np.random.default_rng(3).normal(size=(2, 6)).astype(np.float32)

    @jax.jit
    def both(arrays, params):
        codes = found.extend(found.map_latents(arrays, z))
        return found.synthesise(arrays, codes, found.noise(arrays)), stylegan.generate(network, params, state, z, psi=None)

    np.testing.assert_allclose(*both(found.arrays, params), rtol=1e-4, atol=1e-4)


def test_pictures_are_the_same_in_whatever_blocks_and_shrink_by_area(generator, codes, images):
    full = renderer(generator, batch=5)(codes)
    assert np.abs(full - np.clip((images + 1) * 127.5, 0, 255)).max() < 0.51
    assert np.abs(renderer(generator, batch=2)(codes).astype(int) - full).max() <= 1
    side = generator.resolution // 4
    area = images.reshape(5, side, 4, side, 4, 3).mean((2, 4))
    shrunk = renderer(generator, batch=2, resolution=side)(codes)
    assert np.abs(shrunk - np.clip((area + 1) * 127.5, 0, 255)).max() < 0.51
    with pytest.raises(ValueError, match="resolution 12 does not divide"):
        renderer(generator, resolution=12)


def test_every_picture_gets_its_own_noise(generator, codes):
    noise = {
        name: np.random.default_rng(4).normal(size=(3, *a.shape)).astype(np.float32)
        for name, a in generator.noise(generator.arrays).items()
    }
    together = renderer(generator, batch=2)(codes[:3], noise)
    for i in range(3):
        alone = renderer(generator, batch=1)(codes[i : i + 1], {name: array[i] for name, array in noise.items()})
        assert np.abs(together[i].astype(int) - alone[0]).max() <= 1


def test_the_averaged_network_of_a_run_is_the_one_that_is_opened(toy, tmp_path):
    network, params, state = toy
    opened = open_style_generator(style_toy.write_folder(tmp_path / "g"))
    assert opened.family == "stylegan" and (opened.rows, opened.w_size, opened.resolution) == (6, 5, 16)
    np.testing.assert_array_equal(opened.w_avg(opened.arrays), state["w_avg"])
    generator = generators.open_generator(tmp_path / "g")
    assert opened.digest == generators.digest(generator)
    averaged = {name.replace("params/", "ema/"): array * 2 for name, array in generator.arrays.items() if name.startswith("params/")}
    other = style_generator(generator._replace(arrays={**generator.arrays, **averaged}))
    expected = stylegan.freeze(network, jax.tree.map(lambda a: a * 2, params))[1]
    jax.tree.map(np.testing.assert_array_equal, other.arrays["params"], expected)


def test_a_run_that_still_grows_draws_at_the_level_it_has_reached(toy, tmp_path):
    network, params, state = toy
    opened = open_style_generator(style_toy.write_folder(tmp_path / "g", lod=0.25))
    codes = np.random.default_rng(5).normal(size=(2, 6, 5)).astype(np.float32)
    drawn = jax.jit(opened.synthesise)(opened.arrays, codes, opened.noise(opened.arrays))
    expected = jax.jit(lambda params: stylegan.synthesise(network, params, codes, state["noise"], level=0, fade=0.25))(params)
    np.testing.assert_allclose(drawn, expected, rtol=1e-4, atol=1e-4)
    assert opened.activation_names[-1] == "layer03"


def test_what_has_no_styles_is_refused(toy, tmp_path):
    generator = generators.open_generator(style_toy.write_folder(tmp_path / "g"))
    with pytest.raises(
        ValueError, match="a run is of the family coco_gan, which has no styles; those with styles: stylegan, mobile_stylegan"
    ):
        style_generator(generator._replace(family="coco_gan"), "a run")
    arrays = dict(generator.arrays)
    arrays["params/G/synthesis/layer01/bias"] = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"synthesis/layer01/bias is \(3,\), it should be \(8,\)"):
        style_generator(generator._replace(arrays=arrays))
    with pytest.raises(ValueError, match="holds no network G"):
        style_generator(generator._replace(arrays={}))
