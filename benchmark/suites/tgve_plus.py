"""TGVE+: 1,417 instructions of 7 kinds on 76 videos of 480x480 (Singer et al. 2024).

`--data` is the folder with `tgve_plus.parquet` (or .jsonl) and TGVE's videos at the paths that it names;
results lie at `<row>.mp4`. Names of columns are not published beyond their meaning: `columns.json` in the
folder can map `instruction`, `input_caption`, `output_caption`, `video` and `task` to others.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from benchmark.item import BenchmarkError, Item
from benchmark.listing import Media, faulty, media_item, read_list, unlike_published
from benchmark.metrics.config import content_of

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
            names |= {k: v for k, v in held.items() if k in names}
        columns = {name: given or name for name, given in names.items()}
        self.sha256 = content_of(str(path)) or ""
        media = Media(data)
        self.items: list[Item] = [
            item_of(media, path.name, n, row, columns) for n, row in enumerate(rows_in(path, columns))
        ]
        self.remarks += unlike_published(path, len(self.items), "TGVE+", PUBLISHED)


def rows_in(path: Path, columns: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of the table; BenchmarkError names a column that it does not have."""
    import pyarrow.json
    import pyarrow.parquet

    try:
        table = (
            pyarrow.parquet.read_table(path) if path.suffix == ".parquet" else pyarrow.json.read_json(path)
        )
    except (OSError, pyarrow.ArrowException) as error:
        raise BenchmarkError(f"{path}: cannot be read: {error}") from error
    for name, column in columns.items():
        if column not in table.column_names:
            raise BenchmarkError(
                f"{path}: no column {column!r}; it has {', '.join(table.column_names)}; say in "
                f'{path.parent / "columns.json"} which is {name}: {{"{name}": ...}}'
            )
    found: list[dict[str, Any]] = table.select(list(columns.values())).to_pylist()
    return found


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
