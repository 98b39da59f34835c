"""How far an import is: a bar on a terminal, a line now and then elsewhere; on stderr."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from curation.engine.progress import EVERY, clock


class ImportProgress:
    """Counts parts and rows; a context manager.

    Args:
        parts: of the data set.
        done: of them, by earlier runs.
    """

    def __init__(self, parts: int, done: int) -> None:
        self.parts, self.before = parts, done
        self.done = self.rows = self.accepted = 0
        self.console = Console(stderr=True)
        self._began = self._said = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self._bar = self._bars.add_task("parts", total=parts, completed=done)

    def __enter__(self) -> Self:
        self._bars.start()
        if self.before and not self.console.is_terminal:
            self._say(f"{self.before} of {self.parts} parts are done")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def add(self, record: dict[str, Any]) -> None:
        """A part is done."""
        self.done += 1
        self.rows += record["rows"]
        self.accepted += record["accepted"]
        words = f"{self.rows} rows, {self.accepted} accepted"
        self._bars.update(self._bar, completed=self.before + self.done, description=words)
        taken = time.monotonic() - self._began
        if not self.console.is_terminal and time.monotonic() - self._said >= EVERY:
            left = taken / self.done * (self.parts - self.before - self.done)
            self._say(
                f"parts {self.before + self.done}/{self.parts}, {words}, {self.rows / taken:.0f} rows a "
                f"second, {clock(taken)}, {clock(left)} left"
            )

    def _say(self, line: str) -> None:
        self._said = time.monotonic()
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)
