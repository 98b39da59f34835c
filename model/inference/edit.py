"""What an edit made: frames, and the files they are written to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from model.output.preservation import Preservation, measure
from model.output.video_file import Origin, write_like
from model.streaming.frames import Video
from shards.media import open_mask_file, write_image, write_video
from shards.video_writer import even_sides


def describe_edit(
    shape: tuple[int, ...],
    fps: float,
    still: bool,
    notes: Sequence[str],
    kept: Preservation | None,
    region: float | None,
    faces: int | None = None,
) -> str:
    """An edit in words.

    Args:
        shape: (frames, height, width).
        notes: what was done to media so that they fit.
        kept: how much of its source; None where it has none.
        region: share of pixels that were marked; None where they were not asked for.
        faces: frames in which faces were kept; None where there are none and they were not asked for.
    """
    length, height, width = shape
    size = f"{width}x{height}"
    words = f"image · {size}"
    if not still:
        words = f"{length} frames · {size} · {fps:g} fps · {length / fps:.2f} s"
    more = [kept.describe()] if kept is not None else []
    if faces is not None:
        more.append(f"faces kept in {faces} of {length} frames")
    words = " · ".join((words, *notes, *more))
    if region is None:
        return words
    if not region:
        return f"{words} · no region marked, so edited by words alone"
    return f"{words} · region of {region:.1%} marked"


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
        source: uint8 RGB [T', h, w, 3] with T' >= T, what it is an edit of, or frames of a file that are read
            when asked for; None where it is none.
        mask: uint8 [T, H, W], the edit's share of each pixel from 0 to 255, where `keep` was asked for.
        faces: in how many frames faces of the source were kept; None where there are none and they were not
            asked for.
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
    source: Video | None = None
    mask: np.ndarray | None = None
    faces: int | None = None

    @cached_property
    def preservation(self) -> Preservation | None:
        """How much of the source was kept, measured when it is asked for; None for what is no edit of one."""
        return None if self.source is None else measure(self.frames, self.source, self.change)

    def describe(self) -> str:
        """Length, size and rate in words, what was done to media, and how much of a region was marked."""
        region = None if self.region is None else float(self.region.mean())
        shape = self.frames.shape[:3]
        return describe_edit(shape, self.fps, self.still, self.notes, self.preservation, region, self.faces)

    def save(self, path: str | Path) -> Path:
        """Write an mp4 (H.264) or, for an image, a PNG; whole or not at all. See `write`."""
        self.write(path)
        return Path(path)

    def write(self, path: str | Path) -> str:
        """Write as `save` does, and say in words what became of the source's sound; "" where there is none.

        The mask, where there is one, is written beside and named too.
        """
        sound, beside = self.write_frames(path), self.write_mask(path)
        return " · ".join(filter(None, (sound, "" if beside is None else f"mask: {beside}")))

    def write_frames(self, path: str | Path) -> str:
        """Write without the mask; what became of the source's sound, "" where there is none.

        A video that was made of a file keeps that file's sound, rate and colours (`output.video_file`). H.264
        as browsers play it has even sides: an odd one gains a row or column, repeated from the last.
        """
        if self.still:
            write_image(path, self.frames[0])
        elif self.origin is not None:
            return write_like(path, self.frames, self.fps, self.origin)
        else:
            write_video(path, map(even_sides, self.frames), self.fps)
        return ""

    def write_mask(self, path: str | Path) -> Path | None:
        """Write the mask beside a result, see `mask_path`; its path, None where there is none."""
        if self.mask is None:
            return None
        beside = mask_path(path, self.still)
        if self.still:
            write_image(beside, np.repeat(self.mask[0, ..., None], 3, -1))
        else:
            with open_mask_file(beside, self.fps) as write:
                for mask in self.mask:
                    write(mask)
        return beside


def mask_path(path: str | Path, still: bool) -> Path:
    """Where the mask of a result is: `out.mask.mkv` beside `out.mp4`, lossless, or `out.mask.png` of a PNG.

    Grey levels are the edit's share of each pixel; either file can be given as a mask again.
    """
    return Path(path).with_suffix(".mask.png" if still else ".mask.mkv")
