"""A window of an edit put together with its source: what is the edit's, and what stays."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from model.extras.detail_transfer import enlarge
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
    change = edited[..., 0].numpy() > 0
    whole = np.array(resize(source, (height, width)))
    # elsewhere the source is what a blend gives, to the bit, at a fraction of the time
    ours, theirs = (to_float(pixels[change]) for pixels in (raw, whole))
    whole[change] = to_pixels(torch.lerp(theirs, ours, edited[torch.from_numpy(change)]))
    return whole, change
