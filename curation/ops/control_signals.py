"""Control signals as video: depth in grey, and poses as lines.

Frames are uint8 RGB [T, H, W, 3].
"""

from __future__ import annotations

import cv2
import numpy as np


def depth_video(depth: np.ndarray) -> np.ndarray:
    """Distances, float [T, H, W] above 0, as `grey_video` of their inverses."""
    return grey_video(1 / np.maximum(depth, 1e-6))


def grey_video(inverse: np.ndarray) -> np.ndarray:
    """Inverse depth as grey frames uint8 [T, H, W, 3]: near is bright, one scale for the whole clip.

    Args:
        inverse: float [T, H, W], larger is nearer. The nearest and farthest percent are clipped.
    """
    low, high = np.percentile(inverse, (1, 99))
    grey = np.clip((inverse - low) / max(high - low, 1e-9), 0, 1)
    return np.repeat((grey * 255).round().astype(np.uint8)[..., None], 3, axis=-1)


# pairs of COCO's 17 points that are joined, and their colours (left blue, right orange, middle green)
LIMBS = (
    *(((a, b), (80, 160, 255)) for a, b in ((5, 7), (7, 9), (11, 13), (13, 15), (5, 11), (0, 1), (1, 3))),
    *(((a, b), (255, 150, 60)) for a, b in ((6, 8), (8, 10), (12, 14), (14, 16), (6, 12), (0, 2), (2, 4))),
    *(((a, b), (90, 220, 110)) for a, b in ((5, 6), (11, 12))),
)


def draw_poses(people: np.ndarray, size: tuple[int, ...], least: float = 0.3) -> np.ndarray:
    """Skeletons on black, uint8 [H, W, 3].

    Args:
        people: float [people, 17, 3] (x, y in pixels, visibility 0 to 1).
        size: (height, width).
        least: points less visible than this are left out.
    """
    drawn = np.zeros((*size, 3), np.uint8)
    for points in people:
        scale = float(np.ptp(points[:, 1]))
        thick = max(1, round(scale / 40))
        at = [(round(float(x)), round(float(y))) for x, y, _ in points]
        for (a, b), colour in LIMBS:
            if min(points[a, 2], points[b, 2]) >= least:
                cv2.line(drawn, at[a], at[b], colour, thick, cv2.LINE_AA)
        for place, (_, _, seen) in zip(at, points, strict=True):
            if seen >= least:
                cv2.circle(drawn, place, thick, (255, 255, 255), -1, cv2.LINE_AA)
    return drawn
