"""How many items it takes to tell two systems apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.statistics.intervals import by_cluster, standard_error

LARGEST = 10_000_000  # clusters: beyond it the answer is that no benchmark is large enough


@dataclass(frozen=True)
class Power:
    """What it takes to see a difference in the mean of one metric.

    Attributes:
        items, clusters: that the two systems have been compared on.
        spread: standard deviation of a cluster's difference, in units of the metric.
        least: the difference that these items show with the power asked for.
        chance: of seeing the difference asked about on these items.
        needed: clusters needed to see it with the power asked for; None where it is 0 or beyond all means.
        needed_items: the same in items, with as many a cluster as here.
    """

    items: int
    clusters: int
    spread: float
    least: float
    chance: float
    needed: int | None
    needed_items: int | None


def power(
    gaps: Sequence[float | None],
    clusters: Sequence[str],
    difference: float,
    *,
    alpha: float = 0.05,
    wanted: float = 0.8,
) -> Power | None:
    """Of a two-sided paired test at `alpha`, from the differences observed on some items.

    Args:
        gaps: a difference per item between two systems; None where a score is missing.
        clusters: what each item belongs to; these are drawn.
        difference: in means, that is to be seen; its sign does not matter.
        alpha: size of the test, after a correction for several where there is one.
        wanted: chance to see it, 0 to 1.

    Returns:
        By the noncentral t distribution; None with fewer than two clusters, or where no item's difference
        differs from another's.
    """
    known = [(g, c) for g, c in zip(gaps, clusters, strict=True) if g is not None and math.isfinite(g)]
    if len({c for _, c in known}) < 2:
        return None
    sums, sizes = by_cluster(np.array([g for g, _ in known], dtype=np.float64), [c for _, c in known])
    count = len(sums)
    spread = standard_error(sums, sizes) * math.sqrt(count)
    if spread <= 1e-12 * max(1.0, max(abs(g) for g, _ in known)):
        return None
    effect = abs(difference) / spread
    each = len(known) / count
    needed = _clusters_for(effect, alpha, wanted) if effect > 0 else None
    return Power(
        items=len(known),
        clusters=count,
        spread=spread,
        least=_least_effect(count, alpha, wanted) * spread,
        chance=chance(effect, count, alpha),
        needed=needed,
        needed_items=None if needed is None else math.ceil(needed * each),
    )


def chance(effect: float, clusters: int, alpha: float = 0.05) -> float:
    """That a two-sided t test over clusters rejects at a mean of `effect` standard deviations."""
    from scipy.special import nctdtr, stdtrit

    freedom = clusters - 1
    reach = float(stdtrit(freedom, 1 - alpha / 2))
    shift = effect * math.sqrt(clusters)
    if shift > 30 + reach:  # beyond where the noncentral t is computed, and certain
        return 1.0
    return float(1 - nctdtr(freedom, shift, reach) + nctdtr(freedom, shift, -reach))


def _clusters_for(effect: float, alpha: float, wanted: float) -> int | None:
    low, high = 1, 2
    while chance(effect, high, alpha) < wanted:
        low, high = high, high * 2
        if high > LARGEST:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if chance(effect, middle, alpha) >= wanted else (middle, high)
    return high


def _least_effect(clusters: int, alpha: float, wanted: float) -> float:
    low, high = 0.0, 1.0
    while chance(high, clusters, alpha) < wanted:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if chance(middle, clusters, alpha) >= wanted else (middle, high)
    return high
