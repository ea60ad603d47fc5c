"""What `jaxgan seeing` leaves behind: the folder of a report, and what is printed."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxgan import files
from jaxgan.systems import seeing_page
from jaxgan.systems.seeing_page import between, chance, number, percent, signed

MARK = "report.json"
"""A folder with this file, written here, is a report, and may be replaced by a newer one."""
PRINTED = 20
"""Classes in the table that is printed; those with a verdict are always in it."""
COLUMNS = (
    "label", "name", "real", "fake", "delta", "interval_low", "interval_high", "difference", "difference_low", "difference_high", "share",
    "p_uncorrected", "p", "significant", "images_real", "images_fake", "only_fake", "verdict",
)  # fmt: skip
"""Of classes.csv; areas, shares and images in percent, delta as a fraction."""


def check(out: Any) -> None:
    """Proves that the folder can take a report. ValueError: it holds something else, or is not local. OSError: it cannot be written."""
    folder = files.local_folder(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; --out names the folder that shall hold the report")
    if folder.is_dir() and any(folder.iterdir()) and not _is_report(folder / MARK):
        raise ValueError(f"{folder} is not empty and holds no earlier report ({MARK}); name a new folder with --out")
    rule = files.Refusal("a report takes up to", "or name a folder on another disk with --out", "name another folder with --out")
    files.check_writable(folder, 64 * 2**20, rule)


def _is_report(path: Path) -> bool:
    """Whether the file was written here: others call theirs report.json too, and have a folder of images beside it."""
    try:
        report = json.loads(path.read_text("utf-8"))
        return "fsd" in report and report["protocol"]["program"].startswith("jaxgan ")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def write(out: Any, report: Mapping[str, Any], rows: Mapping[str, np.ndarray], gallery: Any) -> None:
    """Writes the whole report; an earlier one in the same folder is replaced. ValueError and OSError as in ``check``."""
    check(out)
    folder = files.local_folder(out)
    page = seeing_page.page(report, gallery.shown)
    table = json.dumps(report, indent=1, allow_nan=False)
    files.write_atomic(folder / MARK, table.encode())  # first: from here on the folder is known as a report
    files.write_atomic(folder / "classes.csv", classes_csv(report).encode())
    files.write_atomic(folder / "images.csv", images_csv(report, rows).encode("utf-8", "surrogateescape"))
    for name in ("figure.png", "figure-dark.png"):
        if name in gallery.shown:
            files.write_atomic(folder / name, gallery.shown[name])
    fresh = folder / f".images.{os.getpid()}.tmp"
    try:
        for name, content in gallery.files.items():
            files.write_atomic(fresh / name, content)
        shutil.rmtree(folder / "images", ignore_errors=True)
        if fresh.exists():
            fresh.rename(folder / "images")
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    files.write_atomic(folder / "report.html", page.encode("utf-8", "replace"))


def classes_csv(report: Mapping[str, Any]) -> str:
    """One line for each class; the columns are `COLUMNS`."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for entry in report["classes"]:
        low, high = entry["interval"] or (None, None)
        ends = entry["difference_interval"]
        extra = {"interval_low": low, "interval_high": high, "difference_low": ends[0], "difference_high": ends[1]}
        writer.writerow({key: value for key, value in {**entry, **extra}.items() if key in COLUMNS})
    return buffer.getvalue()


def images_csv(report: Mapping[str, Any], rows: Mapping[str, np.ndarray]) -> str:
    """One line for each image: side, name, percent of its area by class (classes with any area)."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    labels = [entry["label"] for entry in report["classes"]]
    writer.writerow(["side", "image", *(entry["name"] for entry in report["classes"])])
    for side in ("real", "fake"):
        for name, row in zip(report["images"][side], 100 * rows[side][:, labels], strict=True):
            writer.writerow([side, name, *(f"{value:.5g}" for value in row)])
    return buffer.getvalue()


def text(report: Mapping[str, Any]) -> str:
    """The report for a terminal: headline, distance, floor, and the classes that differ, then the largest."""
    fsd = report["fsd"]
    lines = [line["text"] for line in report["headline"]] + [""]
    lines.append(
        f"FSD {number(fsd['total'])} (mean {number(fsd['mean'])}, covariance {number(fsd['covariance'])}), "
        f"{fsd['level']:.0%} interval {number(fsd['interval'][0])} to {number(fsd['interval'][1])}"
    )
    if fsd["floor"]:
        lines.append(f"real against real {number(fsd['floor']['value'])} ({fsd['floor']['how']})")
    chosen = [entry for entry in report["classes"] if entry["verdict"]]
    chosen += [entry for entry in report["classes"] if not entry["verdict"]][: max(0, PRINTED - len(chosen))]
    width = max([5, *(min(24, len(entry["name"])) for entry in chosen)])
    lines += ["", f"{'class':<{width}}   real %   fake %   change  {'interval':<18} of means  images % real → fake        p  verdict"]
    for entry in chosen:
        images = f"{percent(entry['images_real'])} → {percent(entry['images_fake'])}"
        tail = f"{percent(entry['share']):>8}  {images:>22} {chance(entry['p']):>8}  {entry['verdict']}"
        lines.append(
            f"{entry['name'][:width]:<{width}}  {percent(entry['real']):>7}  {percent(entry['fake']):>7}  {signed(entry['delta']):>7}  "
            f"{between(entry['interval']):<18} {tail}".rstrip()
        )
    left = len(report["classes"]) - len(chosen)
    if left:
        lines.append(f"and {left} more classes: classes.csv")
    return "\n".join([*lines, *(f"warning: {warning}" for warning in report["warnings"])])
