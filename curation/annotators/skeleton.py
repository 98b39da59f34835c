"""Poses of all people in a frame: a detector's boxes, BlazePose's joints, as the 17 points of COCO."""

from __future__ import annotations

import numpy as np

from curation.annotators.people import PeopleDetector
from curation.core.interfaces import Detector, Segmenter
from curation.vlm.interface import Annotator, Backend

# COCO's 17 points among BlazePose's 33: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles
COCO = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)


class BoxedPoses:
    """One person per box. Takes any segmenter that gives BlazePose's 33 joints."""

    def __init__(self, detector: Detector, joints: Segmenter) -> None:
        self.people, self.joints = PeopleDetector(detector), joints

    @property
    def parts(self) -> dict[str, Annotator]:
        """What finds the joints; the detector is another stage's."""
        return {"joints": self.joints}

    def describe(self) -> Backend:
        """See `curation.vlm.interface.Annotator`; the settings are those of the joints."""
        joints = self.joints.describe()
        settings = {"joints": [joints.backend, joints.revision, joints.settings]}
        return Backend("boxed-poses", joints.model, joints.revision, settings)

    def poses(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Points float32 [people, 17, 3] (x, y in pixels, visibility 0 to 1) of a frame [H, W, 3]."""
        found = [self.joints.segment(frame, box)[1][list(COCO)] for box in boxes]
        return np.stack(found) if found else np.zeros((0, 17, 3), np.float32)
