"""FiVE-Bench: 420 pairs of prompts of 6 fine-grained kinds on 100 videos with masks (Li et al. 2025).

`--data` is the folder with `edit_prompt/edit1_FiVE.json` to `edit6_FiVE.json`, the sources as
`videos/<name>.mp4` or `images/<name>/`, and masks as `bmasks/<name>/`, a picture for each frame. Results lie,
as its evaluation names them, at `<name>/<kind>_<beginning of the target prompt>.mp4` or as folders of frames.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from benchmark.core.fingerprint import content_of
from benchmark.core.item import BenchmarkError, Item, Loaded
from benchmark.core.media import IMAGES
from benchmark.suites import Aggregate, RowScores, mean_of_all, mean_over_groups
from benchmark.suites.manifest import Media, faulty, media_item, read_list, unlike_published, wrong_entry
from benchmark.suites.tables import distinct
from shards.errors import EditVerseError
from shards.hashing import digest
from shards.media import read_image

PUBLISHED = 420
LISTS = tuple(f"edit{n}_FiVE.json" for n in range(1, 7))
KINDS = ("rigid object", "non-rigid object", "color", "material", "addition", "removal")
ACCURACIES = ("five_yn", "five_mc")


class Entry(BaseModel):
    """One entry of a list."""

    video_name: str = Field(min_length=1)
    editing_type_id: int = Field(ge=1, le=6)
    source_prompt: str = Field(min_length=1)
    target_prompt: str = Field(min_length=1)
    save_dir: str = Field(min_length=3)
    instruction: str = ""
    multiple_choice_question: str = ""
    source_yes_no_question: str = ""
    target_yes_no_question: str = ""


class Suite:
    """Items by list and entry; `task` is the kind of edit."""

    name = "five"
    version = 1
    references: tuple[str, ...] = ()
    metrics: ClassVar[str | None] = "configs/benchmark/five.yaml"

    def __init__(self, data: Path) -> None:
        paths = [data / "edit_prompt" / name for name in LISTS]
        there = [path for path in paths if path.is_file()]
        if not there:
            raise BenchmarkError(f"{data}: holds no edit_prompt/{LISTS[0]}, nor another of the six lists")
        media, made, hashes = Media(data), list[Item](), []
        self.remarks = [f"{path.name} is not there" for path in paths if path not in there]
        for path in there:
            held, sha256, remarks = read_list(path, "FiVE-Bench's list of edits")
            if not isinstance(held, list) or not held:
                raise BenchmarkError(f"{path}: should be a list of entries")
            hashes.append(sha256)
            self.remarks += remarks
            made += [item_of(media, path, number, entry) for number, entry in enumerate(held)]
        self.items: list[Item] = distinct(made, "edit_prompt")
        self.sha256 = digest(hashes)
        self.remarks += unlike_published(data / "edit_prompt", len(self.items), "FiVE-Bench", PUBLISHED)

    def aggregate(self, scores: RowScores) -> list[Aggregate]:
        """FiVE-Acc and its four parts in percent, averaged over items of a kind and then over kinds."""
        parts: dict[str, dict[str, list[float | None]]] = {}
        for item in self.items:
            of = scores.get(item.id, {})
            if mean_of_all(of, ACCURACIES) is None:
                continue
            yn, mc = (float(of[name] or 0.0) for name in ACCURACIES)
            union, both = float(yn + mc > 0), float(yn + mc >= 2)
            told = {"YN-Acc": yn, "MC-Acc": mc, "union": union, "intersection": both}
            told["FiVE-Acc"] = (yn + mc + union + both) / 4
            for label, value in told.items():
                parts.setdefault(label, {}).setdefault(item.task, []).append(100 * value)
        return [mean_over_groups(label, kinds.values()) for label, kinds in parts.items()]


def item_of(kept: Media, path: Path, number: int, held: Any) -> Item:
    """The item of an entry; what is wrong with it is the item's fault."""
    named = f"{path.stem} {number}"
    try:
        entry = Entry.model_validate(held)
    except ValidationError as error:
        return faulty(named, wrong_entry(path, str(number), error), f"{named}.mp4")
    # the published evaluation cuts the target prompt to the length of what follows the kind in `save_dir`
    words = entry.target_prompt[: len(entry.save_dir) - 2]
    result = f"{entry.video_name}/{entry.editing_type_id}_{words}.mp4"
    id = f"{entry.editing_type_id}/{entry.video_name}/{words}"
    places = [f"videos/{entry.video_name}.mp4", f"images/{entry.video_name}"]
    source = next((place for place in places if kept.exists(place)), places[0])
    target, described = (re.sub(r"[\[\]]", "", text) for text in (entry.target_prompt, entry.source_prompt))
    words = entry.instruction or target
    prompts = {"instruction": words, "target": target, "source": described}
    prompts |= {
        name: question
        for name, question in (
            ("choice", entry.multiple_choice_question),
            ("source_question", entry.source_yes_no_question),
            ("target_question", entry.target_yes_no_question),
        )
        if question
    }
    task = KINDS[entry.editing_type_id - 1]
    made = media_item(id, task, f"<video1> {words}", kept, {"video1": source}, result, prompts)
    return masked(made, kept, f"bmasks/{entry.video_name}")


def masked(item: Item, kept: Media, place: str) -> Item:
    """The item with its mask; one without a folder of masks stays as it is, and masked metrics say so."""
    if item.fault or not kept.exists(place):
        return item
    folder = kept.place(place)

    def load() -> Loaded:
        loaded = item.load()
        try:
            pictures = [read_image(p) for p in sorted(folder.iterdir()) if p.suffix in IMAGES]
        except (EditVerseError, OSError, ValueError) as error:
            raise BenchmarkError(str(error)) from error
        frames = len(loaded.source)
        shapes = {picture.shape[:2] for picture in pictures}
        if len(pictures) != frames or shapes != {loaded.source.shape[1:3]}:
            raise BenchmarkError(
                f"{folder}: {len(pictures)} masks of the sizes {sorted(shapes)[:3]}, the source has "
                f"{frames} frames of {loaded.source.shape[1:3]}"
            )
        mask = np.stack([picture.any(-1) for picture in pictures])
        return dataclasses.replace(loaded, mask=mask)

    content = digest([item.content, content_of(str(folder))], "spaced")
    return dataclasses.replace(item, content=content, load=load)
