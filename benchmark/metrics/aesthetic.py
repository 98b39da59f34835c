"""Frames quality of V2VBench: LAION's aesthetic predictors, linear layers on CLIP's embedding of a frame.

The published code takes the second one (`benchmark.features.aesthetic`). The first, one layer in a file of
its own, gives other numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
import torch

from benchmark.core.item import Mode, Reference, RunStopped, Unscored
from benchmark.features.aesthetic import PLACES
from benchmark.features.checkpoints import read_checkpoint
from benchmark.features.frames import crops, unit
from benchmark.metrics.text import FrameText


class Grader(Protocol):
    """`AestheticPredictor`."""

    def grades(self, frames: list[np.ndarray]) -> torch.Tensor: ...


@dataclass(frozen=True)
class Aesthetic:
    """Mean grade of the frames, about 1 to 10; of a frame's squares in `corrected`.

    Args:
        model: an `AestheticPredictor`; or, with `head`, CLIP ViT-L/14.
        head: layers in a file of their own: `sac+logos+ava1-l14-linearMSE.pth` of
            christophschuhmann/improved-aesthetic-predictor (the second predictor), or
            `sa_0_4_vit_l_14_linear.pth` of LAION-AI/aesthetic-predictor (the first: `weight` [1, D] and
            `bias` [1]).
    """

    model: Grader | FrameText
    head: str | None = None
    mode: Mode = "corrected"
    name: str = "aesthetic"
    label: str = "Frames quality"
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (-100.0, 100.0)
    version: int = 1
    needs_source: ClassVar[bool] = False

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        shown = [c for f in result for c in crops(f, self.mode)]
        if self.head is None:
            if not hasattr(self.model, "grades"):
                raise RunStopped(f"{self.name}: needs an AestheticPredictor as its model, or a `head`")
            return float(self.model.grades(shown).double().mean())
        features = unit(self.model.projected(shown).double())  # type: ignore[union-attr]
        for weight, bias in layers(self.head):
            if features.shape[1] != weight.shape[1]:
                raise RunStopped(
                    f"{self.head}: takes {weight.shape[1]} numbers, CLIP gives {features.shape[1]}"
                )
            features = features @ weight.T + bias
        return float(features.mean())


@lru_cache(maxsize=4)
def layers(path: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Weight and bias of each layer, float64; RunStopped for a file that has no such."""
    state = read_checkpoint(Path(path), "LAION-AI/aesthetic-predictor, sa_0_4_vit_l_14_linear.pth")
    names = [""] if "weight" in state else [f"layers.{n}." for n in PLACES]
    if set(state) != {f"{name}{part}" for name in names for part in ("weight", "bias")}:
        raise RunStopped(
            f"{path}: should hold weight and bias, or those of layers.{', layers.'.join(map(str, PLACES))}; "
            f"holds {', '.join(sorted(state)[:4])}"
        )
    return [(state[f"{name}weight"].double(), state[f"{name}bias"].double()) for name in names]
