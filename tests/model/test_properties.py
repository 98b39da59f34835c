"""What holds for every interleaving of text, images and videos, by random search.

A small transformer with random weights, on the CPU, with either setting of `context`.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from model.extras.config import ExtrasConfig
from model.net.config import DiTConfig
from model.net.dit import DiT
from model.sequence.interleave import TEXT, Element, SequenceConfig, TokenSequence, build_sequence, interleave
from model.sequence.packing import PackedBatch, pack
from model.sequence.rope import RopeConfig, _frequency_table, mark_constants, rotation
from shards.sample import split_text

CHANNELS, WORD = 3, 8
LAYOUT = SequenceConfig(patch=2)
BOTH: list[Literal["full", "cached"]] = ["full", "cached"]


@functools.cache
def network(context: Literal["full", "cached"], copying: bool = False, deterministic: bool = False) -> DiT:
    """A transformer whose zero-initialised parts are filled, so that every input reaches the output."""
    config = DiTConfig(
        text_dim=WORD,
        vision_dim=4 * CHANNELS,
        width=32,
        depth=2,
        heads=2,
        kv_heads=1,
        rope=RopeConfig(dims=(4, 4, 4, 4)),
        context=context,
        deterministic=deterministic,
    )
    torch.manual_seed(0)
    dit = DiT(config, ExtrasConfig(copy_bias=(0.0, 1.0, 1.0, 1.0) if copying else None))
    with torch.no_grad():
        for parameter in dit.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
    return dit.eval()


def run(
    dit: DiT, batch: PackedBatch, t: list[float], vision: Tensor | None = None, memory: Any = None
) -> Tensor:
    """The prediction, with the targets of the batch at the times `t`."""
    timestep = torch.ones(batch.segments)
    timestep[batch.target_segment] = torch.tensor(t)
    with torch.no_grad():
        return dit(batch, batch.vision if vision is None else vision, timestep, memory)[0]


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def encode(text: str) -> Tensor:
    """One token per word; `w7` is seven everywhere, any other word follows from its letters."""
    rows = [
        torch.full((WORD,), float(word[1:])) if word[1:].isdigit() else random(sum(map(ord, word)), WORD)
        for word in text.split()
    ]
    return torch.stack(rows) if rows else torch.zeros(0, WORD)


@dataclasses.dataclass(frozen=True)
class Example:
    """A sample: a text with tags, latents for them, the target."""

    text: str
    latents: dict[str, Tensor]
    target: str

    def elements(self) -> list[Element]:
        return interleave(split_text(self.text), self.latents, self.target, encode)

    def sequence(self, layout: SequenceConfig = LAYOUT) -> TokenSequence:
        return build_sequence(self.elements(), layout, spatial=8)


@st.composite
def examples(draw: st.DrawFn, sources: int = 0) -> Example:
    """1 to 6 elements of any kind, order and size, at least `sources` + 1 of them vision."""
    needed = [draw(st.sampled_from(["image", "video"])) for _ in range(sources + 1)]
    others = draw(st.lists(st.sampled_from(["text", "image", "video"]), max_size=5 - sources))
    kinds = draw(st.permutations([*needed, *others]))
    side, parts, latents, words = st.integers(1, 3), [], {}, 0
    for number, kind in enumerate(kinds):
        if kind == "text":
            length = draw(st.integers(0, 4))
            parts.append(" ".join(f"w{words + i}" for i in range(length)))
            words += length
        else:
            name = f"{kind}{number + 1}"
            frames = 1 if kind == "image" else draw(st.integers(1, 3))
            shape = (frames, 2 * draw(side), 2 * draw(side), CHANNELS)
            latents[name] = random(draw(st.integers(0, 99)), *shape)
            parts.append(f"<{name}>")
    return Example(" ".join(parts), latents, draw(st.sampled_from(sorted(latents))))


times = st.sampled_from([0.0, 0.1, 0.5, 0.93, 1.0])
visits = st.lists(st.tuples(examples(), times), min_size=2, max_size=4)
few = settings(deadline=None, max_examples=20)


@pytest.mark.parametrize("copying", [False, True])
@pytest.mark.parametrize("context", BOTH)
@few
@given(visits, st.randoms(use_true_random=False), st.integers(1, 40))
def test_alone_packed_permuted_and_padded_agree(
    context: Literal["full", "cached"],
    copying: bool,
    visits: list[tuple[Example, float]],
    shuffle: Any,
    padding: int,
) -> None:
    dit = network(context, copying)
    sequences, t = [e.sequence() for e, _ in visits], [time for _, time in visits]
    alone = [run(dit, pack([s]), [v]) for s, v in zip(sequences, t, strict=True)]
    order = list(range(len(visits)))
    shuffle.shuffle(order)
    lengths = sum(map(len, sequences))
    for places, pad_to in (
        (sorted(order), None),
        (order, None),
        (sorted(order), lengths + padding),
        (order, lengths),
    ):
        batch = pack([sequences[i] for i in places], pad_to)
        out = run(dit, batch, [t[i] for i in places])
        for number, i in enumerate(places):
            close(out[batch.target_sequence == number], alone[i])


@few
@given(examples())
def test_tokens_are_those_of_the_text_and_no_others(example: Example) -> None:
    sequence = example.sequence()
    text = [part for kind, part in split_text(example.text) if kind == "text"]
    numbers = [float(word[1:]) for part in text for word in part.split()]
    assert sequence.text[:, :1].flatten().tolist() == numbers
    assert int((sequence.kind == TEXT).sum()) == len(numbers)
    # the batch that the network sees holds them in order, each once, padding aside
    batch = pack([sequence], len(sequence) + 5)
    assert batch.gather[: len(sequence)][sequence.kind == TEXT].tolist() == list(range(len(numbers)))
    assert int((batch.gather < len(numbers)).sum()) == len(numbers)
    assert [s.name for s in sequence.segments if s.kind == "vision"] == list(example.latents)


def swapped(text: str, a: str, b: str) -> str:
    return text.replace(f"<{a}>", "<>").replace(f"<{b}>", f"<{a}>").replace("<>", f"<{b}>")


@pytest.mark.parametrize("context", BOTH)
@few
@given(examples(sources=2), times, st.data())
def test_names_do_not_matter_and_places_do(
    context: Literal["full", "cached"], example: Example, t: float, data: st.DataObject
) -> None:
    dit = network(context)
    sources = sorted(set(example.latents) - {example.target})
    a, b = data.draw(st.permutations(sources))[:2]
    media = {**example.latents, a: example.latents[b], b: example.latents[a]}
    base = run(dit, pack([example.sequence()]), [t])
    # tags and pixels together: another name for the same sequence
    renamed = dataclasses.replace(example, text=swapped(example.text, a, b), latents=media)
    assert torch.equal(run(dit, pack([renamed.sequence()]), [t]), base)
    # tags alone or pixels alone: each is the other, and another sequence
    moved = dataclasses.replace(example, text=swapped(example.text, a, b)).sequence()
    exchanged = dataclasses.replace(example, latents=media).sequence()
    assert torch.equal(moved.vision, exchanged.vision)
    assert torch.equal(moved.positions, exchanged.positions)
    out = run(dit, pack([moved]), [t])
    assert torch.equal(out, run(dit, pack([exchanged]), [t]))
    if not torch.equal(moved.vision, example.sequence().vision):
        assert (out - base).abs().max() > 1e-6


@pytest.mark.parametrize("context", BOTH)
@few
@given(st.integers(0, 99), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), times)
def test_only_the_sequence_axis_tells_equal_images_apart(
    context: Literal["full", "cached"], seed: int, rows: int, columns: int, words: int, t: float
) -> None:
    dit = network(context)
    shape = (1, 2 * rows, 2 * columns, CHANNELS)
    latents = {f"image{i}": random(4 * seed + i, *shape) for i in (1, 2, 3)}
    between = ["put", "it", "here"][:words]
    first, second = (
        Example(" ".join([f"<{a}>", *between, f"<{b}>", "now <image3>"]), latents, "image3")
        for a, b in (("image1", "image2"), ("image2", "image1"))
    )

    def distance(sequential: bool) -> float:
        layout = dataclasses.replace(LAYOUT, sequential=sequential)
        a, b = (run(dit, pack([e.sequence(layout)]), [t]) for e in (first, second))
        return float((a - b).abs().max())

    assert distance(sequential=False) < 1e-5
    assert distance(sequential=True) > 1e-4


@few
@given(examples())
def test_without_interleaving_all_text_stands_before_all_vision(example: Example) -> None:
    mixed, flat = (
        example.sequence(dataclasses.replace(LAYOUT, interleaved=interleaved))
        for interleaved in (True, False)
    )
    texts = len(mixed.text)
    assert (flat.kind[:texts] == TEXT).all()
    assert not (flat.kind[texts:] == TEXT).any()
    assert torch.equal(flat.text, mixed.text)
    assert torch.equal(flat.vision, mixed.vision)
    assert [s.name for s in flat.segments if s.name] == [s.name for s in mixed.segments if s.name]
    assert flat.positions[:texts, 0].tolist() == list(range(texts))
    assert flat.target.name == mixed.target.name


@pytest.mark.parametrize("copying", [False, True])
@few
@given(visits, st.integers(0, 20), times, st.integers(0, 99))
def test_a_context_computed_once_gives_the_same(
    copying: bool, visits: list[tuple[Example, float]], padding: int, again: float, seed: int
) -> None:
    dit = network("cached", copying)
    sequences, t = [e.sequence() for e, _ in visits], [time for _, time in visits]
    batch = pack(sequences, sum(map(len, sequences)) + padding)
    memory = dit.prefill_context(batch)
    noise = random(seed, len(batch.target), 4 * CHANNELS)
    for moments in (t, [again] * len(t), t):  # the last run shows that nothing of the others stays behind
        vision = batch.vision.index_copy(0, batch.target_vision, noise)
        close(run(dit, batch, moments, vision, memory), run(dit, batch, moments, vision))
        noise = noise + 1


def context_states(dit: DiT, batch: PackedBatch, vision: Tensor, t: list[float]) -> Tensor:
    """What the last block makes of the clean tokens in a whole pass."""
    seen: list[Tensor] = []
    hook = dit.blocks[-1].register_forward_hook(lambda module, inputs, out: seen.append(out))
    run(dit, batch, t, vision)
    hook.remove()
    return seen[0][batch.context]


@few
@given(visits, times)
def test_only_with_a_cached_context_are_clean_tokens_free_of_the_target(
    visits: list[tuple[Example, float]], again: float
) -> None:
    batch, t = pack([e.sequence() for e, _ in visits]), [time for _, time in visits]
    # every target changes: drawn anew, one could by its seed be what it was
    noisy = batch.vision.index_add(0, batch.target_vision, torch.ones(len(batch.target), 4 * CHANNELS))
    cached, full = network("cached"), network("full")
    states = context_states(cached, batch, batch.vision, t)
    assert torch.equal(states, context_states(cached, batch, noisy, [again] * len(t)))
    kept, other = (
        cached.prefill_context(dataclasses.replace(batch, vision=v)) for v in (batch.vision, noisy)
    )
    for one, two in zip(kept.blocks, other.blocks, strict=True):
        assert torch.equal(one.k[batch.context], two.k[batch.context])
        assert torch.equal(one.v[batch.context], two.v[batch.context])
    if len(states):
        assert not torch.equal(*(context_states(full, batch, v, t) for v in (batch.vision, noisy)))


def test_a_context_that_changes_with_the_target_cannot_be_kept() -> None:
    batch = pack(
        [
            Example(
                "<image1> go <image2>", dict.fromkeys(["image1", "image2"], random(0, 1, 2, 2, 3)), "image2"
            ).sequence()
        ]
    )
    with pytest.raises(ValueError, match="only under 'cached'"):
        network("full").prefill_context(batch)


@pytest.mark.parametrize("context", BOTH)
@settings(deadline=None, max_examples=8)
@given(visits)
def test_deterministic_runs_repeat_to_the_bit(
    context: Literal["full", "cached"], visits: list[tuple[Example, float]]
) -> None:
    batch = pack([e.sequence() for e, _ in visits])
    results = []
    for deterministic in (True, True, False):
        dit = network(context, copying=True, deterministic=deterministic)
        dit.zero_grad()
        outputs = dit(batch, batch.vision, torch.full((batch.segments,), 0.5))
        torch.stack([out.square().mean() for out in outputs]).sum().backward()
        results.append([*outputs, *(p.grad.clone() for p in dit.parameters() if p.grad is not None)])
    assert len(results[0]) > 30  # both outputs and most gradients: a pack may have no text or no source
    for first, again, free in zip(*results, strict=True):
        assert torch.equal(first, again)
        close(first, free)


def test_rotation_is_compiled_for_any_length_and_keeps_nothing_by_length() -> None:
    torch.compiler.reset()
    mark_constants()
    config = RopeConfig(dims=(6, 2, 4, 4), ntk=(2.0, 1.0, 1.0, 1.0))
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(rotation, backend=counter)
    lengths = [7, 8, 3, 500, *range(20, 36)]
    sizes = []
    for number, length in enumerate(lengths):
        positions = torch.randint(0, 1000, (length, 4), generator=torch.Generator().manual_seed(number))
        for ours, plain in zip(compiled(positions, config), rotation(positions, config), strict=True):
            torch.testing.assert_close(ours, plain)
        sizes.append(_frequency_table.cache_info().currsize)
    assert len(set(sizes)) == 1
    assert 1 <= counter.frame_count <= 2  # once for the first length, once for all others
    for graph in counter.graphs:
        # the table is a constant of the graph, not computed in it
        assert {node.target for node in graph.graph.nodes} & {operator.matmul}
        assert not {node.target for node in graph.graph.nodes} & {torch.block_diag, torch.arange}
