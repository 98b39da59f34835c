"""Means and intervals: failures are counted, clusters are drawn whole, coverage is as promised.

The coverage simulation has a fixed seed.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.statistics.intervals import MIN_CLUSTERS, choose_clusters, mean_interval


@given(
    values=st.lists(st.one_of(st.none(), st.floats(-50, 50)), min_size=1, max_size=30),
    labels=st.integers(1, 9),
)
@settings(max_examples=60, deadline=None)
def test_the_mean_is_over_what_was_scored_and_lies_in_its_interval(
    values: list[float | None], labels: int
) -> None:
    clusters = [str(n % labels) for n in range(len(values))]
    mean = mean_interval(values, clusters, resamples=400)
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
        assert mean.low <= mean.high
        assert min(scored) - 1e-9 <= mean.low
        assert mean.high <= max(scored) + 1e-9


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
    draws = rng.integers(0, len(groups), (2000, len(groups)))
    means = [np.concatenate([groups[n] for n in draw]).mean() for draw in draws]
    assert mean.low == pytest.approx(np.quantile(means, 0.02), abs=0.05)
    assert mean.high == pytest.approx(np.quantile(means, 0.98), abs=0.05)


@pytest.mark.parametrize(
    ("kind", "clusters"),
    [("graded", 20), ("hit or miss", 20), ("graded", 100), ("hit or miss", 100), ("skewed", 100)],
)
def test_coverage_is_nominal_with_clustered_scores(kind: str, clusters: int) -> None:
    """Clips with one to three edits each, as EditVerseBench has a hundred of.

    Skewed scores of 20 clips are not among them: there it is 92.8 %, as docs/benchmark.md says.
    """
    rng, hits, runs = np.random.default_rng(7), 0, 1000
    for run in range(runs):
        sizes = rng.integers(1, 4, clusters)
        labels = [str(n) for n in np.repeat(np.arange(clusters), sizes)]
        if kind == "graded":
            own, truth = rng.normal(0, 1, clusters), 0.0
        elif kind == "hit or miss":
            own, truth = rng.beta(2, 2, clusters), 0.5
        else:
            own, truth = rng.gamma(4, 0.5, clusters) - 2, 0.0
        scores = np.repeat(own, sizes)
        scores = (
            rng.random(len(scores)) < scores
            if kind == "hit or miss"
            else scores + rng.normal(0, 0.5, len(scores))
        )
        mean = mean_interval(scores.astype(float).tolist(), labels, resamples=1000, seed=run)
        assert mean.low is not None
        assert mean.high is not None
        hits += mean.low <= truth <= mean.high
    print(f"coverage {kind}, {clusters} clusters: {hits / runs:.3f}")
    assert 0.93 <= hits / runs <= 0.97


def test_clusters_are_clips_when_there_are_enough_of_them() -> None:
    pairs = [str(n) for n in range(MIN_CLUSTERS)]
    assert choose_clusters([f"clip{n}" for n in range(MIN_CLUSTERS)], pairs)[0] == "source clip"
    assert choose_clusters(["one"] * MIN_CLUSTERS, pairs) == ("edit pair", pairs)
