"""Image to video: from a first frame and a caption to the video."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from curation.core.cache import Workspace
from curation.core.task import MediaWriter, SampleSpec
from curation.sources.clips import Clip
from curation.tasks.base.derived import DerivedTask


class ImageToVideo(DerivedTask):
    """The task, from both videos of removal samples, which have captions."""

    name = "image_to_video"
    kinds: ClassVar[tuple[str, ...]] = ("video",)  # of the parent's media that are taken

    def __init__(
        self,
        parents: tuple[str, ...],
        tasks: tuple[str, ...] = ("object_removal",),
        endings: tuple[str, ...] = ("-remove",),
    ) -> None:
        super().__init__(parents, tasks, endings)

    def process(self, clip: Clip, space: Workspace) -> dict[str, Any]:
        """A candidate per video."""
        media = self.record(clip).sample.media
        pairs = [(f"{kind}{n}", told) for kind in self.kinds for n, told in ((1, "source"), (2, "target"))]
        return {
            "candidates": [
                self.once(space, "frame", clip, self._frame, video=v, told=t) for v, t in pairs if v in media
            ]
        }

    def _frame(self, clip: Clip, folder: Path, video: str, told: str) -> dict[str, Any]:
        sample = self.record(clip).sample
        shelf = MediaWriter(folder, sample.media[video].fps or 1.0)
        self.shelve(shelf, clip, video)
        return shelf.done(caption=sample.captions[told])

    def shelve(self, shelf: MediaWriter, clip: Clip, element: str) -> None:
        """The first frame and the video."""
        record = self.record(clip)
        shelf.image("first", record.video(element)[0][0])
        shelf.copy("video", record.bytes(element), record.sample.media[element])

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[SampleSpec]:
        """One sample."""
        media, told = {"image1": "first", "video1": "video"}, {"target": result["caption"]}
        return [SampleSpec("", self.name, f"<image1> {result['caption']} <video1>", ("video1",), media, told)]
