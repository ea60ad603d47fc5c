"""Pictures: layout of grids, PNG files that are whole, and a seam statistic that sees seams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxgan import viz


def test_grid_puts_images_row_by_row_with_white_between() -> None:
    images = np.stack([np.full((4, 6, 1), value, np.uint8) for value in (10, 20, 30)])
    sheet = viz.grid(images, columns=2)
    assert sheet.shape == (10, 14, 3) and sheet.dtype == np.uint8
    assert (sheet[:4, :6] == 10).all() and (sheet[:4, 8:] == 20).all() and (sheet[6:, :6] == 30).all()
    assert (sheet[4:6] == 255).all() and (sheet[:, 6:8] == 255).all() and (sheet[6:, 8:] == 255).all()


def test_floats_become_the_nearest_of_256_values_and_are_clipped() -> None:
    values = np.asarray([-1.5, -1.0, -0.998, 0.0, 1.0, 7.0], np.float32)
    assert viz.to_uint8(values).tolist() == [0, 0, 0, 128, 255, 255]
    exact = np.arange(256, dtype=np.uint8)
    assert (viz.to_uint8(exact.astype(np.float32) / 127.5 - 1.0) == exact).all()
    with pytest.raises(ValueError, match="1 of 2 image values are not finite"):
        viz.to_uint8(np.asarray([0.0, np.nan], np.float32))
    with pytest.raises(ValueError, match="int32"):
        viz.to_uint8(np.zeros(3, np.int32))


def test_png_reads_back_the_same_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    viz.write_png(tmp_path / "new" / "a.png", image)
    assert (viz.read_png(tmp_path / "new" / "a.png") == image).all()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]
    with pytest.raises(ValueError, match="no PNG"):
        viz.write_png(tmp_path / "b.png", image[..., :2])


def test_seam_statistic_is_one_for_noise_and_counts_a_step_at_the_borders() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(64, 32, 32, 3)).astype(np.float32)
    plain = viz.seam_statistic(noise, (8, 8), periodic=True)
    assert all(abs(value - 1.0) < 0.03 for value in plain.values()) and set(plain) == {"columns", "rows", "wrap", "seam"}
    # A ramp of slope 1 with jumps of 5 at the patch columns: |difference| is 5 there and 1 elsewhere.
    columns = np.arange(32) + 4.0 * (np.arange(32) // 8)
    stepped = viz.seam_statistic(np.broadcast_to(columns[None, None, :, None], (2, 32, 32, 1)), (32, 8))
    assert stepped == {"columns": pytest.approx(5.0), "seam": pytest.approx(5.0)}
    turned = viz.seam_statistic(np.broadcast_to(columns[None, :, None, None], (2, 32, 32, 1)), (8, 32))
    assert turned == {"rows": pytest.approx(5.0), "seam": pytest.approx(5.0)}


def test_seam_statistic_measures_the_wrap_column() -> None:
    angle = 2 * np.pi * np.arange(64) / 64
    image = np.broadcast_to(np.sin(angle)[None, None, :, None], (1, 4, 64, 1))
    whole = viz.seam_statistic(image, (4, 16), periodic=True)["wrap"]
    cut = viz.seam_statistic(image[:, :, :48], (4, 16), periodic=True)["wrap"]
    assert whole < 2.0 < 10.0 < cut


def test_seam_statistic_refuses_patches_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="patches of 7 pixels do not divide a side of 32"):
        viz.seam_statistic(np.zeros((1, 32, 32, 3)), (7, 8))
    assert np.isnan(viz.seam_statistic(np.zeros((1, 32, 32, 3)), (8, 8))["seam"])
    assert viz.seam_lines(12, 4) == [4, 8]


def test_strip_and_difference() -> None:
    one, two = np.zeros((4, 3, 3), np.uint8), np.full((4, 5, 1), 51, np.uint8)
    assert viz.strip([one, two]).shape == (4, 10, 3)
    with pytest.raises(ValueError, match="one height"):
        viz.strip([one, one[:2]])
    apart = viz.difference(one, np.full((4, 3, 3), 51, np.uint8), gain=2.0)
    assert apart == pytest.approx(np.full((4, 3, 3), 2 * 0.4 - 1))
    assert (viz.difference(one, one) == -1).all()
