"""Paired comparison: the test rejects as often as it says, and sees what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmark.analysis.compare import (
    EXACT,
    compare,
    correlation,
    correlations,
    difference,
    read_items,
    sign_flip_p,
)
from benchmark.core.item import BenchmarkError


@pytest.mark.parametrize("clusters", [10, 30])
def test_p_is_uniform_where_nothing_differs(clusters: int) -> None:
    """Also with items of a cluster that go together; 10 clusters are enumerated, 30 drawn."""
    random = np.random.default_rng(clusters)
    labels = [str(n // 3) for n in range(3 * clusters)]
    ps = []
    for _ in range(400):
        base = random.normal(size=3 * clusters)
        gaps = np.repeat(random.normal(size=clusters), 3) + 0.3 * random.normal(size=3 * clusters)
        ps.append(difference(base.tolist(), (base + gaps).tolist(), labels).p)
    assert 0.02 <= np.mean(np.array(ps) < 0.05) <= 0.08
    assert stats.kstest(ps, "uniform").pvalue > 0.001
    assert (clusters <= EXACT) is (clusters == 10)


def test_a_real_difference_is_seen_both_ways_round() -> None:
    random = np.random.default_rng(1)
    first = random.normal(20, 3, 60)
    second = first + 1 + 0.5 * random.normal(size=60)
    labels = [str(n // 2) for n in range(60)]
    found = difference(first.tolist(), second.tolist(), labels)
    assert found.p is not None
    assert found.effect is not None
    assert found.mean.low is not None
    assert found.p < 0.001
    assert found.mean.low > 0.5
    assert found.effect > 1
    assert found.second == pytest.approx(found.first + found.mean.value)
    back = difference(second.tolist(), first.tolist(), labels)
    assert back.mean.value == pytest.approx(-found.mean.value)
    assert back.p == pytest.approx(found.p)


def test_the_exact_p_by_hand() -> None:
    """Sums 3, 1, 1: of eight patterns two reach 5 and none lies between."""
    assert sign_flip_p(np.array([3.0, 1.0, 1.0])) == 2 / 8
    assert sign_flip_p(np.array([3.0, -1.0, 1.0])) == 6 / 8
    assert sign_flip_p(np.zeros(4)) == 1.0


def test_whole_clusters_are_flipped() -> None:
    """Ten wordings of each of two edits are two differences, however many items they are."""
    gaps = [1.0] * 10 + [2.0] * 10
    found = difference([0.0] * 20, gaps, ["a"] * 10 + ["b"] * 10)
    assert found.p == 2 / 4


def test_missing_scores_are_counted_not_guessed() -> None:
    found = difference([1.0, None, 3.0, float("inf")], [2.0, 2.0, None, 5.0], ["a", "b", "c", "d"])
    assert (found.mean.scored, found.mean.failed) == (1, 3)
    assert (found.first, found.second, found.p, found.effect) == (1.0, 2.0, None, None)
    nothing = difference([None], [1.0], ["a"])
    assert nothing.mean.value is None
    assert nothing.first is None


def test_correlations_are_scipys_on_what_both_have() -> None:
    random = np.random.default_rng(2)
    a = random.normal(size=20)
    b = a + random.normal(size=20)
    found = correlation([*a, None, 1.0], [*b, 2.0, float("inf")])
    assert found.n == 20
    assert found.pearson == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert found.kendall == pytest.approx(stats.kendalltau(a, b).statistic)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.pearson < found.high
    assert correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).pearson is None


def items(shift: float, ids: int = 6) -> dict[str, dict[str, Any]]:
    return {
        f"item{n}": {
            "id": f"item{n}",
            "clip": f"clip{n}",
            "pair": f"pair{n}",
            "scores": {
                "model": {"psnr": 20.0 + n + shift, "hit": None, "other": "inf" if n == 0 else n * 1.0}
            },
        }
        for n in range(ids)
    }


def test_runs_are_compared_item_by_item(tmp_path: Path) -> None:
    (tmp_path / "items.json").write_text(json.dumps({"items": list(items(0).values())}))
    found = compare(read_items(tmp_path), items(2))
    assert found["clustered_by"] == "source clip"
    assert found["metrics"]["psnr"]["mean"]["value"] == 2
    assert found["metrics"]["psnr"]["p"] == 2 / 64
    assert found["metrics"]["hit"]["mean"]["failed"] == 6
    assert found["metrics"]["other"]["mean"]["scored"] == 5
    assert correlations(items(0))[("psnr", "other")].n == 5
    both = items(0)
    for name, item in items(3).items():
        both[name]["scores"]["theirs"] = item["scores"]["model"]
    found = compare(both, both, "model", "theirs")  # two rows of one run
    assert found["metrics"]["psnr"]["mean"]["value"] == 3
    with pytest.raises(BenchmarkError, match="not of the same items: item5 and 0 more"):
        compare(items(0), items(0, 5))
    with pytest.raises(BenchmarkError, match="--row raw: item0 has model"):
        compare(items(0), items(0), "raw")
    with pytest.raises(BenchmarkError, match="not found"):
        read_items(tmp_path / "none")
    (tmp_path / "items.json").write_text("[")
    with pytest.raises(BenchmarkError, match="damaged"):
        read_items(tmp_path)
