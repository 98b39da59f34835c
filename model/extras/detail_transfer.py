"""Detail carry-over: what a lossy codec dropped of the source returns wherever the edit left it alone.

A part of the editor, optional and off by default; it is not in the paper.
"""

from __future__ import annotations

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
    squared = ((edit - source) * 127.5).square().mean(-1)[None, None]  # [1, 1, T, H, W]
    window = (3 if len(edit) > 2 else 1, 2 * radius + 1, 2 * radius + 1)
    padding = tuple(side // 2 for side in window)
    rms = F.avg_pool3d(squared, window, stride=1, padding=padding, count_include_pad=False).sqrt()[0, 0]
    step = ((rms - blend_low) / (blend_high - blend_low)).clamp(0, 1)
    # widen by the window, so that the rim of an edit, diluted by its surroundings, stays the edit's
    step = F.max_pool2d(step[:, None], 2 * radius + 1, stride=1, padding=radius)[:, 0]
    smooth = step * step * (3 - 2 * step)
    return smooth[..., None]


def limit_to_mask(edited: Tensor, mask: Tensor) -> Tensor:
    """The change map within the mask that the instruction names and a rim of one pixel; 0 beyond.

    The mask says where the edit belongs, so the source stays elsewhere, as inpainting pipelines composite.

    Args:
        edited: float [T, H, W, 1].
        mask: float [T, H, W, 3] in [-1, 1], white where it marks.
    """
    inside = (mask.mean(-1)[:, None] > 0).to(edited.dtype)
    return edited * F.max_pool2d(inside, 3, stride=1, padding=1)[:, 0, ..., None]


def blend(edit: Tensor, source: Tensor, edited: Tensor) -> Tensor:
    """The source where the change map is 0 and the edit where it is 1.

    Args:
        edit, source: float [T, H, W, 3] of the same size.
        edited: float [T, h, w, 1], of that size or smaller; enlarged bilinearly.
    """
    return torch.lerp(source, edit, enlarge(edited, (source.shape[1], source.shape[2])))


def enlarge(edited: Tensor, size: tuple[int, int]) -> Tensor:
    """A change map, float [T, h, w, 1], at (height, width), bilinearly."""
    if edited.shape[1:3] == size:
        return edited
    return F.interpolate(edited.movedim(-1, 1), size, mode="bilinear").movedim(1, -1)
