"""Share the sequences of a step out among ranks: whole where they fit, split over a node's ranks where not.

The paper takes its packing from KnapFormer, which places a sequence by the bags' occupancy once it is there.
Here all lengths are known beforehand, splits may be uneven, and a sequence is split only when it exceeds a
rank's share or nothing else evens the load. Whole sequences go to their ranks first (longest processing time
first, then moves and swaps), split ones fill what is left, as in McNaughton's wrap-around rule.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from model.planner.cost import CostModel, Floats
from model.sequence.layout import SequenceShard
from shards.errors import EditVerseError

MIN_SHARD = 0.01  # of a rank's share: a smaller gap is not worth a piece
EPSILON = 1e-9  # what is whole but for rounding counts as whole


class BalanceError(EditVerseError, ValueError):
    """Sequences that cannot be shared out within the budgets; the message names one."""


@dataclass(frozen=True)
class Cluster:
    """Where a step runs.

    Attributes:
        ranks: in all; node: ranks of a node, which divide into all of them (fewer ranks are one node).
        degree: most ranks that share a sequence, all of one node; 1 never splits.
        heads: of the transformer: a split shares out its attention by heads.
    """

    ranks: int = 1
    node: int = 8
    degree: int = 1
    heads: int = 16

    def __post_init__(self) -> None:
        if min(self.ranks, self.node, self.degree, self.heads) < 1:
            raise BalanceError(f"plan: ranks, node, degree and heads must be positive: {self}")
        if self.ranks % self.size:
            raise BalanceError(f"plan: {self.ranks} ranks are no whole number of nodes of {self.node}")
        if self.degree > self.size:
            raise BalanceError(
                f"plan: sequences cannot be shared by {self.degree} ranks, a node has {self.size}"
            )
        if self.degree > self.heads:
            raise BalanceError(
                f"plan: sequences cannot be shared by {self.degree} ranks, the model has {self.heads} heads"
            )

    @property
    def size(self) -> int:
        """Ranks that a node really has."""
        return min(self.node, self.ranks)


@dataclass(frozen=True)
class Budget:
    """Most of one micro-batch on one rank: tokens bound its memory, `flops` (a `CostModel`'s unit) time."""

    tokens: int = 16_384
    flops: float = float("inf")

    def part(self, tokens: ArrayLike, work: ArrayLike) -> Floats:
        """How much of a sequence of `tokens` tokens and cost `work` one micro-batch holds, at most 1."""
        return np.minimum(np.minimum(self.tokens / np.asarray(tokens), self.flops / np.asarray(work)), 1.0)


@dataclass(frozen=True)
class Balanced:
    """Pieces of every sequence, and what they add up to.

    Attributes:
        pieces: of each sequence, by ascending rank and token.
        load: float64 [ranks], cost on each rank.
    """

    pieces: list[list[SequenceShard]]
    load: Floats

    @property
    def imbalance(self) -> float:
        """Maximum over mean load; 1 is perfect."""
        return float(self.load.max() / self.load.mean())


def balance(
    lengths: Sequence[int] | NDArray[np.int64],
    cost: CostModel,
    cluster: Cluster,
    budget: Budget = Budget(),
    tolerance: float = 0.01,
) -> Balanced:
    """Share sequences out so that every rank has as much to do.

    Args:
        lengths: tokens of each sequence.
        tolerance: excess of the fullest rank over the mean up to which nothing is split; where splitting is
            needed, whole sequences may exceed their rank's share by half of it.

    Raises:
        BalanceError: a sequence exceeds a budget even when shared by `cluster.degree` ranks.
    """
    tokens = np.asarray(lengths, np.int64)
    work = cost.of(tokens)
    least = least_degrees(tokens, work, cluster, budget)
    ranks = cluster.ranks
    share = work.sum() / ranks
    kept: Balanced | None = None
    # First whole, where no budget and no single sequence forces a cut: nothing is sent between ranks then.
    if (least == 1).all() and (cluster.degree == 1 or work.max(initial=0) <= share * (1 + tolerance / 2)):
        places = lpt_partition(work, ranks)
        load = np.array([work[p].sum() for p in places])
        pieces: list[list[SequenceShard]] = [[] for _ in tokens]
        for rank, content in enumerate(places):
            for i in content:
                pieces[i] = [SequenceShard(i, rank, 0, int(tokens[i]), 0, cluster.heads)]
        kept = Balanced(pieces, load)
        if cluster.degree == 1 or load.max() <= share * (1 + tolerance):
            return kept
    # Else node by node, as sequences are shared within one alone, and inside each by cutting.
    size = cluster.size
    nodes = lpt_partition(work, ranks // size)
    pieces = [[] for _ in tokens]
    load = np.zeros(ranks)
    for number, content in enumerate(nodes):
        first = number * size
        load[first : first + size] = _fill(
            content, tokens, work, least, cost, cluster, budget, first, tolerance / 2, pieces
        )
    split = Balanced(pieces, load)
    return kept if kept is not None and kept.imbalance <= split.imbalance else split


def least_degrees(
    tokens: NDArray[np.int64], work: Floats, cluster: Cluster, budget: Budget
) -> NDArray[np.int64]:
    """Ranks that each sequence needs for the budgets' sake; raises BalanceError for one that needs too many.

    A share of heads cannot be cut finer than one, so a budget must hold ceil(heads / degree) heads' share.
    """
    if not len(tokens):
        return tokens
    heads = cluster.heads
    held = np.floor(budget.part(tokens, work) * heads + EPSILON)  # heads whose share one rank can take
    needed = np.where(held < 1, np.inf, np.ceil(heads / np.maximum(held, 1)))
    worst = int(tokens.argmax())  # no shorter one needs more
    if needed[worst] > cluster.degree:
        raise BalanceError(
            f"sequence {worst} has {tokens[worst]} tokens (cost {work[worst]:.3g}), more than "
            f"{cluster.degree} rank(s) hold under token_budget={budget.tokens} and "
            f"flop_budget={budget.flops:.3g}: raise the budget or the sequence-parallel degree"
        )
    result: NDArray[np.int64] = needed.astype(np.int64)
    return result


def lpt_partition(work: Floats, bins: int, rounds: int = 400) -> list[list[int]]:
    """Put items into bins of like weight: heaviest first into the lightest bin, then moves and swaps.

    Moves and swaps are between the heaviest bin and the lightest ones, as long as they lower the heaviest.
    """
    # Longest processing time first: the heap's root is the lightest bin.
    content: list[list[int]] = [[] for _ in range(bins)]
    heap = [(0.0, b) for b in range(bins)]
    for i in np.argsort(-work, kind="stable").tolist():
        weight, b = heap[0]
        content[b].append(i)
        heapq.heapreplace(heap, (weight + float(work[i]), b))
    # Then local search. With g the heaviest's excess over a lighter bin, to send over d more than comes back
    # leaves the two g - d and d above the lighter one's old load: best at d = g / 2, of use for 0 < d < g.
    load = np.array([work[c].sum() for c in content])
    mean = load.mean()
    for _ in range(rounds):
        high = int(load.argmax())
        if load[high] <= mean * 1.0005:
            break
        for low in np.argsort(load, kind="stable")[: min(bins - 1, 16)].tolist():
            gap = load[high] - load[low]
            mine, theirs = content[high], content[low]
            heavy = work[mine]
            # the 0 in front is a plain move: nothing comes back
            light = np.concatenate([[0.0], work[theirs]])
            moved = heavy[:, None] - light[None, :]
            moved = np.where((moved > 0) & (moved < gap), np.abs(moved - gap / 2), np.inf)
            best = int(moved.argmin())
            a, b = divmod(best, len(light))
            if moved[a, b] < gap / 2 * (1 - 1e-6):
                out = mine.pop(a)
                if b:
                    back = theirs.pop(b - 1)
                    mine.append(back)
                theirs.append(out)
                load[high], load[low] = work[mine].sum(), work[theirs].sum()
                break
        else:
            break
    return content


def _fill(
    content: list[int],
    tokens: NDArray[np.int64],
    work: Floats,
    least: NDArray[np.int64],
    cost: CostModel,
    cluster: Cluster,
    budget: Budget,
    first: int,
    tolerance: float,
    pieces: list[list[SequenceShard]],
) -> Floats:
    """Share a node's sequences out among its ranks; writes their pieces, returns the ranks' loads."""
    share = float(work[content].sum()) / cluster.size
    room = np.full(cluster.size, share)
    # Whole ones first, heaviest first: what does not fit into any gap, or must be cut, waits in `fluid`.
    fluid: list[int] = []
    for i in sorted(content, key=lambda i: (-work[i], i)):
        weight = float(work[i])
        if least[i] > 1 or weight > share * (1 + tolerance):
            fluid.append(i)
            continue
        left = room - weight
        fits = left >= -tolerance * share
        if not fits.any():
            fluid.append(i)
            continue
        # the tightest fit leaves wide gaps for what is split; with nothing to split, the widest evens out
        where = int(np.where(fits, left, np.inf).argmin()) if fluid else int(left.argmax())
        room[where] -= weight
        pieces[i] = [SequenceShard(i, first + where, 0, int(tokens[i]), 0, cluster.heads)]
    # Then those that are cut, as water: each into the gaps that are left, which it may fill exactly.
    for i in fluid:
        most = float(budget.part(tokens[i], work[i]))
        amounts = _fill_gaps(float(work[i]), room, int(least[i]), share, cluster.degree, most)
        pieces[i], loads = _split_sequence(i, int(tokens[i]), amounts, cost, cluster.heads, most, first)
        room -= loads
    return share - room


def _fill_gaps(weight: float, room: Floats, least: int, share: float, degree: int, most: float) -> Floats:
    """How much of a sequence goes to each rank of its node: into the widest gaps, few ranks, all of it.

    No rank takes more than the part `most`.
    """
    cap = weight * most
    amounts = np.zeros(len(room))
    gaps = np.minimum(room, cap)
    order = np.argsort(-gaps, kind="stable").tolist()
    left = weight
    for n, rank in enumerate(order[:degree]):
        rest = [r for r in order[n:degree] if gaps[r] >= left]
        if rest and n + 1 >= least:  # the tightest gap that takes all that is left
            rank = min(rest, key=lambda r: (gaps[r], r))
        take = min(left, max(0.0, float(gaps[rank])))
        if take < MIN_SHARD * share and n >= least:
            break
        amounts[rank] = take
        left -= take
        if left <= 0:
            break
    if left > 0:  # gaps are used up: the rest goes in equal parts to the ranks that have some, then to all
        used = np.flatnonzero(amounts) if (amounts > 0).sum() >= least else np.array(order[:degree])
        for _ in range(8):
            free = used[amounts[used] < cap * (1 - 1e-9)]
            if left <= weight * 1e-12 or not len(free):
                break
            extra = np.minimum(left / len(free), cap - amounts[free])
            amounts[free] += extra
            left -= float(extra.sum())
        if left > weight * 1e-9:
            used = np.array(order[:degree])
            amounts[:] = 0
            amounts[used] = weight / len(used)
    return amounts


def _split_sequence(
    sample: int, tokens: int, amounts: Floats, cost: CostModel, heads: int, most: float, first: int
) -> tuple[list[SequenceShard], Floats]:
    """Turn amounts of work into heads (whole ones) and tokens, which even out what heads cannot.

    A rank gets at most the part `most` of both; of tokens, that part rounded up.
    """
    total = float(amounts.sum())
    used = np.flatnonzero(amounts)
    if len(used) == 1:
        loads = np.zeros(len(amounts))
        loads[used[0]] = float(cost.of(tokens))
        return [SequenceShard(sample, first + int(used[0]), 0, tokens, 0, heads)], loads
    # The quadratic cost goes with the heads a rank attends with, the linear one with the tokens it holds.
    # Heads are few and whole, so they come first and roughly; tokens then make up the difference.
    part = amounts[used] / total
    most_heads, most_tokens = int(most * heads + EPSILON), math.ceil(most * tokens - EPSILON)
    per_head = cost.quadratic * tokens * tokens / heads
    wanted = part * float(cost.of(tokens))
    counts = np.minimum(np.floor(part * heads).astype(int), most_heads)
    while counts.sum() < heads:  # one at a time to whom has most work left for it
        slack = np.where(counts < most_heads, wanted - per_head * (counts + 1), -np.inf)
        counts[int(slack.argmax())] += 1
    held = _whole(np.clip((wanted - per_head * counts) / cost.linear, 0, most_tokens), tokens, most_tokens)
    loads = np.zeros(len(amounts))
    loads[used] = per_head * counts + cost.linear * held
    made, token, head = [], 0, 0
    for rank, t, h in zip(used.tolist(), held.tolist(), counts.tolist(), strict=True):
        made.append(SequenceShard(sample, first + rank, token, token + t, head, head + h))
        token, head = token + t, head + h
    return made, loads


def _whole(parts: Floats, total: int, most: int) -> NDArray[np.int64]:
    """Whole numbers near `parts` that add up to `total`, none above `most`."""
    # Round down, then give what is missing to the largest remainders, as far as they may have more.
    scaled = parts * (total / parts.sum()) if parts.sum() > 0 else np.full(len(parts), total / len(parts))
    result: NDArray[np.int64] = np.minimum(np.floor(scaled), most).astype(np.int64)
    while (missing := total - int(result.sum())) > 0:
        free = np.flatnonzero(result < most)
        each = max(1, missing // len(free))
        for i in free[np.argsort(-(scaled - result)[free], kind="stable")].tolist():
            add = min(each, most - int(result[i]), missing)
            result[i] += add
            missing -= add
            if not missing:
                break
    return result
