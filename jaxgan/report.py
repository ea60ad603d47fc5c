"""What a run says: one status line, ``metrics.jsonl``, TensorBoard where it is installed, and grids of samples."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epath

from jaxgan import files, timing, viz

CLOCK = ("seconds", "images_per_second", "seconds_per_kimg", "memory_gb", "mfu")
"""Fields of a metrics line that depend on the clock and the machine; all others repeat exactly when a run is repeated."""


def duration(seconds: float) -> str:
    """'45 s', '12 m 05 s', '3 h 20 m' or '2 d 04 h'."""
    whole = int(round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86400} d {whole % 86400 // 3600:02d} h"


def read_metrics(path: Any, until: int | None = None) -> list[dict[str, Any]]:
    """The lines of a ``metrics.jsonl``, without a last one that was cut short; ``until``: only those of steps up to this one."""
    path = epath.Path(path)
    if not path.exists():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if until is None or line["step"] <= until:
            lines.append(line)
    return lines


class Report:
    """The voice of one run. Every process makes one; only the first writes."""

    def __init__(
        self,
        workdir: Any,
        *,
        steps: int,
        batch: int,
        quiet: bool = False,
        main: bool = True,
        images: Callable[[int], int] | None = None,
    ):
        """``images``: completed steps -> images, where not every step has ``batch`` of them."""
        from rich.console import Console

        self._workdir, self._steps, self._main = epath.Path(workdir), steps, main
        self._images = images or (lambda step: step * batch)
        self._console = Console(highlight=False, soft_wrap=True, quiet=quiet or not main)
        self._live, self._board, self._remote, self._began = None, None, None, time.perf_counter()

    def say(self, text: str) -> None:
        """A sentence for people, above the status line."""
        self._console.print(text, markup=False)

    def begin(self, step: int) -> None:
        """Opens the log for a run that goes on after ``step``: lines of later steps, from a life that ended, are dropped."""
        if not self._main:
            return
        path = self._workdir / "metrics.jsonl"
        lines = [json.dumps(line) + "\n" for line in read_metrics(path, until=step)] if step > 0 else []
        files.write_atomic(path, "".join(lines).encode())
        if files.is_remote(path):
            self._remote = lines
            return
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(self._workdir), purge_step=step + 1 if step else None)

    def log(self, step: int, values: Mapping[str, float], rate: float | None, mfu: float | None = None) -> None:
        """One step: a line of ``metrics.jsonl``, TensorBoard, and the status line.

        Args:
          step: completed steps.
          values: scalars by name; one that is not finite becomes null.
          rate: images per second, where known.
          mfu: share of the chips' peak, where known.
        """
        if not self._main:
            return
        line: dict[str, Any] = {"step": step, "kimg": self._images(step) / 1000}
        line |= {name: float(value) if math.isfinite(value) else None for name, value in values.items()}  # JSON has no NaN
        line["seconds"] = round(time.perf_counter() - self._began, 3)
        line["memory_gb"] = round(timing.memory() / 1e9, 3)
        if rate:
            line["images_per_second"], line["seconds_per_kimg"] = round(rate, 3), round(1000 / rate, 3)
        if mfu is not None:
            line["mfu"] = round(mfu, 4)
        text = json.dumps(line) + "\n"
        path = self._workdir / "metrics.jsonl"
        if self._remote is not None:
            self._remote.append(text)
            files.write_atomic(path, "".join(self._remote).encode())
        else:
            try:
                with path.open("a") as file:
                    file.write(text)
            except OSError as error:
                remedy = "Checkpoints are intact: free some space and run the same command again"
                raise OSError(f"cannot write {path} ({error}). {remedy}") from error
        for name, value in line.items():
            if name != "step" and value is not None:
                self._tensorboard("add_scalar", name, value, step)
        self._status(self.status(line))

    def status(self, line: Mapping[str, Any]) -> str:
        """The status line of a metrics line: kimg, rate, losses, memory and the time that is left."""
        total = self._images(self._steps) / 1000
        digits = 1 if total >= 10 else 3
        parts = [f"kimg {line['kimg']:.{digits}f}/{total:.{digits}f}"]
        rate = line.get("images_per_second")
        if rate:
            parts.append(f"{rate:.1f} images/s  {line['seconds_per_kimg']:.1f} s/kimg")
        losses = [name for name in line if name.startswith("loss/")]
        other = [name for name in line if name not in CLOCK and name not in ("step", "kimg") and not name.startswith("loss/")]
        shown = losses + other[: max(0, 6 - len(losses))]
        parts += [f"{name.removeprefix('loss/')} {'not finite' if line[name] is None else format(line[name], '.3f')}" for name in shown]
        parts.append(f"{line['memory_gb']:.2f} GB")
        if "mfu" in line:
            parts.append(f"MFU {100 * line['mfu']:.1f} %")
        if rate:
            parts.append(f"ETA {duration((1000 * total - self._images(line['step'])) / rate)}")
        return "  ".join(parts)

    def _status(self, text: str) -> None:
        if self._console.quiet:
            return
        if not self._console.is_terminal:
            self.say(text)
            return
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        self._live.update(Text(text, overflow="ellipsis", no_wrap=True), refresh=True)

    def images(self, name: str, images: Any, step: int = 0) -> None:
        """Writes ``samples/NAME.png``, a grid of ``[n, H, W, C]`` images (float in [-1, 1] or uint8)."""
        if not self._main:
            return
        images = np.asarray(images)
        if images.dtype != np.uint8:  # a grid must not end a run: what is not finite is drawn as black
            images = np.where(np.isfinite(images), images, -1.0)
        sheet = viz.grid(images)
        viz.write_png(self._workdir / "samples" / f"{name}.png", sheet)
        if self._board is not None:
            self._tensorboard("add_image", name.split("_")[0], sheet, step, dataformats="HWC")

    def close(self) -> None:
        """Ends the live line and the TensorBoard file."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._tensorboard("close")
        self._board = None

    def _tensorboard(self, method: str, *arguments: Any, **options: Any) -> None:
        if self._board is None:
            return
        try:
            getattr(self._board, method)(*arguments, **options)
        except OSError as error:  # a picture of the run, not the run
            self._board = None
            self.say(f"TensorBoard's file cannot be written ({error}); going on without it. metrics.jsonl has the same numbers.")
