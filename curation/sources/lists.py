"""Lists of clips as people have them: a .txt with an entry a line, or a table (.jsonl, .csv, .parquet)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import Any

from curation.sources.clips import printable
from shards.errors import EditVerseError
from shards.limits import MAX_INDEX_BYTES, parse_json
from shards.location import Location, suffix_of
from shards.media import MediaError

LIST_SUFFIXES = (".txt", ".jsonl", ".csv", ".parquet")
COLUMNS = ("url", "path")  # the first that a list has names the clip
LICENSES = ("license", "licence")  # the first that says something
LICENSE_URLS = ("license_url", "licence_url")
AUTHORS = ("author",)
PAGES = ("page",)
# All that is read of a list; its other columns may be large.
READ = (*COLUMNS, *LICENSES, *LICENSE_URLS, *AUTHORS, *PAGES)


def read_list(path: str) -> Iterator[dict[str, Any]]:
    """The rows of a list, local or at a URL, as their columns; of a .txt as `{"url": line}`.

    Raises:
        MediaError: there is no such list, it cannot be read, or a row names neither `url` nor `path`.
        StoreError: the store does not answer.
    """
    try:
        data = folder_of(path).read(path.rpartition("/")[2], limit=MAX_INDEX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        raise MediaError(f"{printable(path)}: no such list of clips") from None
    read = {".txt": _lines, ".jsonl": _objects, ".csv": _table, ".parquet": _columns}[suffix_of(path)]
    empty = True
    for row in read(data, path):
        empty = False
        yield row
    if empty:
        raise MediaError(f"{printable(path)}: an empty list; it should name a video a line")


def folder_of(path: str) -> Location:
    """Where a list lies, which its relative paths begin at."""
    return Location(path.rpartition("/")[0] or ("/" if path.startswith("/") else "."))


def text_of(row: Mapping[str, Any], columns: tuple[str, ...]) -> str:
    """What the first of these columns that says something says; "" for nothing."""
    texts = (value.strip() for name in columns if isinstance(value := row.get(name), str))
    return next(filter(None, texts), "")


def _lines(data: bytes, path: str) -> Iterator[dict[str, Any]]:
    for line in data.decode("utf-8-sig", "surrogateescape").split("\n"):  # a path may be no UTF-8
        entry = line.strip()
        if entry and not entry.startswith("#"):
            yield {"url": entry}


def _objects(data: bytes, path: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line, f"{path}:{number}")
        except EditVerseError as error:
            raise MediaError(str(error)) from None
        if not isinstance(row, dict):
            raise MediaError(f"{path}:{number}: needs an object with `url` or `path`")
        _check_columns(row, f"{path}:{number}")
        yield row


def _table(data: bytes, path: str) -> Iterator[dict[str, Any]]:
    try:
        rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig")), strict=True)
        _check_columns(dict.fromkeys(rows.fieldnames or ()), path)
        yield from rows
    except (csv.Error, UnicodeDecodeError) as error:
        raise MediaError(f"{path}: no CSV in UTF-8: {error}") from None


def _columns(data: bytes, path: str) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(io.BytesIO(data))
        names = file.schema_arrow.names
        _check_columns(dict.fromkeys(names), path)
        for batch in file.iter_batches(columns=[name for name in READ if name in names]):
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise MediaError(f"{path}: no parquet file: {str(error).splitlines()[0]}") from None


def _check_columns(row: Mapping[str, object], where: str) -> None:
    if not any(column in row for column in COLUMNS):
        raise MediaError(f"{where}: has no column `url` or `path`, but {', '.join(map(str, row)) or 'none'}")
