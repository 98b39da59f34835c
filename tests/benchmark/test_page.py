"""The page of many items, and of several runs: few videos at a time, two results over each other, links."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmark.__main__ import report
from benchmark.core.item import BenchmarkError
from benchmark.evaluation.results import RunConfig
from benchmark.evaluation.runner import execute
from benchmark.report import gallery
from benchmark.report.html import write_report
from tests.benchmark import synthetic
from tests.browser import chromium, opened, settle
from tests.perf.page import METHODS, planted_run

LIVE = "document.querySelectorAll('video').length"
MOST = 16
ITEMS = 12


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder page of twelve items with six methods and their source."""
    folder = tmp_path_factory.mktemp("many")
    write_report(folder / "report.html", planted_run(folder, ITEMS, 5, (32, 48)), [], {}, inside=False)
    return folder / "report.html"


@pytest.fixture
def page(browser: Any, site: Path) -> Iterator[Any]:
    with opened(browser, site.as_uri(), site.parent.as_uri(), "data:", "blob:", may_break_off=True) as page:
        yield page


@pytest.mark.browser
def test_few_videos_live_at_a_time_and_every_card_plays(page: Any) -> None:
    page.set_viewport_size({"width": 1280, "height": 2400})  # more cards in view than may live
    counts = []
    for card in page.locator(".card").all():
        card.scroll_into_view_if_needed()
        card.locator(".play").click()  # its videos come, whatever the share of the cards in view is
        page.wait_for_function(
            "card => card.querySelectorAll('video').length === 7 && "
            "[...card.querySelectorAll('video')].every(v => v.readyState >= 2)",
            arg=card.element_handle(),
        )
        counts.append(page.evaluate(LIVE))
        card.locator(".play").click()
    page.wait_for_timeout(1500)  # the rest, after which the cards in view share the videos out
    counts.append(page.evaluate(LIVE))
    assert 7 <= max(counts) <= MOST, counts
    page.evaluate("scrollTo(0, 0)")
    page.set_viewport_size({"width": 1280, "height": 300})  # no card in view
    page.wait_for_function(f"() => {LIVE} === 0")


@pytest.mark.browser
def test_two_results_lie_over_each_other_under_a_link(page: Any, browser: Any, site: Path) -> None:
    page.select_option("#a", "bravo")
    page.select_option("#b", "echo")
    page.locator(".card .compare").nth(2).click()
    pair = page.locator("#pair")
    settle(page, pair)
    assert pair.locator("figcaption").all_inner_texts() == ["A: bravo", "B: echo"]
    pair.locator("#cut").focus()
    page.keyboard.press("ArrowRight")
    assert "51%" in pair.locator(".stage").get_attribute("style")
    pair.locator(".two").focus()
    page.keyboard.press("End")
    assert pair.locator(".frame").inner_text() == "5 / 5"
    assert len(set(settle(page, pair))) == 1
    pair.locator("#pair-b").select_option(label="foxtrot")
    pair.locator("#view").select_option("side")
    page.wait_for_function(  # another result, on the same frame
        "pair => { const videos = [...pair.querySelectorAll('video')]; return videos.length === 2 && "
        "videos.every(v => v.readyState >= 2 && Math.abs(v.currentTime - 4.5 / 24) < 0.001); }",
        arg=pair.element_handle(),
        timeout=5000,
    )
    address = page.url
    assert re.search(r"#item=item-002&.*a=bravo&b=foxtrot&view=side", address)
    pair.locator("#close").click()
    assert page.evaluate("document.activeElement.dataset.id") == "item-002"
    assert "view=" not in page.url
    with opened(browser, address, site.parent.as_uri(), "data:", may_break_off=True) as other:
        assert other.locator("#pair-text").inner_text().startswith("Turn the disc of scene 2 ")
        assert other.locator("#pair figcaption").all_inner_texts() == ["A: bravo", "B: foxtrot"]


@pytest.mark.browser
def test_cards_are_found_by_words_and_sorted_by_differences(page: Any) -> None:
    ids = "() => [...document.querySelectorAll('.card:not([hidden])')].map(c => c.dataset.id)"
    page.fill("#q", "SCENE balloon 11")
    assert page.evaluate(ids) == ["item-011"]
    page.fill("#q", "")
    data = json.loads(page.locator("#data").text_content())
    rows = [row["name"] for row in data["rows"]]
    a, b = rows.index("delta"), rows.index("alpha")
    gaps = {item["id"]: item["scores"][a][1] - item["scores"][b][1] for item in data["items"]}
    page.select_option("#a", "delta")
    page.select_option("#b", "alpha")
    page.select_option("#sort", "psnr_outside")
    page.select_option("#of", "a-b")
    assert page.evaluate(ids) == sorted(gaps, key=lambda id: -gaps[id])
    page.select_option("#of", "|a-b|")
    page.select_option("#order", "1")
    assert page.evaluate(ids) == sorted(gaps, key=lambda id: abs(gaps[id]))
    page.reload()
    assert page.evaluate(ids) == sorted(gaps, key=lambda id: abs(gaps[id]))
    with page.expect_download() as download:
        page.locator("#csv").click()
    told = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text())))
    assert len(told) == ITEMS * (1 + len(METHODS))
    assert float(told[1]["psnr_outside"]) == data["items"][0]["scores"][1][1]
    kinds = page.locator("#category option").all_inner_texts()[1:]
    assert kinds == [f"kind {n}" for n in range(ITEMS)]  # 2 before 10


@pytest.mark.browser
def test_every_row_has_a_colour_of_its_own(page: Any) -> None:
    colours = "nodes => nodes.map((node) => getComputedStyle(node).backgroundColor)"
    legend = page.locator(".legend i").evaluate_all(colours)
    assert len(set(legend)) == len(legend) == 1 + len(METHODS)
    assert page.locator(".plot .track").first.locator(".bar").evaluate_all(colours) == legend


def test_judges_disagree_by_the_spread_of_their_scores(tmp_path: Path) -> None:
    run = planted_run(tmp_path, 1, 5, (32, 48))
    judges: Any = [run.metrics[2], run.metrics[3]]  # from 0 to 1
    outcome = run.outcomes[0]
    outcome.scores = {row: {m.name: 0.5 for m in judges} for row in run.rows}
    assert gallery.disagreement(outcome, run.rows, judges) == 0
    outcome.scores["bravo"][judges[1].name] = 0.9
    low, high = judges[0].range
    assert gallery.disagreement(outcome, run.rows, judges) == pytest.approx(0.2 / (high - low))
    assert gallery.disagreement(outcome, run.rows, judges[:1]) is None


def test_several_runs_stand_on_one_page(tmp_path: Path) -> None:
    data = synthetic.write_benchmark(tmp_path / "bench", 4, 5, 32)
    metrics = tmp_path / "metrics.yaml"
    metrics.write_text("metrics:\n  - class_path: tests.benchmark.local.Brightness\n")
    for name, limit in (("one", 4), ("two", 3)):
        results = {"ours": str(synthetic.write_results(tmp_path / f"{name}-results", 4, 1.5, 5, 32))}
        config = RunConfig(
            "editversebench", str(data), None, limit=limit, results=results, metrics=str(metrics)
        )
        execute(config, tmp_path / name, Console(quiet=True), gallery=4)
    out = tmp_path / "page"
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    report([one, two], str(out), page="folder")
    text = (out / "report.html").read_text()
    data_of = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert data_of is not None
    told = json.loads(data_of[1])
    assert [row["name"] for row in told["rows"] if row["scored"]] == ["one/ours", "two/ours"]
    assert "two lacks 1 of 4 items" in text
    for item in told["items"]:
        for name in item["videos"].values():
            assert (out / name).is_file()
            assert (out / name).with_suffix(".jpg").is_file()
    scored = json.loads((out / "items.json").read_text())["items"]
    lacking = [item for item in scored if None in item["scores"]["two/ours"].values()]
    assert len(lacking) == 1
    held = json.loads((tmp_path / "two" / "config.json").read_text())
    (tmp_path / "two" / "config.json").write_text(json.dumps(held | {"suite": "v2vbench"}))
    for runs, to, reason in (
        ([one, two], str(out), "V2VBench"),
        ([one, one], str(out), "is named twice"),
        ([one], one, "is one of the runs"),
    ):
        with pytest.raises(BenchmarkError, match=reason):
            report(runs, to)
