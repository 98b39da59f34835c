"""Rows of CSV, JSONL, JSON and parquet, in parts that are read alone; and pairs out of them by columns."""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from curation.datasets.rows import (
    PART_ROWS,
    BadRow,
    Blob,
    EditRow,
    LayoutOptions,
    Part,
    Refused,
    need_columns,
    place_in,
)
from curation.sources.clips import printable
from shards.errors import MediaError, SettingError, first_line
from shards.limits import MAX_JSON_BYTES, MAX_LINE_BYTES, parse_json
from shards.location import Location, ShardError

TABLES = (".csv", ".jsonl", ".json", ".parquet")
Row = tuple[int, dict[str, Any] | BadRow]  # its number in the file from 0, and its values

ROLES = ("source", "target", "instruction", "mask", "task", "license", "reverse_instruction", "id", "group")


def split_path(path: str) -> tuple[Location, str]:
    """The folder and the name of a file at a path or URL."""
    folder, _, name = path.rpartition("/")
    return Location(folder or ("/" if path.startswith("/") else ".")), name


def files_of(source: str, suffixes: tuple[str, ...]) -> tuple[str, list[str]]:
    """The folder and, sorted, the names in it of the files of these suffixes that a path or URL stands for.

    Raises:
        SettingError: there is nothing of that name, or no such file in the folder.
    """
    if Path(source.partition("?")[0]).suffix.lower() in suffixes and not Path(source).is_dir():
        location, name = split_path(source)
        if not location.remote and not Path(source).is_file():
            raise SettingError(f"{printable(source)}: no such file")
        return location.folder, [name]
    location = Location(source)
    if not location.remote and not Path(source).is_dir():
        raise SettingError(f"{printable(source)}: no such file or folder")
    names = [name for name in location.sizes() if Path(name).suffix.lower() in suffixes]
    if not names:
        raise SettingError(f"{printable(source)}: holds no {' or '.join(suffixes)} file")
    return location.folder, sorted(names)


# ---- parts and rows ---------------------------------------------------------------------------------------


def table_parts(folder: str, name: str) -> Iterator[Part]:
    """The parts of a table; each row is in one. What is damaged as a whole is one part with a `fault`."""
    path = Location(folder).path(name)
    split = {".csv": _csv_parts, ".jsonl": _line_parts, ".json": _json_parts, ".parquet": _parquet_parts}
    try:
        yield from split[Path(name).suffix.lower()](path, name)
    except (ShardError, MediaError, OSError) as error:
        yield Part(name, path, fault=first_line(error))


def table_rows(part: Part) -> Iterator[Row]:
    """The rows of a part of a table, by its `path`, `start` and `stop`."""
    kinds = {".csv": _csv_rows, ".jsonl": _line_rows, ".json": _json_rows, ".parquet": _parquet_rows}
    yield from kinds[Path(part.path.partition("?")[0]).suffix.lower()](part)


def columns_of(part: Part) -> list[str]:
    """The columns of the table that a part is of: of JSON, all keys of this part."""
    named = part.about.get("columns")
    if isinstance(named, list):
        return [str(name) for name in named]
    rows = (row for _, row in table_rows(part) if isinstance(row, dict))
    return list(dict.fromkeys(name for row in rows for name in row))


def _records(path: str, quoted: bool) -> Iterator[tuple[int, int]]:
    """Bytes (start, stop) of the records of a text file; a quoted line break is part of its record."""
    location, name = split_path(path)
    start = at = quotes = 0
    with location.open(name) as handle:
        while line := handle.readline(MAX_LINE_BYTES + 1):
            if len(line) > MAX_LINE_BYTES:
                raise ShardError(f"{path}: a line of more than {MAX_LINE_BYTES} bytes")
            at += len(line)
            quotes += line.count(b'"') if quoted else 0
            if at - start > MAX_LINE_BYTES:
                raise ShardError(f"{path}: a quotation mark that nothing closes, from byte {start} on")
            if quotes % 2 == 0:
                yield start, at
                start = at
    if start < at:
        yield start, at


def _text_parts(path: str, name: str, quoted: bool, about: dict[str, Any], skip: int) -> Iterator[Part]:
    first, begin, stop, count = 0, 0, 0, 0
    for number, (start, end) in enumerate(_records(path, quoted)):
        if number < skip:
            begin = stop = end
            continue
        if count == PART_ROWS:
            yield Part(f"{name}:{first}", path, begin, stop, {**about, "first": first})
            first, begin, count = first + count, start, 0
        stop, count = end, count + 1
    if count:
        yield Part(f"{name}:{first}", path, begin, stop, {**about, "first": first})


def _csv_parts(path: str, name: str) -> Iterator[Part]:
    location, file = split_path(path)
    start, stop = next(_records(path, True), (0, 0))
    try:
        header = location.read(file, start, stop).decode("utf-8-sig")
        columns = next(csv.reader(io.StringIO(header, newline=""), strict=True), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ShardError(f"{path}: no CSV in UTF-8 ({error})") from None
    yield from _text_parts(path, name, True, {"columns": columns}, skip=1)


def _line_parts(path: str, name: str) -> Iterator[Part]:
    yield from _text_parts(path, name, False, {}, skip=0)


def _text(part: Part) -> bytes:
    location, name = split_path(part.path)
    return location.read(name, part.start, part.stop - part.start)


def _first(part: Part) -> int:
    first = part.about.get("first", 0)
    return first if isinstance(first, int) else 0


def _csv_rows(part: Part) -> Iterator[Row]:
    columns = columns_of(part)
    text = _text(part).decode("utf-8", "surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = _first(part) - 1
    while True:
        number += 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield number, BadRow("", "not a row of CSV", str(error))
            continue
        if cells is None:
            return
        if not cells:
            continue
        if len(cells) != len(columns):
            yield number, BadRow("", "wrong number of cells", f"{len(cells)} where there are {len(columns)}")
        elif any("\udc80" <= c <= "\udcff" for cell in cells for c in cell):
            yield number, BadRow("", "not UTF-8")
        else:
            yield number, dict(zip(columns, cells, strict=True))


def _line_rows(part: Part) -> Iterator[Row]:
    for number, line in enumerate(_text(part).split(b"\n"), _first(part)):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, BadRow("", "not a line of JSON", first_line(error))
            continue
        yield number, value if isinstance(value, dict) else BadRow("", "not a JSON object")


@functools.lru_cache(maxsize=1)  # the parts of one document are read one after the other
def _document(path: str) -> list[Any]:
    location, name = split_path(path)
    value = parse_json(location.read(name, limit=MAX_JSON_BYTES), path)
    if not isinstance(value, list):
        raise ShardError(f"{path}: no list of rows, but a {type(value).__name__}")
    return value


def _json_parts(path: str, name: str) -> Iterator[Part]:
    _document.cache_clear()
    rows = len(_document(path))
    for start in range(0, rows, PART_ROWS):
        yield Part(f"{name}:{start}", path, start, min(rows, start + PART_ROWS))


def _json_rows(part: Part) -> Iterator[Row]:
    for number, value in enumerate(_document(part.path)[part.start : part.stop], part.start):
        yield number, value if isinstance(value, dict) else BadRow("", "not a JSON object")


def _parquet_parts(path: str, name: str) -> Iterator[Part]:
    """Row groups, the small ones together; a large one is a part by itself, since it is decoded in order."""
    import pyarrow
    import pyarrow.parquet

    location, file = split_path(path)
    with location.open(file) as handle:
        try:
            parquet = pyarrow.parquet.ParquetFile(handle)
        except (pyarrow.ArrowException, OSError) as error:
            raise ShardError(f"{path}: no whole parquet file ({first_line(error)})") from None
        columns = parquet.schema_arrow.names
        sizes = [parquet.metadata.row_group(n).num_rows for n in range(parquet.num_row_groups)]
    begin = first = count = 0
    for number, size in enumerate([*sizes, PART_ROWS]):
        if count and count + size > PART_ROWS:
            about = {"columns": columns, "first": first}
            yield Part(f"{name}:{first}", path, begin, number, about)
            begin, first, count = number, first + count, 0
        count += size


def _parquet_rows(part: Part) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    location, file = split_path(part.path)
    number = _first(part)
    with location.open(file) as handle:
        try:
            parquet = pyarrow.parquet.ParquetFile(handle)
            for batch in parquet.iter_batches(8, row_groups=range(part.start, part.stop)):
                for row in batch.to_pylist():
                    yield number, row
                    number += 1
        except (pyarrow.ArrowException, OSError) as error:
            raise ShardError(f"{part.path}: damaged at row {number} ({first_line(error)})") from None


# ---- cells ------------------------------------------------------------------------------------------------


def blob_of(value: Any, root: str, anywhere: bool = False) -> Blob:
    """The image or video that a cell holds or names.

    Args:
        value: bytes; a path; or Hugging Face's `{"bytes": ..., "path": ...}`, of which the bytes win.
        root, anywhere: see `place_in`.

    Raises:
        Refused: it is none of these, or empty.
    """
    if isinstance(value, Mapping) and ("bytes" in value or "path" in value):
        name = str(value.get("path") or "<bytes>")
        if value.get("bytes"):
            return Blob.of(value["bytes"], name)
        value = value.get("path")
    if isinstance(value, bytes) and value:
        return Blob.of(value)
    if isinstance(value, str) and value.strip():
        return Blob.at(place_in(root, value, anywhere), value)
    raise Refused("no file named")


def words_of(value: Any) -> str:
    """The text of a cell; "" for one that is empty, or a number that is none."""
    return value.strip() if isinstance(value, str) else "" if value is None else str(value)


def number_of(value: Any) -> float | None:
    """The number of a cell, or None where it holds none that is finite."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) < float("inf") else None


class Table:
    """One's own table of pairs: CSV, JSONL, JSON or parquet, with columns named by the mapping.

    The mapping names a column for each of `ROLES` that there is (`source` may be a list of columns, and is
    null for text to image or video), and may hold `root`, the folder that paths are relative to (the table's
    own otherwise), `scores` (name of a score: column), `captions` (element: column) and `tasks` (value of the
    task's column: our task).
    """

    name, license = "table", "unknown"
    defaults: ClassVar[Mapping[str, Any]] = {
        "source": "source",
        "target": "target",
        "instruction": "instruction",
    }
    suffixes: tuple[str, ...] = TABLES

    def __init__(self, options: LayoutOptions) -> None:
        self.task = options.task
        self.mapping = {**self.defaults, **options.mapping}
        known = {*ROLES, "root", "scores", "captions", "tasks"}
        for role in self.mapping:
            if role not in known:
                raise SettingError(f"mapping {role}: no such role; there are {', '.join(sorted(known))}")
        for role in ("scores", "captions", "tasks"):
            if not isinstance(self.mapping.get(role, {}), Mapping):
                raise SettingError(f"mapping {role}: names and columns are wanted, as in a YAML mapping")

    def parts(self, source: str) -> Iterator[Part]:
        """Some hundred rows each. Raises SettingError for columns that are not there."""
        folder, names = files_of(source, self.suffixes)
        for name in names:
            checked = False
            for part in table_parts(folder, name):
                if not checked and not part.fault:
                    self.check(columns_of(part), part.path)
                    checked = True
                yield part

    def check(self, columns: list[str], where: str) -> None:
        """Raise SettingError unless the table has the columns of the mapping."""
        wanted = {}
        for role in ROLES:
            value = self.mapping.get(role)
            for number, column in enumerate(value if isinstance(value, list) else [value] if value else []):
                wanted[role if not number else f"{role}[{number}]"] = column
        for group in ("scores", "captions"):
            wanted.update({f"{group}.{k}": column for k, column in self.mapping.get(group, {}).items()})
        need_columns(columns, wanted, where)

    def rows(self, part: Part) -> Iterator[EditRow | BadRow]:
        """One pair a row."""
        root = str(self.mapping.get("root") or split_path(part.path)[0].folder)
        file = part.name.rpartition(":")[0]
        for number, row in table_rows(part):
            identity = f"{file}:{number}"
            if isinstance(row, BadRow):
                yield BadRow(identity, row.reason, row.detail)
                continue
            yield from self.pairs(row, identity, root)

    def pairs(self, row: dict[str, Any], identity: str, root: str) -> Iterator[EditRow | BadRow]:
        """What one row of the table gives."""
        if own := words_of(self.cell(row, "id")):
            identity = own
        columns = self.mapping.get("source") or []
        columns = columns if isinstance(columns, list) else [columns]
        try:
            sources = [blob for column in columns for blob in self.blobs(row.get(column), root)]
            if columns and not sources:
                raise Refused("no file named", str(columns[0]))
            target = next(iter(self.blobs(row.get(self.mapping["target"]), root)), None)
            if target is None:
                raise Refused("no file named", str(self.mapping["target"]))
            mask = next(iter(self.blobs(self.cell(row, "mask"), root)), None)
        except Refused as error:
            yield BadRow(identity, error.reason, error.detail)
            return
        task = words_of(self.cell(row, "task"))
        yield EditRow(
            identity,
            words_of(self.cell(row, "instruction")),
            target,
            tuple(sources),
            mask,
            task=self.mapping.get("tasks", {}).get(task, task) or self.task,
            license=words_of(self.cell(row, "license")),
            captions={k: words_of(row.get(column)) for k, column in self.mapping.get("captions", {}).items()},
            scores={k: number_of(row.get(column)) for k, column in self.mapping.get("scores", {}).items()},
            reverse_instruction=words_of(self.cell(row, "reverse_instruction")) or None,
            group=words_of(self.cell(row, "group")),
        )

    def cell(self, row: dict[str, Any], role: str) -> Any:
        """The value of the column of a role, None where there is none."""
        column = self.mapping.get(role)
        return row.get(column) if isinstance(column, str) else None

    def blobs(self, value: Any, root: str) -> list[Blob]:
        """The files of a cell; none for an empty one."""
        values = value if isinstance(value, list) else [value]
        return [blob_of(each, root, anywhere=True) for each in values if each not in (None, "", b"")]
