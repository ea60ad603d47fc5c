"""What a run leaves in its workdir, in a form in which two runs can be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jaxgan import checkpoint, report


def newest(workdir: Path) -> dict[str, Any]:
    """Of the newest checkpoint: the checksums of all leaves, its step and the data position."""
    step = checkpoint.steps_in(workdir / "checkpoints")[-1]
    manifest = json.loads((workdir / "checkpoints" / str(step) / "manifest" / "metadata").read_text())
    return {name: leaf[2] for name, leaf in manifest["leaves"].items()} | {"step": step, "positions": manifest["positions"]}


def log(workdir: Path) -> list[dict[str, Any]]:
    """The metrics log without the clock."""
    lines = report.read_metrics(workdir / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name not in report.CLOCK} for line in lines]
