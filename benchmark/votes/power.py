"""How many ratings tell two methods apart: planned from shares, or from the votes that there are.

By the normal approximation, with t's quantile where the number of raters is known. What is observed is
extrapolated as if raters and source videos grew with the ratings; more ratings by the same raters of the same
videos tell less. In simulation (`python -m tests.perf --only '[votes]'`) a plan for 80 % has some 75 % where
votes are independent, since the test takes the larger of several estimates of its variance.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmark.study.definition import StudyDefinition
from benchmark.study.records import StudyError, Vote
from benchmark.votes.ballots import Ballots, ballots
from benchmark.votes.preferences import preference

MOST = 10_000_000  # ratings: beyond it no study is large enough


@dataclass(frozen=True)
class StudyPower:
    """What it takes to tell two methods apart by one criterion.

    Attributes:
        first, second: methods.
        criterion: or `majority`.
        ratings: of the two against each other so far.
        net: share of wins of the first less that of its losses, observed.
        design_effect: variance over that of independent votes.
        least: net preference that as many ratings show with the chance asked for.
        needed: ratings in all to see one as large as `net`; None where it is 0 or beyond all means.
        more: of them, those that are missing.
    """

    first: str
    second: str
    criterion: str
    ratings: int
    net: float
    design_effect: float
    least: float
    needed: int | None
    more: int | None


def ratings_needed(
    win: float,
    loss: float,
    *,
    raters: int | None = None,
    design_effect: float = 1.0,
    alpha: float = 0.05,
    chance: float = 0.8,
) -> int | None:
    """Ratings of two methods against each other that tell them apart with a given chance.

    Args:
        win, loss: shares of votes expected for either; the rest are ties.
        raters: their number, where known: t's quantile then takes the place of the normal one.
        design_effect: how many times the variance of independent votes theirs is; raters and videos make it
            more than 1.
        alpha: size of the two-sided test, after a correction for several where there is one.
        chance: to see the difference, between 0 and 1.

    Returns:
        None where the shares are equal.

    Raises:
        StudyError: shares that are none, or a chance or size outside of 0 and 1.
    """
    if win < 0 or loss < 0 or win + loss > 1 or not 0 < alpha < 1 or not 0 < chance < 1 or design_effect <= 0:
        raise StudyError("power: shares lie between 0 and 1 and sum to at most 1; so does the chance")
    gap = win - loss
    if gap == 0:
        return None
    needed = (
        _reach(alpha, chance, None if raters is None else raters - 1) ** 2
        * (win + loss - gap**2)
        * design_effect
        / gap**2
    )
    return max(math.ceil(needed), 1) if needed <= MOST else None


def study_power(
    votes: Ballots,
    criterion: str,
    first: str,
    second: str,
    *,
    alpha: float = 0.05,
    chance: float = 0.8,
) -> StudyPower | None:
    """From the votes on two methods; None where there are too few for an interval."""
    net = preference(votes, criterion, first, second).net
    if net.error is None or net.value is None:
        return None
    # as in the interval's error: with a vote for and one against, without which ties alone have no variance
    n = net.n + 2
    outcomes = votes.outcome(criterion)[votes.of(first, second)[0]]
    mean = net.value * net.n / n
    independent = ((outcomes != 0).sum() + 2) / n - mean**2
    reach = _reach(alpha, chance, min(net.clusters) - 1)
    needed = None
    if net.value != 0:
        wanted = net.n * (reach * net.error / abs(net.value)) ** 2
        needed = math.ceil(wanted) if wanted <= MOST else None
    return StudyPower(
        first,
        second,
        criterion,
        net.n,
        net.value,
        float(net.error**2 * n / independent),
        reach * net.error,
        needed,
        None if needed is None else max(needed - net.n, 0),
    )


def all_powers(votes: Ballots, criterion: str) -> list[StudyPower]:
    """Of every two methods with votes enough."""
    found = [study_power(votes, criterion, a, b) for a, b in itertools.combinations(votes.methods, 2)]
    return [of for of in found if of is not None]


def closest_methods(
    definition: StudyDefinition, votes: Sequence[Vote], criterion: str = "majority"
) -> StudyPower | None:
    """The two methods that need the most ratings to be told apart; None where no two have votes enough."""
    found = all_powers(ballots(definition, votes), criterion)
    return max(found, key=lambda of: math.inf if of.needed is None else of.needed, default=None)


def _reach(alpha: float, chance: float, freedom: int | None) -> float:
    """Standard errors that a difference must have, for a two-sided test to see it with a chance."""
    from scipy.special import ndtri, stdtrit

    quantile = ndtri(1 - alpha / 2) if freedom is None else stdtrit(max(freedom, 1), 1 - alpha / 2)
    return float(quantile + ndtri(chance))
