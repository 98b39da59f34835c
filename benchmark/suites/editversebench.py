"""EditVerseBench: 200 instructions on 100 videos, in 20 categories (Ju et al. 2025).

`--data` is the folder with `test.json` and the media that it names; `python -m benchmark fetch` gets the
source videos. Results lie at `<id>/generate.mp4`; the source that a result was made of may lie beside it, as
`<id>/video1.mp4`, which is what the published program reads.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, Field, ValidationError

from benchmark.core.item import BenchmarkError, Item
from benchmark.suites import instruction_of
from benchmark.suites.manifest import Media, faulty, media_item, read_list, unlike_published, wrong_entry

LISTS = ("test.json", "EditVerseBench.json")
PUBLISHED = 200


class Entry(BaseModel):
    """One entry of the list, as far as scores need it."""

    text: str = Field(alias="<text>", min_length=1)
    video1: str = Field(alias="<video1>", min_length=1)
    direction: str
    target_prompt: str = Field(min_length=1)
    source_prompt: str = ""
    type: str = Field(min_length=1)


class Suite:
    """Items in the order of their numbers; `task` is the category, the facet `orientation` its direction."""

    name = "editversebench"
    version = 1
    references: tuple[str, ...] = ()
    metrics: ClassVar[str | None] = "configs/benchmark/editversebench.yaml"
    # of the published program's CSV, in its order, by the metrics' names in that file
    columns: ClassVar[dict[str, str]] = {
        "clip_temporal": "clip_temporal_consistency",
        "dino_temporal": "dino_temporal_consistency",
        "frame_text": "frame_text_alignment",
        "video_text": "video_text_alignment",
        "pick": "pick_score_video_quality",
        "judge": "editing_vlm_evaluation",
    }
    unlike_published: ClassVar[tuple[str, ...]] = (
        "a missing, broken or one-frame result is unscored and counted, where the published program ends",
        "each network sees frames in batches, CLIP once for both metrics: equal to 1e-5 (make parity)",
    )

    def __init__(self, data: Path) -> None:
        path, held, self.sha256, self.remarks = read_entries(data)
        ids = sorted(held, key=by_number)
        media = Media(data)
        self.items: list[Item] = [item_of(media, path, i, held[i]) for i in ids]
        self.remarks += unlike_published(path, len(held), "EditVerseBench", PUBLISHED)


def by_number(id: str) -> tuple[bool, int, str]:
    """To sort by: numbers in their order, then all else."""
    number = re.fullmatch("[0-9]{1,18}", id)
    return number is None, int(id) if number else 0, id


def read_entries(data: Path) -> tuple[Path, dict[str, Any], str, list[str]]:
    """(path, entries by number, sha256, remarks) of the list; BenchmarkError for one that is none."""
    path = next((data / name for name in LISTS if (data / name).is_file()), data / LISTS[0])
    held, digest, remarks = read_list(path, "EditVerseBench's list of edits by number")
    if not isinstance(held, dict) or not held:
        raise BenchmarkError(f"{path}: holds no entries by number")
    return path, held, digest, remarks


def item_of(kept: Media, path: Path, id: str, held: Any) -> Item:
    """The item of an entry; what is wrong with it is the item's fault."""
    result = f"{id}/generate.mp4"
    try:
        entry = Entry.model_validate(held)
    except ValidationError as error:
        return faulty(id, wrong_entry(path, id, error), result)
    tags = re.findall(r"<((?:video|image)[0-9]+)>", entry.text)
    media = {"video1": entry.video1} | {t: str(held[f"<{t}>"]) for t in tags if f"<{t}>" in held}
    text = entry.text if "<video1>" in entry.text else f"<video1> {entry.text}"
    prompts = {
        "instruction": instruction_of(entry.text),
        "target": entry.target_prompt,
        "source": entry.source_prompt,
    }
    facets = {"orientation": entry.direction}
    beside = f"{id}/video1.mp4"
    return media_item(id, entry.type, text, kept, media, result, prompts, facets=facets, beside=beside)
