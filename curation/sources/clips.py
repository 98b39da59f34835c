"""From video files to clips: probing, scene cuts, the held-out cut, and the frames of one clip.

Every file is decoded once from end to end here, so a damaged one is known before any work is spent on it.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np

from curation.sources.clip_filter import ClipFilter
from shards import hashing
from shards.files import sha256_of
from shards.media import MediaError, iter_frames, probe, read_video
from shards.processes import no_terminal_input

with no_terminal_input():  # this package starts ffmpeg, which touches its terminal's settings
    from scenedetect.detectors import ContentDetector

VIDEO_SUFFIXES = {".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts"}


@dataclass(frozen=True)
class Cut:
    """Settings of the cut: frames fit into `box` (height, width), the last part of a scene is held out.

    `boxes` and `lengths` sort clips into few sizes and lengths; `screen` says which are worth any work.
    """

    box: tuple[int, int] = (360, 480)
    min_frames: int = 17
    max_seconds: float = 32.0
    heldout_fraction: float = 0.2
    scene_threshold: float = 27.0  # PySceneDetect's ContentDetector
    boxes: tuple[tuple[int, int], ...] = ()  # further boxes; a file goes into the one that keeps most of it
    lengths: tuple[int, ...] = ()  # frames that a clip may have; each is cut to the largest that it holds
    screen: ClipFilter = field(default_factory=ClipFilter)


@dataclass(frozen=True)
class Clip:
    """A run of frames of one scene. `start` and `stop` (exclusive) count frames of the source file."""

    source: str
    sha256: str
    name: str
    start: int
    stop: int
    fps: float
    height: int
    width: int
    split: str

    @property
    def key(self) -> str:
        """Hexadecimal sha256 of what the clip shows; the source's path is not part of it."""
        shown = {k: v for k, v in asdict(self).items() if k not in ("source", "name")}
        return hashing.digest(shown, "spaced")

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.stop - self.start


def find_videos(folder: str | Path) -> list[Path]:
    """Files under `folder` whose suffix says video, sorted; raises MediaError when there is none."""
    folder = Path(folder)
    if not folder.exists():
        raise MediaError(f"{folder}: no such folder; give the folder that holds the clips")
    if folder.is_file():
        return [folder]
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
    if not found:
        known = " ".join(sorted(VIDEO_SUFFIXES))
        raise MediaError(f"{folder}: holds no video files ({known}); try: python -m curation clips fetch")
    return found


def fit_box(height: int, width: int, box: tuple[int, int]) -> tuple[int, int]:
    """Largest (height, width) within `box` that keeps the aspect ratio; never enlarges; sides are even."""
    scale = min(1.0, box[0] / height, box[1] / width)
    return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(width * scale / 2))


def cut(path: Path, settings: Cut) -> list[Clip]:
    """Cut one file into clips. Raises MediaError when it does not decode or is too short.

    Each scene gives its last `heldout_fraction` as a held-out clip of its own when both parts keep at least
    `min_frames`; the rest is cut into equal parts of at most `max_seconds`.
    """
    info = probe(path)
    sizes = [fit_box(info.height, info.width, box) for box in (settings.box, *settings.boxes)]
    size = max(sizes, key=lambda size: size[0] * size[1])
    detector = ContentDetector(threshold=settings.scene_threshold, min_scene_len=1)
    small = (max(2, size[0] // 4), max(2, size[1] // 4))
    cuts: list[int] = []
    count = 0
    for count, frame in enumerate(iter_frames(path, size=small), start=1):
        cuts += detector.process_frame(count - 1, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    if count < settings.min_frames:
        raise MediaError(f"{path}: {count} frame(s), a clip needs at least {settings.min_frames}")
    digest = sha256_of(path)
    spans = []
    for start, stop in zip([0, *cuts], [*cuts, count], strict=True):
        spans += split_scene(start, stop, info.fps, settings)
    if not spans:
        raise MediaError(f"{path}: no scene is {settings.min_frames} frames long")
    return [
        Clip(str(path), digest, path.name, start, stop, info.fps, *size, split)
        for start, stop, split in spans
    ]


def split_scene(start: int, stop: int, fps: float, settings: Cut) -> list[tuple[int, int, str]]:
    """Spans (start, stop, split) of one scene; disjoint, in order, each at least `min_frames` long."""
    held = math.floor((stop - start) * settings.heldout_fraction)
    if held < settings.min_frames or stop - start - held < settings.min_frames:
        held = 0
    train = stop - held - start
    if train < settings.min_frames:
        return []
    longest = max(settings.min_frames, math.floor(settings.max_seconds * fps))
    parts = min(math.ceil(train / longest), train // settings.min_frames)
    edges = [start + round(train * i / parts) for i in range(parts + 1)]
    spans = [(a, b, "train") for a, b in itertools.pairwise(edges)]
    spans += [(stop - held, stop, "heldout")] if held else []
    return [s for s in (_shortened(*span, settings.lengths) for span in spans) if s]


def _shortened(start: int, stop: int, split: str, lengths: tuple[int, ...]) -> tuple[int, int, str] | None:
    """The middle of a span, of the largest of `lengths` that it holds; None when it holds none."""
    if not lengths:
        return start, stop, split
    length = max((n for n in lengths if n <= stop - start), default=0)
    first = start + (stop - start - length) // 2
    return (first, first + length, split) if length else None


@functools.lru_cache(maxsize=1)  # the stages of one clip run one after the other in one process
def load_frames(clip: Clip) -> np.ndarray:
    """The clip's frames, uint8 RGB [T, height, width, 3]."""
    frames, _ = read_video(clip.source, clip.start, clip.stop, (clip.height, clip.width))
    if len(frames) != clip.frames:
        raise MediaError(f"{clip.source}: {len(frames)} frames where {clip.frames} were counted")
    return frames
