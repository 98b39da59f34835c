"""Editing of pictures with a diffusers pipeline: Qwen-Image-Edit, FLUX.1 Kontext and their like.

These models see the picture at one size and draw at another: each has its own rule for both. Where the two
differ, what they draw is shifted against the picture and no longer fits the depth of the frames after it. So
the picture is put on a canvas of a size that the model both sees and draws at, and cut out again.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from curation.ops import canvas
from curation.ops.canvas import SizeRule, closest_size, place, stable_sizes
from curation.vlm import hub
from curation.vlm.interface import AnnotatorError, Backend
from curation.vlm.weights import Weights, checkpoint_weights

LICENSE = "that of the checkpoint: Qwen-Image-Edit Apache-2.0, FLUX.1 Kontext [dev] non-commercial"
QWEN_AREA, QWEN_MULTIPLE = 1024 * 1024, 32  # `calculate_dimensions` of diffusers' Qwen-Image-Edit
KONTEXT_AREA = 1024 * 1024  # default `max_area` of diffusers' FluxKontextPipeline


class DiffusersEditor:
    """The editor; the checkpoint's model_index.json says which pipeline runs.

    Args:
        checkpoint: folder or hub repository.
        steps: of the solver.
        seed: added to the seed of each call, so that a whole run can be drawn anew.
        size: height and width of the canvas that the pipeline draws; when left out the size that the
            pipeline both sees and draws at which the picture fills best.
        options: further arguments of the pipeline's call (guidance_scale for FLUX, true_cfg_scale for Qwen).
        offload: keep the parts that are idle in main memory, so that the largest alone must fit the GPU.
    """

    license = LICENSE
    gpus: ClassVar[float] = 1.0
    code: ClassVar[tuple[Any, ...]] = (canvas,)

    def __init__(
        self,
        checkpoint: str = "Qwen/Qwen-Image-Edit",
        steps: int = 40,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        options: dict[str, Any] | None = None,  # keywords of diffusers' pipeline
        offload: bool = False,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        self.checkpoint, self.steps, self.seed, self.size = checkpoint, steps, seed, size
        self.options, self.offload, self.device, self.dtype = options or {}, offload, device, dtype

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
        return checkpoint_weights(self.checkpoint, self.dtype, offloaded=self.offload)

    @functools.cached_property
    def _loaded(self) -> Any:
        from diffusers import DiffusionPipeline

        hub.note_loaded("image editor")
        device = hub.device_of(self.device)
        precision = hub.dtype_of(self.dtype, device)
        pipe = DiffusionPipeline.from_pretrained(self.folder, dtype=precision)
        pipe.set_progress_bar_config(disable=True)
        return hub.on_device(pipe, device, self.offload)

    def edit(self, image: np.ndarray, instruction: str, seed: int = 0) -> np.ndarray:
        """uint8 [H, W, 3], of the size of image [H, W, 3] and in registration with it.

        Raises AnnotatorError when the pipeline draws another size than it was asked for.
        """
        import torch
        from PIL import Image

        pipe = self._loaded
        size = self.size or drawing_size(pipe, image.shape, self.options)
        placed = place(image, size)
        drawn = pipe(
            image=Image.fromarray(placed.canvas),
            prompt=instruction,
            height=size[0],
            width=size[1],
            num_inference_steps=self.steps,
            generator=torch.Generator("cpu").manual_seed(self.seed + seed),
            output_type="np",
            **self.options,
        ).images[0]
        if drawn.shape[:2] != tuple(size):
            raise AnnotatorError(
                f"image editor: drew {drawn.shape[1]}x{drawn.shape[0]} and was asked for "
                f"{size[1]}x{size[0]}; leave `size` out, so that its own rule is followed"
            )
        return placed.restore((np.clip(drawn, 0, 1) * 255).round().astype(np.uint8))


def drawing_size(pipe: Any, shape: tuple[int, ...], options: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width at which a diffusers pipeline sees and draws a picture of `shape` (H, W, ...).

    By the rules of diffusers' pipelines: Qwen-Image-Edit shows itself the picture at a megapixel in multiples
    of 32; FLUX.1 Kontext at one of its preferred resolutions and draws `max_area`. Any other one is asked for
    the picture's own size, filled up to a multiple of its patches.
    """
    multiple = 2 * int(getattr(pipe, "vae_scale_factor", 8))
    name = type(pipe).__name__
    if name.startswith("QwenImageEdit"):
        return closest_size(shape, stable_sizes(qwen_size, QWEN_MULTIPLE, QWEN_AREA))
    if name.startswith("FluxKontext"):
        area = int(options.get("max_area", KONTEXT_AREA))
        rule = kontext_rule(area, multiple)
        if options.get("_auto_resize", True):
            return closest_size(shape, _preferred(rule))
        return closest_size(shape, stable_sizes(rule, multiple, area))
    return -(-shape[0] // multiple) * multiple, -(-shape[1] // multiple) * multiple


def qwen_size(height: int, width: int) -> tuple[int, int]:
    """The size at which Qwen-Image-Edit sees a picture, as diffusers' pipelines compute it."""
    ratio = width / height
    across = math.sqrt(QWEN_AREA * ratio)
    down = across / ratio
    return round(down / QWEN_MULTIPLE) * QWEN_MULTIPLE, round(across / QWEN_MULTIPLE) * QWEN_MULTIPLE


def kontext_rule(area: int, multiple: int) -> SizeRule:
    """The size that FLUX.1 Kontext draws, as diffusers' pipeline computes it."""

    def rule(height: int, width: int) -> tuple[int, int]:
        ratio = width / height
        sides = (round((area / ratio) ** 0.5), round((area * ratio) ** 0.5))
        return sides[0] // multiple * multiple, sides[1] // multiple * multiple

    return rule


def _preferred(rule: SizeRule) -> Iterator[tuple[int, int]]:
    """FLUX.1 Kontext's preferred resolutions (height, width) that it also draws."""
    from diffusers.pipelines.flux import pipeline_flux_kontext

    for width, height in pipeline_flux_kontext.PREFERRED_KONTEXT_RESOLUTIONS:
        if rule(height, width) == (height, width):
            yield height, width
