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
from model.planner.flops import backward_flops, edit_flops, forward_flops, shape_of
from model.planner.summary import parameter_count
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


def count(dit: DiT, batch: PackedBatch) -> tuple[int, int]:
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
