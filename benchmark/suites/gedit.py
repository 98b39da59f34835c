"""GEdit-Bench: 606 edits of 11 kinds of pictures, asked in English and in Chinese (Liu et al. 2025).

`--data` is the folder of the published dataset: Parquet files, in it or in `data/`, with `key`, `task_type`,
`instruction`, `instruction_language`, `Intersection_exist` and the source `input_image`; or a table
`gedit.jsonl` (.csv, .json) of these columns whose `input_image` names a file. Results lie as its evaluation
wants them, at `fullset/<task_type>/<language>/<key>.png`, where `<key>_SRCIMG.png` beside them is no result.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from benchmark.core.fingerprint import content_of
from benchmark.core.item import BenchmarkError, Geometry, Item, Loaded
from benchmark.suites import Aggregate, RowScores, mean_over_groups
from benchmark.suites.manifest import RATE, Media, faulty, media_item, unlike_published
from benchmark.suites.tables import distinct, find_table, read_table
from shards.errors import EditVerseError, first_line
from shards.hashing import digest
from shards.media import read_image

PUBLISHED = 1212
NEEDED = ("key", "task_type", "instruction", "instruction_language", "Intersection_exist", "input_image")
LANGUAGES = ("en", "cn")
SC, PQ = "gedit_sc", "gedit_pq"


class Suite:
    """Items by key; `task` is the kind, the facets `language` and `intersection` as the dataset has them."""

    name = "gedit"
    version = 1
    references: tuple[str, ...] = ()
    metrics: ClassVar[str | None] = "configs/benchmark/gedit.yaml"

    def __init__(self, data: Path) -> None:
        files = sorted(data.glob("*.parquet")) or sorted((data / "data").glob("*.parquet"))
        self.remarks: list[str] = []
        made: list[Item] = []
        if files:
            for path in files:
                listed = read_table(path, NEEDED)
                self.remarks += listed.remarks
                column = listed.columns["input_image"]
                pictures = pictures_in(path, column)
                for number, (row, picture) in enumerate(zip(listed.rows, pictures, strict=True)):
                    made.append(embedded_item(path, column, number, row, picture))
            self.sha256 = digest([content_of(str(path)) for path in files])
        else:
            path = find_table(data, ("gedit",))
            listed = read_table(path, NEEDED)
            self.remarks, self.sha256, media = listed.remarks, listed.sha256, Media(data)
            made = [item_of(media, path.name, number, row) for number, row in enumerate(listed.rows)]
        self.items: list[Item] = distinct(made, files[0].name if files else path.name)
        where = files[0] if files else path
        self.remarks += unlike_published(where, len(self.items), "GEdit-Bench", PUBLISHED)

    def aggregate(self, scores: RowScores) -> list[Aggregate]:
        """SC, PQ and their geometric mean by item, averaged over kinds, by language and subset."""
        made = []
        for language in LANGUAGES:
            for subset in ("full", "intersection"):
                chosen = [
                    item
                    for item in self.items
                    if item.facets.get("language") == language
                    and (subset == "full" or item.facets.get("intersection") == "yes")
                    and item.id in scores
                ]
                if chosen:
                    made += over_kinds(chosen, scores, f"{language}, {subset}")
        return made


def over_kinds(items: list[Item], scores: RowScores, label: str) -> list[Aggregate]:
    """The three numbers of a subset; items without both scores are in none of them."""
    kinds: dict[str, list[tuple[float, float]]] = {}
    for item in items:
        sc, pq = (scores[item.id].get(name) for name in (SC, PQ))
        if sc is not None and pq is not None:
            kinds.setdefault(item.task, []).append((sc, pq))
    return [
        mean_over_groups(f"{label}: SC", [[sc for sc, _ in of] for of in kinds.values()]),
        mean_over_groups(f"{label}: PQ", [[pq for _, pq in of] for of in kinds.values()]),
        mean_over_groups(
            f"{label}: overall", [[math.sqrt(sc * pq) for sc, pq in of] for of in kinds.values()]
        ),
    ]


def about(row: dict[str, str]) -> dict[str, Any]:
    """What both kinds of item share, by the names of `media_item`."""
    task, language, key = row["task_type"], row["instruction_language"], row["key"]
    shared = "yes" if row["Intersection_exist"].lower() in ("true", "1", "yes") else "no"
    return {
        "id": f"{task}/{language}/{key}",
        "task": task,
        "text": f"<image1> {row['instruction']}",
        "result": f"fullset/{task}/{language}/{key}.png",
        "prompts": {"instruction": row["instruction"], "kind": task},
        "facets": {"language": language, "intersection": shared},
    }


def wrong_row(name: str, number: int, row: dict[str, str]) -> Item | None:
    """The faulty item of a row with an empty cell or an unknown language."""
    told = about(row)
    empty = next((c for c in NEEDED if not row[c] and c != "input_image"), None)
    if empty:
        return faulty(told["id"], f"{name}: row {number}: {empty} is empty", told["result"])
    if row["instruction_language"] not in LANGUAGES:
        reason = f"{name}: row {number}: the language {row['instruction_language']!r} is neither en nor cn"
        return faulty(told["id"], reason, told["result"])
    return None


def item_of(kept: Media, name: str, number: int, row: dict[str, str]) -> Item:
    """The item of a row that names a file; what is wrong with it is the item's fault."""
    if (wrong := wrong_row(name, number, row)) is not None:
        return wrong
    if not row["input_image"]:
        return faulty(about(row)["id"], f"{name}: row {number}: input_image is empty", about(row)["result"])
    return media_item(kept=kept, media={"image1": row["input_image"]}, **about(row))


def embedded_item(path: Path, column: str, number: int, row: dict[str, str], picture: bytes | None) -> Item:
    """The item of a row that holds its picture, which is read again when it is needed."""
    if (wrong := wrong_row(path.name, number, row)) is not None:
        return wrong
    told = about(row)
    try:
        if not picture:
            raise BenchmarkError(f"{path.name}: row {number}: {column} holds no picture")
        height, width, _ = read_image(picture).shape
    except (EditVerseError, ValueError, OSError) as error:
        reason = first_line(error).removeprefix("<bytes>: ")
        return faulty(told["id"], f"{path.name}: row {number}: {reason}", told["result"])
    sha256 = hashlib.sha256(picture).hexdigest()

    def load() -> Loaded:
        data = next((p for n, p in enumerate(pictures_in(path, column)) if n == number), None)
        if not data or hashlib.sha256(data).hexdigest() != sha256:
            raise BenchmarkError(f"{path.name}: row {number}: its picture changed since the run began")
        return Loaded(read_image(data)[None], None, None, RATE, {"image1": data})

    return Item(
        told["id"],
        told["task"],
        "",
        told["text"],
        digest({"image1": sha256}, "spaced"),
        sha256,
        told["id"],
        Geometry(1, height, width, RATE),
        load,
        told["prompts"],
        None,
        told["facets"],
        told["result"],
    )


def pictures_in(path: Path, column: str) -> Iterator[bytes | None]:
    """The encoded pictures of a Parquet file's column, of structs with `bytes`, a few rows at a time."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=16, columns=[column]):
                for value in batch.column(0).to_pylist():
                    yield value.get("bytes") if isinstance(value, dict) else None
    except (pyarrow.ArrowException, OSError) as error:
        raise BenchmarkError(f"{path}: cannot be read: {first_line(error)}") from error
