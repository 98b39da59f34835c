"""People in a frame, by a detector of people or by one of objects by name."""

from __future__ import annotations

import numpy as np

from curation.core.interfaces import Detector, OpenDetector
from curation.vlm.interface import Annotator, Backend


class PeopleDetector:
    """Asks a detector for people.

    Args:
        detector: of people; it is asked for a "person" if it finds objects by name.
        most: people of one frame, the surest first; all, as the detector has them, when None.
    """

    def __init__(self, detector: Detector | OpenDetector, most: int | None = None) -> None:
        self.detector, self.most = detector, most

    @property
    def parts(self) -> dict[str, Annotator]:
        """The detector."""
        return {"detector": self.detector}

    def describe(self) -> Backend:
        """The detector, and how many people are taken."""
        return self.detector.describe().also(most=self.most)

    def people(self, frame: np.ndarray) -> np.ndarray:
        """Boxes float32 [N, 4] of the people in a frame."""
        if hasattr(self.detector, "find"):
            found = self.detector.find(frame, ["person"])
            boxes, scores = found.boxes, found.scores
        else:
            boxes, scores = self.detector.detect(frame)
        if self.most is None:
            return np.asarray(boxes)
        return np.asarray(boxes[np.argsort(-scores, kind="stable")[: self.most]])
