"""Pairs with every fault that a data set may have, as bytes: each layout's test writes them in its own way.

Written with Pillow and PyAV alone, none of ours.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

HEIGHT, WIDTH = 32, 48
ASPECT = "source and target of different aspect"
LENGTH = "source and target of different length"
UNSAID = "placeholder for an instruction"
WORDS = "Remove the red ball on the left."


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        source, target: bytes of the files; None for one that is missing.
        suffix: of both files.
        reason: for which it is refused, "" where it is accepted.
        mended: part of what is said to have been mended.
    """

    name: str
    source: bytes | None
    target: bytes | None
    suffix: str = ".png"
    instruction: str = WORDS
    reason: str = ""
    mended: str = ""


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    """A smooth picture, another for each seed."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [(x * (seed % 5 + 1) + y * k + 37 * seed) % 256 for k in (1, 2, 3)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def _claims(height: int, width: int) -> bytes:
    """A PNG of a few bytes whose header claims a size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@functools.cache
def image_cases() -> tuple[Case, ...]:
    """Pairs of pictures; the first two are good."""
    good, edit = encoded(picture(1)), encoded(picture(2))
    jpeg = encoded(picture(3, 64, 96), "JPEG")
    grey16 = Image.fromarray(
        (np.arange(HEIGHT * WIDTH, dtype=np.uint32) * 40).astype(np.uint16).reshape(HEIGHT, WIDTH)
    )
    palette = picture(4).quantize(16)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    turned = encoded(picture(5).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)
    frames = [picture(6), picture(7)]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    return (
        Case("good", good, edit),
        Case("also_good", encoded(picture(8)), encoded(picture(9)), instruction="Make the sky orange."),
        Case(
            "cmyk",
            encoded(picture(10).convert("CMYK"), "JPEG"),
            encoded(picture(11), "JPEG"),
            ".jpg",
            mended="CMYK",
        ),
        Case("deep", encoded(grey16), edit, mended="16 bits"),
        Case("palette", encoded(palette, transparency=0), edit, mended="palette"),
        Case("turned", turned, encoded(picture(5), "JPEG"), ".jpg", mended="rotated clockwise by 90"),
        Case("larger", encoded(picture(12)), encoded(picture(13, 64, 96)), mended="resized from 96x64"),
        Case("missing", encoded(picture(14)), None, reason="file missing"),
        Case("empty_file", encoded(picture(15)), b"", reason="file empty"),
        Case("cut_off", jpeg[: len(jpeg) // 2], edit, ".jpg", reason="image does not decode"),
        Case("no_image", b"<html>404</html>", edit, reason="not an image"),
        Case("huge", _claims(40_000, 40_000), edit, reason="image too large"),
        Case("animated", gif, gif, ".gif", reason="animated image"),
        Case("tiny", encoded(picture(16, 4, 6)), edit, reason="picture too small"),
        Case(
            "other_aspect", good, encoded(picture(17, 48, 48)), reason="source and target of different aspect"
        ),
        Case("no_words", good, edit, instruction="  ", reason="no instruction"),
        Case("placeholder", good, edit, instruction="N/A", reason=UNSAID),
        Case("todo", good, edit, instruction="TODO", reason=UNSAID),
    )


def video(seed: int, frames: int = 5, fps: int = 10, height: int = HEIGHT, width: int = WIDTH) -> bytes:
    """A short H.264 mp4."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            image = np.roll(np.asarray(picture(seed, height, width)), number, axis=1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


@functools.cache
def video_cases() -> tuple[Case, ...]:
    """Pairs of videos; the first is good."""
    source, edit = video(1), video(2)
    return (
        Case("good_video", source, edit, ".mp4"),
        Case("other_rate", video(3, 10, 10), video(4, 20, 20), ".mp4", mended="brought to 10"),
        Case("same_frames", video(3, 5, 10), video(4, 5, 24), ".mp4", mended="frame by frame"),
        Case("little_longer", video(5, 10), video(6, 11), ".mp4", mended="cut from 11 frames to 10"),
        Case("larger_video", source, video(7, height=64, width=96), ".mp4", mended="resized from 96x64"),
        Case("much_longer", source, video(8, 12), ".mp4", reason=LENGTH),
        Case(
            "wide_video",
            source,
            video(9, height=32, width=80),
            ".mp4",
            reason="source and target of different aspect",
        ),
        Case("cut_video", source, edit[: len(edit) * 2 // 3], ".mp4", reason="video does not decode"),
        Case("no_video", b"not a video at all", edit, ".mp4", reason="video does not decode"),
        Case("lost_video", source, None, ".mp4", reason="file missing"),
        Case("unsaid_video", source, edit, ".mp4", instruction="null", reason=UNSAID),
    )


def expected(cases: tuple[Case, ...]) -> dict[str, int]:
    """How many rows are refused for each reason."""
    found: dict[str, int] = {}
    for case in cases:
        if case.reason:
            found[case.reason] = found.get(case.reason, 0) + 1
    return found
