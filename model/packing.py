"""Several sequences side by side in one batch of tokens, and the plan of which samples a step takes.

The plan is a pure function of (lengths, seed, step): resuming needs the step number and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence as Sequences
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.sequence import END, PAD, START, TEXT, VISION, Sequence


@dataclass(frozen=True)
class PackedBatch:
    """N tokens of S sequences, one after the other; no attention crosses a sequence.

    Attributes:
        text: float [text tokens, text width].
        vision: float [vision tokens, token size], clean.
        gather: int64 [N], row of each token in the table [text; vision; start; end; pad].
        positions: int64 [N, 4].
        segment: int64 [N], global segment number.
        cu_seqlens: int32 [S + 1]; max_seqlen: tokens of the longest sequence.
        noisy, context: int64, places of the target segments' tokens (start and end of vision included), and
            of all others, both ascending.
        cu_noisy, cu_context: int32 [S + 1], how these are shared out among the sequences; max_noisy,
            max_context: the most of one sequence.
        target: int64 [M], places among the N tokens of the target segments' vision tokens.
        target_vision: int64 [M], their places among the vision tokens.
        target_segment: int64 [S], global segment number of each sequence's target.
        target_sequence: int64 [M], number of the sequence that each target token belongs to.
        segments: number of segments, padding included.
    """

    text: Tensor
    vision: Tensor
    gather: Tensor
    positions: Tensor
    segment: Tensor
    cu_seqlens: Tensor
    noisy: Tensor
    context: Tensor
    cu_noisy: Tensor
    cu_context: Tensor
    target: Tensor
    target_vision: Tensor
    target_segment: Tensor
    target_sequence: Tensor
    segments: int
    max_seqlen: int
    max_noisy: int
    max_context: int

    def to(self, device: torch.device | str) -> PackedBatch:
        """Copy every tensor to a device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {name: v.to(device) for name, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **moved)


def pack(sequences: Sequences[Sequence], pad_to: int | None = None) -> PackedBatch:
    """Put sequences side by side, in order.

    Args:
        sequences: at least one.
        pad_to: fill up with padding tokens to this many; they form a sequence of their own at the end.

    Raises:
        ValueError: no sequence, or more tokens than `pad_to`.
    """
    if not sequences:
        raise ValueError("pack: needs at least one sequence")
    lengths = [len(s) for s in sequences]
    padding = 0 if pad_to is None else pad_to - sum(lengths)
    if padding < 0:
        raise ValueError(f"pack: {sum(lengths)} tokens do not fit into pad_to={pad_to}")
    text = [s.text for s in sequences if len(s.text)]
    texts, visions = sum(len(t) for t in text), sum(len(s.vision) for s in sequences)
    bounds = torch.tensor([0, *np.cumsum(lengths + [padding] * (padding > 0))], dtype=torch.int32)
    kind = torch.cat([s.kind for s in sequences] + [torch.full((padding,), PAD)])
    gather = torch.full_like(kind, texts + visions + 2)
    gather[kind == TEXT] = torch.arange(texts)
    gather[kind == VISION] = torch.arange(texts, texts + visions)
    gather[kind == START], gather[kind == END] = texts + visions, texts + visions + 1
    segment, targets, shift = [], [], 0
    for s in sequences:
        segment.append(s.segment + shift)
        targets.append(shift + s.segments.index(s.target))
        shift += len(s.segments)
    segment.append(torch.full((padding,), shift))
    segments = torch.cat(segment)
    is_noisy = torch.isin(segments, torch.tensor(targets))
    target = (is_noisy & (kind == VISION)).nonzero().flatten()
    cu_noisy = torch.cat([is_noisy.new_zeros(1, dtype=torch.int32), is_noisy.cumsum(0, dtype=torch.int32)])
    cu_noisy = cu_noisy[bounds.long()]
    cu_context = bounds - cu_noisy
    return PackedBatch(
        text=torch.cat(text) if text else torch.zeros(0, 0),
        vision=torch.cat([s.vision for s in sequences]),
        gather=gather,
        positions=torch.cat([s.positions for s in sequences] + [torch.zeros(padding, 4, dtype=torch.long)]),
        segment=segments,
        cu_seqlens=bounds,
        noisy=is_noisy.nonzero().flatten(),
        context=(~is_noisy).nonzero().flatten(),
        cu_noisy=cu_noisy,
        cu_context=cu_context,
        target=target,
        target_vision=gather[target] - texts,
        target_segment=torch.tensor(targets),
        target_sequence=torch.searchsorted(bounds[1:].long(), target, right=True),
        segments=shift + (padding > 0),
        max_seqlen=max([*lengths, padding]),
        max_noisy=int(cu_noisy.diff().max()),
        max_context=int(cu_context.diff().max()),
    )


@dataclass(frozen=True)
class Draw:
    """One visit of a sample: its index, and the epoch in which it is drawn."""

    index: int
    epoch: int


def draws_of(step: int, samples: int, batch_size: int, seed: int) -> list[Draw]:
    """The samples of a step: `batch_size` consecutive places in an endless row of shuffled epochs.

    Every epoch visits every sample once; its order depends on (seed, epoch) alone.
    """
    places = np.arange(step * batch_size, (step + 1) * batch_size)
    orders = {
        int(e): np.random.default_rng([seed, int(e)]).permutation(samples)
        for e in np.unique(places // samples)
    }
    return [Draw(int(orders[int(p) // samples][p % samples]), int(p // samples)) for p in places]


def plan_step(
    lengths: Sequences[int], step: int, *, seed: int, batch_size: int, token_budget: int
) -> list[list[Draw]]:
    """Cut a step's samples into micro-batches of at most `token_budget` tokens.

    First fit, longest first; equal lengths keep their order, so that the plan is unique.

    Raises:
        ValueError: a sample is longer than the budget (it is named by its index), or there are no samples.
    """
    if not lengths:
        raise ValueError("no training samples")
    longest = int(np.argmax(lengths))
    if lengths[longest] > token_budget:
        raise ValueError(
            f"sample {longest} has {lengths[longest]} tokens, more than token_budget={token_budget}: "
            "raise the budget"
        )
    draws = draws_of(step, len(lengths), batch_size, seed)
    bins: list[tuple[int, list[Draw]]] = []
    for draw in sorted(draws, key=lambda d: -lengths[d.index]):
        for number, (used, content) in enumerate(bins):
            if used + lengths[draw.index] <= token_budget:
                bins[number] = (used + lengths[draw.index], [*content, draw])
                break
        else:
            bins.append((lengths[draw.index], [draw]))
    return [content for _, content in bins]
