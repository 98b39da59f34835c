"""Share the sequences of a step out among ranks: whole where they fit, cut over a group of ranks where not.

The ranks of a node form nested, aligned groups of 1, 2, 4, ... A group's micro-batch is one pack of whole
sequences, cut into even runs of tokens and even runs of heads, so that all its ranks have equally much to do
between any two exchanges. A rank runs the packs of its largest group first and those that are its own last:
it waits for nobody inside a step, and takes the sum of its packs (KnapFormer has such groups, one size per
rank; here every rank is in one of each size).

All lengths are known beforehand. Sequences are placed heaviest first, each into the fullest group that can
hold it below a target, the smallest size of group that has one (best fit decreasing); the lowest target that
holds all is found by bisection.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.planner.cost import CostModel, Floats
from model.planner.placement import ROUNDED, Placed, Placement
from shards.errors import EditVerseError


class BalanceError(EditVerseError, ValueError):
    """Sequences that cannot be shared out within the budgets; the message names one."""


@dataclass(frozen=True)
class Cluster:
    """Where a step runs.

    Attributes:
        ranks: in all; node: ranks of a node, which divide into all of them (fewer ranks are one node).
        degree: most ranks that share a sequence: a power of two that divides a node's ranks and the heads;
            1 never splits.
        heads: of the transformer: attention is shared out by heads.
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
        if self.degree & (self.degree - 1) or self.size % self.degree or self.heads % self.degree:
            largest = largest_degree(self.ranks, self.node, self.heads)
            raise BalanceError(
                f"plan: sequences cannot be shared by {self.degree} ranks: it must be a power of two that "
                f"divides a node's {self.size} ranks and the model's {self.heads} heads, at most {largest}"
            )

    @property
    def size(self) -> int:
        """Ranks that a node really has."""
        return min(self.node, self.ranks)

    @property
    def sizes(self) -> list[int]:
        """Sizes of the groups that may share a sequence, ascending."""
        return [2**i for i in range(self.degree.bit_length())]


def largest_degree(ranks: int, node: int, heads: int) -> int:
    """The most ranks that can share a sequence, see `Cluster.degree`."""
    size = min(node, ranks)
    degree = 1
    while size % (2 * degree) == 0 and heads % (2 * degree) == 0:
        degree *= 2
    return degree


@dataclass(frozen=True)
class Budget:
    """Most of one micro-batch on one rank: tokens bound its memory, `flops` (a `CostModel`'s unit) time.

    A rank of a group of g counts a g-th part of the group's pack.
    """

    tokens: int = 16_384
    flops: float = float("inf")


@dataclass(frozen=True)
class PackPlan:
    """A micro-batch: whole sequences side by side, cut evenly over ranks first to first + size - 1.

    `samples` are numbers of the step's sequences, in the order of the pack.
    """

    samples: tuple[int, ...]
    first: int
    size: int

    @property
    def ranks(self) -> range:
        """The ranks that run it together."""
        return range(self.first, self.first + self.size)


@dataclass(frozen=True)
class Balanced:
    """The packs of a step, and what they add up to.

    Attributes:
        packs: in the order in which a rank runs its own: large groups first.
        load: float64 [ranks], cost of the step on each rank, exchanges and waits included: the sum of its
            packs, since all ranks of a pack come to it at the same time.
        useful: the sequences' cost over the ranks, as if nothing was sent, waited for or launched.
        degrees: int64 [sequences], how many ranks share each.
    """

    packs: list[PackPlan]
    load: Floats
    useful: float
    degrees: NDArray[np.int64]

    @property
    def imbalance(self) -> float:
        """What the slowest rank takes over the mean useful load; 1 is perfect."""
        return float(self.load.max() / self.useful)


def balance(
    lengths: Sequence[int] | NDArray[np.int64],
    cost: CostModel,
    cluster: Cluster,
    budget: Budget = Budget(),
    tolerance: float = 0.005,
) -> Balanced:
    """Share sequences out so that the slowest rank of a step is as fast as can be.

    Args:
        lengths: tokens of each sequence.
        tolerance: by how much of a rank's useful load a step must become faster for a sequence to be shared
            that the budgets do not force to be.

    Raises:
        BalanceError: a sequence exceeds a budget even when shared by `cluster.degree` ranks.
    """
    tokens = np.asarray(lengths, np.int64)
    work = cost.of(tokens)
    placement = Placement(
        tokens, cost, cluster.ranks, cluster.sizes, least_degrees(tokens, work, cluster, budget)
    )
    useful = float(work.sum()) / cluster.ranks

    def balanced(placed: Placed) -> Balanced:
        packs = _packs(placed, tokens.tolist(), work.tolist(), placement.order, budget)
        load = waited_load(packs, tokens, cost, cluster.ranks)
        return Balanced(packs, load, useful, np.array(placed.degrees, np.int64))

    whole = balanced(placement.unsplit())
    if cluster.degree == 1 or whole.imbalance <= 1 + tolerance:
        return whole
    split = balanced(placement.split(useful, float(whole.load.max())))
    return split if split.load.max() + tolerance * useful < whole.load.max() else whole


def least_degrees(
    tokens: NDArray[np.int64], work: Floats, cluster: Cluster, budget: Budget
) -> NDArray[np.int64]:
    """Ranks that each sequence needs by the budgets; raises BalanceError for one that needs too many."""
    if not len(tokens):
        return tokens
    needed = np.maximum(tokens / budget.tokens, work / budget.flops * (1 - ROUNDED))
    worst = int(tokens.argmax())  # no shorter one needs more
    if needed[worst] > cluster.degree:
        raise BalanceError(
            f"sequence {worst} has {tokens[worst]} tokens (cost {work[worst]:.3g}), more than "
            f"{cluster.degree} rank(s) hold under token_budget={budget.tokens} and "
            f"flop_budget={budget.flops:.3g}: raise the budget or the sequence-parallel degree"
        )
    sizes = np.array(cluster.sizes)
    result: NDArray[np.int64] = sizes[np.searchsorted(sizes, needed)]
    return result


def waited_load(packs: Sequence[PackPlan], tokens: NDArray[np.int64], cost: CostModel, ranks: int) -> Floats:
    """What a step of these packs takes on each rank, float64 [ranks], see `Balanced.load`."""
    load = np.zeros(ranks)
    costs: dict[int, list[float]] = {size: cost.of(tokens, size).tolist() for size in {p.size for p in packs}}
    for pack in packs:
        spent = sum([costs[pack.size][i] for i in pack.samples]) + cost.latency(pack.size)
        load[pack.first : pack.first + pack.size] += spent
    return load


def _packs(
    placed: Placed, tokens: list[int], work: list[float], order: list[int], budget: Budget
) -> list[PackPlan]:
    """Cut every group's sequences into packs within the budgets; large groups first."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i in order:
        groups.setdefault((-placed.degrees[i], placed.first[i]), []).append(i)
    return [
        PackPlan(tuple(content), first, -negative)
        for (negative, first), samples in sorted(groups.items())
        for content in _first_fit(samples, tokens, work, budget, -negative)
    ]


def _first_fit(
    samples: list[int], tokens: list[int], work: list[float], budget: Budget, size: int
) -> list[list[int]]:
    """Contents of the packs of a group of `size` ranks, each within the budgets: first fit, in order."""
    most, longest = size * budget.tokens, size * budget.flops * (1 + ROUNDED)
    contents: list[list[int]] = []
    used: list[tuple[int, float]] = []
    for i in samples:
        for number, (held, spent) in enumerate(used):
            if held + tokens[i] <= most and spent + work[i] <= longest:
                contents[number].append(i)
                used[number] = held + tokens[i], spent + work[i]
                break
        else:
            contents.append([i])
            used.append((tokens[i], work[i]))
    return contents
