"""The paper's result tables with one's own rows in them: for the terminal, as CSV and as LaTeX.

The published rows are `published/tables.yaml` and stay marked as published; nothing here was measured by us.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field
from rich.table import Table as RichTable

from benchmark.core.item import BenchmarkError
from shards.errors import EditVerseError
from shards.limits import read_yaml, shown

TABLES = Path(__file__).resolve().parent / "published" / "tables.yaml"
OURS = "measured here"
LARGEST = 1e12  # number of a table
Cell = Decimal | str | None


class Strict(BaseModel):
    """No other fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(Strict):
    """One number of a method; `parts` are the weights of the columns that it is the mean of."""

    key: str
    label: str
    group: str = ""
    decimals: int = 2
    higher_is_better: bool = True
    text: bool = False
    parts: dict[str, int] = Field(default_factory=dict, alias="from")

    def shown(self, value: Cell) -> str:
        """As the paper prints it; a dash for what is missing."""
        if value is None:
            return "-"
        return value if isinstance(value, str) else str(rounded(value, self.decimals))


class Group(Strict):
    """Methods of a kind; one that is `apart` is listed, but cannot be best."""

    name: str
    apart: bool = False
    rows: dict[str, list[float | str | None]]


class PaperTable(Strict):
    """A table as printed."""

    title: str
    best: Literal["table", "group"]
    columns: list[Column]
    groups: list[Group]

    def cells(self) -> list[tuple[str, bool, dict[str, dict[str, Cell]]]]:
        """(group, whether apart, rows by name), each row's values by column."""
        return [
            (group.name, group.apart, {name: self._row(values) for name, values in group.rows.items()})
            for group in self.groups
        ]

    def _row(self, values: list[float | str | None]) -> dict[str, Cell]:
        read: dict[str, Cell] = {}
        for column, value in zip(self.columns, values, strict=True):
            read[column.key] = value if value is None or isinstance(value, str) else Decimal(str(value))
        return read

    def completed(self, row: Mapping[str, Cell]) -> dict[str, Cell]:
        """A row with its means filled in, where all that they are means of is there."""
        made = {column.key: row.get(column.key) for column in self.columns}
        for column in self.columns:
            parts = {key: made[key] for key in column.parts}
            numbers = {key: value for key, value in parts.items() if isinstance(value, Decimal)}
            if made[column.key] is None and parts and len(numbers) == len(parts):
                total = sum(column.parts[key] * value for key, value in numbers.items())
                made[column.key] = total / Decimal(sum(column.parts.values()))
        return made


def rounded(value: Decimal, decimals: int) -> Decimal:
    """Half away from zero, as printed tables do: 0.815 is 0.82."""
    return value.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)


def paper_table(number: str) -> PaperTable:
    """Table 2, 3, 6, 7, 8 or 9 of the paper."""
    tables = yaml.safe_load(TABLES.read_text(encoding="utf-8"))
    if number not in tables:
        raise BenchmarkError(f"--table {number}: there are {', '.join(tables)}")
    return PaperTable.model_validate(tables[number])


def read_rows(path: Path, table: PaperTable) -> dict[str, dict[str, Cell]]:
    """Own rows from a YAML or JSON file: {method: {column: value}}; means may be left out.

    Raises BenchmarkError naming the row and the column at fault.
    """
    try:
        held: Any = read_yaml(path)
    except (OSError, EditVerseError) as error:
        raise BenchmarkError(f"{path}: {error}") from error
    if not isinstance(held, dict) or not all(isinstance(row, dict) for row in held.values()):
        raise BenchmarkError(f"{path}: should map each method to its values by column")
    known = {column.key: column for column in table.columns}
    rows: dict[str, dict[str, Cell]] = {}
    for name, row in held.items():
        rows[str(name)] = {}
        for key, value in row.items():
            if key not in known:
                raise BenchmarkError(f"{path}: {name}: no column {shown(key)}; there are {', '.join(known)}")
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number or (known[key].text and isinstance(value, str))):
                raise BenchmarkError(f"{path}: {name}: {key}: {shown(value)} is no number")
            if number and not known[key].text and abs(value) > LARGEST:
                raise BenchmarkError(f"{path}: {name}: {key}: {shown(value)} is too large to be printed")
            cell = value if value is None else str(value) if known[key].text else Decimal(str(value))
            if isinstance(cell, Decimal) and not cell.is_finite():
                raise BenchmarkError(f"{path}: {name}: {key}: {value!r} is not finite; leave it out")
            rows[str(name)][key] = cell
    return rows


class Filled:
    """A table with own rows as a last group, ready to be printed."""

    def __init__(self, table: PaperTable, ours: Mapping[str, Mapping[str, Cell]]) -> None:
        self.table = table
        self.groups = table.cells()
        if ours:
            self.groups.append((OURS, False, {name: table.completed(row) for name, row in ours.items()}))

    def best(self, column: Column, group: int | None) -> Decimal | None:
        """The best printed value of a column, in one group or in all that compete."""
        if column.text:
            return None
        values = [
            rounded(value, column.decimals)
            for number, (_, apart, rows) in enumerate(self.groups)
            if (group is None and not apart) or number == group
            for row in rows.values()
            if isinstance(value := row[column.key], Decimal)
        ]
        if not values:
            return None
        return max(values) if column.higher_is_better else min(values)

    def marks(self, number: int, row: Mapping[str, Cell], column: Column) -> tuple[bool, bool]:
        """Whether a cell is bold, and whether underlined: best of all, where bold is best of a group."""
        value = row[column.key]
        apart = self.groups[number][1]
        if not isinstance(value, Decimal) or apart:
            return False, False
        value = rounded(value, column.decimals)
        if self.table.best == "table":
            return value == self.best(column, None), False
        return value == self.best(column, number), value == self.best(column, None)

    def text(self) -> RichTable:
        """For the terminal."""
        made = RichTable(title=self.table.title)
        made.add_column("method", no_wrap=True)
        for column in self.table.columns:
            arrow = "" if column.text else (" ↑" if column.higher_is_better else " ↓")
            made.add_column(f"{column.group}\n{column.label}{arrow}".strip(), justify="right", no_wrap=True)
        for number, (name, _, rows) in enumerate(self.groups):
            if name:
                made.add_row(f"[italic]{name}[/italic]")
            for method, row in rows.items():
                cells = []
                for column in self.table.columns:
                    bold, underlined = self.marks(number, row, column)
                    styles = " ".join(s for s, on in (("bold", bold), ("underline", underlined)) if on)
                    shown = column.shown(row[column.key])
                    cells.append(f"[{styles}]{shown}[/{styles}]" if styles else shown)
                made.add_row(method, *cells, end_section=method == list(rows)[-1])
        return made

    def csv(self) -> str:
        """method, group, published or measured here, then the columns by their keys."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["method", "group", "source", *(c.key for c in self.table.columns)])
        for name, _, rows in self.groups:
            for method, row in rows.items():
                shown = [("" if row[c.key] is None else c.shown(row[c.key])) for c in self.table.columns]
                writer.writerow([method, name, OURS if name == OURS else "published", *shown])
        return out.getvalue()

    def latex(self) -> str:
        """A booktabs table; best values bold, best of all underlined where bold is by group."""
        columns = self.table.columns
        lines = [
            r"\begin{table}",
            rf"\caption{{{escaped(self.table.title)}. Rows not marked as measured here are as published.}}",
            rf"\begin{{tabular}}{{l{'c' * len(columns)}}}",
            r"\toprule",
        ]
        spans: list[tuple[str, int]] = []
        for column in columns:
            if spans and spans[-1][0] == column.group and column.group:
                spans[-1] = (column.group, spans[-1][1] + 1)
            else:
                spans.append((column.group, 1))
        if any(group for group, _ in spans):
            heads = [rf"\multicolumn{{{width}}}{{c}}{{{escaped(group)}}}" for group, width in spans]
            lines.append(" & ".join(["", *heads]) + r" \\")
        arrows = [
            "" if c.text else r" $\uparrow$" if c.higher_is_better else r" $\downarrow$" for c in columns
        ]
        heads = [escaped(c.label) + arrow for c, arrow in zip(columns, arrows, strict=True)]
        lines.append(" & ".join(["Method", *heads]) + r" \\")
        for number, (name, _, rows) in enumerate(self.groups):
            lines.append(r"\midrule")
            if name:
                lines.append(rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{\emph{{{escaped(name)}}}}} \\")
            for method, row in rows.items():
                cells = [escaped(method)]
                for column in columns:
                    shown = escaped(column.shown(row[column.key]))
                    bold, underlined = self.marks(number, row, column)
                    shown = rf"\textbf{{{shown}}}" if bold else shown
                    cells.append(rf"\underline{{{shown}}}" if underlined else shown)
                lines.append(" & ".join(cells) + r" \\")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "†": r"$^\dagger$",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        **{sign: "\\" + sign for sign in "&%#_{}$"},
    }
)


def escaped(text: str) -> str:
    """For LaTeX."""
    return text.translate(LATEX)
