"""The colour tags of a video, and how a result is given the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace

from shards.media import Size, matrix_of, matrix_of_size
from shards.video_writer import Yuv420

_UNSPECIFIED = 2
_FULL, _LIMITED = 2, 1
# AVColorSpace (tags) -> swscale's matrix; the others are converted as BT.601.
_MATRICES = {1: Colorspace.ITU709, 4: Colorspace.FCC, 7: Colorspace.SMPTE240M, 9: Colorspace.BT2020}
# FFmpeg's name of a matrix, and the shares of red and blue in luma (ITU-T H.273, table 4)
_MATRIX = {
    Colorspace.ITU601: ("bt601", (0.299, 0.114)),
    Colorspace.ITU709: ("bt709", (0.2126, 0.0722)),
    Colorspace.FCC: ("fcc", (0.30, 0.11)),
    Colorspace.SMPTE240M: ("smpte240m", (0.212, 0.087)),
    Colorspace.BT2020: ("bt2020", (0.2627, 0.0593)),
}
_TAGS = {Colorspace.ITU709: 1, Colorspace.ITU601: 6, Colorspace.BT2020: 9}


@dataclass(frozen=True)
class Colors:
    """How pixels of a video are to be understood, as numbers of ISO/IEC 23091-2 (FFmpeg's AVCOL_*).

    Attributes:
        matrix, primaries, transfer: 2 where the file says nothing.
        full_range: levels go from 0 to 255, not from 16 to 235.
        applied: the matrix that RGB is converted with, which is the tag's, or a player's guess without one.
    """

    matrix: int = 6
    primaries: int = 6
    transfer: int = 6
    full_range: bool = False
    applied: Colorspace = Colorspace.ITU601

    @classmethod
    def of(cls, frame: Any, size: Size) -> Colors:
        """The colours of a decoded frame, for a result of this (height, width).

        A file without a matrix keeps none where players guess the same for the result's size; otherwise, and
        for RGB files, the result names what it was converted with.
        """
        tags = frame.colorspace, frame.color_primaries, frame.color_trc
        matrix, primaries, transfer = (int(tag) for tag in tags)
        full = int(frame.color_range) == _FULL
        if frame.format.is_rgb:
            guessed = matrix_of_size(size)
            return cls(_TAGS[guessed], _or(primaries, _TAGS[guessed]), _or(transfer, 1), False, guessed)
        applied = matrix_of(frame)
        if applied is None:  # the file names its matrix
            return cls(matrix, primaries, transfer, full, _MATRICES.get(matrix, Colorspace.ITU601))
        same = (
            applied == matrix_of_size(size) or applied == Colorspace.BT2020
        )  # guessed by its tags, not by its size
        return cls(_UNSPECIFIED if same else _TAGS[applied], primaries, transfer, full, applied)

    def tag(self, context: Any) -> None:
        """Write the tags into an encoder's context."""
        context.colorspace, context.color_primaries, context.color_trc = (
            self.matrix,
            self.primaries,
            self.transfer,
        )
        context.color_range = _FULL if self.full_range else _LIMITED

    def converter(self, size: Size) -> Callable[[np.ndarray], av.VideoFrame]:
        """What turns uint8 RGB [H, W, 3] of this (height, width) into yuv420p in these colours."""
        name, shares = _MATRIX[self.applied]
        return partial(_full_range, shares) if self.full_range else Yuv420(*size, matrix=name)


def _full_range(shares: tuple[float, float], picture: np.ndarray) -> av.VideoFrame:
    """Turn RGB into yuv420p with levels from 0 to 255, chroma on the left, as `Yuv420` does for 16 to 235.

    swscale rounds chroma of full range down: half a level of every colour at each file.
    """
    red, blue = shares  # of luma
    rgb = picture.astype(np.float32)
    luma = rgb @ np.array([red, 1 - red - blue, blue], np.float32)
    planes: list[Any] = [luma]
    for channel, share in ((2, blue), (0, red)):
        chroma = (rgb[..., channel] - luma) / (2 - 2 * share) + 128
        lines = (chroma[0::2] + chroma[1::2]) / 2
        before = np.concatenate([lines[:, :1], lines[:, 1:-1:2]], axis=1)
        planes.append((before + 2 * lines[:, 0::2] + lines[:, 1::2]) / 4)
    levels = np.concatenate([plane.ravel() for plane in planes]).round().clip(0, 255).astype(np.uint8)
    return av.VideoFrame.from_ndarray(levels.reshape(-1, picture.shape[1]), format="yuv420p")


def _or(tag: int, instead: int) -> int:
    return instead if tag == _UNSPECIFIED else tag
