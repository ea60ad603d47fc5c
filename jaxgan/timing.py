"""How fast, on how much: images per second, FLOPs, MFU, memory, processor seconds, and windows of the profiler."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

# Peak dense bfloat16 FLOP/s per chip, from the vendors' public pages: cloud.google.com/tpu/docs (v4 275 T, v5e 197, v5p 459, v6e 918) and
# the NVIDIA data sheets without sparsity (A100 312; H100 SXM and H200 989, PCIe 756, NVL 835). Compared with what
# `jax.Device.device_kind` says, first match first.
PEAKS = (
    ("TPU v6", 918e12),
    ("TPU v5p", 459e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5", 459e12),
    ("TPU v4", 275e12),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100", 312e12),
)


def peak_flops(device_kind: str) -> float | None:
    """Peak dense bfloat16 FLOP/s of one chip, or None for a chip that is not in the table (then no MFU is reported)."""
    return next((peak for name, peak in PEAKS if name.lower() in device_kind.lower()), None)


def flops_of(program: Any) -> float | None:
    """FLOPs of one call of a ``jax.stages.Lowered`` or ``Compiled`` program, or None where the backend does not say.

    A lowered program counts the work of all devices; a compiled one that of one device, and on GPUs it misses the library's convolutions.
    """
    analysis = program.cost_analysis()
    if isinstance(analysis, (list, tuple)):
        analysis = analysis[0] if analysis else {}
    flops = (analysis or {}).get("flops", 0.0)
    return float(flops) if flops > 0 else None


def mfu(flops: float, seconds: float, devices: int, device_kind: str) -> float | None:
    """Share of the peak that ``flops`` in ``seconds`` on ``devices`` chips make; None for a chip that is not in the table."""
    peak = peak_flops(device_kind)
    return None if peak is None or seconds <= 0 else flops / seconds / devices / peak


def cpu_seconds() -> float:
    """Processor seconds of this process so far, all threads, user and system."""
    return time.process_time()


def peak_rss() -> int:
    """Largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory() -> int:
    """Bytes in use at the peak on the fullest local device; where devices do not say (CPU), the peak resident memory."""
    counts = [(device.memory_stats() or {}).get("peak_bytes_in_use", 0) for device in jax.local_devices()]
    return max(counts) or peak_rss()


class Stopwatch:
    """Rates over windows of work, with pauses for what is not work (saving, drawing)."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock, self._begin, self._spent, self._windows = clock, clock(), 0.0, []

    def pause(self) -> None:
        """Stops counting until ``go``."""
        if self._begin is not None:
            self._spent += self._clock() - self._begin
            self._begin = None

    def go(self) -> None:
        """Counts again; no effect while counting."""
        self._begin = self._clock() if self._begin is None else self._begin

    def window(self, images: int) -> float | None:
        """Ends a window in which so many images were worked on, begins the next, and returns images per second (None without work)."""
        running = self._begin is not None
        self.pause()
        rate = images / self._spent if images and self._spent > 0 else None
        if rate is not None:
            self._windows.append(rate)
        self._spent = 0.0
        if running:
            self.go()
        return rate

    def median(self) -> float | None:
        """Median images per second over the last 50 windows."""
        return statistics.median(self._windows[-50:]) if self._windows else None


class Timing(NamedTuple):
    """What ``benchmark`` measured."""

    seconds: float
    """Median over the windows of the wall seconds per call."""
    cpu_seconds: float
    """Median over the windows of the processor seconds per call."""
    windows: tuple[float, ...]
    """Wall seconds per call in each window."""
    calls: int
    """Calls in each window."""
    peak_rss: int
    """Bytes, of the whole process so far."""


def benchmark(call: Callable[[], Any], *, windows: int = 5, seconds: float = 1.0, warm_up: int = 2) -> Timing:
    """Times a compiled step: warm-up first, then several windows, and the median of them.

    Args:
      call: does the work once and returns its arrays; whatever it carries from call to call (a donated state) it keeps itself.
      windows: number of windows.
      seconds: about how long a window lasts; at least one call.
      warm_up: calls before the clock starts, the first of which compiles.

    Raises:
      ValueError: fewer than one window or one warm-up call.
    """
    if windows < 1 or warm_up < 1:
        raise ValueError(f"windows = {windows} and warm_up = {warm_up} must both be at least 1")
    for _ in range(warm_up):
        jax.block_until_ready(call())
    begin = time.perf_counter()
    jax.block_until_ready(call())
    calls = max(1, round(seconds / max(time.perf_counter() - begin, 1e-9)))
    wall, cpu = [], []
    for _ in range(windows):
        begin, begin_cpu = time.perf_counter(), cpu_seconds()
        for _ in range(calls):
            result = call()
        jax.block_until_ready(result)
        wall.append((time.perf_counter() - begin) / calls)
        cpu.append((cpu_seconds() - begin_cpu) / calls)
    return Timing(statistics.median(wall), statistics.median(cpu), tuple(wall), calls, peak_rss())


class Trace:
    """A window of the profiler: steps ``first`` to ``last`` (counted from 1) of a run, written under ``folder``."""

    def __init__(self, folder: Any, steps: tuple[int, int] | None):
        if steps is not None and not 1 <= steps[0] <= steps[1]:
            raise ValueError(f"trace {steps}: give the first and the last step, with 1 <= first <= last")
        self._folder, self._steps, self._running = str(folder), steps, False

    def before(self, step: int) -> None:
        """Call before a step is dispatched."""
        if self._steps and not self._running and self._steps[0] <= step <= self._steps[1]:
            jax.profiler.start_trace(self._folder)
            self._running = True

    def after(self, step: int, result: Any) -> None:
        """Call after it; waits for the last step of the window, so that its work is in the trace."""
        if self._running and step >= self._steps[1]:
            jax.block_until_ready(result)
            self.close()

    def close(self) -> None:
        """Ends a window that is still open."""
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
