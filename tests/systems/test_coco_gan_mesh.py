"""COCO-GAN's step and sampling on a mesh and under pmap equal one device, and no device holds a full image or another's samples."""

from __future__ import annotations

import math
import re

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from small_coco_gan import BATCH, COMPILER, CONFIG, assert_same_step, filled, reals, step_of

from jaxgan import parallel, train
from jaxgan.systems import coco_gan, coco_gan_sample

SYSTEM = CONFIG.system()


@pytest.fixture(scope="module")
def mesh():
    return parallel.make_mesh((4, 2))


def compiled_on(mesh, batch):
    """The program that the loop runs on this mesh, and its arguments."""
    whole = NamedSharding(mesh, PartitionSpec())
    with jax.set_mesh(mesh):
        arguments = parallel.replicate(filled(SYSTEM), mesh), parallel.global_batch(reals(SYSTEM, batch), mesh, batch)
        step = jax.jit(train.step_function(SYSTEM, 0), donate_argnums=0, out_shardings=whole, compiler_options=COMPILER)
        return step.lower(*arguments).compile(), arguments


@pytest.fixture(scope="module")
def spread(mesh):
    return compiled_on(mesh, BATCH)


@pytest.fixture(scope="module")
def alone():
    """One device: the program, and what a step from the filled state gives."""
    arguments = filled(SYSTEM), reals(SYSTEM, BATCH)
    program = step_of(SYSTEM).lower(*arguments).compile()
    return program, program(*arguments)


def shapes_in(program) -> set[tuple[int, ...]]:
    """Shapes of all arrays in a compiled program, as one device holds them."""
    return {tuple(map(int, found.split(","))) for found in re.findall(r"\b[a-z]+\d+\[([\d,]+)\]", program.as_text())}


def check_shapes(program, batch: int) -> None:
    shapes = shapes_in(program)
    height, width = CONFIG.full
    images = [shape for shape in shapes if any(pair == (height, width) for pair in zip(shape, shape[1:], strict=False))]
    assert not images, f"full images on a device: {images}"
    patches = math.prod(CONFIG.geometry().per_macro)
    # one axis of an activation [n, h, w, c] as long as the whole batch of samples, of reals and fakes, or of micro patches
    whole = [shape for shape in shapes if len(shape) > 3 and {batch, 2 * batch, patches * batch} & set(shape)]
    assert not whole, f"activations of the whole batch on a device: {whole}"


def gathered(program) -> list[tuple[int, ...]]:
    """Shapes that all-gather, all-to-all and collective-permute bring together."""
    lines = re.findall(r"= (.*?) (?:all-gather|all-to-all|collective-permute)(?:-start)?\(", program.as_text())
    return [tuple(map(int, shape.split(","))) for line in lines for shape in re.findall(r"\[([\d,]+)\]", line)]


def test_step_with_samples_over_all_devices_equals_one_device(spread, alone):
    program, arguments = spread
    assert_same_step(CONFIG, program(*arguments), alone[1])


def test_no_device_holds_full_images_or_the_whole_batch(spread, alone):
    program, _ = spread
    check_shapes(program, BATCH)
    assert not gathered(program), "samples stay where they are: only sums cross between devices"
    with pytest.raises(AssertionError, match="whole batch"):
        check_shapes(alone[0], BATCH)
    parameters = max(leaf.size for leaf in jax.tree.leaves(filled(SYSTEM).params))
    largest = {name: max(math.prod(shape) for shape in shapes_in(p)) for name, p in (("mesh", program), ("alone", alone[0]))}
    assert largest["mesh"] <= max(largest["alone"] / 8, parameters)


@pytest.mark.slow
def test_step_with_patches_over_devices_equals_one_device(mesh):
    """28 samples over the four rows of the mesh, the 56 micro patches over all eight devices; assembly brings a sample's together."""
    program, arguments = compiled_on(mesh, 28)
    check_shapes(program, 28)
    per_sample = 28 // 4 * math.prod(CONFIG.macro) * CONFIG.channels
    assert gathered(program) and all(math.prod(shape) <= per_sample for shape in gathered(program))
    assert_same_step(CONFIG, program(*arguments), step_of(SYSTEM)(filled(SYSTEM), reals(SYSTEM, 28)))


@pytest.mark.slow
def test_step_under_pmap_equals_one_device(alone):
    system = coco_gan.system(CONFIG, axis_name="batch")
    batch = {name: value.reshape(8, -1, *value.shape[1:]) for name, value in reals(SYSTEM, BATCH).items()}
    step = jax.pmap(train.step_function(system, 0), axis_name="batch", in_axes=(None, 0))
    found = jax.device_get(step(filled(SYSTEM), batch))
    for leaf in jax.tree.leaves(found):
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))  # no replica drifts
    assert_same_step(CONFIG, jax.tree.map(lambda leaf: leaf[0], found), alone[1])


def test_sampling_over_patches_equals_one_device(mesh):
    """8 images of 35 patches divide over all devices."""
    trained = coco_gan_sample.generator_of(filled(SYSTEM))
    latents = coco_gan_sample.random_latents(CONFIG, 0, 8)
    expected = coco_gan_sample.full_images(CONFIG, trained, latents)
    with jax.set_mesh(mesh):
        program = coco_gan_sample.full_images.lower(CONFIG, *parallel.replicate((trained, latents), mesh)).compile()
        found = program(*parallel.replicate((trained, latents), mesh))
    assert any(shape[:1] == (35,) for shape in shapes_in(program))  # a device makes 35 of the 280 patches
    assert not any(len(shape) > 3 and shape[0] == 280 for shape in shapes_in(program))
    np.testing.assert_allclose(found, expected, atol=1e-5)
