"""Tables of one's own in parts that are read alone, and pairs out of them by columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import JsonValue

from curation.datasets.layouts import records
from curation.datasets.layouts.rows import (
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
from shards.errors import SettingError, first_line
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
    try:
        columns: list[JsonValue] = [*records.columns_of(path)]
        for stretch in records.cut(path):
            about = {"columns": columns, "first": stretch.first, "stretch": stretch.about}
            yield Part(f"{name}:{stretch.first}", path, stretch.start, stretch.stop, about)
    except ShardError as error:
        yield Part(name, path, fault=first_line(error))


def table_rows(part: Part, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a part of a table: of a parquet, only the columns that are asked for."""
    yield from records.read(part.path, stretch_of(part), columns)


def stretch_of(part: Part) -> records.Stretch:
    """Which stretch of its table a part is."""
    first, about = part.about["first"], part.about["stretch"]
    assert isinstance(first, int)
    assert isinstance(about, dict)
    return records.Stretch(part.start, part.stop, first, about)


def columns_of(part: Part) -> list[str]:
    """The columns of the table that a part is of: of JSON, the keys of its first rows."""
    named = part.about["columns"]
    assert isinstance(named, list)
    return [str(name) for name in named]


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
