"""Signals that need a model of the user's choice: people, text, unsafe pictures, a judge.

Nothing here is loaded, or even looked for, unless a file of graders names it.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import cv2
import numpy as np

from curation.core.interfaces import Detector
from curation.ops.masks import bounds, covered
from curation.quality.pairs import Pair
from curation.quality.signals import Signal, Values
from curation.text.vlm_filter import CRITERIA, Judge
from curation.vlm import hub
from curation.vlm.errors import AssetError
from curation.vlm.interface import Backend
from shards.errors import SettingError
from shards.files import sha256_of
from shards.frames import evenly_spaced

LOOKED_AT = 5  # frames that a model looks at, evenly spread
MEAN, DEVIATION = (0.485 * 255, 0.456 * 255, 0.406 * 255), 0.226  # ImageNet's, as text detectors are trained
CHOSEN = "as the checkpoint that was chosen"  # its licence


def some_of(video: np.ndarray) -> np.ndarray:
    """Up to `LOOKED_AT` frames of a video, uint8 [N, H, W, 3]."""
    return video[np.unique(evenly_spaced(len(video), min(LOOKED_AT, len(video))))]


class People:
    """Grader of removals and additions of people, by a person detector.

    Args:
        detector: finds people; `curation.annotators.ssdlite.SsdliteDetector` is small and works on a CPU.
    """

    name = "people"
    signals = (
        Signal(
            "person_left",
            "lower",
            "confidence",
            "surest detection of a person inside the edit, in the video that should show none",
            "a removal or an addition of a person that the detector sees in the other video",
        ),
        Signal(
            "person_there",
            "higher",
            "confidence",
            "surest detection inside the edit in the video that should show the person",
            "the same",
        ),
    )

    def __init__(self, detector: Detector) -> None:
        self.detector = detector

    @property
    def parts(self) -> dict[str, Any]:
        """The detector."""
        return {"detector": self.detector}

    def describe(self) -> Backend:
        """See `curation.vlm.interface.Annotator`."""
        return Backend.of_parts("people", self.parts, frames=LOOKED_AT)

    def measure(self, pair: Pair) -> Values:
        """See `curation.quality.signals.Grader`."""
        nothing = {"person_left": None, "person_there": None}
        if pair.task not in ("object_removal", "object_addition") or not pair.is_aligned or pair.edit is None:
            return nothing
        shown, gone = pair.both if pair.task == "object_removal" else pair.both[::-1]
        times = np.unique(evenly_spaced(len(shown), min(LOOKED_AT, len(shown))))
        there, left = (max(self._inside(v[t], pair.edit[t]) for t in times) for v in (shown, gone))
        if not max(there, left):  # no person, as far as the detector sees
            return nothing
        return {"person_left": left, "person_there": there}

    def _inside(self, frame: np.ndarray, edit: np.ndarray) -> float:
        box = bounds(edit)
        if box is None:
            return 0.0
        boxes, confidences = self.detector.detect(frame)
        inside = covered(boxes, box[None])[:, 0] > 0.5 if len(boxes) else np.zeros(0, bool)
        return float(confidences[inside].max(initial=0.0))


class Text:
    """Grader of text and watermarks, by a detector in ONNX (differentiable binarization, such as PP-OCR's).

    It counts pixels that are surely text; such detectors are trained on outlines that are shrunk, so that the
    share is less than that of the lines.

    Args:
        model: the .onnx file, which gives a probability for every pixel or cell.
        side: pixels of its square input.
        threshold: probability from which a pixel is text.
    """

    name = "text"
    license = CHOSEN
    signals = (
        Signal("text_share", "lower", "share", "the target's picture that is text or a watermark"),
        Signal("text_added", "lower", "share", "the same, less the source's", "a source"),
    )

    def __init__(self, model: str, side: int = 736, threshold: float = 0.3) -> None:
        self.model, self.side, self.threshold = model, side, threshold
        if side < 32 or side % 32:
            raise SettingError(f"side: {side} is no multiple of 32")

    def describe(self) -> Backend:
        """See `curation.vlm.interface.Annotator`."""
        path = hub.file_of(self.model, "a text detector", CHOSEN, "its authors, as .onnx")
        settings = {"side": self.side, "threshold": self.threshold}
        return Backend("opencv-db", path.name, "sha256:" + sha256_of(path)[:16], settings)

    @functools.cached_property
    def _net(self) -> Any:
        hub.note_loaded("text detector")
        try:
            return cv2.dnn.readNetFromONNX(self.model)
        except cv2.error as error:
            raise AssetError(f"{self.model}: no text detector that OpenCV reads ({error.err})") from None

    def measure(self, pair: Pair) -> Values:
        """See `curation.quality.signals.Grader`."""
        share = self._share(pair.target)
        return {
            "text_share": share,
            "text_added": None if pair.source is None else share - self._share(pair.source),
        }

    def _share(self, video: np.ndarray) -> float:
        shares = []
        for frame in some_of(video):
            blob = cv2.dnn.blobFromImage(frame, 1 / (255 * DEVIATION), (self.side, self.side), MEAN)
            self._net.setInput(blob)
            shares.append(float((self._net.forward() > self.threshold).mean()))
        return max(shares)


class UnsafePictures:
    """Grader by an image classifier of transformers that knows unsafe pictures.

    Args:
        checkpoint: folder or hub repository. unsafe: its labels that are not wanted.
    """

    name = "unsafe"
    license = CHOSEN
    gpus: ClassVar[float] = 0.1
    signals = (
        Signal("unsafe", "lower", "probability", "unwanted labels, of the worst frame of source and target"),
    )

    def __init__(self, checkpoint: str, unsafe: tuple[str, ...] = ("nsfw",), device: str = "auto") -> None:
        self.checkpoint, self.unsafe, self.device = checkpoint, tuple(unsafe), device

    def describe(self) -> Backend:
        """See `curation.vlm.interface.Annotator`."""
        folder = hub.folder_of(self.checkpoint, "an image classifier", CHOSEN)
        settings = {"unsafe": list(self.unsafe), "frames": LOOKED_AT}
        return Backend("transformers", folder.name, hub.revision_of(folder), settings)

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any, list[int]]:
        from transformers import AutoImageProcessor, AutoModelForImageClassification

        folder = hub.folder_of(self.checkpoint, "an image classifier", CHOSEN)
        hub.note_loaded("image classifier")
        model = AutoModelForImageClassification.from_pretrained(folder)
        labels = {label: number for number, label in model.config.id2label.items()}
        if unknown := [label for label in self.unsafe if label not in labels]:
            known = ", ".join(sorted(labels)[:20])
            raise AssetError(f"{self.checkpoint}: no label {unknown[0]!r}; there are: {known}")
        processor = AutoImageProcessor.from_pretrained(folder)
        chosen = [labels[label] for label in self.unsafe]
        return processor, model.eval().to(hub.device_of(self.device)), chosen

    def measure(self, pair: Pair) -> Values:
        """See `curation.quality.signals.Grader`."""
        import torch

        processor, model, unsafe = self._loaded
        videos = [pair.target] if pair.source is None else [pair.source, pair.target]
        pictures = [frame for video in videos for frame in some_of(video)]
        inputs = processor(images=pictures, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            found = model(**inputs).logits.float().softmax(-1)[:, unsafe].sum(-1)
        return {"unsafe": float(found.max())}


class Judged:
    """Grader by a vision-language model: the eight criteria of the paper's filter, 0 to 10.

    Args:
        judge: asks; see docs/curation.md. Its thresholds decide nothing here.
    """

    name = "judge"
    signals = tuple(
        Signal(f"judged_{name}", "higher", "0 to 10", one.ten.rstrip("."), "a source of the target's length")
        for name, one in CRITERIA.items()
    )

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    @property
    def parts(self) -> dict[str, Any]:
        """The judge."""
        return {"judge": self.judge}

    def describe(self) -> Backend:
        """See `curation.vlm.interface.Annotator`."""
        return self.judge.describe()

    def measure(self, pair: Pair) -> Values:
        """See `curation.quality.signals.Grader`."""
        if not pair.is_aligned:
            return {signal.name: None for signal in self.signals}
        source, target = pair.both
        found = self.judge.grades(source, target, pair.instruction, pair.fps or 1.0, pair.mask)
        return {f"judged_{name}": found[name] for name in CRITERIA}
