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
from shards.errors import SettingError

LICENSE = "Apache-2.0"
GREY = 127  # VACE's "nothing known here"
NEGATIVE = "static, blurry, overexposed, subtitles, low quality, compression artifacts, deformed, extra limbs"


class WanVace:
    """The generator.

    Args:
        checkpoint: folder or hub repository in diffusers' layout.
        steps: of the solver; guidance: of the text.
        seed: added to the seed of each call, so that a whole run can be drawn anew.
        shift: of the noise levels towards noise, 16 in the authors' vace_wan_inference.py; the solver is then
            theirs too (UniPC on flow). None leaves the scheduler of the checkpoint as it is.
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
        shift: float | None = 16.0,
        longest: int = 81,
        offload: bool = False,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        self.checkpoint, self.steps, self.guidance, self.negative = checkpoint, steps, guidance, negative
        self.seed, self.shift, self.longest, self.offload = seed, shift, longest, offload
        self.device, self.dtype = device, dtype

    @property
    def folder(self) -> Path:
        """Where the checkpoint is."""
        return hub.folder_of(self.checkpoint, "Wan VACE", LICENSE, "model_index.json")

    def describe(self) -> Backend:
        """Checkpoint and sampling."""
        settings = {"steps": self.steps, "guidance": self.guidance, "negative": self.negative}
        settings |= {"seed": self.seed, "shift": self.shift, "dtype": self.dtype}
        return Backend("diffusers", "wan-vace", hub.revision_of(self.folder), settings)

    def weights(self) -> list[Weights]:
        """Transformer, text encoder and VAE, whose weights stay in float32."""
        return checkpoint_weights(self.checkpoint, self.dtype, {"vae": "float32"}, self.offload)

    def generate(self, control: np.ndarray, mask: np.ndarray, prompt: str, seed: int = 0) -> np.ndarray:
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
        pipe, scheduler = _load(self.folder, device, self.dtype, self.offload)
        pipe.scheduler = scheduler if self.shift is None else scheduler_of(self.shift)
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
            generator=torch.Generator("cpu").manual_seed(self.seed + seed),
            output_type="np",
        ).frames[0]
        if len(made) != len(frames) or made.shape[1:3] != frames.shape[1:3]:
            raise AnnotatorError(f"Wan VACE: gave {made.shape[:3]}, not {frames.shape[:3]}")
        return (np.clip(made[:count, :height, :width], 0, 1) * 255).round().astype(np.uint8)


@functools.lru_cache(maxsize=1)
def _load(folder: Path, device: str, dtype: str, offload: bool) -> tuple[Any, Any]:
    """The pipeline, kept by the process however many annotators use it, and the checkpoint's scheduler."""
    import torch
    from diffusers import AutoencoderKLWan, WanVACEPipeline

    hub.note_loaded("Wan VACE")
    hub.package("ftfy")  # which the pipeline's prompt cleaning needs
    vae = AutoencoderKLWan.from_pretrained(folder, subfolder="vae", dtype=torch.float32)
    precision = hub.dtype_of(dtype, device)
    pipe = WanVACEPipeline.from_pretrained(folder, vae=vae, dtype=precision)
    pipe.set_progress_bar_config(disable=True)
    return hub.on_device(pipe, device, offload), pipe.scheduler


def scheduler_of(shift: float) -> Any:
    """diffusers' UniPC solver with the values of the authors' FlowUniPCMultistepScheduler and this shift."""
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(
        num_train_timesteps=1000,
        solver_order=2,
        solver_type="bh2",
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=shift,
    )


class GeneratedFill:
    """Inpainting with a video generator: grey inside the mask, the frames themselves outside, to the bit.

    The generator gets the mask grown by `grow` pixels, and what it drew fades out over the last `feather` of
    them: so nothing of the old object is mixed into the new one, and no edge is cut. All of that rim may have
    changed and is part of the mask that is returned.

    Args:
        grow: pixels that the mask is grown by for the generator.
        feather: pixels over which its picture fades out at the rim, fewer than `grow`. Raises SettingError
            for more.
    """

    prompted = True

    def __init__(self, generator: VideoGenerator, grow: int = 8, feather: int = 5) -> None:
        if not 0 <= feather < max(1, grow):
            raise SettingError(f"feather: {feather} pixels do not fit the {grow} that the mask is grown by")
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
        """The frames [T, H, W, 3] with what `prompt` says in mask [T, H, W], and that mask with its rim."""
        hole = np.stack([dilate(m, self.grow) for m in mask])
        grey = np.where(hole[..., None], np.uint8(GREY), frames)
        drawn = self.generator.generate(grey, hole, prompt, seed)
        return blended(frames, drawn, hole, self.feather), hole


def blended(frames: np.ndarray, drawn: np.ndarray, mask: np.ndarray, feather: int) -> np.ndarray:
    """`drawn` inside mask [T, H, W], fading in over `feather` pixels; `frames` outside, to the bit."""
    out = []
    for frame, new, hole in zip(frames, drawn, mask, strict=True):
        # half a pixel less, so that the first pixel inside is the first step of the ramp
        depth = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) - 0.5
        alpha = np.clip(depth / max(0.5, feather), 0, 1)[..., None]
        mixed = np.where(alpha > 0, frame + alpha * (new.astype(np.float32) - frame), frame)
        out.append(mixed.round().clip(0, 255).astype(np.uint8))
    return np.stack(out)
