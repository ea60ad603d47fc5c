"""The image encoder against the published code, for 64 px with and without 'halfsize', and for images of other sides."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan.arrays import read_npz
from jaxgan.nets import image_encoder
from jaxgan.nets.image_encoder import ImageEncoder
from jaxgan.weights import inversion_encoder_files as files

HALVINGS = {"full": 5, "half": 4}
SMALL = (2, 2, 3, 4)
"""Widths of the stages."""
# Less time to compile, the same numbers.
COMPILER = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def assert_close(found, expected, what=""):
    """To 1e-4, and 1e-5 of the largest: the sums that end near 0 have terms of up to 100."""
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * max(1, np.abs(expected).max()), err_msg=what)


@pytest.mark.parametrize("case", HALVINGS)
def test_maps_and_statistics_are_those_of_the_published_code(shared, case):
    reference = read_npz(shared / "golden" / "seeing_resnet_encoder.npz")
    own = {name.removeprefix(f"{case}/"): array for name, array in reference.items() if name.startswith(f"{case}/")}
    state = {name.removeprefix("sd/"): array for name, array in own.items() if name.startswith("sd/")}
    encoder, params, stats = files.of_image(state, 64, 64 >> HALVINGS[case], case)
    assert encoder.halvings == HALVINGS[case] and encoder.widths == (2, 4, 8, 16)
    images = np.moveaxis(own["x"], 1, -1)

    def compute(x):
        return image_encoder.stages(encoder, params, stats, x), image_encoder.apply(encoder, params, stats, x, train=True)

    (maps, unchanged), (y, new) = jax.jit(compute, compiler_options=COMPILER)(images)
    jax.tree.map(np.testing.assert_array_equal, unchanged, stats)
    theirs = {"stem": "relu", "pool": "maxpool", "head": "layer5"} | {f"stage{k}": f"layer{k}" for k in range(1, 5)}
    assert maps.keys() == theirs.keys()
    for name, other in theirs.items():
        assert_close(maps[name], np.moveaxis(own[f"act_eval/{other}"], 1, -1), name)
    assert_close(y, np.moveaxis(own["y_train"], 1, -1))
    running = {files.image_name((name, part)): array for name, parts in new.items() for part, array in parts.items()}
    expected = {name.removeprefix("sd_after_train_fwd/"): array for name, array in own.items() if name.startswith("sd_after_train_fwd/")}
    assert running.keys() == expected.keys()
    for name, array in running.items():
        assert_close(array, expected[name], name)


@pytest.mark.parametrize(
    "image, target, ones",
    [
        ((32, 32, 3), (8, 8, 6), {"pool", "stem", "stage2"}),
        ((64, 64, 3), (8, 8, 6), {"pool", "stem"}),
        ((128, 128, 3), (8, 8, 6), {"pool"}),
        ((256, 256, 3), (8, 8, 6), set()),
        ((512, 512, 3), (8, 8, 6), set()),
        ((32, 96, 3), (4, 12, 6), {"pool", "stem"}),
        ((8, 8, 3), (8, 8, 6), {"pool", "stem", "stage2", "stage3", "stage4"}),
    ],
)
def test_images_of_every_side_give_the_map_of_r(image, target, ones):
    encoder = image_encoder.between(image, target, SMALL)
    assert {place for place in ("stem", "pool", "stage2", "stage3", "stage4") if encoder.stride(place) == 1} == ones
    params, stats = jax.eval_shape(lambda key: image_encoder.init(encoder, key), jax.random.key(0))
    images = jax.ShapeDtypeStruct((2, *image), jnp.float32)
    found, new = jax.eval_shape(lambda p, s, x: image_encoder.apply(encoder, p, s, x, train=True), params, stats, images)
    assert found.shape == (2, *target)
    jax.tree.map(lambda a, b: a.shape == b.shape or pytest.fail(f"{a.shape} became {b.shape}"), stats, new)


def test_one_set_of_arrays_serves_every_side():
    shapes = [image_encoder.kernel_shapes(ImageEncoder(6, halvings, (4, 4, 4, 4))) for halvings in range(9)]
    assert all(shape == shapes[0] for shape in shapes)
    assert [name for name in shapes[0] if "shortcut" in name] == ["stage2.0.shortcut", "stage3.0.shortcut", "stage4.0.shortcut"]


def test_an_image_of_more_than_five_halvings_is_averaged_first():
    encoder, larger = ImageEncoder(6, 5, SMALL), ImageEncoder(6, 6, SMALL)
    images = np.random.default_rng(1).normal(size=(1, 64, 64, 3)).astype(np.float32)
    shapes = jax.eval_shape(lambda: image_encoder.init(encoder, jax.random.key(0)))
    params, stats = jax.tree.map(lambda leaf: np.random.default_rng(2).uniform(0.1, 1, leaf.shape).astype(np.float32), shapes)

    def compute(images, averaged):
        return image_encoder.apply(larger, params, stats, images)[0], image_encoder.apply(encoder, params, stats, averaged)[0]

    found, expected = jax.jit(compute, compiler_options=COMPILER)(images, images.reshape(1, 32, 2, 32, 2, 3).mean((2, 4)))
    assert_close(found, np.asarray(expected))


def test_sizes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"from \(96, 96, 3\) to \(8, 8, 6\)"):
        image_encoder.between((96, 96, 3), (8, 8, 6))
    with pytest.raises(ValueError, match="power of two"):
        image_encoder.between((256, 768, 3), (8, 8, 6))
    with pytest.raises(ValueError, match="power of two"):
        image_encoder.between((4, 4, 3), (8, 8, 6))
    encoder = ImageEncoder(6, 3, SMALL)
    with pytest.raises(ValueError, match=r"\(1, 36, 36, 3\); .* sides that 8 divides"):
        image_encoder.apply(encoder, {}, {}, np.zeros((1, 36, 36, 3), np.float32))
