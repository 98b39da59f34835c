"""Results as files: sound, rate, colours, shape and length as ffprobe sees them, before and after."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model import Editor
from model.inference.edit import Edit
from model.output.preservation import Meter, Preservation, measure
from model.output.video_file import Origin
from shards.media import MediaError, probe, read_mask, read_video

RATE, SECONDS = "25", "0.8"
# Fixed colours, none of which is at the end of its range, where rounding has one direction.
COLOURS = (
    "gradients=s=96x64:n=4:c0=0x905030:c1=0x30a070:c2=0x506090:c3=0xa0a040"
    ":x0=5:y0=9:x1=80:y1=50:seed=3:speed=0.03"
)
X264 = "-c:v libx264 -pix_fmt yuv420p"
# By kind: options of the picture's source, sound tracks (their options), and how all is encoded.
KINDS: dict[str, tuple[str, list[str], str]] = {
    "aac.mp4": ("", ["sine=440:d=0.8"], f"{X264} -c:a aac"),
    "ntsc.mp4": (
        "30000/1001",
        ["sine=440:d=1.1"],
        f"{X264} -c:a aac -colorspace bt709 -color_primaries bt709 -color_trc bt709",
    ),
    "film.mov": ("24000/1001", ["sine=440:d=0.8"], f"{X264} -c:a pcm_s16le"),
    "opus.webm": ("", ["sine=440:d=0.8"], "-c:v libvpx-vp9 -cpu-used 8 -c:a libopus"),
    "vorbis.mkv": ("", ["sine=440:d=0.8"], "-c:v libx264 -pix_fmt yuv444p -c:a libvorbis"),
    "mp3.avi": ("", ["sine=440:d=0.8"], "-c:v mpeg4 -qscale 2 -c:a libmp3lame"),
    "three.mkv": (
        "",
        ["sine=440:d=0.8", "sine=880:d=0.8", "sine=220:d=0.4"],
        f"-map 0 -map 1 -map 2 -map 3 {X264} -c:a:0 flac -c:a:1 aac -c:a:2 ac3 "
        "-metadata:s:a:0 language=deu -metadata:s:a:1 language=eng -metadata:s:a:2 language=fra "
        "-metadata title=Three",
    ),
    "silent.mp4": ("50", [], X264),
    "full.mp4": ("", ["sine=440:d=0.8"], "-vf scale=out_range=full -c:v libx264 -pix_fmt yuvj420p -c:a aac"),
    "hlg.mp4": (
        "",
        ["sine=440:d=0.8"],
        "-c:v libx264 -pix_fmt yuv420p10le -colorspace bt2020nc -color_primaries bt2020 "
        "-color_trc arib-std-b67 -c:a aac",
    ),
    "late.mp4": ("", ["-itsoffset 0.4", "sine=440:d=0.4"], f"{X264} -c:a aac"),
    "wide.mp4": ("", ["sine=440:d=0.8"], f"-vf setsar=4/3 {X264} -c:a aac"),
}
COPIED = {"pcm_s16le": "aac", "vorbis": "aac"}  # what a codec becomes where an mp4 cannot hold it
VIDEO_TAGS = (
    "r_frame_rate",
    "color_space",
    "color_transfer",
    "color_primaries",
    "color_range",
    "sample_aspect_ratio",
)


def make(path: Path, kind: str) -> Path:
    """A file of the kind, 96 x 64, of smooth moving colours, by the ffmpeg program."""
    rate, sounds, encoding = KINDS[kind]
    picture = f"{COLOURS}:r={rate or RATE}:d={SECONDS}"
    inputs = ["-f", "lavfi", "-i", picture]
    for sound in sounds:
        inputs += sound.split() if sound.startswith("-") else ["-f", "lavfi", "-i", sound]
    command = ["ffmpeg", "-y", "-v", "error", *inputs, *encoding.split(), str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


def streams(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """What ffprobe says of the video, of the sound tracks and of the file."""
    command = ["ffprobe", "-v", "error", "-show_streams", "-show_format", "-of", "json", str(path)]
    said = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    by_kind = {k: [s for s in said["streams"] if s["codec_type"] == k] for k in ("video", "audio")}
    return by_kind["video"][0], by_kind["audio"], said["format"]


def edit_of(path: Path, start: int = 0, stop: int | None = None) -> Edit:
    """An edit that changed nothing."""
    frames, fps = read_video(path, start, stop)
    return Edit(frames, fps, False, frames, origin=Origin(path, start))


def identity(editor: Editor, source: Path, out: Path) -> tuple[np.ndarray, str]:
    """The frames of a source, and what is said of its edit with a mask that marks nothing, as a file."""
    frames, _ = read_video(source)
    options = {"mask": np.zeros(frames.shape[1:3], bool), "keep": 1, "steps": 1}
    with editor.stream("<video1> Change <mask>.", video1=source, out=out, **options) as stream:
        sound = stream.write(out)
        assert "nothing changed: all is equal" in stream.describe()
    return frames, sound


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_has_its_sources_sound_rate_colours_and_length(
    editor: Editor, kind: str, tmp_path: Path
) -> None:
    source, out = make(tmp_path / kind, kind), tmp_path / "out.mp4"
    frames, note = identity(editor, source, out)
    note, _, mask = note.rpartition("mask: ")
    assert mask == str(tmp_path / "out.mask.mkv")
    assert not read_mask(mask).any()
    video, sounds, whole = streams(source)
    made, heard, file = streams(out)
    unsaid = {"sample_aspect_ratio": "1:1", "color_range": None}
    for tag in VIDEO_TAGS:
        if (
            tag != "color_range" or video.get(tag) == "pc" or "color_space" in video
        ):  # x264 says "tv" of itself
            assert made.get(tag, unsaid.get(tag)) == video.get(tag, unsaid.get(tag)), tag
    assert made["codec_name"] == "h264"
    names = [sound["codec_name"] for sound in sounds]
    assert [sound["codec_name"] for sound in heard] == [COPIED.get(name, name) for name in names]
    for before, after in zip(sounds, heard, strict=True):
        assert after["sample_rate"] == before["sample_rate"]
        assert after["channels"] == before["channels"]
        language = before.get("tags", {}).get("language")
        assert language is None or after["tags"]["language"] == language
    assert (("no sound in the source" in note) or "sound: " in note) == bool(note)
    assert ("no sound" in note) == (not sounds)
    assert file.get("tags", {}).get("title") == whole.get("tags", {}).get("title")
    # a packet of sound lasts 26 ms at most, an AVI may count one frame more than it has
    assert abs(float(file["duration"]) - float(whole["duration"])) < 0.045
    assert int(made["nb_frames"]) == len(frames)
    if kind == "late.mp4":  # it begins when it did
        assert abs(float(heard[0]["start_time"]) - float(sounds[0]["start_time"])) < 0.002
    back, fps = read_video(out)
    assert fps == pytest.approx(probe(source).fps, rel=1e-6)
    change = back.astype(np.float64) - frames
    assert np.median(np.abs(change)) <= 1
    assert np.abs(change.mean(axis=(0, 1, 2))).mean() < 0.3


@pytest.mark.parametrize("kind", ["aac.mp4", "film.mov", "three.mkv"])
def test_sound_is_cut_with_the_frames(kind: str, tmp_path: Path) -> None:
    source, out = make(tmp_path / kind, kind), tmp_path / "out.mp4"
    edit = edit_of(source, 5, 12)
    edit.write(out)
    rate = Fraction(streams(source)[0]["r_frame_rate"])
    video, sounds, _ = streams(out)
    assert int(video["nb_frames"]) == 7
    assert sounds
    for sound in sounds[:2]:  # the third of three ends before these frames do
        assert float(sound["start_time"]) == pytest.approx(0, abs=0.002)
        assert 0 <= float(sound["duration"]) - 7 / rate < 0.11  # FLAC packets last up to 0.105 s


def test_sound_of_another_rate_is_left_out_and_said(tmp_path: Path) -> None:
    source, out = make(tmp_path / "aac.mp4", "aac.mp4"), tmp_path / "out.mp4"
    note = replace(edit_of(source), fps=12.5).write(out)
    assert note == f"sound left out: {source} has another frame rate than the result"
    assert streams(out)[1] == []
    assert probe(out).fps == 12.5


def test_odd_sides_gain_a_row_and_a_column(tmp_path: Path) -> None:
    source, out = make(tmp_path / "aac.mp4", "aac.mp4"), tmp_path / "out.mp4"
    edit = edit_of(source)
    cut = edit.frames[:, :63, :95]
    replace(edit, frames=cut).write(out)
    assert (probe(out).height, probe(out).width) == (64, 96)
    assert streams(out)[1]


def test_a_source_that_is_gone_leaves_nothing_half_written(tmp_path: Path) -> None:
    source, out = make(tmp_path / "aac.mp4", "aac.mp4"), tmp_path / "out.mp4"
    edit = edit_of(source)
    source.unlink()
    with pytest.raises(MediaError, match="no such file"):
        edit.write(out)
    assert list(tmp_path.iterdir()) == []


def test_what_was_kept_is_measured_outside_of_the_change() -> None:
    rng = np.random.default_rng(0)
    source = rng.integers(40, 200, (40, 32, 48, 3)).astype(np.uint8)
    assert measure(source, source, None).describe() == "nothing changed: all is equal"
    assert (
        measure(source + np.uint8(1), source, None).describe()
        == "nothing changed: 48.1 dB, colours off by 1.0"
    )
    edit = source.copy()
    edit[:, 8:24, 8:24] = 255 - edit[:, 8:24, 8:24]
    inside = np.zeros(source.shape[:3], bool)
    inside[:, 8:24, 8:24] = True
    edit[..., 0] += np.where(inside, 0, 2).astype(np.uint8)  # red moved elsewhere
    kept = measure(edit, source, inside)
    assert kept.changed == pytest.approx(inside.mean())
    assert kept.drift == pytest.approx(2)
    assert kept.psnr == pytest.approx(10 * np.log10(255**2 / (4 / 3)))
    assert kept.describe() == "16.7% edited, elsewhere 46.9 dB, colours off by 2.0"
    assert measure(edit, source, np.ones_like(inside)) == Preservation(1.0, None, None, False)
    found = measure(edit, source, None)  # by comparing: most of the square, and nothing beyond its rim
    assert 0.8 * inside.mean() < found.changed < 1.3 * inside.mean()
    assert found.describe().startswith(f"{found.changed:.1%} changed, elsewhere ")
    for region, want in ((inside, kept), (None, found)):  # in blocks of any length
        meter = Meter()
        for a, b in ((0, 1), (1, 18), (18, 40)):
            meter.add(edit[a:b], source[a:b], None if region is None else region[a:b])
        assert meter.result() == want
