"""Scenes drawn and PNG-encoded by several processes at once, handed over in the order of their index.

Plain child interpreters and pipes rather than multiprocessing: a spawned pool runs the caller's main module again, which hangs or fails in
scripts without a guard, and a forked one is unsafe once JAX has threads. A child ends when its pipe closes, so none outlives the parent.
"""

from __future__ import annotations

import io
import os
import pathlib
import struct
import subprocess
import sys
from collections.abc import Iterator

BLOCK = 64
"""Consecutive scenes drawn by one process in turn."""

_HEADER = struct.Struct("<II")


def encode_png(array) -> bytes:
    """PNG bytes of a uint8 array [H, W] or [H, W, 1 | 3 | 4]; at level 1, since time counts more than bytes here."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array).save(out, "PNG", compress_level=1)
    return out.getvalue()


def processes_for(count: int) -> int:
    """How many processes draw `count` scenes: every core at hand up to 16, one where starting them (0.3 s) would not pay."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if count < 1000 else max(1, min(cores, 16))


def draw_pngs(
    count: int, height: int, width: int, *, periodic: bool, seed: int, without: tuple[str, ...] = (), processes: int = 1
) -> Iterator[tuple[bytes, bytes]]:
    """PNG bytes of the image and of the label map of scenes 0..count-1, in order. Raises RuntimeError if a drawing process fails."""
    if processes <= 1:
        yield from (_draw(index, height, width, periodic, seed, without) for index in range(count))
        return
    package = str(pathlib.Path(__file__).resolve().parents[2])
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH")))))
    children = []
    try:
        for turn in range(processes):
            arguments = (turn, processes, count, height, width, int(periodic), seed, without)
            command = [sys.executable, "-c", f"from jaxgan.data.drawers import _child; _child{arguments}"]
            children.append(subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment))
        for index in range(count):
            pipe = children[index // BLOCK % processes].stdout
            header = pipe.read(_HEADER.size)
            sizes = _HEADER.unpack(header) if len(header) == _HEADER.size else (0, 0)
            image, label = pipe.read(sizes[0]), pipe.read(sizes[1])
            if not image or len(label) != sizes[1]:
                raise RuntimeError(f"a process that draws scenes ended early, at scene {index} of {count}; its own message is above")
            yield image, label
    finally:
        for child in children:
            child.stdout.close()
            child.terminate()
        for child in children:
            child.wait()


def _draw(index: int, height: int, width: int, periodic: bool, seed: int, without: tuple[str, ...]) -> tuple[bytes, bytes]:
    from jaxgan.data.scenes import draw_scene

    image, labels = draw_scene(index, height, width, periodic=periodic, seed=seed, without=without)
    return encode_png(image), encode_png(labels)


def _child(turn: int, processes: int, count: int, height: int, width: int, periodic: int, seed: int, without: tuple[str, ...]) -> None:
    """Writes every block whose turn it is to standard output: two lengths, then two PNGs, for each scene."""
    out = sys.stdout.buffer
    try:
        for start in range(turn * BLOCK, count, processes * BLOCK):
            for index in range(start, min(start + BLOCK, count)):
                image, label = _draw(index, height, width, bool(periodic), seed, without)
                out.write(_HEADER.pack(len(image), len(label)) + image + label)
        out.flush()
    except BrokenPipeError:
        os._exit(0)  # the parent has gone or has had enough
