"""Windows of clips that are longer than the model's: a picture that is a frame of a clip keeps its place.

Real mp4s of 17 frames, cut to nine.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from model.data.batch import DataConfig
from model.data.dataset import EditDataset
from model.data.mixture import DatasetConfig
from model.encoders.text import MiniLM
from model.encoders.transform import TransformCodec
from model.training.config import FitConfig
from shards.media import read_video, write_image, write_video
from shards.sample import ClipRef, FrameOf, Media, Provenance, Sample, SampleError
from shards.writer import Item, write_shards

FRAMES = 17
SIZE = {"height": 48, "width": 64}
Open = Callable[[Item], EditDataset]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Videos of which no two frames are alike, and first and last frames of the first as pictures."""
    root = tmp_path_factory.mktemp("clips")
    y, x = np.mgrid[:48, :64]
    files = {}
    for name, length, tint in (
        ("video1", FRAMES, 0),
        ("video2", FRAMES, 60),
        ("short", 5, 30),
        ("other", 13, 90),
    ):
        frames = [np.stack([x * 3, y * 2 + tint, 0 * x + 14 * t], -1) for t in range(length)]
        files[name] = root / f"{name}.mp4"
        write_video(files[name], np.stack(frames).astype(np.uint8), 10.0)
    decoded = read_video(files["video1"])[0]
    for name, frame in (("first", 0), ("last", FRAMES - 1)):
        files[name] = root / f"{name}.png"
        write_image(files[name], decoded[frame])
    return files


def video(name: str, frames: int = FRAMES, fps: float = 10.0) -> Media:
    return Media(file=f"{name}.mp4", kind="video", frames=frames, fps=fps, **SIZE)


def image(name: str, frame_of: FrameOf | None = None) -> Media:
    return Media(file=f"{name}.png", kind="image", frames=1, frame_of=frame_of, **SIZE)


def sample(task: str, text: str, media: dict[str, Media], targets: tuple[str, ...] = ("video1",)) -> Sample:
    return Sample(
        key=task,
        task=task,
        text=text,
        targets=list(targets),
        media=media,
        provenance=Provenance(clip=ClipRef(sha256="0" * 64, name="clip", span=(0.0, 1.7))),
    )


@pytest.fixture
def opened(tmp_path: Path, fit_config: FitConfig) -> Open:
    """Opens a sample that was written to a shard, at nine frames."""

    def call(item: Item) -> EditDataset:
        write_shards(tmp_path / "shards", [item])
        rows = {"row": DatasetConfig(shards=(str(tmp_path / "shards"),))}
        return EditDataset(rows, "train", fit_config.model, TransformCodec(), MiniLM())

    return call


def first_latents(pairs: EditDataset, step: int, data: DataConfig) -> dict[str, torch.Tensor]:
    """Tokens of the first latent frame of every element of a visit."""
    sequence = pairs.example(0, 0, step, 0, data).sequence
    found, place = {}, 0
    for segment in sequence.segments:
        tokens = math.prod(segment.size)
        if tokens:
            found[segment.name] = sequence.vision[place : place + tokens // segment.size[0]]
            place += tokens
    return found


def windows_drawn(pairs: EditDataset, element: str, data: DataConfig, steps: int = 12) -> int:
    """How many different first frames of an element visits see."""
    seen = [first_latents(pairs, step, data)[element] for step in range(steps)]
    return len({tuple(tokens.flatten().tolist()) for tokens in seen})


@pytest.mark.parametrize("says", [True, False], ids=["frame_of", "older shards"])
@pytest.mark.parametrize("task", ["image_to_video", "propagation"])
def test_a_first_frame_stays_the_first(opened: Open, clips: dict[str, Path], task: str, says: bool) -> None:
    picture = image("image1", FrameOf(element="video1", frame=0) if says else None)
    media = {"image1": picture, "video1": video("video1"), "video2": video("video2")}
    text = "<video2> edit the video following the first frame <image1>. <video1>"
    files = {"image1": clips["first"], "video1": clips["video1"], "video2": clips["video2"]}
    if task == "image_to_video":
        text = "<image1> It moves. <video1>"
        del media["video2"], files["video2"]
    pairs = opened((sample(task, text, media), files))
    record, entry = pairs.record(0), pairs.entry(0)
    for crops in (None, 1, 2, 5):
        data = DataConfig(crops=crops, text_drop_prob=0.0)
        (window,) = pairs.windows(entry, "video1", crops)
        assert window == {n: (0, 1) if n == "image1" else (0, 9) for n in media}
        shown = pairs.frames(record, "video1", window["video1"])
        assert np.array_equal(shown[0], pairs.frames(record, "image1", window["image1"])[0])
        for step in range(4):
            tokens = first_latents(pairs, step, data)
            assert torch.equal(tokens["image1"], tokens["video1"])


def test_a_picture_keeps_its_place(opened: Open, clips: dict[str, Path]) -> None:
    files = {"image1": clips["last"], "video1": clips["video1"]}
    for frame, start in ((16, 8), (8, 4), (0, 0), (15, 8), (1, 0)):
        media = {"image1": image("image1", FrameOf(element="video1", frame=frame)), "video1": video("video1")}
        pairs = opened((sample("ending", "<image1> ends it. <video1>", media), files))
        assert [w["video1"] for w in pairs.windows(pairs.entry(0), "video1", None)] == [(start, start + 9)]
        assert start <= frame < start + 9
        if frame == 16:
            shown = pairs.frames(pairs.record(0), "video1", (8, 17))
            assert np.array_equal(shown[-1], pairs.frames(pairs.record(0), "image1", (0, 1))[0])


def test_two_pictures_that_no_window_holds_are_refused(opened: Open, clips: dict[str, Path]) -> None:
    media = {
        "image1": image("image1", FrameOf(element="video1", frame=0)),
        "image2": image("image2", FrameOf(element="video1", frame=16)),
        "video1": video("video1"),
    }
    files = {"image1": clips["first"], "image2": clips["last"], "video1": clips["video1"]}
    pairs = opened((sample("between", "<image1> <image2> Fill in. <video1>", media), files))
    with pytest.raises(
        SampleError, match=r"between: image1 is frame 0 .* and image2 is frame 16 .*media.frames"
    ):
        pairs.example(0, 0, 0, 0, DataConfig())


def test_a_first_frame_that_is_the_clip_s_own_is_cut_with_it(opened: Open, clips: dict[str, Path]) -> None:
    """Under TI2V the picture's tokens are the window's own first ones, wherever it begins."""
    media = {"image1": image("image1", FrameOf(element="video1", frame=0)), "video1": video("video1")}
    files = {"image1": clips["first"], "video1": clips["video1"]}
    pairs = opened((sample("image_to_video", "<image1> It moves. <video1>", media), files))
    layout = dataclasses.replace(pairs.model.sequence, image_to_video="first_frame")
    pairs.model = dataclasses.replace(pairs.model, sequence=layout)
    assert windows_drawn(pairs, "image1", DataConfig(text_drop_prob=0.0)) > 4


def test_other_clips_are_cut_anywhere(opened: Open, clips: dict[str, Path]) -> None:
    """A picture of nothing in the clip, as of a customization, holds no window; crops do."""
    media = {"image1": image("image1"), "video1": video("video1")}
    files = {"image1": clips["first"], "video1": clips["video1"]}
    pairs = opened((sample("customization", "<image1> is in it. <video1>", media), files))
    assert len(pairs.windows(pairs.entry(0), "video1", None)) == 9
    assert windows_drawn(pairs, "video1", DataConfig(text_drop_prob=0.0)) > 4
    assert windows_drawn(pairs, "video1", DataConfig(crops=2, text_drop_prob=0.0)) == 2


def test_the_window_is_of_the_drawn_target(opened: Open, clips: dict[str, Path]) -> None:
    """Of targets of 13, 17 and 5 frames, the drawn one and those as long as it move; the others do not."""
    media = {"video1": video("video1", 13), "video2": video("video2"), "video3": video("video3", 5)}
    media["video4"] = video("video4")
    files = {"video1": clips["other"], "video2": clips["video1"], "video3": clips["short"]}
    files["video4"] = clips["video2"]
    told = sample("many", "<video4> a <video1> b <video2> c <video3>", media, ("video1", "video2", "video3"))
    pairs = opened((told, files))
    entry, data = pairs.entry(0), DataConfig(text_drop_prob=0.0)
    assert [w["video1"] for w in pairs.windows(entry, "video1", 2)] == [(0, 9), (4, 13)]
    assert [w["video2"] for w in pairs.windows(entry, "video1", 2)] == [(0, 9)] * 2
    assert [(w["video2"], w["video4"]) for w in pairs.windows(entry, "video2", 2)] == [
        ((0, 9),) * 2,
        ((8, 17),) * 2,
    ]
    assert [w["video1"] for w in pairs.windows(entry, "video2", 2)] == [(0, 9)] * 2
    assert pairs.windows(entry, "video3", None)[0] == {n: (0, min(9, m.frames)) for n, m in media.items()}
    moved = {"video1": set(), "video2": set(), "video3": set()}
    for step in range(40):
        target = pairs.example(0, 0, step, 0, data).sequence.target.name
        tokens = first_latents(pairs, step, data)
        moved[target].add(tuple(tuple(tokens[n].flatten().tolist()) for n in ("video1", "video2", "video4")))
    assert len(moved["video3"]) == 1
    for target, still in (("video1", (1, 2)), ("video2", (0,))):
        assert len(moved[target]) > 2
        assert all(len({seen[i] for seen in moved[target]}) == 1 for i in still)


@pytest.mark.parametrize(
    ("element", "frame", "message"),
    [
        ("video2", 0, "frame_of names 'video2', which is no video of it"),
        ("image1", 0, "frame_of names 'image1', which is no video of it"),
        ("video1", 17, "frame_of is frame 17 of 'video1', which has 17, counted from 0"),
    ],
)
def test_a_frame_that_is_not_there_is_named(element: str, frame: int, message: str) -> None:
    media = {"image1": image("image1", FrameOf(element=element, frame=frame)), "video1": video("video1")}
    with pytest.raises(ValueError, match=message):
        sample("image_to_video", "<image1> It moves. <video1>", media)
    with pytest.raises(ValueError, match="frame_of is for images"):
        Media(**video("video1").model_dump() | {"frame_of": FrameOf(element="video1", frame=0)})
