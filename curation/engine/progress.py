"""How far a run is: a bar for the files that are cut, then one for the clips, with the time that is left.

Off a terminal a plain line now and then takes the place of the bars.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from curation.core.outcome import Outcome

EVERY = 30.0  # seconds between lines off a terminal


class RunProgress:
    """Shows a run on stderr; a context manager.

    A run calls `cutting` with the outcomes of its cut as they come, `clips` when all are known, and `add`
    for each outcome that is finished. Only clips that are worked on count: those that the clip filter
    refused or that could not be cut take no time, and would spoil the estimate.
    """

    def __init__(self, files: int, every: float = EVERY) -> None:
        self.files, self.every = files, every
        self.console = Console(stderr=True)
        self.accepted = self.done = self.total = 0
        self._told = 0  # clips that the last line said were done
        self._began = self._said = time.monotonic()
        self._bar: TaskID | None = None
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[accepted]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._bars = Progress(*columns, console=self.console, disable=not self.console.is_terminal)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if kind is None and self._told < self.done and not self.console.is_terminal:
            self._say(self._clips())

    def cutting(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """The outcomes of the cut, counted by file as they pass."""
        bar = self._bars.add_task("cutting files", total=self.files, accepted="")
        seen: set[str] = set()
        for outcome in outcomes:
            seen.add(outcome.file)
            self._bars.update(bar, completed=len(seen))
            self._now_and_then(f"cutting {len(seen)}/{self.files} files")
            yield outcome

    def clips(self, outcomes: Iterable[Outcome]) -> None:
        """All clips are known, none has been worked on."""
        self.total = sum(worked_on(outcome) for outcome in outcomes)
        self._began = time.monotonic()
        self._bar = self._bars.add_task("clips", total=self.total, accepted="")
        if not self.console.is_terminal:
            self._say(self._clips())

    def add(self, outcome: Outcome) -> None:
        """An outcome is finished."""
        self.done += worked_on(outcome)
        self.accepted += sum(not candidate.reason for candidate in outcome.candidates)
        if self._bar is not None:
            self._bars.update(self._bar, completed=self.done, accepted=f"{self.accepted} accepted")
        self._now_and_then(self._clips())

    def _clips(self) -> str:
        taken = time.monotonic() - self._began
        line = f"clips {self.done}/{self.total}, {self.accepted} accepted, {_clock(taken)}"
        if 0 < self.done < self.total:
            line += f", {_clock(taken / self.done * (self.total - self.done))} left"
        return line

    def _now_and_then(self, line: str) -> None:
        if not self.console.is_terminal and time.monotonic() - self._said >= self.every:
            self._say(line)

    def _say(self, line: str) -> None:
        self._said, self._told = time.monotonic(), self.done
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def worked_on(outcome: Outcome) -> bool:
    """Whether an outcome is a clip that is worked on, rather than one refused or a file in quarantine."""
    return outcome.clip is not None and not outcome.refused


def _clock(seconds: float) -> str:
    """1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
