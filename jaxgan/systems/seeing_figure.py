"""The figure of Bau et al. (ICCV 2019, arXiv:1910.11626): mean area of each class above, what the generator makes of it below.

Which classes are drawn, and in which order, is decided by `jaxgan.metrics.segments.histogram`; here they are only drawn.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

MAXSCALE = 50.0
"""Percent of the area at the top of the upper panel; its bottom is MAXSCALE / 5000."""
OVERFLOW = 1.15
"""A relative delta above this leaves the lower panel and is written as a number, at this height or one line higher."""

_LIGHT = {"page": "white", "ink": "#1c1d1f", "grid": "#d9dbdf", "real": "#4f7cac", "fake": "#d1382c", "loss": "#d1382c", "gain": "#4f7cac"}
_DARK = {"page": "#17191d", "ink": "#e8e9ec", "grid": "#363a41", "real": "#5f94cc", "fake": "#ff7365", "loss": "#ff7365", "gain": "#5f94cc"}


def overflow_text(delta: Sequence[float]) -> list[tuple[float, float, str]]:
    """(x, y, text) for the bars that are higher than the lower panel.

    At y 1.15; at 1.25 where the bar to the left has its text at 1.15, so that the two do not touch (official code).
    """
    placed: list[tuple[float, float, str]] = []
    for x, value in enumerate(delta):
        if value > OVERFLOW:
            close = placed and placed[-1][:2] == (x - 1, OVERFLOW)
            placed.append((float(x), 1.25 if close else OVERFLOW, f"{value:.1f}"))
    return placed


def draw(names: Sequence[str], real: Sequence[float], fake: Sequence[float], *, labelcount: int = 30, dark: bool = False) -> Any:
    """The figure, as a `matplotlib.figure.Figure` whose axes are (upper, lower); no window, no global state.

    Args:
      names: of the classes, in order; the first word of each is written.
      real, fake: mean percent of the image area of each; every `real` is above 0.
      labelcount: classes that the width has room for.
      dark: light ink on a dark page.

    Raises:
      ValueError: no class, lengths that differ, or a class with no area in real.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullFormatter

    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    if not len(names) or not (len(names) == len(real) == len(fake)):
        counts = f"{len(names)} names, {len(real)} real and {len(fake)} fake areas"
        raise ValueError(f"a figure of {counts}: give one of each for at least 1 class")
    if not (real > 0).all():
        raise ValueError(f"{names[int(np.argmin(real))]} has no area in the real images, so its relative delta is undefined; leave it out")
    colour = _DARK if dark else _LIGHT
    delta = (fake - real) / real
    places = np.arange(len(names))
    figure = Figure(figsize=(1.4 + 5.0 * labelcount / 30, 4.0), facecolor=colour["page"], layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (1, 2)})

    upper.bar(places, real, color=colour["real"], width=0.8, label="real")
    upper.plot(places, np.maximum(fake, MAXSCALE / 1e6), color=colour["fake"], linewidth=3, label="fake", solid_capstyle="round")
    upper.set_yscale("log")
    upper.set_ylim(MAXSCALE / 5000, MAXSCALE)
    decades = 10.0 ** np.arange(-2, 2)
    upper.yaxis.set_major_locator(FixedLocator(decades))
    upper.yaxis.set_minor_locator(FixedLocator((decades[:, None] * np.arange(1, 10)).ravel()))
    upper.yaxis.set_minor_formatter(NullFormatter())
    upper.set_ylabel("mean area,\nlog scale", fontsize=8)
    upper.legend(frameon=False, fontsize=8, ncols=2, loc="upper right", labelcolor=colour["ink"], borderaxespad=0.1)

    lower.bar(places, delta, color=np.where(delta < 0, colour["loss"], colour["gain"]), width=0.8)
    lower.axhline(0, color=colour["ink"], linewidth=0.8)
    lower.set_ylim(-1, 1.1)
    lower.set_xlim(-1, len(names))
    lower.set_ylabel("relative delta\n(fake - real)/real", fontsize=8)
    lower.grid(axis="y", color=colour["grid"], linewidth=0.6)
    lower.set_axisbelow(True)
    lower.set_xticks(places, [name.split()[0] if name.split() else name for name in names], rotation=90, fontsize=8)
    for x, y, text in overflow_text(delta):
        lower.text(x, y, text, ha="center", va="bottom", fontsize=6, color=colour["ink"])
    for axes in (upper, lower):
        axes.set_facecolor(colour["page"])
        axes.tick_params(which="both", colors=colour["ink"], labelsize=8)
        axes.yaxis.label.set_color(colour["ink"])
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(colour["ink"])
    upper.tick_params(axis="x", length=0)
    return figure


def png(figure: Any, dpi: int = 200) -> bytes:
    """The figure as the bytes of a PNG file, the same for the same figure (no date in it)."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=figure.get_facecolor(), metadata={"Software": None})
    return buffer.getvalue()
