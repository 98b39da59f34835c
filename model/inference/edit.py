"""What an edit made: frames, and the files they are written to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from model.output.preservation import Preservation, measure
from model.output.video_file import Origin, write_like
from shards.media import write_image, write_video
from shards.video_writer import even_sides


@dataclass(frozen=True)
class Edit:
    """What an edit made.

    Attributes:
        frames: uint8 RGB [T, H, W, 3]; an image has one frame.
        fps: frames per second.
        still: it is an image.
        raw: the decoded edit before detail carry-over, where that was on; else the same as `frames`.
        region: bool [T, H, W], where the model meant to edit, if it was asked (`ground`); None otherwise.
        rewritten: the words of the instruction as a language model rewrote them, if it was asked (`enhance`).
        origin: the video file that it was made of, whose sound and tags it keeps; None without one.
        notes: what was done to media so that they fit, such as a last frame that was held.
        change: bool [T, H, W], where pixels are the edit's own, where the source's details were carried over;
            None elsewhere.
        source: uint8 RGB [T', h, w, 3] with T' >= T, what it is an edit of; None where it is none.
    """

    frames: np.ndarray
    fps: float
    still: bool
    raw: np.ndarray
    region: np.ndarray | None = None
    rewritten: str | None = None
    origin: Origin | None = None
    notes: tuple[str, ...] = ()
    change: np.ndarray | None = None
    source: np.ndarray | None = None

    @cached_property
    def preservation(self) -> Preservation | None:
        """How much of the source was kept, measured when it is asked for; None for what is no edit of one."""
        return None if self.source is None else measure(self.frames, self.source, self.change)

    def describe(self) -> str:
        """Length, size and rate in words, what was done to media, and how much of a region was marked."""
        length, height, width = self.frames.shape[:3]
        size = f"{width}x{height}"
        words = f"image · {size}"
        if not self.still:
            words = f"{length} frames · {size} · {self.fps:g} fps · {length / self.fps:.2f} s"
        kept = [self.preservation.describe()] if self.preservation is not None else []
        words = " · ".join((words, *self.notes, *kept))
        if self.region is None:
            return words
        if not self.region.any():
            return f"{words} · no region marked, so edited by words alone"
        return f"{words} · region of {self.region.mean():.1%} marked"

    def save(self, path: str | Path) -> Path:
        """Write an mp4 (H.264) or, for an image, a PNG; whole or not at all. See `write`."""
        self.write(path)
        return Path(path)

    def write(self, path: str | Path) -> str:
        """Write as `save` does, and say in words what became of the source's sound; "" where there is none.

        A video that was made of a file keeps that file's sound, rate and colours (`output.video_file`). H.264
        as browsers play it has even sides: an odd one gains a row or column, repeated from the last.
        """
        if self.still:
            write_image(path, self.frames[0])
            return ""
        if self.origin is not None:
            return write_like(path, self.frames, self.fps, self.origin)
        write_video(path, map(even_sides, self.frames), self.fps)
        return ""
