"""Signals of how a pair moves: flicker, warping error, what stands still, how steady the mask is.

All go by every frame, at 320 pixels' width at most. None where that cannot be done: of pictures.
"""

from __future__ import annotations

import itertools

import cv2
import numpy as np

from curation.ops import flicker as ops_flicker
from curation.ops.flicker import carried_differences
from curation.ops.masks import dilate
from curation.quality import pairs
from curation.quality.pairs import Pair
from curation.quality.signals import Signal, Values
from curation.vlm.interface import Backend

WIDTH = 320  # pixels at which motion is looked at
SMALLEST = 16  # pixels of the shorter side that optical flow needs
WIDE = 0.1  # of the height: around the mask, where shadows and reflections of what was edited move
STILL = 2.0  # levels; a cell of 8 pixels that differs less from the frame before stands still
CELL = 8
FEW = 40  # pixels: fewer say nothing
LEAST = 2.0  # levels; squared differences of all outside that sum up to less are noise
VIDEO = "videos of one size and length"
SIGNALS = (
    Signal(
        "flicker_outside",
        "lower",
        "levels",
        "how much the brightness outside the edit goes up and down, less the source's",
        VIDEO,
        "flicker of single places",
    ),
    Signal("flicker_inside", "lower", "levels", "the same inside the edit", VIDEO),
    Signal(
        "warp_excess",
        "lower",
        "levels",
        "warping error along the source's flow outside the edit, less the source's own",
        VIDEO,
        "a target that stands still",
    ),
    Signal("frozen", "neither", "share", "frames of the target that repeat the one before", "a video"),
    Signal(
        "motion_kept",
        "higher",
        "ratio",
        "how much of the source's motion away from the edit the target has",
        VIDEO + ", something that moves away from the edit",
        "pairs in which nothing but the edited object moves",
    ),
    Signal("mask_area_variation", "lower", "ratio", "deviation of the mask's area over its mean", "a mask"),
    Signal("mask_overlap", "higher", "IoU", "smallest overlap of the mask from frame to frame", "a mask"),
)


class MotionSignals:
    """Grader of how videos move; no model."""

    name = "motion"
    signals = SIGNALS
    code = (pairs, ops_flicker)

    def describe(self) -> Backend:
        """See `curation.vlm.interface.Annotator`."""
        return Backend("opencv")

    def measure(self, pair: Pair) -> Values:
        """See `curation.quality.signals.Grader`."""
        return motion_signals(pair)


def motion_signals(pair: Pair) -> dict[str, float | None]:
    """All of `SIGNALS` by name."""
    found: dict[str, float | None] = dict.fromkeys(signal.name for signal in SIGNALS)
    found |= mask_signals(pair.mask)
    if len(pair.target) < 2:
        return found
    found["frozen"] = float(np.mean(~moves(_small(pair.target))))
    if not pair.is_aligned or min(pair.target.shape[1:3]) < SMALLEST:
        return found
    source, target = (_small(video) for video in pair.both)
    size = target.shape[2], target.shape[1]
    edit = None if pair.edit is None else _resized(pair.edit, size)
    outside = np.ones(target.shape[:3], bool)
    if edit is not None:
        outside = np.stack([~dilate(one, 2) for one in edit])
    found["flicker_outside"] = _excess(*(flicker(video, outside) for video in (target, source)))
    if edit is not None:
        found["flicker_inside"] = _excess(*(flicker(video, edit) for video in (target, source)))
    found["warp_excess"] = warp_excess(source, target, outside)
    found["motion_kept"] = motion_kept(source, target, edit)
    return found


def flicker(frames: np.ndarray, where: np.ndarray) -> float | None:
    """How much a region's brightness goes up and down, in levels of 0 to 255 a frame.

    Of all pixels that are in `where` in two frames the median change: what moves through the region changes
    some of them, light that comes and goes all. The sum of its sizes less the size of its sum: a light that
    fades is no flicker. `frames` uint8 [T, H, W, 3], `where` bool [T, H, W]. None where it is too small.
    """
    steps = []
    for t in range(1, len(frames)):
        both = where[t] & where[t - 1]
        if both.sum() >= FEW:
            step = frames[t][both].astype(np.float32).mean(-1) - frames[t - 1][both].astype(np.float32).mean(
                -1
            )
            steps.append(float(np.median(step)))
    return (sum(map(abs, steps)) - abs(sum(steps))) / len(steps) if steps else None


def warp_excess(source: np.ndarray, target: np.ndarray, where: np.ndarray) -> float | None:
    """Warping error of the target less that of the source, along the source's flow, in levels.

    Args:
        source, target: uint8 [T, H, W, 3].
        where: bool [T, H, W], the pixels that count: those outside the edit.
    """
    errors = []
    for t, (own, other, sure) in enumerate(carried_differences(target, source), start=1):
        counted = sure & where[t] & where[t - 1]
        if counted.sum() >= FEW:
            errors.append(float(other[counted].mean() - own[counted].mean()))
    return float(np.mean(errors)) if errors else None


def moves(frames: np.ndarray) -> np.ndarray:
    """Whether any cell of each frame differs from the frame before, bool [T - 1]."""
    height, width = (max(1, side // CELL) for side in frames.shape[1:3])
    small = np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in frames])
    return np.asarray(np.abs(np.diff(small.astype(np.float32), axis=0)).mean(-1).max((1, 2)) > STILL)


def motion_kept(source: np.ndarray, target: np.ndarray, edit: np.ndarray | None) -> float | None:
    """How much of the source's motion outside the edit the target has: about 1, and 0 where it is frozen.

    The coefficient by which the source's frame-to-frame differences, smoothed, explain the target's.
    None where hardly anything moves in the source away from the edit.
    """
    margin = max(3, round(WIDE * target.shape[1]))
    shared = total = 0.0
    moved = 0
    for t in range(1, len(source)):
        steps = [
            cv2.blur(video[t].astype(np.float32) - video[t - 1].astype(np.float32), (5, 5))
            for video in (source, target)
        ]
        away = np.ones(source.shape[1:3], bool)
        if edit is not None:
            away = ~dilate(edit[t] | edit[t - 1], margin)
        own, other = (step[away] for step in steps)
        strong = np.abs(own).max(-1) > 3 * LEAST
        moved += int(strong.sum())
        shared += float((own[strong] * other[strong]).sum())
        total += float((own[strong] ** 2).sum())
    return shared / total if moved >= FEW * max(1, len(source) // 4) else None


def mask_signals(mask: np.ndarray | None) -> dict[str, float | None]:
    """Variation of the mask's area (deviation over mean), and its smallest IoU from frame to frame."""
    if mask is None or len(mask) < 2:
        return {"mask_area_variation": None, "mask_overlap": None}
    areas = mask.sum((1, 2)).astype(float)
    overlaps = [
        float((now & before).sum() / max(1, (now | before).sum())) for before, now in itertools.pairwise(mask)
    ]
    return {"mask_area_variation": float(areas.std() / areas.mean()), "mask_overlap": min(overlaps)}


def _small(video: np.ndarray) -> np.ndarray:
    """A video at `WIDTH` at most, uint8 [T, h, w, 3]."""
    height, width = video.shape[1:3]
    if width <= WIDTH:
        return video
    size = (WIDTH, max(1, round(height * WIDTH / width)))
    return np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in video])


def _resized(masks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if masks.shape[2] == size[0]:
        return masks
    return np.stack(
        [cv2.resize(m.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0 for m in masks]
    )


def _excess(own: float | None, other: float | None) -> float | None:
    return None if own is None or other is None else own - other
