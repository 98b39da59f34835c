"""Two systems on the same items: the difference, its interval, its p-value; Holm's correction of several."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from benchmark.statistics.intervals import Bounds, Mean, by_cluster, difference_interval, standard_error

EXACT = 14  # clusters up to which all sign patterns are gone through
DRAWS = 20_000


@dataclass(frozen=True)
class Difference:
    """The second system less the first, over items that both have a score for.

    Attributes:
        first, second: their means over these items.
        mean: of the differences, with its clustered interval; `failed` counts items without a pair of scores.
        p: chance of a mean difference as large if no system were better (two-sided, signs of whole clusters
            flipped); None with fewer than two clusters.
        effect: the mean difference over its standard error times the root of the number of clusters: how many
            standard deviations of a cluster's difference it is, with the sign of the mean; None where nothing
            varies.
    """

    first: float | None
    second: float | None
    mean: Mean
    p: float | None
    effect: float | None


def difference(
    first: Sequence[float | None],
    second: Sequence[float | None],
    clusters: Sequence[str],
    seed: int = 0,
    bounds: Bounds | None = None,
    resamples: int = 4000,
) -> Difference:
    """Compare two systems' scores of the same items; None stands for a score that is missing.

    Args:
        first, second: a score per item each.
        clusters: what each item belongs to.
        seed: of the draws.
        bounds: lowest and highest score possible, a metric's `range`.
        resamples: draws of the interval's bootstrap.
    """
    gaps: list[float | None] = [
        None if a is None or b is None or not math.isfinite(a - b) else b - a
        for a, b in zip(first, second, strict=True)
    ]
    mean = difference_interval(gaps, clusters, bounds=bounds, seed=seed, resamples=resamples)
    kept = [n for n, gap in enumerate(gaps) if gap is not None]
    if not kept:
        return Difference(None, None, mean, None, None)
    ours, theirs = (float(np.mean([scores[n] for n in kept])) for scores in (first, second))
    values = np.array([gaps[n] for n in kept], dtype=np.float64)
    sums, sizes = by_cluster(values, [clusters[n] for n in kept])
    if len(sums) < 2:
        return Difference(ours, theirs, mean, None, None)
    spread = standard_error(sums, sizes) * math.sqrt(len(sums))
    varies = spread > 1e-12 * max(1.0, float(np.abs(values).max()))
    effect = float(values.mean()) / spread if varies else None
    return Difference(ours, theirs, mean, sign_flip_p(sums, seed), effect)


def sign_flip_p(sums: np.ndarray, seed: int = 0) -> float:
    """Two-sided p of a sum of independent parts that are as likely positive as negative.

    All sign patterns for few parts, else `DRAWS` of them and the observed one.
    """
    observed = abs(float(sums.sum()))
    close = observed * (1 - 1e-12)  # the observed pattern itself must count, whatever the order of a sum
    if len(sums) <= EXACT:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=len(sums))))
        return float((np.abs(signs @ sums) >= close).mean())
    return float((1 + (np.abs(_signs(seed, len(sums)) @ sums) >= close).sum()) / (1 + DRAWS))


@lru_cache(maxsize=2)
def _signs(seed: int, parts: int) -> np.ndarray:
    """Sign patterns, float [DRAWS, parts]: all pairs of a comparison ask for the same ones in turn."""
    return np.random.default_rng([seed, parts]).integers(0, 2, (DRAWS, parts)) * 2.0 - 1


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for their number (Holm 1979): reject those at most 0.05, and no more than one set of
    true hypotheses in twenty has one rejected. None stays None and does not count.
    """
    order = sorted((n for n, p in enumerate(ps) if p is not None), key=lambda n: ps[n] or 0.0)
    found: list[float | None] = [None] * len(ps)
    least = 0.0
    for rank, n in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * (ps[n] or 0.0)))
        found[n] = least
    return found
