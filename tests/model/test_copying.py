"""The copy head: an untrained model already gives back its source, in any packing.

And without context there is nothing to copy.
"""

from __future__ import annotations

import dataclasses

import pytest
import torch

from model.dit import DiT, DiTConfig
from model.packing import pack
from model.rope import RopeConfig
from model.sequence import Sequence, SequenceConfig, TextElement, VisionElement, build_sequence

CONFIG = DiTConfig(
    text_dim=8,
    vision_dim=12,
    width=64,
    depth=1,
    heads=2,
    rope=RopeConfig(dims=(4, 4, 12, 12)),
    copy_prior=(0.0, 10.0, 5.0, 5.0),
)


def edit_of(source: torch.Tensor | None, words: int) -> Sequence:
    elements = [TextElement(torch.randn(words, 8)), VisionElement("video2", torch.zeros(3, 4, 6, 3), True)]
    if source is not None:
        elements.insert(0, VisionElement("video1", source))
    return build_sequence(elements, SequenceConfig(patch=2), spatial=8)


@torch.no_grad()
def predict(dit: DiT, sequences: list[Sequence]) -> list[torch.Tensor]:
    batch = pack(sequences, pad_to=sum(map(len, sequences)) + 5)
    vision = batch.vision.index_copy(0, batch.target_vision, torch.randn(len(batch.target), 12))
    out = dit(batch, vision, torch.full((batch.segments,), 0.5))[0]
    return [out[batch.target_sequence == i] for i in range(len(sequences))]


def test_an_untrained_model_points_at_the_same_place() -> None:
    torch.manual_seed(0)
    dit = DiT(CONFIG)
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
    dit = DiT(CONFIG)
    batch = pack([edit_of(torch.randn(3, 4, 6, 3), 5)])
    dit(batch, batch.vision, torch.ones(batch.segments))[0].square().sum().backward()
    assert dit.copy is not None
    for parameter in dit.copy.parameters():
        assert parameter.grad is not None
        assert parameter.grad.any()


def test_place_prior_needs_biases() -> None:
    with pytest.raises(ValueError, match="place_prior needs"):
        dataclasses.replace(CONFIG, place_prior=1.0)
