"""A progress bar for passes over images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class bar:
    """A progress bar on stderr that leaves no trace when it ends; nothing where it has no title or stderr is no terminal."""

    def __init__(self, title: str, total: int):
        self._title, self._total, self._progress = title, total, None

    def __enter__(self) -> Callable[[int], None]:
        if not self._title:
            return lambda count: None
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        if not console.is_terminal:
            return lambda count: None
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, transient=True)
        self._progress.start()
        task = self._progress.add_task(self._title, total=self._total)
        return lambda count: self._progress.advance(task, count)

    def __exit__(self, *_: Any) -> None:
        if self._progress is not None:
            self._progress.stop()
