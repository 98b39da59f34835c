"""SSIM against the curated target, inside or outside the mask or everywhere.

Wang et al. 2004: 11x11 Gaussian window (sigma 1.5), K1 = 0.01, K2 = 0.03, L = 255, on each RGB channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.core.item import Reference, Unscored
from benchmark.metrics.base import Where, region

C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """SSIM at every pixel of two uint8 frames [H, W, 3], averaged over channels: float32 [H, W], -1 to 1.

    Windows are mirrored at the frame's border. Moments are the weighted (not the n-1) ones, as published.
    """
    import cv2

    def blur(x: np.ndarray) -> np.ndarray:
        smooth: np.ndarray = cv2.GaussianBlur(x, (11, 11), 1.5, borderType=cv2.BORDER_REFLECT_101)
        return smooth

    x, y = a.astype(np.float32), b.astype(np.float32)
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    value = ((2 * mx * my + C1) * (2 * vxy + C2)) / ((mx * mx + my * my + C1) * (vx + vy + C2))
    averaged: np.ndarray = value.mean(-1)
    return averaged


@dataclass(frozen=True)
class Ssim:
    """The map's mean over the masked pixels of all frames. A window at the region's edge sees across it."""

    where: Where
    higher_is_better: bool = True
    range: tuple[float, float] = (-1.0, 1.0)
    version: int = 1
    unit: str = ""

    @property
    def name(self) -> str:
        return f"ssim_{self.where}"

    @property
    def label(self) -> str:
        return f"SSIM {self.where}"

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        chosen = region(reference, self.where)
        if isinstance(chosen, Unscored):
            return chosen
        total, count = 0.0, 0
        for target, frame, mask in zip(reference.target, result, chosen, strict=True):
            if mask.any():
                values = ssim_map(target, frame)[mask]
                total, count = total + float(values.sum(dtype=np.float64)), count + values.size
        return total / count
