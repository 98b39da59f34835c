"""Identity edits: instructions about nothing, after which every change is a fault.

`--data` is a shard folder, of whose held-out samples each source clip counts once, or a folder of videos.
Results lie at `<clip>/<number of the wording>.mp4`. What is wanted is the source itself, so every metric that
compares with a target says how far an editor departs from what it was to leave alone. The mask is empty:
all of the frame is outside of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmark.core.item import SOURCE, BenchmarkError, Item, Loaded
from benchmark.suites import heldout
from benchmark.suites.manifest import Media, media_item
from shards.hashing import digest

VIDEOS = {".mp4", ".mov", ".webm", ".mkv"}
WORDINGS = {
    "keep": "Keep the video exactly as it is.",
    "nothing": "Change nothing in this video.",
    "absent": "Remove the elephant if there is one; otherwise leave the video as it is.",
}


class Suite:
    """An item per clip and wording; `task` is the wording."""

    name = "identity"
    version = 1
    references: tuple[str, ...] = (SOURCE,)
    metrics: ClassVar[str | None] = "configs/benchmark/identity.yaml"
    remarks: ClassVar[list[str]] = [
        "the wanted result is the source: its row has an infinite PSNR; a result that was encoded again has "
        "the codec's error in it"
    ]

    def __init__(self, data: Path) -> None:
        if (data / "manifest.jsonl").is_file():
            opened = heldout.Suite(data)
            self.items, listed = of_pairs(opened.items), opened.sha256
        else:
            self.items, listed = of_clips(data)
        self.sha256 = digest([listed, WORDINGS])


def of_clips(data: Path) -> tuple[list[Item], str]:
    """(items, sha256 of the list) of a folder of videos."""
    found = sorted(p.name for p in data.iterdir() if p.suffix.lower() in VIDEOS) if data.is_dir() else []
    if not found:
        raise BenchmarkError(f"{data}: holds neither a shard folder's manifest.jsonl nor videos")
    media = Media(data)
    whole = {
        name: media_item(name, "identity", "<video1>", media, {"video1": name}, "", {}) for name in found
    }
    items = [
        unchanged(item, Path(name).stem, number, wording, words)
        for name, item in whole.items()
        for number, (wording, words) in enumerate(WORDINGS.items())
    ]
    return items, hashlib.sha256("\n".join(found).encode()).hexdigest()


def of_pairs(pairs: list[Item]) -> list[Item]:
    """Items on the sources of held-out pairs, each clip once."""
    clips: dict[str, Item] = {}
    for pair in pairs:
        clips.setdefault(pair.clip, pair)
    return [
        unchanged(item, item.id, number, wording, words)
        for item in clips.values()
        for number, (wording, words) in enumerate(WORDINGS.items())
    ]


def unchanged(item: Item, clip: str, number: int, wording: str, words: str) -> Item:
    """An item's source, to be left as it is."""

    def load() -> Loaded:
        loaded = item.load()
        source = next((data for name, data in loaded.inputs.items() if name.startswith("video")), None)
        inputs = {} if source is None else {"video1": source}
        nowhere = np.zeros(loaded.source.shape[:3], bool)
        return Loaded(loaded.source, loaded.source, nowhere, loaded.fps, inputs)

    return dataclasses.replace(
        item,
        id=f"{clip}/{number}",
        task=wording,
        category="",
        text=f"<video1> {words}",
        content=digest([item.content, "identity"], "spaced"),
        load=load,
        prompts={"instruction": words},
        result=f"{clip}/{number}.mp4",
    )
