"""The page of several methods, as a folder for a web host: opened from its file in headless Chromium."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.benchmark import synthetic
from tests.benchmark.stub import Stub, said
from tests.browser import chromium, opened, ready_card, settle

EDITS, FRAMES = 8, 16


def redness(video: Any) -> float:
    """Of what the screen shows of it; a page from a file may not read its pixels."""
    picture = cv2.imdecode(np.frombuffer(video.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    blue, _, red = picture.mean((0, 1))
    return float(red - blue)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, command: Callable[..., Any]) -> Path:
    """A finished run of two methods, one of which lacks a result, with a judge."""
    root = tmp_path_factory.mktemp("site")
    stub = Stub()
    good = {"instruction": 3, "preservation": 2, "quality": 1, "reason": "Redder <b>waves</b>."}
    stub.reply = lambda n, request: said(json.dumps(good))
    data = synthetic.write_benchmark(root / "bench", EDITS, FRAMES)
    ours = synthetic.write_results(root / "ours", EDITS, 1.5, FRAMES)
    theirs = synthetic.write_results(root / "theirs", EDITS, -1.5, FRAMES)
    shutil.rmtree(theirs / "3")
    metrics = synthetic.write_metrics(
        root / "metrics.yaml", synthetic.write_networks(root / "nets"), stub.url
    )
    given = json.dumps({"ours": str(ours), "theirs": str(theirs)})
    what = ("--suite", "editversebench", "--data", data, "--results", given, "--metrics", metrics)
    done = command("run", *what, "--out", root / "out", "--page", "folder")
    stub.server.shutdown()
    assert done.returncode == 0, done.stderr
    # somewhere else, as on a web host
    shutil.copytree(root / "out" / "videos", root / "host" / "videos")
    shutil.copy(root / "out" / "report.html", root / "host" / "report.html")
    return root / "host" / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Any, site: Path) -> Iterator[Any]:
    """The page; nothing beyond its folder may be asked for."""
    with opened(browser, site.as_uri(), site.parent.as_uri(), "data:") as page:
        yield page


@pytest.mark.browser
def test_source_and_methods_stay_in_step(page: Any) -> None:
    card, fps, frames = ready_card(page)
    labels = card.locator("figcaption").all_inner_texts()
    assert labels == ["Source", "ours", "theirs"]
    source, ours, theirs = (redness(video) for video in card.locator("video").all())
    assert ours > source + 10
    assert theirs < source - 10
    for act in ("play", "seek", "speed", "keys"):
        if act == "play":
            card.locator(".play").click()
            page.wait_for_timeout(400)
        elif act == "seek":
            card.locator(".scrub").fill(str(frames // 2))
        elif act == "speed":
            card.locator(".rate").select_option("2")
            card.locator(".play").click()
            page.wait_for_timeout(300)
        else:
            card.focus()
            page.keyboard.press("Space")
            page.keyboard.press("End")
            page.keyboard.press("ArrowLeft")
        times = settle(page, card)
        assert max(times) - min(times) <= 1 / fps, (act, times)
    times = settle(page, card)
    assert card.locator(".frame").inner_text() == f"{frames - 1} / {frames}"
    assert {round(t * fps, 2) for t in times} == {frames - 1.5}


@pytest.mark.browser
def test_the_leaderboard_sorts_and_kinds_have_bars(page: Any) -> None:
    rows = page.locator("table.ranked tbody tr")

    def column(index: int) -> list[float]:
        return [float(r.locator("td").nth(index).get_attribute("data-value")) for r in rows.all()]

    for number, button in enumerate(page.locator("table.ranked .rank").all()):
        button.click()
        assert column(number) == sorted(column(number), reverse=True)
        button.click()
        assert column(number) == sorted(column(number))
    assert rows.locator(".bad").all_inner_texts() == ["1"]
    figures = page.locator("section[aria-labelledby=kinds] figure")
    assert figures.count() == 6
    bars = figures.first.locator(".plot .bar")
    names = figures.first.locator(".plot .name").count()
    assert bars.count() == 2 * names - 1  # the one edit of its kind that has no result
    assert "failed" in bars.first.get_attribute("title")


@pytest.mark.browser
def test_cards_filter_and_tell_what_the_judge_said(page: Any) -> None:
    page.locator("#task").select_option("add object")
    shown = page.locator(".card:visible")
    assert {c.get_attribute("data-task") for c in shown.all()} == {"add object"}
    page.locator("#category").select_option("vertical")
    assert page.locator(".card:visible").count() < len(synthetic.CATEGORIES)
    page.locator("#task").select_option("")
    page.locator("#category").select_option("")
    page.locator("#sort").select_option("frame_text")
    card, _, _ = ready_card(page)
    card.locator("details.words summary").click()
    assert "Redder <b>waves</b>." in card.locator("details.words").inner_text()  # text, not markup
