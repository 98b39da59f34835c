"""Several sequences side by side in one batch of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from model.sequence.interleave import END, PAD, START, TEXT, VISION, TokenSequence
from model.sequence.layout import Layout, SPPlan, lay_out


@dataclass(frozen=True)
class PackedText:
    """Prompts of S sequences side by side, for cross-attention; a sequence may have none.

    Attributes:
        states: float [P, text width].
        cu_seqlens: int32 [S + 1], where each prompt begins and ends.
        cu_queries: int32 [S + 1], where this rank's tokens of each sequence lie.
        lengths, queries: how many each has, on the host.
    """

    states: Tensor
    cu_seqlens: Tensor
    cu_queries: Tensor
    lengths: tuple[int, ...]
    queries: tuple[int, ...]


@dataclass(frozen=True)
class PackedBatch(Layout):
    """N tokens of S sequences, one after the other; no attention crosses a sequence.

    Where ranks share a pack, `sp_plan` says so: the fields of `Layout` then are those of the pack as a whole,
    all others those of this rank's run of its tokens, and of the padding behind it.

    Attributes:
        text: float [text tokens, text width].
        vision: float [vision tokens, token size], clean.
        gather: int64 [N], row of each token in the table [text; vision; start; end; pad].
        positions: int64 [N, 4]; float32 where the first axis counts sources.
        segment: int64 [N], global segment number.
        target: int64 [M], places among the N tokens of the target segments' vision tokens.
        target_vision: int64 [M], their places among the vision tokens.
        target_segment: int64 [S], global segment number of each sequence's target.
        target_sequence: int64 [M], number of the sequence that each target token belongs to.
        target_of: int64 [segments], the target's segment in the sequence of each segment; padding's own.
        segments: number of segments, padding included.
        prompt: the texts, where they come apart from the tokens (too).
    """

    text: Tensor
    vision: Tensor
    gather: Tensor
    positions: Tensor
    segment: Tensor
    target: Tensor
    target_vision: Tensor
    target_segment: Tensor
    target_sequence: Tensor
    target_of: Tensor
    segments: int
    sp_plan: SPPlan | None = None
    prompt: PackedText | None = None


def pack(
    sequences: Sequence[TokenSequence],
    pad_to: int | None = None,
    shared: tuple[SPPlan, Layout] | None = None,
    token_size: int = 0,
    has_prompt: bool = False,
) -> PackedBatch:
    """Put sequences side by side, in order.

    Args:
        sequences: at least one, or padding.
        pad_to: fill up with padding tokens to this many; they form a sequence of their own at the end.
        shared: the sequences are this rank's parts of a pack that ranks share: who they are, and the layout
            of all of it.
        token_size, has_prompt: numbers per vision token, and whether there are prompts apart from the tokens,
            where there is no sequence to tell.

    Raises:
        ValueError: no sequence and no padding, or more tokens than `pad_to`.
    """
    lengths = [len(s) for s in sequences]
    padding = 0 if pad_to is None else pad_to - sum(lengths)
    if padding < 0:
        raise ValueError(f"pack: {sum(lengths)} tokens do not fit into pad_to={pad_to}")
    if not sum(lengths) + padding:
        raise ValueError("pack: needs at least one sequence")
    text = [s.text for s in sequences if len(s.text)]
    vision = [s.vision for s in sequences]  # a part may have none, of the same width
    texts, visions = sum(map(len, text)), sum(map(len, vision))
    kind = torch.cat([s.kind for s in sequences] + [torch.full((padding,), PAD)])
    gather = torch.full_like(kind, texts + visions + 2)
    gather[kind == TEXT] = torch.arange(texts)
    gather[kind == VISION] = torch.arange(texts, texts + visions)
    gather[kind == START], gather[kind == END] = texts + visions, texts + visions + 1
    segment, targets, target_of, shift = [], [], [], 0
    for s in sequences:
        segment.append(s.segment + shift)
        targets.append(shift + s.segments.index(s.target))
        target_of += [targets[-1]] * len(s.segments)
        shift += len(s.segments)
    target_of += [shift] * (padding > 0)
    segment.append(torch.full((padding,), shift))
    segments = torch.cat(segment)
    is_noisy = torch.isin(segments, torch.tensor(targets, dtype=torch.long))
    target = (is_noisy & (kind == VISION)).nonzero().flatten()
    sp_plan, layout = shared if shared is not None else (None, None)
    if layout is None:
        layout = lay_out(lengths + [padding] * (padding > 0), is_noisy, kind)
        layout = replace(layout, key_bias=_key_bias(sequences, padding))
    ends = torch.tensor(np.cumsum(lengths), dtype=torch.long)
    return PackedBatch(
        text=torch.cat(text) if text else torch.zeros(0, 0),
        vision=torch.cat(vision) if vision else torch.zeros(0, token_size),
        gather=gather,
        positions=torch.cat([s.positions for s in sequences] + [torch.zeros(padding, 4, dtype=torch.long)]),
        segment=segments,
        target=target,
        target_vision=gather[target] - texts,
        target_segment=torch.tensor(targets, dtype=torch.long),
        target_sequence=torch.searchsorted(ends, target, right=True),
        target_of=torch.tensor(target_of, dtype=torch.long),
        segments=shift + (padding > 0),
        prompt=_pack_prompts(sequences, padding, has_prompt),
        sp_plan=sp_plan,
        **{f.name: getattr(layout, f.name) for f in fields(Layout)},
    )


def pack_layout(sequences: Sequence[TokenSequence]) -> Layout:
    """The layout of sequences side by side, without padding."""
    noisy = torch.cat([s.segment == s.segments.index(s.target) for s in sequences])
    return lay_out([len(s) for s in sequences], noisy, torch.cat([s.kind for s in sequences]))


def _key_bias(sequences: Sequence[TokenSequence], padding: int) -> Tensor | None:
    """See `Layout.key_bias`."""
    if all(s.weight is None for s in sequences):
        return None
    weights = [torch.ones(len(s)) if s.weight is None else s.weight for s in sequences]
    return torch.cat([*weights, torch.ones(padding)]).log()


def _pack_prompts(sequences: Sequence[TokenSequence], padding: int, has_prompt: bool) -> PackedText | None:
    """The prompts side by side; padding tokens are a sequence without one. None where no sequence has any."""
    prompts = [s.prompt for s in sequences]
    if not has_prompt and all(p is None for p in prompts):
        return None
    given = [p for p in prompts if p is not None and len(p)]
    lengths = [0 if p is None else len(p) for p in prompts] + [0] * (padding > 0)
    queries = [len(s) for s in sequences] + [padding] * (padding > 0)
    ends = (torch.tensor([0, *np.cumsum(counts)], dtype=torch.int32) for counts in (lengths, queries))
    cu_seqlens, cu_queries = ends
    states = torch.cat(given) if given else torch.zeros(0, 0)
    return PackedText(states, cu_seqlens, cu_queries, tuple(lengths), tuple(queries))
