"""The paper's figure: the numbers that the official code puts into it are in ours."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from jaxgan.metrics import segments
from jaxgan.systems import seeing_figure


@pytest.mark.parametrize("case", ["hist30", "hist8"])
def test_bars_line_limits_and_overflow_are_the_official_ones(case, golden: Path) -> None:
    file = np.load(golden / "seeing_tally.npz")
    stored = {key.split("/")[1]: value for key, value in file.items() if key.startswith(case)}
    names, count = json.loads(stored["names_json"].item()), int(case[4:])
    limits = (tuple(stored[key].tolist()) for key in ("ylim_top", "ylim_bottom", "xlim"))
    overflow = tuple(map(tuple, json.loads(stored["overflow_text_json"].item())))
    areas = (stored[key].astype(np.float64) for key in ("train", "gen", "delta"))
    figure = seeing_figure.draw(segments.Histogram(tuple(range(len(names))), tuple(names), *areas, *limits, overflow), labelcount=count)
    upper, lower = figure.axes
    assert [bar.get_height() for bar in upper.patches] == pytest.approx(stored["train"], abs=1e-4)
    assert upper.lines[0].get_ydata() == pytest.approx(stored["gen"], abs=1e-4)
    assert [bar.get_height() for bar in lower.patches] == pytest.approx(stored["delta"], abs=1e-4)
    assert upper.get_ylim() == pytest.approx(stored["ylim_top"]) and lower.get_ylim() == pytest.approx(stored["ylim_bottom"])
    assert lower.get_xlim() == pytest.approx(stored["xlim"]) and upper.get_yscale() == "log" and upper.lines[0].get_linewidth() == 3
    assert [text.get_text() for text in lower.get_xticklabels()] == names
    texts = [[*text.get_position(), text.get_text()] for text in lower.texts]
    assert texts == json.loads(stored["overflow_text_json"].item())
    assert tuple(figure.get_size_inches()) == pytest.approx((1.4 + 5.0 * count / 30, 4.0))


def two_classes(fake: float) -> segments.Histogram:
    rows = np.array([[0.0, 0.996, 0.004]] * 3), np.array([[0.0, 1 - fake, fake]] * 3)
    return segments.histogram(*rows, ["void", "sky", "hat;cap"], ["object"] * 3)


def test_the_picture_is_no_blank_sheet_and_repeats_byte_for_byte() -> None:
    from PIL import Image

    files = [seeing_figure.png(seeing_figure.draw(two_classes(0.0), dark=dark)) for dark in (False, False, True)]
    assert files[0] == files[1] != files[2]
    light, dark = (np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files[1:])
    assert light.mean() > 200 > 100 > dark.mean() and len(np.unique(light.reshape(-1, 3), axis=0)) > 50


def test_nothing_to_draw_is_said() -> None:
    rows = np.array([[1.0, 0.0]] * 3)
    with pytest.raises(ValueError, match="nothing to draw"):
        seeing_figure.draw(segments.histogram(rows, rows, ["void", "sky"], ["object"] * 2))
