"""Files that are whole or absent: atomic writes, and whether a folder can take what a run is about to write."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from pathlib import Path
from typing import Any, NamedTuple


def write_atomic(path: Any, data: bytes) -> None:
    """Writes a file under a temporary name in the same folder, then renames it; readers see the old content or the new, never a part.

    Args:
      path: local path or anything ``etils.epath`` takes (``gs://``); the folder is made where missing.
      data: the whole content.

    Raises:
      OSError: the folder cannot be written or the disk is full; the temporary file is removed.
    """
    from etils import epath

    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def is_remote(path: Any) -> bool:
    """True for object stores (``gs://``, ``s3://``), which cannot append and have no free-space figure."""
    return "://" in os.fspath(path)


def absolute(path: Any) -> Any:
    """``etils.epath.Path`` of a path; a relative local one is taken from the current folder (orbax takes no relative ones)."""
    from etils import epath

    return epath.Path(path if is_remote(path) else os.path.abspath(path))


def local_folder(path: Any) -> Path:
    """The folder that `path` names, ~ expanded. ValueError: an object store (``gs://``), also where a ``Path`` has made gs:/ of it."""
    text = os.fspath(path)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise ValueError(f"{text} is not a folder of this machine, which is needed here: name one, and copy it there when it is written")
    return Path(text).expanduser()


class Refusal(NamedTuple):
    """What ``check_writable`` says of a folder that cannot be used."""

    need: str
    """Before the number of megabytes."""
    space: str
    """The remedy for too little space."""
    place: str
    """The remedy for a folder that cannot be written."""


RUN = Refusal(
    "this run's checkpoints need", "choose another workdir, or keep fewer checkpoints (run.keep)", "choose a workdir that can be written"
)


def check_writable(folder: Any, needed: int, refusal: Refusal = RUN) -> None:
    """Makes a folder and proves that it can be written.

    Args:
      folder: local path or object store.
      needed: bytes that are going to be written; compared with the free space of a local disk.
      refusal: the words of the errors.

    Raises:
      OSError: the folder cannot be made or written, or too little space is free.
    """
    from etils import epath

    folder = epath.Path(folder)
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not is_remote(folder):
        free = shutil.disk_usage(existing).free
        if free < needed:
            sizes = f"{free / 1e6:,.1f} MB free and {refusal.need} {needed / 1e6:,.1f} MB"
            raise OSError(f"{existing} has {sizes}: free some space, {refusal.space}")
    probe = folder / f".writable.{uuid.uuid4().hex[:8]}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise OSError(f"cannot write to {folder} ({error}): {refusal.place}") from error
