"""From video files to clips, each a file of its own with everything mended, and the frames of one clip.

A source is decoded twice from end to end and never again: once to learn its times, its scenes and what is odd
about it, once to write its clips. Memory does not grow with its length. A damaged file is known before any
work is spent on it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curation.sources.normalize import Conversion, render
from curation.sources.scenes import MAX_CLIP_BYTES, Cut, disjoint, fit_box, largest_fit, split_scene
from curation.sources.survey import Survey, pictures, survey
from curation.sources.timeline import Segment
from shards import hashing
from shards.files import sha256_of
from shards.media import MediaError, name_of, open_video
from shards.processes import no_terminal_input
from shards.video_writer import write_clip

with no_terminal_input():  # this package starts ffmpeg, which touches its terminal's settings
    from scenedetect.detectors import ContentDetector

__all__ = ["VIDEO_SUFFIXES", "Clip", "Cut", "cut", "fit_box", "load_frames", "split_scene"]

VIDEO_SUFFIXES = {".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts"}


@dataclass(frozen=True)
class Clip:
    """A run of frames of one scene, in a video file of its own.

    Attributes:
        source: path or URL of the video it was cut from.
        sha256: of that file.
        name: of that file, printable.
        start, stop: frames of the source's constant-rate version, `stop` exclusive.
        time: seconds of the source at which it begins.
        file: its own video file, a name in the workspace; "" for units that are no clips of files.
        path: where `file` lies on this machine; set just before a stage runs, never stored.
        mended: what was mended, in words.
    """

    source: str
    sha256: str
    name: str
    start: int
    stop: int
    fps: float
    height: int
    width: int
    split: str
    time: float = 0.0
    file: str = ""
    path: str = ""
    mended: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "mended", tuple(self.mended))  # a list where it comes out of JSON

    @property
    def key(self) -> str:
        """Hexadecimal sha256 of what the clip shows; where its files lie is not part of it."""
        told = ("source", "name", "time", "file", "path", "mended")
        return hashing.digest({k: v for k, v in asdict(self).items() if k not in told}, "spaced")

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.stop - self.start


@dataclass(frozen=True)
class _Scenes:
    """What the first pass found: when frames are shown and what is odd about them, and where scenes begin."""

    survey: Survey
    cuts: tuple[int, ...]  # source frames with which a scene begins
    size: tuple[int, int]


def cut(path: Path, settings: Cut, folder: Path) -> list[Clip]:
    """Cut one file into clips, each written into `folder`; `Clip.file` is the bare name there.

    Scenes end at cuts of the picture and at time gaps. Raises MediaError when the file does not decode or is
    too short.
    """
    name = name_of(path)
    scenes = _survey(path, settings, name)
    timeline, size = scenes.survey.timeline, scenes.size
    if timeline.frames < settings.min_frames:
        raise MediaError(f"{name}: {timeline.frames} frame(s), a clip needs at least {settings.min_frames}")
    most = MAX_CLIP_BYTES // (size[0] * size[1] * 3)
    digest, clips = sha256_of(path), list[Clip]()
    shown: list[np.ndarray] = []
    for segment in timeline.segments:
        parts = _scenes(segment, scenes.cuts)
        spans = [span for a, b in parts for span in split_scene(a, b, timeline.fps, settings, most)]
        for start, stop, split in disjoint(spans, segment.shown, segment.start, settings):  # type: ignore[arg-type]
            time = segment.time + (start - segment.start) / timeline.fps
            clip = Clip(
                *(str(path), digest, printable(path.name), start, stop, timeline.fps, *size, split),
                time=round(time, 6),
                file=f"{len(clips):05d}.mkv",
                mended=scenes.survey.mended,
            )
            clips.append(clip)
            shown.append(segment.shown[start - segment.start : stop - segment.start])
    if not clips:
        raise MediaError(f"{name}: no scene is {settings.min_frames} frames long")
    _write_clips(path, scenes, clips, shown, folder)
    return clips


def printable(name: str) -> str:
    """A file's name for people and for samples: what is no UTF-8, or moves a cursor, as escapes."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _scenes(segment: Segment, cuts: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """The scenes of a segment, as numbers of the constant-rate version."""
    edges = (segment.start + np.searchsorted(segment.shown, cuts)).tolist()
    yield from itertools.pairwise(sorted({segment.start, *edges, segment.stop}))


def _survey(path: Path, settings: Cut, name: str) -> _Scenes:
    """The first pass."""
    detector = ContentDetector(threshold=settings.scene_threshold, min_scene_len=1)
    cuts: list[int] = []
    sizes: list[tuple[int, int]] = []  # of the clips, once it is known

    def look(number: int, frame: Any, conversion: Conversion) -> None:
        if not sizes:
            sizes.append(largest_fit(*conversion.displayed_size(), settings))
        small = (max(2, sizes[0][0] // 4), max(2, sizes[0][1] // 4))
        picture = render(frame, conversion, small, name)
        cuts.extend(detector.process_frame(number, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)))

    found = survey(path, settings.rate, look)
    return _Scenes(found, tuple(cuts), sizes[0])


def _write_clips(
    path: Path, scenes: _Scenes, clips: list[Clip], shown: list[np.ndarray], folder: Path
) -> None:
    """The second pass: the pictures of every clip into its file, one after the other."""
    wanted = np.unique(np.concatenate(shown))

    def of_clip(numbers: np.ndarray) -> Iterator[np.ndarray]:
        """Each picture as often as it is shown."""
        number, picture = -1, np.empty(0)
        for each in numbers:
            while number < each:
                number, picture = next(source)
            yield picture

    with contextlib.closing(pictures(path, scenes.survey, wanted, scenes.size)) as source:
        for clip, numbers in zip(clips, shown, strict=True):
            write_clip(folder / clip.file, of_clip(numbers), clip.fps)


@functools.lru_cache(maxsize=1)  # the stages of one clip run one after the other in one process
def load_frames(clip: Clip) -> np.ndarray:
    """The clip's frames out of its own file, uint8 RGB [T, height, width, 3]."""
    if not clip.path:
        raise MediaError(f"{clip.name}: the clip has no file of its own")
    load_frames.cache_clear()  # before memory is taken for this one
    frames = np.empty((clip.frames, clip.height, clip.width, 3), np.uint8)
    count = 0
    with open_video(clip.path) as (container, stream):
        for frame in container.decode(stream):
            picture = frame.reformat(format="rgb24", threads=1).to_ndarray()
            if count == clip.frames or picture.shape != frames.shape[1:]:
                raise MediaError(f"{clip.path}: frame {count} is not one of the clip; remove the file")
            frames[count] = picture
            count += 1
    if count != clip.frames:
        raise MediaError(f"{clip.path}: {count} frames where {clip.frames} were written; remove the file")
    return frames
