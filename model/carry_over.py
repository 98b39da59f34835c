"""Detail carry-over: what a lossy codec dropped of the source returns wherever the edit left it alone.

A part of the editor, optional and off by default; it is not in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def change_map(edit: Tensor, source: Tensor, agree: float, differ: float, radius: int = 3) -> Tensor:
    """How much of each pixel is the edit's own: 0 untouched, 1 edited, a smooth step between.

    The difference is smoothed over a window of 2 radius + 1 pixels (and over the frames beside) before it is
    compared, so that the codec's and the sampler's noise does not count as an edit.

    Args:
        edit, source: float [T, H, W, 3] in [-1, 1], both through the codec, so that what it drops cancels.
        agree, differ: thresholds of the RMS difference in pixel values of 0..255.

    Returns:
        float [T, H, W, 1] in [0, 1].
    """
    if not 0 <= agree < differ:
        raise ValueError(f"carry-over: needs 0 <= agree < differ, got {agree} and {differ}")
    squared = ((edit - source) * 127.5).square().mean(-1)[None, None]  # [1, 1, T, H, W]
    window = (1 if len(edit) == 1 else 3, 2 * radius + 1, 2 * radius + 1)
    padding = tuple(side // 2 for side in window)
    rms = F.avg_pool3d(squared, window, stride=1, padding=padding, count_include_pad=False).sqrt()[0, 0]
    step = ((rms - agree) / (differ - agree)).clamp(0, 1)
    # widen by the window, so that the rim of an edit, diluted by its surroundings, stays the edit's
    step = F.max_pool2d(step[:, None], 2 * radius + 1, stride=1, padding=radius)[:, 0]
    smooth = step * step * (3 - 2 * step)
    return smooth[..., None]


def carry_over(
    edit: Tensor,
    source: Tensor,
    coded_source: Tensor,
    agree: float,
    differ: float,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Blend the source back into the edit where they agree, and outside the mask where one is given.

    Args:
        edit: decoded edit; source: the source as given; coded_source: the source through the codec;
            all float [T, H, W, 3] in [-1, 1].
        mask: the mask that the instruction names, white on black, same shape. It says where the edit belongs:
            beyond it and a rim of one pixel the source stays, as inpainting pipelines composite (VACE's users
            do the same by hand).

    Returns:
        (blended video, change map float [T, H, W, 1]).
    """
    if not edit.shape == source.shape == coded_source.shape:
        raise ValueError(f"carry-over: shapes differ: {list(edit.shape)}, {list(source.shape)}")
    edited = change_map(edit, coded_source, agree, differ)
    if mask is not None:
        inside = (mask.mean(-1)[:, None] > 0).to(edited.dtype)
        edited = edited * F.max_pool2d(inside, 3, stride=1, padding=1)[:, 0, ..., None]
    return torch.lerp(source, edit, edited), edited
