"""The report page in a real browser: it stands alone, its table sorts, its pictures are pictures, and names in it are only names."""

from __future__ import annotations

import copy
import io
import json
import re
import shutil
import subprocess
import urllib.parse
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxgan.systems import seeing, seeing_page

NAMES = ("void", "sky", "<b>hat</b> & cap", "glasses", "ring")


@pytest.fixture(scope="module")
def page() -> str:
    """A report on tallies in which hats are missing, rings are new and void takes their place; two galleries of one picture each."""
    from PIL import Image

    rng = np.random.default_rng(0)
    rows = []
    for hat, ring in ((0.02, 0.0), (0.001, 0.003)):
        parts = np.stack([rng.random(200) * 0.1, 0.5 + rng.random(200) * 0.1, hat * rng.random(200) * 2, 0.03 + rng.random(200) * 0.01,
                          ring * rng.random(200)], 1)  # fmt: skip
        parts[:, 0] = 1 - parts[:, 1:].sum(1)
        rows.append(parts)
    report = seeing.compare(*rows, NAMES, resamples=200)
    side = {"source": "faces <1>", "images": 200, "kind": "folder"}
    report["protocol"] = {"real": side, "fake": {**side, "source": "{{body}} made"}, "segmenter": {"name": "net", "classes": list(NAMES)}}
    report["figure"] = {"light": "figure.png", "dark": "figure.png"}
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)).save(buffer, "PNG")
    views = [{"side": "real", "plain": "figure.png", "marked": "figure.png"}]
    image = {"name": "<img src=x onerror=alert(1)>.png", "side": "real", "area": 3.0, "about": "real, 3 %", "views": views}
    report["galleries"] = [{"label": k, "name": NAMES[k], "kind": "largest area", "about": "most of it", "images": [image]} for k in (2, 1)]
    return seeing_page.page(report, {"figure.png": buffer.getvalue()})


BEFORE = """<script>window.wrong = [];
addEventListener("error", event => wrong.push(event.message || "resource"), true);
addEventListener("securitypolicyviolation", event => wrong.push(event.violatedDirective));</script>"""
AFTER = """<script>addEventListener("load", () => {
  const first = () => document.querySelector("#classes tbody tr").dataset.name, seen = {};
  const press = column => document.querySelector(`th[data-column=${column}] button`).click();
  seen.start = first();
  press("real"); seen.largest = first(); press("real"); seen.smallest = first();
  press("delta"); seen.lost = first(); press("class"); seen.alphabet = first();
  const images = [...document.images];
  seen.decoded = images.filter(image => image.naturalWidth > 0).length + "/" + images.length;
  document.querySelector("tbody a[data-gallery='1']").click();
  seen.open = [...document.querySelectorAll(".gallery")].filter(panel => panel.offsetParent).map(panel => panel.id).join();
  document.getElementById("significant").click(); seen.shown = document.getElementById("shown").textContent;
  seen.requests = performance.getEntriesByType("resource").filter(entry => !entry.name.startsWith("data:")).length;
  seen.wrong = wrong.join(); seen.wide = document.documentElement.scrollWidth - innerWidth;
  document.body.dataset.seen = encodeURIComponent(JSON.stringify(seen));
});</script>"""


def browse(page: str, room: Path, *options: str) -> tuple[dict[str, Any], str]:
    """(what the page says of itself, what Chromium says on standard error)."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if chromium is None:
        pytest.skip("no chromium or google-chrome is found: the page cannot be looked at in a browser")
    file = room / "page.html"
    file.write_text(page.replace("<head>", "<head>" + BEFORE, 1).replace("</body>", AFTER + "</body>"), "utf-8")
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-component-update disable-sync "
    flags += "disable-dev-shm-usage enable-logging=stderr virtual-time-budget=4000"
    command = [chromium, *(f"--{flag}" for flag in flags.split()), "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += [f"--user-data-dir={room / 'profile'}", *options, "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    seen = re.search(r'<body data-seen="([^"]*)"', done.stdout)
    assert seen, f"the script on the page did not come to its end: {done.stderr[-2000:]}"
    return json.loads(urllib.parse.unquote(seen[1])), done.stderr


def test_the_page_works_in_a_browser_without_a_request_or_an_error(page, tmp_path: Path) -> None:
    said, log = browse(page, tmp_path, "--window-size=1200,900")
    assert said["wrong"] == "" and said["requests"] == 0 and "CONSOLE" not in log
    assert said["decoded"] == "5/5"  # the figure, and each of two tiles plain and marked
    hat = "<b>hat</b> & cap"
    assert said["start"] == hat  # what is missing comes first
    assert (said["largest"], said["smallest"], said["lost"], said["alphabet"]) == ("sky", "ring", hat, hat)
    assert said["open"] == "gallery-1" and said["shown"] == "3 of 5 classes"


def test_nothing_on_a_phone_is_wider_than_the_phone(page, tmp_path: Path) -> None:
    said, _ = browse(page, tmp_path, "--window-size=500,900")  # headless Chromium has no narrower window
    assert said["wide"] <= 0


def test_the_page_names_no_address_and_takes_names_for_text(page) -> None:
    assert not re.search(r"""(?:src|href|srcset|action|url)\s*[=(]\s*["']?\s*(?:https?:|//|file:)""", page)
    assert "default-src 'none'" in page and "@import" not in page and "<img src=x" not in page and "<b>hat</b> & cap" not in page
    assert page.count("{{body}} made") >= 2 and re.search(r"<title>{{body}} made against", page) and page.count("<header>") == 1


def test_a_picture_that_the_report_names_must_be_there(page) -> None:
    report = seeing.compare(*(np.full((4, 2), 0.5),) * 2, ("void", "sky"), resamples=20)
    side = {"source": "x", "images": 4}
    report |= {"protocol": {"real": side, "fake": side, "segmenter": {"name": "net"}}, "galleries": [], "figure": None}
    assert "nothing is missing" in seeing_page.page(copy.deepcopy(report), {})
    with pytest.raises(KeyError):
        seeing_page.page({**report, "figure": {"light": "a", "dark": "b"}}, {})


def test_the_class_is_marked_and_not_a_word_before_it() -> None:
    line = {"kind": "missing", "class": "ss", "text": "missing: ss: 2 % of the area"}
    assert seeing_page._marked(line) == "missing: <b>ss</b>: 2 % of the area"


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (0.0004, "< 0.001"), (0.0123, "0.012"), (0.123, "0.12"), (12.34, "12.3"), (100.0, "100"), (None, "–")]
)
def test_percentages_keep_what_matters(value, text) -> None:
    assert seeing_page.percent(value) == text


def test_deltas_and_intervals_as_text() -> None:
    assert [seeing_page.signed(x) for x in (-0.92, 0.08, 0.001, 15.3, None)] == ["−92 %", "+8 %", "±0 %", "+1,530 %", "–"]
    assert seeing_page.between((-0.95, -0.88)) == "−95 … −88 %" and seeing_page.between((-0.5, None)) == "−50 … ∞ %"
