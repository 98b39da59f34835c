"""SAM 3 through transformers: objects found by name, and followed by name or from a box, with one checkpoint.

`Sam3` takes the place of Grounding DINO and SAM 2 together (`finder`), `Sam3Tracker` that of SAM 2 alone
(`segmenter`), `Sam3Detector` that of Grounding DINO alone (`detector`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from curation.annotators.grounded_sam2 import KeyframeDetector
from curation.annotators.sam2 import Sam2Hub
from curation.core.interfaces import ClipDetector, Detections, ObjectFollower, TrackedObject
from curation.vlm import hub
from curation.vlm.interface import Backend
from curation.vlm.weights import Weights, checkpoint_weights

LICENSE = "SAM License"
CHECKPOINT = "facebook/sam3"


class Sam3Detector:
    """Finds objects by name in one frame, with SAM 3's detector (transformers' Sam3Model).

    Args:
        checkpoint: folder or hub repository of SAM 3.
        threshold: least score, the product of an object's and of the name's presence in the picture.
        dtype: of weights and activations; "auto" is bfloat16 on CUDA.
    """

    license = LICENSE
    gpus: ClassVar[float] = 0.25

    def __init__(
        self, checkpoint: str = CHECKPOINT, threshold: float = 0.5, device: str = "auto", dtype: str = "auto"
    ) -> None:
        self.checkpoint, self.threshold, self.device, self.dtype = checkpoint, threshold, device, dtype

    @property
    def folder(self) -> Path:
        """Where the checkpoint is."""
        return hub.folder_of(self.checkpoint, "SAM 3", LICENSE)

    def describe(self) -> Backend:
        """Checkpoint, threshold and precision."""
        settings = {"threshold": self.threshold, "dtype": self.dtype}
        return Backend("transformers", "sam3-image", hub.revision_of(self.folder), settings)

    def weights(self) -> list[Weights]:
        """All of the checkpoint, of which it holds nearly everything."""
        return checkpoint_weights(self.checkpoint, self.dtype)

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import Sam3Model, Sam3Processor

        hub.note_loaded("SAM 3")
        device = hub.device_of(self.device)
        model = Sam3Model.from_pretrained(self.folder, dtype=hub.dtype_of(self.dtype, device))
        return Sam3Processor.from_pretrained(self.folder), model.eval().to(device)

    def find(self, frame: np.ndarray, names: Sequence[str]) -> Detections:
        """All objects in a frame uint8 [H, W, 3] that one of `names` fits, the surest first.

        Raises ValueError when there is no name.
        """
        import torch

        named = [name for name in names if name.strip(" .")]
        if not named:
            raise ValueError("names: SAM 3 finds nothing without a name")
        processor, model = self._loaded
        boxes, scores, labels = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)], list[str]()
        with torch.inference_mode():
            picture = processor(images=frame, return_tensors="pt").to(model.device)
            seen = model.get_vision_features(picture["pixel_values"].to(model.dtype))
            for name in named:
                text = processor(text=name.strip(" ."), return_tensors="pt").to(model.device)
                output = model(vision_embeds=seen, **text)
                found = processor.post_process_instance_segmentation(
                    output, threshold=self.threshold, target_sizes=[frame.shape[:2]]
                )[0]
                boxes.append(found["boxes"].float().cpu().numpy())
                scores.append(found["scores"].float().cpu().numpy())
                labels += [name] * len(scores[-1])
        every, score = np.concatenate(boxes), np.concatenate(scores)
        every = every.clip(0, [frame.shape[1], frame.shape[0]] * 2).astype(np.float32)
        order = np.argsort(-score, kind="stable")
        return Detections(every[order], score[order].astype(np.float32), tuple(labels[i] for i in order))


class Sam3Tracker(Sam2Hub):
    """Follows objects from boxes, with SAM 3's tracker (transformers' Sam3TrackerVideoModel).

    Args:
        checkpoint: folder or hub repository of SAM 3.
        dtype: of weights and activations; "auto" is bfloat16 on CUDA.
    """

    license = LICENSE
    code: ClassVar[tuple[Any, ...]] = (Sam2Hub,)

    def __init__(self, checkpoint: str = CHECKPOINT, device: str = "auto", dtype: str = "auto") -> None:
        super().__init__(checkpoint, device, dtype)

    @property
    def folder(self) -> Path:
        """Where the checkpoint is."""
        return hub.folder_of(self.checkpoint, "SAM 3", LICENSE)

    def describe(self) -> Backend:
        """Checkpoint and precision."""
        revision = hub.revision_of(self.folder)
        return Backend("transformers", "sam3-tracker-video", revision, {"dtype": self.dtype})

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import Sam3TrackerVideoModel, Sam3TrackerVideoProcessor

        hub.note_loaded("SAM 3")
        device = hub.device_of(self.device)
        model = Sam3TrackerVideoModel.from_pretrained(self.folder, dtype=hub.dtype_of(self.dtype, device))
        return Sam3TrackerVideoProcessor.from_pretrained(self.folder), model.eval().to(device)


class Sam3Follower:
    """Finds and follows every object of the detected names, with all of SAM 3 (transformers' Sam3VideoModel).

    It detects in each frame and joins that with its tracks; of the detections that it is given it takes the
    names alone. It goes forwards, so an object is followed from the frame that it is first found in. Its
    thresholds are those of the checkpoint's configuration. transformers leaves out its suppression of
    duplicates where the package `kernels` is missing, so tracks of one thing are joined here in any case.

    Args:
        checkpoint: folder or hub repository of SAM 3.
        most: objects of one clip that are kept, the surest first.
        overlap: IoU of two objects' masks over the clip from which on they are one thing; the surer stays.
        dtype: of weights and activations; "auto" is bfloat16 on CUDA.
    """

    license = LICENSE
    gpus: ClassVar[float] = 0.5

    def __init__(
        self,
        checkpoint: str = CHECKPOINT,
        most: int = 8,
        overlap: float = 0.7,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        self.checkpoint, self.most, self.overlap = checkpoint, most, overlap
        self.device, self.dtype = device, dtype

    @property
    def folder(self) -> Path:
        """Where the checkpoint is."""
        return hub.folder_of(self.checkpoint, "SAM 3", LICENSE)

    def describe(self) -> Backend:
        """Checkpoint, what is kept of its objects, and precision."""
        settings = {"most": self.most, "overlap": self.overlap, "dtype": self.dtype}
        return Backend("transformers", "sam3-video", hub.revision_of(self.folder), settings)

    def weights(self) -> list[Weights]:
        """Detector and tracker, which share their picture encoder."""
        return checkpoint_weights(self.checkpoint, self.dtype)

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import Sam3VideoModel, Sam3VideoProcessor

        hub.note_loaded("SAM 3")
        device = hub.device_of(self.device)
        model = Sam3VideoModel.from_pretrained(self.folder, dtype=hub.dtype_of(self.dtype, device))
        return Sam3VideoProcessor.from_pretrained(self.folder), model.eval().to(device)

    def follow(self, frames: np.ndarray, detected: Mapping[int, Detections]) -> list[TrackedObject]:
        """The objects of frames uint8 [T, H, W, 3] whose names were detected, the surest first."""
        names = list(dict.fromkeys(label for _, found in sorted(detected.items()) for label in found.labels))
        if not names:
            return []
        processor, model = self._loaded
        session = processor.init_video_session(
            video=list(frames),
            inference_device=model.device,
            processing_device="cpu",
            video_storage_device="cpu",
            dtype=model.dtype,
        )
        processor.add_text_prompt(session, names)
        masks: dict[int, np.ndarray] = {}
        scores: dict[int, list[float]] = {}
        label_of: dict[int, str] = {}
        for output in model.propagate_in_video_iterator(session):
            shown = processor.postprocess_outputs(session, output)
            numbers = shown["object_ids"].tolist()
            for number, score, mask in zip(numbers, shown["scores"].tolist(), shown["masks"], strict=True):
                if mask.any():  # another object of its name may have taken all of it
                    whole = masks.setdefault(number, np.zeros(frames.shape[:3], bool))
                    whole[output.frame_idx] = mask.cpu().numpy() > 0
                    scores.setdefault(number, []).append(float(score))
            for name, ids in shown["prompt_to_obj_ids"].items():
                label_of |= dict.fromkeys(ids, name)
        objects = [
            TrackedObject(label_of[number], float(np.mean(scores[number])), len(scores[number]), mask)
            for number, mask in masks.items()
        ]
        return _distinct(sorted(objects, key=lambda one: -one.score), self.overlap)[: self.most]


def _distinct(objects: Sequence[TrackedObject], overlap: float) -> list[TrackedObject]:
    """The objects without those that an earlier one covers: IoU of both masks over the clip."""
    kept: list[TrackedObject] = []
    for one in objects:
        shared = [(one.masks & other.masks).sum() / max(1, (one.masks | other.masks).sum()) for other in kept]
        if max(shared, default=0.0) < overlap:
            kept.append(one)
    return kept


class Sam3:
    """SAM 3 for both stages: names that its detector finds in keyframes, followed by its video model.

    Args:
        checkpoint: folder or hub repository of SAM 3.
        every: frames from keyframe to keyframe.
        threshold: least score of a detection in a keyframe.
        most: objects of one clip that are kept, the surest first.
        dtype: of weights and activations; "auto" is bfloat16 on CUDA.
    """

    def __init__(
        self,
        checkpoint: str = CHECKPOINT,
        every: int = 20,
        threshold: float = 0.5,
        most: int = 8,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        self.detector = KeyframeDetector(Sam3Detector(checkpoint, threshold, device, dtype), every)
        self.follower = Sam3Follower(checkpoint, most, device=device, dtype=dtype)

    def annotators(self) -> tuple[ClipDetector, ObjectFollower]:
        """Both, as a task's stages take them."""
        return self.detector, self.follower
