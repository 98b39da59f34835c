"""Propagation: from a video and its first frame after an edit to the edited video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curation.core.cache import Workspace
from curation.core.task import MediaWriter, SampleSpec
from curation.sources.clips import Clip
from curation.tasks.base.derived import DerivedTask

TASKS = ("object_removal", "object_addition", "object_replacement", "style_transfer")


class Propagation(DerivedTask):
    """The task, from samples of the four edits that name no mask."""

    name = "propagation"

    def __init__(
        self, parents: tuple[str, ...], tasks: tuple[str, ...] = TASKS, endings: tuple[str, ...] = ()
    ) -> None:
        super().__init__(parents, tasks, endings)

    def takes(self, entry: Any) -> bool:
        """Whether a parent's sample is taken."""
        return super().takes(entry) and "<mask" not in entry.text

    def process(self, clip: Clip, space: Workspace) -> dict[str, Any]:
        """One candidate per sample."""
        return {"candidates": [self.once(space, "first_frame", clip, self._first_frame)]}

    def _first_frame(self, clip: Clip, folder: Path) -> dict[str, Any]:
        record = self.record(clip)
        target, fps = record.video("video2")
        shelf = MediaWriter(folder, fps)
        shelf.copy("source", record.bytes("video1"), record.sample.media["video1"])
        shelf.copy("target", record.bytes("video2"), record.sample.media["video2"])
        shelf.image("first", target[0])
        return shelf.done(edit=record.sample.task)

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[SampleSpec]:
        """The paper's wording."""
        text = "<video1> edit the video following the first frame <image1>. <video2>"
        media = {"video1": "source", "image1": "first", "video2": "target"}
        return [SampleSpec(result["edit"].replace("_", "-"), self.name, text, ("video2",), media)]
