"""Means of votes whose errors go together in two ways: votes of one rater, and votes about one source video.

The variance is that of Cameron, Gelbach and Miller (2011): by rater plus by video less by both, each times
G / (G - 1), and at least the larger of the first two, since the difference can come out negative. Quantiles
are t's with one degree of freedom less than the smaller number of clusters. The pigeonhole bootstrap (Owen
2007) was the other choice: where most of a vote's error is its own, as with people's preferences, its
variance is up to three times too large.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.statistics.intervals import MIN_CLUSTERS
from benchmark.statistics.rates import wilson

Labels = Sequence[object] | np.ndarray


@dataclass(frozen=True)
class TwoWayMean:
    """A mean with its interval.

    Attributes:
        value: the mean; None of nothing.
        low, high: None with fewer than `MIN_CLUSTERS` clusters of either kind.
        n: votes.
        clusters: clusters of either kind.
        error: standard error; None where there is no interval.
        p: two-sided, of a mean of 0; None for shares, and where there is no interval.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    clusters: tuple[int, int]
    error: float | None = None
    p: float | None = None


def cluster_numbers(labels: Labels) -> np.ndarray:
    """Clusters numbered from 0 without a gap, int [N]."""
    numbers: np.ndarray = np.unique(np.asarray(labels), return_inverse=True)[1]
    return numbers.reshape(-1)


def two_way_covariance(parts: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Covariance of the sum of parts over votes, float [K, K]; variances at least the larger one-way one.

    Args:
        parts: what each vote adds, less its expectation, float [N, K].
        first, second: clusters of each vote, int [N], from 0 on.
    """
    both = cluster_numbers(first * (int(second.max()) + 1) + second)
    ways = [_by_cluster(parts, group) for group in (first, second, both)]
    total: np.ndarray = ways[0] + ways[1] - ways[2]
    least = np.maximum(np.diag(ways[0]), np.diag(ways[1]))
    np.fill_diagonal(total, np.maximum(np.diag(total), least))
    return total


def _by_cluster(parts: np.ndarray, group: np.ndarray) -> np.ndarray:
    count = int(group.max()) + 1
    sums = np.zeros((count, parts.shape[1]))
    np.add.at(sums, group, parts)
    scale = count / (count - 1) if count > 1 else 1.0
    covariance: np.ndarray = scale * sums.T @ sums
    return covariance


def degrees_of_freedom(first: np.ndarray, second: np.ndarray) -> int:
    """Of t: one less than the smaller number of clusters; 0 for no votes."""
    return max(min(len(np.unique(first)), len(np.unique(second))) - 1, 0)


def share_interval(hits: Sequence[bool] | np.ndarray, first: Labels, second: Labels) -> TwoWayMean:
    """A share of votes with Wilson's interval for as many votes as its variance is worth.

    Never of no width: at 0 and 1 votes of a cluster count as one vote.

    Args:
        hits: of each vote, [N].
        first, second: what each vote belongs to, such as its rater and its source video.
    """
    values = np.asarray(hits, dtype=np.float64)
    n = len(values)
    if n == 0:
        return TwoWayMean(None, None, None, 0, (0, 0))
    one, two = cluster_numbers(first), cluster_numbers(second)
    sizes = [np.bincount(group) for group in (one, two)]
    counts = (len(sizes[0]), len(sizes[1]))
    rate = float(values.mean())
    if min(counts) < MIN_CLUSTERS:
        return TwoWayMean(rate, None, None, n, counts)
    fewest = min(n**2 / float((of**2).sum()) for of in sizes)
    if 0 < rate < 1:
        variance = float(two_way_covariance((values - rate)[:, None], one, two)[0, 0]) / n**2
        independent = rate * (1 - rate) / (n - 1)
        worth = n / max(variance / independent, 1.0)
    else:
        variance, worth = 0.0, fewest
    low, high = wilson(rate * worth, worth, freedom=min(counts) - 1)
    return TwoWayMean(rate, low, high, n, counts, math.sqrt(variance))


def preference_interval(outcomes: Sequence[int] | np.ndarray, first: Labels, second: Labels) -> TwoWayMean:
    """The mean of votes that are 1 (for), 0 (a tie) or -1 (against), with its interval and p.

    A vote for and a vote against, each a cluster of its own, are added for the interval and p, as Bonett and
    Price (2012) do: without them nothing but ties, or nothing but votes for, would leave no width at all.

    Args:
        outcomes: of each vote, int [N].
        first, second: what each vote belongs to, such as its rater and its source video.
    """
    from scipy.special import stdtr, stdtrit

    values = np.asarray(outcomes, dtype=np.float64)
    n = len(values)
    if n == 0:
        return TwoWayMean(None, None, None, 0, (0, 0))
    one, two = cluster_numbers(first), cluster_numbers(second)
    counts = (int(one.max()) + 1, int(two.max()) + 1)
    mean = float(values.mean())
    if min(counts) < MIN_CLUSTERS:
        return TwoWayMean(mean, None, None, n, counts)
    values = np.concatenate([values, [1.0, -1.0]])
    one, two = (
        np.concatenate([of, [count, count + 1]]) for of, count in ((one, counts[0]), (two, counts[1]))
    )
    centre = float(values.mean())
    error = math.sqrt(float(two_way_covariance((values - centre)[:, None], one, two)[0, 0])) / len(values)
    freedom = min(counts) - 1
    reach = float(stdtrit(freedom, 0.975)) * error
    p = 2 * float(stdtr(freedom, -abs(centre) / error))
    return TwoWayMean(mean, max(centre - reach, -1.0), min(centre + reach, 1.0), n, counts, error, p)
