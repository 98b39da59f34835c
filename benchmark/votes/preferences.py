"""How often a method is preferred: by criterion, and by the paper's majority in both of its readings."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from benchmark.statistics.intervals import Mean, mean_interval
from benchmark.statistics.paired import holm
from benchmark.statistics.two_way import TwoWayMean, preference_interval, share_interval
from benchmark.votes.ballots import Ballots, majority

READINGS = {
    "raters": "each rater's majority of criteria, then the majority of raters",
    "criteria": "the majority of raters by each criterion, then the majority of criteria",
}


@dataclass(frozen=True)
class Preference:
    """How a method fares against another, or against all others (`second` None), by one criterion.

    Attributes:
        wins, ties, losses: votes; win, tie, loss: their shares.
        net: mean of 1 for a win, 0 for a tie and -1 for a loss.
        corrected: p of `net` after Holm's correction for the pairs of one criterion; None for `second` None.
    """

    first: str
    second: str | None
    wins: int
    ties: int
    losses: int
    win: TwoWayMean
    tie: TwoWayMean
    loss: TwoWayMean
    net: TwoWayMean
    corrected: float | None = None


@dataclass(frozen=True)
class MajorityShare:
    """How a method fares against another where each comparison counts once.

    Attributes:
        comparisons: two results of an item, each judged by one rater or more.
        win, tie, loss: shares; their intervals draw source videos.
    """

    first: str
    second: str
    comparisons: int
    win: Mean
    tie: Mean
    loss: Mean


def preference(votes: Ballots, criterion: str, first: str, second: str | None) -> Preference:
    """One method against another one or all others; intervals are clustered by rater and source video."""
    numbers, sign = votes.of(first, second)
    outcome = votes.outcome(criterion)[numbers] * sign
    labels = votes.raters[numbers], votes.clusters[numbers]
    win, tie, loss = (share_interval(outcome == value, *labels) for value in (1, 0, -1))
    wins, ties, losses = (int((outcome == value).sum()) for value in (1, 0, -1))
    net = preference_interval(outcome, *labels)
    return Preference(first, second, wins, ties, losses, win, tie, loss, net)


def pair_preferences(votes: Ballots, criterion: str) -> list[Preference]:
    """Every two methods, in the definition's order; with Holm's correction."""
    found = [preference(votes, criterion, a, b) for a, b in itertools.combinations(votes.methods, 2)]
    corrected = holm([of.net.p for of in found])
    return [replace(of, corrected=p) for of, p in zip(found, corrected, strict=True)]


def overall_preferences(votes: Ballots, criterion: str) -> list[Preference]:
    """Each method against all others."""
    return [preference(votes, criterion, method, None) for method in votes.methods]


def comparison_outcomes(votes: Ballots, reading: str) -> tuple[np.ndarray, np.ndarray]:
    """What each comparison comes to by a reading of the paper's majority rule.

    "Majority" is more than half of all answers, `about the same` being an answer; a tie where nothing has it.

    Args:
        reading: one of `READINGS`.

    Returns:
        1, 0 or -1 for the first method, int [C], and the number of one of the comparison's votes, int [C].
    """
    units = votes.units()
    one_vote = np.unique(units, return_index=True)[1]
    criteria = votes.outcomes[:, :-1]
    members = np.split(np.argsort(units, kind="stable"), np.cumsum(np.bincount(units))[:-1])
    if reading == "raters":
        made = [majority(majority(criteria[of])) for of in members]
    else:
        made = [majority(majority(criteria[of].T)) for of in members]
    return np.array(made, dtype=int), one_vote


def majority_shares(votes: Ballots, reading: str) -> list[MajorityShare]:
    """Every two methods that were compared, in the definition's order."""
    if not len(votes):
        return []
    outcomes, one_vote = comparison_outcomes(votes, reading)
    first, second, clusters = votes.first[one_vote], votes.second[one_vote], votes.clusters[one_vote]
    found = []
    for a, b in itertools.combinations(range(len(votes.methods)), 2):
        mine = (first == a) & (second == b)
        if mine.any():
            labels = [str(label) for label in clusters[mine]]
            shares = [
                mean_interval([float(o == value) for o in outcomes[mine]], labels, bounds=(0.0, 1.0))
                for value in (1, 0, -1)
            ]
            found.append(MajorityShare(votes.methods[a], votes.methods[b], int(mine.sum()), *shares))
    return found


def readings_differ(votes: Ballots) -> tuple[int, int]:
    """Comparisons whose outcome depends on the reading, and comparisons in all."""
    if not len(votes):
        return 0, 0
    a, b = (comparison_outcomes(votes, reading)[0] for reading in READINGS)
    return int((a != b).sum()), len(a)
