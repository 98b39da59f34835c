"""Editing of pictures with a diffusers pipeline: FLUX.1 Kontext, Qwen-Image-Edit and their like."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from curation.vlm import hub
from curation.vlm.interface import Backend
from curation.vlm.weights import Weights, checkpoint_weights

LICENSE = "that of the checkpoint: Qwen-Image-Edit Apache-2.0, FLUX.1 Kontext [dev] non-commercial"


class DiffusersEditor:
    """The editor; the checkpoint's model_index.json says which pipeline runs.

    Args:
        checkpoint: folder or hub repository.
        steps: of the solver; seed: of the noise.
        size: height and width that a picture is scaled to for the pipeline; its own size when left out.
        options: further arguments of the pipeline's call (guidance_scale for FLUX, true_cfg_scale for Qwen).
    """

    license = LICENSE
    gpus: ClassVar[float] = 1.0

    def __init__(
        self,
        checkpoint: str = "Qwen/Qwen-Image-Edit",
        steps: int = 40,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        options: dict[str, Any] | None = None,  # keywords of diffusers' pipeline
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        self.checkpoint, self.steps, self.seed, self.size = checkpoint, steps, seed, size
        self.options, self.device, self.dtype = options or {}, device, dtype

    @property
    def folder(self) -> Path:
        """Where the checkpoint is."""
        return hub.folder_of(self.checkpoint, "an image editor", LICENSE, "model_index.json")

    def describe(self) -> Backend:
        """Checkpoint and sampling."""
        settings: dict[str, object] = {
            "steps": self.steps,
            "seed": self.seed,
            "size": self.size and list(self.size),
        }
        settings |= {"options": self.options, "dtype": self.dtype}
        return Backend("diffusers", "image-editor", hub.revision_of(self.folder), settings)

    def weights(self) -> list[Weights]:
        """The parts that the pipeline's model_index.json names."""
        return checkpoint_weights(self.checkpoint, self.dtype)

    @functools.cached_property
    def _loaded(self) -> Any:
        from diffusers import DiffusionPipeline

        hub.note_loaded("image editor")
        device = hub.device_of(self.device)
        precision = hub.dtype_of(self.dtype, device)
        pipe = DiffusionPipeline.from_pretrained(self.folder, dtype=precision)
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(device)

    def edit(self, image: np.ndarray, instruction: str) -> np.ndarray:
        """uint8 [H, W, 3], of the size of image [H, W, 3]."""
        import torch
        from PIL import Image

        height, width = self.size or image.shape[:2]
        made = self._loaded(
            image=Image.fromarray(image),
            prompt=instruction,
            height=height,
            width=width,
            num_inference_steps=self.steps,
            generator=torch.Generator("cpu").manual_seed(self.seed),
            output_type="np",
            **self.options,
        ).images[0]
        picture = (np.clip(made, 0, 1) * 255).round().astype(np.uint8)
        size = (image.shape[1], image.shape[0])
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
