"""What is odd about the pictures of a source, and its frames as a person should see them.

Upright, with square pixels, in BT.709 colours of standard range, without fields: `Conversion.of` looks at the
first frame, `render` makes the picture.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from curation.sources.tone_mapping import DEFAULT_PEAK, WHITE, Transfer, to_sdr
from shards.media import SCALER, SHRINKER, MediaError, Size, matrix_of, resize

MOST_ASPECT = 8  # width to height of a pixel, or height to width
SQUARE = 0.005  # relative difference up to which a pixel is square
PROGRESSIVE = (0, 1)  # AVFieldOrder: unknown, progressive
TOP_FIRST = (2, 4)  # AVFieldOrder: by the order of display, top or bottom coded first

_TRANSFERS: dict[int, Transfer] = {ColorTrc.SMPTE2084: "pq", ColorTrc.ARIB_STD_B67: "hlg"}
_PRIMARIES = {
    ColorPrimaries.BT2020: "BT.2020",
    ColorPrimaries.SMPTE431: "P3",
    ColorPrimaries.SMPTE432: "P3",
}
_MATRICES = {1: "BT.709", 9: "BT.2020", 10: "BT.2020"}  # AVColorSpace
# What a turn does, by (rows and columns, left and right, top and bottom swapped), in this order.
_TURNS = {
    (True, True, False): "rotated clockwise by 90 degrees",
    (False, True, True): "rotated clockwise by 180 degrees",
    (True, False, True): "rotated clockwise by 270 degrees",
    (False, True, False): "mirrored",
    (False, False, True): "mirrored and rotated clockwise by 180 degrees",
    (True, False, False): "mirrored and rotated clockwise by 270 degrees",
    (True, True, True): "mirrored and rotated clockwise by 90 degrees",
}


@dataclass(frozen=True)
class Conversion:
    """How the frames of one source become pictures.

    Attributes:
        height, width: of a frame as it is decoded.
        turn: whether rows and columns are swapped, then left and right, then top and bottom.
        aspect: width of a pixel to its height.
        matrix: where no tag of the frames names it.
        transfer, primaries, peak: see `tone_mapping.to_sdr`.
        has_alpha: whether it is laid over black.
        words: what is mended, for people.
    """

    height: int
    width: int
    turn: tuple[bool, bool, bool]
    aspect: Fraction
    matrix: Colorspace | None
    transfer: Transfer
    primaries: str
    peak: float
    has_alpha: bool
    words: tuple[str, ...]

    @staticmethod
    def of(frame: Any, aspect: Fraction | None, name: str) -> Conversion:
        """The conversion for a source by its first frame and the pixel aspect that its stream names."""
        turn, ratio = _turn(frame), aspect or Fraction(1)
        if not 1 / MOST_ASPECT <= ratio <= MOST_ASPECT:
            raise MediaError(f"{name}: a pixel aspect of {ratio}; from 1/8 to 8 are read")
        ratio = Fraction(1) if abs(ratio - 1) <= SQUARE else ratio
        transfer = _TRANSFERS.get(frame.color_trc, "sdr")
        primaries = _PRIMARIES.get(frame.color_primaries, "" if transfer == "sdr" else "BT.2020")
        matrix, components = matrix_of(frame), frame.format.components
        has_alpha = frame.format.name == "pal8" or any(part.is_alpha for part in components)
        if has_alpha and (transfer != "sdr" or primaries):
            raise MediaError(f"{name}: transparent pictures of high dynamic range or wide gamut are not read")
        words = [_TURNS[turn]] if any(turn) else []
        if ratio != 1:
            words.append(f"pixel aspect {ratio.numerator}:{ratio.denominator} made square")
        if frame.color_range == ColorRange.JPEG and not frame.format.is_rgb:
            words.append("full range")
        if matrix in (Colorspace.ITU709, Colorspace.BT2020):
            words.append(f"{'BT.709' if matrix == Colorspace.ITU709 else 'BT.2020'} matrix, not tagged")
        elif frame.colorspace in _MATRICES:
            words.append(f"{_MATRICES[frame.colorspace]} matrix")
        if transfer != "sdr":
            words.append(f"tone-mapped from {transfer.upper()}")
        elif primaries:
            words.append(f"{primaries} colours brought to BT.709")
        words += ["transparent pictures laid over black"] if has_alpha else []
        peak = _peak(frame) if transfer == "pq" else DEFAULT_PEAK
        size = (frame.height, frame.width)
        return Conversion(*size, turn, ratio, matrix, transfer, primaries, peak, has_alpha, tuple(words))

    def displayed_size(self) -> Size:
        """(height, width) as displayed; of a pixel that is not square the shorter side is enlarged."""
        height = self.height if self.aspect >= 1 else round(self.height / self.aspect)
        width = round(self.width * self.aspect) if self.aspect >= 1 else self.width
        return (width, height) if self.turn[0] else (height, width)


def render(frame: Any, conversion: Conversion, size: Size, name: str) -> np.ndarray:
    """A decoded frame as uint8 RGB [H, W, 3] of `size` (height, width)."""
    if (frame.height, frame.width) != (conversion.height, conversion.width):
        raise MediaError(
            f"{name}: its frames change from {conversion.width}x{conversion.height} to "
            f"{frame.width}x{frame.height} inside the file"
        )
    swapped, flipped_x, flipped_y = conversion.turn
    size = size[::-1] if swapped else size
    if conversion.has_alpha:
        rgba = _converted(frame, conversion, None, "rgba")
        opaque = rgba[..., :3].astype(np.uint16) * rgba[..., 3:]
        picture = resize(((opaque + 127) // 255).astype(np.uint8), size)
    elif conversion.transfer != "sdr" or conversion.primaries:
        deep = _converted(frame, conversion, size, "rgb48le")
        picture = to_sdr(deep, conversion.transfer, conversion.primaries, conversion.peak)
    elif size[0] <= frame.height and size[1] <= frame.width:
        picture = _converted(frame, conversion, size, "rgb24")
    else:
        picture = resize(_converted(frame, conversion, None, "rgb24"), size)
    picture = picture.swapaxes(0, 1) if swapped else picture
    picture = picture[:, ::-1] if flipped_x else picture
    picture = picture[::-1] if flipped_y else picture
    return np.ascontiguousarray(picture)


def _converted(frame: Any, conversion: Conversion, size: Size | None, pixels: str) -> np.ndarray:
    """The frame's own pixels in another format, scaled in the same step where a size is given."""
    height, width = size or (frame.height, frame.width)
    shrinks = size is not None and height <= frame.height and width <= frame.width
    scaled = frame.reformat(
        width=width,
        height=height,
        format=pixels,
        src_colorspace=conversion.matrix,
        interpolation=SHRINKER if shrinks else SCALER,
        threads=1,
    )
    array: np.ndarray = scaled.to_ndarray()
    return array


def _turn(frame: Any) -> tuple[bool, bool, bool]:
    """How a frame's display matrix turns and mirrors it, to the nearest quarter."""
    data = frame.side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return False, False, False
    a, b, _, c, d = struct.unpack("=5i", bytes(data)[:20])  # x' = ax + cy, y' = bx + dy
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def _peak(frame: Any) -> float:
    """Peak of the mastering display in cd/m2, where the frame names it."""
    data = frame.side_data.get(Type.MASTERING_DISPLAY_METADATA)
    if data is None:
        return DEFAULT_PEAK
    # AVMasteringDisplayMetadata: ten fractions, the last is the most luminance; then whether it is set.
    raw = bytes(data)
    numerator, denominator, _, has_luminance = struct.unpack("=4i", raw[72:88])
    if not has_luminance or denominator <= 0 or numerator <= 0:
        return DEFAULT_PEAK
    return float(min(10_000.0, max(WHITE, numerator / denominator)))


class InterlaceDetector:
    """Says how a source is interlaced, by the flags of its frames, else of its container, else by idet.

    FFmpeg's idet looks at bursts of frames; many files that say nothing, or progressive, are not.
    """

    BURST, EVERY = 60, 600  # frames
    MOST_COMBED = 0.5  # of the frames that idet calls one or the other; film in 3:2 pulldown stays below

    def __init__(self, field_order: int) -> None:
        self.field_order = field_order
        self.flagged = self.frames = 0
        self.tff = self.bff = self.progressive = 0
        self.graph: Any = None

    def look(self, frame: Any) -> None:
        """Take in the next frame."""
        self.flagged += bool(frame.interlaced_frame)
        if not self.flagged and self.frames % self.EVERY < self.BURST:
            if self.frames % self.EVERY == 0:
                self.graph = _graph(frame, ("idet", {}))
            _push(self.graph, frame, self.frames)
            for shown in _pulled(self.graph):
                kind = shown.metadata.get("lavfi.idet.multiple.current_frame")
                self.tff += kind == "tff"
                self.bff += kind == "bff"
                self.progressive += kind == "progressive"
        self.frames += 1

    def filter_options(self) -> dict[str, str]:
        """Options of bwdif; none where nothing is interlaced."""
        if self.flagged:
            return {"mode": "send_frame", "deint": "interlaced"}
        if self.field_order not in PROGRESSIVE:  # said by the container alone
            return {
                "mode": "send_frame",
                "parity": "tff" if self.field_order in TOP_FIRST else "bff",
                "deint": "all",
            }
        combed = self.tff + self.bff
        if combed > 2 and combed > self.MOST_COMBED * (combed + self.progressive):
            return {
                "mode": "send_frame",
                "parity": "tff" if self.tff >= self.bff else "bff",
                "deint": "all",
            }
        return {}


def deinterlace(frames: Iterable[Any], options: dict[str, str]) -> Iterator[Any]:
    """The frames through bwdif, one for each; as they are without options."""
    frames = iter(frames)
    first = next(frames, None) if options else None
    if first is None:
        yield from frames
        return
    graph = _graph(first, ("bwdif", options))
    for number, frame in enumerate(itertools.chain([first], frames)):
        _push(graph, frame, number)
        yield from _pulled(graph)
    graph.vpush(None)
    yield from _pulled(graph)


def _graph(frame: Any, link: tuple[str, dict[str, str]]) -> Any:
    """A filter graph of one filter for frames like this one."""
    graph: Any = av.filter.Graph()
    graph.threads = 1
    source = graph.add(
        "buffer",
        video_size=f"{frame.width}x{frame.height}",
        pix_fmt=frame.format.name,
        time_base="1/25",
        pixel_aspect="1/1",
        colorspace=str(int(frame.colorspace)),
        range=str(int(frame.color_range)),
    )
    name, options = link
    middle, sink = graph.add(name, **options), graph.add("buffersink")
    source.link_to(middle)
    middle.link_to(sink)
    graph.configure()
    return graph


def _push(graph: Any, frame: Any, number: int) -> None:
    """Hand a frame over under its number for a time, whatever the file says of it."""
    frame.pts, frame.time_base = number, Fraction(1, 25)
    graph.vpush(frame)


def _pulled(graph: Any) -> Iterator[Any]:
    """The frames that are ready."""
    while True:
        try:
            yield graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return
