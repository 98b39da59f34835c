"""Flicker: how much a video changes from frame to frame beyond what moves in its source.

The gate of style transfer goes by it. It is not the published flow-warping error, a mean of squares over what
the target's flow shows in both frames: that is the benchmark's metric `warp_error`.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np


def flicker_of(frames: np.ndarray, source: np.ndarray) -> float:
    """Mean absolute difference, in levels of 0 to 255, of each frame and the one before, carried by flow.

    The flow (DIS) is the source's, so that the same places are compared in both; where it does not explain
    the source (differences above 24) nothing is counted. uint8 [T, H, W, 3] both. 0 for a single frame.
    """
    errors = [
        float(other[sure].mean()) for _, other, sure in carried_differences(frames, source) if sure.any()
    ]
    return float(np.mean(errors)) if errors else 0.0


def carried_differences(
    frames: np.ndarray, source: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """How each frame but the first differs from the one before, carried by the source's flow (DIS).

    Args:
        frames, source: uint8 [T, H, W, 3].

    Yields:
        Of the source and of the frames float32 [H, W, 3], levels; and where the flow explains the source
        (no colour differs by more than 24), bool [H, W].
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    greys = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in source]
    y, x = np.mgrid[: source.shape[1], : source.shape[2]].astype(np.float32)
    for t in range(1, len(frames)):
        back = flow.calc(greys[t], greys[t - 1], None)  # type: ignore[call-overload]  # None is its default
        places = x + back[..., 0], y + back[..., 1]

        apart = []
        for video in (source, frames):
            moved = cv2.remap(video[t - 1], *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            apart.append(np.abs(moved.astype(np.float32) - video[t]))
        yield apart[0], apart[1], apart[0].max(-1) <= 24
