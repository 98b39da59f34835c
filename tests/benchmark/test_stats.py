"""Means and intervals: failures are counted, clusters are drawn whole, coverage is as promised.

The coverage simulation has a fixed seed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.statistics.intervals import (
    MIN_CLUSTERS,
    choose_clusters,
    difference_interval,
    mean_interval,
)
from benchmark.statistics.rates import effective_items, wilson


@given(
    values=st.lists(st.one_of(st.none(), st.floats(-50, 50)), min_size=1, max_size=30),
    labels=st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_the_mean_is_over_what_was_scored_and_lies_in_its_interval(
    values: list[float | None], labels: int
) -> None:
    clusters = [str(n % labels) for n in range(len(values))]
    mean = mean_interval(values, clusters, bounds=(-50, 50), resamples=400)
    scored = [v for v in values if v is not None]
    assert (mean.scored, mean.failed) == (len(scored), len(values) - len(scored))
    if not scored:
        assert mean.value is None
        return
    assert mean.value == pytest.approx(np.mean(scored))
    if mean.clusters < MIN_CLUSTERS:
        assert mean.low is None
    else:
        assert mean.low is not None
        assert mean.high is not None
        assert -50 <= mean.low <= mean.value + 1e-9
        assert mean.value - 1e-9 <= mean.high <= 50


def test_an_infinite_score_makes_the_mean_infinite_without_an_interval() -> None:
    mean = mean_interval([30.0, math.inf, 31.0], ["a", "b", "c"])
    assert mean.value == math.inf
    assert (mean.low, mean.high) == (None, None)


def test_copies_of_an_item_in_its_cluster_do_not_narrow_the_interval() -> None:
    scores = list(np.random.default_rng(0).normal(size=12))
    labels = [str(n) for n in range(12)]
    once = mean_interval(scores, labels)
    thrice = mean_interval(scores * 3, labels * 3)
    assert (once.low, once.high) == pytest.approx((thrice.low, thrice.high))


def test_large_clusters_weigh_as_much_as_their_items() -> None:
    """The interval is that of the mean over items: whole clusters are drawn, then their items averaged."""
    rng = np.random.default_rng(3)
    groups = [1 + rng.normal(0, 0.1, 20) for _ in range(6)] + [rng.normal(0, 0.1, 1) for _ in range(12)]
    scores = np.concatenate(groups)
    labels = [str(n) for n, group in enumerate(groups) for _ in group]
    mean = mean_interval(scores.tolist(), labels)
    assert mean.low is not None
    assert mean.high is not None
    assert mean.value == pytest.approx(scores.mean())
    assert 0.6 < mean.low < mean.value < mean.high < 1.1  # the mean of the clusters' means is 0.33


@pytest.mark.parametrize(("kind", "clusters"), [("hit or miss", 100), ("skewed", 20)])
def test_coverage_is_nominal_with_clustered_scores(kind: str, clusters: int) -> None:
    """Clips with one to three edits each; the other kinds and sizes are in tests/perf/coverage.py."""
    rng, hits, runs = np.random.default_rng(7), 0, 600
    for run in range(runs):
        sizes = rng.integers(1, 4, clusters)
        labels = [str(n) for n in np.repeat(np.arange(clusters), sizes)]
        if kind == "hit or miss":
            own, truth = rng.beta(2, 2, clusters), 0.5
        else:
            own, truth = rng.gamma(4, 0.5, clusters) - 2, 0.0
        scores = np.repeat(own, sizes)
        scores = (
            rng.random(len(scores)) < scores
            if kind == "hit or miss"
            else scores + rng.normal(0, 0.5, len(scores))
        )
        bounds = (0, 1) if kind == "hit or miss" else None
        mean = mean_interval(scores.astype(float).tolist(), labels, bounds=bounds, resamples=600, seed=run)
        assert mean.low is not None
        assert mean.high is not None
        hits += mean.low <= truth <= mean.high
    assert 0.93 <= hits / runs <= 0.97


def test_clusters_are_clips_when_there_are_enough_of_them() -> None:
    pairs = [str(n) for n in range(MIN_CLUSTERS)]
    assert choose_clusters([f"clip{n}" for n in range(MIN_CLUSTERS)], pairs)[0] == "source clip"
    assert choose_clusters(["one"] * MIN_CLUSTERS, pairs) == ("edit pair", pairs)


def test_no_hit_and_equal_grades_leave_room() -> None:
    """0 of 20 says that at most 16 % are hits; six best grades do not say that all will be."""
    labels = [str(n) for n in range(20)]
    none = mean_interval([0.0] * 20, labels, bounds=(0, 1))
    assert (none.low, none.high) == (0.0, pytest.approx(0.161, abs=0.001))
    every = mean_interval([1.0] * 20, labels, bounds=(0, 1))
    assert (every.low, every.high) == (pytest.approx(0.839, abs=0.001), 1.0)
    grades = mean_interval([5.0] * 6, labels[:6], bounds=(1, 5))
    assert grades.high == 5
    assert grades.low == pytest.approx(5 - 4 * 0.390, abs=0.01)
    middle = mean_interval([7.0] * 6, labels[:6], bounds=(0, 9))
    assert middle.low == pytest.approx(7 - 7 * 0.390, abs=0.01)
    assert middle.high == pytest.approx(7 + 2 * 0.390, abs=0.01)
    assert mean_interval([7.0] * 6, labels[:6], bounds=(0, math.inf)).low is None
    same = difference_interval([0.0] * 20, labels, bounds=(0, 1))  # two systems that hit the same items
    assert (same.low, same.high) == (pytest.approx(-0.126, abs=0.001), pytest.approx(0.126, abs=0.001))


def test_a_mean_of_rare_scores_stays_in_its_range() -> None:
    """One item in twenty differs: most draws of a bootstrap do not vary, and the interval is still there."""
    labels = [str(n) for n in range(20)]
    mean = mean_interval([0.0] * 19 + [0.5], labels, bounds=(0, 1))
    assert mean.low is not None
    assert mean.high is not None
    assert 0 <= mean.low < 0.025 < mean.high < 0.3
    assert mean_interval([0.0] * 19 + [0.5], labels).low is None  # without a range it is not known


@pytest.mark.parametrize(
    ("p", "n", "lowest", "highest"),
    [
        (0.05, 100, 0.93, 0.97),
        (0.5, 20, 0.93, 0.97),
        (0.99, 200, 0.93, 0.97),
        (0.01, 20, 0.98, 0.99),
        (0.05, 20, 0.98, 0.99),
    ],
)
def test_the_interval_of_a_rate_covers_it(p: float, n: int, lowest: float, highest: float) -> None:
    """Exactly, over all outcomes; of 20 at 1 % no set of outcomes has 93 to 97 %: only 81.8, 98.3, 99.9 %."""
    from scipy.stats import binom

    outcomes = [wilson(float(k), float(n)) for k in range(n + 1)]
    covered = sum(binom.pmf(k, n, p) for k, (low, high) in enumerate(outcomes) if low <= p <= high)
    assert lowest <= covered <= highest


def test_wilson_is_scipys_where_hits_are_not_few() -> None:
    from scipy.stats import binomtest

    theirs = binomtest(9, 40).proportion_ci(method="wilson")
    assert wilson(9.0, 40.0) == pytest.approx((theirs.low, theirs.high))


def test_items_of_a_cluster_that_go_together_count_once() -> None:
    """Three wordings that are hit together tell no more than one; ones that are not count in full."""
    hits = np.random.default_rng(0).random(40) < 0.5
    together = effective_items(3.0 * hits, np.full(40, 3))
    assert together == pytest.approx(40, rel=0.05)
    alone = effective_items(np.random.default_rng(1).binomial(3, 0.5, 400).astype(float), np.full(400, 3))
    assert alone > 1000
    assert effective_items(np.zeros(40), np.full(40, 3)) == 40  # nothing to see it by
    assert effective_items(np.ones(1), np.ones(1, int)) == 1
