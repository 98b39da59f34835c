"""Poses of all people with RTMPose through `rtmlib` and onnxruntime; a detector says where people are."""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import Any, ClassVar, Literal

import numpy as np

from curation.annotators.people import PeopleDetector
from curation.core.interfaces import Detector, OpenDetector
from curation.vlm import hub
from curation.vlm.errors import AssetError
from curation.vlm.interface import Backend
from curation.vlm.weights import Weights, file_weights

LICENSE = "Apache-2.0"
WHERE = "`python -m curation models fetch --reference`, or github.com/open-mmlab/mmpose, projects/rtmpose"
CUDA = "CUDAExecutionProvider"


class RtmPose:
    """The pose estimator.

    Args:
        detector: of people; it is asked for a "person" if it finds objects by name.
        weights: an ONNX file with COCO's 17 points.
        size: width and height of the model's input.
        most: people of one frame, the surest first.
        device: "cuda", "cpu", or "auto": CUDA where PyTorch and onnxruntime both have it. Which provider runs
            is told on standard error when the model is loaded.
        channels: what the network was trained on. RTMPose's configurations have `bgr_to_rgb=True` with RGB
            means; rtmlib 0.0.16 normalizes what it is given and swaps nothing, though its demos give BGR.
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
        channels: Literal["rgb", "bgr"] = "rgb",
    ) -> None:
        self.people = PeopleDetector(detector, most)
        self.weights_file, self.size, self.device, self.channels = weights, size, device, channels

    def describe(self) -> Backend:
        """The checkpoint; the detector is another stage's."""
        hub.package("rtmlib")
        path = hub.file_of(self.weights_file, "RTMPose", LICENSE, WHERE)
        settings = {"size": list(self.size), "channels": self.channels}
        return Backend("rtmlib", "rtmpose", hub.revision_of(path), settings)

    def weights(self) -> list[Weights]:
        """The joints' model; the detector is another stage's."""
        return file_weights(self.weights_file, 13_590_000, "RTMPose-m: mmpose, projects/rtmpose/README.md")

    @functools.cached_property
    def _loaded(self) -> Any:
        import onnxruntime
        from rtmlib import RTMPose

        hub.note_loaded("RTMPose")
        path = hub.file_of(self.weights_file, "RTMPose", LICENSE, WHERE)
        device = hub.device_of(self.device)
        has = CUDA in onnxruntime.get_available_providers()
        if self.device == "auto" and not has:
            device = "cpu"
        if device.startswith("cuda") and not has:
            raise AssetError(_no_cuda(self.device))
        with contextlib.redirect_stdout(sys.stderr):  # rtmlib prints what it loads
            model = RTMPose(str(path), tuple(self.size), backend="onnxruntime", device=device)
        provider = model.session.get_providers()[0]
        if self.device.startswith("cuda") and provider != CUDA:  # its libraries did not load
            raise AssetError(_no_cuda(self.device))
        print(f"RTMPose: runs on onnxruntime's {provider}", file=sys.stderr)
        return model

    def poses(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """COCO's 17 points, float32 [people, 17, 3] (x, y in pixels, visibility 0 to 1)."""
        if not len(boxes):  # rtmlib would take the whole frame for a person
            return np.zeros((0, 17, 3), np.float32)
        picture = frame if self.channels == "rgb" else np.ascontiguousarray(frame[..., ::-1])
        points, seen = self._loaded(picture, bboxes=boxes.tolist())
        return np.concatenate([points, np.clip(seen, 0, 1)[..., None]], -1).astype(np.float32)


def _no_cuda(device: str) -> str:
    return (
        f"RTMPose: device {device}, but onnxruntime has no working {CUDA}; put onnxruntime-gpu (for this "
        "CUDA) in the place of onnxruntime, or set device: cpu"
    )
