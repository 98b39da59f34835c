"""Where exported bytes go: files beside a table, rows of a parquet, members of a tar.

A store takes what belongs to one shard of the source. What it wrote is whole when `close` returns: a run that
is killed leaves shards that are finished, and does the others again.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

from curation.datasets.exporters.formats import Format, Row
from curation.datasets.exporters.pairs import Pair, file_of
from shards.location import Location
from shards.writer import add_member

BATCH_BYTES = 64 << 20  # of parquet rows that are in memory at once: they become a row group
BATCH_ROWS = 64


class FileStore:
    """Every element a file of its own."""

    def __init__(self, location: Location, folder: str) -> None:
        self.folder, self._location = folder, location
        self.bytes = 0

    def put(self, pair: Pair, element: str, stem: str) -> str:
        """Write an element; returns its path in the folder."""
        suffix, data = file_of(pair, element)
        return self.put_bytes(f"{stem}{suffix}", data)

    def put_bytes(self, name: str, data: bytes) -> str:
        """Write a file; returns its path in the folder."""
        self._location.put(name, data)
        self.bytes += len(data)
        return name

    def add(self, shape: str, row: Row) -> Row:
        """What of a row the table at the end says: all."""
        return row

    def close(self) -> list[str]:
        """Files that a part is in, none: each is there."""
        return []


class ParquetStore:
    """Rows with their bytes in one parquet for each shape, in row groups of `BATCH_ROWS` at most."""

    def __init__(self, location: Location, folder: str, scratch: Path, stem: str, format: Format) -> None:
        self.folder, self._location, self._scratch, self._stem = folder, location, scratch, stem
        self._format = format
        self._rows: dict[str, list[Row]] = {}
        self._size: dict[str, int] = {}
        self._writers: dict[str, Any] = {}
        self.bytes = self._pending = 0

    def put(self, pair: Pair, element: str, stem: str) -> dict[str, Any]:
        """The element as a struct of bytes and path, as Hugging Face's image columns are."""
        suffix, data = file_of(pair, element)
        return self.put_bytes(f"{stem}{suffix}", data)

    def put_bytes(self, name: str, data: bytes) -> dict[str, Any]:
        """A file as such a struct."""
        self.bytes += len(data)
        self._pending += len(data)
        return {"bytes": data, "path": name}

    def add(self, shape: str, row: Row) -> Row:
        """Take a row; the table at the end says nothing of it."""
        self._rows.setdefault(shape, []).append(row)
        self._size[shape] = self._size.get(shape, 0) + self._pending
        self._pending = 0
        if len(self._rows[shape]) >= BATCH_ROWS or self._size[shape] >= BATCH_BYTES:
            self._flush(shape)
        return {}

    def _name(self, shape: str) -> str:
        return f"data/{self._stem}{'-' if shape else ''}{shape}.parquet"

    def _flush(self, shape: str) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = self._rows.pop(shape, [])
        self._size[shape] = 0
        if not rows:
            return
        writer = self._writers.get(shape)
        schema = self._format.schema() if self._format.schema else writer.schema if writer else None
        table = pa.Table.from_pylist(rows, schema=schema)
        if writer is None:
            path = self._scratch / self._name(shape).replace("/", "-")
            writer = self._writers[shape] = pq.ParquetWriter(path, table.schema)
        writer.write_table(table)

    def close(self) -> list[str]:
        """Finish the files and bring them to their place."""
        for shape in list(self._rows):
            self._flush(shape)
        names = []
        for shape, writer in self._writers.items():
            writer.close()
            name = self._name(shape)
            self._location.put(name, self._scratch / name.replace("/", "-"))
            names.append(name)
        return names


class TarStore:
    """Every element a member of one tar."""

    def __init__(self, location: Location, folder: str, scratch: Path, name: str) -> None:
        self.folder, self._location, self._name = folder, location, name
        self._path = scratch / name.replace("/", "-")
        self._tar = tarfile.open(self._path, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115
        self.bytes = self._members = 0

    def put(self, pair: Pair, element: str, stem: str) -> str:
        """Append an element; returns its member's name."""
        suffix, data = file_of(pair, element)
        return self.put_bytes(f"{stem}{suffix}", data)

    def put_bytes(self, name: str, data: bytes) -> str:
        """Append a file; returns its member's name."""
        add_member(self._tar, name, data)
        self.bytes += len(data)
        self._members += 1
        return name

    def add(self, shape: str, row: Row) -> Row:
        """What of a row the table at the end says: all."""
        return row

    def close(self) -> list[str]:
        """Finish the tar and bring it to its place, unless nothing is in it."""
        self._tar.close()
        if not self._members:
            return []
        self._location.put(self._name, self._path)
        return [self._name]
