"""Bradley-Terry strengths of methods from votes with ties (Davidson 1970), with two-way clustered intervals.

Of i against j: a win, a tie and a loss have chances in the proportion of exp(d), nu and exp(-d), with d half
the difference of their strengths. Among Davidson's and Rao and Kupper's models this is the one whose
likelihood is concave in all parameters and whose sums (wins plus half the ties of a method, ties in all) are
sufficient: Newton's method finds its one maximum. Strengths are natural logarithms of odds with mean 0.

A weak ridge (a normal prior of variance 1 / `RIDGE` on strengths and on log nu) keeps a method that won
everything finite.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.statistics.groups import ALPHA, letters
from benchmark.statistics.intervals import MIN_CLUSTERS
from benchmark.statistics.paired import holm
from benchmark.statistics.two_way import Labels, cluster_numbers

RIDGE = 0.1
STEPS = 200  # of Newton; a handful are needed
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Strength:
    """A method's strength.

    Attributes:
        log_odds: over the mean of all methods, natural logarithm; low, high: its 95 % interval.
        win: chance of being preferred to a method of mean strength, ties aside; win_low, win_high: of it.
        rank: from 1; rank_low, rank_high: 1 plus the methods that are better, and the number of methods less
            those that are worse, by tests that hold for all pairs together (Holm).
        votes: that the method had.
    """

    log_odds: float
    low: float | None
    high: float | None
    win: float
    win_low: float | None
    win_high: float | None
    rank: int
    rank_low: int | None
    rank_high: int | None
    votes: int


@dataclass(frozen=True)
class Gap:
    """How much stronger `first` is than `second`: log-odds, 95 % interval, p, and p corrected by Holm."""

    first: str
    second: str
    log_odds: float
    low: float | None
    high: float | None
    p: float | None
    corrected: float | None


@dataclass(frozen=True)
class Strengths:
    """All methods by their votes.

    Attributes:
        order: methods with votes, strongest first.
        methods: by name; None for a method without votes, and for all where `why_not` says so.
        tie: chance of a tie between equals.
        pairs: every two methods.
        letters: of each method: two that share one cannot be told apart at 5 %, all pairs taken together.
        votes: in all; clusters: of either kind.
        why_not: what is not there, and why; empty when all is.
    """

    order: list[str]
    methods: dict[str, Strength | None]
    tie: float | None
    pairs: list[Gap]
    letters: dict[str, str]
    votes: int
    clusters: tuple[int, int]
    why_not: str


@dataclass(frozen=True)
class Fit:
    """Strengths of largest penalised likelihood, of B tables of votes.

    Attributes:
        strengths: float [B, K].
        log_tie: logarithm of nu, float [B]; -inf without ties.
        covariance: of the strengths were votes independent, the inverse of the negative Hessian, [B, K, K].
        likelihood: logarithm, less the penalty, float [B].
    """

    strengths: np.ndarray
    log_tie: np.ndarray
    covariance: np.ndarray
    likelihood: np.ndarray


def fit(
    counts: np.ndarray,
    pairs: np.ndarray,
    methods: int,
    ridge: float = RIDGE,
    equal: np.ndarray | None = None,
) -> Fit:
    """Strengths of largest penalised likelihood, of many tables of votes at once.

    Args:
        counts: votes for the first, ties, votes for the second of each pair, float [B, P, 3]. Where no table
            has a tie, the model has none either, and is that of Bradley and Terry (1952).
        pairs: methods of each pair, int [P, 2].
        methods: their number, K.
        ridge: half of it times the sum of squares is taken from the log-likelihood.
        equal: two methods whose strengths are held equal, of each table, int [B, 2].

    Raises:
        ArithmeticError: Newton's method did not converge.
    """
    counts = np.asarray(counts, dtype=np.float64)
    batch, ties = len(counts), bool(counts[..., 1].any())
    size = methods + ties
    half = np.zeros((len(pairs), size))  # of each pair, half the difference of strengths
    half[np.arange(len(pairs)), pairs[:, 0]], half[np.arange(len(pairs)), pairs[:, 1]] = 0.5, -0.5
    n = counts.sum(-1)
    halves = half[None]
    if equal is not None:  # from 0 on nothing then leads off the strengths that are equal
        apart = np.zeros((batch, size))
        apart[np.arange(batch), equal[:, 0]], apart[np.arange(batch), equal[:, 1]] = 1.0, -1.0
        halves = half - (apart @ half.T)[:, :, None] * apart[:, None, :] / 2

    def chances(at: np.ndarray) -> np.ndarray:
        d = np.matmul(halves, at[:, :, None])[..., 0]
        nu = at[:, -1:] if ties else np.full((batch, 1), -np.inf)
        logits = np.stack([d, np.broadcast_to(nu, d.shape), -d], -1)
        top = logits.max(-1, keepdims=True)
        logs: np.ndarray = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))
        return logs

    def height(at: np.ndarray) -> np.ndarray:
        logs = np.where(counts > 0, chances(at), 0.0)
        total: np.ndarray = (counts * logs).sum((1, 2)) - ridge / 2 * (at**2).sum(1)
        return total

    at = np.zeros((batch, size))
    for _ in range(STEPS):
        win, tie, loss = np.moveaxis(np.exp(chances(at)), -1, 0)
        turned = np.swapaxes(halves, 1, 2)
        slope = np.matmul(turned, (counts[..., 0] - counts[..., 2] - n * (win - loss))[..., None])[..., 0]
        slope -= ridge * at
        bend = np.matmul(turned * (n * (win + loss - (win - loss) ** 2))[:, None, :], halves)
        bend += ridge * np.eye(size)
        if ties:
            slope[:, -1] += (counts[..., 1] - n * tie).sum(1)
            across = np.matmul(turned, (-n * tie * (win - loss))[..., None])[..., 0]
            bend[:, -1, :] += across
            bend[:, :, -1] += across
            bend[:, -1, -1] += (n * tie * (1 - tie)).sum(1)
        step = np.linalg.solve(bend, slope[..., None])[..., 0]
        if np.abs(step).max() < TOLERANCE:
            inverse = np.linalg.inv(bend)[:, :methods, :methods]
            nu = at[:, -1] if ties else np.full(batch, -np.inf)
            return Fit(at[:, :methods], nu, inverse, height(at))
        now, length = height(at), np.ones(batch)
        for _ in range(40):  # a step that leads down is halved
            down = height(at + length[:, None] * step) < now - 1e-12 * np.abs(now)
            if not down.any():
                break
            length[down] /= 2
        at = at + length[:, None] * step
    raise ArithmeticError(f"Bradley-Terry: Newton's method did not converge in {STEPS} steps")


def bradley_terry(
    names: Sequence[str],
    first: np.ndarray,
    second: np.ndarray,
    outcomes: np.ndarray,
    raters: Labels,
    clusters: Labels,
    *,
    seed: int = 0,
    resamples: int = 400,
) -> Strengths:
    """Strengths of all methods, their ranks, and which cannot be told apart.

    Intervals are by bootstraps of whole raters, of whole clusters and of what is both, whose covariances are
    added, added and subtracted (as in `two_way`); no variance is less than independent votes would have. Two
    methods are told apart by their likelihood ratio over the variance's ratio to that of independent votes.

    Args:
        names: of the methods, K of them.
        first, second: methods compared by each vote, int [N].
        outcomes: 1 for the first, 0 for a tie, -1 for the second, int [N].
        raters, clusters: who voted, and the source video, [N].
        seed: of the draws; resamples: of each of the three bootstraps.
    """
    votes = np.bincount(np.concatenate([first, second]), minlength=len(names))
    shown = [k for k in range(len(names)) if votes[k]]
    nothing: dict[str, Strength | None] = dict.fromkeys(names)
    blank = dict.fromkeys(names, "")
    if len(shown) < 2 or not _connected(shown, first, second):
        why = "no votes" if len(shown) < 2 else "methods that were never compared, not even through others"
        return Strengths([], nothing, None, [], blank, len(outcomes), (0, 0), why)
    place = {k: n for n, k in enumerate(shown)}
    pairs, number, signed = _pairs(first, second, outcomes, place)
    rows, columns = cluster_numbers(raters), cluster_numbers(clusters)
    cells = cluster_numbers(rows * (int(columns.max()) + 1) + columns)
    table = np.zeros((len(outcomes), len(pairs), 3))
    table[np.arange(len(outcomes)), number, 1 - signed] = 1.0
    full = fit(table.sum(0)[None], pairs, len(shown))
    strengths, nu, independent = full.strengths[0], full.log_tie[0], full.covariance[0]
    counts = (int(rows.max()) + 1, int(columns.max()) + 1)
    covariance, why = None, ""
    if min(counts) < MIN_CLUSTERS:
        why = f"no intervals: fewer than {MIN_CLUSTERS} raters or source videos"
    else:
        flat = table.reshape(len(table), -1)
        random = np.random.default_rng(seed)
        ways = [_bootstrap(flat, by, pairs, len(shown), random, resamples) for by in (rows, columns, cells)]
        covariance = (ways, independent)
    gaps, errors, effects = _gaps(strengths, covariance)
    freedom = min(counts) - 1
    order = sorted(range(len(shown)), key=lambda k: -strengths[k])
    tested = list(itertools.combinations(order, 2))
    held = fit(np.repeat(table.sum(0)[None], len(tested), 0), pairs, len(shown), equal=np.array(tested))
    listed = []
    for (a, b), likelihood in zip(tested, held.likelihood, strict=True):
        low, high = _ends(gaps[a, b], errors[a, b], freedom)
        p = _p(float(full.likelihood[0] - likelihood), effects[a, b], freedom)
        listed.append((a, b, float(gaps[a, b]), low, high, p))
    corrected = holm([p for *_, p in listed])
    apart = {(a, b) for (a, b, *_), p in zip(listed, corrected, strict=True) if p is not None and p <= ALPHA}
    named = {k: names[shown[k]] for k in order}
    ranked = [named[k] for k in order]
    methods = dict(nothing)
    for rank, k in enumerate(order, 1):
        low, high = _ends(strengths[k], errors[k, k], freedom)
        better, worse = (sum(pair[side] == k for pair in apart) for side in (1, 0))
        methods[named[k]] = Strength(
            float(strengths[k]),
            low,
            high,
            _chance(strengths[k]),
            None if low is None else _chance(low),
            None if high is None else _chance(high),
            rank,
            None if covariance is None else 1 + better,
            None if covariance is None else len(order) - worse,
            int(votes[shown[k]]),
        )
    made = [
        Gap(named[a], named[b], gap, low, high, p, q)
        for (a, b, gap, low, high, p), q in zip(listed, corrected, strict=True)
    ]
    groups = letters(ranked, {(named[a], named[b]) for a, b in apart}) if covariance is not None else {}
    tie = float(np.exp(nu) / (2 + np.exp(nu)))
    return Strengths(ranked, methods, tie, made, blank | groups, len(outcomes), counts, why)


def _connected(shown: list[int], first: np.ndarray, second: np.ndarray) -> bool:
    """Whether every method can be reached from every other one through comparisons."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = max(shown) + 1
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(size, size))
    labels = connected_components(graph, directed=False)[1]
    return len({labels[k] for k in shown}) == 1


def _pairs(
    first: np.ndarray, second: np.ndarray, outcomes: np.ndarray, place: dict[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs that were compared, int [P, 2]; each vote's pair, and its outcome for that pair's first, [N]."""
    a, b = (np.array([place[int(k)] for k in of], dtype=int) for of in (first, second))
    low, high = np.minimum(a, b), np.maximum(a, b)
    pairs, number = np.unique(np.stack([low, high], 1), axis=0, return_inverse=True)
    return pairs, number.reshape(-1), np.where(a < b, outcomes, -np.asarray(outcomes)).astype(int)


def _bootstrap(
    flat: np.ndarray,
    group: np.ndarray,
    pairs: np.ndarray,
    methods: int,
    random: np.random.Generator,
    resamples: int,
) -> np.ndarray:
    """Covariance of strengths with whole clusters drawn, times C / (C - 1), [K, K]."""
    count = int(group.max()) + 1
    sums = np.zeros((count, flat.shape[1]))
    np.add.at(sums, group, flat)
    weights = random.multinomial(count, np.full(count, 1 / count), resamples)
    counts = (weights @ sums).reshape(resamples, len(pairs), 3)
    drawn = fit(counts, pairs, methods).strengths
    covariance: np.ndarray = np.cov(drawn.T) * count / (count - 1)
    return covariance


def _gaps(
    strengths: np.ndarray, covariance: tuple[list[np.ndarray], np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differences of strengths, their standard errors and design effects, [K, K].

    On the diagonal the errors are those of the strengths.
    """
    gaps = strengths[:, None] - strengths[None, :]
    if covariance is None:
        return gaps, np.full_like(gaps, np.nan), np.full_like(gaps, np.nan)

    def variances(of: np.ndarray) -> np.ndarray:
        own = np.diag(of)
        made: np.ndarray = own[:, None] + own[None, :] - 2 * of
        np.fill_diagonal(made, own)
        return made

    raters, clusters, cells = (variances(of) for of in covariance[0])
    independent = variances(_centred(covariance[1]))
    least = np.maximum(np.maximum(raters, clusters), independent)
    variance = np.maximum(raters + clusters - cells, least)
    return gaps, np.sqrt(variance), variance / independent


def _centred(covariance: np.ndarray) -> np.ndarray:
    """Of strengths less their mean, which the ridge alone determines."""
    centre = np.eye(len(covariance)) - 1 / len(covariance)
    made: np.ndarray = centre @ covariance @ centre
    return made


def _ends(value: float, error: float, freedom: int) -> tuple[float | None, float | None]:
    """A 95 % interval by t; None without an error."""
    from scipy.special import stdtrit

    if not math.isfinite(error):
        return None, None
    reach = float(stdtrit(freedom, 0.975)) * float(error)
    return float(value) - reach, float(value) + reach


def _p(gain: float, effect: float, freedom: int) -> float | None:
    """Two-sided, from what a difference gains in log-likelihood and its design effect (Rao and Scott 1984).

    The difference over its standard error would not do: where a method won everything, both grow alike.
    """
    from scipy.special import stdtr

    if not math.isfinite(effect):
        return None
    return 2 * float(stdtr(freedom, -math.sqrt(2 * max(gain, 0.0) / effect)))


def _chance(log_odds: float) -> float:
    return float(1 / (1 + np.exp(-log_odds)))
