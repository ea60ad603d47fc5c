"""Files that are whole or absent: atomic writes, and whether a folder can take what a run is about to write."""

from __future__ import annotations

import os
import shutil
import uuid
from typing import Any


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


def check_writable(folder: Any, needed: int) -> None:
    """Makes a folder and proves that it can be written.

    Args:
      folder: local path or object store.
      needed: bytes that are going to be written; compared with the free space of a local disk.

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
            raise OSError(
                f"{existing} has {free / 1e6:,.1f} MB free and this run's checkpoints need {needed / 1e6:,.1f} MB: free some space, "
                "choose another workdir, or keep fewer checkpoints (run.keep)"
            )
    probe = folder / f".writable.{uuid.uuid4().hex[:8]}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise OSError(f"cannot write to {folder} ({error}): choose a workdir that can be written") from error
