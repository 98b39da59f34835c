"""Media made to mislead: refused by one line or read, within ten seconds and two gigabytes."""

from __future__ import annotations

import io
import os
import random
import socket
import struct
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

import shards.media
from shards.media import MediaError, iter_frames, probe, read_image, read_mask, read_video, write_video
from tests.malformed import faults, run_cases, summary


def read_media(path: str) -> None:
    """Read a file as everything that it may be; the first fault is raised at the end."""
    errors = []
    for read in (read_image, probe, lambda p: sum(1 for _ in iter_frames(p)), read_video, read_mask):
        try:
            read(path)
        except MediaError as error:
            errors.append(error)
    if errors:
        raise errors[0] if len(errors) == 5 else MediaError(f"{path}: {len(errors)} of 5 refuse it")


def encode(
    path: Path, frames: np.ndarray, codec: str, pix_fmt: str, pts: list[int] | None = None, rate: int = 10
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pix_fmt
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = (pts[number] if pts else number * 100), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def picture(frames: np.ndarray, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(out, form, **({"save_all": True, "append_images": rest} if rest else {}), **options)
    return out.getvalue()


def png(width: int, height: int, rows: int = 0) -> bytes:
    """A PNG of one bit per pixel that claims a size and holds `rows` black rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = zlib.compress(bytes((1 + -(-width // 8)) * rows), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory, square: Callable) -> dict[str, bytes]:
    """One small file of every kind."""
    folder = tmp_path_factory.mktemp("originals")
    frames = square(6, 48, 64)[0]
    write_video(folder / "a.mp4", frames, 10)
    encode(folder / "mask.mkv", frames, "ffv1", "gray")
    encode(folder / "a.avi", frames, "mpeg4", "yuv420p")
    encode(folder / "h264.mkv", frames, "libx264", "yuv420p")
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    exif = Image.Exif()
    exif[0x0112] = 6
    return files | {
        "a.gif": picture(frames, "GIF"),
        "a.png": picture(frames[:1], "PNG"),
        "animated.png": picture(frames, "PNG"),
        "a.jpg": picture(frames[:1], "JPEG", exif=exif),
        "a.webp": picture(frames[:1], "WEBP"),
        "animated.webp": picture(frames, "WEBP"),
        "a.tiff": picture(frames[:1], "TIFF", compression="tiff_lzw"),
        "a.bmp": picture(frames[:1], "BMP"),
    }


def mutations(data: bytes, rng: random.Random, count: int) -> list[bytes]:
    """Copies with extreme values in the header, random bytes anywhere, a part missing or there twice."""
    made = []
    for number in range(count):
        copy = bytearray(data)
        kind, header = number % 6, min(len(data), 700)
        if kind < 2:  # numbers of two or four bytes in the header
            at, width = rng.randrange(header - 4), rng.choice([2, 4])
            copy[at : at + width] = rng.choice([b"\xff", b"\x7f", b"\0", b"\x40", b"\x80"]) * width
        elif kind == 2:
            for _ in range(rng.randrange(1, 9)):
                copy[rng.randrange(header)] = rng.randrange(256)
        elif kind == 3:
            for _ in range(rng.randrange(1, 30)):
                copy[rng.randrange(len(copy))] = rng.randrange(256)
        elif kind == 4:
            del copy[rng.randrange(len(copy)) :]
        else:
            first, second = sorted(rng.choices(range(len(copy)), k=2))
            copy[first:first] = copy[first:second]
        made.append(bytes(copy))
    return made


def test_malformed_media_are_refused_or_read(originals: dict[str, bytes], tmp_path: Path) -> None:
    rng, paths = random.Random(0), []
    for name, data in originals.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
        for number, changed in enumerate(mutations(data, rng, 30)):
            paths.append(tmp_path / f"{number}-{name}")
            paths[-1].write_bytes(changed)
    outcomes = run_cases("tests.shards.test_malformed_media:read_media", [str(p) for p in paths])
    print(summary(outcomes))
    assert len(outcomes) == len(originals) * 31
    assert faults(outcomes) == []


def crafted(folder: Path, originals: dict[str, bytes], frames: np.ndarray) -> dict[Path, str]:
    """Files that claim too much or name others, and what is said of them."""
    video = folder / "other.mp4"
    write_video(video, frames, 10)
    gif, tiff = bytearray(originals["a.gif"]), bytearray(originals["a.tiff"])
    at = gif.index(b"\x2c")  # the image descriptor: left, top, width, height
    gif[at + 5 : at + 9] = struct.pack("<HH", 65535, 65535)
    canvas = bytearray(originals["animated.webp"])
    canvas[24:30] = b"\xff\xff\xff" * 2
    width = tiff.index(struct.pack("<HHI", 256, 4, 1)) if struct.pack("<HHI", 256, 4, 1) in tiff else None
    if width is not None:
        tiff[width + 8 : width + 12] = struct.pack("<I", 1 << 30)
    contents = {
        "20000.png": (png(20_000, 20_000, rows=20_000), "20000x20000 pixels; at most|400000000 pixels"),
        "claims.png": (png(1 << 30, 1 << 30), "pixels; at most|not an image"),
        "long.png": (png(16_385, 1, rows=1), "16385x1 pixels"),
        "canvas.webp": (bytes(canvas), "16777216x16777216 pixels"),
        "large-frame.gif": (bytes(gif), ""),
        "wide.tiff": (bytes(tiff), ""),
        "list.m3u8": (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nother.mp4\n", "FFmpeg can open"),
        "remote.m3u8": (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n", "FFmpeg can open"),
        "list.ffconcat": (b"ffconcat version 1.0\nfile other.mp4\n", "FFmpeg can open"),
        "list.sdp": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 9 RTP/AVP 96\n", "FFmpeg can open"),
        "list.mpd": (b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"/>', "FFmpeg can open"),
    }
    files = {}
    for name, (data, complaint) in contents.items():
        (folder / name).write_bytes(data)
        files[folder / name] = complaint
    encode(folder / "gap.mkv", frames, "ffv1", "gray", pts=[0, 100, 200, 300, 400, 10**12])
    encode(folder / "long.mkv", frames, "ffv1", "gray", pts=[0, 1, 2, 3, 4, 3_000_000])
    encode(folder / "slow.mkv", frames, "ffv1", "gray", pts=[10_000_000 * i for i in range(6)])
    encode(folder / "fast.avi", frames, "mpeg4", "yuv420p", rate=60_000, pts=list(range(6)))
    files |= {folder / "gap.mkv": "time stamps ask for 1e\\+09 seconds"}
    files |= {folder / "long.mkv": "time stamps ask for 3000 seconds at 1000 frames per second"}
    files |= {folder / "slow.mkv": "time stamps ask for 5e\\+04 seconds at 0.0001 frames per second"}
    files |= {folder / "fast.avi": ""}
    return files


def test_files_that_claim_too_much_or_name_others(
    originals: dict[str, bytes], square: Callable, tmp_path: Path
) -> None:
    files = crafted(tmp_path, originals, square(6, 48, 64)[0])
    outcomes = run_cases("tests.shards.test_malformed_media:read_media", [str(p) for p in files])
    print(summary(outcomes))
    assert faults(outcomes, megabytes=1024) == []
    for path, complaint in files.items():
        reader = read_image if path.suffix in (".png", ".webp", ".tiff") else probe
        if complaint:
            with pytest.raises(MediaError, match=complaint):
                reader(path)


@pytest.mark.parametrize("read", [probe, read_video, read_mask, read_image])
def test_what_is_no_file_is_refused_at_once(
    read: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for path in (Path("pipe"), Path("socket"), tmp_path, Path("/dev/zero")):
            with pytest.raises(MediaError, match="not a regular file"):
                read(path)
    with pytest.raises(MediaError, match="no such file"):
        read(Path("a\0b"))


def test_a_colon_is_no_protocol(square: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a.mp4", "a:b.mp4", "http:a.mp4"):
        write_video(name, square(2, 16, 16)[0], 10)
        assert read_video(name)[0].shape == (2, 16, 16, 3)


def test_arrays_beyond_the_limit_are_refused_before_decoding(
    square: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "a.mp4", square(8, 32, 32)[0], 10)
    encode(tmp_path / "a.mkv", square(8, 32, 32)[0], "ffv1", "gray")
    monkeypatch.setattr(shards.media, "MAX_DECODED_BYTES", 4 * 32 * 32 * 3)
    decoded = []
    monkeypatch.setattr(shards.media, "iter_frames", lambda *a: decoded.append(a) or iter_frames(*a))
    with pytest.raises(MediaError, match=r"a\.mp4: 8 frames of 32x32 are .* GiB; at most"):
        read_video(tmp_path / "a.mp4")
    assert not decoded
    assert len(read_video(tmp_path / "a.mp4", 2, 6)[0]) == 4  # a range counts as long as it is
    assert len(read_video(tmp_path / "a.mp4", size=(16, 16))[0]) == 8
    monkeypatch.setattr(shards.media, "MAX_DECODED_BYTES", 7 * 32 * 32)
    with pytest.raises(MediaError, match=r"a\.mkv: 8 frames of 32x32"):
        read_mask(tmp_path / "a.mkv")


def test_limits_of_frames_and_sides(
    square: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "a.mp4", square(8, 32, 64)[0], 10)
    monkeypatch.setattr(shards.media, "MAX_FRAMES", 7)
    for read in (probe, read_mask, lambda path: list(iter_frames(path))):
        with pytest.raises(MediaError, match="more than 7 frames"):
            read(tmp_path / "a.mp4")
    monkeypatch.setattr(shards.media, "MAX_FRAMES", 8)
    assert probe(tmp_path / "a.mp4").frames == 8
    monkeypatch.setattr(shards.media, "MAX_SIDE", 63)
    for read in (probe, read_mask, lambda path: list(iter_frames(path))):
        with pytest.raises(MediaError, match="64x32 pixels; at most"):
            read(tmp_path / "a.mp4")


def test_exif_turns_an_image_and_an_animation_gives_its_first_frame(
    originals: dict[str, bytes], square: Callable
) -> None:
    first = square(6, 48, 64)[0][0]
    turned = read_image(originals["a.jpg"])
    assert turned.shape == (64, 48, 3)
    assert np.abs(turned.astype(int) - np.rot90(first, -1)).mean() < 8
    for name in ("a.png", "animated.png", "a.tiff", "a.bmp"):
        assert np.array_equal(read_image(originals[name]), first)
    for name in ("a.gif", "animated.webp"):
        assert np.abs(read_image(originals[name]).astype(int) - first).mean() < 8


def test_sixteen_bits_of_grey(square: Callable) -> None:
    grey = square(1, 33, 47)[0][0][..., 0]
    encoded = cv2.imencode(".png", grey.astype(np.uint16) * 256 + 255)[1].tobytes()
    assert np.array_equal(read_image(encoded), np.repeat(grey[..., None], 3, axis=-1))
