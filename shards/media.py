"""Video, masks and images in and out, through PyAV.

Frames are uint8 RGB [H, W, 3] as a person would see them: display rotation applied, constant frame rate.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import math
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc, Interpolation
from PIL import Image, ImageOps

from shards.errors import MediaError as MediaError  # public here
from shards.errors import first_line
from shards.files import write_bytes
from shards.limits import MAX_DECODED_BYTES, MAX_FPS, MAX_FRAMES, MAX_PIXELS, MAX_SECONDS, MAX_SIDE
from shards.video_writer import ACCURATE
from shards.video_writer import SCALER as SCALER
from shards.video_writer import open_mask_file as open_mask_file  # these four are public here
from shards.video_writer import write_lossless as write_lossless
from shards.video_writer import write_mask as write_mask
from shards.video_writer import write_video as write_video

Source = str | Path | bytes
Size = tuple[int, int]  # (height, width)

SHRINKER = Interpolation.AREA | ACCURATE
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED

# FFmpeg's containers that hold a video. Playlists and scripts (m3u8, ffconcat, sdp) are none: they name other
# files, which FFmpeg would open.
_CONTAINERS = (
    "mov,mp4,matroska,webm,avi,gif,apng,mpegts,mpeg,flv,ogg,asf,ivf,nut,mxf,dv,wtv,rm,yuv4mpegpipe,"
    "h264,hevc,av1,obu,m4v,mpegvideo,vc1"
)
_PICTURES = "png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe"  # opened to be refused by what they are
_READING = {
    "format_whitelist": f"{_CONTAINERS},{_PICTURES}",
    "protocol_whitelist": "file",
    "max_pixels": str(MAX_PIXELS),  # of every decoder, also where the frame size changes inside the file
}
_IMAGE_BYTES = 8 * MAX_PIXELS  # of an image file: 16 bits of four channels, not compressed


@dataclass(frozen=True)
class VideoInfo:
    """What `probe` finds. `height` and `width` are as displayed, `frames` at the constant rate `fps`."""

    path: str
    frames: int
    fps: float
    height: int
    width: int
    seconds: float
    codec: str
    pix_fmt: str
    rotation: int
    variable_rate: bool


def name_of(source: Source) -> str:
    """How an error message calls the source."""
    text = "<bytes>" if isinstance(source, bytes) else str(source)
    return text if text.isprintable() else repr(text)


def _check_file(source: Source) -> None:
    """Raise MediaError where the source is missing, empty, or no regular file (a pipe never ends)."""
    name = name_of(source)
    if isinstance(source, bytes):
        if not source:
            raise MediaError(f"{name}: the file is empty")
        return
    path = Path(source)
    try:
        if not path.is_file():
            what = "not a regular file" if path.exists() else "no such file"
            raise MediaError(f"{name}: {what}")
        if path.stat().st_size == 0:
            raise MediaError(f"{name}: the file is empty")
    except OSError as error:
        raise MediaError(f"{name}: {error.strerror}") from None


def check_size(height: int, width: int, name: str) -> None:
    """Raise MediaError for a picture or frame beyond the limits."""
    if max(height, width) > MAX_SIDE or height * width > MAX_PIXELS:
        raise MediaError(
            f"{name}: {width}x{height} pixels; at most {MAX_PIXELS} and sides of {MAX_SIDE} are read"
        )


def _check_decoded(frames: int, height: int, width: int, channels: int, name: str) -> None:
    """Raise MediaError where an array of all frames would be beyond the limit."""
    size = frames * height * width * channels
    if size > MAX_DECODED_BYTES:
        raise MediaError(
            f"{name}: {frames} frames of {width}x{height} are {size / 2**30:.1f} GiB; at most "
            f"{MAX_DECODED_BYTES / 2**30:g} GiB are read at once"
        )


@contextlib.contextmanager
def open_video(source: Source) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream, to be decoded on one thread.

    FFmpeg's errors, also those of the block, become one MediaError that names the file.
    """
    name = name_of(source)
    _check_file(source)
    # Without file: FFmpeg takes what precedes a colon in a name for a protocol.
    file = io.BytesIO(source) if isinstance(source, bytes) else f"file:{source}"
    try:
        container = av.open(file, options=_READING)
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise MediaError(f"{name}: not a video file that FFmpeg can open ({_reason(error)})") from None
    with container:
        if not container.streams.video:
            raise MediaError(f"{name}: no video stream (audio only?)")
        stream = container.streams.video[0]
        if container.format.name in _PICTURES.split(","):
            raise MediaError(f"{name}: a still picture, not a video ({container.format.name})")
        context = stream.codec_context
        if context is None:
            raise MediaError(f"{name}: no decoder for its video stream")
        check_size(context.height, context.width, name)
        # One thread: every further one of a decoder would hold frames of its own.
        stream.thread_type = "NONE"
        context.options = {"max_pixels": str(MAX_PIXELS)}
        try:
            yield container, stream
        except MediaError:
            raise
        except (av.FFmpegError, ValueError, OverflowError, MemoryError) as error:
            raise MediaError(f"{name}: does not decode ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or first_line(error)).split(";")[0]


def _timing(container: Any, stream: Any, name: str) -> tuple[list[float], float, bool]:
    """Display times in seconds (sorted, from 0) of every packet, the nominal rate, whether it varies."""
    ticks: list[int | None] = []
    for packet in container.demux(stream):
        if packet.size and not packet.is_discard:  # those outside of an edit list are decoded and not shown
            ticks.append(packet.pts if packet.pts is not None else packet.dts)
        if len(ticks) > MAX_FRAMES:
            raise MediaError(f"{name}: more than {MAX_FRAMES} frames; cut it into shorter videos")
    if not ticks:
        raise MediaError(f"{name}: holds no video frames")
    known = sorted(t for t in ticks if t is not None)
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    rate = rate if 0 < rate <= MAX_FPS else 0.0
    unit = float(stream.time_base or 0)
    if len(known) < len(ticks) or len(set(known)) < len(known) or unit <= 0:  # raw streams without timestamps
        if not rate:
            raise MediaError(f"{name}: no timestamps and no frame rate from 0 to {MAX_FPS:g}")
        return [i / rate for i in range(len(ticks))], rate, False
    times = [(t - known[0]) * unit for t in known]
    steps = [b - a for a, b in itertools.pairwise(times)]
    if not steps:
        return times, rate or 1.0, False
    typical = float(np.median(steps))
    varies = max(abs(s - typical) for s in steps) > max(2.5 * unit, 0.1 * typical)
    if varies:
        fps = 1.0 / typical
    else:
        fps = rate if rate and abs(rate * typical - 1) < 0.05 else len(steps) / times[-1]
    if times[-1] > MAX_SECONDS or fps > MAX_FPS or times[-1] * fps >= MAX_FRAMES:
        raise MediaError(
            f"{name}: its time stamps ask for {times[-1]:.4g} seconds at {fps:.4g} frames per second; at "
            f"most {MAX_SECONDS:g} seconds, {MAX_FPS:g} frames per second and {MAX_FRAMES} frames are read"
        )
    return times, fps, varies


def _constant_rate(times: list[float], fps: float) -> int:
    """Frames of the constant-rate version: the last source frame is shown for one period."""
    return max(1, round(times[-1] * fps) + 1)


def _upright(frame: Any) -> tuple[int, int, int]:
    """(height, width, quarter turns counter-clockwise that make it upright) of a decoded frame."""
    turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
    height, width = (frame.width, frame.height) if turns % 2 else (frame.height, frame.width)
    return height, width, turns


def matrix_of(frame: Any) -> Colorspace | None:
    """The matrix to convert a frame to RGB with where its tags name none; None where they do.

    As players guess it: BT.2020 for BT.2020 primaries and for PQ and HLG, else BT.709 from 1280 pixels' width
    or 577 lines on, else BT.601.
    """
    if frame.colorspace != _UNSPECIFIED or frame.format.is_rgb:
        return None
    if frame.color_primaries == ColorPrimaries.BT2020 or frame.color_trc in (
        ColorTrc.SMPTE2084,
        ColorTrc.ARIB_STD_B67,
    ):
        return Colorspace.BT2020
    return matrix_of_size((frame.height, frame.width))


def matrix_of_size(size: Size) -> Colorspace:
    """What players take for a video of this (height, width) of which nothing else is known."""
    height, width = size
    return Colorspace.ITU709 if width >= 1280 or height > 576 else Colorspace.ITU601


def probe(source: Source) -> VideoInfo:
    """Read a video's timing from its packets and its size from the first decoded frame.

    Raises MediaError for a file that is missing, empty, no video, without frames, or whose first frame
    does not decode.
    """
    name = name_of(source)
    with open_video(source) as (container, stream):
        times, fps, varies = _timing(container, stream, name)
    with open_video(source) as (container, stream):
        first = next(iter(container.decode(stream)), None)
        if first is None:
            raise MediaError(f"{name}: holds no video frames that decode")
        height, width, turns = _upright(first)
        check_size(height, width, name)
        frames = _constant_rate(times, fps) if varies else len(times)
        return VideoInfo(
            path=name,
            frames=frames,
            fps=fps,
            height=height,
            width=width,
            seconds=frames / fps,
            codec=stream.codec_context.name,
            pix_fmt=str(first.format.name),
            rotation=turns * 90,
            variable_rate=varies,
        )


def iter_frames(
    source: Source,
    start: int = 0,
    stop: int | None = None,
    size: Size | None = None,
    only: Collection[int] | None = None,
) -> Iterator[np.ndarray]:
    """Yield frames `start` to `stop` (exclusive) as uint8 RGB [H, W, 3], upright, at the constant rate.

    With `only`, the frames of these numbers alone: the others are decoded, but their colours not converted.

    A variable-rate file is resampled: frame k shows what a player shows at time k / fps. `size` (height,
    width) resizes with `resize`. Raises MediaError naming the file where a frame is damaged or the file ends
    before the frames that its index promises.
    """
    name = name_of(source)
    with open_video(source) as (container, stream):
        times, fps, varies = _timing(container, stream, name)
    total = _constant_rate(times, fps) if varies else len(times)
    stop = total if stop is None else min(stop, total)
    # For every source frame, how often it is shown in the constant-rate version.
    shown = np.ones(len(times), dtype=int)
    if varies:
        grid = np.searchsorted(np.asarray(times) - 0.5 / fps * 1e-3, np.arange(total) / fps, side="right") - 1
        shown = np.bincount(np.clip(grid, 0, len(times) - 1), minlength=len(times))
    position = decoded = 0
    with open_video(source) as (container, stream):
        for frame in container.decode(stream):
            if frame.is_corrupt:
                raise MediaError(f"{name}: damaged at frame {decoded} of {len(times)}")
            repeats = int(shown[decoded]) if decoded < len(shown) else 1
            decoded += 1
            first, position = position, position + repeats
            wanted = [n for n in range(max(first, start), min(position, stop)) if only is None or n in only]
            if wanted:
                picture = _picture(frame, size, name)
                yield picture
                yield from (picture.copy() for _ in wanted[1:])
            if position >= stop:
                return
        if position < stop:
            raise MediaError(f"{name}: truncated, {decoded} of {len(times)} frames decode")


def _picture(frame: Any, size: Size | None, name: str) -> np.ndarray:
    """A decoded frame as upright RGB, at `size` when given."""
    height, width, turns = _upright(frame)
    check_size(height, width, name)
    matrix = matrix_of(frame)
    if size is not None and not turns and size[0] <= height and size[1] <= width:
        # Shrinking inside the colour conversion: the same picture as `resize` gives in a third of the time.
        scaled = frame.reformat(
            width=size[1], height=size[0], format="rgb24", src_colorspace=matrix, interpolation=SHRINKER
        )
        return np.ascontiguousarray(scaled.to_ndarray())
    rgb = frame.reformat(format="rgb24", src_colorspace=matrix, interpolation=SCALER)
    picture = np.rot90(rgb.to_ndarray(), turns)
    if picture.shape[:2] != (height, width):
        raise MediaError(f"{name}: frame size changes to {picture.shape[:2]} inside the file")
    picture = np.ascontiguousarray(picture)
    return picture if size is None else resize(picture, size)


def read_video(
    source: Source, start: int = 0, stop: int | None = None, size: Size | None = None
) -> tuple[np.ndarray, float]:
    """All frames of `iter_frames` as one uint8 RGB array [T, H, W, 3], and the frame rate.

    Raises MediaError as `iter_frames` does, and for an array of more than `limits.MAX_DECODED_BYTES`.
    """
    info, name = probe(source), name_of(source)
    count = (info.frames if stop is None else min(stop, info.frames)) - max(0, start)
    if count < 1:
        raise MediaError(f"{name}: no frames between {start} and {stop}, it has {info.frames}")
    height, width = size or (info.height, info.width)
    _check_decoded(count, height, width, 3, name)
    try:
        frames = np.empty((count, height, width, 3), np.uint8)
    except MemoryError:
        raise MediaError(f"{name}: no memory for {count} frames of {width}x{height}") from None
    for number, picture in enumerate(iter_frames(source, start, stop, size)):
        if picture.shape != frames.shape[1:]:
            raise MediaError(f"{name}: the frame size changes inside the file")
        frames[number] = picture
    return frames, info.fps


def mask_shape(source: Source) -> tuple[int, int, int]:
    """(frames, height, width) of a mask's file by its packets; MediaError where it holds none or too many."""
    name = name_of(source)
    with open_video(source) as (container, stream):
        packets = itertools.islice(container.demux(stream), MAX_FRAMES + 2)  # the last one is empty
        count = sum(packet.size > 0 for packet in packets)
        if count > MAX_FRAMES:
            raise MediaError(f"{name}: more than {MAX_FRAMES} frames; cut it into shorter videos")
        if not count:
            raise MediaError(f"{name}: holds no mask frames")
        return count, stream.codec_context.height, stream.codec_context.width


def iter_mask(source: Source) -> Iterator[np.ndarray]:
    """Yield the frames of a mask written by `write_mask` as bool [H, W]; MediaError as `read_mask`."""
    name, size = name_of(source), None
    with open_video(source) as (container, stream):
        for frame in container.decode(stream):
            size = size or (frame.height, frame.width)
            if size != (frame.height, frame.width):
                raise MediaError(f"{name}: the frame size changes inside the file")
            yield frame.to_ndarray(format="gray") > 127


def read_mask(source: Source) -> np.ndarray:
    """Read a mask written by `write_mask` as bool [T, H, W].

    Raises MediaError as `read_video` does.
    """
    name = name_of(source)
    count, height, width = mask_shape(source)
    _check_decoded(count, height, width, 1, name)
    masks: list[np.ndarray] = []
    for mask in iter_mask(source):
        _check_decoded(len(masks) + 1, mask.shape[0], mask.shape[1], 1, name)
        masks.append(mask)
    if not masks:
        raise MediaError(f"{name}: holds no mask frames")
    return np.stack(masks)


def read_image(source: Source) -> np.ndarray:
    """Read an image file as uint8 RGB [H, W, 3], turned as its EXIF says; of an animation the first frame.

    Raises MediaError for what is no image, or larger than the limits: its header is read first.
    """
    name = name_of(source)
    data = source if isinstance(source, bytes) else _bytes(source)
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X":
        # Pillow would allocate the canvas to open it.
        width, height = (1 + int.from_bytes(data[i : i + 3], "little") for i in (24, 27))
        check_size(height, width, name)
    # Not by OpenCV: a damaged animated PNG ends the process with a segmentation fault there.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Pillow's own, higher limit, and of oddities in metadata
            with Image.open(io.BytesIO(data)) as image:
                check_size(image.height, image.width, name)
                ImageOps.exif_transpose(image, in_place=True)
                if image.mode.startswith("I"):  # 16 bits of grey; convert would clip them
                    grey = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
                    return np.repeat(grey[..., None], 3, axis=-1)
                return np.array(image.convert("RGB"))
    except MediaError:
        raise
    except Image.UnidentifiedImageError:
        raise MediaError(f"{name}: not an image that Pillow can read") from None
    except Exception as error:  # whatever Pillow's readers raise for a damaged file
        raise MediaError(f"{name}: not an image that Pillow can read ({first_line(error)})") from error


def _bytes(path: str | Path) -> bytes:
    _check_file(path)
    if Path(path).stat().st_size > _IMAGE_BYTES:
        raise MediaError(f"{path}: {Path(path).stat().st_size} bytes, an image may have {_IMAGE_BYTES}")
    return Path(path).read_bytes()


def encode_image(picture: np.ndarray) -> bytes:
    """uint8 RGB [H, W, 3] as the bytes of a PNG."""
    ok, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not ok:
        raise MediaError("OpenCV could not encode the image")
    return data.tobytes()


def write_image(path: str | Path, picture: np.ndarray) -> None:
    """Write uint8 RGB [H, W, 3] as PNG, atomically."""
    write_bytes(path, encode_image(picture))


def resize(frames: np.ndarray, size: Size) -> np.ndarray:
    """Resize uint8 [H, W, 3] or [T, H, W, 3] to `size` (height, width): area when shrinking, else cubic.

    Bool masks [H, W] or [T, H, W] stay bool: a pixel is inside where at least half of its area was.
    """
    height, width = size
    if frames.dtype == bool:
        return resize(np.where(frames, np.uint8(255), np.uint8(0)), size) >= 128
    stacked = frames.ndim == 4 or (frames.ndim == 3 and frames.shape[-1] != 3)
    pictures: Sequence[np.ndarray] = frames if stacked else frames[None]  # type: ignore[assignment]
    if pictures[0].shape[:2] == (height, width):
        return frames
    shrinks = height * width < pictures[0].shape[0] * pictures[0].shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    out = np.stack([cv2.resize(p, (width, height), interpolation=how) for p in pictures])
    return out if stacked else out[0]


def shrunk_size(size: Size, longest: int) -> Size:
    """(height, width) with the longer side at most `longest`, of about the same aspect; never enlarged."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


@functools.lru_cache(maxsize=4096)  # data sets have few sizes; a miss takes a fifth of a millisecond
def fit_size(
    height: int, width: int, *, min_area: int = 256 * 256, max_area: int = 512 * 512, multiple: int = 16
) -> Size:
    """Nearest size to (height, width) of the same aspect: area in a range, sides divide by `multiple`.

    The paper's range (section A.1) is the default; small presets pass their own. Among the sizes allowed, the
    one with the least change of aspect ratio wins, then the least change of area. Raises ValueError when the
    range holds no such size.
    """
    aspect, area = width / height, min(max(height * width, min_area), max_area)
    best: tuple[float, Size] | None = None
    for h in range(multiple, int(math.sqrt(max_area / aspect)) + 2 * multiple, multiple):
        for w in {multiple * max(1, math.floor(h * aspect / multiple) + k) for k in (0, 1)}:
            if min_area <= h * w <= max_area:
                cost = 4 * abs(math.log(w / h / aspect)) + 0.5 * abs(math.log(h * w / area))
                if best is None or cost < best[0]:
                    best = (cost, (h, w))
    if best is None:
        raise ValueError(
            f"no size like {width}x{height} with sides dividing by {multiple}, area {min_area} to {max_area}"
        )
    return best[1]
