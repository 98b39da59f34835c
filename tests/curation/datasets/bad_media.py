"""Pictures and videos as they come: good ones, odd ones that can be mended, and ones that cannot be used."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from tests.curation.datasets.published_layouts import Edit

HEIGHT, WIDTH = 32, 48
INSTRUCTION = "Remove the {} from the street."


def pixels(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth picture, uint8 RGB [H, W, 3], another for each number."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * (3 + number % 5), y * (2 + number % 3), (x + y) * 2 + 40 * number]
    return np.stack(planes, axis=-1).astype(np.uint8)


def saved(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def png(number: int, height: int = HEIGHT, width: int = WIDTH) -> bytes:
    return saved(Image.fromarray(pixels(number, height, width)))


def huge_png() -> bytes:
    """A PNG of a few bytes whose header claims 30,000 x 30,000 pixels."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 10)), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def odd_pictures() -> dict[str, bytes]:
    """Pictures that are read rightly, by what is special about them."""
    rgb = Image.fromarray(pixels(3))
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    deep = Image.fromarray(pixels(4)[..., 0].astype(np.uint16) * 257)
    return {
        "CMYK": saved(rgb.convert("CMYK"), "JPEG", quality=95),
        "16 bits": saved(deep),
        "palette": saved(rgb.quantize(64)),
        "EXIF": saved(rgb.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=turned, quality=95),
    }


def unusable_pictures() -> dict[str, bytes | None]:
    """Pictures that no row can be made of, by the reason that the import gives; None: the file is missing."""
    frames = [Image.fromarray(pixels(n)) for n in range(3)]
    return {
        "file missing": None,
        "image does not decode": png(5)[:-40],
        "not an image": b"<html>404 Not Found</html>",
        "image too large": huge_png(),
        "animated image": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
    }


def mp4(number: int, frames: int = 5, fps: int = 10, height: int = HEIGHT, width: int = WIDTH) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for t in range(frames):
            shown = np.roll(pixels(number, height, width), t, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        container.mux(stream.encode(None))
    return out.getvalue()


def rows(kind: str) -> tuple[list[Edit], dict[str, int]]:
    """Edits for a data set of "images", "videos" or "captions", and how many must be refused by which reason.

    The first two and the last are good.
    """
    video = kind == "videos"
    make, suffix = (mp4, ".mp4") if video else (png, ".png")
    plain = [
        Edit(INSTRUCTION.format(thing), make(number), make(number + 7), suffix, reference=png(number))
        for number, thing in enumerate(("dog", "car", "kite"))
    ]
    whole = replace(plain[0])
    odd: list[Edit] = []
    refused: dict[str, int] = {}

    def refuse(reason: str, **changes: object) -> None:
        refused[reason] = refused.get(reason, 0) + 1
        number = len(odd)
        odd.append(replace(whole, **{"instruction": INSTRUCTION.format(f"lamp {number}"), **changes}))  # type: ignore[arg-type]

    part = "target" if kind == "captions" else "source"
    if video:
        refuse("file missing", source=None)
        refuse("video does not decode", source=mp4(4)[:300])
        refuse("source and target of different length", target=mp4(4, frames=15))
        refuse("source and target of different aspect", target=mp4(4, height=64, width=32))
        odd.append(replace(whole, instruction=INSTRUCTION.format("bird"), target=mp4(9, frames=10, fps=20)))
        odd.append(replace(whole, instruction=INSTRUCTION.format("fish"), target=mp4(9, height=64, width=96)))
    else:
        for reason, data in unusable_pictures().items():
            refuse(reason, **{part: data})
        for what, data in odd_pictures().items():
            odd.append(replace(whole, instruction=INSTRUCTION.format(what), **{part: data}))
    refuse("no instruction", instruction="  ")
    refuse("placeholder for an instruction", instruction="N/A")
    return [*plain[:2], *odd, plain[2]], refused
