"""What a step would take if its sequences were shared out in other ways, in the same cost and with its waits.

No way here knows of a budget.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.planner.balance import Budget, Cluster, PackPlan, balance, waited_load
from model.planner.cost import CostModel, Floats

UNBOUNDED = Budget(2**62)


@dataclass(frozen=True)
class Alternative:
    """One way: its slowest rank over the mean useful load (`Balanced`), and the share of tokens split."""

    imbalance: float
    split: float


def alternatives(lengths: NDArray[np.int64], cost: CostModel, cluster: Cluster) -> dict[str, Alternative]:
    """Never to split, groups of one size for all sequences, and KnapFormer's bags, by name.

    Of the bags, one half of the ranks stand alone and the other in groups of `cluster.degree`, as in the
    mixed ones that are published for 32 and 64 ranks.
    """
    found = {"never split": never_split(lengths, cost, cluster.ranks)}
    for size in cluster.sizes[1:]:
        found[f"groups of {size} for all"] = even_groups(lengths, cost, cluster.ranks, size)
    half = cluster.ranks // 2
    if cluster.degree > 1 and half >= cluster.degree:
        bags = [(1, half), (cluster.degree, half // cluster.degree)]
        found["KnapFormer's " + bag_name(bags)] = knapformer(lengths, cost, bags)
    return found


def bag_name(bags: list[tuple[int, int]]) -> str:
    """As KnapFormer writes it: g1n32+g8n4 for 32 bags of one rank and 4 of eight."""
    return "+".join(f"g{size}n{count}" for size, count in bags)


def never_split(lengths: NDArray[np.int64], cost: CostModel, ranks: int) -> Alternative:
    """Whole sequences alone, balanced as in a plan."""
    return Alternative(balance(lengths, cost, Cluster(ranks, ranks), UNBOUNDED).imbalance, 0.0)


def even_groups(lengths: NDArray[np.int64], cost: CostModel, ranks: int, size: int) -> Alternative:
    """Every sequence shared by `size` ranks, see `even_packs`."""
    load = waited_load(even_packs(lengths, cost, ranks, size), lengths, cost, ranks)
    return Alternative(_over_mean(load, lengths, cost, ranks), float(size > 1))


def even_packs(lengths: NDArray[np.int64], cost: CostModel, ranks: int, size: int) -> list[PackPlan]:
    """A pack for every group of `size` ranks: sequences heaviest first to the group that has least."""
    work, load = cost.of(lengths, size), np.zeros(ranks // size)
    contents: list[list[int]] = [[] for _ in load]
    for i in np.argsort(-work, kind="stable").tolist():
        group = int(load.argmin())
        load[group] += work[i]
        contents[group].append(i)
    return [PackPlan(tuple(c), group * size, size) for group, c in enumerate(contents) if c]


def knapformer(lengths: NDArray[np.int64], cost: CostModel, bags: list[tuple[int, int]]) -> Alternative:
    """The published greedy, with bags as (ranks, how many).

    Heaviest first; of the bags whose capacity holds a sequence (else of the largest) the one that is least
    occupied before it; every sequence is cut into equal parts over its bag.
    """
    sizes = np.array([size for size, count in bags for _ in range(count)])
    work, total = cost.of(lengths), int(sizes.sum())
    capacity = work.sum() / total * sizes
    occupied, load = np.zeros(len(sizes)), np.zeros(len(sizes))
    costs = {size: cost.of(lengths, size) for size, _ in bags}
    split = 0
    for i in np.argsort(-work, kind="stable").tolist():
        able = (capacity >= work[i]) & (lengths[i] >= sizes)
        candidates = np.flatnonzero(able if able.any() else sizes == sizes.max())
        bag = int(candidates[(occupied / capacity)[candidates].argmin()])
        occupied[bag] += work[i]
        load[bag] += costs[int(sizes[bag])][i]
        split += int(lengths[i]) * (sizes[bag] > 1)
    load += np.array([cost.latency(int(size)) for size in sizes]) * (load > 0)
    return Alternative(_over_mean(load, lengths, cost, total), split / float(lengths.sum()))


def _over_mean(load: Floats, lengths: NDArray[np.int64], cost: CostModel, ranks: int) -> float:
    return float(load.max() / (cost.of(lengths).sum() / ranks))
