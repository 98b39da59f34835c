"""Attention over a pack that the ranks of a group share: two all-to-alls per layer.

DeepSpeed Ulysses (Jacobs et al. 2023) turns runs of tokens with all heads into all tokens with a run of the
heads, and back. The pack as a whole is cut, not its sequences, so that one copy puts all that is sent in
order; keys and values may have fewer heads (GQA).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from model.sequence.layout import SPPlan

# attention over the whole pack: queries, keys, values, and which of all heads the queries are
Attend = Callable[[Tensor, Tensor, Tensor, slice], Tensor]

_groups: dict[tuple[int, ...], dist.ProcessGroup] = {}


def group_of(ranks: tuple[int, ...]) -> dist.ProcessGroup:
    """The process group of ranks that may share a pack, made by `make_groups`."""
    if ranks not in _groups:
        raise RuntimeError(f"no process group of the ranks {ranks}; see make_groups")
    return _groups[ranks]


def make_groups(world: int, node: int) -> None:
    """Make the process groups of every node's ranks: of all aligned 2, 4, ... that divide them.

    All ranks call it, once.
    """
    size = 2
    while node % size == 0:
        for first in range(0, world, size):
            ranks = tuple(range(first, first + size))
            if ranks not in _groups:
                group: Any = dist.group.WORLD if size == world else dist.new_group(list(ranks))
                _groups[ranks] = group
        size *= 2


def forget_groups() -> None:
    """Let go of what `make_groups` made."""
    _groups.clear()


def _all_to_all(x: Tensor, sends: list[int], receives: list[int], ranks: tuple[int, ...]) -> Tensor:
    """Send `sends[i]` rows of `x` to the i-th rank; the rows that all sent to this one, in their order."""
    from torch.distributed._functional_collectives import all_to_all_single_autograd

    received: Tensor = all_to_all_single_autograd(x, receives, sends, group_of(ranks))
    return received


def ulysses_attention(q: Tensor, k: Tensor, v: Tensor, sp_plan: SPPlan, attend: Attend) -> Tensor:
    """Attention over a shared pack; all ranks of the group call it together, forward and backward.

    Args:
        q: [n, heads, head_dim], this rank's run of the pack's N tokens; k, v: [n, kv_heads, head_dim]. The
            group's size divides `heads`.
        attend: gets [N, heads / size, head_dim] queries and as many or fewer keys and values, a whole number
            of queries to each.

    Returns:
        [n, heads, head_dim].
    """
    size, index = len(sp_plan.ranks), sp_plan.index
    runs = [stop - start for start, stop in sp_plan.runs]
    n, heads, kv_heads = len(q), q.shape[1] // size, k.shape[1]
    if kv_heads % size:
        # as often as makes them divide: each rank then has whole groups of queries
        repeats = size // math.gcd(kv_heads, size)
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    parts = (x.unflatten(1, (size, -1)).transpose(0, 1) for x in (q, k, v))
    sent = torch.cat(list(parts), dim=2).flatten(0, 1)  # a rank's heads of q, k and v side by side
    received = _all_to_all(sent, [n] * size, runs, sp_plan.ranks)
    kept = k.shape[1] // size
    queries, keys, values = received.split([heads, kept, kept], dim=1)
    output = attend(queries, keys, values, slice(index * heads, (index + 1) * heads))
    back = _all_to_all(output.contiguous(), runs, [n] * size, sp_plan.ranks)
    return back.unflatten(0, (size, n)).transpose(0, 1).flatten(1, 2)
