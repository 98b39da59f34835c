"""All pairs of several systems on the same items, and which of them cannot be told apart."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.statistics.intervals import Bounds
from benchmark.statistics.paired import Difference, difference, holm

ALPHA = 0.05
Scores = Mapping[str, Sequence[float | None]]  # of each system, a score per item


@dataclass(frozen=True)
class Pair:
    """Two systems compared.

    Attributes:
        first, second: their names.
        difference: the second less the first, over the items that both have a score for.
        corrected: its p after Holm's correction for all pairs; None where there is no p.
    """

    first: str
    second: str
    difference: Difference
    corrected: float | None


@dataclass(frozen=True)
class Ranking:
    """Systems by one metric, best first.

    Attributes:
        order: their names; those without a score come last.
        means: over the items that all of them (but those without any score) have a score for.
        items: how many those are.
        pairs: every pair.
        letters: of each system: two that share one cannot be told apart at 5 %, all pairs taken together.
    """

    order: list[str]
    means: dict[str, float | None]
    items: int
    pairs: list[Pair]
    letters: dict[str, str]


def all_pairs(
    scores: Scores,
    clusters: Sequence[str],
    *,
    higher_is_better: bool = True,
    bounds: Bounds | None = None,
    seed: int = 0,
    resamples: int = 4000,
) -> Ranking:
    """Compare every pair of systems by one metric.

    Args:
        scores: of each system, a score per item; None for one that is missing.
        clusters: what each item belongs to.
        higher_is_better: the metric's direction, for the order.
        bounds: lowest and highest score possible.
        seed: of the draws.
        resamples: draws of each interval's bootstrap.
    """
    live = [name for name, of in scores.items() if any(score is not None for score in of)]
    common = [n for n in range(len(clusters)) if all(scores[name][n] is not None for name in live)]
    means = {name: _mean([scores[name][n] for n in common]) if name in live else None for name in scores}
    order = sorted(
        scores,
        key=lambda name: (
            means[name] is None,
            -(means[name] or 0.0) if higher_is_better else means[name] or 0.0,
        ),
    )
    found = [
        (a, b, difference(scores[a], scores[b], clusters, seed, bounds, resamples))
        for a, b in itertools.combinations(order, 2)
    ]
    corrected = holm([of.p for *_, of in found])
    pairs = [Pair(a, b, of, p) for (a, b, of), p in zip(found, corrected, strict=True)]
    told_apart = {(p.first, p.second) for p in pairs if p.corrected is not None and p.corrected <= ALPHA}
    known = [name for name in order if means[name] is not None]
    return Ranking(order, means, len(common), pairs, dict.fromkeys(order, "") | letters(known, told_apart))


def letters(order: Sequence[str], told_apart: set[tuple[str, str]]) -> dict[str, str]:
    """Compact letter display (Piepho 2004, insert and absorb): names share a letter unless told apart.

    Args:
        order: names, best first; the best has an a.
        told_apart: pairs of names, in either order.
    """
    columns: list[frozenset[str]] = [frozenset(order)]
    for a, b in itertools.combinations(order, 2):
        if (a, b) not in told_apart and (b, a) not in told_apart:
            continue
        split = [part for column in columns for part in _split(column, a, b)]
        columns = [
            c for n, c in enumerate(split) if not any(_absorbs(o, m, c, n) for m, o in enumerate(split))
        ]
    place = {name: n for n, name in enumerate(order)}
    columns.sort(key=lambda column: sorted(place[name] for name in column))
    return {name: "".join(_letter(n) for n, column in enumerate(columns) if name in column) for name in order}


def _split(column: frozenset[str], a: str, b: str) -> list[frozenset[str]]:
    return [column - {a}, column - {b}] if {a, b} <= column else [column]


def _absorbs(other: frozenset[str], m: int, column: frozenset[str], n: int) -> bool:
    """Whether the column is part of another, or the later one of two that are equal."""
    return column < other or (column == other and m < n)


def _letter(n: int) -> str:
    """a to z, then a2, b2 ..."""
    return chr(ord("a") + n % 26) + (str(n // 26 + 1) if n >= 26 else "")


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
