"""VEFX-Bench: 300 instructions of 9 categories on videos (Gao et al. 2026), graded on three axes from 1 to 4.

`--data` is the folder with `vefx_bench.csv` (or .json, .jsonl, .parquet) and the videos at the paths that it
names. The dataset's own column names could not be read; these are of the published scoring script
(Visko-Platform/VEFX-Bench): `original_video`, `instruction`, and `edited_video`, whose name results have
(without it `<row>.mp4`); `category` and `subcategory` are optional. `columns.json` maps them to others.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import ClassVar

from benchmark.core.item import Item
from benchmark.suites import Aggregate, RowScores, mean_over
from benchmark.suites.manifest import Media, faulty, media_item, unlike_published
from benchmark.suites.tables import distinct, find_table, read_table

PUBLISHED = 300
NEEDED, OPTIONAL = ("original_video", "instruction"), ("edited_video", "category", "subcategory")
AXES = {"vefx_if": 2, "vefx_rq": 1, "vefx_ee": 1}  # with their exponents in GeoAgg
LOW, HIGH = 1.0, 4.0


class Suite:
    """Rows in their order; `task` is the category."""

    name = "vefx"
    version = 1
    references: tuple[str, ...] = ()
    metrics: ClassVar[str | None] = "configs/benchmark/vefx.yaml"

    def __init__(self, data: Path) -> None:
        listed = read_table(find_table(data, ("vefx_bench", "metadata")), NEEDED, OPTIONAL)
        self.sha256 = listed.sha256
        media, name = Media(data), listed.path.name
        made = [item_of(media, name, number, row) for number, row in enumerate(listed.rows)]
        self.items: list[Item] = distinct(made, name)
        self.remarks = listed.remarks
        self.remarks += unlike_published(listed.path, len(self.items), "VEFX-Bench", PUBLISHED)

    def aggregate(self, scores: RowScores) -> list[Aggregate]:
        """GeoAgg by item, then averaged (equation 6 of the paper), and the mean of the three axes."""
        axes = [[of.get(name) for name in AXES] for of in scores.values()]
        whole = [[value for value in of if value is not None] for of in axes if None not in of]
        return [
            mean_over("GeoAgg", (geo_agg(values) for values in whole)),
            mean_over("mean of IF, RQ, EE", (sum(values) / len(values) for values in whole)),
        ]


def geo_agg(values: list[float]) -> float:
    """1 + 3 (i^2 r e)^(1/4) of IF, RQ and EE brought from 1..4 to 0..1; one at its lowest lowers all to 1."""
    product = 1.0
    for value, power in zip(values, AXES.values(), strict=True):
        product *= max(0.0, (value - LOW) / (HIGH - LOW)) ** power
    return LOW + (HIGH - LOW) * product ** (1 / sum(AXES.values()))


def item_of(kept: Media, name: str, number: int, row: dict[str, str]) -> Item:
    """The item of a row; what is wrong with it is the item's fault."""
    result = PurePosixPath(row["edited_video"]).name or f"{number}.mp4"
    id = PurePosixPath(result).stem
    for column in NEEDED:
        if not row[column]:
            return faulty(id, f"{name}: row {number}: {column} is empty", result)
    task, words = row["category"] or "edit", row["instruction"]
    prompts, media = {"instruction": words, "kind": task}, {"video1": row["original_video"]}
    return media_item(
        id, task, f"<video1> {words}", kept, media, result, prompts, category=row["subcategory"]
    )
