"""A window of an edit put together with its source: what is the edit's, and what stays."""

from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

from model.extras.detail_transfer import enlarge
from shards.media import resize


def composite(raw: np.ndarray, source: np.ndarray, edited: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The source where nothing was edited, and the edit elsewhere.

    Args:
        raw: uint8 [T, H, W, 3], the decoded edit.
        source: uint8 [T, h, w, 3], resized to the edit's size.
        edited: float [T, h', w', 1] in [0, 1], how much of each pixel is the edit's; enlarged bilinearly.

    Returns:
        uint8 [T, H, W, 3], and bool [T, H, W], where pixels are the edit's at least in part.
    """
    height, width = raw.shape[1:3]
    share = enlarge(edited, (height, width))[..., 0].numpy()
    change = share > 0
    whole = np.array(resize(source, (height, width)))
    for edit, original, one, changed in zip(raw, whole, share, change, strict=True):
        # elsewhere the source is what a blend gives, to the bit, at a fraction of the time
        left, top, columns, rows = cv2.boundingRect(changed.view(np.uint8))
        box = np.s_[top : top + rows, left : left + columns]
        theirs = original[box].astype(np.float32)
        original[box] = np.rint(theirs + one[box][..., None] * (edit[box] - theirs))
    return whole, change
