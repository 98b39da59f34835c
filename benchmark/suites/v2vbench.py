"""V2VBench: 50 videos with 3 prompts each (Sun et al. 2024).

`--data` is the folder with `config.yaml` and the sources as `<video_id>.mp4` or `.gif`, or folders
`<video_id>` of pictures, under it or under its `video` folder. Results lie at `<video_id>/<number of the
prompt>.mp4` or `.gif`, or as folders of pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from benchmark.core.item import BenchmarkError, Item
from benchmark.suites.manifest import Media, faulty, media_item, read_list, unlike_published

PUBLISHED = 150


class Suite:
    """Items by video and prompt; the prompt describes the target, so it is the instruction as well."""

    name = "v2vbench"
    version = 1
    references: tuple[str, ...] = ()
    metrics: ClassVar[str | None] = "configs/benchmark/v2vbench.yaml"
    unlike_published: ClassVar[tuple[str, ...]] = (
        "without DOVER, the eighth metric of its code: the paper's table has seven",
        "an item counts in every mean that it has a score for; the published program wants all scores",
    )

    def __init__(self, data: Path) -> None:
        path = data / "config.yaml"
        held, self.sha256, self.remarks = read_list(path, "V2VBench's list of videos")
        if not isinstance(held, dict) or not isinstance(held.get("data"), list):
            raise BenchmarkError(f"{path}: has no list `data`")
        media = Media(data)
        self.items: list[Item] = []
        for number, entry in enumerate(held["data"]):
            self.items += items_of(media, number, entry)
        self.remarks += unlike_published(path, len(self.items), "V2VBench", PUBLISHED)


def items_of(kept: Media, number: int, entry: Any) -> list[Item]:
    """The items of a video."""
    try:
        video, edits = str(entry["video_id"]), [str(edit["prompt"]) for edit in entry["edit"]]
        given = entry.get("prompt") if isinstance(entry, dict) else None
    except (TypeError, KeyError) as error:
        return [faulty(f"entry {number}", f"config.yaml: entry {number}: lacks {error}", f"{number}/0.mp4")]
    names = (f"{video}.mp4", video, f"{video}.gif")
    places = [Path(folder) / name for folder in ("", "video") for name in names]
    source = next((place for place in places if kept.exists(str(place))), places[0])
    found = []
    for n, prompt in enumerate(edits):
        prompts = {"instruction": prompt, "target": prompt, "source": str(given or "")}
        media = {"video1": str(source)}
        item = media_item(
            f"{video}/{n}", "edit", f"<video1> {prompt}", kept, media, f"{video}/{n}.mp4", prompts
        )
        found.append(item)
    return found
