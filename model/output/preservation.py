"""What an edit left alone: measured against its source, and said with every edit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

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


def measure(edit: np.ndarray, source: np.ndarray, change: np.ndarray | None) -> Preservation:
    """Compare an edit with its source, frame by frame.

    Args:
        edit: uint8 RGB [T, H, W, 3].
        source: uint8 RGB [T', h, w, 3] with T' >= T; resized to the edit's size.
        change: bool [T, H, W], where the edit was to be; None finds it where they differ, see `differing`.
    """
    count, inside = 0, 0
    squares = 0.0
    sums = np.zeros(3)
    for start, ours, theirs in _blocks(edit, source):
        gap = ours.astype(np.int16) - theirs
        region = differing(ours, theirs) if change is None else change[start : start + len(ours)]
        outside = ~region
        kept = gap[outside].astype(np.float64)
        inside += int(region.sum())
        count += len(kept)
        squares += float((kept**2).sum())
        sums += kept.sum(0)
    changed = inside / max(1, inside + count)
    if not count:
        return Preservation(changed, None, None, change is None)
    drift = float(np.abs(sums / count).max())
    return Preservation(changed, psnr(squares / (3 * count), 255), drift, change is None)


def _blocks(edit: np.ndarray, source: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    for start in range(0, len(edit), BLOCK):
        ours = edit[start : start + BLOCK]
        yield start, ours, resize(source[start : start + len(ours)], (edit.shape[1], edit.shape[2]))
