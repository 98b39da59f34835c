"""Poses of all people with RTMPose through `rtmlib` and onnxruntime; a detector says where people are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from curation.annotators.people import PeopleDetector
from curation.core.interfaces import Detector, OpenDetector
from curation.vlm import hub
from curation.vlm.interface import Backend
from curation.vlm.weights import Weights, file_weights

LICENSE = "Apache-2.0"
WHERE = "github.com/open-mmlab/mmpose, projects/rtmpose (the ONNX files)"


class RtmPose:
    """The pose estimator.

    Args:
        detector: of people; it is asked for a "person" if it finds objects by name.
        weights: an ONNX file with COCO's 17 points.
        size: width and height of the model's input.
        most: people of one frame, the surest first.
    """

    license = LICENSE
    gpus: ClassVar[float] = 0.1

    def __init__(
        self,
        detector: Detector | OpenDetector,
        weights: str,
        size: tuple[int, int] = (192, 256),
        most: int = 12,
        device: str = "auto",
    ) -> None:
        self.people = PeopleDetector(detector, most)
        self.weights_file, self.size, self.device = weights, size, device

    def describe(self) -> Backend:
        """The checkpoint; the detector is another stage's."""
        hub.package("rtmlib")
        path = hub.file_of(self.weights_file, "RTMPose", LICENSE, WHERE)
        return Backend("rtmlib", "rtmpose", hub.revision_of(path), {"size": list(self.size)})

    def weights(self) -> list[Weights]:
        """The joints' model; the detector is another stage's."""
        return file_weights(self.weights_file, 13_590_000, "RTMPose-m: mmpose, projects/rtmpose/README.md")

    @functools.cached_property
    def _loaded(self) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        from rtmlib import RTMPose

        hub.note_loaded("RTMPose")
        path = hub.file_of(self.weights_file, "RTMPose", LICENSE, WHERE)
        device = hub.device_of(self.device)
        return RTMPose(str(path), tuple(self.size), backend="onnxruntime", device=device)

    def poses(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """COCO's 17 points, float32 [people, 17, 3] (x, y in pixels, visibility 0 to 1)."""
        if not len(boxes):  # rtmlib would take the whole frame for a person
            return np.zeros((0, 17, 3), np.float32)
        points, seen = self._loaded(np.ascontiguousarray(frame[..., ::-1]), bboxes=boxes.tolist())
        return np.concatenate([points, np.clip(seen, 0, 1)[..., None]], -1).astype(np.float32)
