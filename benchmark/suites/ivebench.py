"""IVEBench: 600 instructions of 8 categories on videos of 32 to 1,024 frames (Chen et al. 2026).

`--data` is the folder with `ivebenchdb_prompt_short.json`, `ivebenchdb_prompt_long.json` or both, and the
videos in `ivebenchdb_mp4_short` and `ivebenchdb_mp4_long`, as files or as folders of frames. A result is a
folder of frames, or a video, with the name of its source.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from pydantic import BaseModel, Field, ValidationError

from benchmark.core.item import BenchmarkError, Item
from benchmark.suites import Aggregate, RowScores, mean_over
from benchmark.suites.manifest import Media, faulty, media_item, read_list, unlike_published, wrong_entry
from benchmark.suites.tables import distinct
from shards.hashing import digest

PUBLISHED = 600
SUBSETS = ("short", "long")
LISTS = ("ivebenchdb_prompt_{}.json", "ivebench_prompt_{}.json")

# Metrics by dimension with their weights, and the ranges that three of them are brought from to 0..1, as in
# metrics/get_average_score.py of RyanChenYN/IVEBench.
DIMENSIONS: dict[str, dict[str, int]] = {
    "quality": {
        "subject_consistency": 1,
        "background_consistency": 1,
        "temporal_flickering": 1,
        "motion_smoothness": 1,
        "vtss": 4,
    },
    "compliance": {
        "overall_semantic_consistency": 1,
        "phrase_semantic_consistency": 1,
        "instruction_satisfaction": 3,
        "quantity_accuracy": 1,
    },
    "fidelity": {"semantic_fidelity": 1, "motion_fidelity": 1, "content_fidelity": 3},
}
RANGES = {
    "instruction_satisfaction": (1.0, 5.0),
    "content_fidelity": (1.0, 5.0),
    "vtss": (-0.05, 0.1),
}


class Entry(BaseModel):
    """One entry of a list."""

    src_video_name: str = Field(min_length=1)
    category: str = Field(min_length=1)
    subcategory: str = ""
    source_prompt: str = ""
    edit_prompt: str = Field(min_length=1)
    target_prompt: str = ""


class Suite:
    """Items by video; `task` is the category, the facet `subset` short or long."""

    name = "ivebench"
    version = 1
    references: tuple[str, ...] = ()
    metrics: ClassVar[str | None] = "configs/benchmark/ivebench.yaml"

    def __init__(self, data: Path) -> None:
        media, made = Media(data), list[Item]()
        self.remarks: list[str] = []
        hashes, paths = {}, []
        for subset in SUBSETS:
            names = [data / name.format(subset) for name in LISTS]
            path = next((place for place in names if place.is_file()), None)
            if path is None:
                continue
            held, hashes[subset], remarks = read_list(path, "IVEBench's list of edits")
            if not isinstance(held, list) or not held:
                raise BenchmarkError(f"{path}: should be a list of entries")
            paths.append(path)
            self.remarks += remarks
            made += [item_of(media, path, subset, number, entry) for number, entry in enumerate(held)]
        if not paths:
            raise BenchmarkError(f"{data}: holds neither {LISTS[0].format('short')} nor the one of `long`")
        self.items: list[Item] = distinct(made, " and ".join(path.name for path in paths))
        self.sha256 = digest(hashes)
        self.remarks += unlike_published(paths[0], len(self.items), "IVEBench", PUBLISHED)

    def aggregate(self, scores: RowScores) -> list[Aggregate]:
        """Dimensions and total by the published weights, of each subset by itself as its authors ask.

        A dimension is over those of its metrics that a run has, and its label counts them: most need networks
        that run in the published program alone.
        """
        made = []
        subsets = {item.id: item.facets.get("subset", "") for item in self.items}
        for subset in SUBSETS:
            rows = [dict(of) for id, of in scores.items() if subsets.get(id) == subset]
            if rows:
                made += dimensions(rows, subset)
        return made


def dimensions(rows: list[dict[str, float | None]], subset: str) -> list[Aggregate]:
    """The three dimensions and the total of a subset."""
    found: list[Aggregate] = []
    for name, weights in DIMENSIONS.items():
        total, weight, counts = 0.0, 0, []
        for metric, share in weights.items():
            # -1 marks a score that is missing in the published program
            mean = mean_over(metric, [v for row in rows if (v := row.get(metric)) is not None and v > -1])
            if mean.value is not None:
                low, high = RANGES.get(metric, (0.0, 1.0))
                total += share * (mean.value - low) / (high - low)
                weight += share
                counts.append(mean.n)
        if counts:
            label = f"{subset}: {name} ({len(counts)} of {len(weights)} metrics)"
            found.append(Aggregate(label, total / weight, min(counts)))
    values = [a.value for a in found if a.value is not None]
    if values:
        label = f"{subset}: total ({len(values)} of {len(DIMENSIONS)} dimensions)"
        found.insert(0, Aggregate(label, sum(values) / len(values), min(a.n for a in found)))
    return found


def item_of(kept: Media, path: Path, subset: str, number: int, held: Any) -> Item:
    """The item of an entry; what is wrong with it is the item's fault."""
    try:
        entry = Entry.model_validate(held)
    except ValidationError as error:
        return faulty(f"{subset} {number}", wrong_entry(path, str(number), error), f"{subset}{number}.mp4")
    name = PurePosixPath(entry.src_video_name)
    stem, result = name.stem, f"{name.stem}.mp4"
    folders = (f"ivebenchdb_mp4_{subset}", subset, "videos", "")
    places = [str(PurePosixPath(folder) / part) for folder in folders for part in (name.name, stem)]
    source = next((place for place in places if kept.exists(place)), places[0])
    prompts = {"instruction": entry.edit_prompt, "kind": entry.category}
    prompts |= {n: t for n, t in (("target", entry.target_prompt), ("source", entry.source_prompt)) if t}
    text, facets = f"<video1> {entry.edit_prompt}", {"subset": subset}
    media = {"video1": source}
    return media_item(stem, entry.category, text, kept, media, result, prompts, entry.subcategory, facets)
