"""Attention over sequences that the ranks of a node share: two all-to-alls with uneven splits per layer.

DeepSpeed Ulysses (Jacobs et al. 2023) turns shards of tokens into shards of heads and back. Here every
sequence is shared by its own subset of the ranks, in uneven parts, and keys and values may have fewer heads
(GQA).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from model.sequence.layout import Layout, SequenceShard, SPPlan

Attend = Callable[[Tensor, Tensor, Tensor, Layout], Tensor]

_groups: dict[tuple[int, ...], dist.ProcessGroup] = {}


def group_of(ranks: tuple[int, ...]) -> dist.ProcessGroup:
    """The process group of a node's ranks, made by `make_groups`."""
    if ranks not in _groups:
        raise RuntimeError(f"no process group of the ranks {ranks}; see make_groups")
    return _groups[ranks]


def make_groups(world: int, node: int) -> None:
    """Make the process group of every node; all ranks call it, once."""
    for first in range(0, world, node):
        ranks = tuple(range(first, first + node))
        if ranks not in _groups:
            group: Any = dist.group.WORLD if node == world else dist.new_group(list(ranks))
            _groups[ranks] = group


def forget_groups() -> None:
    """Let go of what `make_groups` made."""
    _groups.clear()


def _all_to_all(x: Tensor, sends: list[int], receives: list[int], ranks: tuple[int, ...]) -> Tensor:
    """Send `sends[i]` numbers of the flat `x` to the i-th rank; what all sent to this one, side by side."""
    from torch.distributed._functional_collectives import all_to_all_single_autograd

    received: Tensor = all_to_all_single_autograd(x, receives, sends, group_of(ranks))
    return received


def ulysses_attention(q: Tensor, k: Tensor, v: Tensor, route: SPPlan, attend: Attend) -> Tensor:
    """Attention of shared sequences.

    All ranks of the node call it together, forward and backward, also those without a piece: the results stay
    connected to the inputs even where both are empty.

    Args:
        q: [n, heads, head_dim], this rank's tokens of `route.splits`, one split after the other; k, v: the
            same with their own number of heads.
        attend: attention over whole sequences, for any heads.

    Returns:
        [n, heads, head_dim].
    """
    heads, size = q.shape[1:]
    group = heads // k.shape[1]
    mine = [(split, split.of(route.rank)) for split in route.splits]

    def kv_range(piece: SequenceShard) -> tuple[int, int]:
        return piece.first // group, -(-piece.last // group)

    def amount(sender: SequenceShard | None, receiver: SequenceShard | None) -> int:
        """Numbers of queries, keys and values that one piece's rank sends to another's."""
        if sender is None or receiver is None or receiver.first == receiver.last:
            return 0
        low, high = kv_range(receiver)
        return (sender.stop - sender.start) * (receiver.last - receiver.first + 2 * (high - low)) * size

    # tokens to heads
    parts, sends, receives = [], [], []
    for rank in route.ranks:
        row = sent = received = 0
        for split, own in mine:
            other = split.of(rank)
            if own is None:
                continue
            stop = row + own.stop - own.start
            if other is not None and amount(own, other):
                low, high = kv_range(other)
                for x, a, b in ((q, other.first, other.last), (k, low, high), (v, low, high)):
                    parts.append(x[row:stop, a:b].reshape(-1))
            row = stop
            sent += amount(own, other)
            received += amount(other, own)
        sends.append(sent)
        receives.append(received)
    flat = _all_to_all(torch.cat([*parts, q.reshape(-1)[:0]]), sends, receives, route.ranks)

    # from every rank, split by split: its tokens' queries, keys, values of this rank's heads
    pieces: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in mine]
    place = 0
    for rank in route.ranks:
        for number, (split, own) in enumerate(mine):
            other = split.of(rank)
            if own is None or other is None or not amount(other, own):
                continue
            low, high = kv_range(own)
            tokens, found = other.stop - other.start, []
            for count in (own.last - own.first, high - low, high - low):
                found.append(flat[place : place + tokens * count * size].view(tokens, count, size))
                place += tokens * count * size
            pieces[number].append((found[0], found[1], found[2]))
    outputs: list[Tensor | None] = []
    for (split, own), got in zip(mine, pieces, strict=True):
        if own is None or not got:
            outputs.append(None)
            continue
        whole_q, whole_k, whole_v = (torch.cat(x) for x in zip(*got, strict=True))
        if own.first % group or own.last % group:  # groups that are cut: give every query its own key
            wanted = torch.arange(own.first, own.last, device=q.device) // group - own.first // group
            whole_k, whole_v = whole_k[:, wanted], whole_v[:, wanted]
        outputs.append(attend(whole_q, whole_k, whole_v, split.layout))

    # heads to tokens
    parts, sends, receives = [], [], []
    for rank in route.ranks:
        sent = received = 0
        for (split, own), out in zip(mine, outputs, strict=True):
            other = split.of(rank)
            if own is None or other is None:
                continue
            if out is not None and other.stop > other.start:
                parts.append(out[other.start : other.stop].reshape(-1))
                sent += parts[-1].numel()
            received += (own.stop - own.start) * (other.last - other.first) * size
        sends.append(sent)
        receives.append(received)
    back = _all_to_all(torch.cat([*parts, flat[:0]]), sends, receives, route.ranks)
    shares: list[list[Tensor]] = [[] for _ in mine]
    place = 0
    for rank in route.ranks:
        for number, (split, own) in enumerate(mine):
            other = split.of(rank)
            if own is None or other is None:
                continue
            tokens, count = own.stop - own.start, other.last - other.first
            if tokens and count:
                shares[number].append(back[place : place + tokens * count * size].view(tokens, count, size))
                place += tokens * count * size
    done = [torch.cat(share, dim=1) for share in shares if share]
    return torch.cat([*done, back[:0].view(0, heads, size)])
