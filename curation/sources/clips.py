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
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from curation.sources.normalize import Conversion, InterlaceDetector, deinterlace, render
from curation.sources.scenes import MAX_CLIP_BYTES, Cut, disjoint, fit_box, largest_fit, split_scene
from curation.sources.timeline import Segment, Timeline, build_timeline
from shards import hashing
from shards.files import sha256_of
from shards.limits import MAX_FRAMES
from shards.media import MediaError, check_size, name_of, open_video
from shards.processes import no_terminal_input
from shards.video_writer import write_clip

with no_terminal_input():  # this package starts ffmpeg, which touches its terminal's settings
    from scenedetect.detectors import ContentDetector

__all__ = ["VIDEO_SUFFIXES", "Clip", "Cut", "cut", "fit_box", "load_frames", "split_scene"]

VIDEO_SUFFIXES = {".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts"}

# Of these every packet of a picture gives a frame, so that frames that do not come are damage.
_ONE_FRAME_A_PACKET = {"h264", "hevc", "av1", "vp9", "ffv1", "mjpeg", "prores", "msmpeg4v2", "msmpeg4v3"}


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
class _Survey:
    """What the first pass found: how frames become pictures, when they are shown, where scenes begin."""

    conversion: Conversion
    deinterlacing: dict[str, str]
    timeline: Timeline
    cuts: tuple[int, ...]  # source frames with which a scene begins
    size: tuple[int, int]
    mended: tuple[str, ...]


def cut(path: Path, settings: Cut, folder: Path) -> list[Clip]:
    """Cut one file into clips, each written into `folder`; `Clip.file` is the bare name there.

    Scenes end at cuts of the picture and at time gaps. Raises MediaError when the file does not decode or is
    too short.
    """
    name = name_of(path)
    survey = _survey(path, settings, name)
    timeline, size = survey.timeline, survey.size
    if timeline.frames < settings.min_frames:
        raise MediaError(f"{name}: {timeline.frames} frame(s), a clip needs at least {settings.min_frames}")
    most = MAX_CLIP_BYTES // (size[0] * size[1] * 3)
    digest, clips = sha256_of(path), list[Clip]()
    shown: list[np.ndarray] = []
    for segment in timeline.segments:
        scenes = _scenes(segment, survey.cuts)
        spans = [span for a, b in scenes for span in split_scene(a, b, timeline.fps, settings, most)]
        for start, stop, split in disjoint(spans, segment.shown, segment.start, settings):  # type: ignore[arg-type]
            time = segment.time + (start - segment.start) / timeline.fps
            clip = Clip(
                *(str(path), digest, printable(path.name), start, stop, timeline.fps, *size, split),
                time=round(time, 6),
                file=f"{len(clips):05d}.mkv",
                mended=survey.mended,
            )
            clips.append(clip)
            shown.append(segment.shown[start - segment.start : stop - segment.start])
    if not clips:
        raise MediaError(f"{name}: no scene is {settings.min_frames} frames long")
    _write_clips(path, name, survey, clips, shown, folder)
    return clips


def printable(name: str) -> str:
    """A file's name for people and for samples: what is no UTF-8, or moves a cursor, as escapes."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _scenes(segment: Segment, cuts: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """The scenes of a segment, as numbers of the constant-rate version."""
    edges = (segment.start + np.searchsorted(segment.shown, cuts)).tolist()
    yield from itertools.pairwise(sorted({segment.start, *edges, segment.stop}))


def _survey(path: Path, settings: Cut, name: str) -> _Survey:
    """The first pass."""
    detector = ContentDetector(threshold=settings.scene_threshold, min_scene_len=1)
    ticks: list[int | None] = []
    cuts: list[int] = []
    conversion, size = None, (0, 0)
    with open_video(path) as (container, stream):
        interlace = InterlaceDetector(int(stream.codec_context.field_order))
        decoder = _Decoder(container, stream, name)
        for frame in decoder:
            ticks.append(frame.pts)
            if len(ticks) > MAX_FRAMES:
                raise MediaError(f"{name}: more than {MAX_FRAMES} frames; cut it into shorter videos")
            if conversion is None:
                conversion = Conversion.of(frame, stream.sample_aspect_ratio, name)
                displayed = conversion.displayed_size()
                check_size(*displayed, name)
                size = largest_fit(*displayed, settings)
                small = (max(2, size[0] // 4), max(2, size[1] // 4))
            picture = render(frame, conversion, small, name)
            cuts += detector.process_frame(len(ticks) - 1, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            interlace.look(frame)
        if conversion is None:
            raise MediaError(f"{name}: holds no video frames that decode")
        rates = [float(r or 0) for r in (stream.average_rate, stream.guessed_rate, stream.base_rate)]
        unit = float(stream.time_base or 0)
        timeline = build_timeline(ticks, unit, rates, settings.rate, name)
        words = list(conversion.words)
        if decoder.hidden:
            words.append(f"{decoder.hidden} frames outside of the edit list left out")
        if ticks[0] is not None and ticks[0] < 0:
            words.append(f"times moved by {-ticks[0] * unit:.6g} seconds to begin at 0")
        if interlace.filter_options():
            words.append("deinterlaced")
        words += timeline.mended
        if container.streams.audio:
            words.append("audio dropped")
        deinterlacing = interlace.filter_options()
    return _Survey(conversion, deinterlacing, timeline, tuple(cuts), size, tuple(words))


def _write_clips(
    path: Path, name: str, survey: _Survey, clips: list[Clip], shown: list[np.ndarray], folder: Path
) -> None:
    """The second pass: the pictures of every clip into its file, one after the other."""
    wanted = np.zeros(int(shown[-1][-1]) + 1, bool)
    for numbers in shown:
        wanted[numbers] = True

    def pictures() -> Generator[tuple[int, np.ndarray]]:
        with open_video(path) as (container, stream):
            frames = deinterlace(_Decoder(container, stream, name), survey.deinterlacing)
            for number, frame in enumerate(frames):
                if number >= len(wanted):
                    return
                if wanted[number]:
                    yield number, render(frame, survey.conversion, survey.size, name)
        raise MediaError(f"{name}: fewer frames decode than at the first time; did it change?")

    def of_clip(numbers: np.ndarray) -> Iterator[np.ndarray]:
        """Each picture as often as it is shown."""
        number, picture = -1, np.empty(0)
        for each in numbers:
            while number < each:
                number, picture = next(source)
            yield picture

    with contextlib.closing(pictures()) as source:
        for clip, numbers in zip(clips, shown, strict=True):
            write_clip(folder / clip.file, of_clip(numbers), clip.fps)


class _Decoder:
    """The frames of a stream that a player shows; raises MediaError where some are damaged or missing.

    `hidden` counts those that an edit list leaves out.
    """

    def __init__(self, container: Any, stream: Any, name: str) -> None:
        self.container, self.stream, self.name = container, stream, name
        self.hidden = 0

    def __iter__(self) -> Iterator[Any]:
        early: list[int] = []  # times of packets before the first frame
        begin: int | None = None
        expected = frames = 0
        strict = self.stream.codec_context.name in _ONE_FRAME_A_PACKET
        for packet in self.container.demux(self.stream):
            if packet.is_corrupt:
                raise MediaError(f"{self.name}: damaged or truncated at frame {frames}")
            self.hidden += packet.is_discard
            if packet.size and not packet.is_discard:
                if begin is None and packet.pts is not None:
                    early.append(packet.pts)
                else:
                    # What is shown before the first frame that decodes needs frames that are not there.
                    expected += packet.pts is None or begin is None or packet.pts >= begin
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise MediaError(f"{self.name}: damaged at frame {frames}")
                strict = strict and not frame.interlaced_frame  # two packets may be one frame's fields
                if not frames:
                    begin = frame.pts
                    expected += sum(begin is None or time >= begin for time in early)
                    early.clear()
                frames += 1
                yield frame
        expected += len(early)
        if strict and frames < expected:
            raise MediaError(f"{self.name}: truncated or damaged, {frames} of {expected} frames decode")


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
