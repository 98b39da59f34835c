"""From noise to a target: which times the network is told, and how its two answers are put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import pytest
import torch

from model.config import InferenceConfig
from model.flow.flow_matching import FlowConfig
from model.inference.sampler import Branch, sample
from model.net.dit import DiT
from model.sequence.interleave import SequenceConfig, TokenSequence, VisionElement, build_sequence
from model.sequence.packing import PackedBatch

Branches = tuple[TokenSequence, TokenSequence, torch.Tensor]
Call = tuple[PackedBatch, torch.Tensor]
FLOW = FlowConfig()


@pytest.fixture
def branches(make_sequence: Callable[..., TokenSequence]) -> Branches:
    """An edit with its text and without, and noise for its target."""
    with_text = make_sequence(0)
    random = torch.Generator().manual_seed(1)
    media = [
        VisionElement(name, torch.randn(frames, 4, 6, 3, generator=random), name == "video2")
        for name, frames in (("video1", 2), ("image1", 1), ("video2", 2))
    ]
    without = build_sequence(list(media), SequenceConfig(patch=2), spatial=8)
    return with_text, without, torch.randn(12, 12, generator=random)


def calls_of(dit: DiT) -> list[Call]:
    """The batch and the timesteps of every call of the network from now on."""
    calls: list[Call] = []
    dit.register_forward_pre_hook(lambda _, inputs: calls.append((inputs[0], inputs[2])))
    return calls


@pytest.mark.parametrize("context", ["full", "cached"])
@torch.no_grad()
def test_the_context_is_clean_at_every_step(
    trained_like: DiT, branches: Branches, context: Literal["full", "cached"]
) -> None:
    dit = DiT(dataclasses.replace(trained_like.config, context=context)).eval()
    dit.load_state_dict(trained_like.state_dict())
    calls = calls_of(dit)
    sample(dit, *branches, FLOW, InferenceConfig(steps=4, guidance=2.0))
    assert len(calls) == 8
    for number, (batch, timestep) in enumerate(calls):
        clean = torch.ones(batch.segments, dtype=torch.bool)
        clean[batch.target_segment] = False
        assert clean.any()
        assert (timestep[clean] == 1).all()
        assert timestep[~clean].tolist() == [number // 2 / 4]


@torch.no_grad()
def test_guidance_leads_from_the_branch_without_text_to_the_one_with(
    trained_like: DiT, branches: Branches
) -> None:
    with_text, without, noise = branches
    told, untold = (Branch(trained_like, s, FLOW).velocity(noise, 0.0) for s in (with_text, without))
    assert (told - untold).abs().max() > 0.1
    made = sample(trained_like, *branches, FLOW, InferenceConfig(steps=1, guidance=3.0))
    torch.testing.assert_close(made, noise + untold + 3 * (told - untold))
    plain = sample(trained_like, *branches, FLOW, InferenceConfig(steps=1, guidance=1.0))
    torch.testing.assert_close(plain, noise + told)


@torch.no_grad()
def test_outside_its_interval_guidance_costs_nothing(trained_like: DiT, branches: Branches) -> None:
    calls = calls_of(trained_like)
    sample(trained_like, *branches, FLOW, InferenceConfig(steps=8, guidance=3.0, interval=(0.25, 0.5)))
    texts = [bool(len(batch.text)) for batch, _ in calls]
    assert (texts.count(True), texts.count(False)) == (8, 3)  # at 0.25, 0.375 and 0.5
