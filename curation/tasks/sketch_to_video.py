"""Edges to video: every window of a clip with the lines that an edge detector draws of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curation import controls, describing
from curation.clips import Clip, Cut, load_frames
from curation.controls import to_video
from curation.describing import describe
from curation.ports import Annotator, EdgeDetector
from curation.recipe import Draft, Recipe, Shelf, refused
from curation.workspace import Workspace

FEW = "hardly any edges"


class SketchToVideo(Recipe):
    """The task; `length` frames a window, `most` windows a clip, `least` of the picture must be lines."""

    name = "sketch_to_video"
    code = (controls, describing)

    def __init__(
        self,
        edges: EdgeDetector,
        cut: Cut | None = None,
        length: int = 33,
        most: int = 4,
        least: float = 0.01,
    ) -> None:
        super().__init__(cut)
        self.edges, self.length, self.most, self.least = edges, length, most, least

    def used(self) -> dict[str, Annotator]:
        """The edge detector."""
        return {"edges": self.edges}

    def settings(self) -> dict[str, Any]:
        """The gate."""
        return {"least": self.least}

    def process(self, clip: Clip, space: Workspace) -> dict[str, Any]:
        """One candidate per window."""
        spans = self.windows(clip, self.length, self.most)
        return {
            "candidates": [self.once(space, "draw", clip, self._draw, [self.edges], span=s) for s in spans]
        }

    def _draw(self, clip: Clip, folder: Path, span: tuple[int, int]) -> dict[str, Any]:
        frames = load_frames(clip)[slice(*span)]
        lines = self.edges.edges(frames)
        if (lines > 127).mean() < self.least:
            return refused(FEW)
        shelf = Shelf(folder, clip.fps)
        shelf.video("control", lines)
        shelf.video("video", frames)
        return shelf.done(first=span[0], stop=span[1], caption=describe(frames))

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[Draft]:
        """One sample; the way back is `video_to_sketch`."""
        return [to_video("sketch", result["caption"])]
