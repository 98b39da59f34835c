"""Flow-warping error: does the result move as the curated target moves, without flicker?

Lai et al. 2018 (Learning Blind Video Temporal Consistency), with the target's flow by OpenCV's DIS.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmark.item import Reference, Unscored


def backward_flow(previous: np.ndarray, current: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of `current` was in `previous`, and whether it was visible there.

    Both frames are uint8 RGB [H, W, 3]. Returns a sampling map float32 [H, W, 2] (x, y in `previous`) and
    bool [H, W]. Visible: forward and backward flow cancel (Sundaram et al. 2010, as in Ruder et al. 2016)
    and the place lies inside the frame.
    """
    import cv2

    a, b = (cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in (previous, current))
    if min(a.shape) < 16:
        raise ValueError(f"frames of {a.shape[1]}x{a.shape[0]} are too small for optical flow")
    engine = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
    # A fresh engine per direction: it would otherwise start from the last result.
    back = engine.calc(b, a, None)
    forth = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(a, b, None)  # type: ignore[attr-defined]
    height, width = a.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    place = np.stack([x, y], -1) + back
    forth_there = cv2.remap(forth, place[..., 0], place[..., 1], cv2.INTER_LINEAR)
    round_trip = ((back + forth_there) ** 2).sum(-1)
    limit = 0.01 * ((back**2).sum(-1) + (forth_there**2).sum(-1)) + 0.5
    inside = (place >= 0).all(-1) & (place[..., 0] <= width - 1) & (place[..., 1] <= height - 1)
    return place, (round_trip <= limit) & inside


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
