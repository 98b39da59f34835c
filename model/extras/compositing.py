"""A window of an edit put together with its source: what is the edit's, and what stays."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from model.extras.detail_transfer import blend, enlarge
from model.sequence.pixels import to_float, to_pixels
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
    edited = enlarge(edited, (height, width))
    whole = to_pixels(blend(to_float(raw), to_float(resize(source, (height, width))), edited))
    return whole, edited[..., 0].numpy() > 0
