"""Depth with Depth Anything V2 through transformers; frame by frame, on one scale for the clip afterwards."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from curation.vlm import hub
from curation.vlm.interface import Backend
from curation.vlm.weights import Weights, checkpoint_weights

LICENSE = "Apache-2.0 (Small), CC-BY-NC-4.0 (Base, Large)"


class DepthAnything:
    """The depth estimator.

    Args:
        checkpoint: folder or hub repository of a model for relative depth.
        batch: frames of one forward pass.
    """

    license = LICENSE
    gpus: ClassVar[float] = 0.25

    def __init__(
        self,
        checkpoint: str = "depth-anything/Depth-Anything-V2-Small-hf",
        batch: int = 8,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        self.checkpoint, self.batch, self.device, self.dtype = checkpoint, batch, device, dtype

    @property
    def folder(self) -> Path:
        """Where the checkpoint is."""
        return hub.folder_of(self.checkpoint, "Depth Anything V2", LICENSE)

    def describe(self) -> Backend:
        """Checkpoint and precision."""
        revision = hub.revision_of(self.folder)
        return Backend("transformers", "depth-anything-v2", revision, {"dtype": self.dtype})

    def weights(self) -> list[Weights]:
        """The model."""
        return checkpoint_weights(self.checkpoint, self.dtype)

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from transformers import AutoImageProcessor, AutoModelForDepthEstimation

        hub.note_loaded("Depth Anything V2")
        dtype = hub.dtype_of(self.dtype, self.device)
        model = AutoModelForDepthEstimation.from_pretrained(self.folder, dtype=dtype)
        device = hub.device_of(self.device)
        return AutoImageProcessor.from_pretrained(self.folder), model.eval().to(device)

    def inverse_depth(self, frames: np.ndarray) -> np.ndarray:
        """float32 [T, H, W] of frames [T, H, W, 3]: larger is nearer."""
        import torch

        processor, model = self._loaded
        found = []
        for start in range(0, len(frames), self.batch):
            some = list(frames[start : start + self.batch])
            inputs = processor(images=some, return_tensors="pt").to(model.device, model.dtype)
            with torch.inference_mode():
                output = model(**inputs)
            sizes = [frames.shape[1:3]] * len(some)
            for one in processor.post_process_depth_estimation(output, target_sizes=sizes):
                found.append(one["predicted_depth"].float().cpu().numpy())
        return np.stack(found).astype(np.float32)
