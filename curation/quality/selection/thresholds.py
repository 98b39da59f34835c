"""Thresholds of scores from labelled samples, so that rules lose few clean samples and catch many bad ones.

Rules are found for each reason of the labels at a price (`pricing.rules_at`): how much of a reason's samples
must be caught for the clean ones that are lost. The price is chosen by cross-validation over scenes: of those
with which as much is kept as is wanted, the one that catches most. Of several tasks a rule may compare values
as they are, or by how unusual they are in their task.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.quality.selection.pricing import rules_at
from curation.quality.selection.rules import Rule

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Strings = NDArray[np.str_]
PRICES = (40.0, 20.0, 12.0, 8.0, 6.0, 4.0, 2.0, 1.0, 0.5)  # in this order, see `fit_keeping`
LEAST_OF_TASK = 5  # clean samples of a task that say where its values lie
LEAST_OF_REASON = 5  # bad samples of a reason that has rules of its own
FOLDS, REPEATS = 5, 2  # of the cross-validation that chooses the price


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
            lie from it on average. "" is of all tasks, for one of which too few are labelled. No
            task's spread is less: a few values that lie close together make no others unusual.
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
                    spread = below or float(np.abs(measured - middle).mean()) or 1.0
                    spreads[task][row] = max(spread, spreads[""][row]) if task else spread
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


@dataclass(frozen=True)
class Cases:
    """What is known of labelled samples besides their scores.

    Attributes:
        clean: bool [samples]. reasons: bool [reasons, samples], against bad ones.
        tasks, scenes: str [samples]; samples of one scene are never on both sides of a cross-validation.
    """

    clean: Bools
    reasons: Bools
    tasks: Strings
    scenes: Strings

    @staticmethod
    def of(clean: Bools, reasons: list[frozenset[str]], tasks: Strings, scenes: Strings) -> Cases:
        """Of the reasons against each sample; rare ones, and bad samples without any, are one together."""
        named = sorted(set().union(*reasons))
        rows = [np.array([name in some for some in reasons]) & ~clean for name in named]
        rows = [row for row in rows if row.sum() >= LEAST_OF_REASON]
        rest = ~clean & ~np.any(rows, axis=0) if rows else ~clean
        return Cases(clean, np.array([*rows, rest] if rest.any() else rows), tasks, scenes)

    def some(self, which: Bools) -> Cases:
        """A part of them."""
        return Cases(self.clean[which], self.reasons[:, which], self.tasks[which], self.scenes[which])


@dataclass(frozen=True)
class Fit:
    """Thresholds [signals] of scores as they are, those of them in spreads of their task, and the price.

    -inf is no threshold.
    """

    plain: Floats
    unusual: Floats
    scales: Scales
    price: float

    def passing(self, values: Floats, tasks: Strings) -> Bools:
        """Which samples pass; bool [samples] of values [signals, samples]."""
        unusual = self.scales.apply(values, tasks) <= self.unusual[:, None]
        passed: Bools = ~np.any((values <= self.plain[:, None]) | unusual, axis=0)
        return passed

    def of_task(self, task: str) -> Floats:
        """Thresholds [signals] for a task, in the scores' own units."""
        return np.maximum(self.plain, self.scales.undo(self.unusual, task))


Fitting = Callable[[Floats, Cases], Fit]


def fit_at(values: Floats, cases: Cases, price: float, tests: int | None = None) -> Fit:
    """Thresholds at a price.

    Args:
        values: float64 [signals, samples], higher is better. tests: see `pricing.rules_at`.
    """
    scales = Scales.of(values, cases.clean, cases.tasks)
    count, ways = len(values), [values]
    if len(np.unique(cases.tasks)) > 1:
        ways.append(scales.apply(values, cases.tasks))
    tests = (tests or count) * len(ways)
    found = rules_at(np.concatenate(ways), cases.clean, cases.reasons, price, tests)
    plain, unusual = found[:count], found[count:] if len(ways) > 1 else np.full(count, -np.inf)
    return Fit(plain, unusual, scales, price)


def fit_keeping(values: Floats, cases: Cases, share: float) -> Fit:
    """Thresholds of the price that catches most, of those down to which so many new clean samples are kept.

    Of prices that catch as many of each reason, on average over reasons, it is the highest.

    Args:
        values, cases: see `fit_at`. share: from 0 to 1. Cross-validation is no surer than the number of
            clean samples lets it be: half of its standard error is allowed for.
    """
    least = share - 0.5 * np.sqrt(share * (1 - share) / max(1, cases.clean.sum()))
    best, most = PRICES[0], -1.0
    for price in PRICES:
        recall, _, caught = _expected(values, cases, price)
        if recall < least:
            break
        if caught > most:
            best, most = price, caught
    return fit_at(values, cases, best)


def fit_precise(values: Floats, cases: Cases, precision: float) -> Fit:
    """Thresholds of the highest price with which so many of the new samples that are kept are clean.

    Where no price reaches that in cross-validation, of the one that comes closest.
    """
    best, reached = PRICES[0], -1.0
    for price in PRICES:
        _, found, _ = _expected(values, cases, price)
        if found > reached:
            best, reached = price, found
        if found >= precision:
            break
    return fit_at(values, cases, best)


def _expected(values: Floats, cases: Cases, price: float) -> tuple[float, float, float]:
    """Shares in other scenes: of the clean samples kept, of the kept clean, and of each reason's dropped."""
    found = []
    for seed in range(REPEATS):
        kept = cross_validated(values, cases, functools.partial(fit_at, price=price), seed)
        caught = np.mean([(~kept[reason]).mean() for reason in cases.reasons])
        found.append((kept[cases.clean].mean(), cases.clean[kept].mean() if kept.any() else 0.0, caught))
    recall, precision, caught = np.mean(found, axis=0).tolist()
    return recall, precision, caught


def cross_validated(values: Floats, cases: Cases, fit: Fitting, seed: int = 99) -> Bools:
    """Which samples pass thresholds that were made without them and their scenes; bool [samples]."""
    kept = np.ones(len(cases.clean), bool)
    for train, test in folds(cases, seed):
        kept[test] = fit(values[:, train], cases.some(train)).passing(values[:, test], cases.tasks[test])
    return kept


def folds(cases: Cases, seed: int) -> Iterator[tuple[Bools, Bools]]:
    """Parts to fit on and to look at, without a common scene; each sample is in one of the latter.

    Of fewer scenes than `FOLDS`, parts without a common sample.
    """
    scenes, inverse = np.unique(cases.scenes, return_inverse=True)
    if len(scenes) < FOLDS:
        inverse = np.arange(len(cases.scenes))
    sizes = np.stack([np.bincount(inverse, weights=which) for which in (cases.clean, ~cases.clean)], axis=1)
    filled, part = np.zeros((FOLDS, 2)), np.zeros(len(sizes), int)
    for scene in np.random.default_rng(seed).permutation(len(sizes)).tolist():
        kind = 0 if sizes[scene, 0] else 1  # clean ones, and bad ones, are to be as many in each part
        part[scene] = filled[:, kind].argmin()
        filled[part[scene]] += sizes[scene]
    for number in range(FOLDS):
        test = part[inverse] == number
        if test.any() and cases.clean[~test].any():
            yield ~test, test
