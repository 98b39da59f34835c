"""Removal with DiffuEraser, a program in its own environment (its repository's `run_diffueraser.py`)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from curation.annotators.external import Program
from curation.annotators.service import service_of
from curation.vlm.interface import AnnotatorError, Backend
from curation.vlm.weights import Weights
from shards.media import write_video

LICENSE = (
    "Apache-2.0; its base Stable Diffusion 1.5: CreativeML OpenRAIL-M; its prior ProPainter: NTU S-Lab "
    "License 1.0, non-commercial; the LoRA of PCM: MIT (its authors' repository)"
)
WHERE = "github.com/lixiaowen-xw/DiffuEraser"
LEAST = 22  # frames that its motion module needs
SIDES = (256, 1920)  # pixels of the longer side, as it checks
# The program compares the rate of its prior, which OpenCV wrote, with the video's, and refuses 30000/1001.
FPS = 25
WEIGHTS = "weights"  # in the checkout: it takes its LoRA from there and from nowhere else
FILES = (  # of which the program needs one each, as its README lays them out
    "stable-diffusion-v1-5/model_index.json",
    "stable-diffusion-v1-5/scheduler/scheduler_config.json",
    "stable-diffusion-v1-5/tokenizer/vocab.json",
    "stable-diffusion-v1-5/text_encoder/config.json",
    "stable-diffusion-v1-5/text_encoder/*model*",
    "stable-diffusion-v1-5/feature_extractor/preprocessor_config.json",
    "stable-diffusion-v1-5/safety_checker/config.json",
    "sd-vae-ft-mse/config.json",
    "sd-vae-ft-mse/diffusion_pytorch_model.*",
    "diffuEraser/brushnet/config.json",
    "diffuEraser/brushnet/diffusion_pytorch_model*",
    "diffuEraser/unet_main/config.json",
    "diffuEraser/unet_main/diffusion_pytorch_model*",
    "PCM_Weights/sd15/pcm_sd15_smallcfg_2step_converted.safetensors",
    "propainter/ProPainter.pth",  # these three it would fetch by itself, in every process at once
    "propainter/raft-things.pth",
    "propainter/recurrent_flow_completion.pth",
)
NEARLY = 1 / 8  # share of the fill up to which its codec's noise is faded out


class DiffuEraser:
    """The inpainter. The prompt is not looked at: the model has its own.

    Its weights lie in the checkout's folder `weights` (which may be a link), since its code takes one of them
    from there and from nowhere else. Frames and mask are handed over at 25 frames a second, whatever the rate
    of the clip is: the program refuses rates that are no short decimal number, after it has run its prior.

    Args:
        program: checkout and interpreter.
        dilate: times that the program dilates the mask by 3x3, once eroded before (its default is 8).
        revision: commit of the checkout, for the provenance.
    """

    license = LICENSE
    gpus: ClassVar[float] = 0.5
    prompted = False
    speed = (92 / 250, "one L20, 250 frames of 640x360, the authors' README")  # seconds per frame

    def __init__(self, program: Program, dilate: int = 8, revision: str = "") -> None:
        self.program, self.dilate, self.revision = program, dilate, revision

    def describe(self) -> Backend:
        """The program. Raises AssetError when it, its interpreter or a file of its weights is missing."""
        self.program.check("DiffuEraser", LICENSE, WHERE, [f"{WEIGHTS}/{name}" for name in FILES])
        settings = {"dilate": self.dilate, "fps": FPS, "blend": "own", "seeded": self.program.service}
        return Backend("program", "diffueraser", self.revision, settings)

    def weights(self) -> list[Weights]:
        """The authors' peak at 960x540, the next size above 832x480 that they publish."""
        return [Weights("DiffuEraser", peak_gib=20.0, source="the authors' README, 250 frames of 960x540")]

    def inpaint(
        self, frames: np.ndarray, mask: np.ndarray, fps: float, prompt: str = "", seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """The frames with the background in the mask bool [T, H, W], as the program blends it in.

        Returns:
            The frames uint8 [T, H, W, 3], and the mask of all that may have changed: the given one, grown as
            the program grows it, and the reach of its blur. Outside of it the frames are as given.

        Raises:
            AnnotatorError: fewer than 22 frames, a side above 1920, or the program fails.
        """
        count, height, width = frames.shape[:3]
        if count < LEAST:
            raise AnnotatorError(f"DiffuEraser: {count} frames, it needs at least {LEAST}")
        # Its sides are multiples of 8, it would shrink others; and it refuses what is smaller than 256.
        padding = [max(SIDES[0], side + -side % 8) - side for side in (height, width)]
        room = ((0, 0), *((0, more) for more in padding))
        padded = np.pad(frames, (*room, (0, 0)), mode="edge")
        if max(padded.shape[1:3]) > SIDES[1]:
            raise AnnotatorError(f"DiffuEraser: {width}x{height} is larger than its {SIDES[1]}")
        hole = np.pad(mask, room)
        share = blend_of(hole, self.dilate)[:, :height, :width, None]
        with tempfile.TemporaryDirectory(prefix="editverse-diffueraser-") as scratch:
            made = self._run(padded, hole, seed, Path(scratch))[:, :height, :width]
        # The program wrote an MPEG-4 file; where next to nothing is filled, its noise is all that differs.
        filled = [
            np.where(part > 0, (frame + np.clip(part / NEARLY, 0, 1) * (new - frame)).round(), frame)
            for frame, new, part in zip(frames, made.astype(np.float32), share, strict=True)
        ]
        return np.stack(filled).astype(np.uint8), mask | (share[..., 0] > 0)

    def _run(self, frames: np.ndarray, mask: np.ndarray, seed: int, home: Path) -> np.ndarray:
        """What the program makes of frames and mask, of its own size."""
        video, holes, result = home / "video.mp4", home / "mask.mp4", home / "out" / "diffueraser_result.mp4"
        # Any value above 0 counts as hole, so the mask must not ring: lossless, and at the video's rate.
        write_video(video, frames, FPS, crf=0)
        write_video(holes, mask.astype(np.uint8)[..., None] * np.full(3, 255, np.uint8), FPS, crf=0)
        seconds, side = len(frames) // FPS + 2, max(frames.shape[1:3])
        if self.program.service:
            result.parent.mkdir()
            service = service_of(
                "DiffuEraser", "diffueraser", self.program, {"weights": WEIGHTS, "dilate": self.dilate}
            )
            files = {"video": video, "mask": holes, "prior": home / "prior.mp4", "out": result}
            request = {name: str(path) for name, path in files.items()}
            service.ask({**request, "seconds": seconds, "side": side, "seed": seed})
            return self.program.result("DiffuEraser", result, frames.shape, service.log, FPS)
        arguments = ["--input_video", str(video), "--input_mask", str(holes)]
        arguments += ["--video_length", str(seconds), "--save_path", str(home / "out")]
        arguments += ["--mask_dilation_iter", str(self.dilate), "--max_img_size", str(side)]
        self.program.run("DiffuEraser", arguments, home / "log")
        return self.program.result("DiffuEraser", result, frames.shape, home / "log", FPS)


def blend_of(mask: np.ndarray, dilate: int) -> np.ndarray:
    """How much of the fill each pixel gets: float32 [T, H, W] (0 to 1) of mask bool [T, H, W].

    As `read_mask` and `forward` of the program do it: eroded once and dilated `dilate` times by 3x3, and
    outside of that a Gaussian of 21x21, in 255 steps.
    """
    square, shares = np.ones((3, 3), np.uint8), []
    for hole in mask:
        solid = cv2.dilate(cv2.erode(hole.astype(np.uint8), square), square, iterations=dilate) * 255
        blurred = cv2.GaussianBlur(solid, (21, 21), 0) / 255
        share = (1 - (1 - solid / 255) * (1 - blurred)) * 255
        shares.append(share.astype(np.uint8).astype(np.float32) / 255)
    return np.stack(shares)
