"""A judge against people's labels: pairs within items, ties by both rules, labels in long and wide tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmark.analysis.calibrate import calibrate, read_labels
from benchmark.analysis.compare import read_items
from benchmark.cli.calibrate import calibrate as print_calibration
from benchmark.core.item import BenchmarkError

Scores = dict[str, dict[str, dict[str, float | None]]]


def write_run(folder: Path, scores: Scores) -> Path:
    """A run's items.json: scores by item, row and metric."""
    listed = [
        {"id": id, "task": "x", "category": "", "clip": id, "pair": id, "scores": rows}
        for id, rows in scores.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "items.json").write_text(json.dumps({"items": listed}))
    return folder


def write_labels(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def label(item: str, row: str, score: float, criterion: str = "IF", **more: Any) -> dict[str, Any]:
    return {"item": item, "row": row, "criterion": criterion, "score": score, **more}


def test_ties_count_by_the_stated_rules(tmp_path: Path) -> None:
    # of three results of one item, people order a < b = c, the judge a < b, a = c, b > c
    run = write_run(tmp_path, {"1": {r: {"j": s} for r, s in (("a", 1), ("b", 3), ("c", 1))}})
    labels = write_labels(tmp_path / "l.csv", [label("1", r, s) for r, s in (("a", 1), ("b", 4), ("c", 4))])
    found = calibrate(read_items(run), read_labels(labels))["criteria"]["IF"]["j"]
    assert (found["pairs"], found["human_ties"], found["judge_ties"]) == (2, 1, 1)
    assert found["accuracy"]["value"] == pytest.approx((1 + 0.5) / 2)
    assert found["ties_right"]["value"] == pytest.approx((1 + 0.5 + 1) / 3)


def test_results_are_compared_within_an_item_alone(tmp_path: Path) -> None:
    # within each item the judge is right; between items, of different ease, it would be wrong
    scores: Scores = {"1": {"a": {"j": 8}, "b": {"j": 9}}, "2": {"a": {"j": 1}, "b": {"j": 2}}}
    rows = [label(i, r, s) for i, r, s in (("1", "a", 1), ("1", "b", 2), ("2", "a", 3), ("2", "b", 4))]
    found = calibrate(
        read_items(write_run(tmp_path, scores)), read_labels(write_labels(tmp_path / "l.csv", rows))
    )["criteria"]["IF"]["j"]
    assert (found["accuracy"]["value"], found["pairs"], found["items"]) == (1.0, 2, 2)
    assert found["correlation"]["spearman"] < 0


def test_a_judge_is_as_accurate_as_it_was_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    truth = random.normal(size=(40, 4))
    seen = truth + random.normal(size=truth.shape)
    rows = "abcd"
    scores: Scores = {
        str(n): {
            row: {"vefx_if": float(seen[n, k]), "vefx_rq": float(-truth[n, k])} for k, row in enumerate(rows)
        }
        for n in range(40)
    }
    scores["7"]["b"]["vefx_if"] = None
    run = write_run(tmp_path / "run", scores)
    # one column per criterion, two raters, a result of an item that the run does not have
    wide = [
        {"video": str(n), "model": r, "IF": truth[n, k] + shift, "RQ": truth[n, k], "rater": rater}
        for n in range(40)
        for k, r in enumerate(rows)
        for rater, shift in (("x", 0.0), ("y", 10.0))
    ]
    wide.append({"video": "99", "model": "a", "IF": 1, "RQ": 1, "rater": "x"})
    labels = write_labels(tmp_path / "wide.csv", wide)
    columns = {"item": "video", "row": "model", "IF": "IF", "RQ": "RQ"}
    print_calibration(str(run), str(labels), columns=columns)
    found = json.loads((run / "calibration.json").read_text())
    assert found["items"] == {"run": 40, "labelled": 41, "used": 40}
    assert set(found["criteria"]["IF"]) == {"vefx_if"}  # by its name
    mine = found["criteria"]["IF"]["vefx_if"]
    kept = [(n, k) for n in range(40) for k in range(4) if (n, k) != (7, 1)]
    right = [
        (truth[n, a] > truth[n, b]) == (seen[n, a] > seen[n, b])
        for n, a in kept
        for m, b in kept
        if n == m and a < b
    ]
    assert mine["pairs"] == len(right) == 40 * 6 - 3
    assert mine["accuracy"]["value"] == pytest.approx(np.mean(right))
    assert mine["accuracy"]["clusters"] == 40
    assert mine["accuracy"]["low"] < 0.75 < mine["accuracy"]["high"]  # of two normals with equal noise
    assert mine["correlation"]["spearman"] == pytest.approx(
        stats.spearmanr([seen[k] for k in kept], [truth[k] for k in kept]).statistic
    )
    assert found["criteria"]["RQ"]["vefx_rq"]["accuracy"]["value"] == 0.0
    assert set(found["criteria"]["overall"]) == {"mean of vefx_if, vefx_rq"}
    assert found["people"]["IF"]["value"] == 1.0  # both raters have one order
    assert "640 of 642 labels used, of 40 items" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [
        ([{"item": "1", "row": "a", "score": 1}], {}, "no column 'criterion' for criterion.*--columns"),
        ([label("1", "a", "x")], {}, "row 1: IF is 'x', no number"),  # type: ignore[arg-type]
        ([label("1", "a", 1, rater="r")] * 2, {}, "row 2: r has labelled 1 of a by IF before"),
        ([label("1", "a", "")], {}, "holds no labels"),  # type: ignore[arg-type]
        ([label("1", "a", 1)], {"item": "video"}, "no column 'video' for item"),
    ],
)
def test_wrong_labels_are_named(
    rows: list[dict[str, Any]], columns: dict[str, str], words: str, tmp_path: Path
) -> None:
    with pytest.raises(BenchmarkError, match=words):
        read_labels(write_labels(tmp_path / "l.csv", rows), columns)


def test_labels_of_other_results_are_no_labels_of_this_run(tmp_path: Path) -> None:
    items = read_items(write_run(tmp_path, {"1": {"a": {"j": 1}, "b": {"j": 2}}}))
    with pytest.raises(
        BenchmarkError, match="no label is of a result of the run; the first is of item '1' and row 'z'"
    ):
        calibrate(items, {("1", "z", "IF"): {"": 1.0}})
    with pytest.raises(BenchmarkError, match="no metric 'k'"):
        calibrate(items, {("1", "a", "IF"): {"": 1.0}}, {"IF": "k"})
    with pytest.raises(BenchmarkError, match="no label is by 'RQ'"):
        calibrate(items, {("1", "a", "IF"): {"": 1.0}}, {"RQ": "j"})
