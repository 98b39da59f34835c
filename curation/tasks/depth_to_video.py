"""Depth to video.

Offline there is no depth model, so depth is that of rendered scenes: `DepthToVideo` takes `cg_depth`'s
samples. `EstimatedDepth` looks at clips, with a model.
"""

from __future__ import annotations

import numpy as np

from curation.core.interfaces import Captioner, DepthEstimator
from curation.ops.control_signals import grey_video
from curation.sources.clips import Cut
from curation.tasks.base.control import ClipsToVideo, Drawn, ToVideo
from curation.vlm.interface import Annotator

FLAT = "no depth in it"


class DepthToVideo(ToVideo):
    """The task, offline."""

    name, control = "depth_to_video", "depth"
    note = "there is no offline depth model: made from rendered scenes; --clips is not looked at"


class EstimatedDepth(ClipsToVideo):
    """The task with a depth model; one scale for each window."""

    name, control = "depth_to_video", "depth"

    def __init__(
        self,
        depth: DepthEstimator,
        cut: Cut | None = None,
        length: int = 81,
        most: int = 2,
        captioner: Captioner | None = None,
    ) -> None:
        super().__init__(cut, length, most, captioner)
        self.depth = depth

    def drawers(self) -> list[Annotator]:
        """The depth estimator."""
        return [self.depth]

    def draw(self, frames: np.ndarray) -> Drawn:
        """Near is bright."""
        inverse = self.depth.inverse_depth(frames)
        return Drawn(grey_video(inverse)) if float(np.ptp(inverse)) > 1e-6 else Drawn(None, FLAT)
