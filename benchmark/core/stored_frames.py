"""Frames as the published programs read them: decord 0.6.0's, where it is installed, or else its equal.

The published code reads videos with decord: every stored frame, whenever it is shown (`shards.media` brings
variable rates to a constant one), converted to RGB by FFmpeg's `scale` filter as it stands: the matrix that
the frame's tag names, BT.601 without one, and chroma that is repeated, not interpolated (dmlc/decord,
src/video/ffmpeg/filter_graph.cc and threaded_decoder.cc). PyAV converts so too when it is asked for no
accuracy: measured against decord 0.6.0 pictures are equal, bit for bit, for 4:2:0 and 4:2:2 of 8 bits with
even sides, 4:4:4, RGB, 4:2:2 and 4:4:4 of 10 bits, full and limited range, tagged or not, turned or not.
4:2:0 of 10 bits differs in the last row alone, 4:2:0 with odd sides by 2 grey levels on average.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from shards.errors import MediaError, first_line
from shards.limits import MAX_DECODED_BYTES
from shards.media import check_size, open_video, probe

# Of 4:2:0 that FFmpeg's fast path does not take: where decord's FFmpeg 4.1 has chroma between two lines.
CHROMA_LINE = 256


@functools.lru_cache(maxsize=1)
def decoder() -> str:
    """Which decoder reads stored frames here: a score depends on it."""
    try:
        return f"decord {importlib.metadata.version('decord')}"
    except importlib.metadata.PackageNotFoundError:
        return "PyAV, as decord 0.6.0"


def read_stored(path: Path) -> np.ndarray:
    """uint8 RGB [T, H, W, 3]: every stored frame of a video as decord 0.6.0 gives it, of a .gif as Pillow.

    Raises:
        MediaError: naming the file, where it is none, too large, or does not decode.
    """
    probe(path)  # refuses what no decoder should be given: sizes, lengths, files that name others
    try:
        frames: list[np.ndarray] = []
        total = 0
        for frame in _frames(path):
            total += frame.nbytes
            if total > MAX_DECODED_BYTES:
                raise MediaError(f"{path}: more than {MAX_DECODED_BYTES / 2**30:g} GiB of frames")
            if frames and frame.shape != frames[0].shape:
                raise MediaError(f"{path}: the frame size changes inside the file")
            frames.append(frame)
        if not frames:
            raise MediaError(f"{path}: holds no video frames that decode")
        return np.stack(frames)
    except MemoryError:
        raise MediaError(f"{path}: no memory for its frames") from None


def _frames(path: Path) -> Iterator[np.ndarray]:
    if path.suffix == ".gif":
        return _by_pillow(path)
    return _by_decord(path) if decoder().startswith("decord") else by_av(path)


def _by_pillow(path: Path) -> Iterator[np.ndarray]:
    from PIL import Image, ImageSequence

    try:
        with Image.open(path) as image:
            check_size(image.height, image.width, str(path))
            for frame in ImageSequence.Iterator(image):
                yield np.array(frame.convert("RGB"))
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise MediaError(f"{path}: not an animation that Pillow can read ({first_line(error)})") from error


def _by_decord(path: Path) -> Iterator[np.ndarray]:
    decord: Any = importlib.import_module("decord")  # no extra of ours: it has wheels for few platforms
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        if len(reader) and reader[0].shape[-1] != 3:  # up to 72 pixels wide: padding as a fourth channel
            yield from by_av(path)
            return
        for number in range(len(reader)):
            yield reader[number].asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError) as error:
        raise MediaError(f"{path}: does not decode ({first_line(error)})") from error


def by_av(path: Path) -> Iterator[np.ndarray]:
    """Frames uint8 RGB [H, W, 3] as decord gives them, by PyAV; MediaError names the file."""
    from av.video.reformatter import Interpolation

    graph = None
    with open_video(path) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            if frame.is_corrupt:
                raise MediaError(f"{path}: damaged at frame {number}")
            check_size(frame.height, frame.width, str(path))
            turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
            if _fast(frame):
                rgb = frame.reformat(format="rgb24", interpolation=Interpolation.BILINEAR)
            else:
                graph = graph or _filters(stream)
                graph.push(frame)
                rgb = graph.pull()
            yield np.ascontiguousarray(np.rot90(rgb.to_ndarray(), turns))


def _fast(frame: Any) -> bool:
    """Whether FFmpeg takes a frame to RGB by the path that no version has changed."""
    luma, *chroma = frame.format.components
    halved = any(c.height < luma.height for c in chroma[:2])
    return not halved or (luma.bits == 8 and frame.width % 2 == 0 and frame.height % 2 == 0)


def _filters(stream: Any) -> Any:
    """A graph that converts as decord's does, for a stream."""
    from av.filter import Graph

    graph = Graph()
    scale = graph.add("scale", f"flags=bilinear:in_v_chr_pos={CHROMA_LINE}")
    nodes = [
        graph.add_buffer(template=stream),
        scale,
        graph.add("format", "pix_fmts=rgb24"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    return graph
