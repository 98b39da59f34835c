"""Editing with published weights: first frames, prompts, lengths, parts that take turns on a device."""

from __future__ import annotations

import dataclasses
import gc
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanImageToVideoPipeline, WanPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import UMT5EncoderModel

from model.cli import main
from model.config import MediaConfig
from model.encoders.umt5 import UMT5
from model.encoders.wan import WanVAE
from model.inference.editor import Editor
from model.inference.offload import PartSizes
from model.rng import keyed
from model.sequence.interleave import SequenceError, unpatchify
from model.sequence.prompts import NEGATIVE, prompt_of, task_of
from shards.errors import ConfigError
from shards.sample import split_text
from tests.model.test_bases import NEGATIVE as OTHER
from tests.model.test_bases import PROMPT, rewrite, tiny_pipeline, tiny_ti2v, tiny_transformer

TEXT_ENCODER = "You are a helpful assistant specialized in"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wan 2.1's pipeline as its own library stores it."""
    where = tmp_path_factory.mktemp("pipeline")
    tiny_pipeline().save_pretrained(where)
    return where


def small(folder: Path, **options: Any) -> Editor:
    """An editor that works on small pictures."""
    editor = Editor.from_pretrained(folder, **options)
    editor.config = dataclasses.replace(editor.config, media=MediaConfig(32 * 48, 32 * 48, frames=81))
    return editor


@pytest.fixture(scope="module")
def editor(folder: Path) -> Editor:
    return small(folder)


@pytest.fixture(scope="module")
def ti2v(tmp_path_factory: pytest.TempPathFactory) -> tuple[WanPipeline, Path]:
    made = tiny_ti2v()
    where = tmp_path_factory.mktemp("ti2v")
    made.save_pretrained(where)
    return made, where


class Kept(WanVAE):
    """Remembers the last latents that it decoded."""

    latents: Tensor

    def decode(self, latents: Tensor, size: tuple[int, int, int] | None = None) -> Tensor:
        self.latents = latents
        return super().decode(latents, size)


class Read(UMT5):
    """Remembers the last texts that it encoded."""

    texts: list[str]

    def encode(self, texts: list[str]) -> list[Tensor]:
        self.texts = texts
        return super().encode(texts)


def random_clip(frames: int, height: int = 32, width: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def test_a_picture_is_the_first_frame_as_in_the_pipeline(ti2v: tuple[WanPipeline, Path]) -> None:
    """Ten steps with guidance: latents to 1e-4 of the largest, and the frames of the decoded video."""
    made, where = ti2v
    parts = {n: getattr(made, n) for n in ("tokenizer", "text_encoder", "vae", "scheduler", "transformer")}
    theirs = WanImageToVideoPipeline(**parts, expand_timesteps=True)
    editor = Editor.from_pretrained(where)
    editor.vae = vae = Kept(**editor.config.vae["init_args"])
    height, width = 192, 320
    image = random_clip(1, height, width)[0]
    noise = torch.randn(3 * 6 * 10, 32, generator=keyed("edit", 7))
    options: dict[str, Any] = {"height": height, "width": width, "num_frames": 9, "num_inference_steps": 10}
    options |= {"guidance_scale": 4.0, "return_dict": False, "image": Image.fromarray(image)}
    options["latents"] = unpatchify(noise, (3, 6, 10), 2).permute(3, 0, 1, 2)[None]
    expected = theirs(prompt=PROMPT, negative_prompt=OTHER, **options, output_type="latent")[0]
    options["latents"] = options["latents"].clone()
    pixels = theirs(prompt=PROMPT, negative_prompt=OTHER, **options, output_type="np")[0][0]
    result = editor(
        f"<image1> {PROMPT} <video1>", image1=image, frames=9, steps=10, guidance=4.0, negative=OTHER, seed=7
    )
    assert result.frames.shape == (9, height, width, 3)
    assert result.fps == 24
    latents = expected[0].permute(1, 2, 3, 0)
    assert float((vae.latents - latents).abs().max()) < 1e-4 * float(latents.abs().max())
    np.testing.assert_allclose(result.frames / 255, pixels, atol=0.51 / 255)


def test_a_first_frame_cannot_be_left_out_or_alone(ti2v: tuple[WanPipeline, Path]) -> None:
    editor, image = Editor.from_pretrained(ti2v[1]), random_clip(1)[0]
    with pytest.raises(SequenceError, match="image_guidance: <image1> is the first frame"):
        editor("<image1> A ball. <video1>", image1=image, image_guidance=2.0)
    with pytest.raises(SequenceError, match="at least 5 are made, not 1"):
        editor("<image1> A ball. <video1>", image1=image, frames=1)
    both = editor("<image1> <image2> A ball. <video1>", image1=image, image2=image, frames=1, steps=1)
    assert len(both.frames) == 1  # two pictures are sources


def alive() -> list[int]:
    """How many text encoders and autoencoders there are, without waiting for a garbage collection."""
    kinds = [type(thing) for thing in gc.get_objects()]
    return [kinds.count(UMT5EncoderModel), kinds.count(AutoencoderKLWan)]


def test_parts_take_turns_and_nothing_changes(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Encoders are gone while the transformer works, and the text encoder while the autoencoder does."""
    caplog.set_level(logging.INFO)
    others, clip, counts, frames = alive(), random_clip(5), [], []
    for offload in (False, True):
        editor, seen = small(folder, offload=offload), []
        frames.append(
            editor(
                "<video1> Remove the dog.",
                video1=clip,
                steps=1,
                progress=lambda done, total, seen=seen: seen.append(alive()),
            ).frames
        )
        counts.append(np.array([*seen, alive()]) - others)
        del editor
    assert counts[0].tolist() == [[1, 1], [1, 1]]
    assert counts[1].tolist() == [[0, 0], [0, 1]]
    assert np.array_equal(*frames)
    lines = [record.message for record in caplog.records if "weights in GiB" in record.message]
    assert "now: all at once" in lines[0]
    assert "now: one part at a time" in lines[1]


def test_two_experts_take_turns(tmp_path: Path) -> None:
    made = tiny_pipeline(transformer_2=tiny_transformer(16, "second"), boundary_ratio=0.875)
    made.save_pretrained(tmp_path)
    editor = small(tmp_path, offload=True)
    offload, seen = editor.offload, []
    assert offload is not None
    names = {id(module): name for name, module in editor.dit.named_children()}
    options: dict[str, Any] = {"frames": 1, "size": "model", "steps": 6}
    for _ in range(2):  # the second begins with the second expert in place
        seen.append([])
        first = editor(
            "A red ball. <video1>",
            progress=lambda done, total: seen[-1].append(names[id(offload.resident)]),
            **options,
        ).frames
    assert seen[0] == seen[1]
    assert set(seen[0]) == {"transformer", "transformer_2"}
    assert seen[0] == sorted(seen[0])
    assert np.array_equal(first, small(tmp_path)("A red ball. <video1>", **options).frames)


def test_what_parts_take_is_said_in_one_line() -> None:
    sizes = PartSizes(text_encoder=10 << 30, vae=1 << 30, transformers=(26 << 30, 27 << 30))
    assert sizes.describe("cuda", True) == (
        "weights in GiB: text encoder 10.00, transformer 1 26.00, transformer 2 27.00, autoencoder 1.00; "
        "on cuda at most 27.00 with --offload, 64.00 without (now: one part at a time)"
    )
    assert sizes.peak("cpu", True) == 63 << 30
    assert sizes.peak("cpu", False) == 64 << 30


def test_the_command_says_what_is_needed_before_it_loads(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Of the parts' own dtypes: a text encoder in bfloat16 takes half of its float32 file."""
    caplog.set_level(logging.INFO)
    copy = shutil.copytree(folder, tmp_path / "copy")
    file = copy / "text_encoder" / "model.safetensors"
    save_file({"shared.weight": torch.zeros(1 << 22)}, file, metadata={"format": "pt"})
    Path(copy / "transformer" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    words = [
        "edit",
        "--checkpoint",
        str(copy),
        "--text",
        "A ball. <image1>",
        "--out",
        str(tmp_path / "a.png"),
    ]
    assert main([*words, "--device", "cpu", "--dtype", "bfloat16", "--offload", "true"]) == 2
    assert "is the download complete" in capsys.readouterr().err
    assert "text encoder 0.01," in caplog.text
    file.write_bytes(file.read_bytes()[:1000])
    assert main([*words, "--device", "cpu"]) == 2
    assert "text_encoder/model.safetensors: " in capsys.readouterr().err


def test_a_weight_that_overflows_in_float16_is_named(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    file = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state["blocks.1.attn1.to_q.bias"][0] = 1e6
    save_file(state, file)
    with pytest.raises(ConfigError, match=r"'blocks.1.attn1.to_q.bias' overflows in float16; use bfloat16"):
        Editor.from_pretrained(copy, dtype="float16")
    Editor.from_pretrained(copy, dtype="bfloat16")


def test_lengths_between_the_autoencoder_s_are_refused_by_name(editor: Editor) -> None:
    for frames, nearest in ((10, "9 and 13"), (4, "1 and 5"), (80, "77 and 81")):
        with pytest.raises(SequenceError, match=rf"not {frames}; the nearest are {nearest}"):
            editor("A red ball. <video1>", frames=frames)
    with pytest.raises(SequenceError, match="not 6; the nearest are 5 and 9"):
        editor("<video1> Remove the dog.", video1=random_clip(9), frames=6)


def test_a_source_of_another_length_is_filled_up_with_its_last_frame(editor: Editor) -> None:
    clip = random_clip(6)
    full = np.concatenate([clip, clip[-1:], clip[-1:], clip[-1:]])
    options: dict[str, Any] = {"steps": 1, "size": "model"}
    result = editor("<video1> Remove the dog.", video1=clip, frames=6, **options).frames
    assert len(result) == 6
    assert np.array_equal(result, editor("<video1> Remove the dog.", video1=full, **options).frames[:6])


TASKS = [
    ("A red ball. <video1>", "t2v", "A red ball.", "text-to-video generation"),
    ("A red ball. <image1>", "t2i", "A red ball.", "text-to-image generation"),
    ("<image1> Make it night. <image2>", "i2i", "Make it night.", "image editing"),
    ("<image1> It rolls. <video1>", "i2v", "It rolls.", "image-to-video generation"),
    ("The dog <image1> runs. <video1>", "r2v", "The dog from image0 runs.", "subject-to-video generation"),
    (
        "The dog of <image1> and <image2> meet. <image3>",
        "r2i",
        "The dog of image0 and image1 meet.",
        "subject-to-image generation",
    ),
    ("<video1> Remove the red ball. <video2>", "v2v", "Remove the red ball.", "video editing"),
    ("<video1> Use <mask> to remove it. <video2>", "v2v", "Use the mask to remove it.", "video editing"),
    ("Turn <video1>, slowly. <video2>", "v2v", "Turn the video, slowly.", "video editing"),
    (
        "<video1> Put the hat of <image1> on. <video2>",
        "rv2v",
        "Put the hat of the reference image on.",
        "video editing with reference",
    ),
    (
        "<video1> edit it following the first frame <image1>. <video2>",
        "rv2v",
        "edit it following the first frame.",
        "video editing with reference",
    ),
]


@pytest.mark.parametrize(("text", "task", "words", "sentence"), TASKS)
def test_prompts_read_naturally_and_begin_as_in_training(
    text: str, task: str, words: str, sentence: str
) -> None:
    parts = split_text(text)
    target = parts[-1][1]
    assert task_of(parts, target) == task
    assert prompt_of(parts, target, "bernini") == f"{TEXT_ENCODER} {sentence}.{words}"
    plain = (
        words.replace("image0", "image 1").replace("image1", "image 2").replace("reference image", "image")
    )
    if task == "r2v":
        plain = plain.replace("image 1", "the image")
    assert prompt_of(parts, target) == plain


def test_the_encoder_reads_the_prompt_and_what_it_should_not_be_like(folder: Path, tmp_path: Path) -> None:
    """Bernini's sentence and Wan's negative prompt for Bernini's weights alone; another one where asked."""
    copy = shutil.copytree(folder, tmp_path / "bernini")
    (copy / "model_index.json").unlink()
    (copy / "config.json").write_text("{}")
    rewrite(copy / "config.json", model_type="bernini_renderer", skip_transformer_2=True)
    options: dict[str, Any] = {"steps": 1, "frames": 1, "size": "model"}
    read = []
    for where, negative in ((folder, None), (copy, None), (copy, "the dog")):
        editor = small(where)
        editor.text_encoder = encoder = Read(**editor.config.text_encoder["init_args"])
        editor("A red ball. <video1>", negative=negative, **options)
        read.append(encoder.texts)
    prompt = f"{TEXT_ENCODER} text-to-video generation.A red ball."
    assert read == [["A red ball.", ""], [prompt, NEGATIVE], [prompt, "the dog"]]


def test_a_negative_prompt_needs_a_model_that_reads_one() -> None:
    with pytest.raises(SequenceError, match="negative: this model has no"):
        Editor.from_pretrained("nano")("A street.", negative="a dog")
