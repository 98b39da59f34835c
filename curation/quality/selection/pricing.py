"""Rules at a price: each catches a share of the bad samples of one reason that is worth what it loses.

A clean share that is lost costs `price` times as much as the same share of a reason's samples is worth. Of
all reasons, scores and thresholds, the rule is added whose gain less cost is greatest, as long as it is
positive and the rule catches more than a score without any meaning would by chance (a hypergeometric test).
The reasons count alike, however many samples they have, and so do all rules: a score that tells its reason
from all clean samples keeps its threshold at any price, one that hardly does is first to go.

Counts say nothing of where between two samples a threshold should lie, nor that one just below the worst of
n clean values loses 1 of n + 1 new ones. So both counts go on beyond their last sample, that of clean ones to
below it and that of caught ones to above it, each as an exponential with the mean of the samples next to it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
CHANCE = 0.05  # how often a score without meaning may catch samples of a reason, all of them together
LEAST_CAUGHT = 3  # samples of a reason that a rule catches
LEAST_CLEAN = 5  # clean samples of which a score is not null
TAIL = 0.2  # of the samples on either side, whose values say how it goes on
SHORTEST = 0.1  # of the gap between the two: the least mean of a tail, where values are equal
BETWEEN = np.arange(1, 10) / 10  # where in a gap a threshold may lie, from the caught to the clean sample
MOST_RULES = 24


def rules_at(values: Floats, clean: Bools, reasons: Bools, price: float, tests: int | None = None) -> Floats:
    """Thresholds [signals] of rules at a price; -inf where a signal has none.

    Args:
        values: float64 [signals, samples], higher is better, +inf where it is null. clean: bool [samples].
        reasons: bool [reasons, samples]: which samples are bad for a reason; they may have several.
        tests: scores among which these were chosen, for the test against chance; as many as signals if None.
    """
    thresholds = np.full(len(values), -np.inf)
    left, kept, wanted = reasons.copy(), clean.copy(), reasons.sum(axis=1)
    best: list[tuple[float, int, float] | None] = [None] * len(reasons)
    stale = list(range(len(reasons)))
    for _ in range(MOST_RULES):
        for number in stale:
            share = price * int(wanted[number]) / (int(clean.sum()) + 1)
            best[number] = _best(values, kept, left[number], share, tests or max(1, len(values)))
        found = [(one[0] / int(wanted[n]), one) for n, one in enumerate(best) if one is not None]
        if not found:
            break
        _, row, threshold = max(found)[1]
        thresholds[row] = max(thresholds[row], threshold)
        dropped = values[row] <= threshold
        lost = bool((kept & dropped).any())
        stale = [n for n in range(len(reasons)) if lost or (left[n] & dropped).any()]
        kept &= ~dropped
        left &= ~dropped
    return thresholds


def _best(
    values: Floats, kept: Bools, left: Bools, price: float, tests: int
) -> tuple[float, int, float] | None:
    """The best rule for the samples of a reason that are left: its value in samples, signal and threshold.

    Args:
        kept: clean samples that no rule loses yet. price: of one of them, in samples of the reason.
    """
    if left.sum() < LEAST_CAUGHT or kept.sum() < LEAST_CLEAN:
        return None
    bad, good = np.sort(values[:, left], axis=1), np.sort(values[:, kept], axis=1)  # nulls are last
    bads, goods = np.isfinite(bad).sum(axis=1), np.isfinite(good).sum(axis=1)
    losses = np.array([np.searchsorted(g, b, "right") for g, b in zip(good, bad, strict=True)])
    rows = np.arange(len(values))[:, None]
    caught = np.arange(1, bad.shape[1] + 1)[None]
    following = np.append(bad[:, 1:], np.full((len(bad), 1), np.inf), axis=1)
    good = np.append(good, np.full((len(good), 1), np.inf), axis=1)
    edge = good[rows, losses]  # the worst clean value that passes
    possible = (caught >= LEAST_CAUGHT) & (following > bad) & np.isfinite(bad) & np.isfinite(edge)
    possible &= (goods >= LEAST_CLEAN)[:, None]
    if not possible.any():
        return None
    row, at = np.nonzero(possible)
    lost, low, high = losses[row, at], bad[row, at], edge[row, at]
    last = np.minimum(lost + np.maximum(4, (TAIL * goods[row]).astype(int)), goods[row])
    first = np.maximum(at + 1 - np.maximum(LEAST_CAUGHT, (TAIL * bads[row]).astype(int)), 0)
    gap = high - low
    above = np.maximum(_mean(good, row, lost, last) - high, SHORTEST * gap)[:, None]
    below = np.maximum(low - _mean(bad, row, first, at + 1), SHORTEST * gap)[:, None]
    top = np.minimum(high, following[row, at])
    threshold = low[:, None] + BETWEEN * (top - low)[:, None]
    cost = lost[:, None] + np.exp((threshold - high[:, None]) / above)
    gain = (at + 1)[:, None] - np.exp((low[:, None] - threshold) / below)
    worth = gain - price * cost
    place = worth.argmax(axis=1)
    most = worth[np.arange(len(row)), place]
    chosen = np.array([np.where(row == signal, most, -np.inf).argmax() for signal in np.unique(row)])
    chosen = chosen[most[chosen] > 0]
    signals = row[chosen]
    chance = _by_chance(at[chosen] + 1, lost[chosen], bads[signals], goods[signals])
    chosen = chosen[chance <= CHANCE / tests]
    if not len(chosen):
        return None
    one = int(chosen[most[chosen].argmax()])
    return float(most[one]), int(row[one]), float(threshold[one, place[one]])


def _mean(values: Floats, row: Ints, first: Ints, last: Ints) -> Floats:
    """Means of values[row, first:last], each of finite ones; values are float64 [rows, values]."""
    sums = np.cumsum(np.where(np.isfinite(values), values, 0.0), axis=1)
    sums = np.insert(sums, 0, 0.0, axis=1)
    means: Floats = (sums[row, last] - sums[row, first]) / (last - first)
    return means


def _by_chance(gains: Ints, losses: Ints, bad: Ints, clean: Ints) -> Floats:
    """How often a score without meaning catches so many bad samples before it loses one clean one more.

    Of all orders of `bad` and `clean` samples, the share in which at most `losses` clean ones are among the
    first `gains + losses`. All are [rules].
    """
    from scipy.stats import hypergeom

    chances: Floats = hypergeom.cdf(losses, bad + clean, clean, gains + losses)
    return chances
