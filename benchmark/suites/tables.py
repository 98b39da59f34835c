"""Tables that list a suite's edits: CSV, JSON, JSONL or Parquet, with their columns checked by name.

A column that a suite needs and a table lacks is refused, with the columns that the suite does not know, among
which it probably is under another name; `columns.json` beside the table then says which: {"video": "clip"}.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmark.core.fingerprint import content_of
from benchmark.core.item import BenchmarkError, Item
from benchmark.suites.manifest import faulty, read_list
from shards.errors import EditVerseError, first_line
from shards.limits import MAX_ROWS, LimitError, parse_json, read_json, read_text

KINDS = (".csv", ".json", ".jsonl", ".parquet")


@dataclass(frozen=True)
class Listed:
    """A table that was read.

    Attributes:
        path: the file; sha256: of it.
        rows: by what the suite calls a column, every value a text; "" where a cell is empty or an optional
            column is not there.
        columns: what the table calls each column that it has.
        remarks: columns that the suite does not know.
    """

    path: Path
    sha256: str
    rows: list[dict[str, str]]
    columns: dict[str, str]
    remarks: list[str] = field(default_factory=list)


def find_table(data: Path, stems: Sequence[str]) -> Path:
    """The first of the tables `stem.csv`, `.json`, `.jsonl` and `.parquet` that a folder has.

    Raises BenchmarkError naming what was looked for.
    """
    for stem in stems:
        for kind in KINDS:
            if (data / f"{stem}{kind}").is_file():
                return data / f"{stem}{kind}"
    raise BenchmarkError(f"{data}: holds no {stems[0]}.csv, .json, .jsonl or .parquet, the list of edits")


def read_table(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> Listed:
    """Read a list of edits.

    Raises:
        BenchmarkError: naming the file, and the column or the line at fault.
    """
    try:
        there, rows = read_rows(path)
    except FileNotFoundError:
        raise BenchmarkError(f"{path}: not found; it lists the edits") from None
    except (OSError, EditVerseError, csv.Error) as error:
        reason = first_line(error).removeprefix(f"{path}: ")
        raise BenchmarkError(f"{path}: cannot be read: {reason}") from None
    if not rows:
        raise BenchmarkError(f"{path}: lists no edits")
    given = mapping(path.parent / "columns.json", needed, optional)
    columns = {name: given.get(name) or name for name in (*needed, *optional)}
    unknown = [name for name in there if name not in columns.values()]
    for name in needed:
        if columns[name] not in there:
            odd = f"; it has {', '.join(unknown)[:200]}, which are not known" if unknown else ""
            raise BenchmarkError(
                f"{path}: no column {columns[name]!r}{odd}; if one of them is it, say so in "
                f'{path.parent / "columns.json"}: {{"{name}": ...}}'
            )
    kept = {name: column for name, column in columns.items() if column in there}
    listed = [{name: text_of(row.get(column)) for name, column in columns.items()} for row in rows]
    remarks = [f"{path.name}: the column {name} is not known and not read" for name in unknown]
    return Listed(path, content_of(str(path)) or "", listed, kept, remarks)


def distinct(items: Sequence[Item], where: str) -> list[Item]:
    """The items; one whose id an earlier one has is replaced by a fault, as their results have one name."""
    taken = set[str]()
    kept = []
    for number, item in enumerate(items):
        if item.id in taken:
            reason = f"{where}: entry {number}: {item.id} is listed before, and so is its result"
            item = faulty(f"{item.id} (entry {number})", reason, item.result)
        taken.add(item.id)
        kept.append(item)
    return kept


def text_of(value: Any) -> str:
    """A cell as a text without spaces around it."""
    return "" if value is None else str(value).strip()


def mapping(path: Path, needed: Sequence[str], optional: Sequence[str]) -> dict[str, str]:
    """What `columns.json` says, if it is there; BenchmarkError for a name that the suite does not have."""
    if not path.is_file():
        return {}
    held, _, _ = read_list(path, "an object that maps columns")
    if not isinstance(held, dict) or not all(isinstance(v, str) for v in held.values()):
        raise BenchmarkError(f"{path}: should map columns to names in the table")
    for name in held:
        if name not in (*needed, *optional):
            known = ", ".join((*needed, *optional))
            raise BenchmarkError(f"{path}: {name!r} is no column; there are {known}")
    return dict(held)


def read_rows(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """(columns, rows) of a table; raises OSError, EditVerseError or csv.Error for what is none."""
    if path.suffix == ".parquet":
        return parquet_rows(path)
    if path.suffix == ".csv":
        with io.StringIO(read_text(path).removeprefix("\ufeff"), newline="") as handle:
            reader = csv.DictReader(handle, strict=True)
            rows: list[dict[str, Any]] = []
            for row in reader:
                if None in row or None in row.values():
                    raise BenchmarkError(f"line {reader.line_num} has more or fewer cells than the header")
                rows.append(row)
            return list(reader.fieldnames or ()), bounded(rows)
    if path.suffix == ".jsonl":
        lines = [line for line in read_text(path).splitlines() if line.strip()]
        held: Any = [parse_json(line, f"line {n}") for n, line in enumerate(lines, 1)]
    else:
        held = read_json(path)
    if not isinstance(held, list) or not all(isinstance(row, dict) for row in held):
        raise BenchmarkError("should be a list of objects, one for each edit")
    return list(dict.fromkeys(name for row in held for name in row)), bounded(held)


def bounded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows; LimitError for more than a table may have."""
    if len(rows) > MAX_ROWS:
        raise LimitError(f"{len(rows)} rows, a table may have {MAX_ROWS}")
    return rows


def parquet_rows(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """As `read_rows`, without columns that are no texts, numbers or booleans, such as pictures."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            if file.metadata.num_rows > MAX_ROWS:
                raise LimitError(f"{file.metadata.num_rows} rows, a table may have {MAX_ROWS}")
            schema = file.schema_arrow
            plain = [n for n in schema.names if not pyarrow.types.is_nested(schema.field(n).type)]
            rows: list[dict[str, Any]] = file.read(columns=plain).to_pylist()
        return list(schema.names), rows
    except (pyarrow.ArrowException, UnicodeDecodeError, KeyError, OverflowError) as error:
        raise BenchmarkError(f"cannot be read: {first_line(error)}") from error
