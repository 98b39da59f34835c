"""Removal with MiniMax-Remover, a program in its own environment; an alternative to DiffuEraser.

Its own `test_minimax_remover.py` takes one clip of 81 frames, so it is always kept running and called as that
script calls it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from scipy.ndimage import binary_dilation

from curation.annotators import vace
from curation.annotators.external import Program, array_of, third_party
from curation.annotators.service import service_of
from curation.annotators.vace import blended
from curation.ops.masks import dilate
from curation.vlm.interface import Backend
from curation.vlm.weights import Weights
from shards.errors import SettingError

LICENSE = "none is stated in its repository: ask its authors; its base Wan 2.1: Apache-2.0"
WHERE = "github.com/zibojia/MiniMax-Remover"
FILES = (  # of the folder of weights, as its README fetches them
    "vae/config.json",
    "vae/*.safetensors",
    "transformer/config.json",
    "transformer/*.safetensors",
    "scheduler/scheduler_config.json",
)


class MiniMaxRemover:
    """The inpainter. The prompt is not looked at: the model has none.

    It draws the whole picture anew; of that the mask as it dilates it is kept, fading out over a rim around.

    Args:
        program: checkout and interpreter; third_party/MiniMax-Remover with its `.venv` when left out.
        weights: folder of its weights, in the checkout unless absolute.
        steps: of the solver, 12 in its test_minimax_remover.py.
        dilate: times that the program dilates the mask by a cross of 3x3, 6 there.
        feather: pixels of the rim over which its picture fades out.
        revision: commit of the checkout, for the provenance.

    Raises SettingError for a program that is not to be kept running.
    """

    license = LICENSE
    gpus: ClassVar[float] = 0.5
    prompted = False
    code: ClassVar[tuple[Any, ...]] = (vace,)

    def __init__(
        self,
        program: Program | None = None,
        weights: str = ".",
        steps: int = 12,
        dilate: int = 6,
        feather: int = 5,
        revision: str = "",
    ) -> None:
        self.program = program or third_party("MiniMax-Remover", "pipeline_minimax_remover.py")
        if not self.program.service:
            raise SettingError(
                "service: false: MiniMax-Remover has no script that takes a clip; leave it true"
            )
        self.weights_folder, self.steps, self.dilate = weights, steps, dilate
        self.feather, self.revision = feather, revision

    def describe(self) -> Backend:
        """The program. Raises AssetError when it, its interpreter or a file of its weights is missing."""
        files = [f"{self.weights_folder}/{name}" for name in FILES]
        self.program.check("MiniMax-Remover", LICENSE, WHERE, files)
        settings = {"steps": self.steps, "dilate": self.dilate, "feather": self.feather}
        return Backend("program", "minimax-remover", self.revision, settings)

    def weights(self) -> list[Weights]:
        """Not known: neither its size nor its peak is published."""
        return [Weights("MiniMax-Remover", source="its authors publish none")]

    def inpaint(
        self, frames: np.ndarray, mask: np.ndarray, fps: float, prompt: str = "", seed: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """The frames uint8 [T, H, W, 3] with the background in mask bool [T, H, W], and all that may differ.

        The program gets 4 n + 1 frames with sides of multiples of 16, as its autoencoder has them.

        Raises AnnotatorError when the program fails.
        """
        count, height, width = frames.shape[:3]
        room = ((0, -(count - 1) % 4), (0, -height % 16), (0, -width % 16))
        with tempfile.TemporaryDirectory(prefix="editverse-minimax-") as scratch:
            files = {name: str(Path(scratch) / f"{name}.npy") for name in ("frames", "mask", "out")}
            padded = np.pad(frames, (*room, (0, 0)), mode="edge")
            np.save(files["frames"], padded)
            np.save(files["mask"], np.pad(mask, room, mode="edge").astype(np.uint8))
            settings = {"weights": self.weights_folder, "steps": self.steps, "dilate": self.dilate}
            service = service_of("MiniMax-Remover", "minimax_remover", self.program, settings)
            service.ask({**files, "seed": seed})
            drawn = array_of("MiniMax-Remover", Path(files["out"]), padded.shape, "uint8")
        hole = np.stack([binary_dilation(m, iterations=self.dilate) if self.dilate else m for m in mask])
        changed = np.stack([dilate(m, self.feather) for m in hole])
        return blended(frames, drawn[:count, :height, :width], changed, self.feather), changed
