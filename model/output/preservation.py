"""What an edit left alone: measured against its source, and said with every edit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from shards.frames import differing, psnr
from shards.media import resize

BLOCK = 32  # frames that are compared at once, so that memory does not grow with length


@dataclass(frozen=True)
class Preservation:
    """How much of a source an edit kept.

    Attributes:
        changed: share of pixels that count as the edit's.
        psnr: of the others against the source, in dB; None without others, infinite for equal ones.
        drift: by how much their mean colour moved, in levels of 255: the largest of the three channels.
        measured: whether the change was found by comparing, because no mask and no map of it was used.
    """

    changed: float
    psnr: float | None
    drift: float | None
    measured: bool

    def describe(self) -> str:
        """In words, as it stands beside the result."""
        words = f"{self.changed:.1%} {'changed' if self.measured else 'edited'}"
        if self.psnr is None or self.drift is None:
            return words
        kept = f"{self.psnr:.1f} dB, colours off by {self.drift:.1f}"
        if math.isinf(self.psnr):
            kept = "equal" if self.changed else "all is equal"
        return f"{words}, elsewhere {kept}" if self.changed else f"nothing changed: {kept}"


class Meter:
    """Compares an edit with its source block by block, in memory that does not grow with length.

    `add` blocks in any order, then ask for the `result`: it is that of all frames at once.
    """

    def __init__(self) -> None:
        self.inside, self.outside = 0, 0  # pixels
        self.squares = 0.0
        self.sums = np.zeros(3)
        self.measured = False

    def add(self, edit: np.ndarray, source: np.ndarray, change: np.ndarray | None) -> None:
        """Count some frames.

        Args:
            edit: uint8 RGB [T, H, W, 3].
            source: uint8 RGB [T, h, w, 3], the same frames; resized to the edit's size.
            change: bool [T, H, W], where the edit was to be; None finds it where they differ, see
                `shards.frames.differing`.
        """
        theirs = resize(source, (edit.shape[1], edit.shape[2]))
        region = differing(edit, theirs) if change is None else change
        self.measured |= change is None
        for ours, other, inside in zip(edit, theirs, region, strict=True):
            outside = np.where(inside, np.uint8(0), np.uint8(1))
            count = int(outside.sum())
            gap = cv2.subtract(ours, other, dtype=cv2.CV_16S)
            # float64 [3, 1]; OpenCV takes a tenth of the time of indexing by the mask
            mean, deviation = cv2.meanStdDev(gap, mask=outside)
            self.inside += outside.size - count
            self.outside += count
            self.squares += count * float((mean**2 + deviation**2).sum())
            self.sums += count * mean[:, 0]

    def result(self) -> Preservation:
        """What the frames so far kept."""
        changed = self.inside / max(1, self.inside + self.outside)
        if not self.outside:
            return Preservation(changed, None, None, self.measured)
        drift = float(np.abs(self.sums / self.outside).max())
        return Preservation(changed, psnr(self.squares / (3 * self.outside), 255), drift, self.measured)


class Pictures(Protocol):
    """Frames uint8 RGB [T, h, w, 3]: an array, or those of a file, read when asked for."""

    def __getitem__(self, key: slice, /) -> np.ndarray:
        """Some of them."""


def measure(edit: np.ndarray, source: Pictures, change: np.ndarray | None) -> Preservation:
    """Compare an edit with its source by a `Meter`, `BLOCK` frames at a time.

    Args:
        edit: uint8 RGB [T, H, W, 3].
        source: uint8 RGB [T', h, w, 3] with T' >= T; resized to the edit's size.
        change: bool [T, H, W], where the edit was to be; None finds it where they differ.
    """
    meter = Meter()
    for start in range(0, len(edit), BLOCK):
        ours = edit[start : start + BLOCK]
        stop = start + len(ours)
        meter.add(ours, source[start:stop], None if change is None else change[start:stop])
    return meter.result()
