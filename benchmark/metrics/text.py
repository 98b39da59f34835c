"""Does the result show what its description says? By CLIP and PickScore frame by frame, by ViCLIP as a video.

The paper speaks of the instruction and of plain cosines; its code takes the target's description and scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch

from benchmark.core.item import Mode, Reference, Unscored
from benchmark.features.frames import crops, sampled, unit
from benchmark.metrics.base import Faults

LONGEST = 672  # pixels; the published PickScore shrinks larger frames to this first


class FrameText(Protocol):
    """`Clip`."""

    def projected(self, frames: list[np.ndarray]) -> torch.Tensor: ...
    def text(self, text: str) -> torch.Tensor: ...
    def scale(self) -> float: ...


class VideoText(Protocol):
    """`ViClip`."""

    @property
    def frames(self) -> int: ...
    def video(self, frames: list[np.ndarray]) -> torch.Tensor: ...
    def text(self, text: str) -> torch.Tensor: ...


@dataclass(frozen=True)
class FrameAlignment:
    """exp(logit scale) times the cosine of each frame with the target's description, mean over frames.

    `official` looks at the middle square of a frame, `corrected` at squares that cover it. With `shrink`
    (PickScore's published code) frames longer than 672 pixels are first resized, in `official` alone.
    `squares` says another mode for what is seen of a frame.
    """

    model: FrameText
    name: str
    label: str
    mode: Mode = "corrected"
    squares: Mode | None = None
    shrink: bool = False
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (-100.0, 100.0)
    version: int = 1
    faults: ClassVar[Faults] = {
        "it sees the middle square of a frame": {"squares": "corrected"},
        "it shrinks long frames first (Pick)": {"shrink": False},
    }
    reads: ClassVar[tuple[str, ...]] = ("target",)
    needs_source: ClassVar[bool] = False

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        prompt = reference.prompts.get("target")
        if not prompt:
            return Unscored("the item has no description of its target")
        frames = [shrunk(f) for f in result] if self.shrink and self.mode == "official" else list(result)
        shown = [c for frame in frames for c in crops(frame, self.squares or self.mode)]
        cosines = unit(self.model.projected(shown).double()) @ unit(self.model.text(prompt).double())
        return self.model.scale() * float(cosines.mean())


@dataclass(frozen=True)
class VideoAlignment:
    """`scale` times the cosine of the video with the target's description, by ViCLIP.

    `official` takes frame int(i n / 8) of n, which never is of the last eighth; with `stride`, as V2VBench
    does, every k-th frame, k chosen so that there are eight. `corrected` takes the middles of eight equal
    intervals, and squares that cover the frame instead of the middle one. `moments` and `squares` say another
    mode for one of the two.
    """

    model: VideoText
    name: str = "video_text"
    label: str = "Video-text"
    mode: Mode = "corrected"
    squares: Mode | None = None
    moments: Mode | None = None
    scale: float = 100.0
    stride: int | None = None
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (-100.0, 100.0)
    version: int = 1
    faults: ClassVar[Faults] = {
        "it sees the middle square of a frame": {"squares": "corrected"},
        "it samples starts of intervals, never the end": {"moments": "corrected"},
    }
    reads: ClassVar[tuple[str, ...]] = ("target",)
    needs_source: ClassVar[bool] = False

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        prompt = reference.prompts.get("target")
        if not prompt:
            return Unscored("the item has no description of its target")
        number, moments = self.model.frames, self.moments or self.mode
        if self.stride and moments == "official":
            result = result[:: self.stride]
            if len(result) != number:
                return Unscored(
                    f"with stride {self.stride} there are {len(result)} frames, ViCLIP takes {number}"
                )
        text = self.model.text(prompt).double()
        cosines = [
            float(self.model.video(frames).double() @ text)
            for frames in views(result, number, self.squares or self.mode, moments)
        ]
        return self.scale * float(np.mean(cosines))


def views(video: np.ndarray, number: int, squares: Mode, moments: Mode) -> list[list[np.ndarray]]:
    """The sampled frames of a video, once per square of `crops`."""
    shown = [crops(video[n], squares) for n in sampled(len(video), number, moments)]
    return [list(view) for view in zip(*shown, strict=True)]


def shrunk(frame: np.ndarray) -> np.ndarray:
    """A frame [H, W, 3] whose longer side is at most 672 pixels; sides are rounded down, PIL's resampling."""
    from PIL import Image

    height, width = frame.shape[:2]
    if max(height, width) <= LONGEST:
        return frame
    scale = LONGEST / max(height, width)
    size = (int(scale * width), int(scale * height))
    return np.asarray(Image.fromarray(frame).resize(size))
