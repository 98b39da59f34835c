"""How far a run is: a bar for the files that are cut and one for the clips, with the time that is left.

Off a terminal a plain line now and then takes the place of the bars.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from curation.core.outcome import Outcome

EVERY = 30.0  # seconds between lines off a terminal


class RunProgress:
    """Shows a run on stderr; a context manager.

    Engines call `cut` with each clip when it is known, or `arrived` where they first hear of a clip when it
    is finished; a run calls `add` for each outcome that is finished. Only clips that are worked on count:
    those that the clip filter refused or that could not be cut take no time, and would spoil the estimate.
    """

    def __init__(self, files: int, every: float = EVERY) -> None:
        self.files, self.every = files, every
        self.console = Console(stderr=True)
        self.accepted = self.done = self.total = self.files_cut = 0
        self._told = -1  # clips that the last line said were done
        self._began = self._said = time.monotonic()
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
        self._file_bar = self._bars.add_task("files cut", total=files, accepted="")
        self._bar = self._bars.add_task("clips", total=None, accepted="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if kind is None and self._told < self.done and not self.console.is_terminal:
            self._say(self._clips())

    def cut(self, outcome: Outcome) -> None:
        """A clip is known, and what the clip filter says of it."""
        self.total += worked_on(outcome)
        self._file_is_cut(outcome)

    def arrived(self, outcome: Outcome) -> None:
        """A clip is finished that was not known before."""
        if outcome.number[1] == 0:  # the first of its file stands for all of them
            self.total += outcome.siblings
        self.total -= outcome.clip is not None and not worked_on(outcome)
        self._file_is_cut(outcome)

    def note(self, line: str) -> None:
        """Say something about the run."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def add(self, outcome: Outcome) -> None:
        """An outcome is finished."""
        self.done += worked_on(outcome)
        self.accepted += sum(not candidate.reason for candidate in outcome.candidates)
        self._bars.update(self._bar, completed=self.done, accepted=f"{self.accepted} accepted")
        self._now_and_then()

    def _file_is_cut(self, outcome: Outcome) -> None:
        self.files_cut += outcome.number[1] == 0
        self._bars.update(self._file_bar, completed=self.files_cut)
        self._bars.update(self._bar, total=max(self.total, self.done))
        self._now_and_then()

    def _clips(self) -> str:
        taken = time.monotonic() - self._began
        line = f"clips {self.done}/{max(self.total, self.done)}, {self.accepted} accepted, {clock(taken)}"
        if self.files_cut < self.files:
            line += f", {self.files_cut}/{self.files} files cut"
        elif 0 < self.done < self.total:
            line += f", {clock(taken / self.done * (self.total - self.done))} left"
        return line

    def _now_and_then(self) -> None:
        if not self.console.is_terminal and time.monotonic() - self._said >= self.every:
            self._say(self._clips())

    def _say(self, line: str) -> None:
        self._said, self._told = time.monotonic(), self.done
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def worked_on(outcome: Outcome) -> bool:
    """Whether an outcome is a clip that is worked on, rather than one refused or a file in quarantine."""
    return outcome.clip is not None and not outcome.refused


def clock(seconds: float) -> str:
    """1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
