"""Who compares what, in which order and on which side: a pure function of a definition and a seed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.study.definition import StudyDefinition
from benchmark.study.records import Kind, StudyError


@dataclass(frozen=True)
class Subject:
    """What the design needs to know of an item.

    Attributes:
        category, orientation: strata.
        cluster: its source video.
    """

    id: str
    category: str
    orientation: str
    cluster: str


@dataclass(frozen=True)
class Comparison:
    """Two results of one item.

    Attributes:
        kind: `pair`, `practice`, `gold_tie` (a result beside itself) or `gold_loss` (beside a bad copy).
        first, second: methods; the second of a `gold_loss` is the corrupted copy.
    """

    kind: Kind
    item: str
    first: str
    second: str

    @property
    def expected(self) -> str | None:
        """What attention checks should be answered: `first`, `second` or `same`; None for others."""
        return {"gold_tie": "same", "gold_loss": "first"}.get(self.kind)


@dataclass(frozen=True)
class PlannedTrial:
    """A comparison in a seat's list.

    Attributes:
        comparison: its number in `Design.comparisons`.
        flipped: whether the second result stands on the left.
        repeats: position in the list of the trial that this one shows again; None for others.
    """

    comparison: int
    flipped: bool
    repeats: int | None = None


@dataclass(frozen=True)
class Design:
    """All comparisons, and a list of trials for each seat."""

    comparisons: tuple[Comparison, ...]
    seats: tuple[tuple[PlannedTrial, ...], ...]


def make_design(definition: StudyDefinition, items: Sequence[Subject]) -> Design:
    """The design that a definition asks for; StudyError with numbers that would do where there is none."""
    random = np.random.default_rng(definition.seed)
    pairs = method_pairs(definition)
    most = len(items) * len(pairs)
    if definition.pairs > most:
        raise StudyError(f"pairs: {definition.pairs} are more than {most} ({len(items)} items, {len(pairs)})")
    every = [Comparison("pair", item.id, *pair) for item in items for pair in pairs]
    chosen = [every[n] for n in random.permutation(most)[: definition.pairs]]
    extra = [
        Comparison(kind, items[n % len(items)].id, pair[0], pair[1] if kind == "practice" else pair[0])
        for kind, count in _EXTRA(definition)
        for n, pair in zip(range(count), itertools.cycle(pairs), strict=False)
    ]
    lists: list[list[int]] = [[] for _ in range(definition.raters)]
    for number in range(len(chosen) * definition.raters_per_pair):
        lists[number % definition.raters].append(number // definition.raters_per_pair)
    comparisons = [*chosen, *extra]
    added = list(range(len(chosen), len(comparisons)))
    seats = []
    for numbers in lists:
        order = [*(n for n in added if comparisons[n].kind == "practice")]
        order += [
            int(n)
            for n in random.permutation([*numbers, *(n for n in added if comparisons[n].kind != "practice")])
        ]
        trials = [PlannedTrial(n, bool(random.integers(2))) for n in order]
        again = [p for p, n in enumerate(order) if comparisons[n].kind == "pair"][: definition.repeats]
        trials += [PlannedTrial(order[p], not trials[p].flipped, p) for p in again]
        seats.append(tuple(trials))
    return Design(tuple(comparisons), tuple(seats))


def _EXTRA(definition: StudyDefinition) -> list[tuple[Kind, int]]:
    return [
        ("practice", definition.practice),
        ("gold_tie", definition.gold_ties),
        ("gold_loss", definition.gold_losses),
    ]


def method_pairs(definition: StudyDefinition) -> list[tuple[str, str]]:
    """The pairs of methods that meet, in the order of the definition."""
    names = list(definition.methods)
    if definition.design == "star":
        assert definition.center is not None  # as the definition has checked
        return [(definition.center, name) for name in names if name != definition.center]
    return list(itertools.combinations(names, 2))
