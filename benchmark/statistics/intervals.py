"""Means with the number scored, the number failed, and an interval clustered by source.

Items cut from one clip or one pair resemble each other, so whole clusters are drawn, not items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.statistics.rates import rate_difference_interval, rate_interval, unseen, wilson

# With fewer clusters there is no interval; with fewer source clips, pairs are the clusters.
MIN_CLUSTERS = 5
# From here on the quantiles of t are moved out as expanded percentiles are; below they would be the extremes.
EXPANDED_FROM = 10

Bounds = tuple[float, float]


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
    bounds: Bounds | None = None,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Mean:
    """Mean of the values that are numbers, with a clustered interval.

    - Values all at one of two finite bounds are a rate: `rate_interval`.
    - Equal values: what `unseen` may be of the values between them and the bounds; none without bounds.
    - Else a bootstrap-t over whole clusters, cut at the bounds. From `EXPANDED_FROM` clusters on its
      quantiles are moved out as t's are from the normal's, as in expanded percentiles (Hesterberg 2015,
      section 5.3; their factor for the spread is left out, since draws are divided by their own).
    - So few differing values that too many draws have no variance: Wilson's interval between the bounds with
      the number of items that the variance is worth; none without bounds.

    Args:
        values: a score per item; None for one that failed.
        clusters: what each item belongs to.
        bounds: the lowest and the highest value possible, a metric's `range`; ends may be infinite.
        level: nominal coverage.
        resamples: draws of the bootstrap.
        seed: of the draws.

    Returns:
        The mean; its interval is None with fewer than `MIN_CLUSTERS` clusters, and when a value is infinite
        (then the mean is infinite too).
    """
    pairs = [(v, c) for v, c in zip(values, clusters, strict=True) if v is not None]
    failed = len(values) - len(pairs)
    if not pairs:
        return Mean(None, None, None, 0, failed, 0)
    scores = np.array([v for v, _ in pairs], dtype=np.float64)
    sums, sizes = by_cluster(scores, [c for _, c in pairs])
    count = len(sums)
    value = float(scores.mean())
    if count < MIN_CLUSTERS or not np.isfinite(scores).all():
        return Mean(value, None, None, len(pairs), failed, count)
    ends = _interval(scores, sums, sizes, bounds, level, resamples, seed)
    low, high = ends if ends is not None else (None, None)
    return Mean(value, low, high, len(pairs), failed, count)


def difference_interval(
    gaps: Sequence[float | None],
    clusters: Sequence[str],
    *,
    bounds: Bounds | None = None,
    level: float = 0.95,
    resamples: int = 4000,
    seed: int = 0,
) -> Mean:
    """Mean of the differences of two systems' scores on the same items, with its interval.

    As `mean_interval`, but differences of two rates, all -width, 0 or width, have
    `rate_difference_interval`.

    Args:
        gaps: a difference per item; None where a score is missing.
        clusters: what each item belongs to.
        bounds: of the scores themselves, not of the differences.
        level: nominal coverage.
        resamples: draws of the bootstrap.
        seed: of the draws.
    """
    width = math.inf if bounds is None else bounds[1] - bounds[0]
    known = [(g, c) for g, c in zip(gaps, clusters, strict=True) if g is not None]
    if known and math.isfinite(width) and {abs(g) for g, _ in known} <= {0.0, width}:
        scores = np.array([g for g, _ in known], dtype=np.float64)
        sums, sizes = by_cluster(scores, [c for _, c in known])
        low, high = None, None
        if len(sums) >= MIN_CLUSTERS:
            low, high = rate_difference_interval(sums, sizes, width, level)
        return Mean(float(scores.mean()), low, high, len(known), len(gaps) - len(known), len(sums))
    return mean_interval(gaps, clusters, bounds=(-width, width), level=level, resamples=resamples, seed=seed)


def by_cluster(scores: np.ndarray, clusters: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the scores and number of items of each cluster, float [C] and int [C]."""
    _, group = np.unique(np.asarray(clusters), return_inverse=True)
    count = int(group.max()) + 1
    return np.bincount(group, scores, count), np.bincount(group, minlength=count)


def standard_error(sums: np.ndarray, sizes: np.ndarray) -> float:
    """Of the mean over items, with whole clusters drawn (a ratio's linearised variance).

    Args:
        sums: scores of each cluster added up, float [C], C at least 2.
        sizes: items of each cluster, int [C].
    """
    count, items = len(sums), sizes.sum()
    off = sums - sums.sum() / items * sizes
    return float(np.sqrt((off**2).sum() * count / (count - 1))) / float(items)


def expanded_tail(n: int, level: float) -> float:
    """Tail probability to read the quantiles at, for n clusters: that of t's quantile under a normal."""
    from scipy.special import ndtr, stdtrit

    return float(ndtr(stdtrit(n - 1, (1 - level) / 2)))


def choose_clusters(clips: Sequence[str], pairs: Sequence[str]) -> tuple[str, list[str]]:
    """What to cluster by, and the labels: source clips when there are at least MIN_CLUSTERS, else edit pairs.

    Intervals by pair say how the mean varies over pairs of *these* clips, not how it would over others.
    """
    if len(set(clips)) >= MIN_CLUSTERS:
        return "source clip", list(clips)
    return "edit pair", list(pairs)


def _interval(
    scores: np.ndarray,
    sums: np.ndarray,
    sizes: np.ndarray,
    bounds: Bounds | None,
    level: float,
    resamples: int,
    seed: int,
) -> tuple[float, float] | None:
    low, high = bounds if bounds is not None else (-math.inf, math.inf)
    # a score outside of its metric's range is no reason to lose it; the range then says nothing
    bounded = math.isfinite(high - low) and low <= scores.min() and scores.max() <= high and low < high
    if bounded and np.isin(scores, (low, high)).all():
        ends = rate_interval((sums - low * sizes) / (high - low), sizes, level)
        return low + ends[0] * (high - low), low + ends[1] * (high - low)
    if np.ptp(scores) <= 1e-12 * max(1.0, float(np.abs(scores).max())):
        share = unseen(float(sizes.sum() ** 2 / (sizes**2).sum()), level)
        value = float(scores.mean())
        return (value - share * (value - low), value + share * (high - value)) if bounded else None
    ends_t = _bootstrap_t(sums, sizes, level, resamples, seed)
    if ends_t is not None:
        if low <= scores.min() and scores.max() <= high:
            return max(ends_t[0], low), min(ends_t[1], high)
        return ends_t
    if not bounded:
        return None
    mean = (float(scores.mean()) - low) / (high - low)
    items = mean * (1 - mean) / (standard_error(sums, sizes) / (high - low)) ** 2
    ends = wilson(mean * items, items, level, len(sums) - 1)
    return low + ends[0] * (high - low), low + ends[1] * (high - low)


def _bootstrap_t(
    sums: np.ndarray, sizes: np.ndarray, level: float, resamples: int, seed: int
) -> tuple[float, float] | None:
    """Ends of a bootstrap-t interval over clusters; None where too many draws have no variance."""
    count, items = len(sums), sizes.sum()
    mean, error = sums.sum() / items, standard_error(sums, sizes)
    if error <= 1e-12 * max(1.0, abs(mean)):
        return None
    draws = np.random.default_rng(seed).integers(0, count, (resamples, count))
    drawn, drawn_items = sums[draws], sizes[draws]
    totals = drawn_items.sum(1)
    means = drawn.sum(1) / totals
    squares = ((drawn - means[:, None] * drawn_items) ** 2).sum(1)
    errors = np.sqrt(squares * count / (count - 1)) / totals
    varied = errors > 1e-9 * error
    offsets = means - mean
    ratios = offsets / np.where(varied, errors, 1.0)
    ratios[~varied & (offsets > 0)], ratios[~varied & (offsets < 0)] = math.inf, -math.inf
    tail = expanded_tail(count, level) if count >= EXPANDED_FROM else (1 - level) / 2
    least, most = np.quantile(ratios, [tail, 1 - tail], method="inverted_cdf")
    if not math.isfinite(most - least):
        return None
    return float(mean - most * error), float(mean - least * error)
