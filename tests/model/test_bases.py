"""Published layouts in and out of the editor: what diffusers' own pipeline makes of them, we make too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

from model.cli import main
from model.config import InferenceConfig
from model.inference.bases import bases
from model.inference.diffusers_export import export_diffusers
from model.inference.diffusers_folder import read_pipeline
from model.inference.editor import Editor
from model.inference.pretrained import weight_shapes
from model.inference.sampler import sample
from model.net.wan_weights import diffusers_shape
from model.sequence.interleave import (
    TextElement,
    TokenSequence,
    VisionElement,
    build_sequence,
    patchify,
    unpatchify,
)
from shards.errors import ConfigError
from shards.media import probe, write_video
from tests.model.test_reference_encoders import tiny_vae
from tests.model.wan_cases import SIZES, numbers, weights

WORDS = ["a", "red", "ball", "rolls", "dog", "remove", "the", "slowly", "."]
PROMPT, NEGATIVE = "A red ball rolls.", "the dog"
WIDTH = 32


def tiny_transformer(channels: int, name: str = "") -> WanTransformer3DModel:
    """Weights that are given by their names and `name`; outputs depend on everything."""
    net = WanTransformer3DModel(**SIZES | {"in_channels": channels, "out_channels": channels}).eval()
    net.load_state_dict(weights({n: p.shape for n, p in net.state_dict().items()}, name))
    with torch.no_grad():
        net.proj_out.weight.mul_(0.1)
    return net


def tiny_pipeline(**parts: Any) -> WanPipeline:
    """Wan 2.1's pipeline with tiny parts of the real kinds, or with others in their place."""
    letters = [(letter, -4.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    words = [(f"▁{word}", -1.0) for word in WORDS]
    torch.manual_seed(0)
    text = UMT5EncoderModel(
        UMT5Config(vocab_size=64, d_model=WIDTH, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    ).eval()
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    return WanPipeline(
        **{
            "tokenizer": T5Tokenizer(vocab=special + words + letters, extra_ids=0),
            "text_encoder": text,
            "transformer": tiny_transformer(16),
            "vae": tiny_vae(),
            "scheduler": scheduler,
            **parts,
        }
    )


def tiny_ti2v() -> WanPipeline:
    """Wan 2.2 TI2V: pictures of 4 x 16 x 16, a time per token."""
    sizes = {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12}
    sizes |= {"scale_factor_spatial": 16, "z_dim": 8, "latents_mean": [0.1] * 8, "latents_std": [0.7] * 8}
    vae = tiny_vae(**sizes, decoder_base_dim=4)
    return tiny_pipeline(vae=vae, transformer=tiny_transformer(8), expand_timesteps=True)


@pytest.fixture(scope="module")
def pipeline() -> WanPipeline:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def folder(pipeline: WanPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline as its own library stores it."""
    where = tmp_path_factory.mktemp("pipeline")
    pipeline.save_pretrained(where)
    return where


@pytest.fixture(scope="module")
def editor(folder: Path) -> Editor:
    return Editor.from_pretrained(folder)


def test_states_are_those_of_the_pipeline(pipeline: WanPipeline, editor: Editor) -> None:
    texts = [PROMPT, "", "the  dog &amp; the ball"]
    theirs, _ = pipeline.encode_prompt(texts, do_classifier_free_guidance=False, max_sequence_length=20)
    counts = editor.text_encoder.count(texts)
    assert counts[1] == 1  # </s> alone
    for ours, padded, count in zip(editor.text_encoder.encode(texts), theirs, counts, strict=True):
        assert len(ours) == count
        torch.testing.assert_close(ours, padded[:count], atol=1e-5, rtol=0)
        assert not padded[count:].any()


def to_tokens(latents: Tensor) -> Tensor:
    """[1, C, t, h, w] -> our tokens."""
    return patchify(latents[0].permute(1, 2, 3, 0), 2)


def compare(pipeline: WanPipeline, editor: Editor, guidance: float) -> None:
    """Ten steps of both from the same noise: latents to 1e-4 of the largest, and the decoded video."""
    s, channels = editor.vae.spatial, editor.vae.channels
    frames, height, width = 9, 4 * s, 6 * s
    size = (3, 4, 6)
    noise = numbers("noise", 1, channels, *size) * 1.5
    options: dict[str, Any] = {"height": height, "width": width, "num_frames": frames}
    options |= {"num_inference_steps": 10, "guidance_scale": guidance}
    made = [
        pipeline(PROMPT, NEGATIVE, **options, latents=noise.clone(), output_type=kind, return_dict=False)[0]
        for kind in ("latent", "np")
    ]

    def of(text: str) -> TokenSequence:
        states = editor.text_encoder.encode([text])[0]
        target = VisionElement("video1", torch.zeros(*size, channels), target=True)
        return build_sequence([TextElement(states), target], editor.config.sequence)

    inference = InferenceConfig(steps=10, guidance=guidance, solver="unipc_wan")
    with torch.no_grad():
        tokens = sample(editor.dit, of(PROMPT), of(NEGATIVE), to_tokens(noise), editor.config.flow, inference)
    expected = to_tokens(made[0])
    assert float((tokens - expected).abs().max()) < 1e-4 * float(expected.abs().max())
    video = editor.vae.decode(unpatchify(tokens, (3, size[1] // 2, size[2] // 2), 2))
    pixels = (video.clamp(-1, 1) + 1) / 2
    np.testing.assert_allclose(pixels.numpy(), made[1][0], atol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_ten_steps_and_the_decoded_video_are_those_of_the_pipeline(
    pipeline: WanPipeline, editor: Editor, guidance: float
) -> None:
    compare(pipeline, editor, guidance)


def test_wan_2_2_ti2v_with_its_own_autoencoder(tmp_path: Path) -> None:
    """Text to video with a time per token, and pictures of 4 x 16 x 16."""
    made = tiny_ti2v()
    made.save_pretrained(tmp_path)
    editor = Editor.from_pretrained(tmp_path)
    assert (editor.vae.spatial, editor.vae.temporal, editor.vae.channels) == (16, 4, 8)
    compare(made, editor, 4.0)


def test_two_experts_change_where_the_pipeline_changes_them(tmp_path: Path) -> None:
    """Wan 2.2 A14B: the second has other weights, and takes over below a noise of 0.875; exported, too."""
    made = tiny_pipeline(transformer_2=tiny_transformer(16, "second"), boundary_ratio=0.875)
    made.save_pretrained(tmp_path / "made")
    editor = Editor.from_pretrained(tmp_path / "made")
    compare(made, editor, 4.0)
    out = export_diffusers(editor, tmp_path / "out")
    for part in ("transformer", "transformer_2"):
        file = f"{part}/diffusion_pytorch_model.safetensors"
        ours, theirs = load_file(out / file), load_file(tmp_path / "made" / file)
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    saved = Editor.from_pretrained(editor.save_pretrained(tmp_path / "saved"))
    assert np.array_equal(edit(saved), edit(editor))


def edit(editor: Editor, **options: Any) -> np.ndarray:
    settings: dict[str, Any] = {"frames": 5, "size": (32, 48), "steps": 2, **options}
    frames: np.ndarray = editor("A red ball rolls. <video1>", **settings).frames
    return frames


def test_an_edit_from_the_folder_and_from_what_the_editor_saves(editor: Editor, tmp_path: Path) -> None:
    frames = edit(editor)
    assert frames.shape == (5, 32, 48, 3)
    assert frames.std() > 5
    saved = Editor.from_pretrained(editor.save_pretrained(tmp_path / "saved"))
    assert np.array_equal(edit(saved), frames)
    assert not np.array_equal(edit(editor, guidance=1.0), frames)


def test_the_command_edits_with_the_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "in.mp4"
    write_video(clip, np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8), 16)
    words = ["--checkpoint", str(folder), "--text", "<video1> Remove the dog.", "--video1", str(clip)]
    words += ["--steps", "2", "--video_guidance", "1.5", "--device", "cpu"]
    assert main(["edit", *words, "--out", str(tmp_path / "out.mp4")]) == 0
    assert "5 frames" in capsys.readouterr().out
    assert probe(tmp_path / "out.mp4").frames == 5


def test_an_export_is_the_folder_again(
    editor: Editor, folder: Path, pipeline: WanPipeline, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Byte by byte, through a checkpoint of ours; and diffusers loads it and gives its own result."""
    saved, out = editor.save_pretrained(tmp_path / "saved"), tmp_path / "out"
    words = ["export", "--checkpoint", str(saved), "--out", str(out), "--format", "diffusers"]
    assert main([*words, "--dtype", "float32"]) == 0
    assert str(out) in capsys.readouterr().out
    file = "transformer/diffusion_pytorch_model.safetensors"
    ours, theirs = load_file(out / file), load_file(folder / file)
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype, name
        assert torch.equal(ours[name], value), name
    loaded = WanPipeline.from_pretrained(out)
    options: dict[str, Any] = {"height": 32, "width": 48, "num_frames": 5, "num_inference_steps": 2}
    options |= {"latents": numbers("noise", 1, 16, 2, 4, 6), "output_type": "latent", "return_dict": False}
    assert torch.equal(loaded(PROMPT, **options)[0], pipeline(PROMPT, **options)[0])
    assert main(words) == 2
    assert "is there already" in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {"saved", "out"}


def test_sources_are_seen(editor: Editor) -> None:
    """Other sources, another result."""
    clips = np.random.default_rng(0).integers(0, 256, (2, 5, 32, 48, 3), dtype=np.uint8)
    results = [
        editor("<video1> Remove the dog.", video1=clip, steps=2, size="model").frames for clip in clips
    ]
    assert results[0].shape == results[1].shape
    assert not np.array_equal(*results)


def test_guidance_on_sources_apart_from_the_text(editor: Editor) -> None:
    """Scales of 1 cost and change nothing; others change the result, each its own way."""
    rng = np.random.default_rng(0)
    media = {"video1": rng.integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)}
    media["image1"] = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)

    def made(**options: float) -> np.ndarray:
        text = "<video1> Remove the dog. <image1>"
        frames: np.ndarray = editor(text + " <video2>", **media, steps=2, size="model", **options).frames
        return frames

    plain = made()
    assert np.array_equal(made(video_guidance=1.0, image_guidance=1.0), plain)
    changed = [made(video_guidance=2.0), made(image_guidance=2.0)]
    assert all(not np.array_equal(frames, plain) for frames in changed)
    assert not np.array_equal(*changed)


def test_files_in_parts_are_the_same(folder: Path, editor: Editor, tmp_path: Path) -> None:
    """As large transformers are published."""
    copy = shutil.copytree(folder, tmp_path / "parts")
    net = WanTransformer3DModel.from_pretrained(folder / "transformer")
    shutil.rmtree(copy / "transformer")
    net.save_pretrained(copy / "transformer", max_shard_size="100KB")
    assert len(list((copy / "transformer").glob("*.safetensors"))) > 2
    theirs = Editor.from_pretrained(copy).dit.state_dict()
    for name, value in editor.dit.state_dict().items():
        assert torch.equal(value, theirs[name]), name
    next(iter(sorted((copy / "transformer").glob("*.safetensors")))).unlink()
    with pytest.raises(ConfigError, match="is the download complete"):
        Editor.from_pretrained(copy)


def test_bernini_s_folder_is_read_with_its_phases_and_times(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "bernini")
    (copy / "model_index.json").unlink()
    settings = {"model_type": "bernini_renderer", "skip_transformer_2": True, "shift": 5.0}
    (copy / "config.json").write_text(json.dumps(settings))
    loaded, plain = Editor.from_pretrained(copy), Editor.from_pretrained(folder)
    assert loaded.config.flow.shift == 5.0
    assert loaded.dit.config.rope.source
    assert loaded.dit.config.source_time == "target"
    clip = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)
    ours, theirs = (
        e("<video1> Remove the dog.", video1=clip, steps=2, size="model").frames for e in (loaded, plain)
    )
    assert not np.array_equal(ours, theirs)


def test_weights_beyond_the_memory_are_refused_before_they_are_read(folder: Path, tmp_path: Path) -> None:
    """A transformer of more than 200 GiB in a file that takes no room on the disk."""
    copy = shutil.copytree(folder, tmp_path / "huge")
    rewrite(copy / "transformer" / "config.json", ffn_dim=1 << 19, num_layers=1024)
    shapes = weight_shapes(read_pipeline(copy).network)
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * shape.numel()
        shape = diffusers_shape(name, shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    data = json.dumps(header).encode()
    with (copy / "transformer" / "diffusion_pytorch_model.safetensors").open("wb") as file:
        file.write(len(data).to_bytes(8, "little") + data)
        file.truncate(8 + len(data) + end)
    with pytest.raises(ConfigError, match=r"take \d{3}\.\d GiB, and .* are free on cpu: choose --dtype"):
        Editor.from_pretrained(copy)


def test_bases_are_listed_with_their_sizes_and_whether_they_are_here(
    capsys: pytest.CaptureFixture[str],
) -> None:
    by_name = {base.repository.partition("/")[2]: base for base in bases()}
    assert by_name["Wan2.1-T2V-1.3B-Diffusers"].parameters == 1_418_996_800
    assert by_name["Wan2.2-TI2V-5B-Diffusers"].parameters == 4_999_787_712
    assert main(["bases"]) == 0
    rows = {line.split("│")[1].strip(): line for line in capsys.readouterr().out.splitlines() if "/" in line}
    assert set(rows) == {base.repository for base in bases()}
    row = rows["ByteDance/Bernini-R-1.3B-Diffusers"]
    assert all(word in row for word in ("Apache-2.0", "1.42 B", " no "))


def rewrite(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def spoil(folder: Path, fault: str) -> None:
    """Damage a copy of the pipeline."""
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    name = "blocks.1.attn1.to_q.bias"
    state = load_file(file)
    changes: dict[str, dict[str, Tensor]] = {
        "unknown": {"extra.weight": torch.zeros(2)},
        "shape": {name: torch.zeros(7)},
        "not finite": {name: state[name] * torch.nan},
    }
    configs: dict[str, tuple[str, dict[str, Any]]] = {
        "another pipeline": ("model_index.json", {"_class_name": "StableDiffusionPipeline"}),
        "one expert of two": ("model_index.json", {"boundary_ratio": 0.875}),
        "another transformer": ("transformer/config.json", {"_class_name": "UNet2DConditionModel"}),
        "image to video": ("transformer/config.json", {"image_dim": 1280}),
        "shift in words": ("scheduler/scheduler_config.json", {"flow_shift": "high"}),
        "strides in words": ("vae/config.json", {"temperal_downsample": "all"}),
        "width in words": ("transformer/config.json", {"num_attention_heads": "two"}),
        "other sizes": ("transformer/config.json", {"num_layers": 4}),
    }
    if fault == "missing":
        save_file({n: v for n, v in state.items() if n != name}, file)
    elif fault in changes:
        save_file(state | changes[fault], file)
    elif fault in configs:
        rewrite(folder / configs[fault][0], **configs[fault][1])
    elif fault == "truncated":
        file.write_bytes(file.read_bytes()[:5000])
    elif fault == "pickle":
        file.rename(file.with_suffix(".bin"))
    else:
        shutil.rmtree(folder / "vae")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("missing", "weight 'blocks.1.attn1.to_q.bias' is missing"),
        ("unknown", "weight 'extra.weight' is unknown"),
        ("shape", r"'blocks.1.attn1.to_q.bias' is \[7\], not \[48\]"),
        ("not finite", "'blocks.1.attn1.to_q.bias' holds values that are not finite"),
        ("truncated", "is the download complete"),
        ("pickle", "diffusion_pytorch_model.bin is a pickle, which can run code"),
        ("another pipeline", "'StableDiffusionPipeline', not WanPipeline"),
        ("one expert of two", "transformer_2/config.json: .*is the download complete"),
        ("another transformer", "'UNet2DConditionModel', not WanTransformer3DModel"),
        ("image to video", "image_dim is 1280"),
        ("other sizes", "weight 'blocks.3.attn1.norm_k.weight' is missing"),
        ("shift in words", "a setting of its parts is of another kind"),
        ("strides in words", "a setting of its parts is of another kind"),
        ("width in words", "transformer/config.json: "),
        ("no vae", "vae/config.json: .*is the download complete"),
    ],
)
def test_a_folder_at_fault_is_one_line(folder: Path, tmp_path: Path, fault: str, words: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    spoil(copy, fault)
    with pytest.raises(ConfigError, match=words) as raised:
        Editor.from_pretrained(copy)
    assert "\n" not in str(raised.value)
