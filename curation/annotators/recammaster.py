"""Camera movements with ReCamMaster, a program in its own environment (`inference_recammaster.py`)."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from curation.annotators.external import Program
from curation.annotators.service import service_of
from curation.cg.camera import MOVEMENTS
from curation.vlm.interface import AnnotatorError, Backend
from curation.vlm.weights import Weights, checkpoint_weights
from shards.media import write_video

LICENSE = "MIT; its base Wan 2.1: Apache-2.0"
WHERE = "github.com/KwaiVGI/ReCamMaster"
FPS = 30  # at which the program writes, whatever it reads; it looks at frames, not at times
BASE = "models/Wan-AI/Wan2.1-T2V-1.3B"
FILES = (  # that the program needs besides its checkpoint, as its README lays them out
    f"{BASE}/diffusion_pytorch_model.safetensors",
    f"{BASE}/models_t5_umt5-xxl-enc-bf16.pth",
    f"{BASE}/Wan2.1_VAE.pth",
    f"{BASE}/google/umt5-xxl/tokenizer*",
    "example_test_data/cameras/camera_extrinsics.json",
)


class ReCamMaster:
    """The camera mover. It takes exactly `frames` frames of `size`, and keeps neither rate nor source.

    Args:
        program: checkout and interpreter.
        checkpoint: in the checkout unless absolute.
        frames: 81 in the published program.
        size: height and width in the published program; the clip is scaled to cover them and cut.
        revision: commit of the checkout, for the provenance.
    """

    license = LICENSE
    gpus: ClassVar[float] = 1.0

    def __init__(
        self,
        program: Program,
        checkpoint: str = "models/ReCamMaster/checkpoints/step20000.ckpt",
        frames: int = 81,
        size: tuple[int, int] = (480, 832),
        guidance: float = 5.0,
        revision: str = "",
    ) -> None:
        self.program, self.checkpoint, self.frames = program, checkpoint, frames
        self.size, self.guidance, self.revision = size, guidance, revision

    def describe(self) -> Backend:
        """The program. Raises AssetError when it, its interpreter or a file of its weights is missing."""
        self.program.check("ReCamMaster", LICENSE, WHERE, [*FILES, self.checkpoint])
        settings: dict[str, object] = {"checkpoint": Path(self.checkpoint).name, "size": list(self.size)}
        settings |= {"frames": self.frames, "guidance": self.guidance, "fps": FPS}
        settings |= {"seeded": self.program.service}
        return Backend("program", "recammaster", self.revision, settings)

    def weights(self) -> list[Weights]:
        """Those of its base, all in bfloat16 on the GPU; the authors publish no peak."""
        # and a projection of the camera, 12 -> 1536, and one of 1536 -> 1536 in each of 30 blocks
        added = 30 * (12 * 1536 + 1536 + 1536 * 1536 + 1536)
        camera = Weights(self.checkpoint, "camera", added, "bfloat16", source="inference_recammaster.py")
        return [*checkpoint_weights("Wan-AI/Wan2.1-T2V-1.3B", "bfloat16"), camera]

    def movements(self) -> tuple[str, ...]:
        """Its cam_type 1 to 10."""
        return MOVEMENTS

    def move(
        self, frames: np.ndarray, movement: str, fps: float, caption: str, seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """The clip cut to the program's size, and the same from the moving camera; both uint8 [T, H, W, 3].

        Raises AnnotatorError for another number of frames, and when the program fails.
        """
        if len(frames) != self.frames:
            raise AnnotatorError(f"ReCamMaster: {len(frames)} frames, it takes exactly {self.frames}")
        number = MOVEMENTS.index(movement) + 1
        source = np.stack([cover(frame, self.size) for frame in frames])
        with tempfile.TemporaryDirectory(prefix="editverse-recammaster-") as scratch:
            return source, self._run(source, number, caption, seed, Path(scratch))

    def _run(self, source: np.ndarray, number: int, caption: str, seed: int, home: Path) -> np.ndarray:
        """What the program makes of a clip of its size."""
        video = home / "data" / "videos" / "clip.mp4"
        video.parent.mkdir(parents=True)
        write_video(video, source, FPS, crf=8)
        if self.program.service:
            result = home / "video.mp4"
            settings = {"checkpoint": self.checkpoint, "guidance": self.guidance}
            service = service_of("ReCamMaster", "recammaster", self.program, settings)
            request = {"video": str(video), "caption": caption, "camera": str(number), "out": str(result)}
            service.ask({**request, "seed": seed})
            return self.program.result("ReCamMaster", result, source.shape, service.log, FPS)
        with (home / "data" / "metadata.csv").open("w", newline="") as handle:
            csv.writer(handle).writerows([["file_name", "text"], ["clip.mp4", caption]])
        arguments = ["--cam_type", str(number), "--dataset_path", str(home / "data")]
        arguments += ["--ckpt_path", self.checkpoint, "--output_dir", str(home / "out")]
        arguments += ["--dataloader_num_workers", "0", "--cfg_scale", str(self.guidance)]
        self.program.run("ReCamMaster", arguments, home / "log")
        result = home / "out" / f"cam_type{number}" / "video0.mp4"
        return self.program.result("ReCamMaster", result, source.shape, home / "log", FPS)


def cover(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of a frame [H, W, 3], scaled so that it fills `size` (height, width)."""
    scale = max(size[0] / frame.shape[0], size[1] / frame.shape[1])
    height, width = max(size[0], round(frame.shape[0] * scale)), max(size[1], round(frame.shape[1] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    large = cv2.resize(frame, (width, height), interpolation=how)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return large[top : top + size[0], left : left + size[1]]
