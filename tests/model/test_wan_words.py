"""Text also among the tokens of Wan's transformer: the base at the start, words that matter afterwards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from model.net.wan import WanTransformer, with_words
from model.net.wan_config import WanConfig
from model.sequence.interleave import (
    END,
    START,
    TEXT,
    VISION,
    Element,
    SequenceConfig,
    TextElement,
    TokenSequence,
    VisionElement,
    build_sequence,
    interleave,
    patchify,
)
from model.sequence.packing import PackedBatch, pack
from shards.sample import split_text
from tests.model.test_wan import alone as base_alone
from tests.model.test_wan import edit as base_edit
from tests.model.test_wan import error, ours, predict
from tests.model.wan_cases import ALONE, BERNINI, CONFIG, EDIT, TEXTS, numbers

LAYOUT = SequenceConfig(pixel_positions=False, text="both", first_axis="source")
WORDS = {"put": numbers("put", 4, 32), "on": numbers("on", 3, 32)}
Place = Callable[[list[Element]], list[Element]]


def sequence(prompt: Tensor, elements: list[Element]) -> TokenSequence:
    return build_sequence([TextElement(prompt, prompt=True), *elements], LAYOUT)


def edit(place: Place = lambda elements: elements) -> TokenSequence:
    """Words, source, words, reference, target: that of `test_wan`, with text among its tokens."""
    source, picture, target = (VisionElement(n, x, n == "target") for n, x in EDIT.items())
    put, on = (TextElement(states) for states in WORDS.values())
    return sequence(TEXTS["edit"], place([put, source, on, picture, target]))


def alone() -> TokenSequence:
    """A dropped text: start and end of the only picture are its words."""
    return sequence(TEXTS["alone"], [VisionElement("picture", ALONE["picture"], True)])


def started(config: WanConfig, seed: int = 0) -> WanTransformer:
    return with_words(ours(config), dataclasses.replace(config, words=True), seed).eval()


@torch.no_grad()
def opened(config: WanConfig = BERNINI) -> WanTransformer:
    """Gates of either sign, another for each head, and new weights that show."""
    net = started(config)
    for number, block in enumerate(net.blocks):
        block.get_parameter("attn1.word_gate").copy_(torch.tensor([0.9, -0.4]) + 0.2 * number)
    for name in ("text_in.weight", "bounds"):
        weight = net.get_parameter(name)
        weight.copy_(0.4 * numbers(name, *weight.shape))
    return net


@pytest.mark.parametrize("config", [CONFIG, BERNINI], ids=["wan", "bernini"])
def test_the_start_is_the_base(config: WanConfig) -> None:
    """A packed batch of an edit with a reference and a picture, whatever the words are and where."""
    net = started(config)
    expected = predict(ours(config), pack([base_edit(), base_alone()]))
    moved = edit(lambda elements: [elements[2], *elements[1::-1], *elements[3:]])
    for one in (edit(), moved):
        assert error(predict(net, pack([one, alone()])), expected) < 1e-6


def test_new_weights_follow_the_seed_and_the_others_are_the_bases_own() -> None:
    base = ours(BERNINI)
    config = dataclasses.replace(BERNINI, words=True)
    one, same, other = (with_words(base, config, seed).state_dict() for seed in (0, 0, 1))
    new = one.keys() - base.state_dict().keys()
    gates = {f"blocks.{n}.attn1.word_gate" for n in range(BERNINI.depth)}
    assert new == gates | {"text_in.weight", "text_in.bias", "bounds"}
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert {name for name in one if not torch.equal(one[name], other[name])} == {"text_in.weight", "bounds"}
    assert all(value.data_ptr() == one[name].data_ptr() for name, value in base.state_dict().items())


def test_a_step_opens_the_gates_and_then_words_matter() -> None:
    net = started(BERNINI).train()
    batch = pack([edit(), alone()])
    other = dataclasses.replace(batch, text=batch.text.flip(0))
    assert error(predict(net, other), predict(net, batch)) == 0
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    loss_of(net, batch).backward()
    gates = [block.get_parameter("attn1.word_gate") for block in net.blocks]
    assert all(gate.grad is not None and bool(gate.grad.all()) for gate in gates)
    optimizer.step()
    optimizer.zero_grad()
    assert error(predict(net, other), predict(net, batch)) > 1e-4
    loss_of(net, batch).backward()
    missing = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert missing == []


def loss_of(net: nn.Module, batch: PackedBatch) -> Tensor:
    loss: Tensor = net(batch, batch.vision, torch.full((batch.segments,), 0.4))[0].square().mean()
    return loss


def test_packed_alone_and_padded_are_the_same() -> None:
    net = opened()
    single = torch.cat([predict(net, pack([one])) for one in (edit(), alone())])
    sequences = [edit(), alone()]
    for batch in (pack(sequences), pack(sequences, pad_to=sum(map(len, sequences)) + 11)):
        assert error(predict(net, batch), single) < 1e-5
    # a rank without any sequence has padding alone: every weight has a gradient, which is zero
    empty = pack([], pad_to=3, token_size=16, has_prompt=True)
    net.train()
    net(empty, empty.vision, torch.ones(1))[0].sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in net.parameters())


@pytest.mark.parametrize(
    "place",
    [
        lambda e: [e[2], e[1], e[0], e[3], e[4]],
        lambda e: [e[1], e[0], e[2], e[3], e[4]],
        lambda e: [e[0], e[1], e[3], e[2], e[4]],
    ],
    ids=["texts exchanged", "text after a video", "text after a picture"],
)
def test_the_order_of_text_and_media_matters(place: Place) -> None:
    """Media stay in their order, so that their own positions do, and the prompt is the same."""
    net = opened()
    assert error(predict(net, pack([edit(place)])), predict(net, pack([edit()]))) > 0.001


def test_attention_is_the_bases_plus_a_gated_one_to_words() -> None:
    """Of one block, by hand: every query, words included, with a softmax for each of the two kinds of key."""
    attention, batch = opened().blocks[1].get_submodule("attn1"), pack([edit(), alone()], pad_to=80)
    q, k, v = (numbers(name, 80, 2, 24) * 2 for name in "qkv")
    out = attention.mix(q, k, v, batch, "all", None)  # type: ignore[operator]
    kinds = [*(s.kind for s in (edit(), alone())), torch.full((80 - len(edit()) - len(alone()),), -1)]
    gate = torch.tanh(attention.get_parameter("word_gate"))
    start = 0
    for kind in kinds:
        rows = slice(start, start + len(kind))
        start += len(kind)
        scores = torch.einsum("qhd,khd->hqk", q[rows], k[rows]) / 24**0.5
        parts = []
        for chosen in ((kind == VISION) | (kind == -1), kind != VISION):
            weight = scores.masked_fill(~chosen, -torch.inf).softmax(-1)
            parts.append(torch.einsum("hqk,khd->qhd", weight, v[rows]))
        torch.testing.assert_close(out[rows], parts[0] + gate[:, None] * parts[1])


def test_words_are_counted_on_the_time_axis() -> None:
    """Text is at no source, a medium's start and end at its number; their order is that of section 3.2."""
    laid_out = edit()
    kinds, positions = laid_out.kind, laid_out.positions
    assert positions[kinds == TEXT].tolist() == [[0, n, 0, 0] for n in (0, 1, 2, 3, 7, 8, 9)]
    assert positions[kinds == START].tolist() == [[1, 4, 0, 0], [2, 10, 0, 0], [0, 11, 0, 0]]
    assert positions[kinds == END].tolist() == [[1, 6, 0, 0], [2, 10, 0, 0], [0, 13, 0, 0]]
    assert torch.equal(positions[kinds == VISION], base_edit().positions)


def test_a_dropped_text_leaves_its_words_out() -> None:
    parts = split_text("Put <video1> on <image1> <video2>")
    media = dict(zip(("video1", "image1", "video2"), EDIT.values(), strict=True))
    states = {"Put": WORDS["put"], "on": WORDS["on"]}
    for drop, prompt, words in ((False, TEXTS["edit"], 7), (True, TEXTS["alone"], 0)):
        elements = interleave(parts, media, "video2", states.__getitem__, drop_text=drop, prompt=prompt)
        made = build_sequence(elements, LAYOUT)
        assert made.prompt is not None
        assert torch.equal(made.prompt, prompt)
        assert (len(made.text), int((made.kind == TEXT).sum())) == (words, words)
        assert [int((made.kind == bound).sum()) for bound in (START, END)] == [3, 3]
        assert len(made.vision) == sum(len(patchify(latents, 2)) for latents in EDIT.values())


def test_layouts_that_do_not_fit_are_refused() -> None:
    net, plain = opened(), ours(BERNINI)
    with pytest.raises(ValueError, match="must be both"):
        predict(net, pack([base_edit()]))
    for one in (edit(), alone()):
        with pytest.raises(ValueError, match="must be cross_attention"):
            predict(plain, pack([one], pad_to=80))
