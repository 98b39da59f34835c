"""VIE-Bench: 140 instructions of 8 kinds on videos, 20 with a reference picture (Mou et al. 2025).

`--data` is the folder with `vie_bench.csv` (or .json, .jsonl, .parquet) and the media at the paths that it
names. The published layout could not be read: columns are `video`, `instruction`, `task`, and optionally
`image` (the reference) and `id`, by default the row; `columns.json` maps them to others. Results lie at
`<id>.mp4`.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from benchmark.core.item import Item
from benchmark.suites import Aggregate, RowScores, mean_of_all, mean_over, mean_over_groups
from benchmark.suites.manifest import Media, faulty, media_item, unlike_published
from benchmark.suites.tables import distinct, find_table, read_table

PUBLISHED = 140
NEEDED, OPTIONAL = ("video", "instruction", "task"), ("image", "id")
GRADES = ("vie_bench_instruction", "vie_bench_preservation", "vie_bench_quality")


class Suite:
    """Rows in their order; `task` is the kind of edit."""

    name = "vie_bench"
    version = 1
    references: tuple[str, ...] = ()
    metrics: ClassVar[str | None] = "configs/benchmark/vie_bench.yaml"

    def __init__(self, data: Path) -> None:
        listed = read_table(find_table(data, ("vie_bench",)), NEEDED, OPTIONAL)
        self.sha256 = listed.sha256
        media, name = Media(data), listed.path.name
        made = [item_of(media, name, number, row) for number, row in enumerate(listed.rows)]
        self.items: list[Item] = distinct(made, name)
        self.remarks = [
            *listed.remarks,
            "VIE-Bench's list and the wording of its judge were not read from their source: grades by our "
            "rubric do not compare with published ones",
        ]
        self.remarks += unlike_published(listed.path, len(self.items), "VIE-Bench", PUBLISHED)

    def aggregate(self, scores: RowScores) -> list[Aggregate]:
        """The mean of the three grades by item; over kinds, and for each kind."""
        by_kind: dict[str, list[float | None]] = {item.task: [] for item in self.items}
        for item in self.items:
            by_kind[item.task].append(mean_of_all(scores.get(item.id, {}), GRADES))
        kinds = [mean_over(kind, values) for kind, values in sorted(by_kind.items())]
        return [mean_over_groups("mean over kinds", by_kind.values()), *kinds]


def item_of(kept: Media, name: str, number: int, row: dict[str, str]) -> Item:
    """The item of a row; what is wrong with it is the item's fault."""
    id = row["id"] or str(number)
    for column in NEEDED:
        if not row[column]:
            return faulty(id, f"{name}: row {number}: {column} is empty", f"{id}.mp4")
    media, text = {"video1": row["video"]}, f"<video1> {row['instruction']}"
    if row["image"]:
        media, text = media | {"image1": row["image"]}, f"{text} <image1>"
    prompts = {"instruction": row["instruction"], "kind": row["task"]}
    return media_item(id, row["task"], text, kept, media, f"{id}.mp4", prompts)
