"""Frames of long videos: the same array whether they fit into memory or not, and no more memory than allowed."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from jaxgan.data.frames import Frames


@pytest.mark.parametrize("most", [0, 100, 500, 10_000])
def test_frames_come_back_in_order_from_memory_and_from_the_file(most):
    frames = np.random.default_rng(0).integers(0, 256, (20, 4, 5, 3), dtype=np.uint8)
    kept = Frames(most)
    for frame in frames:
        kept.append(frame[:, ::-1])
    found = kept.stacked()
    assert isinstance(found, np.memmap) == (most < frames.nbytes)
    del kept
    np.testing.assert_array_equal(found, frames[:, :, ::-1])


def test_a_long_video_takes_no_more_memory_than_is_allowed():
    kept = Frames(1 << 20)
    tracemalloc.start()
    for number in range(400):
        kept.append(np.full((128, 128, 3), number % 256, np.uint8))  # 20 MB in all
    found = kept.stacked()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 << 20 and found.shape == (400, 128, 128, 3) and found[399, 0, 0, 0] == 399 % 256


def test_a_frame_of_another_size_is_named_and_no_frame_is_an_error():
    kept = Frames()
    with pytest.raises(ValueError):
        kept.stacked()
    kept.append(np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(ValueError, match=r"frame 1 is \(4, 5, 3\), the first \(4, 4, 3\)"):
        kept.append(np.zeros((4, 5, 3), np.uint8))
