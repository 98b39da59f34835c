"""Camera motion: corners followed from the middle frame of a clip, fitted by a similarity.

It decides between the clean plate (camera stands still) and the moving-camera recipe.
"""

from __future__ import annotations

import cv2
import numpy as np

from curation.vlm.interface import Backend
from shards.frames import evenly_spaced


class CornerMotion:
    """Follows `corners` corners into `samples` frames with Lucas-Kanade and fits them by RANSAC."""

    license = "Apache-2.0 (OpenCV)"

    def __init__(self, samples: int = 13, corners: int = 400) -> None:
        self.samples, self.corners = samples, corners

    def describe(self) -> Backend:
        """See `curation.vlm.interface.Annotator`."""
        return Backend(
            "corner-motion", "", cv2.__version__, {"samples": self.samples, "corners": self.corners}
        )

    def motion(self, frames: np.ndarray) -> float:
        """Largest displacement in pixels of a picture corner against the middle frame; inf when unknown.

        A large motion loses its corners on the way and gives inf: that camera does not stand still.
        """
        middle = len(frames) // 2
        anchor = cv2.cvtColor(frames[middle], cv2.COLOR_RGB2GRAY)
        height, width = anchor.shape
        points = cv2.goodFeaturesToTrack(anchor, self.corners, 0.01, 7)
        if points is None or len(points) < 12:
            return float("inf")
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float64)
        worst = 0.0
        for index in np.unique(evenly_spaced(len(frames), self.samples)):
            if index == middle:
                continue
            grey = cv2.cvtColor(frames[index], cv2.COLOR_RGB2GRAY)
            moved, ok, _ = cv2.calcOpticalFlowPyrLK(anchor, grey, points, None)  # type: ignore[call-overload]
            good = ok.ravel() == 1
            if good.sum() < 12:
                return float("inf")
            cv2.setRNGSeed(0)  # RANSAC draws from OpenCV's own generator
            fit, inliers = cv2.estimateAffinePartial2D(points[good], moved[good], ransacReprojThreshold=1.0)
            if fit is None or inliers.mean() < 0.4:
                return float("inf")
            worst = max(worst, float(np.abs(corners @ fit[:, :2].T + fit[:, 2] - corners).max()))
        return worst
