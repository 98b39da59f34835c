"""Temporal consistency: how alike neighbouring frames are to a frozen network (EditVerseBench, V2VBench).

A still picture scores highest, so this means nothing without a look at how much moves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch

from benchmark.core.item import Mode, Reference, Unscored
from benchmark.features.frames import crops, unit
from benchmark.metrics.base import Faults


class Pooler(Protocol):
    """`Clip` or `Dino`."""

    def pooled(self, frames: list[np.ndarray]) -> torch.Tensor: ...


@dataclass(frozen=True)
class TemporalConsistency:
    """Mean over neighbouring frames of max(0, cosine of their pooled features).

    `official` looks at the middle square of a frame alone. `corrected` compares squares that cover all of it,
    place by place, and averages. `squares` says another mode for this alone.
    """

    model: Pooler
    name: str
    label: str
    mode: Mode = "corrected"
    squares: Mode | None = None
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (0.0, 1.0)
    version: int = 1
    needs_source: ClassVar[bool] = False
    faults: ClassVar[Faults] = {"it sees the middle square of a frame": {"squares": "corrected"}}

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        if len(result) < 2:
            return Unscored("one frame has no neighbour")
        shown = [crops(frame, self.squares or self.mode) for frame in result]
        places = len(shown[0])
        features = unit(self.model.pooled([c for frame in shown for c in frame]).double())
        features = features.unflatten(0, (len(result), places))
        alike = (features[1:] * features[:-1]).sum(-1).clamp(min=0)
        return float(alike.mean())
