"""How two scores go together, with intervals that know of clusters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmark.statistics.intervals import MIN_CLUSTERS


@dataclass(frozen=True)
class Correlation:
    """Two scores over n items: Pearson and Spearman with 95 % intervals, Kendall; None if undefined.

    Attributes:
        low, high: of Pearson's.
        spearman_low, spearman_high: of Spearman's; kendall_low, kendall_high: of Kendall's, where asked for.
        clusters: number of clusters that the intervals are over; None for items taken as independent.
    """

    n: int
    pearson: float | None
    low: float | None
    high: float | None
    spearman: float | None
    kendall: float | None
    spearman_low: float | None = None
    spearman_high: float | None = None
    clusters: int | None = None
    kendall_low: float | None = None
    kendall_high: float | None = None


def correlation(
    a: Sequence[float | None],
    b: Sequence[float | None],
    clusters: Sequence[str] | None = None,
    *,
    of_ranks: bool = False,
) -> Correlation:
    """How two scores go together over the items for which both are finite.

    Args:
        a, b: a score per item each; None for one that is missing.
        clusters: what each item belongs to: intervals are then by leaving out whole clusters in turn (the
            jackknife, on Fisher's z, with t), and None with fewer than `MIN_CLUSTERS`. Without, items count
            as independent draws from a normal distribution (Fisher).
        of_ranks: also give Kendall's interval, and Spearman's without clusters: by the jackknife as above, or
            on Fisher's z with the variances (1 + r² / 2) / (n - 3) (Bonett and Wright 2000) and
            0.437 / (n - 4) (Fieller, Hartley and Pearson 1957) for independent items.
    """
    from scipy import stats

    labels = clusters if clusters is not None else [str(n) for n in range(len(a))]
    kept = [
        (x, y, c)
        for x, y, c in zip(a, b, labels, strict=True)
        if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)
    ]
    n = len(kept)
    if n < 3 or len({x for x, *_ in kept}) < 2 or len({y for _, y, _ in kept}) < 2:
        return Correlation(n, None, None, None, None, None)
    x, y = (np.array([row[k] for row in kept], dtype=np.float64) for k in (0, 1))
    pearson, spearman = stats.pearsonr(x, y), float(stats.spearmanr(x, y).statistic)
    kendall = float(stats.kendalltau(x, y).statistic)
    if clusters is None:
        ends = pearson.confidence_interval(0.95)
        known = n > 3 and ends.low < ends.high
        fisher = (float(ends.low), float(ends.high)) if known else (None, None)
        found = Correlation(n, float(pearson.statistic), fisher[0], fisher[1], spearman, kendall)
        if not of_ranks:
            return found
        by_rank = _on_z(spearman, (1 + spearman**2 / 2) / (n - 3) if n > 3 else None)
        by_kendall = _on_z(kendall, 0.437 / (n - 4) if n > 4 else None)
        return replace(
            found,
            spearman_low=by_rank[0],
            spearman_high=by_rank[1],
            kendall_low=by_kendall[0],
            kendall_high=by_kendall[1],
        )
    group = np.unique([c for *_, c in kept], return_inverse=True)[1]
    count = int(group.max()) + 1
    low, high = jackknife_interval(x, y, group)
    by_rank = jackknife_interval(stats.rankdata(x), stats.rankdata(y), group)
    by_kendall = _kendall_interval(x, y, group) if of_ranks else (None, None)
    return Correlation(
        n, float(pearson.statistic), low, high, spearman, kendall, *by_rank, count, *by_kendall
    )


def _on_z(value: float, variance: float | None) -> tuple[float | None, float | None]:
    """A 95 % interval on Fisher's z; None at 1 and -1, and without a variance."""
    from scipy.special import ndtri

    if variance is None or abs(value) >= 1 - 1e-12:
        return None, None
    z, reach = math.atanh(value), float(ndtri(0.975)) * math.sqrt(variance)
    return math.tanh(z - reach), math.tanh(z + reach)


def _kendall_interval(x: np.ndarray, y: np.ndarray, group: np.ndarray) -> tuple[float | None, float | None]:
    """Of Kendall's correlation, as `jackknife_interval`."""
    from scipy import stats

    count = int(group.max()) + 1
    if count < MIN_CLUSTERS:
        return None, None
    without = [stats.kendalltau(x[group != g], y[group != g]).statistic for g in range(count)]
    whole = float(stats.kendalltau(x, y).statistic)
    return _jackknife_on_z(whole, np.array(without, dtype=np.float64), 0.95)


def jackknife_interval(
    x: np.ndarray, y: np.ndarray, group: np.ndarray, level: float = 0.95
) -> tuple[float | None, float | None]:
    """Of Pearson's correlation, by leaving out whole clusters, on Fisher's z.

    Args:
        x, y: float [N]; ranks for an interval of Spearman's.
        group: cluster of each, int [N], from 0 on without a gap.
        level: nominal coverage.

    Returns:
        (low, high), or (None, None) with fewer than `MIN_CLUSTERS` clusters, where one of them makes all the
        difference, or where the correlation is 1 or -1.
    """
    count = int(group.max()) + 1
    if count < MIN_CLUSTERS:
        return None, None
    x, y = x - x.mean(), y - y.mean()
    parts = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y])
    sums = np.stack([np.bincount(group, part, count) for part in parts])
    total = sums.sum(1, keepdims=True)

    def correlations(of: np.ndarray) -> np.ndarray:
        n, sx, sy, sxx, syy, sxy = of
        with np.errstate(divide="ignore", invalid="ignore"):
            return (sxy - sx * sy / n) / np.sqrt((sxx - sx * sx / n) * (syy - sy * sy / n))

    whole, without = correlations(total)[0], correlations(total - sums)
    return _jackknife_on_z(float(whole), without, level)


def _jackknife_on_z(whole: float, without: np.ndarray, level: float) -> tuple[float | None, float | None]:
    """An interval for a correlation from what it is without each cluster, [C]; see `jackknife_interval`."""
    from scipy.special import stdtrit

    count = len(without)
    if not np.isfinite(without).all() or max(abs(whole), np.abs(without).max()) >= 1 - 1e-12:
        return None, None
    z, zs = np.arctanh(whole), np.arctanh(without)
    error = math.sqrt((count - 1) / count * float(((zs - zs.mean()) ** 2).sum()))
    if error < 1e-12:  # whichever cluster is left out: how it may vary is not seen
        return None, None
    reach = float(stdtrit(count - 1, (1 + level) / 2)) * error
    return float(np.tanh(z - reach)), float(np.tanh(z + reach))
