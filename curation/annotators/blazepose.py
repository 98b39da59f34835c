"""Person segmenter: BlazePose (full) through LiteRT, a mask and 33 joints of one person in a square crop.

The weights come out of the package mediapipe 0.10.21 (Apache-2.0): `python -m curation models fetch`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curation.sources.assets import need_model
from curation.vlm import hub
from curation.vlm.interface import Backend
from shards.files import sha256_of

SIDE = 256  # the network's input, pixels


class BlazePoseSegmenter:
    """A square crop `context` times the box; it separates one of two people who stand close."""

    license = "Apache-2.0"

    def __init__(self, weights: str, context: float = 1.3) -> None:
        self.weights, self.context = weights, context
        self._net: Any = None

    def describe(self) -> Backend:
        """See `curation.vlm.interface.Annotator`."""
        revision = sha256_of(need_model(self.weights))[:16]
        return Backend("blazepose-litert", Path(self.weights).name, revision, {"context": self.context})

    def segment(self, frame: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Probability float32 [H, W] and joints float32 [33, 3] (x, y in pixels, visibility 0 to 1)."""
        net, inputs, outputs = self._load()
        height, width = frame.shape[:2]
        side = self.context * float(max(box[2] - box[0], box[3] - box[1]))
        left, top = (box[0] + box[2] - side) / 2, (box[1] + box[3] - side) / 2
        into = np.array([[SIDE / side, 0, -left * SIDE / side], [0, SIDE / side, -top * SIDE / side]])
        crop = cv2.warpAffine(
            frame, into, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
        )
        net.set_tensor(inputs[0]["index"], crop[None].astype(np.float32) / 255)
        net.invoke()
        joints = net.get_tensor(outputs[0]["index"]).reshape(39, 5)[:33]
        logits = net.get_tensor(outputs[2]["index"])[0, :, :, 0]
        mask = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
        full = cv2.warpAffine(
            mask.astype(np.float32), into, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        )
        visible = 1 / (1 + np.exp(-np.clip(joints[:, 3], -30, 30)))
        where = joints[:, :2] * (side / SIDE) + np.array([left, top])
        return full, np.column_stack([where, visible]).astype(np.float32)

    def _load(self) -> tuple[Any, Any, Any]:
        if self._net is None:
            from ai_edge_litert.interpreter import Interpreter

            hub.note_loaded("BlazePose")
            net = Interpreter(model_path=str(need_model(self.weights)), num_threads=1)
            net.allocate_tensors()
            self._net = (net, net.get_input_details(), net.get_output_details())
        return self._net
