"""Intersection over union of a mask video with the true one, for tasks whose answer is a region."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmark.core.item import Reference, Unscored

EDGE = 64  # grey levels; a mask video is nearer than this to black or white
LEAST = 0.97  # share of a mask video's pixels that are


@dataclass(frozen=True)
class MaskIou:
    """IoU over all pixels of the clip, result and target cut at middle grey; 1.0 when both are empty.

    Unscored where the target is no mask: it holds colours or greys.
    """

    name: str = "mask_iou"
    label: str = "Mask IoU"
    unit: str = ""
    higher_is_better: bool = True
    range: tuple[float, float] = (0.0, 1.0)
    version: int = 1

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        target = reference.target
        plain = np.ptp(target.astype(np.int16), axis=-1) < EDGE
        sure = (target[..., 0] < EDGE) | (target[..., 0] > 255 - EDGE)
        if (plain & sure).mean() < LEAST:
            return Unscored("the target is no mask")
        wanted, given = target.mean(-1) > 127, result.mean(-1) > 127
        union = (wanted | given).sum()
        return float((wanted & given).sum() / union) if union else 1.0
