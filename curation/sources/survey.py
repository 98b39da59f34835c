"""A video decoded from end to end: first to learn its times and what is odd about it, then for its pictures.

Memory does not grow with the length of the video, but for the times of its frames.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from curation.sources.normalize import Conversion, InterlaceDetector, deinterlace, render
from curation.sources.timeline import RateRule, Timeline, build_timeline
from shards.limits import MAX_FRAMES
from shards.media import MediaError, Size, Source, check_size, name_of, open_video

# Of these every packet of a picture gives a frame, so that frames that do not come are damage.
_ONE_FRAME_A_PACKET = {"h264", "hevc", "av1", "vp9", "ffv1", "mjpeg", "prores", "msmpeg4v2", "msmpeg4v3"}


@dataclass(frozen=True)
class Survey:
    """What the first pass finds.

    Attributes:
        conversion: how decoded frames become pictures.
        deinterlacing: options of bwdif; none where nothing is interlaced.
        timeline: which frames are shown at which moment of the constant-rate version.
        mended: what the two mend, in words.
    """

    conversion: Conversion
    deinterlacing: dict[str, str]
    timeline: Timeline
    mended: tuple[str, ...]


def survey(
    source: Source, rule: RateRule, look: Callable[[int, Any, Conversion], None] | None = None
) -> Survey:
    """The first pass over a video.

    Args:
        rule: the rate that it is brought to.
        look: called with the number of each decoded frame, the frame and its conversion.

    Raises:
        MediaError: it does not decode, is damaged or truncated, holds no frames, or is beyond a limit.
    """
    name = name_of(source)
    ticks: list[int | None] = []
    conversion = None
    with open_video(source) as (container, stream):
        interlace = InterlaceDetector(int(stream.codec_context.field_order))
        decoder = Decoder(container, stream, name)
        for frame in decoder:
            ticks.append(frame.pts)
            if len(ticks) > MAX_FRAMES:
                raise MediaError(f"{name}: more than {MAX_FRAMES} frames; cut it into shorter videos")
            if conversion is None:
                conversion = Conversion.of(frame, stream.sample_aspect_ratio, name)
                check_size(*conversion.displayed_size(), name)
            if look is not None:
                look(len(ticks) - 1, frame, conversion)
            interlace.look(frame)
        if conversion is None:
            raise MediaError(f"{name}: holds no video frames that decode")
        rates = [float(r or 0) for r in (stream.average_rate, stream.guessed_rate, stream.base_rate)]
        unit = float(stream.time_base or 0)
        timeline = build_timeline(ticks, unit, rates, rule, name)
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
        return Survey(conversion, interlace.filter_options(), timeline, tuple(words))


def pictures(
    source: Source, found: Survey, wanted: np.ndarray, size: Size
) -> Generator[tuple[int, np.ndarray]]:
    """The second pass: the numbers and pictures, uint8 RGB [H, W, 3] of `size`, of some decoded frames.

    Args:
        wanted: numbers of decoded frames, ascending.

    Raises:
        MediaError: fewer frames decode than in the first pass.
    """
    name = name_of(source)
    shown = np.zeros(int(wanted[-1]) + 1, bool)
    shown[wanted] = True
    number = -1
    with open_video(source) as (container, stream):
        frames = deinterlace(Decoder(container, stream, name), found.deinterlacing)
        for number, frame in enumerate(frames):
            if number >= len(shown):
                return
            if shown[number]:
                yield number, render(frame, found.conversion, size, name)
    if number + 1 < len(shown):
        raise MediaError(f"{name}: fewer frames decode than at the first time; did it change?")


class Decoder:
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
