"""ImgEdit-Bench's basic part: 737 instructions of 9 kinds on pictures (Ye et al. 2025).

`--data` is the folder with `basic_edit.json` and the pictures that it names, under it or under
`original_images`. Results lie at `<key>.png`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, Field, ValidationError

from benchmark.core.item import BenchmarkError, Item
from benchmark.suites.manifest import Media, faulty, media_item, read_list, unlike_published, wrong_entry

PUBLISHED = 737


class Entry(BaseModel):
    """One entry of the list."""

    id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    edit_type: str = Field(min_length=1)


class Suite:
    """Items by key; `task` is the kind of edit. The paper's overall score is the mean over kinds."""

    name = "imgedit"
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
