"""Depth with Video-Depth-Anything, a program in its own environment: steady in time, unlike one by frame."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from curation.annotators.external import Program, array_of, third_party
from curation.annotators.service import service_of
from curation.vlm.interface import Backend
from curation.vlm.weights import Weights
from shards.errors import SettingError

LICENSE = "Apache-2.0 (vits), CC-BY-NC-4.0 (vitb, vitl)"
WHERE = "github.com/DepthAnything/Video-Depth-Anything"
PARAMETERS = {"vits": 28_400_000, "vitb": 113_100_000, "vitl": 381_800_000}  # the authors' README


class VideoDepthAnything:
    """The depth estimator; its program is always kept running, and called as its `run.py` calls it.

    Args:
        program: checkout and interpreter; third_party/Video-Depth-Anything with its `.venv` when left out.
        encoder: "vits", "vitb" or "vitl"; its weights lie in the checkout's folder `checkpoints`.
        side: of its input in pixels, 518 in its run.py.
        revision: commit of the checkout, for the provenance.

    Raises SettingError for a program that is not to be kept running.
    """

    license = LICENSE
    gpus: ClassVar[float] = 0.25

    def __init__(
        self,
        program: Program | None = None,
        encoder: Literal["vits", "vitb", "vitl"] = "vits",
        side: int = 518,
        revision: str = "",
    ) -> None:
        self.program = program or third_party("Video-Depth-Anything", "run.py")
        if not self.program.service:
            raise SettingError("service: false: Video-Depth-Anything is kept running; leave it true")
        self.encoder, self.side, self.revision = encoder, side, revision

    @property
    def weights_file(self) -> str:
        """The file of its weights, in the checkout, as its run.py names it."""
        return f"checkpoints/video_depth_anything_{self.encoder}.pth"

    def describe(self) -> Backend:
        """The program. Raises AssetError when it, its interpreter or the file of its weights is missing."""
        self.program.check("Video-Depth-Anything", LICENSE, WHERE, [self.weights_file])
        settings = {"encoder": self.encoder, "side": self.side}
        return Backend("program", "video-depth-anything", self.revision, settings)

    def weights(self) -> list[Weights]:
        """The authors' number; it works in float16 on weights of float32."""
        source = "the authors' README"
        return [
            Weights(f"Video-Depth-Anything {self.encoder}", "model", PARAMETERS[self.encoder], source=source)
        ]

    def inverse_depth(self, frames: np.ndarray) -> np.ndarray:
        """float32 [T, H, W] of frames uint8 [T, H, W, 3]: larger is nearer, one unknown scale for the clip.

        Raises AnnotatorError when the program fails.
        """
        with tempfile.TemporaryDirectory(prefix="editverse-video-depth-") as scratch:
            files = {name: str(Path(scratch) / f"{name}.npy") for name in ("frames", "out")}
            np.save(files["frames"], frames)
            settings = {"weights": self.weights_file, "encoder": self.encoder, "side": self.side}
            service = service_of("Video-Depth-Anything", "video_depth_anything", self.program, settings)
            service.ask(files)
            return array_of("Video-Depth-Anything", Path(files["out"]), frames.shape[:3], "float32")
