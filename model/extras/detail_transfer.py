"""Detail carry-over: what a lossy codec dropped of the source returns wherever the edit left it alone.

A part of the editor, optional and off by default; it is not in the paper.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from shards.errors import SettingError


def change_map(edit: Tensor, source: Tensor, blend_low: float, blend_high: float, radius: int = 3) -> Tensor:
    """How much of each pixel is the edit's own: 0 untouched, 1 edited, a smooth step between.

    The difference is smoothed over a window of 2 radius + 1 pixels (and over the frames beside, if there are
    three or more) before it is compared, so that the codec's and the sampler's noise does not count
    as an edit.

    Args:
        edit, source: float [T, H, W, 3] in [-1, 1], both through the codec, so that what it drops cancels.
        blend_low, blend_high: thresholds of the RMS difference in pixel values of 0..255.

    Returns:
        float [T, H, W, 1] in [0, 1].
    """
    if not 0 <= blend_low < blend_high:
        raise SettingError(
            f"detail transfer: needs 0 <= blend_low < blend_high, got {blend_low} and {blend_high}"
        )
    squared = ((edit.cpu() - source.cpu()) * 127.5).square().mean(-1).numpy()
    sides = (2 * radius + 1,) * 2
    rms = np.sqrt(_average(squared, sides))
    step = np.clip((rms - blend_low) / (blend_high - blend_low), 0, 1).astype(np.float32)
    # widen by the window, so that the rim of an edit, diluted by its surroundings, stays the edit's
    step = np.stack([cv2.dilate(one, np.ones(sides, np.uint8)) for one in step])
    smooth = torch.from_numpy(step * step * (3 - 2 * step))
    return smooth[..., None].to(edit.device)


def _average(values: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    """Means of float [T, H, W] over a window of these sides and the frames beside, inside of the video.

    By OpenCV, since PyTorch's pooling takes thirty times as long on a CPU.
    """
    inside = _sums(np.ones(values.shape[1:], np.float32), sides)
    means = np.stack([_sums(one, sides) for one in values]) / inside
    if len(means) > 2:
        beside = np.pad(means, ((1, 1), (0, 0), (0, 0)))
        counts = np.array([2, *[3] * (len(means) - 2), 2], np.float32)
        means = (beside[:-2] + beside[1:-1] + beside[2:]) / counts[:, None, None]
    smoothed: np.ndarray = np.maximum(means, 0)  # OpenCV's running sums may end a little below
    return smoothed


def _sums(picture: np.ndarray, sides: tuple[int, int]) -> np.ndarray:
    return cv2.boxFilter(picture, -1, sides, normalize=False, borderType=cv2.BORDER_CONSTANT)


def limit_to_mask(edited: Tensor, mask: Tensor) -> Tensor:
    """The change map within the mask that the instruction names and a rim of one pixel; 0 beyond.

    The mask says where the edit belongs, so the source stays elsewhere, as inpainting pipelines composite.

    Args:
        edited: float [T, H, W, 1].
        mask: float [T, H, W, 3] in [-1, 1], white where it marks.
    """
    inside = (mask.mean(-1)[:, None] > 0).to(edited.dtype)
    return edited * F.max_pool2d(inside, 3, stride=1, padding=1)[:, 0, ..., None]


def enlarge(edited: Tensor, size: tuple[int, int]) -> Tensor:
    """A change map, float [T, h, w, 1], at (height, width), bilinearly."""
    if edited.shape[1:3] == size:
        return edited
    return F.interpolate(edited.movedim(-1, 1), size, mode="bilinear").movedim(1, -1)
