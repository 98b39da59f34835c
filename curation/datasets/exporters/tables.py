"""Tables of rows, written as they come: CSV, JSON, JSON lines, and parquet of plain values."""

from __future__ import annotations

import csv
import itertools
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from curation.datasets.exporters.formats import Row, TableName
from shards.location import Location

ROW_GROUP = 1024


def write_table(location: Location, name: str, kind: TableName, rows: Iterable[Row]) -> None:
    """Write rows that have the same columns, in their order; the file appears whole or not at all.

    In a CSV a list or an object is JSON, and null is an empty cell.
    """
    with tempfile.TemporaryDirectory(prefix="export-") as scratch:
        path = Path(scratch) / "table"
        with path.open("w", encoding="utf-8", newline="") as file:
            if kind == "csv":
                _write_csv(file, rows)
            elif kind == "json":
                for number, row in enumerate(rows):
                    file.write(f"{',' if number else '['}\n{_line(row)}")
                file.write("\n]\n")
            elif kind == "jsonl":
                file.writelines(f"{_line(row)}\n" for row in rows)
        if kind == "parquet":
            _write_parquet(path, rows)
        location.put(name, path)


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _write_csv(file: Any, rows: Iterable[Row]) -> None:
    writer = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(file, list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow(
            {name: _line(value) if isinstance(value, dict | list) else value for name, value in row.items()}
        )


def _write_parquet(path: Path, rows: Iterable[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    left = iter(rows)
    writer = None
    while batch := list(itertools.islice(left, ROW_GROUP)):
        table = pa.Table.from_pylist(batch, schema=writer.schema if writer else None)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()
