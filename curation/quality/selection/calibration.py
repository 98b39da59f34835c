"""Proposes the rules of a filter from labelled samples and their stored scores, and says how good they are.

What is said of the rules is estimated by cross-validation: on samples of scenes that had no part in them.
Intervals are Wilson's, of 95 %.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from curation.quality.selection.attributes import Attributes
from curation.quality.selection.labels import LabelError, LabelSet, read_labels
from curation.quality.selection.rules import Rules, judge
from curation.quality.selection.thresholds import (
    Cases,
    Fit,
    Fitting,
    Signals,
    cross_validated,
    fit_at,
    fit_keeping,
    fit_precise,
)
from shards.errors import SettingError
from shards.reader import ShardSet
from shards.sample import Sample, Strict
from shards.scores import SAMPLE_NUMBER, open_scores

LEAST = 10  # labelled samples to keep, and as many to drop
Bools = NDArray[np.bool_]


class Estimate(Strict):
    """A share of some samples, and its interval of 95 % (Wilson); None where there is no sample."""

    hits: int
    samples: int
    share: float | None
    low: float | None
    high: float | None

    @staticmethod
    def of(hits: Bools) -> Estimate:
        """Of one bool a sample."""
        from scipy.stats import binomtest

        if not len(hits):
            return Estimate(hits=0, samples=0, share=None, low=None, high=None)
        found = binomtest(int(hits.sum()), len(hits)).proportion_ci(0.95, method="wilson")
        return Estimate(
            hits=int(hits.sum()),
            samples=len(hits),
            share=float(hits.mean()),
            low=float(found.low),
            high=float(found.high),
        )

    def words(self) -> str:
        """`97 % (91-99)`, or a dash."""
        if self.share is None or self.low is None or self.high is None:
            return "-"
        return f"{100 * self.share:.0f} % ({100 * self.low:.0f}-{100 * self.high:.0f})"


class Outcome(Strict):
    """What rules do to labelled samples that had no part in them.

    Attributes:
        precision: clean ones among the kept. recall: kept ones among the clean.
        caught: dropped ones among the bad.
    """

    precision: Estimate
    recall: Estimate
    caught: Estimate

    @staticmethod
    def of(kept: Bools, clean: Bools) -> Outcome:
        """Of one bool a sample each."""
        return Outcome(
            precision=Estimate.of(clean[kept]),
            recall=Estimate.of(kept[clean]),
            caught=Estimate.of(~kept[~clean]),
        )


class SignalReport(Strict):
    """One score by itself.

    Attributes:
        samples: labelled ones of which it is not null.
        auc: how often a clean sample has the better value than a bad one, 0.5 by chance; for a score that is
            better in the middle, the higher value. None where one of the two kinds is missing.
            Of several tasks, values are compared with those of the task's clean samples.
        rules: by itself, at the price of the proposed rules; none where it does not tell them apart.
        outcome: of the rules by themselves. retained: share of the whole folder that they keep.
        chosen: whether the proposed rules have it.
    """

    samples: int
    auc: float | None
    rules: Rules
    outcome: Outcome | None
    retained: float | None
    chosen: bool


class Calibration(Strict):
    """All that a calibration found.

    Attributes:
        labelled: counts of labelled samples, by what became of them. faults: of lines that are no label.
        agreement: of every two people (`labels.Agreement`).
        target: what was asked for, in words. outcome: of the proposed rules.
        reached: unless its interval lies below what was asked for.
        price: of the rules, see `pricing.rules_at`. scenes: of the labelled samples.
        unfiltered: tasks without rules, as none of their samples is labelled.
        caught_by_reason: by reason of the labels. retained: share of the whole folder that the rules keep.
    """

    source: str
    target: str
    reached: bool
    labelled: dict[str, int]
    faults: dict[str, int]
    agreement: list[dict[str, Any]]
    rules: Rules
    price: float
    scenes: int
    unfiltered: list[str]
    outcome: Outcome
    retained: float
    caught_by_reason: dict[str, Estimate] = Field(default_factory=dict)
    signals: dict[str, SignalReport] = Field(default_factory=dict)


@dataclass(frozen=True)
class Labelled:
    """The labelled samples of a calibration, for its plot: bool [samples], and float32 [samples] by score."""

    clean: Bools
    values: dict[str, NDArray[np.float32]]


def calibrate(
    directory: str | Path,
    labels: str | Path | LabelSet,
    precision: float | None = None,
    keep_clean: float | None = None,
    scores: Sequence[str] = (),
) -> tuple[Calibration, Labelled]:
    """Propose rules from labels and stored scores.

    Args:
        directory: a shard folder or URL. labels: a file of them, see `curation.quality.selection.labels`.
        precision: share of clean samples among the kept that is wanted, with as many kept as can be.
        keep_clean: share of the clean samples that is to be kept, with as many others dropped as can be;
            0.95 where neither is given.
        scores: those that may be used; all that are stored, and the samples' own, where none is named.

    Raises:
        SettingError: both targets are given, or one is no share.
        LabelError: too few of the samples are labelled to be kept, or to be dropped.
        ShardError: the folder cannot be read, or a named score is not stored.
    """
    if precision is not None and keep_clean is not None:
        raise SettingError("--precision and --keep_clean: choose one of the two")
    wanted = precision if precision is not None else 0.95 if keep_clean is None else keep_clean
    if not 0.5 <= wanted < 1:
        name = "precision" if precision is not None else "keep_clean"
        raise SettingError(f"--{name} {wanted:g}: a share from 0.5 to below 1")
    samples, stored = ShardSet(directory), open_scores(directory)
    read = labels if isinstance(labels, LabelSet) else read_labels(labels)
    places, clean, reasons, counts = _labelled(samples, read)
    measures = [name for name in stored.names if stored.about(name).unit != SAMPLE_NUMBER]
    columns = {name: stored.column(name) for name in (scores or measures)}
    better = {name: stored.about(name).better for name in columns}
    values = {name: np.asarray(column[places]) for name, column in columns.items()}
    signals = Signals.of(values, better)
    fit: Fitting = functools.partial(fit_keeping, share=wanted)
    if precision is not None:
        fit = functools.partial(fit_precise, precision=precision)
    tasks = Attributes.of(samples).tasks
    scenes = np.array([scene_of(samples.sample(number)) for number in places.tolist()])
    cases = Cases.of(clean, reasons, tasks[places], scenes)
    best = fit(signals.values, cases)
    kept = cross_validated(signals.values, cases, fit)
    rules = _rules_of(signals, best, tasks, cases.tasks)
    outcome = Outcome.of(kept, clean)
    reached = outcome.recall if precision is None else outcome.precision
    calibration = Calibration(
        source=str(directory),
        target=f"{100 * wanted:g} % {'of the clean kept' if precision is None else 'of the kept clean'}",
        reached=reached.high is not None and reached.high >= wanted,
        labelled=counts,
        faults=dict(read.faults),
        agreement=[asdict(one) for one in read.agreement()],
        rules=rules,
        price=best.price,
        scenes=len(np.unique(scenes)),
        unfiltered=sorted({*tasks.tolist()} - {*cases.tasks.tolist()}),
        outcome=outcome,
        retained=float(judge(rules, tasks, columns).kept.mean()),
        caught_by_reason={
            reason: Estimate.of(~kept[[reason in some for some in reasons]])
            for reason in sorted(set().union(*reasons))
        },
        signals=_each(signals, cases, columns, tasks, best, rules),
    )
    return calibration, Labelled(clean, values)


def _labelled(
    samples: ShardSet, labels: LabelSet
) -> tuple[NDArray[np.int64], Bools, list[frozenset[str]], dict[str, int]]:
    """Numbers of the labelled samples, whether they are clean, reasons against them; and counts."""
    keep, reasons, disputed = labels.decided()
    place = {key: number for number, key in enumerate(samples.keys)}
    known = [key for key in keep if key in place]
    clean = np.array([keep[key] for key in known], bool)
    counts = {
        "used": len(known),
        "clean": int(clean.sum()),
        "bad": int((~clean).sum()),
        "disputed": len(disputed),
        "unknown keys": len(keep) - len(known),
        "people": len(labels.people),
    }
    if min(counts["clean"], counts["bad"]) < LEAST:
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if name != "used")
        raise LabelError(f"needs {LEAST} clean and {LEAST} bad samples, labelled are: {told}; label more")
    numbers = np.array([place[key] for key in known], np.int64)
    return numbers, clean, [reasons[key] for key in known], counts


def scene_of(sample: Sample) -> str:
    """What a sample shows: its source clip, and where in it the sample begins."""
    clip = sample.provenance.clip
    return f"{clip.sha256} {clip.name} {clip.span[0]:.1f}"


def _rules_of(signals: Signals, fit: Fit, tasks: NDArray[np.str_], labelled: NDArray[np.str_]) -> Rules:
    """Rules in the scores' own units: by task, unless all tasks of the folder share them."""
    known = sorted({*labelled.tolist()})
    if {*tasks.tolist()} <= {*known} and (len(known) == 1 or not np.isfinite(fit.unusual).any()):
        return Rules(rules=signals.rules(fit.of_task(known[0])))
    return Rules(tasks={task: {**signals.rules(fit.of_task(task))} for task in known})


def _each(
    signals: Signals,
    cases: Cases,
    columns: Mapping[str, NDArray[np.float32]],
    tasks: NDArray[np.str_],
    best: Fit,
    rules: Rules,
) -> dict[str, SignalReport]:
    """Every score by itself."""
    reports = {}
    tests = max(1, len(signals.names))
    fit = functools.partial(fit_at, price=best.price, tests=tests)
    for name in columns:
        rows = [row for row, own in enumerate(signals.names) if own == name]
        values = signals.values[rows]
        alone = Signals(tuple(name for _ in rows), tuple(signals.signs[row] for row in rows), values)
        own_fit = fit(values, cases)
        own_rules = _rules_of(alone, own_fit, tasks, cases.tasks)
        outcome = retained = None
        if own_rules.scores:
            outcome = Outcome.of(cross_validated(values, cases, fit), cases.clean)
            retained = float(judge(own_rules, tasks, columns).kept.mean())
        measured = np.isfinite(values[0])
        turned = own_fit.scales.apply(values, cases.tasks)[0]
        reports[name] = SignalReport(
            samples=int(measured.sum()),
            auc=_auc(turned[measured], cases.clean[measured]),
            rules=own_rules,
            outcome=outcome,
            retained=retained,
            chosen=name in rules.scores,
        )
    return reports


def _auc(values: NDArray[np.float64], clean: Bools) -> float | None:
    from scipy.stats import mannwhitneyu

    if clean.all() or not clean.any():
        return None
    return float(mannwhitneyu(values[clean], values[~clean]).statistic / (clean.sum() * (~clean).sum()))
