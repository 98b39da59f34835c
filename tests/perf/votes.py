"""What the intervals of a human study cover, and how often its tests reject; no times.

Simulated votes by the real design: five methods, 400 comparisons of 60 items of 50 videos by three raters
each, of 20 or 8 raters. Methods differ by video and by rater as normal effects of the log-odds; what the
population then holds is computed by quadrature. 200 data sets a line.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from benchmark.statistics.agreement import krippendorff_alpha
from benchmark.statistics.bradley_terry import Strengths, bradley_terry, fit
from benchmark.statistics.two_way import cluster_numbers, preference_interval, share_interval
from benchmark.votes.ballots import ballots
from benchmark.votes.power import ratings_needed
from tests.benchmark.study.simulated import Taste, simulate
from tests.perf.measure import Figure

NAMES = tuple("abcde")
TIE = 0.6
RESAMPLES = 200
Ends = tuple[float | None, float | None]


@dataclass(frozen=True)
class Votes:
    """A design's votes without their outcomes, int [N] each."""

    first: np.ndarray
    second: np.ndarray
    raters: np.ndarray
    clusters: np.ndarray
    units: np.ndarray


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Strengths, shares, agreement, then tests and the planned number of ratings."""
    runs = 10 if quick else 200
    spreads = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5))
    made = []
    for raters in (20, 8):
        for by_video, by_rater in spreads:
            made += coverage(raters, by_video, by_rater, runs)
    made += [equal_methods(raters, runs) for raters in (20, 8)]
    return [*made, *planned(5 * runs)]


def line(what: str, covered: float, note: str = "") -> Figure:
    """A share as a line of the table."""
    return Figure(what, None, None, "", f"{100 * covered:.1f} %{note}")


@cache
def design(raters: int) -> Votes:
    """The votes that everyone gives once."""
    study = simulate(
        Taste(dict.fromkeys(NAMES, 0.0)),
        pairs=400,
        raters=raters,
        raters_per_pair=3,
        practice=0,
        gold_ties=0,
        gold_losses=0,
        repeats=0,
    )
    of = ballots(study.definition, study.votes())
    return Votes(of.first, of.second, cluster_numbers(of.raters), cluster_numbers(of.clusters), of.units())


def draw(
    votes: Votes, strengths: np.ndarray, by_video: float, by_rater: float, random: np.random.Generator
) -> np.ndarray:
    """Outcomes, int [N]."""
    of_video = random.normal(0, by_video, (int(votes.clusters.max()) + 1, len(strengths)))
    of_rater = random.normal(0, by_rater, (int(votes.raters.max()) + 1, len(strengths)))

    def of(method: np.ndarray) -> np.ndarray:
        value: np.ndarray = (
            strengths[method] + of_video[votes.clusters, method] + of_rater[votes.raters, method]
        )
        return value

    win, tie, _ = chances(of(votes.first) - of(votes.second))
    lot = random.random(len(win))
    made: np.ndarray = np.where(lot < win, 1, np.where(lot < win + tie, 0, -1))
    return made


def chances(gap: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a win, a tie and a loss."""
    up, down = np.exp(gap / 2), np.exp(-gap / 2)
    total = up + TIE + down
    return up / total, TIE / total, down / total


def expected(gap: float, spread: float) -> np.ndarray:
    """Shares of wins, ties and losses over a normal spread of the gap, float [3]."""
    at, weights = np.polynomial.hermite_e.hermegauss(60)
    made: np.ndarray = np.array(chances(gap + spread * at)) @ weights / weights.sum()
    return made


def truth(strengths: np.ndarray, by_video: float, by_rater: float, votes: Votes) -> np.ndarray:
    """Strengths that as many votes without any error would give, float [K]."""
    pairs = np.array(list(itertools.combinations(range(len(strengths)), 2)))
    spread = float(np.sqrt(2 * (by_video**2 + by_rater**2)))
    counts = [((votes.first == a) & (votes.second == b)).sum() for a, b in pairs]
    table = np.array(
        [
            n * expected(float(strengths[a] - strengths[b]), spread)
            for n, (a, b) in zip(counts, pairs, strict=True)
        ]
    )
    found: np.ndarray = fit(table[None] * 1000, pairs, len(strengths)).strengths[0]
    return found


def inside(ends: Ends, value: float) -> bool:
    """Whether an interval holds a value; none holds nothing."""
    low, high = ends
    return low is not None and high is not None and low <= value <= high


def coverage(raters: int, by_video: float, by_rater: float, runs: int) -> list[Figure]:
    """Of strengths, of a pair's shares and net preference, and of alpha around its mean over the runs."""
    strengths = np.array([0.8, 0.4, 0.0, -0.4, -0.8])
    votes = design(raters)
    true = truth(strengths, by_video, by_rater, votes)
    mine = (votes.first == 0) & (votes.second == 1)
    spread = float(np.sqrt(2 * (by_video**2 + by_rater**2)))
    win, _, loss = expected(0.4, spread)
    hits: dict[str, list[bool]] = {name: [] for name in ("strengths", "win", "net")}
    alphas = []
    for run in range(runs):
        random = np.random.default_rng([run, raters, int(100 * by_video), int(100 * by_rater)])
        outcomes = draw(votes, strengths, by_video, by_rater, random)
        found = rank(votes, outcomes, run)
        for name, value in zip(NAMES, true, strict=True):
            of = found.methods[name]
            hits["strengths"].append(of is not None and inside((of.low, of.high), float(value)))
        labels = votes.raters[mine], votes.clusters[mine]
        share = share_interval(outcomes[mine] == 1, *labels)
        hits["win"].append(inside((share.low, share.high), float(win)))
        net = preference_interval(outcomes[mine], *labels)
        hits["net"].append(inside((net.low, net.high), float(win - loss)))
        alphas.append(krippendorff_alpha(votes.units, votes.raters, outcomes, votes.clusters, "ordinal"))
    mean = float(np.mean([of.value for of in alphas if of.value is not None]))
    what = f"{raters} raters, spread {by_video:g} by video, {by_rater:g} by rater: "
    return [
        line(what + "strength", float(np.mean(hits["strengths"]))),
        line(what + f"share of wins of {mine.sum()} votes", float(np.mean(hits["win"]))),
        line(what + "net preference", float(np.mean(hits["net"]))),
        line(
            what + f"alpha, mean {mean:.2f}",
            float(np.mean([inside((of.low, of.high), mean) for of in alphas])),
        ),
    ]


def rank(votes: Votes, outcomes: np.ndarray, seed: int) -> Strengths:
    """Strengths by one set of outcomes."""
    of = votes.first, votes.second, outcomes, votes.raters, votes.clusters
    return bradley_terry(NAMES, *of, seed=seed, resamples=RESAMPLES)


def equal_methods(raters: int, runs: int) -> Figure:
    """How often any two of five equal methods are told apart after Holm's correction."""
    votes, wrong = design(raters), 0
    for run in range(runs):
        random = np.random.default_rng([run, raters])
        outcomes = draw(votes, np.zeros(5), 0.3, 0.3, random)
        found = rank(votes, outcomes, run)
        wrong += any(gap.corrected is not None and gap.corrected <= 0.05 for gap in found.pairs)
    return line(f"{raters} raters, five equal methods, Holm: any told apart", wrong / runs)


def planned(runs: int) -> list[Figure]:
    """How often the planned number of ratings tells 60 from 40 % apart; it was planned for 80 %."""
    made = []
    for tie in (0.0, 0.2):
        win, loss = 0.6 * (1 - tie), 0.4 * (1 - tie)
        needed = ratings_needed(win, loss, raters=20)
        assert needed is not None
        seen = 0
        for run in range(runs):
            random = np.random.default_rng([run, needed])
            lot = random.random(needed)
            outcomes = np.where(lot < win, 1, np.where(lot < win + loss, -1, 0))
            p = preference_interval(outcomes, np.arange(needed) % 20, random.integers(0, 50, needed)).p
            seen += p is not None and p <= 0.05
        note = f" ({needed} ratings, 20 raters)"
        made.append(line(f"60:40 with {100 * tie:g} % ties, planned for 80 %: told apart", seen / runs, note))
    return made
