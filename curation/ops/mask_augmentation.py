"""VACE's mask augmentation: six ways in which a mask makes room for what is generated in it.

The modes are those of the authors' `MaskAugAnnotator` (vace/annotators/maskaug.py). It draws an expansion at
random for every frame, so that the mask flickers; here the expansion is given, and is one for the whole clip.
"""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np

from curation.ops.masks import bounds
from shards.errors import SettingError

MaskMode = Literal["original", "original_expand", "hull", "hull_expand", "bbox", "bbox_expand"]
MODES: tuple[str, ...] = get_args(MaskMode)
EXPAND = 0.3  # of the box's sides, the authors' value when none is given; in their examples 0.2 to 0.5


def augment(masks: np.ndarray, mode: str, expand: float = EXPAND) -> np.ndarray:
    """Masks bool [T, H, W] of one object, each widened to `mode`; frames without it stay empty.

    Args:
        masks: bool [T, H, W].
        mode: "original", its convex "hull" or its box "bbox"; each also with "_expand".
        expand: share of the object's box that an expansion adds on each side. It is measured by the object's
            median box, and ends half way to the picture's edge, as the authors' does.

    Raises SettingError for another mode.
    """
    if mode not in MODES:
        raise SettingError(f"mask mode {mode!r}: none of {', '.join(MODES)}")
    shape, _, wider = mode.partition("_")
    widened = masks.copy()
    if shape != "original":
        widened = np.stack([_hull(m) if shape == "hull" else _box(m) for m in masks])
    return _expanded(widened, masks, expand) if wider else widened


def _hull(mask: np.ndarray) -> np.ndarray:
    """The convex hull of all parts of a mask bool [H, W] together."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return mask
    filled = np.zeros(mask.shape, np.uint8)
    cv2.fillConvexPoly(filled, cv2.convexHull(np.concatenate(outlines)), (1,))
    return (filled > 0) | mask


def _box(mask: np.ndarray) -> np.ndarray:
    """The bounding box of a mask bool [H, W], filled."""
    box, filled = bounds(mask), np.zeros_like(mask)
    if box is not None:
        left, top, right, bottom = box.astype(int)
        filled[top:bottom, left:right] = True
    return filled


def _expanded(widened: np.ndarray, masks: np.ndarray, expand: float) -> np.ndarray:
    """Masks [T, H, W] grown to each side by a share of the median box of the object in `masks`."""
    boxes = [box for box in map(bounds, masks) if box is not None]
    if not boxes:
        return widened
    height, width = masks.shape[1:]
    across, down = expand * np.median([box[2:] - box[:2] for box in boxes], axis=0)
    # Edges as one median, so that each side grows by as much in every frame.
    left, top, right, bottom = np.median(boxes, axis=0)
    sides = (
        int(min(across, left / 2)),
        int(min(down, top / 2)),
        int(min(across, (width - right) / 2)),
        int(min(down, (height - bottom) / 2)),
    )
    # A rectangle around its anchor; dilation mirrors it, so left and right change places.
    kernel = np.ones((sides[1] + sides[3] + 1, sides[0] + sides[2] + 1), np.uint8)
    anchor = (sides[2], sides[3])
    return np.stack([cv2.dilate(m.astype(np.uint8), kernel, anchor=anchor) > 0 for m in widened])
