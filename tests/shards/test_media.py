"""Media in and out: what is read is what a person would see, and a bad file is named."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.files import atomic_path
from shards.media import (
    MediaError,
    fit_size,
    iter_frames,
    probe,
    read_image,
    read_mask,
    read_video,
    resize,
    write_image,
    write_lossless,
    write_mask,
    write_video,
)

Square = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * math.log10(255**2 / max(1e-9, float(((a.astype(float) - b) ** 2).mean())))


def encode(
    path: Path,
    frames: np.ndarray,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    pts: list[int] | None = None,
    rate: int = 10,
    **options: str,
) -> Path:
    """A file that this project's own writer would not make."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (pts[i] if pts else i * 1000 // rate), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_video_goes_round_byte_for_byte_the_same(tmp_path: Path, square: Square) -> None:
    frames, _, _ = square(12, 98, 146)
    digests = set()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write_video(tmp_path / name, iter(frames), 29.97)
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1
    info = probe(tmp_path / "a.mp4")
    assert (info.frames, info.height, info.width, info.codec) == (12, 98, 146, "h264")
    assert info.fps == pytest.approx(29.97, rel=1e-3)
    assert not info.variable_rate
    read, _ = read_video(tmp_path / "a.mp4")
    assert psnr(read, frames) > 34
    assert abs(read.astype(float).mean() - frames.mean()) < 0.5  # no shift of brightness
    assert np.array_equal(read, read_video((tmp_path / "a.mp4").read_bytes())[0])
    assert np.array_equal(read[4:7], read_video(tmp_path / "a.mp4", 4, 7)[0])


@pytest.mark.parametrize("size", [(50, 70), (98, 73), (120, 200)])
def test_frames_are_read_at_another_size(tmp_path: Path, square: Square, size: tuple[int, int]) -> None:
    frames, _, _ = square(3, 98, 146)
    write_video(tmp_path / "a.mp4", frames, 10)
    read, _ = read_video(tmp_path / "a.mp4", size=size)
    assert read.shape == (3, *size, 3)
    assert psnr(read, resize(read_video(tmp_path / "a.mp4")[0], size)) > 36


def test_masks_are_lossless(tmp_path: Path, square: Square) -> None:
    _, _, mask = square(5, 33, 47)
    write_mask(tmp_path / "a.mkv", mask, 10)
    write_mask(tmp_path / "b.mkv", mask.astype(np.uint8), 10)
    assert np.array_equal(read_mask(tmp_path / "a.mkv"), mask)
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()


def test_results_to_be_scored_are_lossless(tmp_path: Path, square: Square) -> None:
    frames, _, _ = square(5, 33, 47)
    write_lossless(tmp_path / "a.mkv", frames, 10)
    read, fps = read_video(tmp_path / "a.mkv")
    assert np.array_equal(read, frames)
    assert fps == pytest.approx(10)


def test_images_are_lossless(tmp_path: Path, square: Square) -> None:
    picture = square(1, 33, 47)[0][0]
    write_image(tmp_path / "a.png", picture)
    assert np.array_equal(read_image(tmp_path / "a.png"), picture)
    with pytest.raises(MediaError, match="not an image"):
        read_image(b"not a picture")


def test_variable_rate_is_resampled_to_what_a_player_shows(tmp_path: Path, square: Square) -> None:
    frames, _, _ = square(10, 64, 64)
    times = [0, 100, 200, 300, 600, 700, 800, 900, 1000, 1100]  # the fourth frame stays for 300 ms
    info = probe(encode(tmp_path / "v.mkv", frames, pts=times))
    assert info.variable_rate
    assert (info.frames, info.fps) == (12, pytest.approx(10))
    read, _ = read_video(tmp_path / "v.mkv")
    shown = [0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8, 9]
    assert all(psnr(read[k], frames[s]) > 30 for k, s in enumerate(shown))
    assert np.array_equal(read[3], read[5])
    assert np.array_equal(read[4:8], np.stack(list(iter_frames(tmp_path / "v.mkv", 4, 8))))
    some = np.stack(list(iter_frames(tmp_path / "v.mkv", 1, only={0, 3, 5, 11})))
    assert np.array_equal(read[[3, 5, 11]], some)


def test_rotation_is_applied(tmp_path: Path, square: Square) -> None:
    frames, _, _ = square(4, 64, 96)
    encode(tmp_path / "flat.mp4", frames, bf="0")
    # A phone writes upright video as a matrix in the track header: patch it in, as muxers do.
    data = bytearray((tmp_path / "flat.mp4").read_bytes())
    unit, zero, minus, depth = (v.to_bytes(4, "big") for v in (0x10000, 0, 2**32 - 0x10000, 0x40000000))
    track = data.index(b"tkhd")
    identity = data.index(unit + zero * 3 + unit, track)
    turned = zero + unit + zero + minus + zero * 2 + (64 * 65536).to_bytes(4, "big") + zero + depth
    data[identity : identity + 36] = turned
    (tmp_path / "turned.mp4").write_bytes(data)
    info = probe(tmp_path / "turned.mp4")
    assert (info.height, info.width) == (96, 64)
    assert info.rotation in (90, 270)
    read, _ = read_video(tmp_path / "turned.mp4")
    assert psnr(read, np.rot90(frames, -1, axes=(1, 2))) > 30  # matrix (0 1 -1 0): a quarter turn clockwise


@pytest.mark.parametrize(("pix_fmt", "height", "width"), [("yuv420p10le", 64, 96), ("yuv444p", 63, 95)])
def test_ten_bits_and_odd_sides_are_read(
    tmp_path: Path, square: Square, pix_fmt: str, height: int, width: int
) -> None:
    frames, _, _ = square(4, height, width)
    read, _ = read_video(encode(tmp_path / "v.mp4", frames, pix_fmt=pix_fmt))
    assert read.shape == frames.shape
    assert psnr(read, frames) > 30


def damaged(tmp_path: Path, frames: np.ndarray, kind: str) -> Path:
    good = tmp_path / "good.mp4"
    write_video(good, np.repeat(frames, 8, axis=0), 10)
    path = tmp_path / f"{kind}.mp4"
    data = good.read_bytes()
    if kind == "truncated":
        path.write_bytes(data[: len(data) * 2 // 3])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("this is no video\n" * 50)
    elif kind == "picture":
        write_image(path.with_suffix(".png"), frames[0])
        path.with_suffix(".png").rename(path)
    elif kind == "corrupted":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + b"\xff" * 3000 + data[middle + 3000 :])
    elif kind == "sound":
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=16000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("truncated", "truncated|does not decode|damaged|cannot|can open"),
        ("empty", "empty"),
        ("text", "can open|not a video"),
        ("picture", "still picture|can open"),
        ("corrupted", "damaged|does not decode|truncated"),
        ("sound", "no video stream"),
        ("missing", "no such file"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, square: Square, kind: str, complaint: str) -> None:
    path = damaged(tmp_path, square(6, 96, 128)[0], kind)
    with pytest.raises(MediaError, match=complaint) as caught:
        list(iter_frames(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_frame_is_a_video(tmp_path: Path, square: Square) -> None:
    frames, _, _ = square(1, 64, 64)
    write_video(tmp_path / "one.mp4", frames, 10)
    assert probe(tmp_path / "one.mp4").frames == 1
    assert read_video(tmp_path / "one.mp4")[0].shape == (1, 64, 64, 3)


@pytest.mark.parametrize(
    ("frames", "fps", "complaint"),
    [
        (np.zeros((2, 33, 40, 3), np.uint8), 10, "even sides"),
        (np.zeros((0, 32, 40, 3), np.uint8), 10, "no frames"),
        (np.zeros((2, 32, 40, 3), np.uint8), 0, "frame rate"),
        (np.zeros((2, 32, 40, 3), np.float32), 10, "not uint8"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(
    tmp_path: Path, frames: np.ndarray, fps: float, complaint: str
) -> None:
    with pytest.raises(MediaError, match=complaint):
        write_video(tmp_path / "v.mp4", frames, fps)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_keeps_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("before")

    def interrupted() -> None:
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "before")]


@given(st.integers(16, 4096), st.integers(16, 4096))
def test_fit_size_keeps_the_aspect_within_the_area(height: int, width: int) -> None:
    if not 0.2 <= width / height <= 5:
        return
    h, w = fit_size(height, width)
    assert h % 16 == w % 16 == 0
    assert 256 * 256 <= h * w <= 512 * 512
    assert abs(math.log(w / h) - math.log(width / height)) < 0.08
    assert fit_size(h, w) == (h, w)


def test_fit_size_of_known_sizes() -> None:
    assert fit_size(512, 512) == (512, 512)
    assert fit_size(360, 480) in {(384, 512), (336, 448)}
    assert fit_size(1080, 1920) == (368, 656)
    assert fit_size(96, 128, min_area=0, max_area=96 * 128, multiple=8) == (96, 128)
    with pytest.raises(ValueError, match="no size like"):
        fit_size(100, 100, min_area=10, max_area=20)


@given(st.integers(1, 40), st.integers(1, 40))
def test_resize_gives_the_size_asked_for(height: int, width: int) -> None:
    frames = np.full((2, 16, 24, 3), 77, np.uint8)
    assert np.array_equal(resize(frames, (height, width)), np.full((2, height, width, 3), 77, np.uint8))
    assert resize(frames[0], (height, width)).shape == (height, width, 3)
    mask = np.ones((2, 16, 24), bool)
    assert resize(mask, (height, width)).all()
    assert resize(mask, (height, width)).shape == (2, height, width)


def test_colours_stay_where_they_are_however_often_a_file_is_written(tmp_path: Path) -> None:
    ramp = np.linspace(60, 190, 96)
    first = np.stack([np.broadcast_to(c, (64, 96)) for c in (ramp, ramp[::-1], ramp[::-1])], axis=-1)
    frames = np.repeat(first.round().astype(np.uint8)[None], 2, axis=0)
    again = frames
    for n in range(4):
        write_video(tmp_path / f"{n}.mp4", again, 10, crf=4)
        again, _ = read_video(tmp_path / f"{n}.mp4")
    # Chroma between two pixels, read as on the left one, would move 0.7 levels of red with each file.
    change = (again.astype(np.float64) - frames)[:, :, 8:-8].mean(axis=(0, 1, 2))
    assert np.abs(change).max() < 0.3
