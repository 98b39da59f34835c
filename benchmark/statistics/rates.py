"""Intervals of rates, which hold at no hit and at all hits, and of differences between two rates.

Clusters count by their effective number of items: items of a clip that go together tell less than as many
that do not.
"""

from __future__ import annotations

import numpy as np

FEW = 3  # hits or misses up to which Wilson's interval is too short on the outer side


def wilson(hits: float, n: float, level: float = 0.95, freedom: float | None = None) -> tuple[float, float]:
    """Modified Wilson interval of a rate (Brown, Cai and DasGupta 2001, section 4.1.1), within 0 and 1.

    Up to `FEW` hits its lower end is that of the Poisson limit, a half of chi-squared's quantile over n, and
    likewise its upper end up to as few misses: the score interval alone covers 84 to 92 % there.

    Args:
        hits: from 0 to n; need not be whole, where clusters have shrunk n.
        n: number of items, or the effective number of clustered ones.
        level: nominal coverage.
        freedom: degrees of freedom of a t quantile in place of the normal one.
    """
    from scipy.special import gammaincinv, ndtri, stdtrit

    alpha = 1 - level
    z = float(ndtri(1 - alpha / 2) if freedom is None else stdtrit(freedom, 1 - alpha / 2))
    rate, misses = hits / n, n - hits
    middle = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * float(np.sqrt(max(rate * (1 - rate), 0) / n + z * z / (4 * n * n))) / (1 + z * z / n)
    low, high = middle - half, middle + half
    if 0 < hits <= FEW:
        low = min(low, float(gammaincinv(hits, alpha)) / n)
    if 0 < misses <= FEW:
        high = max(high, 1 - float(gammaincinv(misses, alpha)) / n)
    return (0.0 if hits <= 0 else max(low, 0.0)), (1.0 if misses <= 0 else min(high, 1.0))


def unseen(n: float, level: float = 0.95) -> float:
    """How large a share may be of which n items have shown nothing: the upper end of no hit of n."""
    return wilson(0.0, n, level)[1]


def effective_items(shares: np.ndarray, sizes: np.ndarray) -> float:
    """The number of independent items that would tell a rate as precisely as these clusters do.

    The design effect is the variance of the rate with whole clusters drawn over that with items drawn; at
    least 1, and at most what full likeness within clusters gives. Where nothing varies likeness cannot be
    seen and is taken to be full.

    Args:
        shares: hits of each cluster, float [C].
        sizes: items of each cluster, int [C].
    """
    items, clusters = int(sizes.sum()), len(sizes)
    full = float((sizes**2).sum()) / items
    rate = float(shares.sum()) / items
    if full <= 1 or clusters < 2:
        return items / full
    if not 0 < rate < 1:
        return items / full
    off = shares - rate * sizes
    drawn = float((off**2).sum()) * clusters / (clusters - 1) / items**2
    design = drawn * (items - 1) / (rate * (1 - rate))
    return items / min(max(design, 1.0), full)


def rate_interval(shares: np.ndarray, sizes: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Interval of a rate from the hits [C] and the sizes [C] of its clusters."""
    items = effective_items(shares, sizes)
    clustered = bool((sizes > 1).any())
    return wilson(
        float(shares.sum() / sizes.sum()) * items, items, level, len(sizes) - 1 if clustered else None
    )


def rate_difference_interval(
    sums: np.ndarray, sizes: np.ndarray, width: float, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the mean of differences that are -width, 0 or width, as of two systems' hits on an item.

    Bonett and Price (2012): two made-up items, a win and a loss, are added; here each is a cluster of its
    own, and whole clusters vary. Without them no difference in any item would leave no width at all.

    Args:
        sums: the differences of each cluster added up, float [C].
        sizes: items of each cluster, int [C].
        width: the largest difference possible.
        level: nominal coverage.
    """
    from scipy.special import ndtri, stdtrit

    clusters = len(sizes)
    sums = np.concatenate([sums / width, [1.0, -1.0]])
    sizes = np.concatenate([sizes, [1, 1]])
    items = sizes.sum()
    mean = float(sums.sum() / items)
    error = float(np.sqrt(((sums - mean * sizes) ** 2).sum())) / items
    alone = bool((sizes == 1).all())  # as in `rate_interval`: t is for a variance that clusters estimate
    quantile = ndtri((1 + level) / 2) if alone else stdtrit(max(clusters - 1, 1), (1 + level) / 2)
    reach = float(quantile) * error
    return max(mean - reach, -1.0) * width, min(mean + reach, 1.0) * width
