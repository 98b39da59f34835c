"""The plan of a step: which samples, on which rank, in which micro-batch, shared by how many ranks.

A pure function of (lengths, order, seed, step, cluster): every rank computes it alone, before anything is
loaded, and resuming needs the step's number and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.data.mixture import MixtureSampler, Visit
from model.planner.balance import Balanced, BalanceError, Budget, Cluster, balance, least_degrees
from model.planner.cost import CostModel
from model.sequence.layout import SequenceShard
from shards.errors import ConfigError


@dataclass(frozen=True)
class StepPlan:
    """One optimizer step.

    Attributes:
        draws: its samples; `SequenceShard.sample` counts in this list. lengths: their tokens, int64.
        micro: by rank and micro-batch, its pieces. The first `shared` micro-batches of a rank's node are run
            by all its ranks together, since sequences are split there; a rank may have no piece in one of
            them. The last micro-batch of a rank is its own.
        shared: [rank], the same for the ranks of a node.
        balanced: the pieces by sample, and every rank's load.
    """

    step: int
    draws: list[Visit]
    lengths: NDArray[np.int64]
    micro: list[list[list[SequenceShard]]]
    shared: list[int]
    balanced: Balanced

    @property
    def split_tokens(self) -> float:
        """Share of the step's tokens in sequences that several ranks work on."""
        split = [len(pieces) > 1 for pieces in self.balanced.pieces]
        return float(self.lengths[split].sum() / self.lengths.sum())

    def padding(self, budget: int) -> float:
        """Share of the tokens computed that would be padding if every micro-batch were `budget` long."""
        batches = sum(len(b) for b in self.micro)
        return 1 - float(self.lengths.sum()) / (batches * budget)


class Planner:
    """Plans any step of a run.

    Args:
        lengths: tokens of every sample that `order` numbers.
        batch_size: samples per step, over all ranks.
        name: of a sample, for messages.

    Raises:
        ConfigError: a sample exceeds a budget even when it is shared; the longest one is named.
    """

    def __init__(
        self,
        lengths: Sequence[int] | NDArray[np.int64],
        order: MixtureSampler,
        batch_size: int,
        cost: CostModel,
        cluster: Cluster,
        budget: Budget,
        name: Callable[[int], str] | None = None,
    ) -> None:
        self.lengths = np.asarray(lengths, np.int64)
        self.order, self.batch_size, self.cost = order, batch_size, cost
        self.cluster, self.budget = cluster, budget
        if batch_size < 1:
            raise ConfigError(f"data.batch_size: needs at least 1, got {batch_size}")
        try:
            least_degrees(self.lengths, cost.of(self.lengths), cluster, budget)
        except BalanceError as error:
            worst = int(self.lengths.argmax())
            where = f" ({name(worst)})" if name else ""
            raise ConfigError(f"data: {error}{where}") from error

    def __call__(self, step: int) -> StepPlan:
        """The plan of step `step`, from 0."""
        draws = self.order.draws(step * self.batch_size, self.batch_size)
        lengths = self.lengths[[d.index for d in draws]]
        balanced = balance(lengths, self.cost, self.cluster, self.budget)
        micro, shared = micro_batches(balanced, lengths, self.cost, self.cluster, self.budget)
        return StepPlan(step, draws, lengths, micro, shared, balanced)


def micro_batches(
    balanced: Balanced,
    lengths: NDArray[np.int64],
    cost: CostModel,
    cluster: Cluster,
    budget: Budget,
) -> tuple[list[list[list[SequenceShard]]], list[int]]:
    """Cut every rank's pieces into micro-batches within the budgets: first fit, most work first.

    A piece counts with its tokens or with its heads' share of the sequence, whichever is more: both are held.
    Split sequences come first, at the same place for all their ranks.
    """
    size = cluster.size
    work = cost.of(lengths)
    micro: list[list[list[SequenceShard]]] = [[] for _ in range(cluster.ranks)]
    used: list[list[tuple[int, float]]] = [[] for _ in range(cluster.ranks)]
    shared = [0] * cluster.ranks

    def weight(piece: SequenceShard) -> tuple[int, float]:
        tokens, heads = int(lengths[piece.sample]), piece.last - piece.first
        if heads == cluster.heads and piece.stop - piece.start == tokens:
            return tokens, float(work[piece.sample])
        held = max(piece.stop - piece.start, -(-tokens * heads // cluster.heads))
        attention = cost.quadratic * tokens * tokens * heads / cluster.heads
        return held, attention + cost.linear * (piece.stop - piece.start)

    def fits(rank: int, number: int, tokens: int, flops: float) -> bool:
        if number >= len(used[rank]):
            return True
        have, spent = used[rank][number]
        return have + tokens <= budget.tokens and spent + flops <= budget.flops * (1 + 1e-9)

    order = sorted(range(len(lengths)), key=lambda i: (len(balanced.pieces[i]) == 1, -float(work[i]), i))
    for i in order:
        pieces = balanced.pieces[i]
        weights = [weight(p) for p in pieces]
        number = 0
        while not all(fits(p.rank, number, *w) for p, w in zip(pieces, weights, strict=True)):
            number += 1
        for piece, (tokens, flops) in zip(pieces, weights, strict=True):
            rank = piece.rank
            while len(micro[rank]) <= number:
                micro[rank].append([])
                used[rank].append((0, 0.0))
            have, spent = used[rank][number]
            used[rank][number] = have + tokens, spent + flops
            micro[rank][number].append(piece)
        if len(pieces) > 1:
            node = pieces[0].rank // size
            for rank in range(node * size, node * size + size):
                shared[rank] = max(shared[rank], number + 1)
    for rank in range(cluster.ranks):
        # Gradients are summed over all ranks during a rank's last backward pass, which therefore must not
        # wait for a neighbour that has more to do.
        while len(micro[rank]) < shared[rank] + 1:
            micro[rank].append([])
    return micro, shared
