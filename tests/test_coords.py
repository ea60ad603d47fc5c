"""Coordinates against the published code's grids, and the properties that hold a canvas together."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgan import coords

GRIDS = [
    "CelebAHQ_1024x1024_N2M2S512/base", "CelebA_128x128_N16M16S64/base", "CelebA_128x128_N2M2S64/base", "CelebA_128x128_N4M4S64/base",
    "CelebA_128x128_N2M2S64_PatchGuidedGeneration/base", "CelebA_128x128_N8M8S64/base", "CelebA_64x64_N2M2S32/base",
    "LSUN_256x256_N2M2S128/base", "LSUN_256x256_N2M2S128_Extrapolation/base", "LSUN_256x256_N2M2S128_Extrapolation/extrap1",
    "LSUN_64x64_N2M2S32/base", "MP3D_256x768_N2M2S128/base",
]  # fmt: skip


@pytest.mark.parametrize("name", GRIDS)
def test_grids_equal_the_published_code(golden, name):
    grids = np.load(golden / "cocogan_coordinate_grids.npz", allow_pickle=False)
    meta = json.loads(str(grids[f"{name}/meta"]))
    geometry = coords.Geometry(*(tuple(meta[k]) for k in ("full", "macro", "micro")), meta["system"] == "cylindrical")
    beyond = meta["extrap"]
    corner = coords.macro_corners(geometry, beyond)
    np.testing.assert_array_equal(corner // np.asarray(geometry.micro) + beyond, grids[f"{name}/macro_index"])
    np.testing.assert_allclose(coords.coordinates(geometry, corner, geometry.macro), grids[f"{name}/macro_coord"], atol=1e-6)
    inside = coords.corners_inside(geometry, corner)
    np.testing.assert_allclose(coords.coordinates(geometry, inside, geometry.micro), grids[f"{name}/micro_coord_in_macro"], atol=1e-6)
    full = coords.full_grid(geometry, (beyond, beyond))
    np.testing.assert_allclose(coords.coordinates(geometry, full, geometry.micro), grids[f"{name}/full_micro_coord"], atol=1e-6)
    if not beyond:
        wrapped = np.asarray(inside) % [geometry.full[0], geometry.full[1]]
        np.testing.assert_array_equal(wrapped, grids[f"{name}/crop_top_left"])


@pytest.mark.parametrize("cylindrical", [False, True])
def test_corners_of_inverts_coordinates(cylindrical):
    geometry = coords.Geometry((48, 96), (32, 48), (16, 16), cylindrical)
    corner = np.asarray([[0, 0], [16, 33], [7, 48], [16, 95 if cylindrical else 48]])
    for size in (geometry.macro, geometry.micro):
        back = coords.corners_of(geometry, coords.coordinates(geometry, corner, size), size)
        np.testing.assert_allclose(back, corner, atol=1e-3)


@pytest.mark.parametrize("count", [(2, 3), (3, 1), (1, 4)])
def test_assemble_inverts_split_and_goes_column_by_column(count):
    rows, columns = count
    images = np.random.default_rng(0).normal(size=(2, rows * 4, columns * 5, 2)).astype(np.float32)
    patches = coords.split(jnp.asarray(images), count)
    np.testing.assert_array_equal(coords.assemble(patches, count), images)
    for row in range(rows):
        for column in range(columns):
            expected = images[:, row * 4 : row * 4 + 4, column * 5 : column * 5 + 5]
            np.testing.assert_array_equal(patches[:, column * rows + row], expected)


def test_gradient_of_assembly_is_the_inverse_scatter():
    count = (2, 3)
    weights = jax.random.normal(jax.random.key(0), (1, 8, 12, 1))
    gradient = jax.grad(lambda patches: (coords.assemble(patches, count) * weights).sum())(jnp.zeros((1, 6, 4, 4, 1)))
    np.testing.assert_array_equal(gradient, coords.split(weights, count))


@pytest.mark.parametrize("cylindrical", [False, True])
def test_macro_crop_equals_its_micro_crops_put_together(cylindrical):
    geometry = coords.Geometry((32, 64), (16, 32), (8, 8), cylindrical)
    images = np.random.default_rng(1).integers(0, 255, (6, 32, 64, 3), dtype=np.uint8)
    corner = np.asarray([[0, 0], [8, 32], [16, 24], [3, 5], [16, 60 if cylindrical else 32], [0, 56 if cylindrical else 8]])
    whole = coords.crop_on_host(images, corner, geometry.macro, cylindrical)
    on_device = coords.crop(jnp.asarray(images), jnp.asarray(corner), geometry.macro, cylindrical)
    np.testing.assert_array_equal(on_device, whole)
    inside = np.asarray(coords.corners_inside(geometry, corner))
    pieces = np.stack([coords.crop_on_host(images, inside[:, q], geometry.micro, cylindrical) for q in range(inside.shape[1])], 1)
    np.testing.assert_array_equal(coords.assemble(jnp.asarray(pieces), geometry.per_macro), whole)


def test_a_crop_across_the_seam_wraps():
    images = np.arange(2 * 4 * 10).reshape(2, 4, 10, 1)
    crop = coords.crop_on_host(images, np.asarray([[0, 8], [1, 9]]), (3, 4), periodic=True)
    np.testing.assert_array_equal(crop[0, 0, :, 0], [8, 9, 0, 1])
    np.testing.assert_array_equal(crop[1, 0, :, 0], [59, 50, 51, 52])


def test_micro_positions_inside_macro_patches_lie_on_the_full_grid():
    geometry = coords.Geometry((48, 80), (32, 16), (16, 16))
    inside = np.asarray(coords.corners_inside(geometry, coords.macro_corners(geometry))).reshape(-1, 2)
    grid = {tuple(corner) for corner in coords.full_grid(geometry)}
    assert {tuple(corner) for corner in inside} == grid


def test_degenerate_axes_have_coordinate_zero():
    geometry = coords.Geometry((16, 32), (16, 16), (16, 16))
    assert np.all(np.asarray(coords.coordinates(geometry, np.asarray([[0, 0], [0, 16]]), geometry.macro))[:, 0] == 0)
    assert coords.full_grid(geometry).tolist() == [[0, 0], [0, 16]]


def test_rolling_a_panorama_by_a_patch_permutes_its_patches():
    geometry = coords.Geometry((32, 64), (32, 32), (16, 16), True)
    grid = coords.coordinates(geometry, coords.full_grid(geometry), geometry.micro)
    moved = coords.coordinates(geometry, coords.full_grid(geometry) + np.asarray([0, 16]), geometry.micro)
    np.testing.assert_allclose(np.roll(np.asarray(grid), -2, 0), moved, atol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "word"),
    [(((64, 64), (32, 32), (12, 16)), "divide"), (((64, 64), (96, 32), (16, 16)), "larger"), (((64, 0), (32, 32), (16, 16)), "positive")],
)
def test_sizes_that_do_not_fit_are_refused(sizes, word):
    with pytest.raises(ValueError, match=word):
        coords.Geometry(*sizes)


def test_a_cylinder_has_no_border_to_go_beyond():
    with pytest.raises(ValueError, match="vertical"):
        coords.full_grid(coords.Geometry((32, 64), (32, 32), (16, 16), True), (1, 1))
