"""The report of `jaxgan seeing` as one HTML page that needs nothing but itself: no network, no fonts, no other file.

`page` takes the report (the content of report.json) and the pictures as bytes; a Content-Security-Policy in the page forbids every request.
"""

from __future__ import annotations

import base64
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

VERDICTS = {
    "missing": ("missing", "the generator draws less than half of the area that real images have"),
    "less": ("less", "the generator draws less of it"),
    "more": ("more", "the generator draws more of it"),
    "only fake": ("only in fake", "no real image holds it"),
    "": ("", "no difference shown"),
}
"""By verdict of a class: what is written in the table, and what it means."""


def percent(value: float | None, digits: int = 3) -> str:
    """A percentage as text: three significant digits, '< 0.001' rather than a 0 that is none."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if abs(value) < 10.0**-digits:
        return f"< {10.0**-digits:.{digits}f}"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.{digits}f}"


def signed(delta: float | None) -> str:
    """A relative delta as text: '−92 %', '+8 %', '+1,530 %'; '–' where there is none."""
    if delta is None:
        return "–"
    rounded = round(100 * delta)
    return f"{'−' if rounded < 0 else '+' if rounded > 0 else '±'}{abs(rounded):,} %"


def between(interval: Sequence[float] | None) -> str:
    """An interval of relative deltas: '−95 … −88 %'; an end of None is infinite; empty where there is no interval."""
    if interval is None:
        return ""
    low, high = ("∞" if end is None else signed(end).removesuffix(" %") for end in interval)
    return f"{low} … {high} %"


def number(value: float | None) -> str:
    """A distance as text: four significant digits."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.1e}"


def chance(value: float | None) -> str:
    """A p-value as text."""
    return "–" if value is None else "< 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.01 else f"{value:.2f}"


def page(report: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """The whole page.

    Args:
      report: as in report.json: 'headline', 'fsd', 'classes', 'galleries', 'protocol', 'warnings', 'figure'.
      pictures: bytes of PNG or JPEG files by the names that the report uses.

    Raises:
      KeyError: the report names a picture that is not there.
    """
    sources = report["protocol"]["real"]["source"], report["protocol"]["fake"]["source"]
    parts = [_top(report, sources), distance(report["fsd"]), _figure(report, pictures), class_table(report), galleries(report, pictures)]
    parts += [_how_to_read(report), _protocol(report["protocol"])]
    return fill(f"{sources[1]} against {sources[0]}", parts)


def fill(title: str, parts: Sequence[str]) -> str:
    """The page of these sections, HTML each; the title is text. One of them is the ``class_table``, which the page's script reads."""
    template = (importlib.resources.files("jaxgan.systems") / "seeing_page.html").read_text("utf-8")
    filled = {"title": escape(title), "body": "\n".join(filter(None, parts))}
    # In one pass: nothing that a name holds is taken for a mark of the template.
    return re.sub(r"\{\{(title|body)\}\}", lambda mark: filled[mark[1]], template)


def data_url(picture: bytes) -> str:
    """A PNG or JPEG file as the address of an image."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _top(report: Mapping[str, Any], sources: Sequence[str]) -> str:
    counts = [f"{report['protocol'][side]['images']:,}" for side in ("real", "fake")]
    lines = "".join(f'<li class="{escape(line["kind"])}">{_marked(line)}</li>' for line in report["headline"])
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in report["warnings"])
    return (
        '<header><p class="kicker">what does the generator leave out?</p>'
        f"<h1>{escape(_short(sources[1]))} <small>against</small> {escape(_short(sources[0]))}</h1>"
        f'<p class="sub">{counts[1]} fake and {counts[0]} real images, {len(report["classes"])} classes found by '
        f"<b>{escape(report['protocol']['segmenter']['name'])}</b></p></header>"
        f'<section class="headline" aria-label="headline"><ul>{lines}</ul></section>{warnings}'
    )


def _marked(line: Mapping[str, Any]) -> str:
    """The sentence, with the name of its class in bold."""
    text, name = escape(line["text"]), escape(line.get("class") or "")
    return text.replace(f": {name}:", f": <b>{name}</b>:", 1) if name else text


def _short(source: str) -> str:
    """The last part of a path; the protocol has the whole."""
    return source.rstrip("/").rsplit("/", 1)[-1][-60:] if "/" in source.rstrip("/") and not source.startswith("tfds:") else source


def distance(fsd: Mapping[str, Any]) -> str:
    """Section: the Fréchet Segmentation Distance, its parts and its floor."""
    interval = f"{fsd['level']:.0%} interval {number(fsd['interval'][0])} … {number(fsd['interval'][1])}"
    floor = fsd["floor"]
    cards = [
        ("Fréchet Segmentation Distance", number(fsd["total"]), interval),
        ("of it, the means", number(fsd["mean"]), "how much of each class there is on average"),
        ("of it, the covariances", number(fsd["covariance"]), "which classes vary, and together with which"),
    ]
    if floor:
        cards.append(("real against real", number(floor["value"]), f"the noise floor: {floor['how']}"))
    shown = "".join(f'<div class="card"><h3>{escape(a)}</h3><p class="figure">{escape(b)}</p><p>{escape(c)}</p></div>' for a, b, c in cards)
    return f'<section aria-label="distance"><div class="cards">{shown}</div>{_scale(fsd)}</section>'


def _scale(fsd: Mapping[str, Any]) -> str:
    """A line from 0 on which floor and distance can be compared at a glance."""
    if not fsd["floor"]:
        return ""
    low, high = fsd["interval"]
    floor = fsd["floor"]["value"]
    top = 1.08 * max(high, fsd["total"], floor, 1e-12)
    place = [100 * value / top for value in (low, high, fsd["total"], floor)]
    return (
        f'<div class="scale" role="img" aria-label="floor {number(floor)}, distance {number(fsd["total"])}">'
        f'<i class="floor" style="width:{place[3]:.2f}%"></i>'
        f'<i class="range" style="left:{place[0]:.2f}%;width:{max(place[1] - place[0], 0.2):.2f}%"></i>'
        f'<i class="at" style="left:{place[2]:.2f}%"></i></div>'
        '<p class="legend"><span class="key floor"></span>real against real '
        '<span class="key at"></span>fake against real, with its interval</p>'
    )


def _figure(report: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    if not report.get("figure"):
        return ""
    light, dark = (data_url(pictures[report["figure"][key]]) for key in ("light", "dark"))
    return (
        '<section><h2>Area by class</h2><figure class="plot"><picture>'
        f'<source srcset="{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{light}" alt="log areas and relative deltas of the classes">'
        "</picture><figcaption>Bars: mean area in real images (%). Line: in fake images. Below: relative change, as in the paper. "
        "Void and classes without area in real images are left out.</figcaption></figure></section>"
    )


_COLUMNS = (
    ("class", "Class", "text", ""),
    ("real", "Real", "number", "mean share of the image area in real images, %"),
    ("fake", "Fake", "number", "mean share of the image area in fake images, %"),
    ("delta", "Change", "number", "(fake - real) / real, with its interval"),
    ("share", "Of the means", "number", "share of the part of the distance that the means make, %"),
    ("images", "In images", "number", "share of the images that hold the class, real → fake"),
    ("p", "p", "number", "chance of such a difference between two draws of one source, corrected for the number of classes"),
    ("verdict", "Verdict", "number", ""),
)


def class_table(report: Mapping[str, Any]) -> str:
    """Section: the table of 'classes', linked to the 'galleries' of the report."""
    heads = "".join(
        f'<th scope="col" data-column="{key}" data-kind="{kind}" title="{escape(about)}">'
        f'<button type="button">{escape(label)}</button></th>'
        for key, label, kind, about in _COLUMNS
    )
    with_gallery = {gallery["label"]: i for i, gallery in enumerate(report["galleries"])}
    first = sorted(report["classes"], key=lambda entry: list(VERDICTS).index(entry["verdict"]))  # stable: then by area
    rows = "".join(_row(entry, with_gallery.get(entry["label"])) for entry in first)
    return (
        '<section><h2>Classes</h2><div class="controls">'
        '<input id="search" type="search" placeholder="find a class" aria-label="find a class">'
        '<label><input id="significant" type="checkbox"> only shown differences</label><span id="shown"></span></div>'
        f'<div class="scroll"><table id="classes"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></section>'
    )


def _row(entry: Mapping[str, Any], gallery: int | None) -> str:
    verdict = entry["verdict"]
    name = escape(entry["name"])
    label = f'<a href="#gallery-{gallery}" data-gallery="{gallery}">{name}</a>' if gallery is not None else name
    order = list(VERDICTS).index(verdict)
    cells = [
        (entry["name"], label, "name"),
        (entry["real"], percent(entry["real"]), ""),
        (entry["fake"], percent(entry["fake"]), ""),
        (_sortable(entry["delta"], 1e9), _change(entry), "change"),
        (entry["share"], percent(entry["share"]), ""),
        (entry["images_real"], f"{percent(entry['images_real'])} → {percent(entry['images_fake'])}", ""),
        (_sortable(entry["p"], 2), chance(entry["p"]), ""),
        (order, f'<span class="verdict v{order}" title="{VERDICTS[verdict][1]}">{VERDICTS[verdict][0]}</span>', ""),
    ]
    shown = "".join(f'<td data-sort="{escape(str(key))}"{f" class={kind}" if kind else ""}>{text}</td>' for key, text, kind in cells)
    return f'<tr data-name="{name.lower()}" data-verdict="{verdict}">{shown}</tr>'


def _sortable(value: float | None, last: float) -> float:
    return last if value is None else value


def _change(entry: Mapping[str, Any]) -> str:
    """The relative delta as a number and as a bar with its interval, from −100 % to +150 %."""
    if entry["delta"] is None:
        return "–"

    def x(value: float) -> float:
        return 100 * (min(max(value, -1.0), 1.5) + 1.0) / 2.5

    zero, end = x(0.0), x(entry["delta"])
    kind, width = "down" if end < zero else "up", max(abs(end - zero), 0.6)
    bar = f'<rect x="{min(zero, end):.1f}" y="4" width="{width:.1f}" height="8" class="{kind}"/>'
    whisker = ""
    if between(entry["interval"]):
        low, high = (x(np.inf if value is None else value) for value in entry["interval"])
        whisker = f'<path d="M{low:.1f} 8H{high:.1f}M{low:.1f} 5V11M{high:.1f} 5V11" class="whisker"/>'
    middle = f'<path d="M{zero} 1V15" class="zero"/>'
    title = f"interval {between(entry['interval'])}" if whisker else "no interval"
    svg = f'<svg viewBox="-1 0 102 16" preserveAspectRatio="none" aria-hidden="true">{bar}{middle}{whisker}</svg>'
    return f'<span title="{title}">{svg}<span>{signed(entry["delta"])}</span></span>'


def galleries(report: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """Section: the 'galleries' of the report, a tab each; tiles of one view, two (a pair) or four."""
    if not report["galleries"]:
        return ""
    tabs, panels = [], []
    for i, gallery in enumerate(report["galleries"]):
        tabs.append(f'<a role="tab" href="#gallery-{i}" data-gallery="{i}">{escape(gallery["name"])}</a>')
        tiles = "".join(_tile(item, gallery["name"], pictures) for item in gallery["images"])
        about = escape(gallery["about"])
        panels.append(
            f'<div class="gallery" id="gallery-{i}" role="tabpanel"><h3>{escape(gallery["name"])}</h3><p>{about}</p>'
            f'<div class="tiles">{tiles}</div></div>'
        )
    return (
        '<section id="galleries"><h2>Images</h2><p class="hint">Choose a class here or in the table. '
        '<label><input id="plain" type="checkbox"> without the marking</label></p>'
        f'<nav class="tabs" role="tablist">{"".join(tabs)}</nav>{"".join(panels)}</section>'
    )


def _tile(item: Mapping[str, Any], name: str, pictures: Mapping[str, bytes]) -> str:
    views = []
    for view in item["views"]:
        marked, plain = (data_url(pictures[view[key]]) for key in ("marked", "plain"))
        side = escape(view["side"])
        views.append(
            f'<span class="view"><img class="marked" src="{marked}" alt="{side} image, {escape(name)} marked">'
            f'<img class="plain" src="{plain}" alt="{side} image"></span>'
        )
    kind = {1: "", 2: " pair"}.get(len(views), " four")
    caption = f"<figcaption><b>{escape(item['about'])}</b> {escape(item['name'])}</figcaption>"
    return f'<figure class="tile{kind}"><div>{"".join(views)}</div>{caption}</figure>'


def _how_to_read(report: Mapping[str, Any]) -> str:
    fsd = report["fsd"]
    paragraphs = (
        "Every image is segmented, and the share of its area that each class covers is one row of numbers. The Fréchet Segmentation "
        "Distance compares the means and covariances of the rows of both sets, in percent of the area; 0 means equal statistics. It grows "
        "with the square of the unit and, for few images, with noise: compare it with real against real, not with another data set.",
        f"Change is (fake − real) / real of the mean area. Intervals hold {fsd['level']:.0%} and come from bootstrap resamples of the "
        f"images, {fsd['resamples']:,} for the classes and {fsd['fsd_resamples']:,} for the distance. p is corrected for the number of "
        f"classes; a difference counts as shown from {fsd['alpha']:g} downwards. A class is <i>missing</i> where its area is shown to be "
        "lower and more than half of it is gone.",
        "A segmenter makes mistakes, and more of them on images unlike those it learned from: look at the images before you believe a "
        "number.",
        "Method: Bau et al., <i>Seeing What a GAN Cannot Generate</i>, ICCV 2019, arXiv:1910.11626.",
    )
    shown = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    return f"<section><details><summary>How to read this</summary>{shown}</details></section>"


def _protocol(protocol: Mapping[str, Any]) -> str:
    return f"<section><h2>Protocol</h2>{definitions(protocol)}</section>"


def definitions(values: Mapping[str, Any]) -> str:
    """Names and values, nested as they are."""
    shown = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            text = definitions(value)
        elif isinstance(value, (list, tuple)):
            text = escape(", ".join(map(str, value[:60]))) + (f", … ({len(value)})" if len(value) > 60 else "")
        else:
            text = escape(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) and key == "images" else str(value))
        shown.append(f"<dt>{escape(str(key))}</dt><dd>{text}</dd>")
    return f"<dl>{''.join(shown)}</dl>"
