"""Propagation: from a video and its first frame after an edit to the edited video."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from curation.core.results import Candidate
from curation.core.stage import Stage
from curation.core.task import MediaWriter, SampleSpec
from curation.sources.clips import Clip
from curation.tasks.base.derived import DerivedTask
from shards.index import IndexEntry

TASKS = ("object_removal", "object_addition", "object_replacement", "style_transfer")


@dataclass(frozen=True)
class Edited:
    """Details of a candidate: the parent's task."""

    edit: str


class Propagation(DerivedTask):
    """The task, from samples of the four edits that name no mask."""

    name = "propagation"

    def __init__(
        self, parents: tuple[str, ...], tasks: tuple[str, ...] = TASKS, endings: tuple[str, ...] = ()
    ) -> None:
        super().__init__(parents, tasks, endings)

    def takes(self, entry: IndexEntry) -> bool:
        """Whether a parent's sample is taken."""
        return super().takes(entry) and "<mask" not in entry.text

    def stages(self) -> list[Stage]:
        """One candidate per sample."""
        return [Stage(name="first_frame", run=self._first_frame)]

    def _first_frame(self, clip: Clip, folder: Path) -> Candidate:
        record = self.record(clip)
        media = record.sample.media
        writer = MediaWriter(folder, media["video2"].fps or 1.0)
        writer.copy("source", record.bytes("video1"), media["video1"])
        writer.copy("target", record.bytes("video2"), media["video2"])
        writer.image("first", record.pixels("video2", 0, 1)[0])
        return writer.done(Edited(record.sample.task))

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """The paper's wording."""
        text = "<video1> edit the video following the first frame <image1>. <video2>"
        media = {"video1": "source", "image1": "first", "video2": "target"}
        ending = candidate.details(Edited).edit.replace("_", "-")
        return [SampleSpec(ending, self.name, text, ("video2",), media, frame_of={"image1": ("video2", 0)})]
