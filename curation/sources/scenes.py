"""How a scene is divided into clips, the last of them held out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from curation.sources.clip_filter import ClipFilter
from curation.sources.timeline import RateRule
from shards.errors import SettingError
from shards.limits import MAX_FPS, in_range

MAX_CLIP_BYTES = 512 << 20  # of a clip's decoded frames, which a stage holds in memory

Span = tuple[int, int, str]  # first frame, stop, split


@dataclass(frozen=True)
class Cut:
    """Settings of the cut: frames fit into `box` (height, width), the last part of a scene is held out.

    A box serves both orientations: an upright source gets it turned. `boxes` and `lengths` sort clips into
    few sizes and lengths; `screen` says which are worth any work. Clips have the rate `fps`; where it is None
    that of their source, of which whole frames are dropped while it is above `max_fps`. A source below
    `min_fps` is refused.
    """

    box: tuple[int, int] = (360, 480)
    min_frames: int = 17
    max_seconds: float = 32.0
    heldout_fraction: float = 0.2
    scene_threshold: float = 27.0  # PySceneDetect's ContentDetector
    boxes: tuple[tuple[int, int], ...] = ()  # further boxes; a file goes into the one that keeps most of it
    lengths: tuple[int, ...] = ()  # frames that a clip may have; each is cut to the largest that it holds
    screen: ClipFilter = field(default_factory=ClipFilter)
    fps: float | None = None
    min_fps: float = 1.0
    max_fps: float = 60.0

    def __post_init__(self) -> None:
        in_range("cut.min_fps", self.min_fps, 0.01, MAX_FPS)
        in_range("cut.max_fps", self.max_fps, self.min_fps, MAX_FPS)
        if self.fps is not None:
            in_range("cut.fps", self.fps, self.min_fps, self.max_fps)
        for box in (self.box, *self.boxes):
            if box[0] * box[1] * 3 * self.min_frames > MAX_CLIP_BYTES:
                raise SettingError(
                    f"cut.box {list(box)}: {self.min_frames} frames of it are more than "
                    f"{MAX_CLIP_BYTES >> 20} MiB; choose a smaller box or fewer min_frames"
                )

    @property
    def rate(self) -> RateRule:
        """What the constant rate of a source is."""
        return RateRule(self.fps, self.min_fps, self.max_fps)


def fit_box(height: int, width: int, box: tuple[int, int]) -> tuple[int, int]:
    """Largest (height, width) within `box` that keeps the aspect ratio; never enlarges; sides are even.

    The box is turned for a source that is upright where it lies, and the other way round.
    """
    if (height - width) * (box[0] - box[1]) < 0:
        box = box[::-1]
    scale = min(1.0, box[0] / height, box[1] / width)
    return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(width * scale / 2))


def largest_fit(height: int, width: int, settings: Cut) -> tuple[int, int]:
    """The size in the box that keeps most of a source."""
    sizes = [fit_box(height, width, box) for box in (settings.box, *settings.boxes)]
    return max(sizes, key=lambda size: size[0] * size[1])


def split_scene(start: int, stop: int, fps: float, settings: Cut, most: int | None = None) -> list[Span]:
    """Spans (start, stop, split) of one scene; disjoint, in order, each at least `min_frames` long.

    Its last `heldout_fraction` is held out when both parts keep at least `min_frames`; both are cut into
    equal parts of at most `max_seconds`, and never of more than `most` frames.
    """
    held = math.floor((stop - start) * settings.heldout_fraction)
    if held < settings.min_frames or stop - start - held < settings.min_frames:
        held = 0
    if stop - held - start < settings.min_frames:
        return []
    longest = max(settings.min_frames, math.floor(settings.max_seconds * fps))
    longest = longest if most is None else min(longest, max(most, settings.min_frames))
    spans = _parts(start, stop - held, "train", longest, settings.min_frames, most)
    spans += _parts(stop - held, stop, "heldout", longest, settings.min_frames, most) if held else []
    return [s for s in (shortened(span, settings.lengths) for span in spans) if s]


def _parts(start: int, stop: int, split: str, longest: int, least: int, most: int | None) -> list[Span]:
    """Equal parts of `longest` frames at most, where that leaves them `least`."""
    count = stop - start
    parts = min(math.ceil(count / longest), count // least)
    edges = [start + round(count * i / parts) for i in range(parts + 1)]
    return [(a, min(b, a + most) if most else b, split) for a, b in itertools.pairwise(edges)]


def shortened(span: Span, lengths: tuple[int, ...]) -> Span | None:
    """The middle of a span, of the largest of `lengths` that it holds; None when it holds none."""
    if not lengths:
        return span
    start, stop, split = span
    length = max((n for n in lengths if n <= stop - start), default=0)
    first = start + (stop - start - length) // 2
    return (first, first + length, split) if length else None


def disjoint(spans: Sequence[Span], shown: Sequence[int], offset: int, settings: Cut) -> list[Span]:
    """The spans without first frames that show the same picture as the last of the span before.

    Where a pause lies across an edge, one source frame is shown on both sides of it. `shown` are the source
    frames of the numbers from `offset` on.
    """
    kept: list[Span] = []
    for start, stop, split in spans:
        first = start
        while kept and first < stop and shown[first - offset] == shown[kept[-1][1] - 1 - offset]:
            first += 1
        span = (first, stop, split) if first == start else shortened((first, stop, split), settings.lengths)
        if span and span[1] - span[0] >= settings.min_frames:
            kept.append(span)
    return kept
