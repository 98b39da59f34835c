"""Tables on a terminal, as wide as it is.

Columns that do not fit follow in further tables below. In a file or a pipe a table is as wide as it needs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

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
    while rest:
        count = len(rest)
        while count > 1 and not _fits(console, _with_columns(table, [first, *rest[:count]])):
            count -= 1
        yield _with_columns(table, [first, *rest[:count]])
        rest = rest[count:]


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
