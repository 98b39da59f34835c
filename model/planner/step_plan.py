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
from model.planner.balance import (
    Balanced,
    BalanceError,
    Budget,
    Cluster,
    PackPlan,
    balance,
    least_degrees,
)
from model.planner.cost import CostModel
from shards.errors import ConfigError


@dataclass(frozen=True)
class StepPlan:
    """One optimizer step.

    Attributes:
        draws: its samples; `PackPlan.samples` count in this list. lengths: their tokens, int64.
        micro: by rank, its micro-batches in the order in which they are run: shared ones first, those of the
            largest groups before the others. A rank has none where there are too few samples.
        balanced: the same packs, and every rank's load.
    """

    step: int
    draws: list[Visit]
    lengths: NDArray[np.int64]
    micro: list[list[PackPlan]]
    balanced: Balanced

    @property
    def split_tokens(self) -> float:
        """Share of the step's tokens in sequences that several ranks work on."""
        return float(self.lengths[self.balanced.degrees > 1].sum() / self.lengths.sum())

    def padding(self, budget: int) -> float:
        """Share of the tokens computed that would be padding if every micro-batch were `budget` long."""
        batches = sum(len(b) for b in self.micro)
        return 1 - float(self.lengths.sum()) / (batches * budget)


class Planner:
    """Plans any step of a run.

    Args:
        lengths: tokens of every sample that `order` numbers, or what gives those of some samples (numbers ->
            int64), of data that is too large to look at as a whole.
        batch_size: samples per step, over all ranks.
        name: of a sample, for messages.
        longest: least tokens of the longest sample and what names it, where `lengths` is a function.

    Raises:
        ConfigError: a sample exceeds a budget even when it is shared; it is named. Said at once of the
            longest, and by the step that meets another.
    """

    def __init__(
        self,
        lengths: Sequence[int] | NDArray[np.int64] | Callable[[Sequence[int]], NDArray[np.int64]],
        order: MixtureSampler,
        batch_size: int,
        cost: CostModel,
        cluster: Cluster,
        budget: Budget,
        name: Callable[[int], str] = "sample {}".format,
        longest: tuple[int, Callable[[], str]] | None = None,
    ) -> None:
        if callable(lengths):
            self.lengths_of = lengths
        else:
            all_lengths = np.asarray(lengths, np.int64)
            self.lengths_of = all_lengths.__getitem__
            longest = int(all_lengths.max()), lambda: name(int(all_lengths.argmax()))
        self.name = name
        self.order, self.batch_size, self.cost = order, batch_size, cost
        self.cluster, self.budget = cluster, budget
        if batch_size < 1:
            raise ConfigError(f"data.batch_size: needs at least 1, got {batch_size}")
        if longest is not None:
            self._check(np.array([longest[0]]), longest[1])

    def _check(self, lengths: NDArray[np.int64], longest: Callable[[], str]) -> None:
        """Raise ConfigError naming the longest sample where a budget cannot hold it."""
        try:
            least_degrees(lengths, self.cost.of(lengths), self.cluster, self.budget)
        except BalanceError as error:
            raise ConfigError(f"data: {error} ({longest()})") from error

    def __call__(self, step: int) -> StepPlan:
        """The plan of step `step`, from 0."""
        draws = self.order.draws(step * self.batch_size, self.batch_size)
        indices = [draw.index for draw in draws]
        lengths = self.lengths_of(indices)
        self._check(lengths, lambda: self.name(indices[int(lengths.argmax())]))
        balanced = balance(lengths, self.cost, self.cluster, self.budget)
        micro: list[list[PackPlan]] = [[] for _ in range(self.cluster.ranks)]
        for pack in balanced.packs:
            for rank in pack.ranks:
                micro[rank].append(pack)
        return StepPlan(step, draws, lengths, micro, balanced)
