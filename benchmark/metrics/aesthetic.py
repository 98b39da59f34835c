"""Frames quality of V2VBench: LAION's aesthetic predictor, a linear layer on CLIP's embedding of a frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from benchmark.core.item import Mode, Reference, RunStopped, Unscored
from benchmark.features.checkpoints import read_checkpoint
from benchmark.features.frames import crops, unit
from benchmark.metrics.text import FrameText


@dataclass(frozen=True)
class Aesthetic:
    """Mean over frames of w x + b, x being the frame's embedding of unit length; about 1 to 10.

    Args:
        model: CLIP ViT-L/14.
        head: `sa_0_4_vit_l_14_linear.pth` of LAION-AI/aesthetic-predictor: `weight` [1, D] and `bias` [1].
    """

    model: FrameText
    head: str
    mode: Mode = "corrected"
    name: str = "aesthetic"
    label: str = "Frames quality"
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (-100.0, 100.0)
    version: int = 1
    needs_source: ClassVar[bool] = False

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        weight, bias = linear(self.head)
        features = unit(self.model.projected([c for f in result for c in crops(f, self.mode)]).double())
        if features.shape[1] != weight.shape[1]:
            raise RunStopped(f"{self.head}: takes {weight.shape[1]} numbers, CLIP gives {features.shape[1]}")
        return float((features @ weight.T + bias).mean())


@lru_cache(maxsize=4)
def linear(path: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias, float64; RunStopped for a file that has no such two."""
    state = read_checkpoint(Path(path), "LAION-AI/aesthetic-predictor, sa_0_4_vit_l_14_linear.pth")
    if set(state) != {"weight", "bias"}:
        raise RunStopped(f"{path}: should hold weight and bias, holds {', '.join(sorted(state)[:4])}")
    return state["weight"].double(), state["bias"].double()
