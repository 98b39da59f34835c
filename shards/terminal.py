"""Tables on a terminal, as wide as it is.

Columns that do not fit follow in further tables below. In a file or a pipe a table is as wide as it needs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def print_table(table: Table) -> None:
    """Print to stdout."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, _measure(console, table).maximum))
    for part in parts(table, console):
        console.print(part)


def parts(table: Table, console: Console) -> Iterator[Table]:
    """The table in as few tables as fit the console, each with the first column.

    One that cannot be made to fit, since two of its columns are too wide already, comes as it is.
    """
    first, *rest = range(len(table.columns))
    if not rest:
        yield table
    for group in _groups(rest, lambda columns: _fits(console, _with_columns(table, [first, *columns]))):
        yield _with_columns(table, [first, *group])


def _groups(columns: list[int], fit: Callable[[list[int]], bool]) -> list[list[int]]:
    """Columns of each table: as many as fit, with no column alone in the last where another can join it."""
    groups: list[list[int]] = []
    while columns:
        count = len(columns)
        while count > 1 and not fit(columns[:count]):
            count -= 1
        groups.append(columns[:count])
        columns = columns[count:]
    if len(groups) > 1 and len(groups[-1]) == 1 and len(groups[-2]) > 2:
        *kept, moved = groups[-2]
        if fit([moved, *groups[-1]]):
            groups[-2:] = [kept, [moved, *groups[-1]]]
    return groups


def _fits(console: Console, table: Table) -> bool:
    """Columns that may wrap take as little as their longest word."""
    measured = _measure(console, table)
    fixed = all(column.no_wrap for column in table.columns)
    return (measured.maximum if fixed else measured.minimum) <= console.width


def _measure(console: Console, table: Table) -> Measurement:
    return Measurement.get(console, console.options.update(width=10_000), table)


def _with_columns(table: Table, numbers: list[int]) -> Table:
    part = copy.copy(table)
    part.columns = [copy.copy(table.columns[n]) for n in numbers]
    for number, column in enumerate(part.columns):
        column._index = number
    return part
