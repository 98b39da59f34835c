"""Tables in stretches that can be read alone: parquet by row groups; JSONL, JSON and CSV by ranges of bytes.

Whoever cuts a table reads its text once (of a parquet the footer alone) and keeps nothing of it: tables of
any length are read by many processes, each beginning where it is told to.
"""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, NamedTuple

from pydantic import JsonValue

from curation.datasets.layouts.rows import PART_ROWS, BadRow
from curation.sources.clips import printable
from shards.errors import first_line
from shards.limits import MAX_LINE_BYTES, LimitError, check_nesting
from shards.location import Location, ShardError, suffix_of

KINDS = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "csv",
}
BATCH = 16  # rows of a parquet that are in memory at once: each may hold several pictures
BLOCK = 1 << 20  # bytes of a JSON document that are looked at together
HEAD = 256  # records of a JSON table whose keys are its columns
MAX_KEY_BYTES = 1 << 12  # of the first key of an object of records
JSON_BEGIN = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\[|\{\s*(?:\}|"(?:[^"\\]|\\.)*"\s*:\s*\{))', re.DOTALL)
JSON_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\],]|"', re.DOTALL)

Record = dict[str, Any]


class Stretch(NamedTuple):
    """A part of a table.

    Attributes:
        start, stop: bytes of a text table; of a parquet the rows of its row group.
        first: number of its first record in the table, from 0 on.
        about: what else its reader must know.
    """

    start: int
    stop: int
    first: int
    about: dict[str, JsonValue]


def kind_of(path: str) -> str:
    """ "parquet", "jsonl", "json" or "csv" by a file's suffix; "" for no table."""
    return KINDS.get(suffix_of(path), "")


def columns_of(path: str) -> list[str]:
    """The columns of a table; of JSON the keys of its first records.

    Raises:
        ShardError: it cannot be read as what its suffix says, or is empty.
    """
    with opened(path) as handle:
        if kind_of(path) == "parquet":
            return list(_parquet(handle, path).schema_arrow.names)
        if kind_of(path) == "csv":
            return _header(handle, path)[0]
        heads = _json_items if kind_of(path) == "json" else _lines
        columns: dict[str, None] = {}
        for start, stop in list(itertools.islice(heads(handle, path), HEAD)):
            handle.seek(start)
            record = _parsed(handle.read(stop - start))
            columns.update(dict.fromkeys(record if isinstance(record, dict) else ()))
    if not columns:
        raise ShardError(f"{path}: holds no records with names")
    return list(columns)


def cut(path: str, rows: int = PART_ROWS) -> Iterator[Stretch]:
    """The stretches of a table, in order, of about `rows` records; of a parquet at most a row group.

    Raises:
        ShardError: it is no table of its kind; a parquet lacks its footer, as half-downloaded ones do.
    """
    kind = kind_of(path)
    with opened(path) as handle:
        if kind == "parquet":
            yield from _row_groups(handle, path, rows)
            return
        about: dict[str, JsonValue] = {}
        if kind == "csv":
            columns, delimiter, begin = _header(handle, path)
            about = {"columns": list[JsonValue](columns), "delimiter": delimiter}
            items = _csv_records(handle, begin, delimiter, path)
        elif kind == "json":
            items = _json_items(handle, path)
        elif kind == "jsonl":
            items = _lines(handle, path)
        else:
            raise ShardError(f"{path}: no table; {', '.join(KINDS)} are read")
        first, start, stop, count = 0, 0, 0, 0
        for begin, end in items:
            start = begin if not count else start
            stop, count = end, count + 1
            if count == rows:
                yield Stretch(start, stop, first, about)
                first, count = first + count, 0
        if count:
            yield Stretch(start, stop, first, about)


def read(
    path: str, stretch: Stretch, columns: Sequence[str] | None = None
) -> Iterator[tuple[int, Record | BadRow]]:
    """The records of a stretch with their numbers in the table; a BadRow says what is wrong with one.

    Args:
        columns: of a parquet, those that are read at all; None for all.

    Raises:
        ShardError: the table ends before, or is damaged.
    """
    with opened(path) as handle:
        if kind_of(path) == "parquet":
            yield from enumerate(_rows(handle, path, stretch, columns), stretch.first)
            return
        handle.seek(stretch.start)
        data = handle.read(stretch.stop - stretch.start)
    if len(data) != stretch.stop - stretch.start:
        raise ShardError(f"{path}: ends before byte {stretch.stop}; it changed since it was looked at")
    if kind_of(path) == "csv":
        yield from _csv_rows(data, stretch)
        return
    if kind_of(path) == "jsonl":
        found: Iterable[Record | BadRow] = (_parsed(line) for line in data.split(b"\n") if line.strip())
    else:
        found = _json_records(data, path)
    yield from enumerate(found, stretch.first)


@contextlib.contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """A local file or URL, open for reading; ShardError names it where it cannot be opened."""
    folder, _, name = path.rpartition("/")
    location = Location(folder or ("/" if path.startswith("/") else "."))
    try:
        with location.open(name) as handle:
            yield handle
    except (FileNotFoundError, NotADirectoryError):
        raise ShardError(f"{printable(path)}: no such file") from None
    except IsADirectoryError:
        raise ShardError(f"{printable(path)}: a folder, not a file") from None


# ---- parquet ----------------------------------------------------------------------------------------------


def _parquet(handle: IO[bytes], path: str) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(handle)
    except (pyarrow.ArrowException, OSError) as error:
        raise ShardError(f"{path}: no whole parquet file ({first_line(error)}); download it again") from None


def _row_groups(handle: IO[bytes], path: str, rows: int) -> Iterator[Stretch]:
    """Row groups; one of many more than `rows` rows is cut again, and read from its start each time."""
    footer = _parquet(handle, path).metadata
    first = 0
    for group in range(footer.num_row_groups):
        there = footer.row_group(group).num_rows
        step = rows if there > 4 * rows else there
        for start in range(0, there, step or 1):
            yield Stretch(start, min(start + step, there), first + start, {"group": group})
        first += there


def _rows(handle: IO[bytes], path: str, stretch: Stretch, columns: Sequence[str] | None) -> Iterator[Record]:
    import pyarrow

    file = _parquet(handle, path)
    seen = 0
    try:
        group = int(str(stretch.about["group"]))
        for batch in file.iter_batches(
            BATCH, [group], list(columns) if columns is not None else None, use_threads=False
        ):
            if seen + batch.num_rows > stretch.start:
                kept = batch.slice(max(0, stretch.start - seen), stretch.stop - max(seen, stretch.start))
                yield from kept.to_pylist()
            seen += batch.num_rows
            if seen >= stretch.stop:
                return
    except (pyarrow.ArrowException, OSError) as error:
        raise ShardError(f"{path}: damaged in row group {group} ({first_line(error)})") from None


# ---- JSON -------------------------------------------------------------------------------------------------


def _parsed(text: bytes) -> Record | BadRow:
    """A record of JSON, or what is wrong with it."""
    try:
        value = json.loads(text)
        check_nesting(value, "the record")
    except (ValueError, RecursionError, LimitError) as error:
        return BadRow("", "not a line of JSON", first_line(error))
    return value if isinstance(value, dict) else BadRow("", "not a JSON object")


def _lines(handle: IO[bytes], path: str) -> Iterator[tuple[int, int]]:
    """Where the lines that hold anything begin and end."""
    handle.seek(0)
    at = 0
    while line := handle.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise ShardError(f"{path}: a line at byte {at} has over {MAX_LINE_BYTES} bytes")
        if line.strip():
            yield at, at + len(line)
        at += len(line)


def _json_items(handle: IO[bytes], path: str) -> Iterator[tuple[int, int]]:
    """Where the items of a JSON list of objects begin and end, without holding more than one of them.

    An object of objects is read as a list of its values. No item may be larger than a line of JSONL.
    """
    handle.seek(0)
    if not JSON_BEGIN.match(handle.read(MAX_KEY_BYTES)):
        raise ShardError(f"{path}: no JSON list of records")
    handle.seek(0)
    depth, start, base, held, closed = 0, -1, 0, b"", False
    while True:
        block = handle.read(BLOCK)
        held += block
        cut_at = len(held)
        for token in JSON_TOKEN.finditer(held):
            text = token[0]
            if text == b'"' and block:  # a string that goes on in the next block
                cut_at = token.start()
                break
            if text in b"{[" and text:
                depth += 1
                start = base + token.start() if depth == 2 and text == b"{" else start
            elif text in (b"}", b"]"):
                depth -= 1
                if depth == 1 and start >= 0:
                    yield start, base + token.end()
                    start = -1
                closed = closed or depth == 0
        if (start >= 0 and base + cut_at - start > MAX_LINE_BYTES) or len(held) - cut_at > MAX_LINE_BYTES:
            raise ShardError(f"{path}: a record or text at byte {base} has over {MAX_LINE_BYTES} bytes")
        base, held = base + cut_at, held[cut_at:]
        if not block:
            break
    if not closed:
        raise ShardError(f"{path}: ends in the middle, or is no JSON list; download it again")


def _json_records(data: bytes, path: str) -> Iterator[Record | BadRow]:
    """The objects of a stretch; all at once where they are a list, which is much faster."""
    try:
        values = json.loads(b"[" + data + b"]")
        check_nesting(values, "the records")
    except (ValueError, RecursionError, LimitError):  # one of them is no JSON, or they have keys before them
        yield from (_parsed(text) for text in _json_texts(data, path))
        return
    yield from (value for value in values if isinstance(value, dict))


def _json_texts(data: bytes, path: str) -> Iterator[bytes]:
    """The objects of a stretch of a JSON list, as text."""
    depth, start = 0, 0
    for token in JSON_TOKEN.finditer(data):
        if token[0] in (b"{", b"["):
            start = token.start() if depth == 0 else start
            depth += 1
        elif token[0] in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                yield data[start : token.end()]
    if depth:
        raise ShardError(f"{path}: changed since it was looked at")


# ---- CSV --------------------------------------------------------------------------------------------------


class _Counted:
    """The lines of a file as text, and the byte at which the next one begins."""

    def __init__(self, lines: Iterable[bytes], at: int) -> None:
        self.at, self._lines = at, iter(lines)

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.at += len(line)
            yield line.decode("utf-8", "surrogateescape")


def _header(handle: IO[bytes], path: str) -> tuple[list[str], str, int]:
    """The columns of a CSV, what is between them, and the byte after the header."""
    handle.seek(0)
    line = handle.readline(MAX_LINE_BYTES)
    text = line.decode("utf-8-sig", "replace")
    delimiter = max(("\t", ",", ";"), key=text.count) if suffix_of(path) == ".csv" else "\t"
    columns = [name.strip() for row in csv.reader([text], delimiter=delimiter) for name in row]
    if not any(columns):
        raise ShardError(f"{path}: has no header with the names of its columns")
    return columns, delimiter, len(line)


def _csv_records(handle: IO[bytes], begin: int, delimiter: str, path: str) -> Iterator[tuple[int, int]]:
    """Where the records begin and end: a quoted field may hold line breaks."""
    handle.seek(begin)
    lines = _Counted(iter(lambda: handle.readline(MAX_LINE_BYTES), b""), begin)
    start = begin
    try:
        for row in csv.reader(lines, delimiter=delimiter):
            if row:
                yield start, lines.at
            start = lines.at
    except csv.Error as error:
        raise ShardError(f"{path}: no CSV after byte {start}: {error}") from None


def _csv_rows(data: bytes, stretch: Stretch) -> Iterator[tuple[int, Record | BadRow]]:
    columns = [str(name) for name in stretch.about["columns"]]  # type: ignore[union-attr]
    rows = csv.reader(_Counted(io.BytesIO(data), 0), delimiter=str(stretch.about["delimiter"]))
    number = stretch.first - 1
    while True:
        number += 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield number, BadRow("", "not a row of CSV", str(error))
            continue
        if row is None:
            return
        if not row:
            number -= 1
        elif len(row) != len(columns):
            yield number, BadRow("", "wrong number of cells", f"{len(row)} where there are {len(columns)}")
        elif any("\udc80" <= c <= "\udcff" for field in row for c in field):
            yield number, BadRow("", "not UTF-8")
        else:
            yield number, dict(zip(columns, row, strict=True))
