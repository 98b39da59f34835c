"""From files to clips: scene cuts, the held-out cut, sizes, and every kind of odd file."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.sources.clips import Cut, cut, fit_box, load_frames, split_scene
from curation.sources.scenes import disjoint
from shards.media import MediaError, read_video, write_video
from tests.perf import clips as long

CUT = Cut(box=(90, 120))


@given(
    start=st.integers(0, 1000),
    length=st.integers(1, 2000),
    fps=st.floats(1, 120),
    seconds=st.floats(0.1, 60),
    held=st.floats(0, 0.9),
)
def test_spans_are_disjoint_in_order_long_enough_and_held_out_comes_last(
    start: int, length: int, fps: float, seconds: float, held: float
) -> None:
    settings = Cut(max_seconds=seconds, heldout_fraction=held)
    spans = split_scene(start, start + length, fps, settings)
    assert all(b - a >= settings.min_frames for a, b, _ in spans)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    assert all(start <= a and b <= start + length for a, b, _ in spans)
    assert [s for _, _, s in spans] == sorted((s for _, _, s in spans), reverse=True)
    longest = max(2 * settings.min_frames, seconds * fps + 1)
    assert all(b - a <= longest for a, b, _ in spans)
    if length >= settings.min_frames:
        assert spans
        assert sum(b - a for a, b, _ in spans) == length


@given(
    length=st.integers(1, 5000),
    most=st.integers(1, 400),
    least=st.integers(1, 60),
    lengths=st.lists(st.integers(1, 90), max_size=2).map(tuple),
)
def test_no_clip_is_larger_than_memory_allows(
    length: int, most: int, least: int, lengths: tuple[int, ...]
) -> None:
    settings = Cut(min_frames=least, max_seconds=3600, lengths=lengths)
    spans = split_scene(100, 100 + length, 10.0, settings, max(most, least))
    assert all(b - a <= max(most, least) for a, b, _ in spans)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    if most >= 2 * least and length >= least and not lengths:
        assert sum(b - a for a, b, _ in spans) == length


@given(
    shown=st.lists(st.integers(0, 2), min_size=30, max_size=90),
    edges=st.lists(st.integers(1, 89), min_size=1, max_size=4),
    lengths=st.sampled_from([(), (5, 8)]),
)
def test_no_picture_is_in_two_clips(shown: list[int], edges: list[int], lengths: tuple[int, ...]) -> None:
    pictures = np.cumsum(shown)  # pauses and jumps
    bounds = sorted({0, len(shown), *(e for e in edges if e < len(shown))})
    spans = [(7 + a, 7 + b, "train") for a, b in pairwise(bounds)]
    found = disjoint(spans, pictures.tolist(), 7, Cut(min_frames=3, lengths=lengths))
    parts = [set(pictures[a - 7 : b - 7].tolist()) for a, b, _ in found]
    assert all(not a & b for a, b in pairwise(parts))
    assert all(
        b - a >= 3 and (not lengths or b - a in lengths or (a, b, "train") in spans) for a, b, _ in found
    )


@given(height=st.integers(2, 4000), width=st.integers(2, 4000))
def test_sizes_fit_the_box_have_even_sides_and_keep_the_shape(height: int, width: int) -> None:
    h, w = fit_box(height, width, (360, 480))
    assert h % 2 == w % 2 == 0
    high, wide = (480, 360) if height > width else (360, 480)  # the box is turned for what is upright
    assert 2 <= h <= high
    assert 2 <= w <= wide
    scale = min(1, high / height, wide / width)
    assert abs(h - height * scale) <= 1 or h == 2
    assert abs(w - width * scale) <= 1 or w == 2


def test_scene_cuts_are_found(clips_dir: Path, tmp_path: Path) -> None:
    found = cut(clips_dir / "bikes.mp4", CUT, tmp_path)
    # By eye: cuts at 30, 76, 137, 187 and 242; the last scene has only 8 frames.
    assert [(c.start, c.stop) for c in found] == [(0, 30), (30, 76), (76, 137), (137, 187), (187, 242)]
    assert {c.split for c in found} == {"train"}


def test_held_out_frames_are_in_no_train_clip(clips_dir: Path, tmp_path: Path) -> None:
    found = cut(clips_dir / "vtest.avi", CUT, tmp_path)
    train = {f for c in found if c.split == "train" for f in range(c.start, c.stop)}
    held = {f for c in found if c.split == "heldout" for f in range(c.start, c.stop)}
    assert len(train) == 636
    assert held == set(range(636, 795))
    assert len({c.key for c in found}) == len(found)


def test_a_clips_file_holds_what_the_source_shows_to_the_bit(clips_dir: Path, tmp_path: Path) -> None:
    source, settings = clips_dir / "bikes.mp4", Cut()
    for clip in cut(source, settings, tmp_path):
        placed = replace(clip, path=str(tmp_path / clip.file))
        wanted, fps = read_video(source, clip.start, clip.stop, (clip.height, clip.width))
        assert np.array_equal(load_frames(placed), wanted)
        assert (clip.fps, clip.time, clip.mended) == (fps, pytest.approx(clip.start / fps), ())
        with av.open(placed.path) as container:
            keys = [number for number, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
        assert max(np.diff([*keys, clip.frames])) <= 30  # no frame is far from one where decoding can begin
        with pytest.raises(MediaError, match=f"{clip.frames} frames where {clip.frames + 1} were written"):
            load_frames(replace(placed, stop=clip.stop + 1))


def test_the_key_of_a_clip_does_not_depend_on_where_it_lies(clips_dir: Path, tmp_path: Path) -> None:
    clip = cut(clips_dir / "bikes.mp4", CUT, tmp_path)[0]
    moved = replace(
        clip, source="s3://b/x.mp4", name="x", time=1.0, file="f", path="p", mended=("audio dropped",)
    )
    assert moved.key == clip.key
    assert replace(clip, start=1).key != clip.key
    with pytest.raises(MediaError, match="no file of its own"):
        load_frames(replace(clip, path=""))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "empty"),
        ("truncated", ""),
        ("corrupted", ""),
        ("audio_only", "no video stream"),
        ("one_frame", "1 frame"),
        ("text", "not a video"),
        ("png", "still picture"),
    ],
)
def test_a_bad_file_is_one_line_with_its_name(
    bad_files: dict[str, Path], tmp_path: Path, name: str, words: str
) -> None:
    with pytest.raises(MediaError) as error:
        cut(bad_files[name], CUT, tmp_path)
    assert str(bad_files[name]) in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_odd_sized_ten_bit_rotated_and_variable_rate_files_are_read(
    street: np.ndarray, tmp_path: Path
) -> None:
    small = np.ascontiguousarray(street[:24, ::2, ::2])  # [24, 180, 240, 3]
    _write(tmp_path / "odd.mkv", small[:, :151, :199], "ffv1", "bgr0")
    _write(tmp_path / "ten.mp4", small, "libx264", "yuv420p10le")
    _write(tmp_path / "rate.mp4", small, "libx264", "yuv420p", times=[i + 3 * (i > 11) for i in range(24)])
    write_video(tmp_path / "plain.mp4", small, 10.0)
    _rotate(tmp_path / "plain.mp4", tmp_path / "turned.mp4")
    shapes = {}
    for name in ("odd.mkv", "ten.mp4", "rate.mp4", "turned.mp4"):
        (clip,) = cut(tmp_path / name, CUT, tmp_path)
        frames = load_frames(replace(clip, path=str(tmp_path / clip.file)))
        shapes[name] = frames.shape
        assert frames.dtype == np.uint8
        assert frames.std() > 20
    assert shapes["odd.mkv"] == (24, 90, 118, 3)
    assert shapes["ten.mp4"] == (24, 90, 120, 3)
    assert shapes["rate.mp4"] == (27, 90, 120, 3)  # the pause of three frames is shown
    assert shapes["turned.mp4"] == (24, 120, 90, 3)


@pytest.mark.slow
def test_a_long_scene_takes_little_memory_and_time_grows_with_length(tmp_path: Path) -> None:
    """Two hours, and figures, are in `tests.perf.clips`; there clips have their largest size, 512 MiB."""
    short_one = long.write_source(tmp_path / "short.mp4", 3, long.MINUTE)
    # One scene, the first four fifths of which are two clips of 105 MiB: a step holds one.
    minutes = 8
    long_one = long.write_source(tmp_path / "long.mp4", minutes, minutes * long.MINUTE)
    for step in long.STEPS:
        short = long.measure_step(step, short_one, tmp_path / "short", Cut.max_seconds)
        done = long.measure_step(step, long_one, tmp_path / "long", 240.0)
        assert done["peak"] < 300  # MiB
        assert done["frames"] == minutes * long.MINUTE
        assert done["seconds"] / done["frames"] < 1.5 * short["seconds"] / short["frames"]


def _write(path: Path, frames: np.ndarray, codec: str, pixels: str, times: list[int] | None = None) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixels
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24").reformat(
                format=pixels
            )
            frame.pts, frame.time_base = (times or range(len(frames)))[index], Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _rotate(source: Path, target: Path) -> None:
    """The same file with a display matrix of a quarter turn in its track header."""
    data = bytearray(source.read_bytes())
    header = data.index(b"tkhd")
    matrix = header + 4 + 40  # version 0: the matrix follows forty bytes of flags, times, ids and volume
    turned = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[matrix : matrix + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in turned)
    target.write_bytes(bytes(data))
