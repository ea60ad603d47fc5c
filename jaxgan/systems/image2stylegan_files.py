"""What `jaxgan embed` leaves behind: a folder for each photo, embed.json with the table, the sheet; and how a stopped run goes on.

OUT/NAME/ holds code.safetensors, target.png, start.png and result.png (as compared), full.png (where that is smaller than what the
generator makes), history.csv and film.mp4 (on request); every one of these folders is whole or absent. OUT/.search/ holds the state of
the unfinished batch.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgan import code_files, films, marks, viz
from jaxgan.photos import Photo
from jaxgan.style_generators import StyleGenerator
from jaxgan.systems import image2stylegan_sheet as pictures
from jaxgan.systems.image2stylegan import Embedded

MARK = "embed.json"
SHEET = "sheet.png"
SHEET_ROWS = 100
"""Most photos on the sheet; more make a picture that few programs open."""
FORMAT = "jaxgan embedding 1"
SEARCH = marks.SEARCH
RESERVED = (MARK, SHEET, "film.mp4")
"""Names in the output that are no photo's."""
KIND = marks.Kind(MARK, FORMAT, "jaxgan embed", ("batch",), ("networks", "companions"))


def check(out: Path, run: Mapping[str, Any], stays: int, state: int) -> dict[str, Any] | None:
    """``marks.check``; `stays`: bytes that are written for good, `state`: those of a batch's state while it is searched."""
    return marks.check(out, KIND, run, stays + state)


def is_done(out: Path, photo: Photo, generator: StyleGenerator) -> bool:
    """Whether the photo's folder is there; it is whole then. ValueError: its code is damaged or of another generator."""
    path = out / photo.name / "code.safetensors"
    return path.is_file() and code_files.read_code(path, generator).about["photo"]["sha256"] == photo.digest


def numbers(found: Embedded, i: int, mean: np.ndarray, lpips: Sequence[float | None], seconds: float) -> dict[str, Any]:
    """The table's row of image i: loss and its parts where the search ended, PSNR of 8 bits, LPIPS, distance to the mean code, steps.

    Args:
      lpips: of start and result, None where it was not measured.
      seconds: of the whole search, divided by the images searched at once.
    """
    losses = {name: {part: float(rows[kept[i], i]) for part, rows in history.items()} for (name, history), kept in _stages(found)}
    last = losses[found.history[-1][0]]
    psnrs = [_psnr(found.targets[i], images[i]) for images in (found.before, found.images)]
    return {
        "loss": _finite(last["loss"]),
        "loss_before": _finite(float(found.history[0][1]["loss"][0, i])),
        "parts": {name: {part: _finite(value) for part, value in parts.items()} for name, parts in losses.items()},
        "psnr": psnrs[1],
        "psnr_before": psnrs[0],
        "lpips": lpips[1],
        "lpips_before": lpips[0],
        "distance": float(np.linalg.norm(found.codes[i] - mean)),
        "steps": {name: int(kept[i]) for (name, _), kept in _stages(found)},
        "failed": bool(found.failed[i]),
        "seconds": round(seconds, 3),
    }


def _stages(found: Embedded) -> list[tuple[tuple[str, dict[str, np.ndarray]], np.ndarray]]:
    return list(zip(found.history, found.kept, strict=True))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _psnr(target: np.ndarray, image: np.ndarray) -> float | None:
    """In dB, of the images as they are written; None for equal ones."""
    difference = viz.to_uint8(target).astype(np.float64) - viz.to_uint8(image)
    error = float(np.square(difference).mean())
    return 10 * float(np.log10(255.0**2 / error)) if error else None


def history_csv(found: Embedded, i: int) -> str:
    """One line for each step of each stage: stage, step, loss, the parts without their weights; up to what was found."""
    parts = list(dict.fromkeys(part for _, history in found.history for part in history))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["stage", "step", *parts])
    for (name, history), kept in _stages(found):
        for step in range(int(kept[i]) + 1):
            writer.writerow([name, step, *(f"{history[part][step, i]:.7g}" if part in history else "" for part in parts)])
    return buffer.getvalue()


def write_photo(
    out: Path, photo: Photo, found: Embedded, i: int, about: Mapping[str, Any], full: np.ndarray | None, frames: Sequence[np.ndarray]
) -> None:
    """OUT/NAME/, whole or not at all. `full`: uint8 image of the generator's size, where it is larger; `frames`: of the film, or none."""
    with marks.whole(out, photo.name) as part:
        noise = None if found.noise is None else {name: array[i] for name, array in found.noise.items()}
        code_files.write_code(part / "code.safetensors", found.codes[i], noise=noise, about=about)
        viz.write_png(part / "target.png", found.targets[i])
        viz.write_png(part / "result.png", found.images[i])
        viz.write_png(part / "start.png", found.before[i])
        if full is not None:
            viz.write_png(part / "full.png", full)
        (part / "history.csv").write_text(history_csv(found, i))
        if frames:
            beside = pictures.frames_beside(pictures.shrink(viz.to_uint8(found.targets[i])), frames)
            films.write_film(part / "film.mp4", beside, pictures.RATE)


def finish(out: Path, run: dict[str, Any], photos: Sequence[Photo], generator: StyleGenerator) -> dict[str, Any]:
    """Writes the table, a sheet of the first ``SHEET_ROWS`` photos, removes the search's state; returns what embed.json holds."""
    results = [code_files.read_code(out / photo.name / "code.safetensors", generator).about["result"] for photo in photos]
    run = {**run, "table": [{"name": photo.name, **result} for photo, result in zip(photos, results, strict=True)]}
    marks.write(out, KIND, run)
    rows = []
    for photo, result in zip(photos[:SHEET_ROWS], results, strict=False):
        read = (viz.read_png(out / photo.name / f"{name}.png") for name in ("target", "start", "result"))
        rows.append(pictures.Row(photo.name, *(pictures.shrink(picture) for picture in read), result))
    viz.write_png(out / SHEET, pictures.sheet(rows))
    run["state"] = "finished"
    marks.write(out, KIND, run)
    shutil.rmtree(out / SEARCH, ignore_errors=True)
    return run


def text(run: Mapping[str, Any]) -> str:
    """The table for a terminal."""
    width = max([5, *(min(32, len(row["name"])) for row in run["table"])])
    lines = [f"{'photo':<{width}}  {'loss':>10}  {'PSNR dB':>15}  {'LPIPS':>16}  {'|w - mean|':>10}  {'steps':>9}  {'seconds':>8}"]
    for row in run["table"]:
        psnr, lpips = (f"{_short(row[f'{name}_before'], d)} → {_short(row[name], d)}" for name, d in (("psnr", 2), ("lpips", 4)))
        steps = "+".join(str(count) for count in row["steps"].values())
        line = f"{row['name'][:width]:<{width}}  {_short(row['loss'], 5):>10}  {psnr:>15}  {lpips:>16}  {row['distance']:>10.2f}"
        lines.append(f"{line}  {steps:>9}  {row['seconds']:>8.1f}{'  stopped: a number was not finite' if row['failed'] else ''}")
    return "\n".join(lines)


def _short(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
