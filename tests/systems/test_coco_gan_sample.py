"""Sampling COCO-GAN: every way to make a part, a larger canvas or a chunk gives the same pixels as the whole image."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_coco_gan import filled

from jaxgan import coords
from jaxgan.systems import coco_gan_sample as sampling
from jaxgan.systems.coco_gan import Config

CONFIG = Config((16, 24), (8, 16), (4, 4), channels=1, latent=8, g_width=4, d_width=2, aux_width=4, content_weight=1.0, ema=1.0)
CYLINDER = dataclasses.replace(CONFIG, coordinates="cylindrical", channels=4)
TRAINED = {config: sampling.generator_of(filled(config.system())) for config in (CONFIG, CYLINDER)}
LATENTS = np.asarray(np.random.default_rng(1).uniform(-1, 1, (2, 8)), np.float32)


@pytest.fixture(scope="module")
def images():
    return np.asarray(sampling.full_images(CONFIG, TRAINED[CONFIG], LATENTS))


@pytest.fixture(scope="module")
def panoramas():
    return np.asarray(sampling.full_images(CYLINDER, TRAINED[CYLINDER], LATENTS))


@pytest.fixture(scope="module")
def enlarged():
    return np.asarray(sampling.full_images(CONFIG, TRAINED[CONFIG], LATENTS, (1, 2)))


def test_images_have_content(images, panoramas):
    """Otherwise the comparisons below would hold for anything: patches differ from each other, and images with the latent."""
    assert images.shape == (2, 16, 24, 1) and panoramas.shape == (2, 16, 24, 4)
    for found, config in ((images, CONFIG), (panoramas, CYLINDER)):
        patches = np.asarray(coords.split(found, config.geometry().per_full))
        apart = [np.abs(patches[0, i] - patches[0, j]).max() for i in range(24) for j in range(i)]
        assert min(apart) > 1e-3 and np.abs(found[0] - found[1]).max() > 0.1 and np.abs(found).max() < 1


@pytest.mark.parametrize("area", [(4, 8, 8, 4), (3, 5, 7, 10)])
def test_a_box_is_the_crop_of_the_image(images, area):
    top, left, height, width = area
    found = sampling.box(CONFIG, TRAINED[CONFIG], LATENTS, area)
    np.testing.assert_allclose(found, images[:, top : top + height, left : left + width], atol=1e-6)


def test_a_box_beyond_the_border_is_the_crop_of_the_enlarged_image(enlarged):
    found = sampling.box(CONFIG, TRAINED[CONFIG], LATENTS, (-3, -5, 9, 7))
    np.testing.assert_allclose(found, enlarged[:, 1:10, 3:10], atol=1e-6)


def test_a_panorama_started_elsewhere_is_the_rolled_panorama(panoramas):
    """A box as wide as the panorama, from column 5: across the seam, and no patch starts where it does."""
    found = sampling.box(CYLINDER, TRAINED[CYLINDER], LATENTS, (0, 5, 16, 24))
    np.testing.assert_allclose(found, np.roll(panoramas, -5, 2), atol=1e-5)


def test_a_box_without_area_is_refused():
    with pytest.raises(ValueError, match=r"\(0, 0, 0, 4\).*must be positive"):
        sampling.box(CONFIG, TRAINED[CONFIG], LATENTS, (0, 0, 0, 4))


def test_the_centre_of_an_enlarged_image_is_the_image(images, enlarged):
    assert enlarged.shape == (2, 24, 40, 1)
    np.testing.assert_allclose(enlarged[:, 4:-4, 8:-8], images, atol=1e-6)
    np.testing.assert_array_equal(sampling.full_images(CONFIG, TRAINED[CONFIG], LATENTS, (0, 0)), images)


def test_panoramas_grow_up_and_down_only(panoramas):
    found = sampling.full_images(CYLINDER, TRAINED[CYLINDER], LATENTS, (1, 0))
    np.testing.assert_allclose(found[:, 4:-4], panoramas, atol=1e-6)
    with pytest.raises(ValueError, match="no left and right border"):
        sampling.full_images(CYLINDER, TRAINED[CYLINDER], LATENTS, (0, 1))


def test_patches_in_chunks_are_the_same_image(images):
    """48 patches in chunks of 5, the last one shorter."""
    np.testing.assert_allclose(sampling.full_images(CONFIG, TRAINED[CONFIG], LATENTS, chunk=5), images, atol=1e-6)


def canvas_of(pieces, height: int, width: int) -> np.ndarray:
    canvas, seen = np.zeros((height, width, 1), int), np.zeros((height, width), int)
    for top, left, patch in pieces:
        assert patch.dtype == np.uint8
        canvas[top : top + 4, left : left + 4] = patch
        seen[top : top + 4, left : left + 4] += 1
    np.testing.assert_array_equal(seen, 1)
    return canvas


def test_a_streamed_canvas_is_the_image_made_at_once(images, enlarged):
    for expected, beyond in ((images[0], (0, 0)), (enlarged[0], (1, 2))):
        pieces = sampling.stream(CONFIG, TRAINED[CONFIG], LATENTS[0], beyond, chunk=7)
        canvas = canvas_of(pieces, *expected.shape[:2])
        exact = (np.float64(expected) + 1) * 127.5
        assert np.abs(canvas - exact).max() < 0.5 + 1e-3  # the nearest byte


def test_a_stream_takes_a_latent_for_each_patch_number():
    varying = np.asarray(np.random.default_rng(2).uniform(-1, 1, (24, 8)), np.float32)
    expected = np.asarray(sampling.full_images(CONFIG, TRAINED[CONFIG], np.stack([varying, varying])))[0]
    canvas = canvas_of(sampling.stream(CONFIG, TRAINED[CONFIG], lambda number: varying[number], chunk=7), 16, 24)
    assert np.abs(canvas - (expected + 1) * 127.5).max() < 0.501


def test_memory_of_a_stream_does_not_grow_with_the_canvas():
    def peak(beyond):
        most, count = 0, 0
        for _ in sampling.stream(CONFIG, TRAINED[CONFIG], LATENTS[0], beyond, chunk=7):
            most, count = max(most, sum(array.nbytes for array in jax.live_arrays())), count + 1
        return most, count

    (small, few), (large, many) = peak((0, 0)), peak((10, 10))
    assert (few, many) == (24, 24 * 26) and large <= small
    assert sampling._compiled_patches(CONFIG)._cache_size() == 1  # one program of 7 patches served both canvases


def test_equal_latents_everywhere_are_the_image_and_one_patch_changes_alone(images):
    varying = np.repeat(LATENTS[:, None], 24, 1)
    np.testing.assert_allclose(sampling.full_images(CONFIG, TRAINED[CONFIG], varying), images, atol=1e-6)
    varying[0, 9] = LATENTS[1]  # patch 9 of columns of 4: row 1, column 2
    found = np.asarray(sampling.full_images(CONFIG, TRAINED[CONFIG], varying))
    changed = np.abs(found - images).max(-1) > 1e-6
    assert changed[0, 4:8, 8:12].any()
    changed[0, 4:8, 8:12] = False
    assert not changed.any()
    np.testing.assert_allclose(found[0, 4:8, 8:12], images[1, 4:8, 8:12], atol=1e-6)
    with pytest.raises(ValueError, match=r"\(2, 23, 8\).*\[n, 24, z\]"):
        sampling.full_images(CONFIG, TRAINED[CONFIG], varying[:, :23])


def test_any_coordinate_is_legal_and_lattice_points_are_patches(images):
    near = np.float32(0.2 + 1e-3)
    at = np.array([[-1, -1], [1, 0.2], [1 / 3, -0.6], [0.123, 0.456], [1, near], [5, -7], [0, 0]], np.float32)
    make = jax.jit(lambda trained, latents, at: sampling.patches(CONFIG, trained, latents, at))
    found = np.asarray(make(TRAINED[CONFIG], np.repeat(LATENTS[:1], 7, 0), at))
    for patch, (row, column) in zip(found, [(0, 0), (12, 12), (8, 4)], strict=False):
        np.testing.assert_allclose(patch, images[0, row : row + 4, column : column + 4], atol=1e-6)
    assert np.isfinite(found).all() and 0 < np.abs(found[4] - found[1]).max() < 0.05  # a small move changes little


def test_walks_keep_their_ends_and_the_arc():
    start, end = np.array([3.0, 0, 0], np.float32), np.array([0, 3.0, 0], np.float32)
    straight, arc = sampling.walk(start, end, 5), sampling.walk(start, end, 5, spherical=True)
    for found in (straight, arc):
        np.testing.assert_allclose(found[jnp.array([0, -1])], [start, end], atol=1e-6)
    np.testing.assert_allclose(straight[2], [1.5, 1.5, 0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(arc, axis=1), 3.0, rtol=1e-6)
    np.testing.assert_allclose(arc @ start / 9, np.cos(np.linspace(0, np.pi / 2, 5)), atol=1e-6)
    np.testing.assert_allclose(sampling.walk(start, start, 3, spherical=True), [start] * 3, atol=1e-6)
    with pytest.raises(ValueError, match="walk of 1 steps"):
        sampling.walk(start, end, 1)


def test_a_blend_goes_from_the_left_latent_to_the_right_one():
    found = np.asarray(sampling.blend_latents(CONFIG, LATENTS[:1], LATENTS[1:], (1, 2))).reshape(10, 6, 8)  # columns, rows, z
    share = np.linspace(0, 1, 10)[:, None, None]
    np.testing.assert_allclose(found, np.broadcast_to((1 - share) * LATENTS[0] + share * LATENTS[1], found.shape), atol=1e-6)


@pytest.fixture(scope="module")
def macro():
    return np.asarray(np.random.default_rng(3).uniform(-1, 1, (2, 8, 16, 1)), np.float32)


def test_guided_images_are_made_of_the_guessed_latents(macro):
    """The published code guesses the latents and then renders others."""
    guess = np.asarray(sampling.guess_latents(CONFIG, TRAINED[CONFIG], macro))
    assert guess.shape == (2, 8) and np.abs(guess).max() <= 1 and np.abs(guess[0] - guess[1]).max() > 0.01
    guided = np.asarray(sampling.guided(CONFIG, TRAINED[CONFIG], macro))
    np.testing.assert_allclose(guided, sampling.full_images(CONFIG, TRAINED[CONFIG], guess), atol=1e-6)
    pasted = np.array(sampling.guided(CONFIG, TRAINED[CONFIG], macro, (5, 8)))
    np.testing.assert_array_equal(pasted[:, 5:13, 8:24], macro)
    pasted[:, 5:13, 8:24] = guided[:, 5:13, 8:24]
    np.testing.assert_array_equal(pasted, guided)
    with pytest.raises(ValueError, match=r"8x16 px pasted at \(5, 9\) leaves the image of 16x24 px"):
        sampling.guided(CONFIG, TRAINED[CONFIG], macro, (5, 9))


def test_guessing_without_a_content_head_names_the_remedy(macro):
    with pytest.raises(ValueError, match="content_weight > 0"):
        sampling.guess_latents(dataclasses.replace(CONFIG, content_weight=0.0), TRAINED[CONFIG], macro)


def test_the_averaged_generator_makes_the_samples():
    system = CONFIG.system()
    state = filled(system)
    state = state._replace(ema={"G": filled(system, 1).params["G"]})
    key = jax.random.key(7)
    found = system.sample(state, key, 2)
    latents = jax.random.uniform(key, (2, 8), jnp.float32, -1, 1)
    averaged = sampling.full_images(CONFIG, sampling.Trained({**state.params, **state.ema}, state.model), latents)
    last = sampling.full_images(CONFIG, sampling.Trained(state.params, state.model), latents)
    np.testing.assert_array_equal(found, averaged)
    assert np.abs(np.asarray(found) - np.asarray(last)).max() > 0.01


def test_bytes_are_the_nearest_and_ends_stay():
    values = np.array([-1.2, -1, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 0.9999, 1, 1.5], np.float32)
    np.testing.assert_array_equal(sampling.to_bytes(values), [0, 0, 0, 1, 255, 255, 255])
    every = np.arange(256, dtype=np.float32) / 127.5 - 1
    np.testing.assert_array_equal(sampling.to_bytes(every), np.arange(256))
