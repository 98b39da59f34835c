"""The formula of the operations against PyTorch's counter, and the sizes of the presets.

Forward and backward apart, within one per cent.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from model.config import InferenceConfig, ModelConfig, from_dict
from model.dit import DiT, DiTConfig
from model.encoders import build
from model.flops import backward_flops, edit_flops, forward_flops, parameter_count, shape_of
from model.flow import FlowConfig
from model.packing import pack
from model.rope import RopeConfig
from model.sampling import sample
from model.sequence import Sequence, SequenceConfig, TextElement, VisionElement, build_sequence

PRESETS = Path(__file__).parents[2] / "configs" / "model"
TINY = DiTConfig(text_dim=8, vision_dim=12, width=64, depth=2, heads=4, rope=RopeConfig(dims=(4, 4, 4, 4)))


def preset(name: str) -> DiTConfig:
    config: ModelConfig = from_dict(ModelConfig, yaml.safe_load((PRESETS / f"{name}.yaml").read_text()), name)
    if config.dit.vision_dim:
        return config.dit
    codec, text = build(config.codec), build(config.text)
    return dataclasses.replace(config.dit, vision_dim=4 * codec.channels, text_dim=text.width)


def edit_of(config: DiTConfig, frames: int = 3, words: int = 9, side: int = 12) -> Sequence:
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
    "grouped queries": {"kv_heads": 1},
    "causal": {"context": "causal"},
    "copy head": {"copy_prior": (0.0, 10.0, 5.0, 5.0)},
    "no modulation": {"modulation": False},
}


@pytest.mark.parametrize("backend", ["matmul", "sdpa"])
@pytest.mark.parametrize("case", [*CASES, "nano", "nano causal"])
def test_a_pass_is_what_is_counted(case: str, backend: str) -> None:
    if case.startswith("nano"):
        config = dataclasses.replace(preset("nano"), context="causal" if "causal" in case else "full")
    else:
        config = dataclasses.replace(TINY, **CASES[case])
    config = dataclasses.replace(config, attention=backend)  # type: ignore[arg-type]
    torch.manual_seed(0)
    dit = DiT(config)
    sequences = [edit_of(config), edit_of(config, frames=1, words=40)]
    shapes, batch = [shape_of(s) for s in sequences], pack(sequences)
    with FlopCounterMode(display=False) as forward:
        loss = sum(out.square().sum() for out in dit(batch, batch.vision, torch.ones(batch.segments)))
    with FlopCounterMode(display=False) as backward:
        loss.backward()  # type: ignore[union-attr]
    assert forward_flops(config, shapes) == pytest.approx(forward.get_total_flops(), rel=0.01)
    fused = backend == "sdpa"
    assert backward_flops(config, shapes, fused) == pytest.approx(backward.get_total_flops(), rel=0.01)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("context", ["full", "causal"])
def test_an_edit_is_what_is_counted(context: str, guidance: float) -> None:
    config = dataclasses.replace(preset("nano"), context=context, attention="matmul")  # type: ignore[arg-type]
    torch.manual_seed(0)
    dit = DiT(config).eval()
    with_text = edit_of(config)
    with_text, without_text = (edit_of(config, words=words) for words in (9, 0))
    noise = torch.randn(torch.Size(with_text.target.size).numel(), config.vision_dim)
    inference = InferenceConfig(steps=5, guidance=guidance)
    with torch.inference_mode(False), torch.no_grad(), FlopCounterMode(display=False) as counter:
        sample(dit, with_text, without_text, noise, FlowConfig(), inference)
    counted = edit_flops(config, [shape_of(with_text)], 5, guidance != 1)
    assert counted == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_presets_have_the_sizes_that_they_say() -> None:
    assert 1.9e9 < parameter_count(preset("2b")) < 2.1e9
    assert 95e6 < parameter_count(preset("small")) < 105e6
    assert 3e6 < parameter_count(preset("nano")) < 3.5e6
    config = preset("2b")
    assert (config.width, config.depth, config.width // config.heads) == (2048, 28, 128)
    assert config.rope.dims == (12, 4, 56, 56)


def test_the_2b_preset_by_its_formula() -> None:
    """One block of the 2B preset is run for real; the other 27 are the same."""
    config = dataclasses.replace(preset("2b"), depth=1, attention="matmul")
    torch.manual_seed(0)
    dit = DiT(config)
    sequence = edit_of(config, frames=2, side=8)
    batch = pack([sequence])
    with FlopCounterMode(display=False) as forward:
        loss = dit(batch, batch.vision, torch.ones(batch.segments))[0].square().sum()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    shapes = [shape_of(sequence)]
    assert forward_flops(config, shapes) == pytest.approx(forward.get_total_flops(), rel=0.01)
    assert backward_flops(config, shapes, False) == pytest.approx(backward.get_total_flops(), rel=0.01)
    deep = dataclasses.replace(config, depth=28)
    none = dataclasses.replace(config, depth=0)
    for flops in (forward_flops, backward_flops):
        rest = flops(none, shapes)
        assert flops(deep, shapes) == 28 * (flops(config, shapes) - rest) + rest
