"""Means with the number scored, the number failed, and a bootstrap interval clustered by source.

Items cut from one clip or one pair resemble each other, so whole clusters are drawn, not items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A bootstrap mean stays between the lowest and the highest cluster, so n clusters cover 1 - 2^(1 - n) or so
# at most: 94 % for five. With fewer there is no interval; with fewer source clips, pairs are the clusters.
MIN_CLUSTERS = 5


@dataclass(frozen=True)
class Mean:
    """A mean over scored items; `low` and `high` are None where an interval means nothing."""

    value: float | None
    low: float | None
    high: float | None
    scored: int
    failed: int
    clusters: int


def mean_interval(
    values: Sequence[float | None],
    clusters: Sequence[str],
    *,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Mean:
    """Mean of the values that are numbers, with a clustered percentile bootstrap interval.

    `values` holds None for an item that failed. The interval is the expanded percentile one (Hesterberg 2015,
    section 5.3): the percentiles are moved out so that few clusters give the width of a t interval. It is
    None with fewer than MIN_CLUSTERS clusters, and when a value is infinite (then the mean is infinite too).
    """
    pairs = [(v, c) for v, c in zip(values, clusters, strict=True) if v is not None]
    failed = len(values) - len(pairs)
    if not pairs:
        return Mean(None, None, None, 0, failed, 0)
    scores = np.array([v for v, _ in pairs], dtype=np.float64)
    _, group = np.unique([c for _, c in pairs], return_inverse=True)
    count = int(group.max()) + 1
    value = float(scores.mean())
    if count < MIN_CLUSTERS or not np.isfinite(scores).all():
        return Mean(value, None, None, len(pairs), failed, count)
    sums, sizes = np.bincount(group, scores, count), np.bincount(group, minlength=count)
    draws = np.random.default_rng(seed).integers(0, count, (resamples, count))
    means = sums[draws].sum(1) / sizes[draws].sum(1)
    tail = expanded_tail(count, level)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Mean(value, float(low), float(high), len(pairs), failed, count)


def expanded_tail(n: int, level: float) -> float:
    """Tail probability to read the percentiles at, for n clusters."""
    from scipy.special import ndtr, stdtrit

    return float(ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, (1 - level) / 2)))


def choose_clusters(clips: Sequence[str], pairs: Sequence[str]) -> tuple[str, list[str]]:
    """What to cluster by, and the labels: source clips when there are at least MIN_CLUSTERS, else edit pairs.

    Intervals by pair say how the mean varies over pairs of *these* clips, not how it would over others.
    """
    if len(set(clips)) >= MIN_CLUSTERS:
        return "source clip", list(clips)
    return "edit pair", list(pairs)
