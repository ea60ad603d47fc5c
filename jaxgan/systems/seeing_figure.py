"""The figure of Bau et al. (ICCV 2019, arXiv:1910.11626): mean area of each class above, what the generator makes of it below.

Which classes are drawn, and in which order, is decided by `jaxgan.metrics.segments.histogram`; here they are only drawn.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from jaxgan.metrics import segments

_LIGHT = {"page": "white", "ink": "#1c1d1f", "grid": "#d9dbdf", "real": "#4f7cac", "fake": "#d1382c", "loss": "#d1382c", "gain": "#4f7cac"}
_DARK = {"page": "#17191d", "ink": "#e8e9ec", "grid": "#363a41", "real": "#5f94cc", "fake": "#ff7365", "loss": "#ff7365", "gain": "#5f94cc"}


def draw(shown: segments.Histogram, *, labelcount: int = 30, dark: bool = False) -> Any:
    """The figure, as a `matplotlib.figure.Figure` whose axes are (upper, lower); no window, no global state.

    Args:
      shown: the classes in order, their areas in percent, and the limits of the axes.
      labelcount: classes that the width has room for.
      dark: light ink on a dark page.

    Raises:
      ValueError: no class to show.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullFormatter

    if not shown.names:
        raise ValueError("no class has any area in the real images, apart from the one at label 0, so there is nothing to draw")
    colour = _DARK if dark else _LIGHT
    places = np.arange(len(shown.names))
    figure = Figure(figsize=(1.4 + 5.0 * labelcount / 30, 4.0), facecolor=colour["page"], layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": (1, 2)})

    upper.bar(places, shown.train, color=colour["real"], width=0.8, label="real")
    # A log axis breaks the line at 0; far below the axis it leaves the panel instead.
    upper.plot(places, np.maximum(shown.gen, shown.ylim_top[0] / 200), color=colour["fake"], linewidth=3, label="fake")
    upper.set_yscale("log")
    upper.set_ylim(shown.ylim_top)
    low, high = np.log10(shown.ylim_top)
    decades = 10.0 ** np.arange(np.floor(low), np.ceil(high))
    upper.yaxis.set_major_locator(FixedLocator(decades))
    upper.yaxis.set_minor_locator(FixedLocator((decades[:, None] * np.arange(1, 10)).ravel()))
    upper.yaxis.set_minor_formatter(NullFormatter())
    upper.set_ylabel("mean area,\nlog scale", fontsize=8)
    upper.legend(frameon=False, fontsize=8, ncols=2, loc="upper right", labelcolor=colour["ink"], borderaxespad=0.1)

    lower.bar(places, shown.delta, color=np.where(shown.delta < 0, colour["loss"], colour["gain"]), width=0.8)
    lower.axhline(0, color=colour["ink"], linewidth=0.8)
    lower.set_ylim(shown.ylim_bottom)
    lower.set_xlim(shown.xlim)
    lower.set_ylabel("relative delta\n(fake - real)/real", fontsize=8)
    lower.grid(axis="y", color=colour["grid"], linewidth=0.6)
    lower.set_axisbelow(True)
    lower.set_xticks(places, shown.names, rotation=90, fontsize=8)
    for x, y, text in shown.overflow:
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
