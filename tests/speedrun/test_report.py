"""The report of a run: facts that add up, verdicts from intervals, a page that opens, the card's sections."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from editverse.speedrun.report.command import STAGES, card, gather, ledger, report
from editverse.speedrun.report.data import ledger_facts
from editverse.speedrun.report.scores import pairs_to_compare, row_labels, verdict
from editverse.speedrun.report.words import duration, size, words_of
from model.cli import main as model_command
from shards.errors import ConfigError
from tests.browser import chromium
from tests.speedrun import fake_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all stages in small, with its report and the sections of its card."""
    run = tmp_path_factory.mktemp("speedrun") / "run"
    fake_run.make(run)
    ledger(run)
    report(run, {"cpu_hour": 3.6})
    card(run)
    return run


@pytest.fixture(scope="module")
def facts(made: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((made / "report.json").read_text())
    return value


@pytest.mark.slow
def test_what_went_in_is_what_came_out_and_what_was_refused(facts: dict[str, Any]) -> None:
    result = facts["result"]
    assert result["size"] == "tiny"  # without the place of the folder
    (scenes,), (pairs,) = result["curation"], result["imports"]
    assert scenes["folder"] == "data/scenes"
    assert scenes["candidates"] == scenes["accepted"] + sum(scenes["rejected"].values())
    assert (pairs["rows"], pairs["accepted"], pairs["refused"]) == (4, 3, {"video does not decode": 1})
    assert result["left_out"][0]["license"] == "CC-BY-NC-4.0"
    gates = {gate["source"]: gate["total"] for gate in result["gates"]}
    read = result["ledger"]["folders"]
    assert read == {"data/scenes": scenes["samples"], "data/pairs": 3}  # of the clean ones, what they are of
    assert gates["data/scenes"]["candidates"] == scenes["samples"]
    assert 0 < gates["data/scenes"]["retained"] < gates["data/scenes"]["candidates"]
    assert sum(result["ledger"]["clip_licenses"].values()) == scenes["samples"] + 3
    assert result["commercial_use"] == "yes"
    assert [one["folder"] for one in result["training"]] == ["stage1", "stage2", "distill"]
    assert [one["init_from"] for one in result["training"]] == ["base", "stage1", "stage2"]


@pytest.mark.slow
def test_differences_are_those_of_the_same_items(made: Path, facts: dict[str, Any]) -> None:
    (suite,) = facts["result"]["scores"]
    assert list(suite["rows"].values()) == ["source", "base", "stage1", "stage2", "distill", "target"]
    items = json.loads((made / "bench/scenes/items.json").read_text())["items"]
    one = next(
        d for d in suite["differences"] if (d["group"], d["first"], d["second"]) == ("all", "base", "stage2")
    )
    for name in ("ssim_inside", "warp_error"):
        gaps = [item["scores"]["stage2"][name] - item["scores"]["base"][name] for item in items]
        of = one["metrics"][name]
        assert of["difference"] == pytest.approx(np.mean(gaps))
        assert of["low"] <= of["difference"] <= of["high"]
        assert (of["verdict"] in ("better", "worse")) == (not of["low"] <= 0 <= of["high"])
    told = [finding["text"] for finding in facts["result"]["findings"] if finding["group"] == "all"]
    assert len(told) == 5
    assert all(text.startswith("bench/scenes, all items (12 items of ") for text in told)


@pytest.mark.slow
def test_bill_and_truth_stand_side_by_side(facts: dict[str, Any]) -> None:
    costs = facts["costs"]
    rows = {row["stage"]: row for row in costs["stages"]}
    assert list(rows) == list(STAGES)
    assert rows["curation"]["ratio"]["seconds"] == pytest.approx(1 / 1.1)
    assert rows["report"]["ratio"]["seconds"] is None  # is being written
    assert costs["total"]["ratio"]["seconds"] == pytest.approx(1 / 1.1)
    data = sum(rows[name]["took"]["cpu_seconds"] for name in ("clips", "curation", "imports", "gates"))
    each = costs["per_pair"]
    assert each["cpu_seconds"] == pytest.approx(data / each["pairs"])
    assert each["price"] == pytest.approx(each["cpu_seconds"] * 0.001)  # 3.6 an hour
    scenes = each["folders"]["data/scenes"]
    assert 0 < scenes["cpu_seconds"] * scenes["accepted"] < data


@pytest.mark.slow
def test_the_result_is_the_same_elsewhere_and_at_another_time(
    made: Path, facts: dict[str, Any], tmp_path: Path
) -> None:
    copy = shutil.copytree(made, tmp_path / "elsewhere")
    for path in (copy / "stages").glob("*.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"seconds": 99.0, "attempts": 3, "finished": "2030-01-01"}))
    other = gather(copy, {})
    assert json.loads(json.dumps(other["result"])) == facts["result"]
    assert other["costs"] != facts["costs"]
    assert str(made) not in json.dumps(facts["result"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_from_its_file_alone(made: Path, browser: Any, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else faults.append(r.url))
    page.goto((made / "report.html").as_uri())
    page.evaluate("for (const image of document.images) image.loading = 'eager'")
    page.wait_for_function("[...document.images].every(image => image.complete)")
    assert page.evaluate("[...document.images].filter(image => !image.naturalWidth).length") == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".strip").count() == 8
    labels = page.locator(".strip").first.locator("figcaption").all_inner_texts()
    assert labels == ["source", "base", "stage1", "stage2", "distill", "target"]
    assert page.locator(".sheet:not(.refused) img").count() == 6 + 3
    assert page.locator(".refused figcaption").first.inner_text().count("not ") == 1
    assert page.locator("#training ~ .curves").count() == 3
    assert page.locator("table").first.locator("tbody tr").count() == len(STAGES) + 1
    assert faults == []
    page.close()


@pytest.mark.slow
def test_what_is_gone_costs_its_pictures_alone(made: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(made, tmp_path / "run")
    shutil.rmtree(copy / "data" / "scenes" / "gallery", ignore_errors=True)
    for path in (copy / "data" / "scenes").glob("*.tar"):
        path.unlink()
    (copy / "stage2" / "curve.csv").unlink()
    report(copy)
    text = (copy / "report.html").read_text()
    assert "No pictures: " in text
    assert "No curve: " in text
    assert "data/pairs" in text


@pytest.mark.slow
def test_the_card_of_the_student_has_the_sections(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    words = ["--checkpoint", "distill", "--repo", "me/tiny", "--about", "card.md", "--dry_run"]
    assert model_command(["push", *words]) == 0
    page = (made / "distill" / "README.md").read_text()
    for line in (
        "Started from base, by way of stage1, stage2",
        "| some_pairs | CC-BY-NC-4.0 | forbids commercial use |",
        "| CC-BY-4.0 | 3 |",
        "bench/scenes, 12 held-out items:",
        "| stage | took | bill | ratio | bill is |",
    ):
        assert line in page


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "expected"),
    [
        (0.1, 0.3, True, "better"),
        (0.1, 0.3, False, "worse"),
        (-0.3, -0.1, True, "worse"),
        (-0.3, -0.1, False, "better"),
        (-0.1, 0.3, True, "undecided"),
        (0.0, 0.3, True, "undecided"),
        (None, None, True, "unknown"),
    ],
)
def test_a_verdict_is_what_the_interval_says(
    low: float | None, high: float | None, higher_is_better: bool, expected: str
) -> None:
    assert verdict(low, high, higher_is_better) == expected


def test_each_stage_is_compared_with_the_base_and_with_the_one_before() -> None:
    assert pairs_to_compare(["base", "stage1", "stage2"]) == [
        ("base", "stage1"),
        ("base", "stage2"),
        ("stage1", "stage2"),
    ]
    assert pairs_to_compare(["base"]) == []


def test_the_row_of_the_checkpoint_is_called_by_its_folder(tmp_path: Path) -> None:
    table = {"all": {row: {} for row in ("target", "model", "model_raw", "base", "source")}}
    labels = row_labels(
        tmp_path, {"table": table, "config": {"checkpoint": f"{tmp_path}/distill/checkpoint"}}
    )
    assert list(labels.items()) == [
        ("source", "source"),
        ("base", "base"),
        ("model", "distill"),
        ("target", "target"),
    ]


def test_a_folder_that_is_no_run_or_damaged_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder of a speedrun"):
        report(tmp_path)
    (tmp_path / "stages").mkdir()
    with pytest.raises(ConfigError, match="nothing was trained yet"):
        ledger(tmp_path)
    (tmp_path / "ledger.csv").write_text("folder,key\ndata/a,1\n")
    with pytest.raises(ConfigError, match=r"ledger\.csv: damaged"):
        ledger_facts(tmp_path)


def test_a_run_that_has_only_begun_has_a_report(tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    report(tmp_path)
    text = (tmp_path / "report.html").read_text()
    for line in ("No pairs yet.", "Nothing is trained yet.", "Nothing is scored yet.", "No ledger yet"):
        assert line in text


def test_words_for_numbers() -> None:
    assert [duration(s) for s in (None, 0.04, 9.96, 59.4, 59.6, 3599.4, 7300)] == [
        "-",
        "0.0 s",
        "10 s",
        "59 s",
        "1 min 0 s",
        "59 min 59 s",
        "2 h 1 min",
    ]
    assert [size(b) for b in (None, 999, 1000, 2.5e9)] == ["-", "999 B", "1 kB", "2.5 GB"]
    assert words_of("psnr_inside") == "PSNR inside"
