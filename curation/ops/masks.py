"""Geometry of boxes and masks that several stages share.

Boxes are float [N, 4] (left, top, right, bottom) in pixels; masks are bool [H, W].
"""

from __future__ import annotations

import cv2
import numpy as np


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union [N, M] of boxes `a` [N, 4] and `b` [M, 4]."""
    corner = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = np.clip(corner, 0, None).prod(-1)
    total = area(a)[:, None] + area(b)[None] - shared
    return shared / np.maximum(total, 1e-9)


def area(boxes: np.ndarray) -> np.ndarray:
    """Areas [N] in square pixels."""
    return np.clip(boxes[..., 2:] - boxes[..., :2], 0, None).prod(-1)


def covered(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Share [N, M] of each box of `a` that lies inside each box of `b`."""
    corner = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    return np.clip(corner, 0, None).prod(-1) / np.maximum(area(a)[:, None], 1e-9)


def suppress(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> tuple[np.ndarray, np.ndarray]:
    """Greedy non-maximum suppression; a box mostly inside a better one goes too (cut by a tile edge)."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        mine = boxes[i : i + 1]
        rest = boxes[kept]
        if not kept or (iou(mine, rest).max() < overlap and covered(mine, rest).max() < 0.8):
            kept.append(int(i))
    return boxes[kept], scores[kept]


def grow(
    box: np.ndarray, factor: float, shape: tuple[int, ...], pad: float = 0.0
) -> tuple[int, int, int, int]:
    """The box scaled about its centre by `factor` plus `pad` pixels, as whole pixels inside `shape`."""
    left, top, right, bottom = (float(v) for v in box)
    dx, dy = (right - left) * (factor - 1) / 2 + pad, (bottom - top) * (factor - 1) / 2 + pad
    return (
        max(0, int(np.floor(left - dx))),
        max(0, int(np.floor(top - dy))),
        min(shape[1], int(np.ceil(right + dx))),
        min(shape[0], int(np.ceil(bottom + dy))),
    )


def disc(radius: int) -> np.ndarray:
    """Round structuring element."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))


def largest(image: np.ndarray) -> np.ndarray:
    """Largest channel [H, W] of an image [H, W, 3]; numpy's own reduction over three values is far slower."""
    return np.maximum(np.maximum(image[..., 0], image[..., 1]), image[..., 2])


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """Mask grown by `radius` pixels."""
    return cv2.dilate(mask.astype(np.uint8), disc(radius)) > 0 if radius > 0 else mask


def close(mask: np.ndarray, radius: int) -> np.ndarray:
    """Gaps narrower than about twice `radius` filled."""
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, disc(radius)) > 0


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Mask with its holes filled."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros(mask.shape, np.uint8)
    cv2.drawContours(filled, outlines, -1, (1,), cv2.FILLED)
    return filled > 0


def components(mask: np.ndarray) -> tuple[int, np.ndarray]:
    """Number of 8-connected components and labels int32 [H, W] (0 is outside)."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return count - 1, labels


def large_parts(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The components of `mask` with at least `pixels` pixels."""
    _, labels = components(mask)
    keep = np.bincount(labels.ravel()) >= pixels
    keep[0] = False
    return keep[labels]


def touching(mask: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """The components of `mask` that share a pixel with `seed`."""
    _, labels = components(mask)
    wanted = np.unique(labels[seed & mask])
    return np.isin(labels, wanted[wanted > 0])


def bounds(mask: np.ndarray) -> np.ndarray | None:
    """Bounding box float32 [4] of a mask, None when it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
