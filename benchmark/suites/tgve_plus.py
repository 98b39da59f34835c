"""TGVE+: 1,417 instructions of 7 kinds on 76 videos of 480x480 (Singer et al. 2024).

`--data` is the folder with `tgve_plus.parquet` (or .jsonl) and TGVE's videos at the paths that it names;
results lie at `<row>.mp4`. Names of columns are not published beyond their meaning: `columns.json` in the
folder can map `instruction`, `input_caption`, `output_caption`, `video` and `task` to others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from benchmark.core.fingerprint import content_of
from benchmark.core.item import BenchmarkError, Item
from benchmark.suites.manifest import Media, faulty, media_item, read_list, unlike_published
from shards.errors import EditVerseError, first_line
from shards.limits import MAX_JSON_BYTES, MAX_ROWS, LimitError, parse_json, read_text

COLUMNS = ("instruction", "input_caption", "output_caption", "video", "task")
PUBLISHED = 1417


class Suite:
    """Rows in their order; `task` is the kind of edit."""

    name = "tgve_plus"
    version = 1
    references: tuple[str, ...] = ()
    metrics: ClassVar[str | None] = "configs/benchmark/tgve_plus.yaml"

    def __init__(self, data: Path) -> None:
        tables = (data / "tgve_plus.parquet", data / "tgve_plus.jsonl")
        path = next((table for table in tables if table.is_file()), None)
        if path is None:
            raise BenchmarkError(f"{data}: holds neither tgve_plus.parquet nor tgve_plus.jsonl")
        names = dict.fromkeys(COLUMNS)
        self.remarks: list[str] = []
        if (data / "columns.json").is_file():
            held, _, _ = read_list(data / "columns.json", "an object that maps columns")
            if not isinstance(held, dict) or not all(isinstance(v, str | None) for v in held.values()):
                raise BenchmarkError(f"{data / 'columns.json'}: should map columns to names in the table")
            names |= {k: v for k, v in held.items() if k in names}
        columns = {name: given or name for name, given in names.items()}
        self.sha256 = content_of(str(path)) or ""
        media = Media(data)
        self.items: list[Item] = [
            item_of(media, path.name, n, row, columns) for n, row in enumerate(rows_in(path, columns))
        ]
        self.remarks += unlike_published(path, len(self.items), "TGVE+", PUBLISHED)


def rows_in(path: Path, columns: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of the table; BenchmarkError names a column that it does not have, or what else is wrong."""
    try:
        if path.suffix == ".jsonl":
            lines = [line for line in read_text(path).splitlines() if line.strip()]
            rows = [parse_json(line, f"line {n}") for n, line in enumerate(lines, 1)]
            if not all(isinstance(row, dict) for row in rows):
                raise BenchmarkError("every line should be an object")
            refuse_missing(path, columns, list(dict.fromkeys(name for row in rows for name in row)))
            return [{name: row.get(name) for name in columns.values()} for row in rows]
        return parquet_rows(path, columns)
    except (OSError, EditVerseError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise BenchmarkError(f"{path}: {reason}") from error


def refuse_missing(path: Path, columns: dict[str, str], there: list[str]) -> None:
    """Raise BenchmarkError naming a column that the table does not have, and where to say its name."""
    for name, column in columns.items():
        if column not in there:
            raise BenchmarkError(
                f"no column {column!r}; it has {', '.join(there)[:200]}; say in "
                f'{path.parent / "columns.json"} which is {name}: {{"{name}": ...}}'
            )


def parquet_rows(path: Path, columns: dict[str, str]) -> list[dict[str, Any]]:
    """As `rows_in`. A small file may stand for a huge table, so texts are counted before they are made."""
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    chosen = list(columns.values())
    try:
        refuse_missing(path, columns, pyarrow.parquet.read_schema(path).names)
        with pyarrow.parquet.ParquetFile(path, read_dictionary=chosen) as file:
            if file.metadata.num_rows > MAX_ROWS:
                raise LimitError(f"{file.metadata.num_rows} rows, a table may have {MAX_ROWS}")
            for name in chosen:
                kind = file.schema_arrow.field(name).type
                if not pyarrow.types.is_dictionary(kind):
                    raise BenchmarkError(f"the column {name!r} holds {kind}, not text")
            groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
            stored = [group.column(n) for group in groups for n in range(group.num_columns)]
            size = sum(c.total_uncompressed_size for c in stored if c.path_in_schema in chosen)
            if size > MAX_JSON_BYTES:
                raise LimitError(f"{size} bytes of text, a table may have {MAX_JSON_BYTES}")
            table = file.read(columns=chosen)
        for column in table.columns:
            for chunk in column.chunks:
                lengths = pyarrow.compute.binary_length(chunk.dictionary).take(chunk.indices)
                if (pyarrow.compute.sum(lengths).as_py() or 0) > MAX_JSON_BYTES:
                    raise LimitError(f"too much text, a table may have {MAX_JSON_BYTES} bytes a column")
        rows: list[dict[str, Any]] = table.to_pylist()
        return rows
    except (pyarrow.ArrowException, UnicodeDecodeError, KeyError, OverflowError) as error:
        raise BenchmarkError(f"cannot be read: {first_line(error)}") from error


def item_of(kept: Media, name: str, number: int, row: dict[str, Any], columns: dict[str, str]) -> Item:
    """The item of a row; what is wrong with it is the item's fault."""
    id, result = str(number), f"{number}.mp4"
    value = {key: row[column] for key, column in columns.items()}
    for key in COLUMNS:
        if not isinstance(value[key], str) or not value[key].strip():
            return faulty(id, f"{name}: row {number}: {columns[key]} is empty", result)
    prompts = {
        "instruction": value["instruction"],
        "target": value["output_caption"],
        "source": value["input_caption"],
    }
    text, media = f"<video1> {value['instruction']}", {"video1": value["video"]}
    return media_item(id, value["task"], text, kept, media, result, prompts)
