"""The formula of the operations against PyTorch's counter, and the sizes of the presets.

Forward and backward apart, to the operation: 1 % is what is promised, the formula is exact.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from model.config import InferenceConfig, ModelConfig
from model.encoders import build
from model.extras.config import ExtrasConfig
from model.flow.flow_matching import FlowConfig
from model.inference.sampler import sample
from model.net.config import DiTConfig
from model.net.dit import DiT
from model.net.transformer import Transformer
from model.net.wan import WanTransformer
from model.net.wan_config import WanConfig
from model.planner.cost import by_formula
from model.planner.flops import backward_flops, edit_flops, forward_flops
from model.planner.summary import parameter_count
from model.planner.work import Shape, shape_of
from model.sequence.interleave import (
    SequenceConfig,
    TextElement,
    TokenSequence,
    VisionElement,
    build_sequence,
)
from model.sequence.packing import PackedBatch, pack
from model.sequence.rope import RopeConfig
from shards.serialization import from_dict

PRESETS = Path(__file__).parents[2] / "configs" / "model"
TINY = DiTConfig(text_dim=8, vision_dim=12, width=64, depth=2, heads=4, rope=RopeConfig(dims=(4, 4, 4, 4)))


def preset(name: str) -> DiTConfig:
    config: ModelConfig = from_dict(ModelConfig, yaml.safe_load((PRESETS / f"{name}.yaml").read_text()), name)
    if config.dit.vision_dim:
        return config.dit
    codec, text = build(config.vae), build(config.text_encoder)
    return dataclasses.replace(config.dit, vision_dim=4 * codec.channels, text_dim=text.width)


def edit_of(config: DiTConfig, frames: int = 3, words: int = 9, side: int = 12) -> TokenSequence:
    latents = torch.randn(frames, side, side, config.vision_dim // 4)
    return build_sequence(
        [
            VisionElement("video1", latents),
            TextElement(torch.randn(words, config.text_dim)),
            VisionElement("image1", latents[:1]),
            VisionElement("video2", latents, target=True),
        ],
        SequenceConfig(patch=2),
        spatial=8,
    )


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped queries": {"kv_heads": 1, "qkv_bias": True},
    "cached": {"context": "cached"},
    "copy head": {},
    "no modulation": {"modulation": False},
    "all": {"kv_heads": 2, "context": "cached", "qk_norm": False},
}
COPIES = ExtrasConfig(copy_bias=(0.0, 10.0, 5.0, 5.0))


def config_of(case: str) -> DiTConfig:
    if not case.startswith("nano"):
        return dataclasses.replace(TINY, **CASES[case])
    return dataclasses.replace(preset("nano"), context="cached" if "cached" in case else "full")


def extras_of(case: str) -> ExtrasConfig:
    """Nano's network has a copy head, too."""
    return COPIES if case in ("copy head", "all") or case.startswith("nano") else ExtrasConfig()


def count(dit: Transformer, batch: PackedBatch) -> tuple[int, int]:
    """Operations of a forward and of a backward pass, as PyTorch counts them."""
    with FlopCounterMode(display=False) as forward:
        outputs = dit(batch, batch.vision, torch.ones(batch.segments, device=batch.vision.device))
        loss = torch.stack([out.square().sum() for out in outputs]).sum()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    return forward.get_total_flops(), backward.get_total_flops()


@pytest.mark.parametrize("backend", ["matmul", "sdpa"])
@pytest.mark.parametrize("case", [*CASES, "nano", "nano cached"])
def test_a_pass_is_what_is_counted(case: str, backend: Literal["matmul", "sdpa"]) -> None:
    """The counter knows SDPA's CPU kernel, and that its backward pass computes the scores again."""
    config = dataclasses.replace(config_of(case), attention=backend)
    torch.manual_seed(0)
    sequences = [edit_of(config), edit_of(config, frames=1, words=40)]
    shapes = [shape_of(s) for s in sequences]
    copies = extras_of(case).copy_bias is not None
    forward, backward = count(DiT(config, extras_of(case)), pack(sequences))
    assert forward_flops(config, shapes, copies) == forward
    assert backward_flops(config, shapes, fused=backend == "sdpa", copies=copies) == backward


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("case", ["plain", "cached", "all", "nano", "nano cached"])
def test_an_edit_is_what_is_counted(case: str, guidance: float) -> None:
    """Under `context: cached` the clean tokens are counted once."""
    config = config_of(case)
    torch.manual_seed(0)
    dit = DiT(config, extras_of(case)).eval()
    with_text, without_text = (edit_of(config, words=words) for words in (9, 0))
    noise = torch.randn(shape_of(with_text).target, config.vision_dim)
    inference = InferenceConfig(steps=5, guidance=guidance)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        sample(dit, with_text, without_text, noise, FlowConfig(), inference)
    copies = extras_of(case).copy_bias is not None
    counted = edit_flops(config, [shape_of(with_text)], 5, guidance != 1, copies)
    assert counted == counter.get_total_flops()


def test_reuse_saves_what_the_context_costs() -> None:
    full, cached = (dataclasses.replace(preset("nano"), context=c) for c in ("full", "cached"))
    shapes = [shape_of(edit_of(full))]
    one, many = (edit_flops(full, shapes, n, True) / edit_flops(cached, shapes, n, True) for n in (1, 50))
    assert one < 1.1
    assert many > 1.5


def test_presets_have_the_sizes_that_they_say() -> None:
    assert 1.9e9 < parameter_count(preset("2b")) < 2.1e9
    assert 95e6 < parameter_count(preset("small")) < 105e6
    assert 5.5e6 < parameter_count(preset("nano")) < 6e6
    config = preset("2b")
    assert (config.width, config.depth, config.width // config.heads) == (2048, 28, 128)
    assert config.rope.dims == (12, 4, 56, 56)


@pytest.mark.parametrize("context", ["full", "cached"])
def test_the_2b_preset_is_what_is_counted(context: Literal["full", "cached"]) -> None:
    """All 28 blocks, on the meta device: shapes without numbers; SDPA's kernel is not to be had there."""
    config = dataclasses.replace(preset("2b"), attention="matmul", context=context)
    sequences = [edit_of(config, frames=frames, side=32) for frames in (3, 5)]
    batch = pack(sequences)
    bounds = {name: getattr(batch, name) for name in ("cu_seqlens", "cu_noisy", "cu_context")}
    with torch.device("meta"):
        dit = DiT(config)
    forward, backward = count(dit, dataclasses.replace(batch.to("meta"), **bounds))
    shapes = [shape_of(s) for s in sequences]
    assert forward_flops(config, shapes) == forward
    assert backward_flops(config, shapes, fused=False) == backward


WAN = WanConfig(text_dim=8, vision_dim=12, width=48, depth=2, heads=2, hidden=80, text_tokens=10)
APART = SequenceConfig(pixel_positions=False, text="cross_attention", first_axis="source")


def wan_edit(config: WanConfig, words: int, frames: int = 2, source: bool = True) -> TokenSequence:
    """With as many words less one among the tokens, where they are there too."""
    latents = torch.randn(frames, 6, 4, config.vision_dim // 4)
    elements = [VisionElement("video1", latents)] * source
    prompt = TextElement(torch.randn(words, 8), prompt=True)
    inline = [TextElement(torch.randn(words - 1, 8))] * config.words
    layout = dataclasses.replace(APART, text="both" if config.words else "cross_attention")
    target = VisionElement("video2", latents, target=True)
    return build_sequence([prompt, *elements, *inline, target], layout)


@pytest.mark.parametrize("backend", ["matmul", "sdpa"])
@pytest.mark.parametrize("words", [False, True], ids=["prompts", "both"])
@pytest.mark.parametrize("source_time", ["clean", "target"])
def test_a_pass_of_wan_is_what_is_counted(
    backend: Literal["matmul", "sdpa"], source_time: Literal["clean", "target"], words: bool
) -> None:
    """Prompts shorter than, as long as, and one below what they are filled up to; one is a picture's."""
    config = dataclasses.replace(WAN, attention=backend, source_time=source_time, words=words)
    torch.manual_seed(0)
    sequences = [wan_edit(config, 3), wan_edit(config, 10, 1, source=False), wan_edit(config, 9, 3)]
    shapes = [shape_of(s) for s in sequences]
    net = WanTransformer(config)
    torch.nn.init.normal_(net.proj_out.weight)  # zero at the start
    forward, backward = count(net, pack(sequences))
    assert forward_flops(config, shapes) == forward
    assert backward_flops(config, shapes, fused=backend == "sdpa") == backward


@pytest.mark.parametrize("words", [False, True], ids=["prompts", "both"])
def test_an_edit_of_wan_is_what_is_counted(words: bool) -> None:
    config = dataclasses.replace(WAN, attention="sdpa", words=words)
    torch.manual_seed(0)
    net = WanTransformer(config).eval()
    with_text, without_text = wan_edit(config, 9), wan_edit(config, 1)
    noise = torch.randn(shape_of(with_text).target, config.vision_dim)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        sample(net, with_text, without_text, noise, FlowConfig(), InferenceConfig(steps=3, guidance=3.0))
    assert edit_flops(config, [shape_of(with_text)], 3, guidance=True) == counter.get_total_flops()


def test_wan_1_3b_at_480p_is_961_tflop() -> None:
    """Source and target of 81 frames; the published arithmetic, in terms of the blocks alone."""
    tokens, d = 65_520, 1536
    arithmetic = 30 * (2 * (6 * d * d + 2 * d * 8960) * tokens + 4 * d * tokens**2 + 4 * d * tokens * 512)
    assert arithmetic / 1e12 == pytest.approx(961, abs=0.5)
    half = tokens // 2
    shape = Shape(text=20, vision=tokens, noisy=half, target=half, total=tokens, segments=2)
    assert forward_flops(WanConfig(), [shape]) == pytest.approx(arithmetic, rel=0.01)
    # what steps are balanced by: forward, and twice that for the backward pass
    assert by_formula(WanConfig()).of(tokens) == pytest.approx(3 * arithmetic, rel=1e-12)
    # kernels that take a bias meet one key for the padding
    short = forward_flops(WanConfig(attention="sdpa"), [shape])
    assert forward_flops(WanConfig(), [shape]) - short == 30 * 4 * d * tokens * (512 - 21)
