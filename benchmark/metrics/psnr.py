"""PSNR against the curated target, inside or outside the mask or everywhere, on the 8-bit scale.

One mean squared error over all selected pixels, channels and frames of the clip, then one logarithm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmark.core.item import Reference, Unscored
from benchmark.metrics.base import Where, region
from shards.frames import psnr


def masked_mse(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    """Mean of (a - b)^2 over masked pixels and channels; a, b uint8 [T, H, W, 3], mask bool [T, H, W]."""
    difference = a[mask].astype(np.int64) - b[mask]
    return float(np.mean(difference * difference))


@dataclass(frozen=True)
class Psnr:
    """10 log10(255^2 / MSE) in dB; infinite for equal pixels, and shown so."""

    where: Where
    higher_is_better: bool = True
    range: tuple[float, float] = (0.0, math.inf)
    version: int = 1
    unit: str = "dB"

    @property
    def name(self) -> str:
        return f"psnr_{self.where}"

    @property
    def label(self) -> str:
        return f"PSNR {self.where}"

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        chosen = region(reference, self.where)
        if isinstance(chosen, Unscored):
            return chosen
        return psnr(masked_mse(reference.target, result, chosen), peak=255.0)
