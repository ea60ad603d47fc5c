"""The frames of a video of any length, in bounded memory."""

from __future__ import annotations

import tempfile
import weakref
from typing import Any

import numpy as np

MEMORY_BYTES = 256 << 20
"""Frames that take more lie in a temporary file that is mapped."""


class Frames:
    """Frames uint8 of one shape, one after the other: in memory up to ``most`` bytes, beyond that in a temporary file without a name.

    The file lies where Python's ``tempfile`` puts it (``TMPDIR``) and is gone with the last array that ``stacked`` gave.
    """

    def __init__(self, most: int = MEMORY_BYTES):
        self._most, self._count, self._shape = most, 0, ()
        self._held: list[np.ndarray] = []
        self._file: Any = None

    def append(self, frame: np.ndarray) -> None:
        """Raises ValueError for a frame of another shape than the first, OSError where the file finds no room."""
        if self._count and frame.shape != self._shape:
            raise ValueError(f"frame {self._count} is {frame.shape}, the first {self._shape}")
        self._count, self._shape = self._count + 1, frame.shape
        self._held.append(frame)
        if self._count * frame.nbytes > self._most:
            self._write()

    def stacked(self) -> np.ndarray:
        """All frames, uint8 [T, ...]; to read, not to write. Raises ValueError where there is none."""
        if self._file is None:
            return np.stack(self._held)
        self._write()
        return np.memmap(self._file, np.uint8, "r", shape=(self._count, *self._shape))

    def _write(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  (closed with this object; a map of it lives on)
            weakref.finalize(self, self._file.close)
        for frame in self._held:
            self._file.write(np.ascontiguousarray(frame, np.uint8).data)
        self._file.flush()
        self._held = []
