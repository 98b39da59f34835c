"""Sequences: order, positions for given texts, and refusal of texts and media that disagree.

Paper sections 3.1 and 3.2.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.sequence.interleave import (
    END,
    START,
    TEXT,
    VISION,
    Element,
    SequenceConfig,
    SequenceError,
    TextElement,
    VisionElement,
    build_sequence,
    interleave,
    patchify,
    unpatchify,
)
from shards.sample import split_text


def words(text: str) -> torch.Tensor:
    """One token of width 3 per word."""
    return torch.ones(len(text.split()), 3)


def test_positions_of_an_edit() -> None:
    latents = {"video1": torch.zeros(2, 2, 4, 1), "video2": torch.zeros(2, 2, 4, 1)}
    elements = interleave(split_text("<video1> Remove it. <video2>"), latents, "video2", words)
    sequence = build_sequence(elements, SequenceConfig(patch=2), spatial=8)
    # start, two frames of 1x2 tokens, end, two words, start, two frames, end
    assert sequence.kind.tolist() == [
        *(START, VISION, VISION, VISION, VISION, END),
        *(TEXT, TEXT),
        *(START, VISION, VISION, VISION, VISION, END),
    ]
    # section 3.2: one count per text token and frame; start and end stand at their first and last frame
    assert sequence.positions.tolist() == [
        [0, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 16],
        [1, 1, 0, 0],
        [1, 1, 0, 16],
        [1, 0, 0, 0],
        [2, 0, 0, 0],
        [3, 0, 0, 0],
        [4, 0, 0, 0],
        [4, 0, 0, 0],
        [4, 0, 0, 16],
        [5, 1, 0, 0],
        [5, 1, 0, 16],
        [5, 0, 0, 0],
    ]
    assert sequence.target.name == "video2"
    assert (sequence.target.start, sequence.target.stop, sequence.target.size) == (8, 14, (2, 1, 2))


def test_ablations_of_positions() -> None:
    elements: list[Element] = [VisionElement("image1", torch.zeros(1, 4, 4, 1), target=True)]
    tokens = build_sequence(elements, SequenceConfig(patch=2, pixel_positions=False), spatial=8)
    assert tokens.positions[:, 2:].max() == 1
    flat = build_sequence(elements, SequenceConfig(patch=2, sequential=False), spatial=8)
    assert not flat.positions[:, 0].any()


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("text"), st.integers(0, 4), st.just(0), st.just(0)),
            st.tuples(st.just("vision"), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
        ),
        min_size=1,
        max_size=6,
    ),
    st.data(),
)
def test_any_interleaving_is_consistent(shapes: list[tuple[str, int, int, int]], data: st.DataObject) -> None:
    visual = [i for i, shape in enumerate(shapes) if shape[0] == "vision"]
    if not visual:
        shapes, visual = [*shapes, ("vision", 1, 1, 1)], [len(shapes)]
    target = data.draw(st.sampled_from(visual))
    elements: list[Element] = []
    for i, (kind, a, b, c) in enumerate(shapes):
        if kind == "text":
            elements.append(TextElement(torch.full((a, 3), float(i))))
        else:
            elements.append(VisionElement(f"v{i}", torch.full((a, 2 * b, 2 * c, 1), float(i)), i == target))
    sequence = build_sequence(elements, SequenceConfig(patch=2), spatial=8)
    # the sequence axis never falls and never skips
    steps = sequence.positions[:, 0].diff()
    assert sequence.positions[0, 0] == 0
    assert set(steps.tolist()) <= {0, 1}
    assert (sequence.kind == VISION).sum() == len(sequence.vision)
    assert (sequence.kind == TEXT).sum() == len(sequence.text)
    # tokens carry their element's number: order is the text's order
    values = torch.zeros(len(sequence))
    values[sequence.kind == VISION] = sequence.vision[:, 0]
    if len(sequence.text):
        values[sequence.kind == TEXT] = sequence.text[:, 0]
    inner = (sequence.kind == VISION) | (sequence.kind == TEXT)
    assert (values[inner].diff() >= 0).all()
    assert sum(s.stop - s.start for s in sequence.segments) == len(sequence)
    assert sequence.target.name == f"v{target}"
    # only vision tokens have a place in space and time
    assert not sequence.positions[sequence.kind != VISION, 1:].any()


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_patchify_is_invertible(frames: int, rows: int, columns: int, patch: int) -> None:
    latents = torch.randn(frames, rows * patch, columns * patch, 2)
    tokens = patchify(latents, patch)
    assert tokens.shape == (frames * rows * columns, patch * patch * 2)
    assert torch.equal(unpatchify(tokens, (frames, rows, columns), patch), latents)


LATENTS = torch.zeros(1, 2, 2, 1)


@pytest.mark.parametrize(
    ("text", "names", "target", "message"),
    [
        ("<video1> Go. <video2>", ["video1"], "video1", "names <video2> but no such media"),
        ("<video1> Go.", ["video1", "image1"], "video1", "'image1' is given but the text does not name"),
        ("<video1> Go. <video1>", ["video1"], "video1", "names <video1> more than once"),
        ("<video1> Go.", ["video1"], "video2", "the target 'video2' is not named"),
    ],
)
def test_disagreement_is_refused_by_name(text: str, names: list[str], target: str, message: str) -> None:
    with pytest.raises(SequenceError, match=message):
        interleave(split_text(text), dict.fromkeys(names, LATENTS), target, words)


def test_carried_mask_stays_out_and_text_can_be_dropped() -> None:
    latents = {"video1": LATENTS, "video2": LATENTS, "mask": LATENTS}
    parts = split_text("<video1> Go. <video2>")
    elements = interleave(parts, latents, "video2", words, carried=["mask"], drop_text=True)
    assert [e.name for e in elements if isinstance(e, VisionElement)] == ["video1", "video2"]
    assert not any(isinstance(e, TextElement) for e in elements)


def test_shapes_and_targets_are_refused() -> None:
    with pytest.raises(SequenceError, match="exactly one target"):
        build_sequence([VisionElement("video1", LATENTS)], SequenceConfig())
    with pytest.raises(SequenceError, match="do not divide"):
        build_sequence([VisionElement("video1", torch.zeros(1, 3, 2, 1), True)], SequenceConfig(patch=2))
    with pytest.raises(SequenceError, match="video2: 8 numbers per token, not 4"):
        build_sequence(
            [VisionElement("video1", LATENTS, True), VisionElement("video2", torch.zeros(1, 2, 2, 2))],
            SequenceConfig(patch=2),
        )
