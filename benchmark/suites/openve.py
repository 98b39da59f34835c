"""OpenVE-Bench: 431 instructions of 8 kinds on videos (He et al. 2025), graded by a model that sees videos.

`--data` is the folder with `benchmark_videos.csv` (columns `edited_type`, `prompt`, `original_video`) and
`videos/`; results lie at `<name of the video>_edited.mp4`. The layout is that of the public evaluation code
(showlab/Kiwi-Edit, eval_openve_gemini.py), which scores five of the eight kinds.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import ClassVar

from benchmark.core.item import Item
from benchmark.suites import Aggregate, RowScores, mean_of_all, mean_over_groups
from benchmark.suites.manifest import Media, faulty, media_item, unlike_published
from benchmark.suites.tables import distinct, find_table, read_table

PUBLISHED = 431
PREFIX = "OpenVE-Bench/"  # of paths that begin at the folder's parent
FIVE = ("global_style", "background_change", "local_change", "local_remove", "local_add")
GRADES = ("openve_instruction", "openve_consistency", "openve_quality")


class Suite:
    """Rows in their order; `task` is the kind of edit."""

    name = "openve"
    version = 1
    references: tuple[str, ...] = ()
    metrics: ClassVar[str | None] = "configs/benchmark/openve.yaml"

    def __init__(self, data: Path) -> None:
        listed = read_table(
            find_table(data, ("benchmark_videos",)), ("edited_type", "prompt", "original_video")
        )
        self.sha256 = listed.sha256
        media, name = Media(data), listed.path.name
        made = [item_of(media, name, number, row) for number, row in enumerate(listed.rows)]
        self.items: list[Item] = distinct(made, name)
        self.remarks = listed.remarks
        self.remarks += unlike_published(listed.path, len(self.items), "OpenVE-Bench", PUBLISHED)

    def aggregate(self, scores: RowScores) -> list[Aggregate]:
        """The mean over kinds of the items' mean grades: over the five scored in public, and over all."""
        by_kind: dict[str, list[float | None]] = {item.task: [] for item in self.items}
        for item in self.items:
            by_kind[item.task].append(mean_of_all(scores.get(item.id, {}), GRADES))
        five = [of for kind, of in by_kind.items() if kind in FIVE]
        return [mean_over_groups("five kinds", five), mean_over_groups("all kinds", by_kind.values())]


def item_of(kept: Media, name: str, number: int, row: dict[str, str]) -> Item:
    """The item of a row; what is wrong with it is the item's fault."""
    video = row["original_video"].removeprefix(PREFIX)
    stem = PurePosixPath(video).stem
    result = f"{stem}_edited.mp4"
    for column, value in row.items():
        if not value:
            return faulty(stem or f"row {number}", f"{name}: row {number}: {column} is empty", result)
    prompts = {"instruction": row["prompt"], "kind": row["edited_type"]}
    text = f"<video1> {row['prompt']}"
    return media_item(stem, row["edited_type"], text, kept, {"video1": video}, result, prompts)
