"""Units of a layer: without them, with them alone, with others in their place; where they are active, and which images excite them."""

import chain_toys
import jax
import numpy as np
import pytest

from jaxgan import chains, dissection
from jaxgan.nets import mobile_stylegan, stylegan

UNITS = [1, 4, 5]


@pytest.fixture(scope="module")
def chain():
    return chains.of_style(chain_toys.style_generator("stylegan"))


@pytest.fixture(scope="module")
def codes(chain):
    return np.asarray(jax.jit(chain.draw)(chain.arrays, np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)))


@pytest.fixture(scope="module")
def found(chain, codes):
    return dissection.activations(chain, "layer03", codes, batch=2)


def edited(chain, codes, edits):
    return np.asarray(jax.jit(lambda arrays: chain.run(arrays, codes, edits=edits)[0])(chain.arrays))


def test_a_generator_without_units_is_one_whose_next_kernels_do_not_read_them(chain, codes):
    """A convolution without bias: zero inputs and zero rows of the kernel are the same."""
    import style_toy

    network, params, state = style_toy.networks()

    def cut(units):
        layer = params["synthesis"]["layer04"]
        kernel = np.array(layer["kernel"])
        kernel[:, :, units] = 0
        changed = {**params, "synthesis": {**params["synthesis"], "layer04": {**layer, "kernel": kernel}}}
        return np.asarray(jax.jit(lambda changed: stylegan.synthesise(network, changed, codes, state["noise"]))(changed))

    others = [unit for unit in range(8) if unit not in UNITS]
    for edits, units in ((dissection.zero(chain, "layer03", UNITS), UNITS), (dissection.keep(chain, "layer03", UNITS), others)):
        np.testing.assert_allclose(edited(chain, codes, edits), cut(units), rtol=1e-4, atol=1e-4)
    assert dissection.keep(chain, "layer03", range(8)) == {}


def test_units_of_depthwise_layers_too():
    generator = chain_toys.style_generator("mobile_stylegan")
    chain = chains.of_style(generator)
    codes = np.random.default_rng(1).normal(size=(2, *chain.latent)).astype(np.float32)
    params = generator.arrays["params"]
    layer = params["synthesis"]["layer0_conv2"]
    taps = np.array(layer["depthwise"])
    taps[:, :, UNITS] = 0
    changed = {**params, "synthesis": {**params["synthesis"], "layer0_conv2": {**layer, "depthwise": taps}}}
    expected = jax.jit(lambda p: mobile_stylegan.synthesise(p, codes, generator.arrays["noise"]))(changed)
    assert taps.shape[2] == 8
    np.testing.assert_allclose(edited(chain, codes, dissection.zero(chain, "layer0_conv1", UNITS)), expected, rtol=1e-4, atol=1e-5)


def test_units_are_replaced_where_the_mask_says_and_edits_follow_each_other(chain, found):
    x = found[:2]
    where = np.zeros((8, 8), bool)
    where[2:5, 3:] = True
    values = np.float32([7, 8, 9])
    expected = x.copy()
    for unit, value in zip(UNITS, values, strict=True):
        expected[:, 2:5, 3:, unit] = value

    def apply(edits):
        return np.asarray(jax.jit(edits["layer03"])(x))

    np.testing.assert_array_equal(apply(dissection.replace(chain, "layer03", UNITS, values, where)), expected)
    other = found[2:4][..., UNITS]
    exchanged = x.copy()
    exchanged[..., UNITS] = other
    np.testing.assert_array_equal(apply(dissection.replace(chain, "layer03", UNITS, other)), exchanged)
    half = np.full((2, 8, 8), 0.25, np.float32)
    np.testing.assert_allclose(apply(dissection.zero(chain, "layer03", [0], half))[..., 0], 0.75 * x[..., 0], rtol=1e-6, atol=1e-6)
    both = dissection.together(
        dissection.replace(chain, "layer03", [0, 1], 3.0), dissection.zero(chain, "layer03", [1]), dissection.zero(chain, "layer05", [0])
    )
    assert list(both) == ["layer03", "layer05"]
    assert (apply(both)[..., :2] == [3, 0]).all() and (apply(both)[..., 2:] == x[..., 2:]).all()


def test_activations_are_those_of_each_image_in_whatever_blocks(chain, codes, found):
    alone = np.asarray(jax.jit(lambda arrays: chain.run(arrays, codes[3:4], keep=("layer03",))[1]["layer03"])(chain.arrays))
    np.testing.assert_allclose(found[3:4], alone, rtol=1e-5, atol=1e-5)
    assert found.shape == (5, 8, 8, 8)
    np.testing.assert_allclose(
        dissection.activations(chain, "layer03", codes, batch=3, reduce=dissection.peaks), found.max((1, 2)), rtol=1e-5
    )


def test_heat_runs_between_quantiles_of_the_unit_and_masks_hold_its_top_twentieth(found):
    unit = found[..., 2]
    low, high = dissection.limits(found)[:, 2]
    ordered = np.sort(unit.ravel())
    assert ordered[2] <= low <= ordered[4] and ordered[-5] <= high <= ordered[-3]  # 1 % of 320 values
    assert (dissection.limits(found, None)[:, 2] == (unit.min(), unit.max())).all()
    heat = dissection.heat_maps(unit, low, high)
    np.testing.assert_allclose(heat, np.clip((unit - low) / (high - low), 0, 1), rtol=1e-6)
    assert dissection.masks(unit, dissection.thresholds(found)[2]).sum() == 16
    assert np.isfinite(dissection.heat_maps(np.zeros((2, 2)), 0.0, 0.0)).all()


def test_maps_are_enlarged_as_images_are():
    maps = np.random.default_rng(4).normal(size=(2, 3, 4)).astype(np.float32)
    expected = jax.image.resize(maps, (2, 10, 12), "bilinear")
    np.testing.assert_allclose(dissection.enlarge(maps, (10, 12)), expected, rtol=1e-5, atol=1e-6)
    assert dissection.masks(maps, 0.0, (10, 12)).shape == (2, 10, 12)


def test_the_images_and_units_that_answer_most_come_first():
    peaks = np.float32([[1, 5, 2], [3, 0, 2], [3, 9, 1]])
    assert dissection.top_images(peaks, 0).tolist() == [1, 2, 0] and dissection.top_images(peaks, 1, 2).tolist() == [2, 0]
    assert dissection.top_units(peaks, 2, 2).tolist() == [1, 0]
    assert dissection.top_units(peaks, 2, spread=np.float32([1, 100, 0.5])).tolist() == [0, 2, 1]


def test_a_sheet_shows_image_heat_and_active_part_in_columns():
    activations = np.zeros((3, 2, 2, 4), np.float32)
    activations[1, 0, 0, 3], activations[2, 1, 1, 3] = 2.0, 5.0
    images = np.full((3, 16, 16, 3), 200, np.uint8)
    images[2, ..., 0] = 100
    sheet = dissection.sheet(images, activations, 3, 2)
    assert sheet.shape == (3 * 18 - 2, 2 * 18 - 2, 3)
    assert (sheet[:16, :16] == images[2]).all() and (sheet[:16, 18:34] == images[1]).all()
    heat = sheet[18:34, :16].astype(int).sum(-1)
    assert heat[15, 15] == heat.max() > heat[0, 0] == 0
    assert (sheet[36:, :16][0, 0] == images[2, 0, 0] // 2).all() and (sheet[36:, :16][15, 15] == images[2, 0, 0]).all()
    assert dissection.colours(np.float32([0, 1 / 3, 1])).tolist() == [[0, 0, 0], [255, 0, 0], [255, 255, 255]]
    with pytest.raises(ValueError, match="3 images and activations of 2"):
        dissection.sheet(images, activations[:2], 3)


def test_what_does_not_fit_a_layer_is_refused(chain, codes):
    with pytest.raises(ValueError, match="no layer 'layer9': this generator has layer00"):
        dissection.zero(chain, "layer9", [0])
    with pytest.raises(ValueError, match="no unit 8 in layer03: it has 0 to 7"):
        dissection.keep(chain, "layer03", [2, 8])
    with pytest.raises(ValueError, match=r"units \[\] of layer03: give one or more numbers from 0 to 7"):
        dissection.zero(chain, "layer03", [])
    with pytest.raises(ValueError, match=r"a mask of shape \(4, 4\): layer03 is 8 x 8"):
        dissection.zero(chain, "layer03", [0], np.ones((4, 4)))
    with pytest.raises(ValueError, match=r"values of shape \(2,\): they do not fit 3 units of layer03"):
        dissection.replace(chain, "layer03", UNITS, np.ones(2))
    with pytest.raises(ValueError, match="no layer 'layer9'"):
        dissection.activations(chain, "layer9", codes)
    with pytest.raises(ValueError, match=r"latents of shape \(0, 6, 5\): give at least one"):
        dissection.activations(chain, "layer03", codes[:0])
