"""Settings of what is ours and not the paper's.

The defaults are the paper's model.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.sequence.rope import AXES
from shards.errors import SettingError
from shards.limits import in_range


@dataclass(frozen=True)
class ExtrasConfig:
    """What is ours and not the paper's; all of it is off by default.

    Attributes:
        copy_bias: None is the paper's network. Else a `CopyHead` with these initial biases per axis is added
            to the output, for networks that predict clean data.
        position_bias: initial bias of queries and keys along time, height and width (needs `dit.qkv_bias`).
            Above 0 heads start by looking at their own place in all elements, which is where an edit finds
            most of what it needs; 0 starts from content alone, as the paper presumably does.
        position_bias_heads: how many of the heads start so, the first ones; None is all, which leaves none to
            look at the words from afar.
        detail_transfer: add back to an edit what the codec dropped of the source wherever the two agree; see
            `model.extras.detail_transfer`.
        blend_low, blend_high: RMS differences in pixel values of 0..255: at or below the first a place counts
            as untouched, from the second on as edited.
    """

    copy_bias: tuple[float, ...] | None = None
    position_bias: float = 0.0
    position_bias_heads: int | None = None
    detail_transfer: bool = False
    blend_low: float = 8.0
    blend_high: float = 16.0

    def __post_init__(self) -> None:
        in_range("extras.position_bias", self.position_bias, -1000, 1000)
        for bias in self.copy_bias or ():
            in_range("extras.copy_bias", bias, -1000, 1000)
        if self.copy_bias is not None and len(self.copy_bias) != len(AXES):
            raise SettingError(f"extras.copy_bias: one number per axis of rope.dims, got {self.copy_bias}")
        in_range("extras.blend_low", self.blend_low, 0, 255)
        in_range("extras.blend_high", self.blend_high, 0, 1000)
        if self.detail_transfer and self.blend_low >= self.blend_high:
            raise SettingError(
                f"extras.blend_low {self.blend_low} must be below extras.blend_high {self.blend_high}"
            )
