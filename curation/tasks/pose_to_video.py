"""Poses to video: every window of a clip in which people are found, with their skeletons on black."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curation.core.interfaces import Captioner, PoseEstimator
from curation.core.results import Candidate, StageResult, refused
from curation.core.stage import Item, Results, Stage
from curation.ops.control_signals import draw_poses
from curation.sources.clips import Clip, Cut, load_frames
from curation.tasks.base.control import ClipsToVideo, Posed

NOBODY = "nobody in most frames"


@dataclass(frozen=True, kw_only=True)
class PeopleResult(StageResult):
    """The boxes [people, 4] of people in each frame of a window."""

    people: list[list[list[float]]]


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

    def thresholds(self) -> Mapping[str, object]:
        """The gate."""
        return {"least": self.least}

    def drawing(self) -> list[Stage]:
        """People, then their poses."""
        return [
            Stage(
                name="people",
                run=self._people,
                result=PeopleResult,
                annotators=[self.poses.people],
                values=("span",),
                decide=self._peopled,
            ),
            Stage(
                name=self.control,
                run=self._pose,
                annotators=[self.poses],
                values=("span",),
                inputs=("people",),
                decide=self.accept_drawn,
            ),
        ]

    def _people(self, clip: Clip, folder: Path, span: tuple[int, int]) -> PeopleResult:
        frames = load_frames(clip)[slice(*span)]
        return PeopleResult(people=[self.poses.people.people(frame).tolist() for frame in frames])

    def _peopled(self, clip: Clip, item: Item, results: Results) -> list[Item | Candidate]:
        people = results["people"].people
        return [refused(NOBODY) if np.mean([len(boxes) > 0 for boxes in people]) < self.least else item]

    def _pose(self, clip: Clip, folder: Path, span: tuple[int, int], people: PeopleResult) -> Candidate:
        """Skeletons on black, and the points that they were drawn from."""
        frames = load_frames(clip)[slice(*span)]
        boxes = [np.array(one, np.float32).reshape(-1, 4) for one in people.people]
        found = [self.poses.poses(frame, one) for frame, one in zip(frames, boxes, strict=True)]
        video = np.stack([draw_poses(points, frames.shape[1:3]) for points in found])
        count = int(np.median([len(points) for points in found]))
        details = Posed(count, [points.round(2).tolist() for points in found])
        return self.written(clip, folder, video, details, span)
