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

# queries, keys, values, where they lie, and which of all heads the queries are
Attend = Callable[[Tensor, Tensor, Tensor, Layout, slice], Tensor]

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


def ulysses_attention(q: Tensor, k: Tensor, v: Tensor, sp_plan: SPPlan, attend: Attend) -> Tensor:
    """Attention of shared sequences.

    All ranks of the node call it together, forward and backward, also those without a piece: the results stay
    connected to the inputs even where both are empty.

    Args:
        q: [n, heads, head_dim], this rank's tokens of `sp_plan.splits`, one split after the other; k, v: the
            same with their own number of heads.
        attend: attention over whole sequences, for any heads; it is told which.

    Returns:
        [n, heads, head_dim].
    """
    exchange = _Exchange(sp_plan, q.shape[1], k.shape[1], q.shape[2])
    received = exchange.tokens_to_heads(q, k, v)
    outputs = [exchange.attend(n, got, attend) for n, got in enumerate(exchange.by_sequence(received))]
    return exchange.heads_to_tokens(outputs, received)


class _Exchange:
    """What the ranks of a node send each other in one call of `ulysses_attention`.

    A rank holds some tokens of a sequence with all heads; attention wants all of its tokens, with some heads.
    Every rank computes every size from the plan, so none has to be told. What is sent is flat, ordered by
    rank, then by sequence: both sides walk through it in that order.
    """

    def __init__(self, sp_plan: SPPlan, heads: int, kv_heads: int, size: int) -> None:
        self.ranks, self.heads, self.size = sp_plan.ranks, heads, size
        self.group = heads // kv_heads  # query heads per key
        # this rank's part of every shared sequence, None where it has none
        self.mine = [(split, split.of(sp_plan.rank)) for split in sp_plan.splits]

    def kv_range(self, piece: SequenceShard) -> tuple[int, int]:
        """The heads of keys and values that a piece's heads of queries need: those at its ends as a whole."""
        return piece.first // self.group, -(-piece.last // self.group)

    def amount(self, sender: SequenceShard | None, receiver: SequenceShard | None) -> int:
        """Numbers of queries, keys and values that one piece's rank sends to another's."""
        if sender is None or receiver is None or receiver.first == receiver.last:
            return 0
        low, high = self.kv_range(receiver)
        return (sender.stop - sender.start) * (receiver.last - receiver.first + 2 * (high - low)) * self.size

    def tokens_to_heads(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """First all-to-all: to every rank this one's tokens, with the heads that are that rank's."""
        # `parts` is in the order of the receivers, as all-to-all cuts a flat tensor; what this rank is to
        # receive follows from the plan alone, by the same sums that the senders do.
        parts, sends, receives = [], [], []
        for rank in self.ranks:
            row = sent = received = 0  # row: where the sequence's tokens begin in q, k and v
            for split, own in self.mine:
                other = split.of(rank)
                if own is None:
                    continue
                stop = row + own.stop - own.start
                if other is not None and self.amount(own, other):
                    low, high = self.kv_range(other)
                    for x, a, b in ((q, other.first, other.last), (k, low, high), (v, low, high)):
                        parts.append(x[row:stop, a:b].reshape(-1))
                row = stop
                sent += self.amount(own, other)
                received += self.amount(other, own)
            sends.append(sent)
            receives.append(received)
        # the empty end keeps a rank that sends nothing in the graph: it has to take part in the backward pass
        return _all_to_all(torch.cat([*parts, q.reshape(-1)[:0]]), sends, receives, self.ranks)

    def by_sequence(self, flat: Tensor) -> list[list[tuple[Tensor, Tensor, Tensor]]]:
        """What came: by sequence, from each rank in turn, its tokens' queries, keys, values of our heads."""
        pieces: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in self.mine]
        place = 0
        for rank in self.ranks:
            for number, (split, own) in enumerate(self.mine):
                other = split.of(rank)
                if own is None or other is None or not self.amount(other, own):
                    continue
                # senders come in ascending tokens, so that their parts side by side are the whole sequence
                low, high = self.kv_range(own)
                tokens, three = other.stop - other.start, []
                for count in (own.last - own.first, high - low, high - low):
                    end = place + tokens * count * self.size
                    three.append(flat[place:end].view(tokens, count, self.size))
                    place = end
                pieces[number].append((three[0], three[1], three[2]))
        return pieces

    def attend(self, number: int, got: list[tuple[Tensor, Tensor, Tensor]], attend: Attend) -> Tensor | None:
        """Attention over a whole sequence with our heads; None where this rank has none of it."""
        split, own = self.mine[number]
        if own is None or not got:
            return None
        q, k, v = (torch.cat(x) for x in zip(*got, strict=True))
        if own.first % self.group or own.last % self.group:  # a cut group: give every query its own key
            queries = torch.arange(own.first, own.last, device=q.device)
            own_key = queries // self.group - own.first // self.group
            k, v = k[:, own_key], v[:, own_key]
        return attend(q, k, v, split.layout, slice(own.first, own.last))

    def heads_to_tokens(self, outputs: list[Tensor | None], received: Tensor) -> Tensor:
        """Second all-to-all, back: our tokens with all heads, [n, heads, head_dim].

        Args:
            received: of the first one, for the graph alone.
        """
        # Every rank gets its own tokens back, with the heads that were this one's to attend with.
        parts, sends, receives = [], [], []
        for rank in self.ranks:
            sent = expected = 0
            for (split, own), out in zip(self.mine, outputs, strict=True):
                other = split.of(rank)
                if own is None or other is None:
                    continue
                if out is not None and other.stop > other.start:
                    parts.append(out[other.start : other.stop].reshape(-1))
                    sent += parts[-1].numel()
                expected += (own.stop - own.start) * (other.last - other.first) * self.size
            sends.append(sent)
            receives.append(expected)
        back = _all_to_all(torch.cat([*parts, received[:0]]), sends, receives, self.ranks)
        shares: list[list[Tensor]] = [[] for _ in self.mine]
        place = 0
        for rank in self.ranks:
            for number, (split, own) in enumerate(self.mine):
                other = split.of(rank)
                if own is None or other is None:
                    continue
                tokens, count = own.stop - own.start, other.last - other.first
                if tokens and count:
                    end = place + tokens * count * self.size
                    shares[number].append(back[place:end].view(tokens, count, self.size))
                    place = end
        # ranks hold ascending heads, so side by side they are in order
        done = [torch.cat(share, dim=1) for share in shares if share]
        return torch.cat([*done, back[:0].view(0, self.heads, self.size)])
