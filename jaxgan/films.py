"""Films: frames to an mp4 (H.264), by the ffmpeg that comes with imageio-ffmpeg."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jaxgan.files import local_folder


def write_film(path: Any, frames: Iterable[np.ndarray], fps: float = 25.0, quality: int = 18) -> int:
    """Writes frames uint8 [H, W, 3] of one even height and width as they come, whole or not at all; returns how many.

    Args:
      path: a local .mp4 file.
      fps: frames a second.
      quality: constant rate factor of H.264, from 0 (lossless) to 51; 18 is hard to tell from the frames.

    Raises:
      ValueError: no frame, a frame of another shape, an odd side, or a path that is no local .mp4. OSError: ffmpeg failed.
    """
    path = check_film(path, fps)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".{path.stem}.{uuid.uuid4().hex[:8]}.tmp.mp4"
    encoder, count, shape = None, 0, None
    try:
        with tempfile.TemporaryFile() as said:
            for frame in frames:
                if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.shape != (shape or frame.shape):
                    raise ValueError(f"frame {count} is {frame.dtype} {frame.shape}; a film takes uint8 {shape or '[H, W, 3]'}")
                if encoder is None:
                    shape = frame.shape
                    if shape[0] % 2 or shape[1] % 2:
                        raise ValueError(f"frames of {shape[0]}x{shape[1]} px: H.264 needs even sides")
                    encoder = _start(part, shape, fps, quality, said)
                try:
                    encoder.stdin.write(frame.tobytes())
                except BrokenPipeError:
                    break
                count += 1
            if encoder is None:
                raise ValueError("a film needs at least one frame")
            _end(encoder)
            if encoder.wait():
                said.seek(0)
                raise OSError(f"{path}: ffmpeg failed: {said.read()[-500:].decode(errors='replace').strip()}")
        os.replace(part, path)
    finally:
        if encoder is not None and encoder.poll() is None:
            encoder.kill()
            _end(encoder)
            encoder.wait()
        part.unlink(missing_ok=True)
    return count


def _start(part: Path, shape: tuple[int, ...], fps: float, quality: int, said: Any) -> subprocess.Popen:
    # Not imageio_ffmpeg.write_frames: it forks this process, of which JAX warns, for its threads do not survive that.
    import imageio_ffmpeg

    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{shape[1]}x{shape[0]}", "-r", f"{fps:g}", "-i", "-"]
    coded = ["-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", f"{quality}", "-movflags", "+faststart"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *raw, *coded, str(part)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said)


def _end(encoder: subprocess.Popen) -> None:
    with contextlib.suppress(BrokenPipeError):
        encoder.stdin.close()


def check_film(path: Any, fps: float = 25.0) -> Path:
    """The path of a film that can be written there; ValueError where it is no local .mp4, or fps is not above 0."""
    path = local_folder(path)
    if path.suffix != ".mp4":
        raise ValueError(f"{path} is no .mp4: films are written as that")
    if not 0 < fps <= 240:
        raise ValueError(f"{fps} frames a second: give a number above 0, at most 240")
    return path
