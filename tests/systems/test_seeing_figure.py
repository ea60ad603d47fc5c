"""The paper's figure: the numbers that the official code puts into it are in ours."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from jaxgan.systems import seeing_figure


@pytest.mark.parametrize("case", ["hist30", "hist8"])
def test_bars_line_limits_and_overflow_are_the_official_ones(case, golden: Path) -> None:
    stored = {key.split("/")[1]: value for key, value in np.load(golden / "seeing_histogram.npz").items() if key.startswith(case)}
    names = json.loads(stored["names_json"].item())
    figure = seeing_figure.draw(names, stored["train"], stored["gen"], labelcount=int(case[4:]))
    upper, lower = figure.axes
    assert [bar.get_height() for bar in upper.patches] == pytest.approx(stored["train"], abs=1e-4)
    assert upper.lines[0].get_ydata() == pytest.approx(stored["gen"], abs=1e-4)
    assert [bar.get_height() for bar in lower.patches] == pytest.approx(stored["delta"], abs=1e-4)
    assert upper.get_ylim() == pytest.approx(stored["ylim_top"]) and lower.get_ylim() == pytest.approx(stored["ylim_bottom"])
    assert lower.get_xlim() == pytest.approx(stored["xlim"]) and upper.get_yscale() == "log" and upper.lines[0].get_linewidth() == 3
    assert [text.get_text() for text in lower.get_xticklabels()] == names
    texts = [[*text.get_position(), text.get_text()] for text in lower.texts]
    assert texts == json.loads(stored["overflow_text_json"].item())
    assert tuple(figure.get_size_inches()) == pytest.approx((1.4 + 5.0 * int(case[4:]) / 30, 4.0))


def test_neighbours_that_overflow_take_turns_in_height() -> None:
    placed = seeing_figure.overflow_text([2.0, 3.0, 1.5, 0.0, 1.151, 1.15])
    assert placed == [(0.0, 1.15, "2.0"), (1.0, 1.25, "3.0"), (2.0, 1.15, "1.5"), (4.0, 1.15, "1.2")]


def test_the_picture_is_no_blank_sheet_and_repeats_byte_for_byte() -> None:
    from PIL import Image

    figures = [seeing_figure.draw(["sky", "hat;cap"], [30.0, 0.4], [31.0, 0.0], dark=dark) for dark in (False, False, True)]
    files = [seeing_figure.png(figure) for figure in figures]
    assert files[0] == files[1] != files[2]
    light, dark = (np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files[1:])
    assert light.mean() > 200 > 100 > dark.mean() and len(np.unique(light.reshape(-1, 3), axis=0)) > 50


def test_a_class_without_area_in_real_is_refused() -> None:
    with pytest.raises(ValueError, match="hat has no area"):
        seeing_figure.draw(["sky", "hat"], [3.0, 0.0], [3.0, 1.0])
    with pytest.raises(ValueError, match="at least 1 class"):
        seeing_figure.draw([], [], [])
