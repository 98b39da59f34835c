"""Optical flow between frames, and where it can be trusted.

By OpenCV's DIS.
"""

from __future__ import annotations

import numpy as np


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
