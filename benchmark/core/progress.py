"""A bar of what is done, for people at a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def bars(console: Console) -> Progress:
    """Bars that leave nothing behind; none where nobody watches.

    Elsewhere each would end with an empty line: whoever reads one line and leaves would end the run by it.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
