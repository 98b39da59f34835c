"""Which frames of a pair a judge is shown: the whole clip, runs of consecutive frames, the edit close up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from curation.ops.masks import bounds
from shards.frames import evenly_spaced

WHOLE, MOTION, CLOSE = "whole", "motion", "close"  # the views of a pair, see `look`
LEAST = 8  # frames of the whole video, where it has so many
RUNS = (0.0, 0.5, 1.0)  # places of the runs in the video: its start, its middle, its end
ENLARGED = 3.0  # times at most that a close-up is enlarged
AROUND = 1.6  # times the size of the edit that a close-up shows


@dataclass(frozen=True)
class ShownFrames:
    """Numbers of the frames that are shown of a video of `fps` frames a second.

    Attributes:
        whole: evenly over all of it, the first and the last among them.
        runs: consecutive ones, as they follow each other at the video's own rate; none where `whole` is all.
    """

    fps: float
    whole: tuple[int, ...]
    runs: tuple[tuple[int, ...], ...]

    def seconds(self, frames: Sequence[int]) -> list[float]:
        """When these frames are shown, in seconds from the video's start."""
        return [frame / self.fps for frame in frames]


def shown_frames(
    count: int, fps: float, rate: float, most: int, run: int, suspect: int | None = None
) -> ShownFrames:
    """The frames of a video of `count` frames that are shown.

    Args:
        count, fps: of the video.
        rate: frames a second of its whole, but at least `LEAST` and at most `most` frames; a video of up to
            2 * `LEAST` frames is shown entire.
        run: frames of each run.
        suspect: a frame around which a run is shown besides those at `RUNS`.
    """
    wanted = math.ceil((count - 1) / fps * rate) + 1
    number = min(count, most, count if count <= 2 * LEAST else max(LEAST, wanted))
    whole = tuple(map(int, np.unique(evenly_spaced(count, number))))
    if len(whole) == count:
        return ShownFrames(fps, whole, ())
    if count <= run:
        return ShownFrames(fps, whole, (tuple(range(count)),))
    starts = [round(place * (count - run)) for place in RUNS]
    runs = [tuple(range(start, start + run)) for start in starts]
    if suspect is not None and not any(suspect in seen and suspect - 1 in seen for seen in runs):
        start = min(max(0, suspect - run // 2), count - run)
        runs.append(tuple(range(start, start + run)))
    return ShownFrames(fps, whole, tuple(sorted(set(runs))))


def most_suspect(source: np.ndarray, target: np.ndarray) -> int | None:
    """The frame at which the edited video changes most, beyond what the original changes there.

    Means of 32x32 cells are compared, so that a small place that flickers counts like the whole picture.

    Args:
        source, target: uint8 [T, H, W, 3].

    Returns:
        Its number, from 1 on; None for a single frame.
    """
    if len(target) < 2:
        return None
    cells = [
        np.stack([cv2.resize(f, (32, 32), interpolation=cv2.INTER_AREA) for f in video]).astype(np.int16)
        for video in (source, target)
    ]
    before, after = (np.abs(np.diff(cell, axis=0)) for cell in cells)
    return int((after - before).max((1, 2, 3)).argmax()) + 1


def close_up(video: np.ndarray, mask: np.ndarray, frames: Sequence[int], steady: bool) -> np.ndarray:
    """The place of the edit in some frames of a video, all of one size, enlarged up to `ENLARGED` times.

    Args:
        video: uint8 [T, H, W, 3]; mask: bool [T, H, W], where the edit is.
        frames: numbers of those that are wanted.
        steady: the view stands still, so that nothing moves by it; otherwise it follows the edit.

    Returns:
        uint8 [len(frames), h, w, 3]; whole frames where the mask is empty in all of them.
    """
    found = {n: box for n, t in enumerate(frames) if (box := bounds(mask[t])) is not None}
    if not found:
        return video[list(frames)]
    boxes = np.stack([*found.values()]).astype(float)
    if steady:
        boxes = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])[None]
    limits = np.array([video.shape[2], video.shape[1]])
    sizes = np.minimum((boxes[:, 2:] - boxes[:, :2]).max(0) * AROUND + 28, limits).astype(int)
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2
    shown = []
    for n, t in enumerate(frames):
        centre = [np.interp(n, [*found], axis) for axis in centres.T] if not steady else centres[0]
        left, top = np.clip(np.round(centre - sizes / 2), 0, limits - sizes).astype(int)
        shown.append(video[t, top : top + sizes[1], left : left + sizes[0]])
    scale = min(ENLARGED, math.sqrt(limits.prod() / sizes.prod()))
    size = (round(sizes[0] * scale), round(sizes[1] * scale))
    return np.stack([cv2.resize(one, size, interpolation=cv2.INTER_CUBIC) for one in shown])


def look(
    shown: ShownFrames, source: np.ndarray, target: np.ndarray, mask: np.ndarray | None, views: str
) -> tuple[list[np.ndarray], list[list[float]], str]:
    """The videos that a question shows, the seconds of their frames, and what it says of them.

    Args:
        shown: the frames' numbers.
        source, target: uint8 [T, H, W, 3].
        mask: bool [T, H, W], where the edit is; without one nothing is shown close up.
        views: `WHOLE`, `MOTION` (runs of consecutive frames besides) or `CLOSE` (the edit close up besides).
    """
    whole, pair = list(shown.whole), (source, target)
    media, seconds = [video[whole] for video in pair], shown.seconds(whole)
    times = [seconds, seconds]
    words = (
        f"Video 1 is the whole original and Video 2 the whole edited video: the same {len(whole)} frames of "
        f"each, evenly over all {len(target)}, at {', '.join(f'{t:.2f}' for t in seconds)} s."
    )
    if views == CLOSE and mask is not None:
        media += [close_up(video, mask, whole, steady=False) for video in pair]
        times += [seconds, seconds]
        words += " Videos 3 and 4 show the place of the edit close up, original and edited, in these frames."
    if views == MOTION and shown.runs:
        said = []
        for frames in shown.runs:
            seconds, first = shown.seconds(frames), len(media) + 1
            media += [
                video[list(frames)] if mask is None else close_up(video, mask, frames, steady=True)
                for video in pair
            ]
            times += [seconds, seconds]
            said.append(f"{first} and {first + 1} from {seconds[0]:.2f} to {seconds[-1]:.2f} s")
        where = "" if mask is None else " at the place of the edit"
        words += (
            f" The others are runs of consecutive frames{where}, at the video's own {shown.fps:.4g} frames a "
            f"second, original and edited: Videos {'; '.join(said)}."
        )
    return media, times, words
