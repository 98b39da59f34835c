"""The reference encoders, on tiny real models: states and latents are those of transformers and diffusers.

The models have random weights and are saved and read as the published ones are.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch.nn.modules.module import register_module_forward_pre_hook

from model.encoders import build, part
from model.encoders.t5 import FlanT5, block_mask, pack_rows
from model.encoders.wan import WanVAE

WIDTH = 32
WORDS = ["a", "add", "and", "cat", "dog", "from", "hat", "large", "man"]
WORDS += ["red", "remove", "street", "the", "to", "very"]
TEXTS = [
    "add a hat",
    "remove the dog and the very large cat from the street and add a red hat to the man",
    "",
    "remove the dog",
    "add a hat",
    "the quick brown fox, 3 of them",
    "  ",
    "cat",
]


@pytest.fixture(scope="module")
def t5_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer T5 with weights that differ enough for attention and position to matter."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    folder = tmp_path_factory.mktemp("t5")
    letters = [(letter, -4.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    tokenizer = T5Tokenizer(vocab=special + [(f"▁{word}", -1.0) for word in WORDS] + letters, extra_ids=0)
    config = T5Config(
        vocab_size=64,
        d_model=WIDTH,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        relative_attention_max_distance=16,
        feed_forward_proj="gated-gelu",
    )
    torch.manual_seed(0)
    model = T5EncoderModel(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "SelfAttention" in name:
                weight.normal_(std=1.0 if "bias" in name else 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def wan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline folder with a thin Wan VAE, of the real strides, that does not run into its clamp."""
    folder = tmp_path_factory.mktemp("wan")
    tiny_vae().save_pretrained(folder / "vae")
    return folder


def tiny_vae(**changes: Any) -> Any:
    from diffusers import AutoencoderKLWan

    torch.manual_seed(0)
    sizes = {"base_dim": 4, "z_dim": 16, "dim_mult": [1, 1, 2, 2], "num_res_blocks": 1}
    model = AutoencoderKLWan(**{**sizes, **changes}).eval()
    with torch.no_grad():
        model.decoder.conv_out.weight.mul_(0.3)
    return model


@pytest.fixture
def broken(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of a model's folder that a test may break; parametrised by the fixture to copy."""
    return shutil.copytree(request.getfixturevalue(request.param), tmp_path / "copy")


def random_video(*size: int) -> torch.Tensor:
    return torch.rand(*size, 3, generator=torch.Generator().manual_seed(sum(size))) * 2 - 1


# Text


@pytest.fixture(scope="module")
def by_hand(t5_folder: Path) -> list[torch.Tensor]:
    """States of TEXTS from transformers, each text alone and unpadded."""
    from transformers import AutoTokenizer, T5EncoderModel

    model = T5EncoderModel.from_pretrained(t5_folder, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(t5_folder)
    with torch.no_grad():
        return [
            model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, :-1].clone() for text in TEXTS
        ]


@pytest.mark.parametrize("batch_tokens", [1, 9, 24, 2048])
def test_states_are_those_of_each_text_alone(
    t5_folder: Path, by_hand: list[torch.Tensor], batch_tokens: int
) -> None:
    states = FlanT5(str(t5_folder), width=WIDTH, dtype="float32", batch_tokens=batch_tokens).encode(TEXTS)
    assert [len(state) for state in states][:5] == [3, 19, 0, 3, 3]
    for ours, theirs in zip(states, by_hand, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    # attention and position matter here: the same token's state depends on where it stands
    assert (states[3][1] - states[1][1]).abs().max() > 0.1


def test_texts_are_counted_as_they_are_encoded(t5_folder: Path) -> None:
    encoder = FlanT5(str(t5_folder), width=WIDTH, dtype="float32")
    assert encoder.count(TEXTS) == [len(states) for states in encoder.encode(TEXTS)]


def test_states_do_not_depend_on_what_is_beside_them(t5_folder: Path) -> None:
    encoder = FlanT5(str(t5_folder), width=WIDTH, dtype="float32")
    alone = torch.cat([encoder.encode([text])[0] for text in TEXTS])
    torch.testing.assert_close(torch.cat(encoder.encode(TEXTS)), alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.cat(encoder.encode(TEXTS[::-1])[::-1]), alone, atol=1e-5, rtol=0)


@contextlib.contextmanager
def modules_run() -> Iterator[list[tuple[torch.nn.Module, Any]]]:
    """Every module that runs inside, with its first argument."""
    run: list[tuple[torch.nn.Module, Any]] = []
    hook = register_module_forward_pre_hook(lambda module, given: run.append((module, *given[:1])))
    try:
        yield run
    finally:
        hook.remove()


def test_rows_hold_no_padding_and_no_text_twice(t5_folder: Path) -> None:
    encoder = FlanT5(str(t5_folder), width=WIDTH, dtype="float32", batch_tokens=24)
    texts = list(dict.fromkeys(TEXTS))
    wanted = [count + 1 for count in encoder.count(texts) if count]  # with the closing </s>

    def rows(texts: list[str]) -> list[int]:
        """Tokens of each row of words that the network sees."""
        with modules_run() as run:
            states.extend(encoder.encode(texts))
        words = [(module, given[0]) for module, *given in run if isinstance(module, torch.nn.Embedding)]
        return [len(ids[0]) for module, ids in words if module.num_embeddings > 32]  # 32 are distances

    states: list[torch.Tensor] = []
    found = rows(TEXTS * 3)
    assert sum(found) == sum(wanted)
    assert 1 < len(found) < len(wanted)
    states.clear()
    assert rows([]) == []
    assert states == []
    assert rows(["", " "]) == []
    assert [tuple(state.shape) for state in states] == [(0, WIDTH)] * 2


def test_empty_texts_need_no_weights() -> None:
    encoder = FlanT5("nobody/nothing", width=7)
    assert encoder.width == 7
    assert encoder.encode(["", ""])[1].shape == (0, 7)


@given(st.lists(st.integers(1, 20), max_size=30), st.integers(1, 40))
def test_packing_keeps_every_text_once_and_fills_first_rows_first(lengths: list[int], most: int) -> None:
    rows = pack_rows(lengths, most)
    assert sorted(itertools.chain(*rows)) == list(range(len(lengths)))
    for row in rows:
        assert len(row) == 1 or sum(lengths[i] for i in row) <= most
        assert [lengths[i] for i in row] == sorted((lengths[i] for i in row), reverse=True)
    loads = [sum(lengths[i] for i in row) for row in rows]
    assert all(a + b > most for a, b in itertools.pairwise(loads))


def test_mask_is_block_diagonal() -> None:
    mask = block_mask([2, 1], torch.bfloat16, torch.device("cpu"))
    assert mask.dtype == torch.bfloat16
    assert (mask[0, 0] == 0).tolist() == [[True, True, False], [True, True, False], [False, False, True]]


@pytest.mark.parametrize(("dtype", "near"), [("bfloat16", 0.1), ("float16", 0.01)])
def test_half_precision_states_are_float32_and_near(
    t5_folder: Path, by_hand: list[torch.Tensor], dtype: Any, near: float
) -> None:
    ours = torch.cat(FlanT5(str(t5_folder), width=WIDTH, dtype=dtype).encode(TEXTS))
    theirs = torch.cat(by_hand)
    assert ours.dtype == torch.float32
    assert (ours - theirs).norm() < near * theirs.norm()


def test_weights_read_in_inference_mode_move_and_states_train(t5_folder: Path, wan_folder: Path) -> None:
    text = build(part("model.encoders.t5.FlanT5", path=str(t5_folder), width=WIDTH, dtype="float32"))
    codec = build(part("model.encoders.wan.WanVAE", path=str(wan_folder)))
    with torch.inference_mode(), modules_run() as run:
        state = text.encode(["the dog"])[0]
        latents = codec.encode(random_video(1, 8, 8))
        video = codec.decode(torch.zeros(1, 1, 1, 16))
    assert text.to("cpu") is text
    assert codec.to(torch.device("cpu")) is codec
    for values in (state, latents, video):
        weight = torch.ones(values.shape[-1], requires_grad=True)
        (values * weight).sum().backward()
        assert not values.requires_grad
        assert weight.grad is not None
    weights = [weight for module, *_ in run for weight in module.parameters()]
    assert weights
    assert not any(weight.requires_grad for weight in weights)
    assert not any(module.training for module, *_ in run)


@pytest.mark.parametrize("early", [True, False])
def test_everything_follows_to_another_device(t5_folder: Path, wan_folder: Path, early: bool) -> None:
    text, codec = FlanT5(str(t5_folder), width=WIDTH), WanVAE(str(wan_folder))
    if not early:
        text.encode(["cat"])
        codec.encode(random_video(1, 8, 8))
    for state in text.to("meta").encode(["cat", "the dog", ""]):
        assert state.device.type == "meta"
    assert codec.to("meta").encode(random_video(2, 8, 8)).device.type == "meta"
    assert codec.decode(torch.zeros(1, 1, 1, 16), (1, 8, 8)).device.type == "meta"


def test_longer_texts_are_refused(t5_folder: Path) -> None:
    encoder = FlanT5(str(t5_folder), width=WIDTH, dtype="float32", max_tokens=3)
    assert encoder.encode(["remove the dog"])[0].shape == (3, WIDTH)
    with pytest.raises(ValueError, match="text of 4 tokens, at most 3 are taken: 'add a red hat'"):
        encoder.encode(["cat", "add a red hat"])


def test_bad_descriptions_are_refused() -> None:
    with pytest.raises(ValueError, match="text encoder dtype: one of float32, bfloat16, float16, got 'fp8'"):
        build(part("model.encoders.t5.FlanT5", dtype="fp8"))
    with pytest.raises(ValueError, match=r"batch_tokens: a number from 1 to .*, got 0"):
        FlanT5(batch_tokens=0)
    with pytest.raises(ValueError, match="codec dtype: one of float32, bfloat16, got 'float16'"):
        build(part("model.encoders.wan.WanVAE", dtype="float16"))
    with pytest.raises(ValueError, match="temporal is 1, 2 or 4, got 16, 8, 8"):
        WanVAE(temporal=8)


def encode_something(kind: str, folder: Path | str, **changes: Any) -> None:
    """Make the encoder `kind` read `folder`."""
    if kind == "t5":
        FlanT5(str(folder), **{"width": WIDTH, "dtype": "float32", **changes}).encode(["the dog"])
    else:
        WanVAE(str(folder), **changes).encode(random_video(1, 8, 8))


def weights_of(folder: Path) -> Path:
    return next(folder.rglob("*.safetensors"))


BOTH = pytest.mark.parametrize(
    ("kind", "broken"), [("t5", "t5_folder"), ("wan", "wan_folder")], indirect=["broken"]
)
T5_ONLY = pytest.mark.parametrize("broken", ["t5_folder"], indirect=True)
WAN_ONLY = pytest.mark.parametrize("broken", ["wan_folder"], indirect=True)


@BOTH
def test_truncated_weights_are_refused(kind: str, broken: Path) -> None:
    file = weights_of(broken)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{broken} cannot be read: .*needed: config.json"):
        encode_something(kind, broken)


@BOTH
def test_pickled_weights_are_refused(kind: str, broken: Path) -> None:
    file = weights_of(broken)
    name = "pytorch_model.bin" if kind == "t5" else "diffusion_pytorch_model.bin"
    torch.save(load_file(file), file.with_name(name))
    file.unlink()
    with pytest.raises(ValueError, match=rf"{broken} cannot be read: .*{file.name}"):
        encode_something(kind, broken)


@BOTH
def test_incomplete_and_broken_weights_are_refused(kind: str, broken: Path) -> None:
    file = weights_of(broken)
    weights = load_file(file)
    name = min(name for name in weights if "encoder" in name and "weight" in name)
    kept = weights.pop(name)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{broken} lacks 1 weights, the first is {name}"):
        encode_something(kind, broken)
    save_file({**weights, name: torch.full_like(kept, torch.nan)}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{broken} is broken: the weights {name} are not finite"):
        encode_something(kind, broken)
    save_file({**weights, name: kept.flatten()[:3].clone()}, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"{broken} cannot be read"):
        encode_something(kind, broken)


@pytest.mark.parametrize("kind", ["t5", "wan"])
@pytest.mark.parametrize("path", ["nobody/nothing-t5-xxl", "/no/such/folder"])
def test_a_model_that_is_not_here_is_named(kind: str, path: str) -> None:
    with pytest.raises(
        FileNotFoundError, match=rf"{path} is no folder here.*local cache.*hf download {path}"
    ):
        encode_something(kind, path)


@BOTH
def test_an_empty_folder_is_named(kind: str, broken: Path) -> None:
    shutil.rmtree(broken)
    broken.mkdir()
    with pytest.raises(ValueError, match=f"{broken} cannot be read: .*needed: config.json"):
        encode_something(kind, broken)


@T5_ONLY
def test_other_text_models_are_refused(broken: Path) -> None:
    with pytest.raises(ValueError, match=f"{broken} is {WIDTH} wide, not 4096"):
        encode_something("t5", broken, width=4096)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "model_type": "umt5"}))
    with pytest.raises(ValueError, match="holds a umt5 model, not t5"):
        encode_something("t5", broken)
    (broken / "config.json").write_text(json.dumps({**config, "vocab_size": 20}))
    with pytest.raises(ValueError, match="no tokenizer of these weights"):
        encode_something("t5", broken)


@T5_ONLY
def test_a_missing_or_other_tokenizer_is_refused(broken: Path) -> None:
    file = broken / "tokenizer.json"
    description = json.loads(file.read_text())
    file.unlink()
    (broken / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match=f"{broken} holds no tokenizer of these weights: 1 words"):
        encode_something("t5", broken)
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer.from_str(json.dumps({**description, "post_processor": None}))
    PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="</s>", unk_token="<unk>").save_pretrained(
        broken
    )
    with pytest.raises(ValueError, match="does not close a text with </s>"):
        encode_something("t5", broken)


# Video


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 16, 24), (9, 24, 16)])
@pytest.mark.parametrize("place", ["", "vae"])
def test_latents_and_video_are_those_of_diffusers(
    wan_folder: Path, frames: int, height: int, width: int, place: str
) -> None:
    compare(wan_folder / place, False, random_video(frames, height, width))


@pytest.mark.parametrize(("height", "width"), [(16, 272), (264, 16)])
def test_tiles_are_those_of_diffusers(wan_folder: Path, height: int, width: int) -> None:
    video = random_video(5, height, width)
    compare(wan_folder, True, video)
    tiled, plain = (WanVAE(str(wan_folder), tiling=tiling).encode(video) for tiling in (True, False))
    assert not torch.allclose(tiled, plain, atol=1e-6)


def compare(folder: Path, tiling: bool, video: torch.Tensor) -> None:
    """Ours against the diffusers model called by hand, normalised by hand."""
    from diffusers import AutoencoderKLWan

    own = folder if folder.name == "vae" else folder / "vae"
    model = AutoencoderKLWan.from_pretrained(own).eval()
    if tiling:
        model.enable_tiling()
    mean, std = (
        torch.tensor(model.config[name]).reshape(-1, 1, 1, 1) for name in ("latents_mean", "latents_std")
    )
    with torch.no_grad():
        plain = model.encode(video.permute(3, 0, 1, 2)[None]).latent_dist.mode()[0]
        decoded = model.decode(plain[None]).sample[0]
    assert 0.1 < decoded.abs().max() < 1
    codec = WanVAE(str(folder), tiling=tiling)
    latents = codec.encode(video)
    assert latents.dtype == torch.float32
    assert tuple(latents.shape) == (*codec.latent_size(*video.shape[:3]), 16)
    torch.testing.assert_close(latents, ((plain - mean) / std).permute(1, 2, 3, 0), atol=1e-5, rtol=0)
    back = codec.decode(latents)
    assert back.dtype == torch.float32
    torch.testing.assert_close(back, decoded.permute(1, 2, 3, 0), atol=1e-5, rtol=0)
    assert torch.equal(codec.decode(latents, tuple(video.shape[:3])), back)


@pytest.fixture(scope="module")
def codec(wan_folder: Path) -> WanVAE:
    return WanVAE(str(wan_folder))


@pytest.mark.parametrize("frames", range(1, 11))
def test_every_length_is_padded_and_cropped_back(codec: WanVAE, frames: int) -> None:
    check_padding(codec, frames, 8, 8)


@settings(deadline=None, max_examples=12)
@given(frames=st.integers(1, 6), height=st.integers(1, 21), width=st.integers(1, 21))
def test_odd_sizes_are_padded_and_cropped_back(codec: WanVAE, frames: int, height: int, width: int) -> None:
    check_padding(codec, frames, height, width)


def check_padding(codec: WanVAE, frames: int, height: int, width: int) -> None:
    """The latents are those of the video with its last frame, row and column repeated."""
    video = random_video(frames, height, width)
    latents = codec.encode(video)
    t, h, w = codec.latent_size(frames, height, width)
    assert tuple(latents.shape) == (t, h, w, 16)
    rows, columns = (torch.arange(n * 8).clamp(max=side - 1) for n, side in ((h, height), (w, width)))
    times = torch.arange(4 * t - 3).clamp(max=frames - 1)
    torch.testing.assert_close(codec.encode(video[times][:, rows][:, :, columns]), latents, atol=1e-6, rtol=0)
    back = codec.decode(latents, (frames, height, width))
    assert back.shape == video.shape
    torch.testing.assert_close(back, codec.decode(latents)[:frames, :height, :width])


def test_first_latent_of_a_video_is_that_of_an_image(codec: WanVAE) -> None:
    video = random_video(9, 16, 16)
    image = codec.encode(video[:1])
    assert tuple(image.shape) == (1, 2, 2, 16)
    torch.testing.assert_close(codec.encode(video)[:1], image, atol=1e-5, rtol=0)
    assert codec.decode(image, (1, 16, 16)).shape == (1, 16, 16, 3)


@pytest.mark.parametrize(("temporal", "layers"), [(1, [False, False]), (2, [False, True]), (4, [True, True])])
def test_other_reductions_are_padded_too(tmp_path: Path, temporal: int, layers: list[bool]) -> None:
    tiny_vae(dim_mult=[1, 1, 2], temperal_downsample=layers, scale_factor_spatial=4).save_pretrained(tmp_path)
    codec = WanVAE(str(tmp_path), spatial=4, temporal=temporal)
    for frames in range(1, 8):
        video = random_video(frames, 9, 8)
        latents = codec.encode(video)
        assert tuple(latents.shape) == (1 + -(-(frames - 1) // temporal), 3, 2, 16)
        assert codec.decode(latents, (frames, 9, 8)).shape == video.shape


def test_without_padding_other_sizes_are_refused(wan_folder: Path, codec: WanVAE) -> None:
    strict = WanVAE(str(wan_folder), pad=False)
    video = random_video(5, 8, 16)
    assert torch.equal(strict.encode(video), codec.encode(video))
    for frames, near in ((2, "1 or 5"), (8, "5 or 9"), (4, "1 or 5")):
        with pytest.raises(ValueError, match=rf"video of {frames} frames: .* such as {near};"):
            strict.encode(random_video(frames, 8, 8))
    with pytest.raises(ValueError, match=r"video of height 12: .* multiples of 8, such as 8 or 16;"):
        strict.encode(random_video(1, 12, 8))
    with pytest.raises(ValueError, match=r"video of width 3: .* such as 8 or 16;"):
        strict.latent_size(1, 8, 3)


def test_bad_videos_and_latents_are_refused(codec: WanVAE) -> None:
    with pytest.raises(
        ValueError, match=r"encode: needs float \[T, H, W, 3\], got torch.uint8 \[1, 8, 8, 3\]"
    ):
        codec.encode(torch.zeros(1, 8, 8, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="encode: needs float"):
        codec.encode(torch.zeros(8, 8, 3))
    with pytest.raises(ValueError, match="every size must be at least 1"):
        codec.encode(torch.zeros(0, 8, 8, 3))
    with pytest.raises(ValueError, match="not finite"):
        codec.encode(torch.full((1, 8, 8, 3), torch.nan))
    with pytest.raises(ValueError, match=r"decode: needs \[t, h, w, 16\], got \[1, 1, 1, 8\]"):
        codec.decode(torch.zeros(1, 1, 1, 8))
    with pytest.raises(ValueError, match=r"latents \[1, 1, 1\] do not hold a video of \[2, 8, 8\]"):
        codec.decode(torch.zeros(1, 1, 1, 16), (2, 8, 8))


def test_bfloat16_gives_float32_near_it(wan_folder: Path, codec: WanVAE) -> None:
    video, half = random_video(5, 16, 16), WanVAE(str(wan_folder), dtype="bfloat16")
    latents = half.encode(video)
    assert latents.dtype == torch.float32
    torch.testing.assert_close(latents, codec.encode(video), atol=0.05, rtol=0.05)
    assert half.decode(latents).dtype == torch.float32


@WAN_ONLY
def test_other_video_models_are_refused(broken: Path) -> None:
    for name, value, found in (("channels", 8, 16), ("spatial", 16, 8), ("temporal", 2, 4)):
        with pytest.raises(ValueError, match=f"{broken} has {name} {found}, not {value}"):
            encode_something("wan", broken, **{name: value})
    file = broken / "vae" / "config.json"
    config = json.loads(file.read_text())
    for change, message in (
        ({"latents_mean": [0.0]}, "16 numbers as latents_mean"),
        ({"scale_factor_spatial": 16}, "reduces by 8, but .* scale_factor_spatial 16"),
        ({"_class_name": "AutoencoderKL"}, "AutoencoderKL is not AutoencoderKLWan"),
    ):
        file.write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match=message):
            encode_something("wan", broken)
