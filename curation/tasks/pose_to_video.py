"""Poses to video: every window of a clip in which people are found, with their skeletons on black."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from curation import controls, describing
from curation.clips import Clip, Cut, load_frames
from curation.controls import draw_poses, to_video
from curation.describing import describe
from curation.ports import Annotator, PoseEstimator
from curation.recipe import Draft, Recipe, Shelf, refused
from curation.workspace import Workspace

NOBODY = "nobody in most frames"


class PoseToVideo(Recipe):
    """The task; somebody must be seen in `least` of the frames of a window."""

    name = "pose_to_video"
    code = (controls, describing)

    def __init__(
        self,
        poses: PoseEstimator,
        cut: Cut | None = None,
        length: int = 33,
        most: int = 2,
        least: float = 0.8,
    ) -> None:
        super().__init__(cut)
        self.poses, self.length, self.most, self.least = poses, length, most, least

    def used(self) -> dict[str, Annotator]:
        """The pose estimator."""
        return {"poses": self.poses}

    def settings(self) -> dict[str, Any]:
        """The gate."""
        return {"least": self.least}

    def process(self, clip: Clip, space: Workspace) -> dict[str, Any]:
        """One candidate per window."""
        spans = self.windows(clip, self.length, self.most)
        return {
            "candidates": [self.once(space, "pose", clip, self._pose, [self.poses], span=s) for s in spans]
        }

    def _pose(self, clip: Clip, folder: Path, span: tuple[int, int]) -> dict[str, Any]:
        frames = load_frames(clip)[slice(*span)]
        found = [self.poses.poses(frame) for frame in frames]
        if np.mean([len(people) > 0 for people in found]) < self.least:
            return refused(NOBODY)
        shelf = Shelf(folder, clip.fps)
        shelf.video("control", np.stack([draw_poses(people, frames.shape[1:3]) for people in found]))
        shelf.video("video", frames)
        people = int(np.median([len(people) for people in found]))
        points = [people.round(2).tolist() for people in found]
        return shelf.done(first=span[0], stop=span[1], caption=describe(frames, people), points=points)

    def drafts(self, clip: Clip, result: dict[str, Any], number: int) -> list[Draft]:
        """One sample; the way back is `video_to_pose`."""
        return [to_video("pose", result["caption"])]
