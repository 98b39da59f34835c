"""Place the sequences of a step on ranks and groups of ranks, see `model.planner.balance`."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.planner.cost import CostModel, Floats

ROUNDED = 1e-9  # relative: what exceeds a bound by no more is rounding
SMALL = 0.05  # of a rank's share: lighter sequences fill what the others leave
TRIALS = 3  # targets that are tried
NEAR = 1.02  # times the lowest load there is: near enough to search no further


@dataclass
class Placed:
    """Where sequences go: the first rank of each one's group, its size, and each rank's load."""

    first: list[int]
    degrees: list[int]
    load: Floats


class Placement:
    """The sequences of a step, the ranks they are placed on, and two ways to do it.

    Args:
        tokens: int64, of each sequence.
        sizes: powers of two from 1 on, of the groups that may share a sequence.
        least: int64, ranks that each sequence needs.
    """

    def __init__(
        self,
        tokens: NDArray[np.int64],
        cost: CostModel,
        ranks: int,
        sizes: Sequence[int],
        least: NDArray[np.int64],
    ) -> None:
        self.ranks, self.sizes, self.least = ranks, sizes, least.tolist()
        # by size of group: what a sequence costs each of its ranks, and what opening a pack does
        self.costs: dict[int, list[float]] = {g: cost.of(tokens, g).tolist() for g in self.sizes}
        self.latency = {g: cost.latency(g) for g in self.sizes}
        self.order: list[int] = np.argsort(-cost.of(tokens), kind="stable").tolist()

    def unsplit(self) -> Placed:
        """Shared by no more ranks than budgets ask for, longest processing time first."""
        placed = Placed([0] * len(self.order), list(self.least), np.zeros(self.ranks))
        forced = [i for i in self.order if self.least[i] > 1]
        opened = set()
        for i in sorted(forced, key=lambda i: -self.least[i]):
            size = self.least[i]
            group = int(placed.load.reshape(-1, size).max(1).argmin())
            latency = 0.0 if (size, group) in opened else self.latency[size]
            opened.add((size, group))
            self._put(placed, i, size, group, self.costs[size][i] + latency)
        self._fill(placed, [i for i in self.order if self.least[i] == 1])
        return placed

    def split(self, useful: float, high: float) -> Placed:
        """A placement whose slowest rank takes little more than the mean.

        Args:
            useful: mean load without exchanges; high: what the slowest rank takes if nothing is split.
        """
        low = max(self._mean_load(useful, self.least), max(self.costs[self.sizes[-1]]))
        best = self._bisect(low, high)
        # a few sequences leave gaps that none fills: then the heaviest ones are shared by more ranks than
        # they need
        for size in self.sizes[1:]:
            count = 1
            while best.load.max() > low * NEAR and count < 2 * len(self.order):
                least = self.least.copy()
                for i in self.order[:count]:
                    least[i] = max(least[i], size)
                placed = self._fit(max(low, self._mean_load(low, least)), least)
                if placed.load.max() < best.load.max():
                    best = placed
                count *= 2
        return best

    def _bisect(self, low: float, high: float) -> Placed:
        """The best placement of some targets from `low` on."""
        best, target = None, low
        for _ in range(TRIALS):
            placed = self._fit(target, self.least)
            slowest = float(placed.load.max())
            if best is None or slowest < best.load.max():
                best = placed
            if slowest > target * (1 + ROUNDED):
                low = max(low, target)
            high = min(high, slowest)
            if high <= low * (1 + 1e-3):
                break
            target = (low + high) / 2
        assert best is not None  # TRIALS is above 0
        return best

    def _mean_load(self, target: float, least: list[int]) -> float:
        """Of a rank, if every sequence is shared by as few ranks as it takes to stay below `target`."""
        fewest, largest = np.array(least), self.sizes[-1]
        spent = largest * np.array(self.costs[largest])
        for size in self.sizes[-2::-1]:
            costs = np.array(self.costs[size])
            spent = np.where((costs <= target) & (fewest <= size), size * costs, spent)
        return float(spent.sum()) / self.ranks + self.latency[1]

    def _fit(self, target: float, least: list[int]) -> Placed:
        """Place each sequence in the fullest group that holds it below `target`, of the smallest size.

        Args:
            least: the smallest size for each.
        """
        count = len(self.order)
        placed = Placed([0] * count, [1] * count, np.zeros(self.ranks))
        unopened = {g: np.full(self.ranks // g, self.latency[g]) for g in self.sizes}
        # by size, the load of every group's fullest rank
        fullest = {g: np.zeros(self.ranks // g) for g in self.sizes}
        fillers = []
        for i in self.order:
            if least[i] == 1 and self.costs[1][i] < SMALL * target:
                fillers.append(i)
                continue
            size, group = self._group_for(i, target, least[i], fullest, unopened)
            added = self.costs[size][i] + float(unopened[size][group])
            unopened[size][group] = 0.0
            self._put(placed, i, size, group, added)
            first = group * size
            for g, values in fullest.items():
                if g <= size:
                    values[first // g : (first + size) // g] += added
                else:
                    values[first // g] = max(values[first // g], fullest[size][group])
        self._fill(placed, fillers)
        return placed

    def _group_for(
        self,
        i: int,
        target: float,
        size: int,
        fullest: dict[int, Floats],
        unopened: dict[int, Floats],
    ) -> tuple[int, int]:
        """Size and number of the group for a sequence; where none holds it, the one that exceeds least."""
        largest, lightest = self.sizes[-1], (math.inf, 0, 0)
        while size < largest and self.costs[size][i] > target:
            size *= 2
        while size <= largest:
            load, cost = fullest[size] + unopened[size], self.costs[size][i]
            room = np.where(load <= (target - cost) * (1 + ROUNDED), load, -1.0)
            group = int(room.argmax())
            if room[group] >= 0:
                return size, group
            group = int(load.argmin())
            lightest = min(lightest, (float(load[group]) + cost, size, group))
            size *= 2
        return lightest[1:]

    def _put(self, placed: Placed, i: int, size: int, group: int, added: float) -> None:
        first = group * size
        placed.first[i], placed.degrees[i] = first, size
        placed.load[first : first + size] += added

    def _fill(self, placed: Placed, items: list[int]) -> None:
        """Place whole sequences, heaviest first, each on the lightest rank; then even out those that are."""
        costs, latency = self.costs[1], self.latency[1]
        contents: list[list[int]] = [[] for _ in range(self.ranks)]
        waiting = set(items)
        for i, (first, size) in enumerate(zip(placed.first, placed.degrees, strict=True)):
            if size == 1 and i not in waiting:
                contents[first].append(i)
        heap = [
            (load if content else load + latency, rank)
            for rank, (load, content) in enumerate(zip(placed.load.tolist(), contents, strict=True))
        ]
        heapq.heapify(heap)
        for i in items:
            load, rank = heap[0]
            contents[rank].append(i)
            heapq.heapreplace(heap, (load + costs[i], rank))
        for load, rank in heap:
            if contents[rank]:
                placed.load[rank] = load
        even_out(np.array(costs), contents, placed.load)
        for rank, content in enumerate(contents):
            for i in content:
                placed.first[i] = rank


def even_out(work: Floats, contents: list[list[int]], load: Floats, rounds: int = 400) -> None:
    """Move and swap items between the heaviest bin and the lightest ones, as long as it lowers the heaviest.

    Args:
        work: of each item; contents: items of each bin, changed in place.
        load: of each bin, what cannot be moved included; changed in place.
    """
    # With g the heaviest's excess over a lighter bin, to send over d more than comes back leaves the two
    # g - d and d above the lighter one's old load: best at d = g / 2, of use for 0 < d < g.
    mean = load.mean()
    for _ in range(rounds):
        high = int(load.argmax())
        if load[high] <= mean * 1.0005 or not contents[high]:
            return
        for low in np.argsort(load, kind="stable")[: min(len(load) - 1, 16)].tolist():
            gap = load[high] - load[low]
            mine, theirs = contents[high], contents[low]
            # the 0 in front is a plain move: nothing comes back
            light = np.concatenate([[0.0], work[theirs]])
            moved = work[mine][:, None] - light[None, :]
            distance = np.where((moved > 0) & (moved < gap), np.abs(moved - gap / 2), np.inf)
            a, b = divmod(int(distance.argmin()), len(light))
            if distance[a, b] < gap / 2 * (1 - 1e-6):
                load[high] -= moved[a, b]
                load[low] += moved[a, b]
                out = mine.pop(a)
                if b:
                    mine.append(theirs.pop(b - 1))
                theirs.append(out)
                break
        else:
            return
