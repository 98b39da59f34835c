"""TGVE+'s two numbers, by ViCLIP (EVE, Singer et al. 2024): no code of theirs is public.

Checkpoint, sampling and whether embeddings are normalised before they are subtracted are not said there. As
public code of CLIP's direction does, they are normalised first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from benchmark.core.item import Mode, Reference, Unscored
from benchmark.metrics.text import VideoText, views


@dataclass(frozen=True)
class VideoDirection:
    """Cosine of what changed in the video with what changed in its description; mean over `crops`' squares.

    Needs the item's `source` and `target` prompts. `mode` chooses frames and squares as in `VideoAlignment`.
    """

    model: VideoText
    name: str = "viclip_dir"
    label: str = "ViCLIP dir"
    mode: Mode = "corrected"
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (-1.0, 1.0)
    version: int = 1
    reads: ClassVar[tuple[str, ...]] = ("source", "target")
    unlike_published: ClassVar[tuple[str, ...]] = (
        "no code is published; checkpoint, sampling and normalisation are our choice (docs/benchmark.md)",
    )

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        before, after = (reference.prompts.get(name) for name in ("source", "target"))
        if not before or not after:
            return Unscored("the item does not describe both its source and its target")
        words = (self.model.text(after) - self.model.text(before)).double()
        if not words.any():
            return Unscored("source and target have one description")
        scores = []
        shown = (
            views(video, self.model.frames, self.mode, self.mode) for video in (reference.source, result)
        )
        for old, new in zip(*shown, strict=True):
            change = (self.model.video(new) - self.model.video(old)).double()
            if not change.any():
                return Unscored("nothing changed that ViCLIP sees, so there is no direction")
            scores.append(float(change @ words / (change.norm() * words.norm())))
        return float(np.mean(scores))
