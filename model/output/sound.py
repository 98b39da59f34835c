"""Sound tracks of a source on their way into a result: copied packet by packet, or encoded anew as AAC."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from av import AudioFifo, AudioResampler

# What an mp4 holds and players play; everything else (PCM, Vorbis, DTS, ...) is encoded anew.
COPIED = {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}
BIT_RATE = 192_000  # of two channels, for tracks that are encoded anew
_TAGS = ("language", "title", "handler_name")


class Sound:
    """The sound tracks of an opened source, moved to begin with a stretch of its video.

    Args:
        source: an opened file; it is read by `packets` alone.
        result: an opened file to write to, which gets a track for each one of the source.
        begin: time in the source, in seconds, where the result begins.
    """

    def __init__(self, source: Any, result: Any, begin: Fraction) -> None:
        self.source, self.begin = source, begin
        self.tracks: dict[int, Any] = {}  # all by number of the source's stream
        self.encoders: dict[int, _Encoder] = {}
        self.notes: list[str] = []
        for stream in source.streams.audio:
            name = stream.codec_context.codec.canonical_name  # a decoder may be called mp3float
            if name in COPIED:
                track = result.add_stream_from_template(stream)
                self.notes.append(f"{name} copied")
            else:
                track = result.add_stream("aac", rate=stream.rate, layout=stream.layout.name)
                track.bit_rate = BIT_RATE * max(1, stream.channels) // 2
                self.encoders[stream.index] = _Encoder(track)
                self.notes.append(f"{name} encoded as AAC")
            track.metadata.update({tag: stream.metadata[tag] for tag in _TAGS if tag in stream.metadata})
            self.tracks[stream.index] = track

    @property
    def note(self) -> str:
        """What became of the sound, in words."""
        return f"sound: {', '.join(self.notes)}" if self.notes else "no sound in the source"

    def packets(self) -> Iterator[tuple[int, float, list[Any]]]:
        """Packets to be muxed, with their track and the time in the result, in seconds, that they are for.

        The packet before the first one is copied too: decoders need it to begin, and its time before zero
        keeps it from being heard (the edit list of an mp4 leaves it out).
        """
        streams = list(self.source.streams.audio)
        before: dict[int, Any] = {}  # the last packet before the beginning, by stream
        for packet in self.source.demux(streams) if streams else ():
            index = packet.stream.index
            if packet.pts is None:  # the end of a stream, or one without times
                yield from self._move(packet)
            elif (packet.pts + (packet.duration or 0)) * packet.time_base <= self.begin:
                before[index] = packet
            else:
                for one in (before.pop(index, None), packet):
                    if one is not None:
                        yield from self._move(one)

    def close(self) -> list[Any]:
        """What encoders still hold, to be muxed last."""
        return [packet for encoder in self.encoders.values() for packet in encoder.close()]

    def _move(self, packet: Any) -> Iterator[tuple[int, float, list[Any]]]:
        """A packet, or the sound in it encoded anew, at its time in the result."""
        index = packet.stream.index
        if index in self.encoders:
            for frame in packet.decode():
                time = frame.pts * frame.time_base - self.begin
                if time + Fraction(frame.samples, frame.sample_rate) > 0:
                    yield index, float(time), self.encoders[index].encode(frame, time)
        elif packet.pts is not None:
            shift = round(self.begin / packet.time_base)
            packet.pts -= shift
            packet.dts = packet.pts if packet.dts is None else packet.dts - shift
            time = packet.pts * packet.time_base
            packet.stream = self.tracks[index]
            yield index, float(time), [packet]


class _Encoder:
    """Sound of any codec as AAC: its frames are cut to the encoder's length and counted in samples."""

    def __init__(self, track: Any) -> None:
        self.track, self.samples = track, AudioFifo()
        self.resampler = AudioResampler(format="fltp", layout=track.layout.name, rate=track.rate)
        self.next: int | None = None  # sample that the next frame begins with

    def encode(self, frame: Any, time: Fraction) -> list[Any]:
        """Packets for a frame that begins at this time, in seconds."""
        if self.next is None:
            self.next = round(time * self.track.rate)
        for one in self.resampler.resample(frame):
            one.pts = None  # the queue would compare it with what it holds
            self.samples.write(one)
        return self._read(self.track.codec_context.frame_size or 1024)

    def close(self) -> list[Any]:
        """The last packets."""
        rest = self._read(0) if self.samples.samples else []
        return rest + self.track.encode(None)

    def _read(self, size: int) -> list[Any]:
        packets: list[Any] = []
        while self.samples.samples and (frame := self.samples.read(size)) is not None:
            frame.pts, frame.time_base = self.next, Fraction(1, self.track.rate)
            self.next = (self.next or 0) + frame.samples
            packets += self.track.encode(frame)
        return packets
