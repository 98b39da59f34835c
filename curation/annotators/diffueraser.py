"""Removal with DiffuEraser, a program in its own environment (`run_diffueraser.py` of its repository)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import ClassVar

import numpy as np

from curation.annotators.external import Program
from curation.vlm.interface import AnnotatorError, Backend
from shards.media import write_video

LICENSE = "Apache-2.0; its prior ProPainter: NTU S-Lab License 1.0, non-commercial"
WHERE = "github.com/lixiaowen-xw/DiffuEraser"
LEAST = 22  # frames that its motion module needs
SIDES = (257, 1919)  # of max_img_size, as it checks


class DiffuEraser:
    """The inpainter. The prompt is not looked at: the model has its own.

    Args:
        program: checkout and interpreter.
        dilate: times that the program dilates the mask by 3x3 (its default is 8).
        weights: folder of its weights, in the checkout unless absolute.
        revision: commit of the checkout, for the provenance.
    """

    license = LICENSE
    gpus: ClassVar[float] = 0.5
    prompted = False
    speed = (92 / 250, "one L20, 250 frames of 640x360, the authors' README")  # seconds per frame

    def __init__(
        self,
        program: Program,
        dilate: int = 8,
        weights: str = "weights",
        revision: str = "",
    ) -> None:
        self.program, self.dilate, self.weights, self.revision = program, dilate, weights, revision

    def describe(self) -> Backend:
        """The program."""
        self.program.check("DiffuEraser", LICENSE, WHERE)
        return Backend("program", "diffueraser", self.revision, {"dilate": self.dilate})

    def inpaint(
        self, frames: np.ndarray, mask: np.ndarray, fps: float, prompt: str = "", seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """The frames with the background in the mask [T, H, W]; the program blends over its dilated edge."""
        count, height, width = frames.shape[:3]
        if count < LEAST:
            raise AnnotatorError(f"DiffuEraser: {count} frames, it needs at least {LEAST}")
        if max(height, width) > SIDES[1]:
            raise AnnotatorError(f"DiffuEraser: {width}x{height} is larger than its {SIDES[1]}")
        # Its sides are multiples of 8; it would shrink others.
        room = ((0, 0), (0, -height % 8), (0, -width % 8))
        padded = np.pad(frames, (*room, (0, 0)), mode="edge")
        with tempfile.TemporaryDirectory(prefix="editverse-diffueraser-") as scratch:
            home = Path(scratch)
            # Any value above 0 counts as hole, so the mask must not ring: lossless, and at the video's rate.
            write_video(home / "video.mp4", padded, fps, crf=0)
            hole = np.pad(mask, room).astype(np.uint8)[..., None] * np.full(3, 255, np.uint8)
            write_video(home / "mask.mp4", hole, fps, crf=0)
            arguments = ["--input_video", str(home / "video.mp4"), "--input_mask", str(home / "mask.mp4")]
            arguments += ["--video_length", str(int(count / fps) + 2), "--save_path", str(home / "out")]
            arguments += ["--mask_dilation_iter", str(self.dilate)]
            arguments += ["--max_img_size", str(max(SIDES[0], *padded.shape[1:3]))]
            arguments += ["--base_model_path", f"{self.weights}/stable-diffusion-v1-5"]
            arguments += ["--vae_path", f"{self.weights}/sd-vae-ft-mse"]
            arguments += ["--diffueraser_path", f"{self.weights}/diffuEraser"]
            arguments += ["--propainter_model_dir", f"{self.weights}/propainter"]
            self.program.run("DiffuEraser", arguments, home / "log")
            result = home / "out" / "diffueraser_result.mp4"
            made = self.program.result("DiffuEraser", result, padded.shape, home / "log")
        return np.where(mask[..., None], made[:, :height, :width], frames), mask
