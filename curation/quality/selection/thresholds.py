"""Thresholds of scores from labelled samples, so that rules lose few clean samples and catch many bad ones.

Rules are added one at a time (`_grow`): of all scores and thresholds the one that catches the most bad
samples for the clean ones that it loses, as long as it catches more than a score without any meaning would by
chance (a hypergeometric test, Bonferroni over the scores). A threshold at the worst clean value of n labelled
ones would lose 1 of n + 1 new ones, and every rule as many. So each is set where the tail of the clean
values, taken as exponential below their lowest quarter, holds a rule's part of what may be lost (`_between`);
how much that is, cross-validation says: the most with which the clean share that is wanted is kept.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.quality.selection.rules import Rule

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
# times a rule's part of the clean samples that may be lost, as its tail is to hold; tried in this order
LOSSES = (2.0, 1.0, 0.5, 0.25, 0.1, 0.03, 0.01)
LEAST_OF_TASK = 5  # clean samples of a task that say where its values lie
TAIL = 0.25  # of the clean samples, whose values say how the tail falls
LEVELS = (0.99, 0.97, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)  # clean shares that are tried for a precision
FOLDS, REPEATS = 5, 3  # of the cross-validation that sets the loss
CHANCE = 0.05  # how often a score without meaning may enter the rules, all of them together
MOST_STEPS = 24


@dataclass(frozen=True)
class Signals:
    """Scores turned so that higher is better; one that is better in the middle is there both ways.

    Attributes:
        names: of the scores, by row. signs: +1 as it is stored (a rule has a min), -1 turned (a max).
        values: float64 [signals, samples]; +inf where the score is null, which no rule catches.
    """

    names: tuple[str, ...]
    signs: tuple[int, ...]
    values: Floats

    @staticmethod
    def of(columns: Mapping[str, NDArray[np.floating]], better: Mapping[str, str]) -> Signals:
        """Those of some scores [samples], NaN for null; `better` is of `shards.scores.About`."""
        turned = [
            (name, sign)
            for name in columns
            for sign in {"higher": (1,), "lower": (-1,), "neither": (1, -1)}[better[name]]
        ]
        count = len(next(iter(columns.values()))) if columns else 0
        values = np.array([sign * np.asarray(columns[name], np.float64) for name, sign in turned])
        values = values.reshape(len(turned), count)
        return Signals(
            tuple(name for name, _ in turned),
            tuple(sign for _, sign in turned),
            np.where(np.isnan(values), np.inf, values),
        )

    def rules(self, thresholds: Floats) -> dict[str, Rule]:
        """Rules by score of thresholds [signals]; -inf is none."""
        bounds: dict[str, dict[str, Any]] = {}
        for name, sign, threshold in zip(self.names, self.signs, thresholds.tolist(), strict=True):
            if np.isfinite(threshold):
                bounds.setdefault(name, {})["min" if sign > 0 else "max"] = float(f"{sign * threshold:.6g}")
        return {
            name: Rule(**some)
            for name, some in bounds.items()
            if some.get("min", -np.inf) <= some.get("max", np.inf)
        }


@dataclass(frozen=True)
class Scales:
    """Where the clean samples of each task lie, so that tasks are compared by how unusual a value is in them.

    Attributes:
        centres, spreads: float64 [signals] by task: median of the clean samples, and how far those below it
            lie from it on average. "" is of all tasks, for one of which too few are labelled.
    """

    centres: dict[str, Floats]
    spreads: dict[str, Floats]

    @staticmethod
    def of(values: Floats, clean: Bools, tasks: NDArray[np.str_]) -> Scales:
        """Those of labelled samples; tasks is str [samples]."""
        centres, spreads = {"": np.zeros(len(values))}, {"": np.ones(len(values))}
        for task in ["", *np.unique(tasks).tolist()]:
            centres[task], spreads[task] = centres[""].copy(), spreads[""].copy()
            for row, some in enumerate(values[:, clean & ((tasks == task) | (task == ""))]):
                measured = some[np.isfinite(some)]
                if len(measured) >= LEAST_OF_TASK:
                    middle = float(np.median(measured))
                    below = float((middle - measured[measured <= middle]).mean())
                    centres[task][row] = middle
                    spreads[task][row] = below or float(np.abs(measured - middle).mean()) or 1.0
        return Scales(centres, spreads)

    def apply(self, values: Floats, tasks: NDArray[np.str_]) -> Floats:
        """Values [signals, samples] in spreads from the centre of their task."""
        turned = values.copy()
        for task in np.unique(tasks).tolist():
            known, here = task if task in self.centres else "", tasks == task
            turned[:, here] = (values[:, here] - self.centres[known][:, None]) / self.spreads[known][:, None]
        return turned

    def undo(self, thresholds: Floats, task: str) -> Floats:
        """Thresholds [signals] in the scores' own units, for a task."""
        return thresholds * self.spreads[task] + self.centres[task]


def passing(values: Floats, thresholds: Floats) -> Bools:
    """Which samples pass thresholds [signals]; bool [samples]."""
    passed: Bools = np.all(values > thresholds[:, None], axis=0)
    return passed


@dataclass(frozen=True)
class Fit:
    """Thresholds [signals], and the one of `LOSSES` with which they were set."""

    thresholds: Floats
    loss: float


def fit_keeping(values: Floats, clean: Bools, share: float, tests: int | None = None) -> Fit:
    """Thresholds that keep a share of the clean samples and catch as many of the others as they can.

    Args:
        values: float64 [signals, samples], higher is better. clean: bool [samples].
        share: of new clean samples that are to pass, from 0 to 1, as cross-validation estimates it.
        tests: scores among which these were chosen, for the test against chance; as many as signals if None.
    """
    tests = tests or max(1, len(values))
    # cross-validation is no surer than the number of clean samples lets it be
    least = share - 0.5 * np.sqrt(share * (1 - share) / max(1, clean.sum()))
    for loss in LOSSES:
        kept: list[float] = []
        for seed in range(REPEATS):
            for train, test in folds(clean, seed):
                passed = passing(values[:, test], _grow(values[:, train], clean[train], share, loss, tests))
                kept += passed[clean[test]].tolist()
        if np.mean(kept) >= least:
            break
    return Fit(_grow(values, clean, share, loss, tests), loss)


def fit_precise(values: Floats, clean: Bools, precision: float) -> Fit:
    """Thresholds that keep as many clean samples as they can while so many of the kept ones are clean.

    Where no thresholds reach the precision in cross-validation, those that come closest.
    """
    tests = max(1, len(values))

    def at(level: float, values: Floats, clean: Bools) -> Fit:
        return Fit(_grow(values, clean, level, 1.0, tests), 1.0)

    best, reached = 1.0, -1.0
    for level in LEVELS:
        kept = cross_validated(values, clean, np.full(len(clean), ""), functools.partial(at, level))
        precise = float(clean[kept].mean()) if kept.any() else 0.0
        if precise > reached:
            best, reached = level, precise
        if precise >= precision:
            break
    return at(best, values, clean)


def cross_validated(
    values: Floats, clean: Bools, tasks: NDArray[np.str_], fit: Callable[[Floats, Bools], Fit]
) -> Bools:
    """Which samples pass thresholds, and scales of tasks, that were made without them; bool [samples]."""
    kept = np.ones(len(clean), bool)
    for train, test in folds(clean):
        scales = Scales.of(values[:, train], clean[train], tasks[train])
        thresholds = fit(scales.apply(values[:, train], tasks[train]), clean[train]).thresholds
        kept[test] = passing(scales.apply(values[:, test], tasks[test]), thresholds)
    return kept


def folds(clean: Bools, seed: int = 99) -> Iterator[tuple[Bools, Bools]]:
    """Parts to fit on and to look at, each sample in one of the latter, with equal shares of clean ones."""
    rng = np.random.default_rng(seed)
    part = np.zeros(len(clean), int)
    for which in (clean, ~clean):
        part[which] = rng.permutation(np.arange(which.sum()) % FOLDS)
    for number in range(FOLDS):
        test = part == number
        if test.any() and clean[~test].any():
            yield ~test, test


def _grow(values: Floats, clean: Bools, share: float, loss: float, tests: int) -> Floats:
    """Add rules while they catch more than chance and the clean samples that are lost stay in the budget."""
    signals = len(values)
    thresholds = np.full(signals, -np.inf)
    budget = int(np.floor((1 - share) * clean.sum() + 1e-9))
    order = np.argsort(values, axis=1, kind="stable")
    ranked = np.take_along_axis(values, order, axis=1)
    # a threshold lies between two different values: equal ones pass or fail together
    ends = np.zeros(ranked.shape, bool)
    ends[:, :-1] = (ranked[:, :-1] < ranked[:, 1:]) & np.isfinite(ranked[:, :-1])
    dropped = np.zeros(len(clean), bool)
    for _ in range(MOST_STEPS):
        gains = np.cumsum((~clean & ~dropped)[order], axis=1)
        losses = np.cumsum((clean & ~dropped)[order], axis=1)
        left = budget - int((clean & dropped).sum())
        worth = np.where(ends & (losses <= left) & (gains > 0), gains / (losses + 1), 0.0)
        best = worth.argmax(axis=1)
        rows = np.arange(signals)
        measured = np.isfinite(values) & ~dropped
        here = (gains[rows, best], losses[rows, best], (measured & ~clean).sum(1), (measured & clean).sum(1))
        usable = (worth[rows, best] > 0) & (_by_chance(*here) <= CHANCE / tests)
        if not usable.any():
            break
        row = int(np.where(usable, worth[rows, best], -1).argmax())
        thresholds[row] = ranked[row, best[row]]
        dropped |= values[row] <= thresholds[row]
    rows = np.flatnonzero(np.isfinite(thresholds))
    for row in rows.tolist():
        part = loss * (1 - share) / len(rows)
        thresholds[row] = _between(values[row], clean & ~dropped, float(thresholds[row]), part)
    return thresholds


def _by_chance(gains: Ints, losses: Ints, bad: Ints, clean: Ints) -> Floats:
    """How often a score without meaning catches so many bad samples before it loses one clean one more.

    Of all orders of `bad` and `clean` samples, the share in which at most `losses` clean ones are among the
    first `gains + losses`: a sum of the hypergeometric distribution. All are [signals].
    """
    from scipy.special import gammaln

    def choices(total: Ints, some: Ints) -> Floats:
        """Logarithm of the binomial coefficient, -inf where there is none."""
        valid = (some >= 0) & (some <= total)
        part = np.where(valid, some, 0)
        logs = gammaln(total + 1) - gammaln(part + 1) - gammaln(total - part + 1)
        return np.where(valid, logs, -np.inf)

    drawn = gains + losses
    lost = np.arange(int(losses.max(initial=0)) + 1)[:, None]  # [clean ones among the first, signals]
    with np.errstate(invalid="ignore"):  # more drawn than there are: NaN, which is no small chance
        logs = choices(clean, lost) + choices(bad, drawn - lost) - choices(bad + clean, drawn)
    return np.where(lost <= losses, np.exp(logs), 0.0).sum(axis=0)


def _between(values: Floats, kept: Bools, worst: float, part: float) -> float:
    """Half way from the best value that a rule catches to the worst clean one; lower, where the tail of the
    clean values would lose more than `part` of them.
    """
    clean = np.sort(values[kept & np.isfinite(values)])
    if not len(clean):
        return worst
    begin = float(np.quantile(clean, TAIL))
    tail = clean[clean <= begin]
    quantile = begin - float((begin - tail).mean()) * np.log(max(1.0, TAIL / part))
    return min((worst + float(clean[0])) / 2, quantile)
