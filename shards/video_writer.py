"""Frames into video files whose bytes depend on the pixels alone; `shards.media` reads them.

Its functions are had from `shards.media` too, beside those that read.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import Interpolation

from shards.errors import MediaError
from shards.files import atomic_path

_BT601 = {"color_primaries": 6, "color_trc": 6, "colorspace": 6}  # SMPTE 170M, what swscale converts with
# swscale's default rounds down: one grey level darker on every read
ACCURATE = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
SCALER = Interpolation.BICUBIC | ACCURATE


def write_video(
    path: str | Path,
    frames: np.ndarray | Iterable[np.ndarray],
    fps: float,
    crf: int = 18,
    preset: str = "veryfast",
    key_every: int | None = None,
    exact: bool = True,
) -> None:
    """Write uint8 RGB frames [T, H, W, 3] as H.264 yuv420p mp4 that browsers play; even sides only.

    The bytes depend on the pixels alone: one thread and x264's C code, because its assembly was seen to vary
    from run to run; where that does not matter, `exact=False` uses it, at about five times the speed.
    `preset` is x264's: "ultrafast" takes 40 % of the time and twice the bytes. `key_every` is the most
    frames from one key frame to the next; x264's 250 when None. Atomic.
    """
    code = "no-asm=1:" if exact else ""
    options = {"crf": str(crf), "preset": preset, "x264-params": f"{code}threads=1:lookahead-threads=1"}
    if key_every is not None:
        options["g"] = str(key_every)
    _write(path, frames, fps, "libx264", "yuv420p", options)


def write_lossless(path: str | Path, frames: np.ndarray | Iterable[np.ndarray], fps: float) -> None:
    """Write uint8 RGB frames [T, H, W, 3] as FFV1 in Matroska (.mkv), to the bit. Browsers do not play it.

    For results that are to be scored: at small sizes H.264's halved chroma alone costs 20 dB. Atomic.
    """
    _write(path, frames, fps, "ffv1", "bgr0", {"level": "3", "slices": "4", "slicecrc": "1"})


def write_clip(path: str | Path, frames: np.ndarray | Iterable[np.ndarray], fps: float) -> None:
    """Write uint8 RGB frames [T, H, W, 3] as lossless H.264 (x264 in RGB, .mkv), to the bit. Atomic.

    For clips on their way through curation: read in a third of FFV1's time, at about its size. A key frame
    every 30 frames, no B-frames. The bytes of the file may vary from run to run, its frames do not.
    """
    options = {"qp": "0", "preset": "ultrafast", "g": "30", "bf": "0"}
    _write(path, frames, fps, "libx264rgb", "rgb24", options)


def write_mask(path: str | Path, masks: np.ndarray, fps: float) -> None:
    """Write masks [T, H, W], bool or uint8 (non-zero is inside), losslessly as FFV1 in Matroska. Atomic."""
    with open_mask_file(path, fps) as write:
        for mask in masks:
            write(np.where(mask > 0, np.uint8(255), np.uint8(0)))


@contextlib.contextmanager
def open_mask_file(path: str | Path, fps: float) -> Iterator[Callable[[np.ndarray], None]]:
    """A file of soft masks, and the function that writes the next one, uint8 [H, W] from 0 to 255.

    Lossless, as those of `write_mask`, which `read_mask` takes as inside from 128 on. The file appears whole
    when the block ends, and not at all where it ends with an error or nothing was written (MediaError).
    """
    with _open_file(path, fps, "ffv1", "gray", {"level": "3", "slices": "4", "slicecrc": "1"}) as write:
        yield write


def even_sides(picture: np.ndarray) -> np.ndarray:
    """A picture [H, W, 3] with even sides, as 4:2:0 has: an odd one repeats its last row or column."""
    height, width = picture.shape[:2]
    if not height % 2 and not width % 2:
        return picture
    return np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


class Yuv420:
    """Turns uint8 RGB [H, W, 3], even sides, into yuv420p as decoders read it: a pixel's chroma on its left.

    A filter graph of FFmpeg's, since `VideoFrame.reformat` puts chroma in the middle between two pixels:
    decoders take H.264 without a tag, and players, to have it on the left, so that colours moved by half a
    pixel with each file (and a steady slope of colour changed by half its step).

    Args:
        height, width: of the frames.
        matrix: FFmpeg's name of the matrix that players are told, such as bt601 or bt709. Levels go from 16
            to 235.
    """

    def __init__(self, height: int, width: int, matrix: str = "bt601") -> None:
        self.graph = Graph()
        source = self.graph.add_buffer(
            width=width, height=height, format=av.VideoFormat("rgb24"), time_base=Fraction(1)
        )
        scale = self.graph.add(
            "scale",
            f"out_color_matrix={matrix}:out_range=tv:out_chroma_loc=left:"
            "flags=bicubic+accurate_rnd+full_chroma_int+bitexact:threads=1",
        )
        end = self.graph.add("buffersink")
        self.graph.link_nodes(source, scale, self.graph.add("format", "yuv420p"), end).configure()

    def __call__(self, picture: np.ndarray) -> av.VideoFrame:
        """One frame; its time is the caller's to set."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = 0
        self.graph.push(frame)
        made = self.graph.pull()
        assert isinstance(made, av.VideoFrame)
        return made


def _write(
    path: str | Path,
    frames: np.ndarray | Iterable[np.ndarray],
    fps: float,
    codec: str,
    pix_fmt: str,
    options: dict[str, str],
) -> None:
    with _open_file(path, fps, codec, pix_fmt, options) as write:
        for picture in frames:
            write(picture)


@contextlib.contextmanager
def _open_file(
    path: str | Path, fps: float, codec: str, pix_fmt: str, options: dict[str, str]
) -> Iterator[Callable[[np.ndarray], None]]:
    """What adds a picture to a file, which appears whole when the block ends without an error."""
    if not fps > 0 or not math.isfinite(fps):
        raise MediaError(f"{path}: frame rate {fps} is not positive")
    muxing = {"fflags": "+bitexact"} | ({"movflags": "+faststart"} if Path(path).suffix == ".mp4" else {})
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(atomic_path(path))
        container: Any = None
        stream: Any = None
        subsample: Yuv420 | None = None
        rate, index = Fraction(fps).limit_denominator(1001), 0

        def begin(height: int, width: int) -> None:
            """Open the file for pictures of this size."""
            nonlocal container, stream, subsample
            if pix_fmt == "yuv420p" and (height % 2 or width % 2):
                raise MediaError(f"{path}: H.264 in yuv420p needs even sides, not {width}x{height}")
            container = stack.enter_context(av.open(f"file:{temporary}", "w", options=muxing))
            stream = container.add_stream(codec, rate=rate, options=options)
            context = stream.codec_context
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            context.thread_count = 1
            context.flags |= 1 << 23  # AV_CODEC_FLAG_BITEXACT: no encoder version in the stream
            if pix_fmt == "yuv420p":
                context.color_range = 1  # limited
                for field, value in _BT601.items():
                    setattr(context, field, value)
                subsample = Yuv420(height, width)

        def write(picture: np.ndarray) -> None:
            """Add a picture."""
            nonlocal index
            if container is None:
                begin(*picture.shape[:2])
            if picture.dtype != np.uint8 or picture.shape[:2] != (stream.height, stream.width):
                size = f"{stream.height}x{stream.width}"
                raise MediaError(
                    f"{path}: frame {index} is {picture.dtype} {picture.shape}, not uint8 {size}"
                )
            if subsample is not None:
                frame = subsample(picture)
            else:
                source_format = "gray" if picture.ndim == 2 else "rgb24"
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=source_format)
                if pix_fmt != source_format:
                    frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
            index += 1

        yield write
        if container is None:
            raise MediaError(f"{path}: no frames to write")
        container.mux(stream.encode(None))
