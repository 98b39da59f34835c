"""Image to video: from a first frame and a caption to the video."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from curation.core.results import Candidate, Captioned
from curation.core.stage import Item, Stage
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

    def start(self, clip: Clip) -> list[Item]:
        """The sample's videos, each with the name of its caption."""
        media = self.record(clip).sample.media
        pairs = [(f"{kind}{n}", told) for kind in self.kinds for n, told in ((1, "source"), (2, "target"))]
        return [Item(values={"video": video, "told": told}) for video, told in pairs if video in media]

    def stages(self) -> list[Stage]:
        """A candidate per video."""
        return [Stage(name="frame", run=self._frame, values=("video", "told"))]

    def _frame(self, clip: Clip, folder: Path, video: str, told: str) -> Candidate:
        sample = self.record(clip).sample
        writer = MediaWriter(folder, sample.media[video].fps or 1.0)
        self.write_media(writer, clip, video)
        return writer.done(Captioned(sample.captions[told]))

    def write_media(self, writer: MediaWriter, clip: Clip, element: str) -> None:
        """The first frame and the video."""
        record = self.record(clip)
        writer.image("first", record.pixels(element, 0, 1)[0])
        writer.copy("video", record.bytes(element), record.sample.media[element])

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """One sample."""
        caption = candidate.details(Captioned).caption
        media, told = {"image1": "first", "video1": "video"}, {"target": caption}
        text, first = f"<image1> {caption} <video1>", {"image1": ("video1", 0)}
        return [SampleSpec("", self.name, text, ("video1",), media, told, first)]
