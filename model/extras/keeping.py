"""The source kept outside of an edit by contract, with a mask that says where.

Ours, not in the paper; as inpainting pipelines composite their results. It works for every network and knows
nothing of other windows, so that the windows of a long video may be put together in any order.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from torch import Tensor

from model.extras.detail_transfer import enlarge
from shards.errors import SettingError
from shards.frames import RING
from shards.limits import in_range
from shards.media import Size, resize


@dataclass(frozen=True)
class Keep:
    """How much of the source stays outside of an edit.

    Outside is beyond the mask that was given, or the region that the model marked, or else the change that
    was measured, and beyond a soft rim around it (`rim`).

    Attributes:
        strength: share of the difference between edit and source that is undone outside. 1 leaves the
            source's pixels there to the bit; 0.5 leaves half of the difference, which is 6 dB more of PSNR;
            0 leaves the edit as it was decoded.
    """

    strength: float

    def __post_init__(self) -> None:
        in_range("keep", self.strength, 0, 1)


def choose_keep(strength: float | None, carry: bool | None) -> tuple[Keep | None, bool | None]:
    """How the source is kept, and whether its details are transferred, of what a caller asks for.

    Args:
        strength: of `Keep`; 0 is the edit as it was decoded, None the checkpoint's own behaviour.
        carry: transfer of details (`extras.detail_transfer`) on or off; None is the checkpoint's own.

    Raises:
        SettingError: they contradict each other, or the strength is out of range.
    """
    if strength is None:
        return None, carry
    keep = Keep(strength)
    if carry is not None and carry != (strength > 0):
        raise SettingError(
            f"carry {str(carry).lower()} and keep {strength:g} contradict each other; leave one out"
        )
    return (keep, carry) if strength else (None, False)


@dataclass(frozen=True)
class Kept:
    """A window after `keep_source`.

    Attributes:
        frames: uint8 RGB [T, H, W, 3].
        mask: uint8 [T, H, W], the edit's share of each pixel, from 0 to 255.
    """

    frames: np.ndarray
    mask: np.ndarray


def keep_source(
    raw: np.ndarray, source: np.ndarray, edited: Tensor, keep: Keep, mask: np.ndarray | None = None
) -> Kept:
    """A window of an edit where it belongs, and of its source elsewhere.

    Args:
        raw: uint8 RGB [T, H, W, 3], the decoded edit.
        source: uint8 RGB [T, h, w, 3], resized to the edit's size.
        edited: float [T, h', w', 1] in [0, 1], how much of each pixel is the edit's; enlarged bilinearly.
        keep: how the source is kept.
        mask: uint8 [T or 1, h'', w'', 3], white where the edit belongs; None is everywhere.

    Raises:
        SettingError: the mask has another length than the edit.
    """
    size = raw.shape[1], raw.shape[2]
    source = resize(source, size)
    region = (enlarge(edited, size)[..., 0] * 255).round().clamp(0, 255).byte().numpy()
    if mask is not None:
        if len(mask) not in (1, len(raw)):
            raise SettingError(f"mask: {len(mask)} frames for {len(raw)} of the edit")
        region = np.where(resize(mask[..., 0] > 127, size), region, np.uint8(0))
    share = np.stack([feather(one) for one in region])
    return Kept(blend(raw, source, share, keep.strength), share)


def blend(raw: np.ndarray, source: np.ndarray, share: np.ndarray, strength: float = 1) -> np.ndarray:
    """An edit and its source, uint8 RGB [T, H, W, 3]: the edit where its `share`, uint8 [T, H, W], is 255.

    Elsewhere a part `strength` of their difference is undone: with 1, the source is whole where it is 0.
    """
    frames = np.empty_like(raw)
    for index, (edit, original, one) in enumerate(zip(raw, source, share, strict=True)):
        weight = 1 - strength * (1 - one[..., None] / np.float32(255))
        frames[index] = np.rint(original + weight * (edit.astype(np.float32) - original))
    return frames


def rim(size: Size) -> int:
    """Width in pixels of the soft rim: 2 % of the shorter side of (height, width), even, 2 at least."""
    return 2 * max(1, round(RING * min(size) / 2))


def feather(region: np.ndarray) -> np.ndarray:
    """A region with a soft rim around it, so that no seam is seen where edit and source meet.

    The region keeps its levels or gains, pixels farther than `rim` from it along both axes have 0, and from
    one pixel to the next the result changes by at most 255 / (rim + 1), and one level of rounding.

    Args:
        region: uint8 [H, W], 255 inside and 0 outside; it may be soft already.
    """
    side = rim((region.shape[0], region.shape[1])) + 1
    wider = cv2.dilate(region, np.ones((side, side), np.uint8))
    soft: np.ndarray = cv2.blur(wider, (side, side), borderType=cv2.BORDER_REPLICATE)
    return soft
