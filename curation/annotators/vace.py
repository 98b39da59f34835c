"""Wan VACE through diffusers: video generation guided by another video, and inpainting with it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from curation.core.interfaces import VideoGenerator
from curation.ops.masks import dilate
from curation.vlm import hub
from curation.vlm.interface import Annotator, AnnotatorError, Backend
from curation.vlm.weights import Weights, checkpoint_weights

LICENSE = "Apache-2.0"
GREY = 127  # VACE's "nothing known here"
NEGATIVE = "static, blurry, overexposed, subtitles, low quality, compression artifacts, deformed, extra limbs"


class WanVace:
    """The generator.

    Args:
        checkpoint: folder or hub repository in diffusers' layout.
        steps: of the solver; guidance: of the text; seed: of the noise, the same for every clip.
        longest: frames that one call may have (the model was trained on 81).
        offload: keep the parts that are idle in main memory.
    """

    license = LICENSE
    gpus: ClassVar[float] = 1.0

    def __init__(
        self,
        checkpoint: str = "Wan-AI/Wan2.1-VACE-14B-diffusers",
        steps: int = 50,
        guidance: float = 5.0,
        negative: str = NEGATIVE,
        seed: int = 0,
        longest: int = 81,
        offload: bool = False,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        self.checkpoint, self.steps, self.guidance, self.negative = checkpoint, steps, guidance, negative
        self.seed, self.longest, self.offload = seed, longest, offload
        self.device, self.dtype = device, dtype

    @property
    def folder(self) -> Path:
        """Where the checkpoint is."""
        return hub.folder_of(self.checkpoint, "Wan VACE", LICENSE, "model_index.json")

    def describe(self) -> Backend:
        """Checkpoint and sampling."""
        settings = {"steps": self.steps, "guidance": self.guidance, "negative": self.negative}
        settings |= {"seed": self.seed, "dtype": self.dtype}
        return Backend("diffusers", "wan-vace", hub.revision_of(self.folder), settings)

    def weights(self) -> list[Weights]:
        """Transformer, text encoder and VAE, whose weights stay in float32."""
        return checkpoint_weights(self.checkpoint, self.dtype, {"vae": "float32"}, self.offload)

    def generate(self, control: np.ndarray, mask: np.ndarray, prompt: str) -> np.ndarray:
        """uint8 [T, H, W, 3]: where mask [T, H, W] is False like control, elsewhere by it and the prompt.

        Sides are padded to multiples of 16 and the length to 4 n + 1, as the model has it, and cut again.
        """
        import torch
        from PIL import Image

        count, height, width = control.shape[:3]
        if count > self.longest:
            raise AnnotatorError(f"Wan VACE: {count} frames, it takes at most {self.longest}")
        room = ((0, -(count - 1) % 4), (0, -height % 16), (0, -width % 16))
        frames = np.pad(control, (*room, (0, 0)), mode="edge")
        hole = np.pad(mask, room, mode="edge").astype(np.uint8) * 255
        device = hub.device_of(self.device)
        pipe = _load(self.folder, device, self.dtype, self.offload)
        made = pipe(
            prompt=prompt,
            negative_prompt=self.negative,
            video=[Image.fromarray(f) for f in frames],
            mask=[Image.fromarray(m).convert("RGB") for m in hole],
            height=frames.shape[1],
            width=frames.shape[2],
            num_frames=len(frames),
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            generator=torch.Generator("cpu").manual_seed(self.seed),
            output_type="np",
        ).frames[0]
        if len(made) != len(frames) or made.shape[1:3] != frames.shape[1:3]:
            raise AnnotatorError(f"Wan VACE: gave {made.shape[:3]}, not {frames.shape[:3]}")
        return (np.clip(made[:count, :height, :width], 0, 1) * 255).round().astype(np.uint8)


@functools.lru_cache(maxsize=1)
def _load(folder: Path, device: str, dtype: str, offload: bool) -> Any:
    """The pipeline; kept by the process, however many annotators use it."""
    import torch
    from diffusers import AutoencoderKLWan, WanVACEPipeline

    hub.note_loaded("Wan VACE")
    hub.package("ftfy")  # which the pipeline's prompt cleaning needs
    vae = AutoencoderKLWan.from_pretrained(folder, subfolder="vae", dtype=torch.float32)
    precision = hub.dtype_of(dtype, device)
    pipe = WanVACEPipeline.from_pretrained(folder, vae=vae, dtype=precision)
    pipe.set_progress_bar_config(disable=True)
    if offload and device != "cpu":
        pipe.enable_model_cpu_offload(device=device)
        return pipe
    return pipe.to(device)


class GeneratedFill:
    """Inpainting with a video generator: grey inside the mask, the frames themselves outside, to the bit.

    Args:
        grow: pixels that the mask is grown by for the generator; what it changes out there is dropped but for
            a feathered rim of `feather` pixels inside the given mask.
    """

    prompted = True

    def __init__(self, generator: VideoGenerator, grow: int = 8, feather: int = 5) -> None:
        self.generator, self.grow, self.feather = generator, grow, feather

    @property
    def parts(self) -> dict[str, Annotator]:
        """The generator."""
        return {"generator": self.generator}

    def describe(self) -> Backend:
        """The generator, and the mask's treatment."""
        return self.generator.describe().also(grow=self.grow, feather=self.feather)

    def inpaint(
        self, frames: np.ndarray, mask: np.ndarray, fps: float, prompt: str, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """The frames, and inside mask [T, H, W] what `prompt` says; nothing changes outside of it."""
        hole = np.stack([dilate(m, self.grow) for m in mask])
        grey = np.where(hole[..., None], np.uint8(GREY), frames)
        made = self.generator.generate(grey, hole, prompt)
        return blended(frames, made, mask, self.feather), mask


def blended(frames: np.ndarray, made: np.ndarray, mask: np.ndarray, feather: int) -> np.ndarray:
    """`made` inside mask [T, H, W], fading in over `feather` pixels; `frames` outside, to the bit."""
    out = []
    for frame, new, hole in zip(frames, made, mask, strict=True):
        depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 3)
        alpha = np.clip(depth / max(1, feather), 0, 1)[..., None]
        mixed = np.where(alpha > 0, frame + alpha * (new.astype(np.float32) - frame), frame)
        out.append(mixed.round().clip(0, 255).astype(np.uint8))
    return np.stack(out)
