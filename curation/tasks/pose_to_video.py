"""Poses to video: every window of a clip in which people are found, with their skeletons on black."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from curation.core.interfaces import Captioner, PoseEstimator
from curation.ops.control_signals import draw_poses
from curation.sources.clips import Cut
from curation.tasks.base.control import ClipsToVideo, Drawn
from curation.vlm.interface import Annotator

NOBODY = "nobody in most frames"


class PoseToVideo(ClipsToVideo):
    """The task; somebody must be seen in `least` of the frames of a window."""

    name, control = "pose_to_video", "pose"

    def __init__(
        self,
        poses: PoseEstimator,
        cut: Cut | None = None,
        length: int = 33,
        most: int = 2,
        captioner: Captioner | None = None,
        least: float = 0.8,
    ) -> None:
        super().__init__(cut, length, most, captioner)
        self.poses, self.least = poses, least

    def drawers(self) -> dict[str, Annotator]:
        """The pose estimator."""
        return {"poses": self.poses}

    def settings(self) -> Mapping[str, object]:
        """The gate."""
        return {"least": self.least}

    def draw(self, frames: np.ndarray) -> Drawn:
        """Skeletons on black, and the points that they were drawn from."""
        found = [self.poses.poses(frame) for frame in frames]
        if np.mean([len(people) > 0 for people in found]) < self.least:
            return Drawn(None, NOBODY)
        video = np.stack([draw_poses(people, frames.shape[1:3]) for people in found])
        people = int(np.median([len(people) for people in found]))
        return Drawn(video, people=people, points=[p.round(2).tolist() for p in found])
