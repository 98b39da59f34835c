"""An edit as a video file that is like its source but for its pictures."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from model.output.colors import Colors
from model.output.sound import Sound
from shards.errors import MediaError
from shards.files import atomic_path
from shards.media import Source, name_of, open_video, probe
from shards.video_writer import even_sides

CRF = "14"  # of x264: at 18, flat colours move by up to half a level
SAME_RATE = 1e-3  # rates that differ by less are one rate, written as the source's fraction


@dataclass(frozen=True)
class Origin:
    """The stretch of a video file that an edit was made of.

    Attributes:
        file: path or bytes.
        start: its first frame there.
    """

    file: Source
    start: int = 0


def write_like(path: str | Path, frames: Iterable[np.ndarray], fps: float, origin: Origin) -> str:
    """Write uint8 RGB frames [T, H, W, 3] as H.264 mp4 with what else its source has. Atomic.

    Kept are the rate as a fraction, sound (its packets, where an mp4 can hold them; cut to the frames, or to
    its own end where the source's last frame is among them), colour tags and range, the pixels' shape, and
    title, artist, date and comment. Rotation is in the frames, as they are read upright; a variable rate
    becomes the constant one that frames are read at. Subtitles and other data are left out. Ten bits and
    4:4:4 become eight and 4:2:0, which browsers play; x264 is as quick as it can be, so bytes may differ
    between machines. Odd sides gain a row or column, repeated from the last.

    Args:
        path: ends in .mp4.
        frames: at least one; they are taken one at a time, so that a generator keeps memory constant.
        fps: of the frames. Where it is not the source's, they last longer or shorter than its sound, which is
            then left out.
        origin: what they were made of.

    Returns:
        What became of the source's sound, in words such as `sound: aac copied`.

    Raises:
        MediaError: no frames, a rate that is not positive, or a source that cannot be read any more.
    """
    if not fps > 0 or not math.isfinite(fps):
        raise MediaError(f"{path}: frame rate {fps} is not positive")
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise MediaError(f"{path}: no frames to write")
    info = probe(origin.file)
    with open_video(origin.file) as (container, stream):
        shown = next(iter(container.decode(stream)))
        rate = _exact_rate(stream, fps)
        zero = shown.pts * shown.time_base if shown.pts is not None else Fraction(0)
        turned = round((shown.rotation or 0) / 90) % 2
        shape = stream.sample_aspect_ratio or Fraction(1)
    same_rate = abs(fps / info.fps - 1) < SAME_RATE
    height, width = (side + side % 2 for side in first.shape[:2])
    colors = Colors.of(shown, (height, width))
    with (
        open_video(origin.file) as (source, _),
        atomic_path(path) as temporary,
        av.open(f"file:{temporary}", "w", format="mp4", options={"movflags": "+faststart"}) as result,
    ):
        tags = ("title", "artist", "date", "comment")
        result.metadata.update({k: source.metadata[k] for k in tags if k in source.metadata})
        video: Any = result.add_stream("libx264", rate=rate, options={"crf": CRF, "preset": "veryfast"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        if (info.height, info.width) == first.shape[:2] and shape > 0:
            video.sample_aspect_ratio = 1 / shape if turned else shape
        colors.tag(video.codec_context)
        sound = _Interleaved(source, result, zero, rate, info.frames, origin.start) if same_rate else None
        count, convert = 0, colors.converter((height, width))
        for count, picture in enumerate(itertools.chain([first], frames), 1):
            if picture.dtype != np.uint8 or picture.shape != first.shape:
                raise MediaError(
                    f"{path}: frame {count - 1} is {picture.dtype} {picture.shape}, not uint8 {first.shape}"
                )
            frame = convert(even_sides(picture))
            frame.pts, frame.time_base = count - 1, 1 / rate
            if sound is not None:
                sound.until(count / float(rate))
            result.mux(video.encode(frame))
        if sound is not None:
            sound.finish(count)
        result.mux(video.encode(None))
    if sound is None:
        return f"sound left out: {name_of(origin.file)} has another frame rate than the result"
    return sound.sound.note


class _Interleaved:
    """Sound that is muxed as the pictures are, so that neither waits for the other in memory."""

    def __init__(
        self, source: Any, result: Any, zero: Fraction, rate: Fraction, frames: int, start: int
    ) -> None:
        self.result, self.rate, self.start, self.total = result, rate, start, frames
        self.sound = Sound(source, result, zero + start / rate)
        self.packets = self.sound.packets()
        self.held: tuple[int, float, list[Any]] | None = None  # read, but for later

    def until(self, time: float) -> None:
        """Mux what is for times before this one, in seconds of the result."""
        while (packet := self.held or next(self.packets, None)) is not None:
            self.held = packet
            if packet[1] >= time:
                return
            self.result.mux(packet[2])
            self.held = None

    def finish(self, count: int) -> None:
        """Mux the rest: until the last frame's end, or the sound's own where that is the source's last."""
        whole = self.start + count >= self.total
        end = math.inf if whole else count / float(self.rate)
        # Tracks that have reached the end; packets of others may come later in the file.
        over: set[int] = set()
        while len(over) < len(self.sound.tracks):
            packet, self.held = self.held or next(self.packets, None), None
            if packet is None:
                break
            if packet[1] < end:
                self.result.mux(packet[2])
            else:
                over.add(packet[0])
        self.result.mux(self.sound.close())


def _exact_rate(stream: Any, fps: float) -> Fraction:
    """The file's own fraction where it is this rate, such as 30000/1001."""
    own = stream.average_rate or stream.guessed_rate
    if own and abs(float(own) / fps - 1) < SAME_RATE:
        return Fraction(own)
    return Fraction(fps).limit_denominator(1001)
