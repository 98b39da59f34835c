"""The constant-rate version of a video: which of its frames is shown at which moment.

Times of frames are whatever a file says: jittered, with pauses, set back, or missing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shards.errors import MediaError
from shards.limits import MAX_FPS, MAX_FRAMES, MAX_SECONDS

MAX_PAUSE = 0.5  # seconds for which a frame may stay; a longer step in time, which is also one of
MAX_PAUSE_FRAMES = 3.5  # usual steps, is a gap
SAME_RATE = 0.05  # relative difference up to which a rate that the file names is that of its times
DIVIDES = 0.002  # relative difference up to which one rate is a whole multiple of another


@dataclass(frozen=True)
class Segment:
    """A stretch without a gap: frame `start` + k of the constant-rate version is source frame `shown[k]`.

    `time` is that of its first frame, in seconds after the first frame of the source.
    """

    start: int
    time: float
    shown: np.ndarray

    @property
    def stop(self) -> int:
        """The number after its last frame."""
        return self.start + len(self.shown)


@dataclass(frozen=True)
class Timeline:
    """The constant-rate version: its rate, its segments in order, and what was mended, in words."""

    fps: float
    segments: tuple[Segment, ...]
    mended: tuple[str, ...]

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return sum(len(segment.shown) for segment in self.segments)


@dataclass(frozen=True)
class RateRule:
    """The rate that a source is brought to: `fps`, or where None its own within `min_fps` and `max_fps`."""

    fps: float | None
    min_fps: float
    max_fps: float

    def target(self, rate: float, name: str) -> float:
        """The rate for a source of `rate`; MediaError for one that is too slow."""
        if rate < self.min_fps * (1 - DIVIDES):
            raise MediaError(f"{name}: {rate:.4g} frames per second; at least {self.min_fps:g} are used")
        if self.fps is not None:
            whole = max(1, round(rate / self.fps))
            return rate / whole if abs(rate / whole / self.fps - 1) <= DIVIDES else self.fps
        return rate / max(1, math.ceil(rate / self.max_fps - DIVIDES))


def build_timeline(
    ticks: Sequence[int | None], unit: float, rates: Sequence[float], rule: RateRule, name: str
) -> Timeline:
    """The constant-rate version of a source.

    Args:
        ticks: time of every frame in the order in which the frames are shown, in `unit` seconds.
        rates: frames per second as the file names them, the most trusted first; 0 for one that it does not.

    Raises:
        MediaError: no times and no rate, or times beyond the limits of `shards.limits`.
    """
    rates = [rate for rate in rates if 0 < rate <= MAX_FPS]
    times, cuts = _times(ticks, unit, rates, name)
    steps = np.diff(times)
    positive = steps[steps > 0]
    typical = float(np.median(positive)) if len(positive) else 1 / (rates[0] if rates else 1.0)
    cuts = cuts | (steps > max(MAX_PAUSE, MAX_PAUSE_FRAMES * typical))
    steady = steps[~cuts]
    varies = bool(len(steady)) and bool(np.abs(steady - typical).max() > max(2.5 * unit, 0.1 * typical))
    named = [rate for rate in rates if abs(rate * typical - 1) < SAME_RATE]
    if named:
        rate = named[0]
    else:
        rate = 1 / typical if varies or not len(steady) else 1 / float(steady.mean())
    if times[-1] > MAX_SECONDS or rate > MAX_FPS or times[-1] * rate >= MAX_FRAMES:
        raise MediaError(
            f"{name}: its time stamps ask for {times[-1]:.4g} seconds at {rate:.4g} frames per second; at "
            f"most {MAX_SECONDS:g} seconds, {MAX_FPS:g} frames per second and {MAX_FRAMES} frames are read"
        )
    fps = rule.target(rate, name)
    whole = max(1, round(rate / fps))
    dropped = whole if not varies and abs(rate / whole / fps - 1) <= 1e-9 else 0
    edges = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(times)]
    segments: list[Segment] = []
    for first, stop in itertools.pairwise(edges):
        start = round(float(times[first]) * fps)
        if segments:
            start = max(start, segments[-1].stop)
        shown = np.arange(first, stop, dropped) if dropped else first + _resampled(times[first:stop], fps)
        segments.append(Segment(start, float(times[first]), shown.astype(np.int32)))
    if segments[-1].stop > MAX_FRAMES:
        raise MediaError(f"{name}: more than {MAX_FRAMES} frames at {fps:.4g} frames per second")
    return Timeline(fps, tuple(segments), tuple(_words(rate, fps, varies, int(cuts.sum()))))


def _times(
    ticks: Sequence[int | None], unit: float, rates: Sequence[float], name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Times in seconds, never falling, the first 0; and behind which frames they were set back."""
    known = [tick for tick in ticks if tick is not None]
    steps = np.diff(np.asarray(known, dtype=np.float64)) * unit
    positive = steps[steps > 0]
    if len(known) < len(ticks) or unit <= 0 or 2 * len(positive) < len(steps):
        if not rates:
            raise MediaError(f"{name}: no timestamps and no frame rate from 0 to {MAX_FPS:g}")
        return np.arange(len(ticks)) / rates[0], np.zeros(max(0, len(ticks) - 1), bool)
    typical = float(np.median(positive)) if len(positive) else 0.0
    back = steps < -typical  # a clock that began anew; less is two frames at one moment
    steps = np.where(back, typical, np.maximum(steps, 0))
    return np.concatenate([[0.0], np.cumsum(steps)]), back


def _resampled(times: np.ndarray, fps: float) -> np.ndarray:
    """For every frame at a constant rate, the source's frame that is shown nearest in time and not later."""
    count = max(1, round(float(times[-1] - times[0]) * fps) + 1)
    moments = times[0] + (np.arange(count) + 0.5 - 1e-6) / fps
    return np.clip(np.searchsorted(times, moments, side="right") - 1, 0, len(times) - 1)


def _words(rate: float, fps: float, varies: bool, gaps: int) -> list[str]:
    words = []
    if varies:
        words.append(f"variable rate resampled to {fps:.6g} frames per second")
    elif abs(rate / fps - 1) > 1e-9:
        words.append(f"{rate:.6g} frames per second brought to {fps:.6g}")
    if gaps:
        words.append(f"cut at {gaps} time gap{'s' * (gaps > 1)}")
    return words
