"""Wan's transformer against diffusers' and Bernini's own classes; packed, alone and padded; its layouts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import Tensor

from model.net.cross_attention import Prompts, text_attention, written_out
from model.net.wan import WanTransformer
from model.net.wan_config import WanConfig
from model.net.wan_weights import diffusers_shape, from_diffusers, to_diffusers
from model.sequence.interleave import (
    SequenceConfig,
    TextElement,
    TokenSequence,
    VisionElement,
    build_sequence,
    patchify,
)
from model.sequence.packing import PackedBatch, pack
from tests.model.wan_cases import ALONE, BERNINI, CONFIG, EDIT, SIZES, TEXTS, TIME, latents, numbers, weights

LAYOUT = SequenceConfig(pixel_positions=False, text="cross_attention", first_axis="source")
OUTPUTS = json.loads((Path(__file__).parent / "bernini_outputs.json").read_text())


Translate = Callable[[str, Tensor, int], Tensor]


def ours(config: WanConfig = CONFIG, translate: Translate = from_diffusers) -> WanTransformer:
    net = WanTransformer(config).eval()
    theirs = weights({name: diffusers_shape(name, p.shape) for name, p in net.named_parameters()})
    net.load_state_dict({name: translate(name, value, config.heads) for name, value in theirs.items()})
    return net


@pytest.fixture(scope="module")
def theirs() -> WanTransformer3DModel:
    net = WanTransformer3DModel(**SIZES).eval()
    net.load_state_dict(weights({name: p.shape for name, p in net.state_dict().items()}))
    return net


def sequence(text: Tensor, media: dict[str, Tensor], target: str) -> TokenSequence:
    elements = [VisionElement(name, values, name == target) for name, values in media.items()]
    return build_sequence([TextElement(text), *elements], LAYOUT)


def edit() -> TokenSequence:
    return sequence(TEXTS["edit"], EDIT, "target")


def alone() -> TokenSequence:
    return sequence(TEXTS["alone"], ALONE, "picture")


@torch.no_grad()
def predict(net: WanTransformer, batch: PackedBatch, time: float = TIME) -> Tensor:
    timestep = torch.ones(batch.segments)
    timestep[batch.target_segment] = time
    return net(batch, batch.vision, timestep)[0]


def error(value: Tensor, expected: Tensor) -> float:
    """Largest error, in parts of the largest expected number."""
    return float((value - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def of_diffusers(net: WanTransformer3DModel, video: Tensor, text: Tensor, time: Tensor) -> Tensor:
    """Their prediction in our convention, [tokens, 16]: minus the velocity, patches in our order."""
    padded = torch.cat([text, torch.zeros(CONFIG.text_tokens - len(text), CONFIG.text_dim)])[None]
    moment = 1000 * (1 - time)[None]
    out = net(video.permute(3, 0, 1, 2)[None], moment, padded, return_dict=False)[0][0]
    return -patchify(out.permute(1, 2, 3, 0), 2)


@pytest.mark.parametrize("words", [0, 7, 20])
def test_text_to_video_is_that_of_diffusers(theirs: WanTransformer3DModel, words: int) -> None:
    video, text = latents("clip", 3, 6, 8), numbers("words", 20, 32)[:words]
    batch = pack([sequence(text, {"video1": video}, "video1")])
    expected = of_diffusers(theirs, video, text, torch.tensor(TIME))
    assert error(predict(ours(), batch), expected) < 1e-5


def test_a_clean_first_frame_is_that_of_diffusers_by_token_time(
    theirs: WanTransformer3DModel,
) -> None:
    """As Wan 2.2 TI2V: frame 0 is clean, its time 1 (theirs 0); the others follow it in time."""
    video, text = latents("clip", 3, 6, 8), TEXTS["edit"]
    tokens = 3 * 4
    both = sequence(text, {"image1": video[:1], "video1": video[1:]}, "video1")
    positions = both.positions.clone()
    positions[:, 0] = 0
    positions[tokens:, 1] += 1
    batch = pack([dataclasses.replace(both, positions=positions)])
    time = torch.full((3 * tokens,), TIME)
    time[:tokens] = 1
    expected = of_diffusers(theirs, video, text, time)
    assert error(predict(ours(), batch), expected[tokens:]) < 1e-5


def test_packed_edits_are_those_of_bernini() -> None:
    """A source video and a reference picture with their target, and a picture from text, in one pack."""
    expected = -torch.tensor(OUTPUTS["edit"] + OUTPUTS["alone"])
    assert error(predict(ours(BERNINI), pack([edit(), alone()])), expected) < 1e-5


def unordered(name: str, value: Tensor, heads: int) -> Tensor:
    """Channels of a token before its places, as the convolution has them."""
    if name == "patch_embedding.weight":
        return value.flatten(1)
    return from_diffusers(name, value, heads)


def unsorted(name: str, value: Tensor, heads: int) -> Tensor:
    return from_diffusers(name, value, heads) if name == "patch_embedding.weight" else value


@pytest.mark.parametrize("left_out", ["patches", "rotation", "time", "sign", "source time", "source phase"])
def test_every_difference_to_the_published_layout_matters(
    left_out: str,
) -> None:
    config, time, sign = BERNINI, TIME, 1
    translate: Translate = from_diffusers
    if left_out == "patches":
        translate = unordered
    elif left_out == "rotation":
        translate = unsorted
    elif left_out == "time":
        time = 1 - TIME
    elif left_out == "sign":
        sign = -1
    elif left_out == "source time":
        config = dataclasses.replace(config, source_time="clean")
    else:
        config = dataclasses.replace(config, rope=CONFIG.rope)
    expected = -torch.tensor(OUTPUTS["edit"] + OUTPUTS["alone"])
    assert error(sign * predict(ours(config, translate), pack([edit(), alone()]), time), expected) > 0.05


def test_packed_alone_and_padded_are_the_same() -> None:
    net = ours(BERNINI)
    single = torch.cat([predict(net, pack([one])) for one in (edit(), alone())])
    sequences = [edit(), alone()]
    padded = pack(sequences, pad_to=sum(map(len, sequences)) + 11)
    for batch in (pack(sequences), padded):
        assert error(predict(net, batch), single) < 1e-5
    assert torch.isfinite(predict(net, pack([alone()], pad_to=40))).all()


def test_more_sources_than_trained_are_spread_over_the_trained_phases() -> None:
    many = {f"image{n}": latents(f"image{n}", 1, 2, 2) for n in range(1, 10)}
    laid_out = sequence(TEXTS["edit"], many | {"video1": latents("v", 2, 2, 2)}, "video1")
    numbers_of = [float(laid_out.positions[s.start, 0]) for s in laid_out.segments]
    assert numbers_of == [1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 0]
    assert {s.stop - s.start for s in laid_out.segments} == {1, 2}  # no start and end of vision


def test_keys_written_out_are_one_key_with_a_bias() -> None:
    """What kernels without a bias compute is what the others do."""
    batch = pack([edit(), alone()], pad_to=60)
    packed, tokens = batch.prompt, CONFIG.text_tokens
    assert packed is not None
    states = torch.cat([packed.states, torch.zeros(1, 32)])
    prompts = Prompts(states, packed, tokens, written_out(packed, tokens))
    q = numbers("q", 60, 2, 16)
    k, v = (x.view(-1, 2, 16) for x in (states * 3, numbers("v", *states.shape)))
    outputs = text_attention(q, k, v, prompts, "sdpa")
    keys, values = (x[prompts.rows].view(-1, tokens, 2, 16) for x in (k, v))
    for number, (start, stop) in enumerate(zip(packed.cu_queries, packed.cu_queries[1:], strict=False)):
        scores = torch.einsum("qhd,khd->hqk", q[start:stop], keys[number]) / 4
        expected = torch.einsum("hqk,khd->qhd", scores.softmax(-1), values[number])
        torch.testing.assert_close(outputs[start:stop], expected)


def test_every_weight_has_a_gradient() -> None:
    net = ours(BERNINI).train()
    batch = pack([edit(), alone()])
    net(batch, batch.vision, torch.full((batch.segments,), TIME))[0].square().mean().backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert missing == []


def test_weights_go_there_and_back_to_the_bit(theirs: WanTransformer3DModel) -> None:
    for name, value in theirs.state_dict().items():
        mine = from_diffusers(name, value, CONFIG.heads)
        assert diffusers_shape(name, mine.shape) == value.shape
        assert torch.equal(to_diffusers(name, mine, CONFIG.heads), value)


@pytest.mark.parametrize(
    ("width", "heads", "hidden", "depth", "channels", "parameters"),
    [
        (1536, 12, 8960, 30, 16, 1_418_996_800),
        (3072, 24, 14336, 30, 48, 4_999_787_712),
        (5120, 40, 13824, 40, 16, 14_288_491_584),
    ],
    ids=["1.3B", "5B", "A14B"],
)
def test_full_size_layouts(
    width: int, heads: int, hidden: int, depth: int, channels: int, parameters: int
) -> None:
    """The published configurations, without memory: every name and shape, and how many numbers in all."""
    sizes: dict[str, Any] = {"num_attention_heads": heads, "attention_head_dim": width // heads}
    sizes |= {"in_channels": channels, "out_channels": channels, "ffn_dim": hidden, "num_layers": depth}
    config = WanConfig(vision_dim=4 * channels, width=width, depth=depth, heads=heads, hidden=hidden)
    with torch.device("meta"):
        net, published = WanTransformer(config), WanTransformer3DModel(**SIZES | {"text_dim": 4096} | sizes)
    mine = {name: diffusers_shape(name, p.shape) for name, p in net.state_dict().items()}
    assert mine == {name: p.shape for name, p in published.state_dict().items()}
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert config.rope.dims == (0, 44, 42, 42)


def test_text_among_the_tokens_is_refused() -> None:
    elements = [TextElement(TEXTS["edit"]), VisionElement("v", EDIT["target"], True)]
    batch = pack([build_sequence(elements, SequenceConfig())])
    with pytest.raises(ValueError, match="cross_attention"):
        predict(ours(), batch)
    with pytest.raises(ValueError, match="23 tokens, more than text_tokens 20"):
        predict(ours(), pack([sequence(numbers("long", 23, 32), ALONE, "picture")]))
    with pytest.raises(ValueError, match="nothing can be kept"):
        ours().prefill_context(batch)
