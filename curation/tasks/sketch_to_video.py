"""Edges to video: every window of a clip with the lines that an edge detector draws of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from curation.clips import Cut
from curation.controls import ClipsToVideo, Drawn
from curation.ports import Annotator, Captioner, EdgeDetector

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

    def drawers(self) -> dict[str, Annotator]:
        """The edge detector."""
        return {"edges": self.edges}

    def settings(self) -> dict[str, Any]:
        """The gate."""
        return {"least": self.least}

    def draw(self, frames: np.ndarray) -> Drawn:
        """White lines on black."""
        lines = self.edges.edges(frames)
        return Drawn(None, FEW) if (lines > 127).mean() < self.least else Drawn(lines)
