"""What an edit left alone: measured against its source, and said with every edit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shards.media import resize

LEVELS = 24  # of 255: by how much a channel differs where something was changed, beyond what coding does
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
        if not self.changed:
            return "nothing changed"
        words = f"{self.changed:.1%} {'changed' if self.measured else 'edited'}"
        if self.psnr is None or self.drift is None:
            return words
        fidelity = "equal" if np.isinf(self.psnr) else f"{self.psnr:.1f} dB, colours off by {self.drift:.1f}"
        return f"{words}, elsewhere {fidelity}"


def measure(edit: np.ndarray, source: np.ndarray, change: np.ndarray | None) -> Preservation:
    """Compare an edit with its source, frame by frame.

    Args:
        edit: uint8 RGB [T, H, W, 3].
        source: uint8 RGB [T', h, w, 3] with T' >= T; resized to the edit's size.
        change: bool [T, H, W], where the edit was to be; None finds it where a channel differs by `LEVELS`
            after both were blurred.
    """
    count, inside = 0, 0
    squares = 0.0
    sums = np.zeros(3)
    for start, ours, theirs in _blocks(edit, source):
        gap = ours.astype(np.int16) - theirs
        region = _differing(gap) if change is None else change[start : start + len(ours)]
        outside = ~region
        kept = gap[outside].astype(np.float64)
        inside += int(region.sum())
        count += len(kept)
        squares += float((kept**2).sum())
        sums += kept.sum(0)
    changed = inside / max(1, inside + count)
    if not count:
        return Preservation(changed, None, None, change is None)
    error = squares / (3 * count)
    psnr = float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
    return Preservation(changed, psnr, float(np.abs(sums / count).max()), change is None)


def _blocks(edit: np.ndarray, source: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    for start in range(0, len(edit), BLOCK):
        ours = edit[start : start + BLOCK]
        yield start, ours, resize(source[start : start + len(ours)], (edit.shape[1], edit.shape[2]))


def _differing(gap: np.ndarray) -> np.ndarray:
    """bool [T, H, W]: where blurred differences, int16 [T, H, W, 3], reach `LEVELS` in a channel."""
    import cv2

    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.0) for frame in gap.astype(np.float32)])
    found: np.ndarray = np.abs(blurred).max(-1) >= LEVELS
    return found
