"""Flow-warping error: does the result move as the curated target moves, without flicker?

Lai et al. 2018 (Learning Blind Video Temporal Consistency), with the target's flow by OpenCV's DIS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmark.core.item import Reference, Unscored


@dataclass(frozen=True)
class WarpError:
    """1000 x the mean over frame pairs of the mean squared difference, on the 0..1 scale, between a result
    frame and its predecessor moved by the *target's* flow, over pixels visible in both.

    The published measure takes the input's flow; an edit may change what moves, so the motion wanted is the
    target's. The target itself does not reach 0: interpolation, lighting and compression remain. A frozen
    clip does not win here unless the target is still.
    """

    name: str = "warp_error"
    label: str = "Warp error"
    unit: str = "1e-3"
    higher_is_better: bool = False
    range: tuple[float, float] = (0.0, math.inf)
    version: int = 1

    def __call__(self, reference: Reference, result: np.ndarray) -> float | Unscored:
        import cv2

        if len(result) < 2:
            return Unscored("one frame: nothing to warp")
        if min(result.shape[1:3]) < 16:
            return Unscored(
                f"{result.shape[2]}x{result.shape[1]} is too small for optical flow (16 at least)"
            )
        errors: list[float] = []
        for (place, visible), before, after in zip(
            reference.target_flow, result[:-1], result[1:], strict=True
        ):
            if visible.any():
                moved = cv2.remap(before, place[..., 0], place[..., 1], cv2.INTER_LINEAR)
                difference = (after[visible].astype(np.float64) - moved[visible]) / 255.0
                errors.append(float(np.mean(difference * difference)))
        if not errors:
            return Unscored("no pixel of the target is visible in two frames")
        return 1000 * float(np.mean(errors))
