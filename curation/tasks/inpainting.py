"""Inpainting: a video with a grey hole, by its caption, to the whole video; with and without the mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from curation.core.results import Candidate, Captioned
from curation.core.stage import Stage
from curation.core.task import MediaWriter, SampleSpec
from curation.sources.clips import Clip
from curation.tasks.base.derived import DerivedTask

GREY = 127  # of the hole, VACE's


class Inpainting(DerivedTask):
    """The task, from removal samples: the hole is where the object is."""

    name = "inpainting"

    def __init__(
        self,
        parents: tuple[str, ...],
        tasks: tuple[str, ...] = ("object_removal",),
        endings: tuple[str, ...] = ("-remove",),
    ) -> None:
        super().__init__(parents, tasks, endings)

    def stages(self) -> list[Stage]:
        """One candidate per sample."""
        return [Stage(name="hole", run=self._hole)]

    def _hole(self, clip: Clip, folder: Path) -> Candidate:
        record = self.record(clip)
        source, fps = record.video("video1")
        mask = record.mask("mask")
        writer = MediaWriter(folder, fps)
        writer.video("hole", np.where(mask[..., None], np.uint8(GREY), source))
        writer.copy("whole", record.bytes("video1"), record.sample.media["video1"])
        writer.mask("mask", mask)
        return writer.done(Captioned(record.sample.captions["source"]))

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """The paper's wording, with the mask and without."""
        caption = candidate.details(Captioned).caption
        media, told = {"video1": "hole", "video2": "whole", "mask": "mask"}, {"target": caption}
        return [
            SampleSpec(ending, self.name, f"{text} {caption} <video2>", ("video2",), media, told)
            for ending, text in (
                ("", "Inpaint this video <video1>."),
                ("mask", "Inpaint this video <video1> with mask <mask>."),
            )
        ]
