"""Editing of pictures with Step1X-Edit, the paper's editor (Table 10): a program in its own environment.

Its `inference.py` shrinks or enlarges a picture to about `size_level` squared, in multiples of 16, and its
result back. The picture is put on a canvas that this leaves as it is, so that it stays in registration.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from curation.annotators.external import Program, last_words, third_party
from curation.annotators.service import service_of
from curation.ops import canvas
from curation.ops.canvas import closest_size, place, stable_sizes
from curation.vlm.interface import AnnotatorError, Backend
from curation.vlm.weights import Weights
from shards.media import MediaError, read_image, write_image

LICENSE = "Apache-2.0"
WHERE = "github.com/stepfun-ai/Step1X-Edit"
FILES = (  # of the folder of weights, as its inference.py names them
    "vae.safetensors",
    "step1x-edit-i1258.safetensors",
    "Qwen2.5-VL-7B-Instruct/config.json",
    "Qwen2.5-VL-7B-Instruct/*.safetensors",
)
MULTIPLE = 16  # of the sides that it draws
PEAKS = {  # (size_level, offload) -> GB on one H800, the authors' README
    (512, False): 42.5,
    (786, False): 46.5,
    (1024, False): 49.8,
    (512, True): 25.9,
    (786, True): 27.3,
    (1024, True): 29.1,
}


class Step1XEdit:
    """The editor.

    Args:
        program: checkout and interpreter; third_party/Step1X-Edit with its `.venv` when left out.
        weights: folder of its weights, in the checkout unless absolute.
        steps: of the solver; guidance: of the text. The authors' values.
        size_level: the canvas has about this squared, in pixels; 512, 786 and 1024 are the authors'.
        offload: keep the parts that are idle in main memory.
        seed: added to the seed of each call, so that a whole run can be drawn anew.
        revision: commit of the checkout, for the provenance.
    """

    license = LICENSE
    gpus: ClassVar[float] = 1.0
    code: ClassVar[tuple[Any, ...]] = (canvas,)

    def __init__(
        self,
        program: Program | None = None,
        weights: str = "weights/step1x-edit",
        steps: int = 28,
        guidance: float = 6.0,
        size_level: int = 1024,
        offload: bool = False,
        seed: int = 0,
        revision: str = "",
    ) -> None:
        self.program = program or third_party("Step1X-Edit", "inference.py")
        self.weights_folder, self.steps, self.guidance = weights, steps, guidance
        self.size_level, self.offload, self.seed, self.revision = size_level, offload, seed, revision

    def describe(self) -> Backend:
        """The program. Raises AssetError when it, its interpreter or a file of its weights is missing."""
        files = [f"{self.weights_folder}/{name}" for name in FILES]
        self.program.check("Step1X-Edit", LICENSE, WHERE, files)
        settings = {"steps": self.steps, "guidance": self.guidance, "size_level": self.size_level}
        return Backend("program", "step1x-edit", self.revision, {**settings, "seed": self.seed})

    def weights(self) -> list[Weights]:
        """The authors' peak at this size, where they publish it."""
        peak = PEAKS.get((self.size_level, self.offload))
        return [Weights("Step1X-Edit", peak_gib=peak, source="the authors' README, one H800")]

    def edit(self, image: np.ndarray, instruction: str, seed: int = 0) -> np.ndarray:
        """uint8 [H, W, 3], of the size of image [H, W, 3] and in registration with it.

        Raises AnnotatorError when the program fails or writes no picture of the canvas's size.
        """
        area = self.size_level * self.size_level
        size = closest_size(image.shape, stable_sizes(self.drawn_size, MULTIPLE, area))
        placed = place(image, size)
        with tempfile.TemporaryDirectory(prefix="editverse-step1x-") as scratch:
            home = Path(scratch)
            (home / "in").mkdir()
            write_image(home / "in" / "picture.png", placed.canvas)
            run = self._ask if self.program.service else self._run_once
            result, log = run(home, instruction, self.seed + seed)
            try:
                drawn = read_image(result)
            except (OSError, MediaError):
                raise AnnotatorError(f"Step1X-Edit: wrote no picture{last_words(log)}") from None
        if drawn.shape[:2] != size:
            raise AnnotatorError(
                f"Step1X-Edit: wrote {drawn.shape[1]}x{drawn.shape[0]}, not {size[1]}x{size[0]}"
            )
        return placed.restore(drawn)

    def drawn_size(self, height: int, width: int) -> tuple[int, int]:
        """The size at which it draws a picture, as `input_process_image` of its inference.py computes it."""
        ratio, area = width / height, self.size_level * self.size_level
        if width > height:
            across = math.ceil(math.sqrt(area * ratio))
            down = math.ceil(across / ratio)
        else:
            down = math.ceil(math.sqrt(area / ratio))
            across = math.ceil(down * ratio)
        return down // MULTIPLE * MULTIPLE, across // MULTIPLE * MULTIPLE

    def _ask(self, home: Path, instruction: str, seed: int) -> tuple[Path, Path]:
        """The result and the log of the program that is kept running."""
        settings = {
            "weights": self.weights_folder,
            "offload": self.offload,
            "steps": self.steps,
            "guidance": self.guidance,
            "size_level": self.size_level,
        }
        service = service_of("Step1X-Edit", "step1x_edit", self.program, settings)
        files = {"image": str(home / "in" / "picture.png"), "out": str(home / "picture.png")}
        service.ask({**files, "prompt": instruction, "seed": seed})
        return home / "picture.png", service.log

    def _run_once(self, home: Path, instruction: str, seed: int) -> tuple[Path, Path]:
        """The result and the log of the program started for this picture.

        It divides by the number of pictures after the first one at its end, so it gets the picture twice.
        """
        again = (home / "in" / "picture.png").read_bytes()
        (home / "in" / "twice.png").write_bytes(again)
        prompts = dict.fromkeys(("picture.png", "twice.png"), instruction)
        (home / "prompts.json").write_text(json.dumps(prompts))
        arguments = ["--model_path", self.weights_folder, "--input_dir", str(home / "in")]
        arguments += ["--output_dir", str(home / "out"), "--json_path", str(home / "prompts.json")]
        arguments += ["--seed", str(seed), "--num_steps", str(self.steps)]
        arguments += ["--cfg_guidance", str(self.guidance), "--size_level", str(self.size_level)]
        arguments += ["--offload"] * self.offload
        self.program.run("Step1X-Edit", arguments, home / "log")
        # it adds to the name of the folder what it was told
        folder = "out" + "-offload" * self.offload + f"-{self.size_level}"
        return home / folder / "picture.png", home / "log"
