"""What `jaxgan invert` leaves behind, and how a stopped run goes on.

    OUT/invert.json       the run: its options, networks and photos, the table, the ranking, the summary
    OUT/photos.csv        a line for each photo and method: errors, seconds, lost classes
    OUT/classes.csv       a line for each photo, method and class: areas in photo and reconstruction
    OUT/ranking.csv       the photos by the area they lost, for each class asked for or lost
    OUT/report.html       the page; OUT/sheet.png: photo, reconstruction and their classes, a line for each photo
    OUT/NAME/             of a photo: target.png, result.png, pair.png, lost.png (``layer_inversion_pairs.mask``), target-labels.png and
                          result-labels.png, classes.csv, classes.json, inversion.safetensors, history.csv; of several methods the last
                          one's, those of the others below NAME/METHOD/, and methods.png with all reconstructions

Every folder of a photo is whole or absent. OUT/.search/ holds the state of the unfinished batch.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgan import files, marks, viz
from jaxgan.photos import Photo
from jaxgan.segment import write_label_map
from jaxgan.systems import layer_inversion_codes as codes
from jaxgan.systems import layer_inversion_page, seeing_gallery, seeing_overlay
from jaxgan.systems import layer_inversion_pairs as pairs
from jaxgan.systems.seeing_gallery import Segmented

MARK, REPORT, SHEET = "invert.json", "report.html", "sheet.png"
TABLES = ("photos.csv", "classes.csv", "ranking.csv")
RESERVED = (MARK, REPORT, SHEET, *TABLES)
"""Names in the output that are no photo's."""
KIND = marks.Kind(
    MARK, "jaxgan inversion 1", "jaxgan invert", ("batch", "rank", "shown"), ("encoder", "end_to_end", "segmenter", "networks", "start")
)
SHEET_ROWS, SHEET_SIDE = 60, 192
"""Most photos on the sheet, and the longest side of a picture on it."""
ENTRY = ("label", "class", "photo", "result", "change", "gone", "new", "lost")
"""Columns of the tables of classes; areas in percent of the image."""


class Result(NamedTuple):
    """What one method gave for one photo."""

    image: np.ndarray
    """uint8 [H, W, 3], at the generator's size."""
    labels: np.ndarray
    """int [h, w], of the image."""
    inversion: codes.Inversion
    """Its ``about['result']`` is the photo's row of the table."""
    history: Mapping[str, np.ndarray]
    """{'loss' or a part: [rows]}: row t before step t + 1, up to what was found."""


def colours(count: int) -> np.ndarray:
    """uint8 [count, 3]: those of the sheets."""
    return seeing_overlay.palette()[np.arange(count) % len(seeing_overlay.palette())]


def write_photo(out: Path, name: str, target: np.ndarray, labels: np.ndarray, results: Mapping[str, Result], names: Sequence[str]) -> None:
    """OUT/NAME/, whole or not at all.

    Args:
      target: the photo, uint8 [H, W, 3] at the generator's size. labels: int [h, w], of it.
      results: by method, in order; the last one's files lie in the photo's own folder.
      names: of the labels.
    """
    with marks.whole(out, name) as part:
        viz.write_png(part / "target.png", target)
        write_label_map(part / "target-labels.png", labels, colours(len(names)))
        for method, result in results.items():
            place = part if method == list(results)[-1] else part / method
            place.mkdir(exist_ok=True)
            _write_result(place, name, method, target, labels, result, names)
        if len(results) > 1:
            viz.write_png(part / "methods.png", comparison(target, {method: result.image for method, result in results.items()}))


def _write_result(
    place: Path, name: str, method: str, target: np.ndarray, labels: np.ndarray, result: Result, names: Sequence[str]
) -> None:
    entries = pairs.table(labels, result.labels, names)
    viz.write_png(place / "result.png", result.image)
    write_label_map(place / "result-labels.png", result.labels, colours(len(names)))
    headings = ("photo", f"reconstruction, method {method}")
    viz.write_png(place / "pair.png", pairs.sheet(target, result.image, labels, result.labels, names, headings=headings))
    viz.write_png(place / "lost.png", pairs.mask(labels, result.labels, entries)[..., None])
    (place / "classes.csv").write_text(_csv(ENTRY, [_percent(entry) for entry in entries]))
    table = {"photo": name, "method": method, "unit": "percent of the image", "classes": [_percent(entry) for entry in entries]}
    (place / "classes.json").write_text(json.dumps(table, indent=1, allow_nan=False) + "\n")
    codes.write(place / "inversion.safetensors", result.inversion)
    rows = [
        {"step": step, **{part: float(values[step]) for part, values in result.history.items()}}
        for step in range(len(next(iter(result.history.values()), ())))
    ]
    (place / "history.csv").write_text(_csv(["step", *result.history], rows))


def _percent(entry: pairs.Entry) -> dict[str, Any]:
    areas = {key: round(100 * getattr(entry, key), 6) for key in ("photo", "result", "change", "gone", "new")}
    return {"label": entry.label, "class": entry.name, **areas, "lost": entry.lost}


def _csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n", restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def comparison(target: np.ndarray, images: Mapping[str, np.ndarray]) -> np.ndarray:
    """uint8 [H', W', 3]: the photo and each method's reconstruction in a row, under their names."""
    from PIL import Image, ImageDraw, ImageFont

    shown = {"photo": target, **{f"method {method}": image for method, image in images.items()}}
    pictures = [seeing_gallery.enlarge(picture) for picture in shown.values()]
    height, width = pictures[0].shape[:2]
    canvas = Image.new("RGB", (len(pictures) * (width + 6) + 6, height + pairs.LINE + 12), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for number, (heading, picture) in enumerate(zip(shown, pictures, strict=True)):
        left = 6 + number * (width + 6)
        pen.text((left, 4), viz.fitting(heading, width, font), fill="black", font=font)
        canvas.paste(Image.fromarray(picture), (left, pairs.LINE + 6))
    return np.asarray(canvas)


def is_done(out: Path, photo: Photo, methods: Sequence[str]) -> bool:
    """Whether the photo's folder is there; it is whole then. ValueError: a file in it is damaged since."""
    for method in methods:
        path = _folder(out, photo.name, method, methods) / "inversion.safetensors"
        if not path.is_file():
            return False
        try:
            found = codes.read(path)
        except ValueError as error:
            raise ValueError(f"{error}; remove {out / photo.name} to invert this photo again") from error
        if found.about["photo"]["sha256"] != photo.digest:
            return False
    return True


def _folder(out: Path, name: str, method: str, methods: Sequence[str]) -> Path:
    return out / name if method == methods[-1] else out / name / method


def read_labels(path: Path) -> np.ndarray:
    """int32 [h, w] of a PNG that ``write_photo`` wrote."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image).astype(np.int32)


def finish(
    out: Path, run: dict[str, Any], photos: Sequence[Photo], methods: Sequence[str], names: Sequence[str], rank: Sequence[str], shown: int
) -> dict[str, Any]:
    """Writes tables, ranking, sheet and page of photos that are all done, and removes the search's state; returns what invert.json holds.

    Args:
      run: the mark so far.
      names: of the labels. rank: classes whose ranking is asked for. shown: most photos on the page.
    """
    tables: dict[str, dict[str, list[pairs.Entry]]] = {method: {} for method in methods}
    rows = []
    for photo in photos:
        labels = read_labels(out / photo.name / "target-labels.png")
        for method in methods:
            place = _folder(out, photo.name, method, methods)
            entries = pairs.table(labels, read_labels(place / "result-labels.png"), names)
            tables[method][photo.name] = entries
            lost = [entry.name for entry in entries if entry.lost]
            rows.append({"name": photo.name, "method": method, **codes.read(place).about["result"], "lost": lost})
    main = tables[methods[-1]]
    summary = {"main": methods[-1], "methods": _means(rows, methods, run["methods"]), "classes": pairs.summary(main)}
    wanted = list(rank) or [row["class"] for row in summary["classes"] if row["lost"]]
    ranking = {name: pairs.ranking(main, name) for name in wanted}
    run = {**run, "table": rows, "summary": summary, "ranking": ranking}
    columns = list(dict.fromkeys(key for row in rows for key in row))
    files.write_atomic(out / "photos.csv", _csv(columns, [{**row, "lost": " | ".join(row["lost"])} for row in rows]).encode())
    each = [
        {"name": photo, "method": method, **_percent(entry)}
        for method in methods for photo, entries in tables[method].items() for entry in entries
    ]  # fmt: skip
    files.write_atomic(out / "classes.csv", _csv(["name", "method", *ENTRY], each).encode())
    ranked = [
        {"ranked": name, "rank": place, "name": row["photo"], "lost": row["lost"]}
        | {key: round(100 * row[key], 6) for key in ("area", "result", "loss")}
        for name, found in ranking.items() for place, row in enumerate(found, 1)
    ]  # fmt: skip
    files.write_atomic(out / "ranking.csv", _csv(["ranked", "rank", "name", "area", "result", "loss", "lost"], ranked).encode())
    _write_pictures(out, run, photos, main, names, wanted if rank else (), shown)
    run["state"] = "finished"
    marks.write(out, KIND, run)
    shutil.rmtree(out / marks.SEARCH, ignore_errors=True)
    return run


def _means(rows: Sequence[Mapping[str, Any]], methods: Sequence[str], names: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """By method its name and the mean of each number over the photos that have it."""
    means: dict[str, dict[str, Any]] = {}
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        means[method] = {"name": names[method]}
        for key in layer_inversion_page.COLUMNS:
            values = [len(row["lost"]) if key == "lost" else row.get(key) for row in own]
            there = [value for value in values if value is not None]
            means[method][key] = float(np.mean(there)) if there else None
    return means


def _write_pictures(out, run, photos, tables, names, wanted, shown) -> None:
    """The page and the sheet; where not all photos are on the page, those that lost most area are."""
    order = list(photos)
    if len(photos) > shown:
        losses = {name: sum(entry.photo for entry in entries if entry.lost) for name, entries in tables.items()}
        order = sorted(photos, key=lambda photo: -losses[photo.name])[:shown]
    rows = {row["name"]: row for row in run["table"] if row["method"] == run["summary"]["main"]}
    seen, lines = [], []
    for number, photo in enumerate(order):
        place = out / photo.name
        sides = [Segmented(viz.read_png(place / f"{one}.png"), read_labels(place / f"{one}-labels.png")) for one in ("target", "result")]
        if number < SHEET_ROWS:
            images = [seeing_gallery.enlarge(side.image, SHEET_SIDE) for side in sides]
            lines += images + [seeing_overlay.render(s.labels, colours(len(names)), size=images[0].shape[:2]) for s in sides]
        # The page shows no larger ones, and many of these fit in memory.
        sides = [side._replace(image=seeing_gallery.enlarge(side.image)) for side in sides]
        seen.append(layer_inversion_page.Shown(photo.name, *sides, tables[photo.name], rows[photo.name]))
    viz.write_png(out / SHEET, viz.grid(np.stack(lines), columns=4))
    files.write_atomic(out / REPORT, layer_inversion_page.page(run, seen, tables, names, wanted).encode("utf-8", "replace"))


def text(run: Mapping[str, Any]) -> str:
    """What is printed at the end: methods, and the classes that were lost."""
    means = run["summary"]["methods"]
    columns = [key for key in layer_inversion_page.COLUMNS if any(row[key] is not None for row in means.values())]
    heads = [layer_inversion_page.COLUMNS[key][0] for key in columns]
    width = max(len(f"{method} {row['name']}") for method, row in means.items())
    lines = [f"{'method':<{width}}  " + "  ".join(f"{head:>12}" for head in heads)]
    for method, row in means.items():
        cells = "  ".join(f"{'-' if row[key] is None else format(row[key], '.4g'):>12}" for key in columns)
        lines.append(f"{method + ' ' + row['name']:<{width}}  {cells}")
    lines.append("")
    lost = [row for row in run["summary"]["classes"] if row["lost"]]
    for row in lost:
        areas = f"{100 * row['area']:.3g} % of the area, {100 * row['result']:.3g} % in reconstructions"
        lines.append(f"lost: {row['class']}: in {row['lost']} of {row['photos']} photos that hold it; {areas}")
    if not lost:
        lines.append("nothing is lost: every class keeps at least half of its area in each photo")
    for name, rows in run["ranking"].items():
        first = ", ".join(f"{row['photo']} {100 * row['loss']:.3g} %" for row in rows[:5])
        lines.append(f"most {name} lost: {first or 'no photo holds it'}")
    return "\n".join([*lines, *(f"warning: {warning}" for warning in run["warnings"])])
