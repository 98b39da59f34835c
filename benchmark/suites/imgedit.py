"""ImgEdit-Bench's basic part: 737 instructions of 9 kinds on pictures (Ye et al. 2025).

`--data` is the folder with `basic_edit.json` and the pictures that it names, under it or under
`original_images`. Results lie at `<key>.png`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, Field, ValidationError

from benchmark.core.item import BenchmarkError, Item
from benchmark.suites import Aggregate, RowScores
from benchmark.suites.manifest import Media, faulty, media_item, read_list, unlike_published, wrong_entry

PUBLISHED = 737


class Entry(BaseModel):
    """One entry of the list."""

    id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    edit_type: str = Field(min_length=1)


JUDGES = (
    "the judge is the code's (basic_bench.py: gpt-4o); the paper names GPT-4.1 (PKU-YuanGroup/ImgEdit#34), "
    "whose grades do not compare: name it in the metrics file to compare with the paper"
)


class Suite:
    """Items by key; `task` is the kind of edit. The paper's overall score is the mean over kinds."""

    name = "imgedit"
    unlike_published: ClassVar[tuple[str, ...]] = (JUDGES,)
    version = 1
    references: tuple[str, ...] = ()
    metrics: ClassVar[str | None] = "configs/benchmark/imgedit.yaml"

    def __init__(self, data: Path) -> None:
        path = data / "basic_edit.json"
        held, self.sha256, self.remarks = read_list(path, "ImgEdit-Bench's list of edits by key")
        if not isinstance(held, dict) or not held:
            raise BenchmarkError(f"{path}: holds no entries by key")
        media = Media(data)
        self.items: list[Item] = [item_of(media, path, key, held[key]) for key in sorted(held)]
        self.remarks += unlike_published(path, len(held), "ImgEdit-Bench", PUBLISHED)

    def aggregate(self, scores: RowScores) -> list[Aggregate]:
        """For each metric the mean of every kind, and their mean, which the paper calls Overall.

        As `step2_typescore.py` of the published code: means of the items of a kind that have a score. Overall
        is left empty where a kind of the list has none.
        """
        kinds: dict[str, list[str]] = {}
        for item in self.items:
            if item.id in scores and not item.fault:
                kinds.setdefault(item.task, []).append(item.id)
        found = []
        for metric in dict.fromkeys(m for of in scores.values() for m in of):
            parts = []
            for kind, ids in sorted(kinds.items()):
                values = [v for i in ids if (v := scores[i].get(metric)) is not None]
                mean = sum(values) / len(values) if values else None
                parts.append(Aggregate(f"{metric}, {kind}", mean, len(values)))
            means = [p.value for p in parts if p.value is not None]
            whole = sum(means) / len(means) if parts and len(means) == len(parts) else None
            total = sum(p.n for p in parts)
            found += [Aggregate(f"{metric}, mean of {len(parts)} kinds (Overall)", whole, total), *parts]
        return found


def item_of(kept: Media, path: Path, key: str, held: Any) -> Item:
    """The item of an entry; what is wrong with it is the item's fault."""
    try:
        entry = Entry.model_validate(held)
    except ValidationError as error:
        return faulty(key, wrong_entry(path, key, error), f"{key}.png")
    under = "original_images/" if (kept.root / "original_images").is_dir() else ""
    media, text = {"image1": under + entry.id}, f"<image1> {entry.prompt}"
    prompts = {"instruction": entry.prompt, "kind": entry.edit_type}
    return media_item(key, entry.edit_type, text, kept, media, f"{key}.png", prompts)
