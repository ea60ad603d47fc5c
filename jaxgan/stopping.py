"""^C and SIGTERM as a question that the loop asks between two steps, with the same answer in all processes."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

import jax


class Stop:
    """Whether ^C or SIGTERM has arrived, agreed across processes. A second ^C interrupts at once."""

    def __init__(self) -> None:
        self._asked, self._before, self._many = False, {}, jax.process_count() > 1

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            # With several processes jax.distributed has its own SIGTERM handler, which tells the others and agrees on a step.
            for number in (signal.SIGINT,) if self._many else (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: Any) -> None:
        self._asked = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._many:
            os.kill(os.getpid(), signal.SIGTERM)

    def __call__(self, step: int) -> bool:
        """True in all processes at the same step; all must ask at every step."""
        if not self._many:
            return self._asked
        from jax.experimental import multihost_utils

        return multihost_utils.reached_preemption_sync_point(step)

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
