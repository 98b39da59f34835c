"""Sides that are even in several groupings at once: by rater, and by pair of methods."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence

import numpy as np


def balanced_sides(edges: Sequence[tuple[Hashable, Hashable]], random: np.random.Generator) -> Iterator[bool]:
    """A side for each edge of a bipartite graph, such that at every node both are equally frequent (+-1).

    Nodes of odd degree get one more edge to a node on the other side that stands for no one. A graph of even
    degrees falls into closed walks; they are even, being bipartite, so sides that alternate along them are
    equal at every node.
    """
    ends: list[tuple[Hashable, Hashable]] = [(("left", a), ("right", b)) for a, b in edges]
    degree = Counter(node for edge in ends for node in edge)
    spare = {"left": ("spare", "right"), "right": ("spare", "left")}
    odd = [node for node, count in degree.items() if count % 2]
    ends += [(node, spare[node[0]]) for node in odd]  # type: ignore[index]
    if sum(node[0] == "left" for node in odd) % 2:  # type: ignore[index]
        ends.append((spare["left"], spare["right"]))
    at: dict[Hashable, list[int]] = defaultdict(list)
    for n in random.permutation(len(ends)):
        for node in ends[n]:
            at[node].append(int(n))
    side: dict[int, bool] = {}
    for start in list(at):
        node, turn = start, bool(random.integers(2))
        while at[node]:
            n = at[node].pop()
            if n in side:
                continue
            side[n] = turn = not turn
            a, b = ends[n]
            node = b if node == a else a
    return iter([side[n] for n in range(len(edges))])
