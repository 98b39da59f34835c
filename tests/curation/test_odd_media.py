"""Media that hurt: each is cut to the right pixels, rate and length, or refused in one line.

The files are made by the ffmpeg program, and what they show is known without this project's code: by a
counter drawn into every frame, by the drawn frames themselves, or by a filter chain of the program.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from curation.sources.clips import Clip, Cut, cut, load_frames
from shards.errors import SettingError
from shards.media import MediaError

FFMPEG = shutil.which("ffmpeg")
pytestmark = pytest.mark.skipif(FFMPEG is None, reason="needs the ffmpeg program to make the files")

HEIGHT, WIDTH, BITS = 120, 160, 10
CUT = Cut(box=(HEIGHT, WIDTH), min_frames=5, heldout_fraction=0.0)


def drawn(count: int, first: int = 0) -> np.ndarray:
    """Frames with their numbers in binary on top, colours below, and a bright square that moves."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    plate = np.stack([60 + x, 40 + y, 200 - (x + y) // 2], -1).astype(np.uint8)
    frames = np.repeat(plate[None], count, axis=0)
    for index in range(count):
        number = first + index
        for bit in range(BITS):
            frames[index, :16, 16 * bit : 16 * bit + 16] = 235 if number >> bit & 1 else 16
        left = (3 * number) % (WIDTH - 24)
        frames[index, 70:94, left : left + 24] = (230, 60, 40)
    return frames


def counters(frames: np.ndarray) -> list[int]:
    """The numbers in the frames, of any size."""
    scale = frames.shape[2] / WIDTH
    row = round(8 * frames.shape[1] / HEIGHT)
    columns = [round((16 * bit + 8) * scale) for bit in range(BITS)]
    return [sum(int(f[row, c].mean() > 128) << bit for bit, c in enumerate(columns)) for f in frames]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(10 * np.log10(255**2 / max(1e-9, ((a.astype(float) - b) ** 2).mean())))


def ffmpeg(*arguments: object, data: bytes | None = None) -> bytes:
    command = [FFMPEG, "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, input=data, check=True, capture_output=True).stdout


def encode(path: Path, frames: np.ndarray, *options: object, rate: object = 25, pix: str = "rgb24") -> Path:
    """The frames in a file, by options of the program."""
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    source = ("-f", "rawvideo", "-pix_fmt", pix, "-s", size, "-r", rate, "-i", "pipe:")
    ffmpeg(*source, *options, path, data=frames.tobytes())
    return path


def decode(path: Path, *options: object, size: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    """What the program shows of a file."""
    flags = ("-sws_flags", "area+accurate_rnd+full_chroma_int")
    data = ffmpeg("-i", path, *options, *flags, "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:")
    return np.frombuffer(data, np.uint8).reshape(-1, *size, 3)


def clips_of(path: Path, folder: Path, settings: Cut = CUT) -> list[tuple[Clip, np.ndarray]]:
    """The clips of a file and their frames."""
    folder = folder / "clips"
    folder.mkdir()
    clips = cut(path, settings, folder)
    return [(clip, load_frames(replace(clip, path=str(folder / clip.file)))) for clip in clips]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 frames, 25 a second, a key frame every 50, with B-frames."""
    path = tmp_path_factory.mktemp("plain") / "plain.mp4"
    return encode(path, drawn(100), "-c:v", "libx264", "-crf", 10, "-g", 50, "-bf", 2, "-pix_fmt", "yuv420p")


def test_a_plain_file_is_what_was_drawn(plain: Path, tmp_path: Path) -> None:
    ((clip, frames),) = clips_of(plain, tmp_path)
    assert counters(frames) == list(range(100))
    assert (clip.fps, clip.time, clip.mended) == (25.0, 0.0, ())
    assert psnr(frames, drawn(100)) > 32
    assert psnr(frames, decode(plain)) > 38  # another version's converter


def test_frames_outside_of_an_edit_list_are_not_shown(plain: Path, tmp_path: Path) -> None:
    # A cut without encoding keeps what precedes the cut, back to the key frame, outside of the edit list.
    ffmpeg("-ss", 1.3, "-i", plain, "-c", "copy", tmp_path / "edit.mp4")
    ((clip, frames),) = clips_of(tmp_path / "edit.mp4", tmp_path)
    assert counters(frames) == list(range(33, 100))
    assert psnr(frames, decode(tmp_path / "edit.mp4")) > 38
    assert clip.fps == 25
    assert any(word.endswith("frames outside of the edit list left out") for word in clip.mended)


def test_negative_times_count_from_the_first_frame(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "negative.ts"  # this container adds 1.4 seconds
    moved = ("-output_ts_offset", -1.9, "-avoid_negative_ts", "disabled")
    ffmpeg("-i", plain, "-c", "copy", *moved, path)
    ((clip, frames),) = clips_of(path, tmp_path)
    assert counters(frames) == list(range(100))
    assert (clip.time, clip.fps) == (0.0, 25.0)
    assert any(word.startswith("times moved by 0.") for word in clip.mended)


def test_pixels_that_are_not_square_become_square(tmp_path: Path) -> None:
    y, x = np.mgrid[:120, :96]
    disc = ((x - 48) * 5 / 3) ** 2 + (y - 60) ** 2 < 40**2  # round where pixels are 5:3
    frames = np.repeat(np.where(disc[..., None], 220, 30).astype(np.uint8).repeat(3, -1)[None], 10, axis=0)
    path = encode(
        tmp_path / "wide.mp4",
        frames,
        *("-vf", "setsar=5/3", "-c:v", "libx264", "-crf", 5, "-pix_fmt", "yuv444p"),
    )
    ((clip, shown),) = clips_of(path, tmp_path)
    assert (clip.height, clip.width) == (120, 160)
    bright = shown[5, ..., 0] > 125
    assert abs(int(bright.any(0).sum()) - int(bright.any(1).sum())) <= 1
    assert abs(int(bright.any(0).sum()) - 79) <= 1
    assert psnr(shown, decode(path, "-vf", "scale=160:120:flags=bicubic")) > 35
    assert clip.mended == ("pixel aspect 5:3 made square",)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_video_stands_upright(plain: Path, tmp_path: Path, degrees: int) -> None:
    path = tmp_path / "turned.mp4"
    ffmpeg("-i", plain, "-c", "copy", "-metadata:s:v", f"rotate={degrees}", path)
    ((clip, frames),) = clips_of(path, tmp_path)
    wanted = np.rot90(drawn(100), degrees // 90, axes=(1, 2))  # the program counts against the clock
    assert frames.shape == wanted.shape  # the box of 120x160 is turned with it
    assert psnr(frames, wanted) > 32
    assert psnr(frames, decode(path, size=frames.shape[1:3])) > 32
    assert clip.mended == (f"rotated clockwise by {360 - degrees} degrees",)


def test_mirrored_video_is_turned_round(plain: Path, tmp_path: Path) -> None:
    data = bytearray(plain.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    mirrored = [-(1 << 16), 0, 0, 0, 1 << 16, 0, WIDTH << 16, 0, 1 << 30]
    data[matrix : matrix + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in mirrored)
    (tmp_path / "mirrored.mp4").write_bytes(bytes(data))
    ((clip, frames),) = clips_of(tmp_path / "mirrored.mp4", tmp_path)
    assert psnr(frames, drawn(100)[:, :, ::-1]) > 32
    assert clip.mended == ("mirrored",)


@pytest.mark.parametrize(
    ("matrix", "range_", "tags", "words"),
    [
        ("bt601", "tv", (), ()),
        ("bt601", "pc", ("-color_range", "pc"), ("full range",)),
        ("bt709", "tv", ("-colorspace", "bt709"), ("BT.709 matrix",)),
        ("bt2020", "tv", ("-colorspace", "bt2020nc"), ("BT.2020 matrix",)),
    ],
)
def test_range_and_matrix_are_those_of_the_tags(
    tmp_path: Path, matrix: str, range_: str, tags: tuple[str, ...], words: tuple[str, ...]
) -> None:
    frames = drawn(8)
    convert = f"scale=out_color_matrix={matrix}:out_range={range_}:flags=accurate_rnd+full_chroma_int"
    path = encode(tmp_path / "a.mkv", frames, "-vf", convert, "-c:v", "ffv1", "-pix_fmt", "yuv444p", *tags)
    ((clip, shown),) = clips_of(path, tmp_path)
    assert np.abs(shown.astype(int) - frames).max() <= 3
    assert clip.mended == words


@pytest.mark.parametrize(("height", "width", "matrix"), [(720, 1280, "bt709"), (576, 720, "bt601")])
def test_without_tags_the_size_says_the_matrix(tmp_path: Path, height: int, width: int, matrix: str) -> None:
    frames = np.full((6, height, width, 3), (200, 40, 90), np.uint8)
    convert = f"scale=out_color_matrix={matrix}:flags=accurate_rnd"
    path = encode(tmp_path / "a.mkv", frames, "-vf", convert, "-c:v", "ffv1", "-pix_fmt", "yuv420p")
    ((clip, shown),) = clips_of(path, tmp_path)
    assert np.abs(shown.astype(int) - (200, 40, 90)).max() <= 3
    assert clip.mended == (("BT.709 matrix, not tagged",) if height == 720 else ())


def pq_signal(light: np.ndarray) -> np.ndarray:
    """PQ signals of light in cd/m2, as SMPTE ST 2084 writes it."""
    y = (light / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def hdr_file(path: Path, signal: np.ndarray, transfer: str) -> Path:
    """Eight frames of RGB signals from 0 to 1 in 10 bits, tagged."""
    frames = np.repeat(np.rint(signal * 65535).astype("<u2")[None], 8, axis=0)
    convert = "scale=out_color_matrix=bt2020:out_range=tv:flags=accurate_rnd+full_chroma_int"
    tags = ("-color_primaries", "bt2020", "-color_trc", transfer, "-colorspace", "bt2020nc")
    coded = ("-vf", convert, "-pix_fmt", "yuv444p10le", "-color_range", "tv", "-c:v", "libx265")
    options = ("-x265-params", "lossless=1:log-level=none", "-tag:v", "hvc1")
    return encode(path, frames, *coded, *options, *tags, pix="rgb48le")


def patches(values: list[tuple[float, float, float]]) -> np.ndarray:
    """Rows of 160 pixels in patches of 16 by 60, from left to right and top to bottom."""
    rows = np.zeros((HEIGHT, WIDTH, 3))
    for number, value in enumerate(values):
        top, left = 60 * (number // 10), 16 * (number % 10)
        rows[top : top + 60, left : left + 16] = value
    return rows


def middles(frame: np.ndarray, count: int) -> np.ndarray:
    return np.array([frame[60 * (n // 10) + 30, 16 * (n % 10) + 8] for n in range(count)])


def linear_by_zimg(path: Path) -> np.ndarray:
    """Light of the first frame in BT.709's primaries and units of 203 cd/m2, by the program's zscale."""
    pixels = "gbrpf32le"
    chain = f"zscale=transfer=linear:npl=203:primaries=bt709:matrix=gbr,format={pixels}"
    data = ffmpeg(
        "-i", path, "-frames:v", 1, "-vf", chain, "-f", "rawvideo", "-pix_fmt", "gbrpf32le", "pipe:"
    )
    green, blue, red = np.frombuffer(data, "<f4").reshape(3, HEIGHT, WIDTH)
    return np.stack([red, green, blue], -1)


# Light in cd/m2; all of it below the knee of the tone curve, where nothing is compressed.
DARK = [
    (1, 1, 1),
    (5, 5, 5),
    (20, 20, 20),
    (50, 50, 50),
    (85, 85, 85),
    (60, 30, 20),
    (20, 60, 20),
    (20, 20, 60),
]
BRIGHT = (100, 203, 400, 700, 1000)  # above it


def level_of(light: float) -> float:
    """The level of a grey of 0 to 1000 cd/m2: BT.2390's curve to 203 cd/m2 as it is printed, then BT.1886."""
    source, top = pq_signal(np.array([light, 1000.0]))
    e1, most = source / top, float(pq_signal(np.array([203.0]))[0] / top)
    knee = 1.5 * most - 0.5
    t = (e1 - knee) / (1 - knee)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    )
    e2 = e1 if e1 < knee else spline
    scale = np.linspace(0, 1000, 100_001)
    return float(255 * (np.interp(e2 * top, pq_signal(scale), scale) / 203) ** (1 / 2.4))


def test_pq_is_tone_mapped(tmp_path: Path) -> None:
    light = [*DARK, *((v, v, v) for v in BRIGHT)]
    path = hdr_file(tmp_path / "pq.mp4", pq_signal(patches(light)), "smpte2084")
    ((clip, frames),) = clips_of(path, tmp_path)
    shown = middles(frames[3], len(light)).astype(int)
    dark = 255 * np.clip(middles(linear_by_zimg(path), len(DARK)), 0, 1) ** (1 / 2.4)
    assert np.abs(shown[: len(DARK)] - dark).max() <= 3
    bright = shown[len(DARK) :]
    assert np.abs(bright - np.array([level_of(v) for v in BRIGHT])[:, None]).max() <= 2
    assert bright[-1].min() >= 254
    assert (clip.frames, clip.fps) == (8, 25.0)
    assert clip.mended == ("BT.2020 matrix", "tone-mapped from PQ")


def test_hlg_is_tone_mapped(tmp_path: Path) -> None:
    # Scene light of 1/12 is a signal of one half; a display of 1000 cd/m2 shows its 1.2th power.
    signal = [(v, v, v) for v in (0.1, 0.2, 0.3, 0.4, 0.75, 1.0)] + [(0.35, 0.25, 0.2), (0.2, 0.35, 0.2)]
    path = hdr_file(tmp_path / "hlg.mp4", patches(signal), "arib-std-b67")  # type: ignore[arg-type]
    ((clip, frames),) = clips_of(path, tmp_path)
    shown = middles(frames[3], len(signal)).astype(int)
    grey = [1000 * (v * v / 3) ** 1.2 for v in (0.1, 0.2, 0.3, 0.4)]  # cd/m2, all below the knee
    assert np.abs(shown[:4] - 255 * (np.array(grey)[:, None] / 203) ** (1 / 2.4)).max() <= 2
    assert np.abs(shown[4] - level_of(203)).max() <= 2  # diffuse white of BT.2408
    assert np.abs(shown[5] - 255).max() <= 1
    # Of colours the program's zscale raises each channel, where BT.2100 raises the luminance.
    scene = np.array(signal[6:]) ** 2 / 3
    light = 1000 * (scene @ to_xyz(BT2020)[1])[:, None] ** 0.2 * scene / 203
    light = light @ (np.linalg.inv(to_xyz(BT709)) @ to_xyz(BT2020)).T
    assert np.abs(shown[6:] - 255 * np.clip(light, 0, 1) ** (1 / 2.4)).max() <= 3
    assert clip.mended == ("BT.2020 matrix", "tone-mapped from HLG")


BT709 = ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06))
BT2020 = ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046))


def to_xyz(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """The matrix from linear RGB of primaries with a white of D65 to XYZ, from their chromaticities."""
    xyz = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in (*primaries, (0.3127, 0.329))]).T
    return xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])


def interlaced(frames: np.ndarray) -> np.ndarray:
    """Every second frame, with the odd lines of the frame that follows it."""
    woven = frames[::2].copy()
    woven[:, 1::2] = frames[1::2, 1::2]
    return woven


@pytest.mark.parametrize("flagged", [True, False])
def test_interlaced_video_has_one_whole_frame_for_each(tmp_path: Path, flagged: bool) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frames = drawn(60).repeat(2, axis=0)
    for index, frame in enumerate(frames):
        frame[16:] = (128 + 100 * np.sin((x + 4 * index) / 11) * np.cos(y / 13))[16:, :, None]
    fields = ("-vf", "setfield=tff", "-flags", "+ildct+ilme") if flagged else ()
    codec = ("-c:v", "libx264", "-crf", 8) if flagged else ("-c:v", "ffv1")
    woven = interlaced(frames)
    path = encode(tmp_path / "fields.mkv", woven, *fields, *codec, "-pix_fmt", "yuv422p")
    ((clip, shown),) = clips_of(path, tmp_path)
    wanted = decode(path, "-vf", "bwdif=mode=send_frame:parity=tff:deint=all")
    assert (clip.frames, clip.fps) == (60, 25.0)
    assert psnr(shown[1:-1], wanted[1:-1]) > 40
    assert psnr(shown[1:-1], frames[2:-2:2]) > psnr(woven[1:-1], frames[2:-2:2]) + 6
    assert clip.mended == ("deinterlaced",)


def test_progressive_video_is_not_deinterlaced(tmp_path: Path) -> None:
    frames = drawn(60)
    path = encode(tmp_path / "whole.mkv", frames, "-c:v", "ffv1", "-pix_fmt", "gbrp")
    ((clip, shown),) = clips_of(path, tmp_path)
    assert np.array_equal(shown, frames)
    assert clip.mended == ()


@pytest.mark.parametrize(
    ("rate", "settings", "fps", "wanted"),
    [
        (240, {}, 60, list(range(0, 240, 4))),
        (240, {"max_fps": 100.0}, 80, list(range(0, 240, 3))),
        (60, {"fps": 30.0}, 30, list(range(0, 240, 2))),
        ("60000/1001", {"fps": 30.0}, 30000 / 1001, list(range(0, 240, 2))),
        (30, {"fps": 24.0}, 24, None),
    ],
)
def test_rates_are_brought_within_bounds(
    tmp_path: Path, rate: object, settings: dict[str, float], fps: float, wanted: list[int] | None
) -> None:
    path = encode(tmp_path / "fast.mp4", drawn(240), "-c:v", "libx264", "-crf", 12, "-bf", 0, rate=rate)
    ((clip, frames),) = clips_of(path, tmp_path, replace(CUT, **settings))  # type: ignore[arg-type]
    assert clip.fps == pytest.approx(fps)
    assert counters(frames) == (wanted or counters(decode(path, "-vf", "fps=24:round=near")))
    assert len(clip.mended) == 1


def test_a_source_that_is_too_slow_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "slow.mp4", drawn(10), "-c:v", "libx264", rate="1/2")
    with pytest.raises(MediaError, match=r"slow\.mp4: 0\.5 frames per second; at least 1 are used"):
        cut(path, CUT, tmp_path)


def test_a_variable_rate_is_made_constant_and_gaps_are_cuts(tmp_path: Path) -> None:
    # Frame 29 stays for three periods; nothing is there for three seconds behind frame 49; jitter everywhere.
    late = r"setpts=(N+2*gte(N\,30)+75*gte(N\,50)+0.2*mod(N\,2))/(25*TB)"
    options = ("-vf", late, "-vsync", "passthrough", "-c:v", "libx264", "-crf", 10, "-bf", 0)
    path = encode(tmp_path / "variable.mkv", drawn(100), *options, "-enc_time_base", "1:1000")
    (before, first), (after, second) = clips_of(path, tmp_path)
    assert counters(first) == [*range(30), 29, 29, *range(30, 50)]
    assert counters(second) == list(range(50, 100))
    assert before.fps == after.fps == pytest.approx(25)
    assert (before.time, after.time) == (0.0, pytest.approx(127 / 25, abs=0.01))
    assert (before.start, after.start) == (0, 127)  # numbers go on as time does
    assert "cut at 1 time gap" in before.mended
    shown = counters(decode(path, "-vf", "fps=25:round=near"))
    assert shown[:50] == counters(first)[:50]
    assert shown[shown.index(50) :][:49] == counters(second)[:49]


def joined(first: bytes, second: bytes) -> bytes:
    """Two MPEG transport streams as one, whose packets are counted on."""
    counted: dict[int, int] = {}
    packets = [bytearray((first + second)[at : at + 188]) for at in range(0, len(first + second), 188)]
    for packet in packets:
        stream = (packet[1] & 0x1F) << 8 | packet[2]
        if packet[3] & 0x10:  # with a payload: these are counted, in four bits
            counted[stream] = (counted.get(stream, 15) + 1) & 15
            packet[3] = packet[3] & 0xF0 | counted[stream]
    return b"".join(packets)


def test_a_clock_that_begins_anew_is_a_cut(plain: Path, tmp_path: Path) -> None:
    ffmpeg("-i", plain, "-c", "copy", "-f", "mpegts", tmp_path / "a.ts")
    part = (tmp_path / "a.ts").read_bytes()
    (tmp_path / "twice.ts").write_bytes(joined(part, part))
    first, second = clips_of(tmp_path / "twice.ts", tmp_path)
    assert counters(first[1]) == counters(second[1]) == list(range(100))
    assert (second[0].start, second[0].time) == (100, pytest.approx(4.0, abs=0.05))


def test_what_is_transparent_lies_over_black(tmp_path: Path) -> None:
    frames = np.concatenate([drawn(10), np.full((10, HEIGHT, WIDTH, 1), 255, np.uint8)], -1)
    frames[:, 60:, :80, 3] = 0
    frames[:, 60:, 80:, 3] = 128
    path = encode(tmp_path / "alpha.mov", frames, "-c:v", "qtrle", "-pix_fmt", "argb", pix="rgba")
    ((clip, shown),) = clips_of(path, tmp_path)
    wanted = np.rint(frames[..., :3] * (frames[..., 3:] / 255))
    assert np.abs(shown - wanted).max() <= 1
    assert clip.mended == ("transparent pictures laid over black",)


def test_colours_of_full_resolution_keep_their_detail(tmp_path: Path) -> None:
    frames = drawn(10)
    frames[:, 100:, ::2], frames[:, 100:, 1::2] = (220, 30, 30), (30, 30, 220)
    path = encode(tmp_path / "444.mp4", frames, "-c:v", "libx264", "-crf", 4, "-pix_fmt", "yuv444p")
    ((clip, shown),) = clips_of(path, tmp_path)
    assert psnr(shown, frames) > 40
    assert clip.mended == ()


def test_an_avi_without_an_index_is_read(tmp_path: Path) -> None:
    path = encode(tmp_path / "whole.avi", drawn(60), "-c:v", "mpeg4", "-q:v", 2, "-bf", 0)
    wanted, data = decode(path), path.read_bytes()
    (tmp_path / "none.avi").write_bytes(data[: data.index(b"idx1")])
    ((clip, shown),) = clips_of(tmp_path / "none.avi", tmp_path)
    assert counters(shown) == list(range(60))
    assert psnr(shown, wanted) > 38
    assert clip.fps == 25


def test_sound_is_dropped(plain: Path, tmp_path: Path) -> None:
    ffmpeg("-i", plain, "-f", "lavfi", "-i", "sine", "-shortest", "-c:v", "copy", tmp_path / "loud.mp4")
    ((clip, frames),) = clips_of(tmp_path / "loud.mp4", tmp_path)
    assert len(frames) == 100
    assert clip.mended == ("audio dropped",)


def test_a_recording_that_begins_between_key_frames_is_read(plain: Path, tmp_path: Path) -> None:
    ffmpeg("-i", plain, "-c", "copy", "-f", "mpegts", tmp_path / "a.ts")
    data = (tmp_path / "a.ts").read_bytes()
    (tmp_path / "late.ts").write_bytes(data[188 * (len(data) // 188 // 4) :])  # a quarter is missing
    ((_, frames),) = clips_of(tmp_path / "late.ts", tmp_path)
    assert counters(frames) == list(range(50, 100))


def test_one_frame_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "one.mp4", drawn(1), "-c:v", "libx264")
    with pytest.raises(MediaError, match=r"one\.mp4: 1 frame\(s\), a clip needs at least 5"):
        cut(path, CUT, tmp_path)


def test_a_name_that_is_no_text_is_read(plain: Path, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/na\xffme\n.mp4"))
    shutil.copy(plain, path)
    ((clip, frames),) = clips_of(path, tmp_path)
    assert counters(frames) == list(range(100))
    assert clip.name == r"na\xffme\n.mp4"
    clip.name.encode()  # fit for a sample


def test_what_may_not_be_read_is_refused(plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "secret.mp4"
    shutil.copy(plain, path)
    path.chmod(0)
    # Root may read everything, so another user tries.
    code = (
        "import os, sys; from pathlib import Path; from curation.sources.clips import Cut, cut\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "cut(Path(sys.argv[1]), Cut(), Path(sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path, tmp_path], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("shards.errors.MediaError")
    assert str(path) in last
    assert "ermission denied" in last


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(MediaError, match=r"pipe\.mp4: not a regular file"):
        cut(tmp_path / "pipe.mp4", CUT, tmp_path)


def test_a_size_that_changes_is_refused(tmp_path: Path) -> None:
    parts = [encode(tmp_path / "a.ts", drawn(30), "-c:v", "libx264", "-f", "mpegts")]
    half = np.ascontiguousarray(drawn(30)[:, ::2, ::2])
    parts.append(encode(tmp_path / "b.ts", half, "-c:v", "libx264", "-f", "mpegts"))
    (tmp_path / "both.ts").write_bytes(joined(*(part.read_bytes() for part in parts)))
    with pytest.raises(MediaError, match=r"both\.ts: its frames change from 160x120 to 80x60"):
        cut(tmp_path / "both.ts", CUT, tmp_path)


def test_bounds_that_cannot_be_met_are_refused() -> None:
    for wrong in ({"max_fps": 0.5}, {"fps": 90.0}, {"fps": 0.1}, {"min_fps": 0.0}):
        with pytest.raises(SettingError, match=r"cut\.(min_fps|max_fps|fps): a number"):
            Cut(**wrong)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match=r"cut\.box \[4320, 7680\]: 17 frames"):
        Cut(box=(4320, 7680))
