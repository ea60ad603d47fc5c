"""Folders that a command fills photo by photo, and in which the same command goes on: a mark in them says which run they hold.

A photo's own folder is whole or absent; ``.search`` holds the state of the batch that is being searched.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxgan import files
from jaxgan.photos import Photo

SEARCH = ".search"
STATUS_SECONDS = 30.0
"""Between two status lines."""


class Kind(NamedTuple):
    """A command's mark."""

    name: str
    """Of the file."""
    format: str
    """Its entry 'format'."""
    command: str
    """For people: 'jaxgan embed'."""
    changeable: tuple[str, ...]
    """Options that the same command may have otherwise when it goes on: they change no result of a photo."""
    compared: tuple[str, ...]
    """Entries that must be equal, beside the generator, the options and the photos."""


def read(out: Path, kind: Kind) -> dict[str, Any] | None:
    """The mark of a folder, or None where there is none. ValueError: it is something else."""
    path = out / kind.name
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
        if found["format"] == kind.format:
            return found
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ValueError(f"{path} is not one that `{kind.command}` wrote; name another folder with --out")


def check(out: Path, kind: Kind, run: Mapping[str, Any], needed: int) -> dict[str, Any] | None:
    """Whether `out` can take a run: None where it is new, the earlier mark where the same run goes on.

    Args:
      run: 'generator' (with 'digest'), 'options', 'photos' ('name' and 'sha256' each), and what ``kind.compared`` names.
      needed: bytes that are going to be written at most.

    Raises:
      ValueError: it holds another run (names what differs), or other files. OSError: it cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; --out names the folder that shall hold the results")
    earlier = read(out, kind) if out.is_dir() else None
    if earlier is None and out.is_dir() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty and holds no earlier run ({kind.name}); name a new folder with --out")
    if earlier is not None and (other := difference(earlier, run, kind)):
        raise ValueError(f"{out} holds another run ({other}); name another folder with --out, or remove that one first")
    words = "the results and the state of a batch take up to"
    rule = files.Refusal(words, "use a smaller --batch, or name a folder on another disk with --out", "name another folder with --out")
    files.check_writable(out, needed + 2**20, rule)
    return earlier


def difference(earlier: Mapping[str, Any], run: Mapping[str, Any], kind: Kind) -> str:
    """The first thing in which two runs differ, in words; empty where they are the same."""
    generators = [one["generator"]["digest"] for one in (earlier, run)]
    if generators[0] != generators[1]:
        return f"its generator is sha256 {generators[0][:12]}, here it is {generators[1][:12]}"
    there, here = earlier["options"], json.loads(json.dumps(run["options"]))
    for key in sorted(here.keys() | there.keys()):
        if key not in kind.changeable and there.get(key) != here.get(key):
            return f"{key} is {there.get(key)!r} there and {here.get(key)!r} here"
    for key in kind.compared:
        there, here = earlier[key], json.loads(json.dumps(run[key]))
        if there == here:
            continue
        if not isinstance(there, dict) or not isinstance(here, dict):
            return f"its {key} are others"
        part = next(part for part in (*here, *there) if here.get(part) != there.get(part))
        return f"of its {key}, {part} is {_brief(there.get(part))} there and {_brief(here.get(part))} here"
    there, here = ({photo["name"]: photo["sha256"] for photo in one["photos"]} for one in (earlier, run))
    for name in [*here, *there]:
        if there.get(name) != here.get(name):
            what = "is not among its photos" if name not in there else "is only there" if name not in here else "is another photo there"
            return f"{name} {what}"
    return ""


def _brief(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def write(out: Path, kind: Kind, run: Mapping[str, Any]) -> None:
    """The mark, whole or not at all."""
    files.write_atomic(out / kind.name, (json.dumps(run, indent=1, allow_nan=False) + "\n").encode())


def group_folder(out: Path, photos: Sequence[Photo]) -> Path:
    """Where the state of these photos' search is kept."""
    names = "".join(f"{photo.name}\0{photo.digest}\0" for photo in photos)
    return out / SEARCH / hashlib.sha256(names.encode()).hexdigest()[:16]


def forget(out: Path, photos: Sequence[Photo]) -> None:
    """Removes the state of these photos' search, once their folders are written."""
    shutil.rmtree(group_folder(out, photos), ignore_errors=True)


@contextlib.contextmanager
def whole(out: Path, name: str) -> Iterator[Path]:
    """A folder to fill that becomes ``out / name`` at the end, in the place of an earlier one; it goes away where an error ends it."""
    part = out / f".{name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        part.mkdir(parents=True)
        yield part
        shutil.rmtree(out / name, ignore_errors=True)
        part.rename(out / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def groups(photos: Sequence[Photo], batch: int) -> list[list[Photo]]:
    """As few groups of at most `batch` as there may be, of sizes as equal as can be."""
    count = -(-len(photos) // batch)
    bounds = [len(photos) * k // count for k in range(count + 1)]
    return [list(photos[a:b]) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


class Clock:
    """Seconds spent on a batch, those before an interruption included; and when the next status line is due."""

    def __init__(self, path: Path):
        self._path, self._begun, self._said = path, time.monotonic(), time.monotonic()
        self._earlier = json.loads(path.read_text()) if path.exists() else 0.0

    def total(self) -> float:
        return self._earlier + time.monotonic() - self._begun

    def due(self) -> bool:
        """True at most once in ``STATUS_SECONDS``."""
        if time.monotonic() - self._said < STATUS_SECONDS:
            return False
        self._said = time.monotonic()
        return True

    def write(self) -> None:
        files.write_atomic(self._path, json.dumps(self.total()).encode())
