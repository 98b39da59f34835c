"""ImgEdit-Bench's basic part: 737 instructions of 9 kinds on pictures (Ye et al. 2025).

`--data` is the folder with `basic_edit.json` and the pictures that it names, under it or under
`original_images`. Results lie at `<key>.png`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, Field, ValidationError

from benchmark.item import BenchmarkError, Item
from benchmark.listing import faulty, media_item, read_list

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
        self.items: list[Item] = [item_of(data, key, held[key]) for key in sorted(held)]
        if len(held) != PUBLISHED:
            self.remarks.append(f"{path.name} lists {len(held)} edits, ImgEdit-Bench has {PUBLISHED}")


def item_of(data: Path, key: str, held: Any) -> Item:
    """The item of an entry; what is wrong with it is the item's fault."""
    try:
        entry = Entry.model_validate(held)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return faulty(key, f"basic_edit.json: entry {key}: {where}: {first['msg']}", f"{key}.png")
    under = "original_images/" if (data / "original_images").is_dir() else ""
    media, text = {"image1": under + entry.id}, f"<image1> {entry.prompt}"
    prompts = {"instruction": entry.prompt, "kind": entry.edit_type}
    return media_item(key, entry.edit_type, text, data, media, f"{key}.png", prompts)
