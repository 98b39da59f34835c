"""The editor: inputs of every kind, results of the source's size, refusals by name, save and load.

A random-weight model; what it makes is noise, that it is made right is what counts.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from model import Editor
from model.extras.compositing import composite
from model.extras.detail_transfer import change_map, limit_to_mask
from model.inference.instruction import check_instruction
from model.inference.templates import FORMS
from model.net.config import DiTConfig
from model.net.dit import DiT
from model.sequence.interleave import SequenceError
from model.sequence.pixels import to_pixels
from shards.errors import ConfigError
from shards.media import MediaError, probe, read_video, write_image, write_mask, write_video


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    t, y, x = np.mgrid[:7, :96, :128]
    return np.stack([x * 2, y * 2, 100 + 10 * t], -1).astype(np.uint8)


def test_a_second_video_is_fitted_to_the_first(editor: Editor, clip: np.ndarray, tmp_path: Path) -> None:
    write_video(tmp_path / "first.mp4", clip, 10)
    write_video(
        tmp_path / "slow.mp4", clip[:3, ::-1], 5
    )  # shown twice as long: frames 0 0 1 1 2 2, then held
    first, slow = (read_video(tmp_path / f"{name}.mp4")[0] for name in ("first", "slow"))
    text = "<video1> Do as in <video2>."
    options = {"video1": tmp_path / "first.mp4"}
    made = editor(text, video2=tmp_path / "slow.mp4", **options)
    assert made.notes == ("video2: from 5 to 10 frames per second", "video2: last frame held for 1 frames")
    assert "last frame held" in made.describe()
    assert np.array_equal(made.frames, editor(text, video2=slow[[0, 0, 1, 1, 2, 2, 2]], **options).frames)
    longer = editor(text, video2=np.concatenate([first, slow]), **options)
    assert longer.notes == ("video2: last 3 frames left out",)
    assert np.array_equal(longer.frames, editor(text, video2=first, **options).frames)


def test_a_stretch_of_a_video_is_edited(editor: Editor, clip: np.ndarray, tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4", clip, 10)
    frames, _ = read_video(tmp_path / "in.mp4")
    masks = np.zeros(clip.shape[:3], bool)
    masks[2:5, 20:60, 20:60] = True
    text = "Remove what is inside <mask> in <video1>."
    want = editor(text, video1=frames[2:5], mask=masks[2:5], fps=10)
    for mask in (masks, masks[2:5]):  # of the whole video, or of the stretch
        made = editor(text, video1=tmp_path / "in.mp4", mask=mask, frames=(2, 5))
        assert np.array_equal(made.frames, want.frames)
    assert made.origin is not None
    assert made.origin.start == 2
    for span, said in (((5, 5), "holds no frames"), ((7, 9), "no frames between 7 and 9")):
        with pytest.raises((SequenceError, MediaError), match=said):
            editor(text, video1=tmp_path / "in.mp4", mask=masks, frames=span)
    with pytest.raises(SequenceError, match="needs a video"):
        editor("<image1> Make it night.", image1=frames[0], frames=(0, 1))


def test_files_arrays_tensors_and_pictures_agree(editor: Editor, clip: np.ndarray, tmp_path: Path) -> None:
    write_video(tmp_path / "in.mp4", clip, 12.5)
    frames, fps = read_video(tmp_path / "in.mp4")
    text = "<video1> Remove the dog."
    from_file = editor(text, video1=tmp_path / "in.mp4")
    assert from_file.frames.shape == (7, 96, 128, 3)  # the source's size, the model's is 48x64
    assert from_file.fps == fps == 12.5
    same = [
        editor(text, video1=str(tmp_path / "in.mp4")),
        editor(text, video1=(tmp_path / "in.mp4").read_bytes()),
        editor(text, video1=frames),
        editor(text, video1=torch.from_numpy(frames)),
        editor(text, video1=torch.from_numpy(frames).float() / 255),
        editor(text, video1=[Image.fromarray(f) for f in frames]),
        editor(text + " <video2>", video1=frames),
    ]
    for other in same:
        assert np.array_equal(other.frames, from_file.frames)
    assert not np.array_equal(editor(text, video1=frames, seed=1).frames, from_file.frames)
    assert not np.array_equal(editor("<video1> Add a cat.", video1=frames).frames, from_file.frames)

    from_file.save(tmp_path / "out.mp4")
    info = probe(tmp_path / "out.mp4")
    assert (info.frames, info.height, info.width, info.fps) == (7, 96, 128, 12.5)


def test_images_masks_and_generation(editor: Editor, clip: np.ndarray, tmp_path: Path) -> None:
    write_image(tmp_path / "in.png", clip[0])
    image = editor("<image1> Make it night.", image1=tmp_path / "in.png")
    assert image.still
    assert image.frames.shape == (1, 96, 128, 3)
    image.save(tmp_path / "out.png")
    assert Image.open(tmp_path / "out.png").size == (128, 96)

    masks = np.zeros(clip.shape[:3], bool)
    masks[:, 20:50, 30:60] = True
    write_mask(tmp_path / "mask.mkv", masks, 10.0)
    text = "<video1> Remove what <mask> marks. <video2>"
    marked = editor(text, video1=clip, mask=tmp_path / "mask.mkv")
    assert np.array_equal(marked.frames, editor(text, video1=clip, mask=masks).frames)
    assert not np.array_equal(marked.frames, editor(text, video1=clip, mask=~masks).frames)

    made = editor("A street at night.", frames=3, size=(48, 64))
    assert made.frames.shape == (3, 48, 64, 3)
    animated = editor("<image1> Let it move. <video1>", image1=clip[0], frames=3)
    assert animated.frames.shape == (3, 96, 128, 3)


def test_a_list_gives_what_each_gives_alone(editor: Editor, clip: np.ndarray) -> None:
    texts = ["<video1> Remove the dog.", "<image1> Make it night.", "<video1> Remove what <mask> marks."]
    masks = np.zeros(clip.shape[:3], bool)
    masks[:, 20:50] = True
    media = {"video1": [clip, None, clip[:5]], "image1": [None, clip[0], None], "mask": [None, None, masks]}
    ticks: list[tuple[int, int]] = []
    together = editor(texts, **media, progress=lambda *tick: ticks.append(tick))
    assert ticks == [(n + 1, 8) for n in range(8)]  # 7 frames take two windows
    for i, edit in enumerate(together):
        alone = editor(texts[i], **{name: values[i] for name, values in media.items()})
        # those of one window are sampled side by side, with other roundings
        assert np.abs(edit.frames.astype(int) - alone.frames).max() <= 1
        assert edit.still == alone.still == (i == 1)
    with pytest.raises(SequenceError, match="video1: 3 texts need a list of 3 media, got 2 values"):
        editor(texts, video1=[clip, clip])
    with pytest.raises(SequenceError, match="video1: 3 texts need a list of 3 media, got ndarray"):
        editor(texts, video1=clip[:3])
    with pytest.raises(SequenceError, match="the list is empty"):
        editor([])


def test_every_task_form_runs(editor: Editor, clip: np.ndarray) -> None:
    pictures = {"video": clip[:5], "image": clip[0]}
    for form in FORMS:
        media = {name: pictures[name.rstrip("0123456789")] for name in form.sources}
        edit = editor(form.filled, steps=1, **media)
        assert edit.still == form.target.startswith("image"), form.name
        assert len(edit.frames) == (1 if edit.still else 5), form.name


def test_sizes(editor: Editor, clip: np.ndarray, tmp_path: Path) -> None:
    odd = clip[:5, :95, :127]
    edit = editor("<video1> Go.", video1=odd)
    assert edit.frames.shape == (5, 95, 127, 3)
    edit.save(tmp_path / "odd.mp4")
    assert (probe(tmp_path / "odd.mp4").height, probe(tmp_path / "odd.mp4").width) == (96, 128)
    assert editor("<video1> Go.", video1=odd, size="model").frames.shape == (5, 48, 64, 3)
    assert editor("<video1> Go.", video1=odd, size=(64, 80)).frames.shape == (5, 64, 80, 3)
    for size in ((50, 64), (48, 0), (48.5, 64)):
        with pytest.raises(SequenceError, match="size: height and width must divide by 16"):
            editor("<video1> Go.", video1=odd, size=size)


def test_guidance_interval_solvers_and_dtypes(editor: Editor, clip: np.ndarray, tmp_path: Path) -> None:
    video = clip[:5]

    def made(**changes: Any) -> np.ndarray:
        inference = dataclasses.replace(editor.config.inference, **changes)
        config = dataclasses.replace(editor.config, inference=inference)
        frames: np.ndarray = Editor(editor.dit, config)("<video1> Go.", video1=video).frames
        return frames

    plain, guided = made(), made(guidance=4.0)
    assert np.array_equal(made(guidance=4.0, interval=(0.9, 1.0)), plain)  # steps at 0 and 0.5
    assert not np.array_equal(made(guidance=4.0, interval=(0.5, 1.0)), guided)
    assert not np.array_equal(made(guidance=4.0, rescale=0.7), guided)
    solved = {solver: made(solver=solver, steps=8) for solver in ("euler", "midpoint", "unipc")}
    assert len({frames.tobytes() for frames in solved.values()}) == 3
    for frames in solved.values():
        assert np.abs(frames.astype(int) - solved["midpoint"]).mean() < 20
    for changes, message in (
        ({"interval": (0.5, 0.2)}, "interval"),
        ({"rescale": 2.0}, "rescale"),
        ({"solver": "heun"}, "solver: 'heun' is none of"),
    ):
        with pytest.raises(ValueError, match=message):
            made(**changes)
    with pytest.raises(SequenceError, match="solver: 'heun' is none of"):
        editor("<video1> Go.", video1=video, solver="heun")

    editor.save_pretrained(tmp_path)
    half = Editor.from_pretrained(tmp_path, dtype="bfloat16")
    assert {p.dtype for p in half.dit.parameters()} == {torch.bfloat16}
    difference = np.abs(half("<video1> Go.", video1=video).frames.astype(int) - plain)
    assert 0 < difference.mean() < 6


def test_cached_context_edits_are_those_of_recomputation(editor: Editor, clip: np.ndarray) -> None:
    full = dataclasses.replace(editor.config.dit, depth=2)  # with one block the context has no say
    cached = dataclasses.replace(full, context="cached")
    torch.manual_seed(0)
    weights = DiT(full)
    weights.out.weight.data.normal_(std=0.2)

    def made(dit_config: DiTConfig, reuse: bool = True) -> tuple[np.ndarray, int]:
        dit = DiT(dit_config).eval()
        dit.load_state_dict(weights.state_dict())  # the same weights fit either way
        if not reuse:
            dit.config = (
                full  # the layers are built: the network keeps its cached context, but no longer says so
            )
        config = dataclasses.replace(editor.config, dit=dit_config)
        with FlopCounterMode(display=False) as counter:
            frames: np.ndarray = Editor(dit, config)("<video1> Go.", video1=clip[:5], guidance=3.0).frames
        return frames, counter.get_total_flops()

    reused, few = made(cached)
    recomputed, many = made(cached, reuse=False)
    assert few < many
    assert np.abs(reused.astype(int) - recomputed).max() <= 1
    assert not np.array_equal(reused, made(full)[0])


def test_guidance_and_progress(editor: Editor, clip: np.ndarray) -> None:
    ticks: list[tuple[int, int]] = []
    plain = editor("<video1> Go.", video1=clip[:5], progress=lambda *tick: ticks.append(tick))
    assert ticks == [(1, 2), (2, 2)]
    guided = editor("<video1> Go.", video1=clip[:5], guidance=4.0)
    assert not np.array_equal(plain.frames, guided.frames)


@pytest.mark.parametrize(
    ("text", "media", "message"),
    [
        (" ", {"video1": 0}, "the text is empty"),
        ("Remove the dog.", {"video1": 0}, "'video1' is given but the text does not name <video1>"),
        ("<video1> Remove <mask>.", {"video1": 0}, "names <mask> but no such media"),
        ("<video1> and <video2> make <video3>", {"video1": 0}, r"names <video2> but .* \(--video2 FILE\)"),
        ("<video1> Put <image1> on <image2>. <video2>", {}, "names <video1>, <image1>, <image2> but no such"),
        ("<video1> Remove the ball.", {}, r"names <video1> but no such media is given \(--video1 FILE\)"),
        ("Remove the ball from <video1>.", {}, "names <video1> but no such media"),
        ("<image1> Make it night.", {}, "names <image1> but no such media"),
        ("<video1> Put <image1> in the water.", {"video1": 0}, "names <image1> but no such media"),
        ("Remove what is marked. <mask>", {}, "names <mask> but no such media"),
        ("<video1>", {}, "the text is empty"),
        ("<video1>", {"video1": 0}, "the text is empty"),
        ("<video1> Go.", {"video1": 0, "sound": 0}, "'sound'"),
        ("<video1> Go. <video1>", {"video1": 0}, "<video1> more than once"),
        ("<video1> <video2>", {"video1": 0}, "the text is empty"),
        ("<video1> Show <v2>.", {"video1": 0}, "the text names <v2>: tags are <video1>"),
        ("<video1> Put <image1> in.", {"video1": 0, "image1": 0}, "image1: is a video of 7 frames"),
    ],
)
def test_text_and_media_that_disagree(
    editor: Editor, clip: np.ndarray, text: str, media: dict[str, int], message: str
) -> None:
    with pytest.raises(SequenceError, match=message):
        editor(text, **dict.fromkeys(media, clip))  # type: ignore[arg-type]


def test_every_form_asks_for_each_of_its_media() -> None:
    for form in FORMS:
        given = dict.fromkeys(form.sources, "file")
        instruction = check_instruction(form.filled, given)
        assert (instruction.text, instruction.target) == (form.filled, form.target), form.name
        for missing in given:
            with pytest.raises(SequenceError, match=f"names <{missing}> but no such media"):
                check_instruction(form.filled, [name for name in given if name != missing])


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("A dog runs on the beach. <video1>", "video1"),
        ("A dog runs on the beach <image1> \n", "image1"),
        ("A dog runs. <video1>.", "video1"),
        ("A dog runs.", "video1"),
    ],
)
def test_a_text_that_ends_in_the_free_tag_generates(text: str, target: str) -> None:
    assert check_instruction(text, {}).target == target


def test_the_target_can_be_named_where_the_text_does_not_end_in_it(editor: Editor, clip: np.ndarray) -> None:
    text = "<video2> is <video1> without the dog."
    with pytest.raises(SequenceError, match="names <video2> but no such media"):
        editor(text, video1=clip[:5])
    assert editor(text, video1=clip[:5], target="video2", steps=1).frames.shape == clip[:5].shape
    for wrong in ("video1", "video3"):
        with pytest.raises(SequenceError, match=f"target '{wrong}': must be a video or image that the text"):
            editor(text, video1=clip[:5], target=wrong)


def test_values_out_of_range_are_named(editor: Editor, clip: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(SequenceError, match="steps: needs at least 1"):
        editor("<video1> Go.", video1=clip, steps=0)
    with pytest.raises(SequenceError, match="frames: needs at least 1"):
        editor("<video1> Go.", video1=clip, frames=0)
    with pytest.raises(SequenceError, match="video1: 7 frames are too few for a result of 30"):
        editor("<video1> Go.", video1=clip, frames=30)
    with pytest.raises(SequenceError, match=r"frames: 6 are too many without a video to follow; .* makes 5"):
        editor("A street.", frames=6)
    with pytest.raises(SequenceError, match="<image2> is an image, it has one frame, not 3"):
        editor("<image1> Go.", image1=clip[0], frames=3)
    with pytest.raises(SequenceError, match="fps: must be above 0"):
        editor("<video1> Go.", video1=clip, fps=0.0)
    with pytest.raises(SequenceError, match="video1: is a single picture; name it image1"):
        editor("<video1> Go.", video1=clip[0])
    with pytest.raises(SequenceError, match=r"video1: float pixels must lie in \[0, 1\]"):
        editor("<video1> Go.", video1=clip.astype(np.float32))
    with pytest.raises(SequenceError, match="video1: needs"):
        editor("<video1> Go.", video1=np.zeros((3, 4), np.uint8))
    for empty in ("", b""):
        with pytest.raises(SequenceError, match="video1: is empty; give a file"):
            editor("<video1> Go.", video1=empty)
    with pytest.raises(SequenceError, match="video1: cannot use a int"):
        editor("<video1> Go.", video1=3)
    with pytest.raises(MediaError, match=r"nowhere\.mp4"):
        editor("<video1> Go.", video1=tmp_path / "nowhere.mp4")


def test_save_load_edit_again_is_identical(editor: Editor, clip: np.ndarray, tmp_path: Path) -> None:
    editor.save_pretrained(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    again = Editor.from_pretrained(tmp_path / "model")
    assert again.config == editor.config
    before, after = (e("<video1> Go.", video1=clip, seed=3).frames for e in (editor, again))
    assert np.array_equal(before, after)


def test_damaged_checkpoints_are_named(editor: Editor, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: not found"):
        Editor.from_pretrained(tmp_path)
    folder = editor.save_pretrained(tmp_path / "model")
    weights, config = folder / "model.safetensors", folder / "config.json"
    whole, settings_ = weights.read_bytes(), json.loads(config.read_text())

    weights.write_bytes(whole[:-100])
    with pytest.raises(ConfigError, match=r"model\.safetensors.*complete"):
        Editor.from_pretrained(folder)
    weights.unlink()
    torch.save({}, folder / "model.pt")
    with pytest.raises(ConfigError, match=r"model\.safetensors: not found.*model\.pt is a pickle"):
        Editor.from_pretrained(folder)
    with pytest.raises(ConfigError, match=r"model\.pt is a pickle, which can run code"):
        Editor.from_pretrained(folder / "model.pt")
    weights.write_bytes(whole)

    def with_setting(section: str, **changes: object) -> str:
        return json.dumps({**settings_, section: {**settings_[section], **changes}})

    for text, message in (
        (with_setting("dit", width=64, heads=4), "does not fit"),
        (with_setting("dit", colour=1), "unknown field 'colour'"),
        (with_setting("dit", depth="two"), r"dit\.depth: expected int"),
        (with_setting("flow", prediction="noise"), r"flow\.prediction: 'noise' is none of"),
        (with_setting("sequence", patch=1), "the encoders give"),
        (with_setting("inference", steps=0), "inference: steps: needs at least 1"),
        (json.dumps({**settings_, "model_type": "llama"}), "model_type: 'llama' is none of editverse"),
        ("{", "config.json"),
    ):
        config.write_text(text)
        with pytest.raises(ConfigError, match=message):
            Editor.from_pretrained(folder)


def test_hub_repositories_come_from_the_local_cache(
    editor: Editor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789" * 4
    repository = tmp_path / "models--somebody--editor"
    editor.save_pretrained(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for options in ({}, {"revision": "main"}, {"revision": commit}):
        assert Editor.from_pretrained("somebody/editor", **options).config == editor.config
    with pytest.raises(ConfigError, match="nobody/editor: no such folder here, and the model hub"):
        Editor.from_pretrained("nobody/editor")


def test_weights_that_are_not_finite_are_refused(editor: Editor, tmp_path: Path) -> None:
    dit = DiT(editor.config.dit)
    with torch.no_grad():
        dit.bounds[0, 0] = float("nan")
    Editor(dit, editor.config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="'bounds' holds values that are not finite"):
        Editor.from_pretrained(tmp_path)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_carry_over_keeps_edits_and_returns_detail(frames: int) -> None:
    torch.manual_seed(0)
    detail = torch.rand(frames, 40, 40, 3) * 0.4 - 0.2  # what a codec dropped
    coded = torch.zeros(frames, 40, 40, 3)
    edit = coded + 0.01 * torch.randn(coded.shape)
    edit[:, 10:30, 10:30] = 0.9
    edited = change_map(edit, coded, blend_low=8, blend_high=16)
    raw, source = to_pixels(edit), to_pixels(coded + detail)
    whole, changed = composite(raw, source, edited)
    assert np.array_equal(whole[:, :, 37:], source[:, :, 37:])
    assert np.array_equal(whole[:, 10:30, 10:30], raw[:, 10:30, 10:30])
    assert np.array_equal(changed, edited[..., 0].numpy() > 0)
    assert edited.min() == 0
    assert edited.max() == 1
    assert not change_map(coded, coded, 8, 16).any()
    with pytest.raises(ValueError, match="blend_low < blend_high"):
        change_map(coded, coded, 16, 8)


def test_carry_over_at_the_source_s_own_size() -> None:
    edited = torch.zeros(2, 8, 8, 1)
    edited[:, 2:4, 2:4] = 1
    edit = np.full((2, 32, 32, 3), 255, np.uint8)
    source = np.random.default_rng(0).integers(0, 128, edit.shape, np.uint8)
    whole, _ = composite(edit, source, edited)
    assert np.array_equal(whole[:, 20:], source[:, 20:])
    assert np.array_equal(whole[:, 11:13, 11:13], edit[:, 11:13, 11:13])
    assert (whole[:, 7, 11:13] > source[:, 7, 11:13]).all()  # the rim of what was enlarged is part of each
    assert (whole[:, 7, 11:13] < 255).all()


def test_carry_over_changes_nothing_far_outside_the_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(3, 24, 32, 3, generator=generator) * 2 - 1
    edit = -source
    mask = -torch.ones_like(source)
    mask[:, 8:16, 8:16] = 1
    edited = limit_to_mask(change_map(edit, source, 8, 16), mask)
    whole, _ = composite(to_pixels(edit), to_pixels(source), edited)
    assert np.array_equal(whole[:, 8:16, 8:16], to_pixels(edit)[:, 8:16, 8:16])
    outside = np.ones((24, 32), bool)
    outside[7:17, 7:17] = False
    assert np.array_equal(whole[:, outside], to_pixels(source)[:, outside])
    assert edited[:, outside].max() == 0
