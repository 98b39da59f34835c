"""Edges by OpenCV's Canny, white on black."""

from __future__ import annotations

import cv2
import numpy as np

from curation.vlm.interface import Backend


class CannyEdges:
    """Canny on the blurred grey picture; thresholds in levels of 0 to 255."""

    license = "Apache-2.0 (OpenCV)"

    def __init__(self, low: float = 60.0, high: float = 190.0, blur: float = 1.0) -> None:
        self.low, self.high, self.blur = low, high, blur

    def describe(self) -> Backend:
        """See `curation.vlm.interface.Annotator`."""
        settings = {"low": self.low, "high": self.high, "blur": self.blur}
        return Backend("canny-opencv", revision=cv2.__version__, settings=settings)

    def edges(self, frames: np.ndarray) -> np.ndarray:
        """uint8 [T, H, W, 3] of frames [T, H, W, 3]."""
        lines = []
        for frame in frames:
            grey = cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (0, 0), self.blur)
            lines.append(cv2.Canny(grey, self.low, self.high))
        return np.repeat(np.stack(lines)[..., None], 3, axis=-1)
