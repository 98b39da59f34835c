"""Image to video: from a first frame and a caption to the video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curation.clips import Clip
from curation.recipe import Draft, Shelf
from curation.sources import DerivedRecipe
from curation.workspace import Workspace


class ImageToVideo(DerivedRecipe):
    """The task, from both videos of removal samples, which have captions."""

    name = "image_to_video"

    def __init__(
        self,
        parents: tuple[str, ...],
        tasks: tuple[str, ...] = ("object_removal",),
        endings: tuple[str, ...] = ("-remove",),
    ) -> None:
        super().__init__(parents, tasks, endings)

    def process(self, clip: Clip, space: Workspace) -> dict[str, Any]:
        """A candidate per video."""
        pairs = (("video1", "source"), ("video2", "target"))
        return {
            "candidates": [self.once(space, "frame", clip, self._frame, video=v, told=t) for v, t in pairs]
        }

    def _frame(self, clip: Clip, folder: Path, video: str, told: str) -> dict[str, Any]:
        record = self.record(clip)
        frames, fps = record.video(video)
        shelf = Shelf(folder, fps)
        shelf.image("first", frames[0])
        shelf.copy("video", record.bytes(video), record.sample.media[video])
        return shelf.done(caption=record.sample.captions[told])

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[Draft]:
        """One sample."""
        media, told = {"image1": "first", "video1": "video"}, {"target": result["caption"]}
        return [Draft("", self.name, f"<image1> {result['caption']} <video1>", ("video1",), media, told)]
