"""Votes against any metric of a run: over comparisons, and over methods."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmark.analysis.compare import Items
from benchmark.core.item import BenchmarkError
from benchmark.core.score_cache import number_in
from benchmark.statistics.bradley_terry import Strengths
from benchmark.statistics.correlation import Correlation, correlation
from benchmark.votes.ballots import Ballots


@dataclass(frozen=True)
class MetricAgreement:
    """A metric against the votes by one criterion.

    Attributes:
        comparisons: the difference of two results' scores against the mean of the votes on them (1 for the
            first, 0 for a tie, -1 for the second). Which of two is the first is arbitrary, so that each
            comparison enters both ways round; `n` counts it once; intervals leave out whole source videos.
        systems: methods' mean scores against their strengths, over the items of the study for which all
            methods that the run has are scored; intervals take methods as independent.
        items: of the latter.
    """

    comparisons: Correlation
    systems: Correlation
    items: int


@dataclass(frozen=True)
class MetricReport:
    """All metrics of a run against all criteria.

    Attributes:
        methods: of the study that the run has as rows; missing_methods: that it does not have.
        items: of the study that the run has; missing_items: number of those that it does not have.
        lower_is_better: metrics whose scores were negated.
        agreements: by criterion and metric.
    """

    methods: list[str]
    missing_methods: list[str]
    items: int
    missing_items: int
    lower_is_better: list[str]
    agreements: dict[str, dict[str, MetricAgreement]]


def metric_report(
    votes: Ballots,
    strengths: Mapping[str, Strengths],
    items: Items,
    higher_is_better: Mapping[str, bool] | None = None,
) -> MetricReport:
    """Correlations of every metric with every criterion.

    Args:
        strengths: by criterion.
        items: a run's, as `benchmark.analysis.compare.read_items` has them; rows are named as methods.
        higher_is_better: by metric, where known; scores of the others count as higher is better.

    Raises:
        BenchmarkError: the run has none of the items, or fewer than two of the methods.
    """
    names = list(dict.fromkeys(str(item) for item in votes.items))
    there = [name for name in names if name in items]
    rows = {row for name in there for row in items[name]["scores"]}
    methods = [method for method in votes.methods if method in rows]
    if names and (not there or len(methods) < 2):
        what = "none of the study's items" if not there else "fewer than two of the study's methods as rows"
        had = ", ".join(list(items)[:3] if not there else sorted(rows)[:8])
        raise BenchmarkError(f"--run: it has {what}; it has {had or 'nothing'}")
    metrics = list(
        dict.fromkeys(m for i in there for row in methods for m in items[i]["scores"].get(row, ()))
    )
    lower = [metric for metric in metrics if not (higher_is_better or {}).get(metric, True)]
    scores: dict[str, dict[tuple[str, str], float]] = {}
    for metric in metrics:
        sign = -1 if metric in lower else 1
        scores[metric] = {
            (item, row): sign * value
            for item in there
            for row in methods
            if (value := _score(items[item]["scores"].get(row, {}).get(metric))) is not None
        }
    agreements = {
        criterion: {
            m: _agreement(votes, criterion, strengths[criterion], scores[m], methods) for m in metrics
        }
        for criterion in votes.criteria
    }
    missing = [method for method in votes.methods if method not in methods]
    return MetricReport(methods, missing, len(there), len(names) - len(there), lower, agreements)


def _score(value: Any) -> float | None:
    number = number_in(value)
    return number if number is not None and math.isfinite(number) else None


def _agreement(
    votes: Ballots,
    criterion: str,
    strengths: Strengths,
    scores: Mapping[tuple[str, str], float],
    methods: list[str],
) -> MetricAgreement:
    outcomes, units = votes.outcome(criterion), votes.units()
    means = np.bincount(units, outcomes) / np.maximum(np.bincount(units), 1)
    gaps, shares, clusters = [], [], []
    for vote in np.unique(units, return_index=True)[1]:
        item = str(votes.items[vote])
        pair = [scores.get((item, votes.methods[k])) for k in (votes.first[vote], votes.second[vote])]
        if pair[0] is not None and pair[1] is not None:
            gaps.append(pair[0] - pair[1])
            shares.append(float(means[units[vote]]))
            clusters.append(str(votes.clusters[vote]))
    both = correlation(
        [*gaps, *(-gap for gap in gaps)],
        [*shares, *(-share for share in shares)],
        [*clusters, *clusters],
        of_ranks=True,
    )
    by_item: dict[str, dict[str, float]] = defaultdict(dict)
    for (item, method), score in scores.items():
        by_item[item][method] = score
    common = [of for of in by_item.values() if len(of) == len(methods)]
    ranked = {m: s for m in methods if (s := strengths.methods.get(m)) is not None}
    systems = correlation(
        [float(np.mean([of[m] for of in common])) if common else None for m in ranked],
        [strength.log_odds for strength in ranked.values()],
        of_ranks=True,
    )
    return MetricAgreement(replace(both, n=len(gaps)), systems, len(common))
