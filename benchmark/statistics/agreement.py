"""How far raters agree: Krippendorff's alpha (2004), nominal and ordinal, with votes missing or not.

The interval is by the jackknife in two ways: whole clusters of units left out, whole raters left out, and
less what is both (single votes), as in `two_way`. A pair of votes counts for both of its raters, so that the
second and third are too large by the same; their difference counts where it is positive. Drawing raters with
replacement is no choice here: who is drawn twice agrees with themselves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmark.statistics.intervals import MIN_CLUSTERS
from benchmark.statistics.two_way import Labels, cluster_numbers

Level = Literal["nominal", "ordinal"]


@dataclass(frozen=True)
class Alpha:
    """Krippendorff's alpha: 1 is full agreement, 0 what chance gives.

    Attributes:
        value: None where no unit has two votes, or all votes are one value.
        low, high: 95 %; None with fewer than `MIN_CLUSTERS` raters or clusters, or where one of them makes
            all the difference.
        units: with two votes or more; votes: in them.
    """

    value: float | None
    low: float | None
    high: float | None
    units: int
    votes: int


def krippendorff_alpha(
    units: Labels, raters: Labels, values: Sequence[int] | np.ndarray, clusters: Labels, level: Level
) -> Alpha:
    """Alpha of votes, at most one of a rater in a unit.

    Args:
        units: what each vote is about, [N].
        raters: who voted, [N].
        values: int [N]; their order is that of the scale.
        clusters: what each vote's unit belongs to, such as its source video, [N].
        level: `ordinal` weighs two values by how many votes lie from one to the other.

    Raises:
        ValueError: a rater voted twice in a unit.
    """
    if len(values) == 0:
        return Alpha(None, None, None, 0, 0)
    unit, rater, cluster = (cluster_numbers(of) for of in (units, raters, clusters))
    value = cluster_numbers(values)
    if len(np.unique(unit * (int(rater.max()) + 1) + rater)) < len(unit):
        raise ValueError("a rater voted twice in one unit")
    counts = np.zeros((int(unit.max()) + 1, int(value.max()) + 1))
    np.add.at(counts, (unit, value), 1.0)
    pairable = counts.sum(1)[unit] >= 2
    if not pairable.any():
        return Alpha(None, None, None, 0, 0)
    unit, rater, cluster, value = (of[pairable] for of in (unit, rater, cluster, value))
    total = _coincidences(counts).sum(0)
    whole = _alpha(total[None], level)[0]
    found = Alpha(
        float(whole) if math.isfinite(whole) else None, None, None, len(np.unique(unit)), len(value)
    )
    if found.value is None or min(len(np.unique(rater)), len(np.unique(cluster))) < MIN_CLUSTERS:
        return found
    lost = counts[unit].copy()  # each vote's unit without it
    lost[np.arange(len(value)), value] -= 1
    single = _coincidences(lost) - _coincidences(counts[unit])  # what leaving one vote out changes
    by_unit = np.zeros((len(counts), *total.shape))
    by_unit[unit] = -_coincidences(counts[unit])
    of_unit = np.zeros(len(counts), dtype=int)
    of_unit[unit] = cluster_numbers(cluster)
    used = np.unique(unit)
    changes = (
        _summed(single, cluster_numbers(rater)),
        _summed(by_unit[used], of_unit[used]),
        single,
    )
    variances = [_jackknife(_alpha(total + change, level)) for change in changes]
    if not all(map(math.isfinite, variances)):
        return found
    variance = variances[1] + max(variances[0] - variances[2], 0.0)
    from scipy.special import stdtrit

    freedom = min(len(changes[0]), len(changes[1])) - 1
    reach = float(stdtrit(freedom, 0.975)) * math.sqrt(variance)
    if reach == 0:  # full agreement whoever is left out: how it may break is not seen
        return found
    low, high = found.value - reach, min(found.value + reach, 1.0)
    return Alpha(found.value, low, high, found.units, found.votes)


def _coincidences(counts: np.ndarray) -> np.ndarray:
    """Pairs of values within each unit, each over the unit's votes less one, [U, V, V]; 0 for a lone vote."""
    votes = counts.sum(1)
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(counts.shape[1])
    made: np.ndarray = np.where(
        (votes >= 2)[:, None, None], pairs / np.maximum(votes - 1, 1)[:, None, None], 0
    )
    return made


def _alpha(coincidences: np.ndarray, level: Level) -> np.ndarray:
    """Alpha of each table of coincidences [B, V, V]; not finite where no disagreement is expected."""
    n = coincidences.sum(2)
    size = n.shape[1]
    if level == "nominal":
        distance = np.broadcast_to(1.0 - np.eye(size), coincidences.shape)
    else:
        upto = np.cumsum(n, 1) - n / 2  # votes up to the middle of each value
        distance = (upto[:, :, None] - upto[:, None, :]) ** 2
    total = n.sum(1)
    expected = (n[:, :, None] * n[:, None, :] - n[:, :, None] * np.eye(size)) * distance
    with np.errstate(divide="ignore", invalid="ignore"):
        made: np.ndarray = 1 - (total - 1) * (coincidences * distance).sum((1, 2)) / expected.sum((1, 2))
    return made


def _summed(parts: np.ndarray, group: np.ndarray) -> np.ndarray:
    sums = np.zeros((int(group.max()) + 1, *parts.shape[1:]))
    np.add.at(sums, group, parts)
    return sums


def _jackknife(values: np.ndarray) -> float:
    count = len(values)
    return float((count - 1) / count * ((values - values.mean()) ** 2).sum()) if count > 1 else 0.0
