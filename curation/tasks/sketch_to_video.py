"""Edges to video: every window of a clip with the lines that an edge detector draws of it.

`SketchOfSamples` draws those of videos that other tasks made, which have captions.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from curation.core.interfaces import Captioner, EdgeDetector
from curation.core.results import Candidate, Captioned
from curation.core.stage import Stage
from curation.core.task import MediaWriter, SampleSpec
from curation.sources.clips import Clip, Cut
from curation.tasks.base import control as controls
from curation.tasks.base.control import ClipsToVideo, Covered, Drawn, from_video, to_video
from curation.tasks.base.derived import DerivedTask
from curation.vlm.interface import Annotator

FEW = "hardly any edges"


class SketchToVideo(ClipsToVideo):
    """The task; `least` of the picture must be lines."""

    name, control = "sketch_to_video", "sketch"

    def __init__(
        self,
        edges: EdgeDetector,
        cut: Cut | None = None,
        length: int = 33,
        most: int = 4,
        captioner: Captioner | None = None,
        least: float = 0.01,
    ) -> None:
        super().__init__(cut, length, most, captioner)
        self.edges, self.least = edges, least

    def drawers(self) -> list[Annotator]:
        """The edge detector."""
        return [self.edges]

    def thresholds(self) -> Mapping[str, object]:
        """The gate."""
        return {"least": self.least}

    def draw(self, frames: np.ndarray) -> Drawn:
        """White lines on black."""
        lines = self.edges.edges(frames)
        return Drawn(lines, covered=float((lines > 127).mean()))

    def refusal(self, drawn: Candidate) -> str:
        """Whether there are hardly any lines."""
        return FEW if (drawn.details(Covered).covered or 0.0) < self.least else ""


class SketchOfSamples(DerivedTask):
    """The task and its way back, from the source videos of other tasks' samples."""

    name = "sketch_to_video"
    code = (controls,)

    def __init__(
        self,
        edges: EdgeDetector,
        parents: tuple[str, ...],
        tasks: tuple[str, ...] = ("object_removal",),
        endings: tuple[str, ...] = ("-remove",),
    ) -> None:
        super().__init__(parents, tasks, endings)
        self.edges = edges

    def stages(self) -> list[Stage]:
        """One candidate per sample."""
        return [Stage(name="sketch", run=self._sketch, annotators=[self.edges])]

    def _sketch(self, clip: Clip, folder: Path) -> Candidate:
        record = self.record(clip)
        frames, fps = record.video("video1")
        writer = MediaWriter(folder, fps)
        writer.video("control", self.edges.edges(frames))
        writer.copy("video", record.bytes("video1"), record.sample.media["video1"])
        return writer.done(Captioned(record.sample.captions["source"]))

    def samples(self, clip: Clip, candidate: Candidate, number: int) -> list[SampleSpec]:
        """One sample each way."""
        caption = candidate.details(Captioned).caption
        return [to_video("sketch", caption), from_video("sketch", caption)]
