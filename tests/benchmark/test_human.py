"""Metrics against ratings: joined by item and row, averaged over raters, faults named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmark.analysis.human_correlation import agreements, read_ratings
from benchmark.core.item import BenchmarkError

SYSTEMS = ("a", "b", "c", "d")


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A run's items.json, whose metric `good` follows the truth [systems, items] and `bad` does not."""
    random = np.random.default_rng(0)
    truth = random.normal(size=(4, 30)) + np.arange(4)[:, None]
    listed = []
    for n in range(30):
        scores = {
            row: {"good": float(truth[s, n]), "bad": float(random.normal())} for s, row in enumerate(SYSTEMS)
        }
        listed.append(
            {"id": str(n), "task": "x", "category": "", "clip": str(n), "pair": str(n), "scores": scores}
        )
    listed[3]["scores"]["a"]["good"] = None
    (tmp_path / "items.json").write_text(json.dumps({"items": listed}))
    return tmp_path, truth


def ratings(path: Path, lines: list[tuple[Any, ...]]) -> Path:
    path.write_text("item,row,score\n" + "".join(f"{i},{r},{s}\n" for i, r, s in lines))
    return path


def test_a_metric_that_people_agree_with_is_found(
    run: tuple[Path, np.ndarray], command: Callable[..., Any]
) -> None:
    folder, truth = run
    random = np.random.default_rng(1)
    noise = random.normal(scale=0.4, size=(2, 4, 30))
    lines = [
        (n, row, truth[s, n] + noise[k, s, n])
        for k in range(2)
        for s, row in enumerate(SYSTEMS)
        for n in range(30)
    ]
    file = ratings(folder / "ratings.csv", lines)
    items = {i["id"]: i for i in json.loads((folder / "items.json").read_text())["items"]}
    found = agreements(items, read_ratings(file))
    people = truth + noise.mean(0)
    kept = np.ones((4, 30), bool)
    kept[0, 3] = False  # not scored
    assert found["good"].results.n == 119
    assert found["good"].results.pearson == pytest.approx(stats.pearsonr(truth[kept], people[kept])[0])
    assert found["good"].systems.spearman == pytest.approx(1)
    assert abs(found["bad"].results.pearson or 0) < 0.3
    done = command("correlate", "--run", folder, "--human", file)
    assert done.returncode == 0, done.stderr
    assert "good" in done.stdout


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([("0", "a", "much")], "line 2: score 'much'"),
        ([("99", "a", 1)], "item '99'"),
        ([("0", "z", 1)], "'z'; the run has the rows a, b, c, d"),
        ([], "no ratings"),
    ],
)
def test_wrong_ratings_are_named(run: tuple[Path, np.ndarray], lines: list[Any], words: str) -> None:
    folder, _ = run
    items = {i["id"]: i for i in json.loads((folder / "items.json").read_text())["items"]}
    with pytest.raises(BenchmarkError, match=words):
        agreements(items, read_ratings(ratings(folder / "r.csv", lines)))
    (folder / "r.csv").write_text("item,score\n")
    with pytest.raises(BenchmarkError, match="no column 'row'"):
        read_ratings(folder / "r.csv")
