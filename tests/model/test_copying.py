"""The copy head: an untrained model already gives back its source, in any packing.

And without context there is nothing to copy.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from model.config import ModelConfig
from model.extras.config import ExtrasConfig
from model.net.config import DiTConfig
from model.net.dit import DiT
from model.sequence.interleave import (
    SequenceConfig,
    TextElement,
    TokenSequence,
    VisionElement,
    build_sequence,
)
from model.sequence.packing import pack
from model.sequence.rope import RopeConfig

CONFIG = DiTConfig(
    text_dim=8,
    vision_dim=12,
    width=64,
    depth=1,
    heads=2,
    rope=RopeConfig(dims=(4, 4, 12, 12)),
)
EXTRAS = ExtrasConfig(copy_bias=(0.0, 10.0, 5.0, 5.0))


def edit_of(source: torch.Tensor | None, words: int) -> TokenSequence:
    elements = [TextElement(torch.randn(words, 8)), VisionElement("video2", torch.zeros(3, 4, 6, 3), True)]
    if source is not None:
        elements.insert(0, VisionElement("video1", source))
    return build_sequence(elements, SequenceConfig(patch=2), spatial=8)


@torch.no_grad()
def predict(dit: DiT, sequences: list[TokenSequence]) -> list[torch.Tensor]:
    batch = pack(sequences, pad_to=sum(map(len, sequences)) + 5)
    vision = batch.vision.index_copy(0, batch.target_vision, torch.randn(len(batch.target), 12))
    out = dit(batch, vision, torch.full((batch.segments,), 0.5))[0]
    return [out[batch.target_sequence == i] for i in range(len(sequences))]


def test_an_untrained_model_points_at_the_same_place() -> None:
    torch.manual_seed(0)
    dit = DiT(CONFIG, EXTRAS)
    sources = [torch.randn(3, 4, 6, 3), torch.randn(3, 4, 6, 3)]
    sequences = [edit_of(sources[0], 5), edit_of(None, 3), edit_of(sources[1], 1)]
    first, nothing, second = predict(dit, sequences)
    assert not nothing.any()
    gate = torch.sigmoid(torch.tensor(1.0))
    for copied, sequence in ((first, sequences[0]), (second, sequences[2])):
        tokens = sequence.vision[: len(copied)]
        assert (copied - gate * tokens).square().mean() < 0.02 * tokens.square().mean()


def test_gradients_reach_the_pointer() -> None:
    torch.manual_seed(0)
    dit = DiT(CONFIG, EXTRAS)
    batch = pack([edit_of(torch.randn(3, 4, 6, 3), 5)])
    dit(batch, batch.vision, torch.ones(batch.segments))[0].square().sum().backward()
    assert dit.copy is not None
    for parameter in dit.copy.parameters():
        assert parameter.grad is not None
        assert parameter.grad.any()


@pytest.mark.parametrize(
    ("kv_heads", "biased", "queries", "keys"), [(None, 1, 1, 1), (2, 2, 2, 1), (2, None, 4, 2)]
)
def test_some_heads_start_at_their_own_place(
    kv_heads: int | None, biased: int | None, queries: int, keys: int
) -> None:
    config = dataclasses.replace(
        CONFIG,
        width=64,
        heads=4,
        kv_heads=kv_heads,
        rope=RopeConfig(dims=(4, 4, 4, 4)),
        qkv_bias=True,
    )
    extras = ExtrasConfig(position_bias=1.0, position_bias_heads=biased)
    for name, bias in DiT(config, extras).named_parameters():
        for ending, count in (("attention.q.bias", queries), ("attention.k.bias", keys)):
            if name.endswith(ending):
                placed = bias.detach().view(-1, 16).any(1)
                assert placed[:count].all()
                assert not placed[count:].any()
    with pytest.raises(ValueError, match=r"extras.position_bias_heads 5: from 1 to 4 heads"):
        ModelConfig(dit=config, extras=dataclasses.replace(extras, position_bias_heads=5))


def test_a_position_bias_needs_biases() -> None:
    with pytest.raises(ValueError, match="position_bias needs"):
        ModelConfig(dit=CONFIG, extras=ExtrasConfig(position_bias=1.0))
