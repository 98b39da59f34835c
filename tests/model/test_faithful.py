"""Faithful edits: the source kept outside of the change, its mask saved, and bad input in one line."""

from __future__ import annotations

import dataclasses
import re
import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from model import Editor
from model.app.service import AppConfig, RequestRejected, check
from model.cli import main
from model.config import MediaConfig, ModelConfig, build_part
from model.encoders import Codec, TextEncoder
from model.extras.keeping import Keep, feather, keep_source, rim
from model.net.families import build_transformer
from model.sequence.interleave import SequenceError
from shards.errors import EditVerseError, SettingError
from shards.media import (
    MediaError,
    open_mask_file,
    probe,
    read_mask,
    read_video,
    resize,
    write_image,
    write_mask,
    write_video,
)
from shards.serialization import from_dict


@pytest.fixture(scope="module")
def source() -> np.ndarray:
    """uint8 [3, 60, 80, 3]: a smooth background, no level of which is at an end of its range."""
    t, y, x = np.mgrid[:3, :60, :80]
    return np.stack([60 + x, 60 + y, 100 + 10 * t + x // 2], -1).astype(np.uint8)


def marked(source: np.ndarray) -> tuple[np.ndarray, torch.Tensor]:
    """bool [T, H, W], where an edit is, and the change map at half the size."""
    inside = np.zeros(source.shape[:3], bool)
    inside[:, 20:40, 30:50] = True
    return inside, torch.from_numpy(inside[:, ::2, ::2, None].astype(np.float32))


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_outside_is_the_source_s_as_far_as_asked(source: np.ndarray, strength: float) -> None:
    inside, edited = marked(source)
    raw = source + np.uint8(20)
    kept = keep_source(raw, source, edited, Keep(strength))
    beyond = kept.mask == 0
    assert beyond.mean() > 0.7
    assert not (beyond & inside).any()
    gap = kept.frames.astype(int) - source
    assert (gap[beyond] == round(20 * (1 - strength))).all()
    assert (gap[:, 22:38, 32:48] == 20).all()


def test_the_rim_is_soft_and_as_wide_as_stated(source: np.ndarray) -> None:
    inside, _ = marked(source)
    white = np.repeat(np.where(inside, np.uint8(255), np.uint8(0))[..., None], 3, -1)
    for size in ((60, 80), (180, 240), (30, 41)):  # of the edit; the mask's is another
        raw = np.full((3, *size, 3), 255, np.uint8)
        kept = keep_source(raw, np.zeros_like(source), torch.ones(3, 8, 8, 1), Keep(1), white)
        width = rim(size)
        assert width >= 2
        shown = resize(inside, size)
        assert (kept.mask[shown] == 255).all()
        rows, columns = np.where(shown[0])[0], np.where(shown[0])[1]
        top, left, bottom, right = rows.min(), columns.min(), rows.max(), columns.max()
        near = kept.mask[0] > 0
        assert np.where(near)[0].min() == top - width
        assert np.where(near)[0].max() == bottom + width
        assert np.where(near)[1].min() == left - width
        assert np.where(near)[1].max() == right + width
        for axis in (1, 2):  # what is seen where white meets black
            assert np.abs(np.diff(kept.frames.astype(int), axis=axis)).max() <= 255 / (width + 1) + 1
    single = np.zeros((60, 80), np.uint8)
    single[5, 5] = 100  # a soft region keeps its levels
    assert feather(single).max() == 100


def test_a_mask_of_one_frame_is_that_of_all(source: np.ndarray) -> None:
    inside, edited = marked(source)
    white = np.repeat(np.where(inside, np.uint8(255), np.uint8(0))[..., None], 3, -1)
    raw, everywhere = 255 - source, torch.ones_like(edited)
    whole = keep_source(raw, source, everywhere, Keep(1), white)
    still = keep_source(raw, source, everywhere, Keep(1), white[:1])
    assert np.array_equal(whole.frames, still.frames)
    assert np.array_equal(keep_source(raw, source, everywhere, Keep(1), 0 * white).frames, source)
    with pytest.raises(SettingError, match="mask: 2 frames for 3 of the edit"):
        keep_source(raw, source, everywhere, Keep(1), white[:2])


@pytest.mark.parametrize("strength", [1.5, float("nan")])
def test_strengths_out_of_range_are_named(strength: float) -> None:
    with pytest.raises(SettingError, match="keep: a number from 0 to 1"):
        Keep(strength)


def test_masks_are_written_one_by_one_and_to_the_level(tmp_path: Path) -> None:
    masks = np.random.default_rng(0).integers(0, 256, (4, 33, 47)).astype(np.uint8)
    with open_mask_file(tmp_path / "mask.mkv", 12.5) as write:
        for mask in masks:
            write(mask)
            assert not (tmp_path / "mask.mkv").exists()
    assert np.array_equal(read_mask(tmp_path / "mask.mkv"), masks > 127)
    with pytest.raises(MediaError, match="no frames to write"), open_mask_file(tmp_path / "none.mkv", 10):
        pass
    with open_mask_file(tmp_path / "two.mkv", 10) as write:
        write(masks[0])
        with pytest.raises(MediaError, match="frame 1 is"):
            write(masks[1][:20])
    assert np.array_equal(read_mask(tmp_path / "two.mkv"), masks[:1] > 127)
    assert [path.name for path in tmp_path.iterdir() if "none" in path.name] == []


def wan_editor() -> Editor:
    """Random weights of the tiny member of Wan's family."""
    settings = yaml.safe_load((Path(__file__).parents[2] / "configs/model/wan_tiny.yaml").read_text())
    config: ModelConfig = from_dict(ModelConfig, settings, "wan_tiny")
    vae = build_part(config.vae, Codec, "vae")
    text_encoder = build_part(config.text_encoder, TextEncoder, "text_encoder")
    vision = vae.channels * config.sequence.patch**2
    settings["transformer"]["init_args"].update(text_dim=text_encoder.width, vision_dim=vision)
    config = from_dict(ModelConfig, settings, "wan_tiny")
    torch.manual_seed(0)
    return Editor(build_transformer(config.network).eval(), config, vae, text_encoder)


@pytest.mark.parametrize("family", ["with transfer", "without", pytest.param("wan", marks=pytest.mark.slow)])
def test_every_editor_keeps_what_is_outside(editor: Editor, family: str) -> None:
    """Random weights change everything; what a mask leaves out, or where nothing is asked, stays."""
    y, x = np.mgrid[:60, :80]
    video = np.repeat(np.stack([60 + x, 60 + y, 90 + x // 2], -1).astype(np.uint8)[None], 5, 0)
    extras = dataclasses.replace(editor.config.extras, detail_transfer=family == "with transfer")
    config = dataclasses.replace(editor.config, extras=extras)
    maker = wan_editor() if family == "wan" else Editor(editor.dit, config)
    inside = np.zeros(video.shape[:3], bool)
    inside[:, 20:40, 30:50] = True
    text, media = "Change what <mask> marks in <video1>. <video2>", {"video1": video, "mask": inside}
    plain = maker(text, **media)
    assert plain.mask is None
    kept = maker(text, **media, keep=1)
    assert kept.mask is not None
    assert np.array_equal(kept.raw, plain.raw)
    assert np.array_equal(kept.frames[kept.mask == 0], video[kept.mask == 0])
    assert not kept.mask[:, :18].any()
    assert not kept.mask[:, :, 52:].any()
    assert not np.array_equal(kept.frames[inside], video[inside])
    assert kept.preservation is not None
    assert kept.preservation.psnr == np.inf
    half, none, off = (
        maker(text, **media, keep=0.5),
        maker(text, **media, keep=0),
        maker(text, **media, carry=False),
    )
    assert half.preservation is not None
    assert half.preservation.psnr is not None
    assert 0 < half.preservation.psnr < np.inf
    assert none.mask is None
    assert np.array_equal(none.frames, off.frames)
    nothing = maker(text, video1=video, mask=np.zeros_like(inside), keep=1)
    assert np.array_equal(nothing.frames, video)
    assert "nothing changed: all is equal" in nothing.describe()
    by_words = maker(
        "<image1> Make it night.", image1=video[0], keep=1
    )  # what the network changed is measured
    assert by_words.mask is not None
    assert np.array_equal(by_words.frames[by_words.mask == 0], video[:1][by_words.mask == 0])


@pytest.mark.parametrize(
    ("text", "given", "options", "said"),
    [
        ("<video1> Go.", ("video1",), {"keep": 1.5}, "keep: a number from 0 to 1"),
        ("<video1> Go.", ("video1",), {"keep": 0.5, "carry": False}, "carry false and keep 0.5 contradict"),
        ("<video1> Go.", ("video1",), {"keep": 0, "carry": True}, "carry true and keep 0 contradict"),
        ("<video1> Go.", ("video1",), {"keep": 0, "keep_faces": True}, "keep_faces: needs keep"),
        (
            "<image1> is put into <video1>.",
            ("image1", "video1"),
            {"keep": 1},
            "<video2> is no edit of <image1>, which the text names first",
        ),
        ("A street.", (), {"keep": 1, "frames": 3}, "<video1> is made of words alone"),
    ],
)
def test_what_cannot_be_kept_is_named(
    editor: Editor, source: np.ndarray, text: str, given: tuple[str, ...], options: dict[str, Any], said: str
) -> None:
    media = {"video1": source, "image1": source[0]}
    with pytest.raises(EditVerseError, match=said):
        editor(text, **options, **{name: media[name] for name in given})


def test_masks_of_another_length_are_held_or_cut_and_it_is_said(editor: Editor, source: np.ndarray) -> None:
    inside, _ = marked(source)
    text, wide = "Change what <mask> marks in <video1>.", resize(inside, (24, 32))
    held = editor(text, video1=source, mask=wide[:2])  # of another size too
    assert held.notes == ("mask: last frame held for 1 frames",)
    long = editor(text, video1=source, mask=np.concatenate([wide, wide]))
    assert long.notes == ("mask: last 3 frames left out",)
    assert np.array_equal(long.frames, editor(text, video1=source, mask=wide).frames)


@pytest.fixture(scope="module")
def checkpoint(editor: Editor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return editor.save_pretrained(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def command(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """`python -m model edit` in this process, into `out.mp4`: its status and its last line."""

    def run(text: str, *options: object) -> tuple[int, str]:
        begin = ["edit", "--checkpoint", str(checkpoint), "--steps", "1", "--out", str(tmp_path / "out.mp4")]
        status = main([*begin, "--text", text, *map(str, options)])
        said = capsys.readouterr()
        lines = (said.err if status else said.out).strip().splitlines()
        assert status == 0 or sum(line.startswith("error: ") for line in lines) == 1, said.err
        return status, lines[-1]

    return run


def ffmpeg(*arguments: object) -> None:
    subprocess.run(["ffmpeg", "-y", "-v", "error", *map(str, arguments)], check=True, timeout=60)


def test_the_command_says_what_was_kept_and_where_the_mask_is(
    command: Callable[..., tuple[int, str]], source: np.ndarray, tmp_path: Path
) -> None:
    write_video(tmp_path / "in.mp4", source, 10)
    inside, _ = marked(source)
    write_mask(tmp_path / "mask.mkv", inside, 10)
    write_image(tmp_path / "none.png", np.zeros((30, 40, 3), np.uint8))
    video, out = ("--video1", tmp_path / "in.mp4"), tmp_path / "out.mp4"
    status, line = command("<video1> Change <mask>.", *video, "--mask", tmp_path / "mask.mkv", "--keep", 1)
    assert status == 0
    assert f"elsewhere equal · no sound in the source · mask: {tmp_path / 'out.mask.mkv'}" in line
    share = read_mask(tmp_path / "out.mask.mkv")
    assert share[inside].all()
    assert share.mean() < inside.mean() + 0.06
    # The mask of another size and of one frame marks nothing: so nothing is changed, and it is said.
    options = ("--mask", tmp_path / "none.png", "--keep", 1)
    status, line = command("<video1> Change <mask>.", *video, *options)
    assert status == 0
    assert "nothing changed: all is equal" in line
    assert not read_mask(tmp_path / "out.mask.mkv").any()
    gap = read_video(out)[0].astype(int) - read_video(tmp_path / "in.mp4")[0]
    assert np.median(np.abs(gap)) <= 1
    assert np.abs(gap.mean(axis=(0, 1, 2))).mean() < 0.3


def test_bad_input_is_one_line_and_leaves_what_was_there(
    command: Callable[..., tuple[int, str]], source: np.ndarray, tmp_path: Path
) -> None:
    write_video(tmp_path / "in.mp4", source, 10)
    (tmp_path / "empty.mkv").touch()
    ffmpeg("-f", "lavfi", "-i", "sine=440:d=0.2", tmp_path / "sound.m4a")
    (tmp_path / "out.mp4").write_bytes(b"of an earlier edit")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    video = ("--video1", tmp_path / "in.mp4")
    marks = "<video1> Change <mask>."
    for text, options, said in (
        (marks, (*video, "--mask", tmp_path / "empty.mkv"), "empty.mkv: the file is empty"),
        (marks, (*video, "--mask", tmp_path / "sound.m4a"), "sound.m4a: no video stream"),
        ("<video1> Go.", (*video, "--frames", "3:3"), "frames: 3:3 holds no frames"),
        ("<video1> Go.", (*video, "--frames", "8:9"), "no frames between 8 and 9"),
        ("<video1> Go.", (*video, "--keep", "2"), "keep: a number from 0 to 1, got 2"),
        ("A street. <video1>", ("--keep", "1"), "keep: <video1> is made of words alone"),
    ):
        status, line = command(text, *options)
        assert status == 2, line
        assert said in line
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.slow
def test_a_disk_that_fills_up_leaves_nothing_half_written_and_what_is_finished(
    command: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 60, 80, 3)).astype(np.uint8)
    write_video(tmp_path / "in.mp4", noise, 10, crf=4)
    options = ("--video1", tmp_path / "in.mp4", "--keep", 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, before[1]))
    try:
        status, line = command("<video1> Go.", *options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert status == 2
    assert re.search(r"out\.(mp4|mask\.mkv): File too large$", line), line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4.parts"]
    status, line = command("<video1> Go.", *options)
    assert status == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mask.mkv", "out.mp4"]


@pytest.mark.slow
def test_a_variable_rate_becomes_constant_and_a_turned_picture_upright(
    command: Callable[..., tuple[int, str]], source: np.ndarray, tmp_path: Path
) -> None:
    write_video(tmp_path / "even.mp4", np.concatenate([source] * 2), 10)
    write_image(tmp_path / "none.png", np.zeros((30, 40, 3), np.uint8))
    uneven = ("-vf", "select='not(eq(n,3))'", "-fps_mode", "passthrough", "-c:v", "libx264")
    ffmpeg("-i", tmp_path / "even.mp4", *uneven, tmp_path / "uneven.mp4")
    turned = ("-c", "copy", "-metadata:s:v:0", "rotate=90")
    ffmpeg("-i", tmp_path / "even.mp4", *turned, tmp_path / "turned.mp4")
    for name, size in (("uneven.mp4", (60, 80)), ("turned.mp4", (80, 60))):
        info = probe(tmp_path / name)
        assert (info.variable_rate, info.rotation != 0) == (name == "uneven.mp4", name == "turned.mp4")
        options = ("--video1", tmp_path / name, "--mask", tmp_path / "none.png", "--keep", 1)
        status, line = command("<video1> Change <mask>.", *options)
        assert status == 0, line
        after = probe(tmp_path / "out.mp4")
        assert (after.frames, after.height, after.width) == (6, *size)
        assert (after.fps, after.variable_rate, after.rotation) == (10, False, 0)
        gap = read_video(tmp_path / "out.mp4")[0].astype(int) - read_video(tmp_path / name)[0]
        assert np.median(np.abs(gap)) <= 1


@pytest.mark.slow
def test_ten_minutes_of_4k_are_refused_before_they_are_decoded(editor: Editor, tmp_path: Path) -> None:
    picture = ("-f", "lavfi", "-i", "color=s=3840x2160:r=1:d=2", "-c:v", "libx264", "-preset", "ultrafast")
    ffmpeg(*picture, tmp_path / "two.mp4")
    ffmpeg("-stream_loop", 299, "-i", tmp_path / "two.mp4", "-c", "copy", tmp_path / "long.mp4")
    files, wide = {"video1": tmp_path / "long.mp4"}, MediaConfig(min_area=3072, max_area=6144, frames=5)
    began = time.process_time()
    with pytest.raises(RequestRejected, match="video1: 600 frames is too long, this page takes at most 300"):
        check(files, None, AppConfig())
    with pytest.raises(SequenceError, match=r"600 frames of 3840x2160 is 13.9 GiB, .* stream it into a file"):
        Editor(editor.dit, dataclasses.replace(editor.config, media=wide))("<video1> Go.", **files)
    assert time.process_time() - began < 2  # some 30 s to decode
