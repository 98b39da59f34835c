"""Paired comparison: the test rejects as often as it says, and sees what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmark.analysis.compare import compare, correlations, rank, read_items, read_metric_facts
from benchmark.cli import analysis
from benchmark.core.item import BenchmarkError
from benchmark.statistics.correlation import correlation
from benchmark.statistics.groups import all_pairs, letters
from benchmark.statistics.paired import EXACT, difference, holm, sign_flip_p
from benchmark.statistics.power import power


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


def test_effect_and_difference_have_one_sign() -> None:
    """Large clusters gain, small ones lose: items say +0.25, as the mean does, and so does the effect."""
    gaps = [1.0] * 10 + [-0.5] * 3 + [-0.5] * 3 + [-0.5] + [-0.5] + [-0.5] + [-0.5]
    labels = ["a"] * 10 + ["b"] * 3 + ["c"] * 3 + ["d", "e", "f", "g"]
    found = difference([0.0] * 20, gaps, labels)
    assert found.mean.value == pytest.approx(0.25)
    assert found.effect is not None
    assert 0 < found.effect < 1


def test_holms_correction_by_hand() -> None:
    assert holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_letters_are_shared_by_those_not_told_apart() -> None:
    apart = {("A", "C"), ("D", "A"), ("B", "D")}
    assert letters("ABCD", apart) == {"A": "a", "B": "ab", "C": "bc", "D": "c"}
    assert letters("ABC", set()) == dict.fromkeys("ABC", "a")
    assert letters("ABC", {("A", "B"), ("A", "C"), ("B", "C")}) == {"A": "a", "B": "b", "C": "c"}


def test_all_pairs_of_a_run_over_common_items() -> None:
    """Good is better than the two others, which are alike; what one lacks counts for none in the means."""
    random = np.random.default_rng(3)
    base = random.normal(20, 2, 40)
    scores: dict[str, list[float | None]] = {
        "poor": (base + random.normal(0, 0.3, 40)).tolist(),
        "good": (base + 1 + random.normal(0, 0.3, 40)).tolist(),
        "fair": (base + random.normal(0, 0.3, 40)).tolist(),
        "none": [None] * 40,
    }
    scores["fair"][:10] = [None] * 10
    found = all_pairs(scores, [str(n // 2) for n in range(40)], resamples=500)
    assert found.order[0] == "good"
    assert found.order[3] == "none"
    assert found.items == 30
    assert found.means["good"] == pytest.approx(np.mean([s for s in scores["good"][10:] if s is not None]))
    assert found.letters["good"] == "a"
    assert found.letters["poor"] == found.letters["fair"] == "b"
    assert found.letters["none"] == ""
    lower = all_pairs(scores, [str(n) for n in range(40)], higher_is_better=False, resamples=500)
    assert lower.order[2:] == ["good", "none"]


def test_the_items_needed_are_those_of_the_noncentral_t() -> None:
    """Half a standard deviation is seen by 34 pairs with 80 % power at 5 %, as textbooks have it."""
    gaps = np.random.default_rng(5).normal(size=50)
    gaps = 2 * (gaps - gaps.mean()) / gaps.std(ddof=1)
    found = power([*gaps, None], [*map(str, range(50)), "x"], 1.0)
    assert found is not None
    assert found.spread == pytest.approx(2)
    assert (found.needed, found.needed_items) == (34, 34)
    assert found.chance == pytest.approx(0.934, abs=0.002)
    again = power(gaps.tolist(), list(map(str, range(50))), found.least)
    assert again is not None
    assert again.chance == pytest.approx(0.8)
    assert power([1.0, 1.0, 1.0], ["a", "b", "c"], 1.0) is None


def test_rows_of_several_runs_are_ranked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Called by their run; direction and range come from summary.json; the commands read the files."""
    for name, shift in (("one", 0.0), ("two", 3.0)):
        listed = items(shift, 8)
        for n, item in enumerate(listed.values()):
            item["scores"]["model"]["psnr"] += 0.1 * (n % 3)
            item["scores"]["source"] = {"psnr": 15.0 + n, "hit": None, "other": 0.0}
        (tmp_path / name).mkdir()
        (tmp_path / name / "items.json").write_text(json.dumps({"items": list(listed.values())}))
        facts = {"psnr": {"higher_is_better": True, "range": [0.0, "inf"]}}
        (tmp_path / name / "summary.json").write_text(json.dumps({"metrics": facts}))
    runs = {name: read_items(tmp_path / name) for name in ("one", "two")}
    found = rank(runs, metrics=["psnr"])["psnr"]
    assert found.order == ["two", "one", "source"]
    assert found.letters == {"two": "a", "one": "b", "source": "c"}
    assert read_metric_facts(tmp_path / "one")["psnr"].range == (0.0, float("inf"))
    folders = [str(tmp_path / name) for name in runs]
    analysis.rank(tuple(folders), metrics=("psnr",), out=str(tmp_path / "pairs.json"))
    assert "p (Holm)" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "pairs.json").read_text())["psnr"]["pairs"]) == 3
    analysis.power(folders[0], folders[0], {"psnr": 1.0}, second_row="source")
    assert "items for 80 %" in capsys.readouterr().out
    with pytest.raises(BenchmarkError, match="--rows ours: the runs have model, source"):
        rank(runs, rows=["ours"])
    with pytest.raises(BenchmarkError, match="--metrics ssim: all rows have psnr"):
        rank(runs, metrics=["ssim"])
    with pytest.raises(BenchmarkError, match="two rows or more"):
        rank({"one": runs["one"]}, rows=["model"])
