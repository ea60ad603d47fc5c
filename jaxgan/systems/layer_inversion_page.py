"""The page of `jaxgan invert`: photos beside what the generator makes of them, in the form of the report of `jaxgan seeing`.

One HTML file that needs no other; it borrows the table of classes, the distance and the galleries from ``seeing_page``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np

from jaxgan.systems import layer_inversion_pairs as pairs
from jaxgan.systems import seeing, seeing_gallery, seeing_overlay, seeing_page
from jaxgan.systems.seeing_gallery import Segmented

GALLERIES = 12
"""Classes that get a gallery, where nobody chose any."""
IN_GALLERY = 12
"""Pairs in the gallery of a class."""
COLUMNS = {
    "pixel_error": ("pixel error", "100 times the mean square difference in [-1, 1]"),
    "psnr": ("PSNR dB", "at the side at which photo and image are compared"),
    "lpips": ("LPIPS", "of the images as written, at most 256 px"),
    "correlation_pixels": ("corr. pixels", "Pearson's correlation, meaned over photos"),
    "activation_error": ("r error", "100 times 1 - cosine over the channels of the target layer"),
    "correlation_activation": ("corr. r", "of the target layer with the true one"),
    "correlation_z": ("corr. z", "of the latent with the true one"),
    "lost": ("lost classes", "a photo, on average"),
    "seconds": ("seconds", "a photo"),
}
"""Columns of the table of methods, where they were measured: heading and what it means."""


class Shown(NamedTuple):
    """A photo on the page."""

    name: str
    photo: Segmented
    result: Segmented
    entries: Sequence[pairs.Entry]
    row: Mapping[str, Any]
    """Its row of the table: 'psnr' and more."""


class _Side(NamedTuple):
    """What ``seeing_gallery`` asks of a source."""

    names: Sequence[str]

    def name(self, i: int) -> str:
        return self.names[i]


def page(
    run: Mapping[str, Any], shown: Sequence[Shown], tables: Mapping[str, Sequence[pairs.Entry]], names: Sequence[str], wanted: Sequence[str]
) -> str:
    """The whole page.

    Args:
      run: what invert.json holds: 'table', 'summary', 'generator', 'segmenter', 'options', ...
      shown: the photos with pictures, in the order of the page.
      tables: of all photos.
      names: of the labels.
      wanted: classes to show pairs of; none: those that lost most.
    """
    gallery = seeing_gallery.Gallery()
    entries = [_pairs(gallery, shown)]
    rows = {side: _rows(tables, names, side) for side in ("photo", "result")}
    chosen = [names.index(name) for name in wanted] or [row["label"] for row in run["summary"]["classes"] if row["change"] < 0][:GALLERIES]
    by_name = {one.name: i for i, one in enumerate(shown)}
    sides = {"real": _Side([one.name for one in shown]), "fake": _Side([one.name for one in shown])}
    areas = {"real": np.stack([rows["photo"][name] for name in by_name]), "fake": np.stack([rows["result"][name] for name in by_name])}
    segmented = {"real": {i: one.photo for i, one in enumerate(shown)}, "fake": {i: one.result for i, one in enumerate(shown)}}
    both = [(i, i) for i in range(len(shown))]
    for label in chosen:
        if most := seeing_gallery.most_lost(areas["real"], areas["fake"], both, label, IN_GALLERY):
            gallery.add_pairs(label, names[label], sides, areas, most, segmented, names)
    report = _report(rows, names)
    report["galleries"] = entries + gallery.entries
    parts = [_top(run, tables), seeing_page.galleries(report, gallery.shown), _legend(shown, names), _lost(run), _methods(run)]
    parts.append(seeing_page.class_table(report))
    if report["fsd"]:
        parts.append(seeing_page.distance(report["fsd"]))
    parts += [_how_to_read(run), f"<section><h2>Protocol</h2>{seeing_page.definitions(_protocol(run, names))}</section>"]
    return seeing_page.fill(f"{len(tables)} photos drawn again", parts)


def _rows(tables: Mapping[str, Sequence[pairs.Entry]], names: Sequence[str], side: str) -> dict[str, np.ndarray]:
    """Area shares float64 [classes] by photo."""
    found = {}
    for photo, entries in tables.items():
        found[photo] = np.zeros(len(names))
        for entry in entries:
            found[photo][entry.label] = getattr(entry, side)
    return found


def _report(rows: Mapping[str, Mapping[str, np.ndarray]], names: Sequence[str]) -> dict[str, Any]:
    """The comparison of `jaxgan seeing` between photos and reconstructions; of one photo without intervals and tests."""
    real, fake = (np.stack(list(rows[side].values())) for side in ("photo", "result"))
    if len(real) > 1:
        return seeing.compare(real, fake, names)
    classes = []
    for k in np.flatnonzero((real[0] > 0) | (fake[0] > 0)):
        a, b = 100 * real[0, k], 100 * fake[0, k]
        delta = (b - a) / a if a > 0 else None
        missing = a > 0 and b < pairs.LOST * a and not seeing.is_nothing(int(k), names[k])
        classes.append(
            {
                "label": int(k), "name": names[k], "real": a, "fake": b, "delta": delta, "interval": None, "share": None, "p": None,
                "images_real": 100.0 * (a > 0), "images_fake": 100.0 * (b > 0),
                "verdict": "missing" if missing else "" if a else "only fake",
            }
        )  # fmt: skip
    return {"fsd": None, "classes": sorted(classes, key=lambda entry: -entry["real"]), "warnings": [], "headline": []}


def _pairs(gallery: seeing_gallery.Gallery, shown: Sequence[Shown]) -> dict[str, Any]:
    """The gallery of all pairs: photo (lost classes marked) and reconstruction, their label maps below."""
    tiles = []
    for number, one in enumerate(shown):
        key = f"pairs/{number:04d}"
        gone = pairs.mask(one.photo.labels, one.result.labels, one.entries) == pairs.LOST_PIXEL
        lost = [entry for entry in one.entries if entry.lost]
        views, maps = [], []
        for side, what in (("photo", one.photo), ("reconstruction", one.result)):
            picture = seeing_gallery.enlarge(what.image)
            gallery.shown[f"{key}-{side}"] = gallery.shown[f"{key}-{side}-marked"] = seeing_gallery.jpeg(picture)
            if lost and what is one.photo:
                gallery.shown[f"{key}-{side}-marked"] = seeing_gallery.jpeg(seeing_overlay.outline(picture, gone))
            drawn = seeing_overlay.render(what.labels, seeing_overlay.palette(), size=picture.shape[:2])
            gallery.shown[f"{key}-{side}-labels"] = seeing_gallery.png(drawn)
            views.append({"side": side, "plain": f"{key}-{side}", "marked": f"{key}-{side}-marked"})
            maps.append({"side": f"{side}, classes,", "plain": f"{key}-{side}", "marked": f"{key}-{side}-labels"})
        words = ", ".join(f"{entry.name} {seeing_page.percent(100 * entry.photo)} %" for entry in lost)
        tiles.append({"name": one.name, "side": "pair", "about": f"lost: {words}" if lost else "nothing lost", "views": views + maps})
    about = "left the photo, its lost classes outlined, and right what the generator makes of it; below the classes of both"
    return {"label": -1, "name": "all pairs", "kind": "pairs", "about": about, "images": tiles}


def _top(run: Mapping[str, Any], tables: Mapping[str, Sequence[pairs.Entry]]) -> str:
    count = len(tables)
    lines = []
    for row in run["summary"]["classes"]:
        if row["lost"]:
            held = f"in {row['lost']} of {row['photos']} photos that hold it" if row["photos"] > 1 else "in the one photo that holds it"
            kind = "missing" if 2 * row["lost"] > row["photos"] else "less"
            areas = [seeing_page.percent(100 * row[key]) for key in ("area", "result")]
            words = f"{held}; {areas[0]} % of the area, {areas[1]} % in reconstructions"
            lines.append(f'<li class="{kind}">lost: <b>{escape(row["class"])}</b> {words}</li>')
    if not lines:
        lines.append('<li class="none">nothing is lost: every class keeps at least half of its area in each photo</li>')
    facts = run["generator"]
    side = "x".join(str(number) for number in facts["image"][:2])
    how = f"drawn again by a {facts['family']} of {side} px, method {run['summary']['main']}"
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in run["warnings"])
    return (
        '<header><p class="kicker">what does the generator leave out of these photos?</p>'
        f"<h1>{count:,} photo{'s' * (count != 1)} <small>{escape(how)}</small></h1>"
        f'<p class="sub">classes found by <b>{escape(run["segmenter"]["name"])}</b></p></header>'
        f'<section class="headline" aria-label="headline"><ul>{"".join(lines)}</ul></section>{warnings}'
    )


def _legend(shown: Sequence[Shown], names: Sequence[str]) -> str:
    """The colours of the label maps, of all classes on the page."""
    labels = sorted({entry.label for one in shown for entry in one.entries})
    colours = seeing_overlay.palette()
    keys = []
    for label in labels:
        colour = ",".join(str(value) for value in (colours[label % len(colours)] if label else (0, 0, 0)))
        keys.append(f'<span class="key" style="background:rgb({colour})"></span>{escape(names[label])}')
    return f'<p class="legend">{" ".join(keys)}</p>'


def _plain_table(heads: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> str:
    """A table that the page's script does not touch; the first cell of a row is a name."""
    top = "".join(f'<th scope="col" title="{escape(about)}" style="padding:.6rem .8rem">{escape(text)}</th>' for text, about in heads)
    body = "".join(
        "<tr>" + "".join(f"<td{' class=name' if i == 0 else ''}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _methods(run: Mapping[str, Any]) -> str:
    means = run["summary"]["methods"]
    columns = [key for key in COLUMNS if any(row.get(key) is not None for row in means.values())]
    rows = [
        [f"{method} {escape(row['name'])}", *(seeing_page.number(row[key]).replace("-", "−") for key in columns)]
        for method, row in means.items()
    ]
    heads = [("Method", ""), *((COLUMNS[key][0], COLUMNS[key][1]) for key in columns)]
    return f"<section><h2>Reconstruction</h2>{_plain_table(heads, rows)}</section>"


def _lost(run: Mapping[str, Any]) -> str:
    """Where a class lost most."""
    rows = []
    for name, photos in run["ranking"].items():
        for place, row in enumerate(photos[:IN_GALLERY], 1):
            areas = [seeing_page.percent(100 * row[key]) for key in ("area", "result", "loss")]
            rows.append([escape(name), str(place), escape(row["photo"]), *areas, "lost" if row["lost"] else ""])
    if not rows:
        return ""
    heads = [("Class", ""), ("Rank", ""), ("Photo", ""), ("In the photo %", ""), ("In the reconstruction %", ""), ("Lost %", ""), ("", "")]
    return f"<section><h2>Photos by what they lost</h2>{_plain_table(heads, rows)}</section>"


def _how_to_read(run: Mapping[str, Any]) -> str:
    paragraphs = (
        "Each photo is inverted: a latent is found, and with method f small corrections of early layers, with which the generator draws "
        "the photo as well as it can. What it has not learned to draw is missing from the reconstruction.",
        f"Photo and reconstruction are segmented alike. A class is <i>lost</i> in a photo where the reconstruction has less than "
        f"{pairs.LOST:.0%} of its area, of classes that cover more than {100 * pairs.segments.PRESENT:g} % of the photo. The table of "
        "classes compares all photos (real) with all reconstructions (fake), as in `jaxgan seeing`.",
        "A segmenter makes mistakes, and more of them on images unlike those it learned from: look at the pairs before you believe a "
        "number.",
        "Method: Bau et al., <i>Seeing What a GAN Cannot Generate</i>, ICCV 2019, arXiv:1910.11626.",
    )
    shown = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    return f"<section><details><summary>How to read this</summary>{shown}</details></section>"


def _protocol(run: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    kept = {key: run[key] for key in ("program", "generator", "encoder", "end_to_end", "networks") if key in run}
    segmenter = {**run["segmenter"], "classes": list(names)}
    return {**kept, "segmenter": segmenter, "photos": len(run["photos"]), "options": run["options"]}
