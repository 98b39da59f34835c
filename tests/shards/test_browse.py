"""The page to look through samples: what it finds, and what Chromium makes of it, for two people at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import expect

from shards.errors import SettingError
from shards.reader import ShardSet
from shards.reports.browse import Catalogue, Query, browser, query_of
from shards.reports.pages import Samples
from shards.reports.server import Server
from shards.scores import About, write_scores
from shards.writer import Item, write_shards
from tests.browser import chromium, opened, settle

GRADES = [0.5, math.nan, 0.25, 1.0, 0.75]


@pytest.fixture
def folders(tmp_path: Path, make_items: Callable[..., list[Item]]) -> tuple[Path, Path]:
    """Five samples in three shards with grades, and two in another folder without."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    sizes = {"frames": 9, "height": 32, "width": 48}
    items = make_items(tmp_path / "one", pairs=5, heldout=2, **sizes)
    others = [
        (
            sample.model_copy(
                update={"key": f"other-{number}", "task": "other", "text": "<video1> Paint it Blue. <video2>"}
            ),
            files,
        )
        for number, (sample, files) in enumerate(make_items(tmp_path / "two", pairs=2, heldout=0, **sizes))
    ]
    write_shards(tmp_path / "first", items, max_samples=2)
    write_shards(tmp_path / "second", others)
    write_scores(tmp_path / "first", "grade", GRADES, About(made_by="test", better="higher"))
    return tmp_path / "first", tmp_path / "second"


@pytest.fixture
def catalogue(folders: tuple[Path, Path]) -> Catalogue:
    return Catalogue(Samples([str(folder) for folder in folders]))


def found(catalogue: Catalogue, **asked: Any) -> list[int]:
    return catalogue.find(Query(**asked)).tolist()


def test_samples_are_found_by_task_split_and_words(catalogue: Catalogue) -> None:
    assert found(catalogue) == [0, 1, 2, 3, 4, 5, 6]
    assert found(catalogue, task="other") == [5, 6]
    heldout = [n for n in range(7) if catalogue.samples.sample(n).split == "heldout"]
    assert len(heldout) == 2
    assert found(catalogue, split="heldout") == heldout
    assert found(catalogue, text="blue PAINT") == [5, 6]
    assert found(catalogue, text="blue paint removal") == []
    assert found(catalogue, text="other-1") == [6]  # a key
    assert found(catalogue, task="other", split="heldout") == []


def test_ranges_leave_out_what_has_no_score_and_sorting_puts_it_last(catalogue: Catalogue) -> None:
    assert found(catalogue, ranges=(("grade", 0.5, None),)) == [0, 3, 4]
    assert found(catalogue, ranges=(("grade", 0.5, 0.75),)) == [0, 4]  # both ends belong to it
    assert found(catalogue, ranges=(("grade", None, None),)) == [0, 2, 3, 4]
    assert found(catalogue, sort="grade") == [2, 0, 4, 3, 1, 5, 6]
    assert found(catalogue, sort="grade", descending=True) == [3, 4, 0, 2, 1, 5, 6]
    assert catalogue.scores_of(1)["grade"] is None
    assert catalogue.scores_of(3)["grade"] == 1.0
    assert "grade" not in catalogue.scores_of(5)


def test_a_question_that_makes_no_sense_is_one_line(catalogue: Catalogue) -> None:
    for text in ("grade", "grade:1", "grade:a:2", "grade:nan:", "grade::inf"):
        with pytest.raises(SettingError, match="score"):
            query_of({}, [text])
    assert query_of({}, ["a:b:1:"]).ranges == (("a:b", 1.0, None),)
    with pytest.raises(SettingError, match="no score 'none'; there are grade"):
        catalogue.find(Query(sort="none"))


def look(running: Any, url: str, inside: str = "") -> Any:
    """A person at the page, who may turn it before all is there."""
    return opened(running, url, inside or url, may_break_off=True)


@pytest.fixture
def page(folders: tuple[Path, Path]) -> Iterator[str]:
    with Server(browser(Samples([str(folder) for folder in folders]))).running() as url:
        yield url


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_searches_plays_in_step_and_keeps_its_state(page: str, width: int) -> None:
    with chromium() as running, look(running, page) as one, look(running, page) as two:
        one.set_viewport_size({"width": width, "height": 900})
        one.wait_for_selector(".card")
        assert one.locator("#found").text_content() == "7 samples"
        card = one.locator(".card").first
        settle(one, card)
        for _ in range(3):
            card.locator(".next").click()
        times = settle(one, card)
        assert len(times) == 2
        assert max(times) - min(times) < 1e-6  # both on the fourth frame
        assert card.locator(".frame").text_content() == "4 / 9"
        card.locator(".mask-toggle").check()
        assert len(settle(one, card)) == 4  # the mask over each
        assert one.evaluate("document.documentElement.scrollWidth") <= width

        two.wait_for_selector(".card")  # another person looks at something else at the same time
        two.locator("#text").fill("blue")
        expect(two.locator("#found")).to_have_text("2 samples")
        one.locator("#sort").select_option("grade")
        one.locator("#order").select_option("down")
        expect(one).to_have_url(re.compile("order=down"))
        expect(card).to_contain_text("grade 1 ")
        one.locator("#add").click()
        one.locator(".range input").first.fill("0.6")
        expect(one.locator("#found")).to_have_text("2 samples")
        address = one.url
        with look(running, address, page) as third:  # a link shows the same
            expect(third.locator("#found")).to_have_text("2 samples")
            assert third.locator(".range input").first.input_value() == "0.6"
        assert two.locator(".card").count() == 2
        settle(two, two.locator(".card").first)


@pytest.mark.browser
@pytest.mark.slow
def test_pages_turn_and_words_of_samples_stay_words(
    tmp_path: Path, make_items: Callable[..., list[Item]]
) -> None:
    (tmp_path / "media").mkdir()
    (sample, files), *_ = make_items(tmp_path / "media", pairs=1, heldout=0, frames=5, height=32, width=48)
    text = "<video1> <img src=x onerror=alert(1)><b>bold</b> <video2>"
    items = [(sample.model_copy(update={"key": f"k-{n:03d}", "text": text}), files) for n in range(30)]
    write_shards(tmp_path / "shards", items)
    samples = Samples([str(tmp_path / "shards")])
    with Server(browser(samples)).running() as url, chromium() as running, look(running, url) as one:
        one.wait_for_selector(".card")
        assert one.locator(".card h3").first.text_content() == text
        assert one.locator(".card b, .card h3 img").count() == 0
        # The second click comes before the first one is answered.
        one.locator("#following").evaluate("button => { button.click(); button.click(); }")
        expect(one.locator(".card")).to_have_count(6)
        assert one.locator(".card").first.get_attribute("data-key") == "k-024"
        assert one.locator("#following").is_disabled()
        settle(one, one.locator(".card").first)


def test_a_search_opens_no_tar(tmp_path: Path, make_items: Callable[..., list[Item]]) -> None:
    (tmp_path / "media").mkdir()
    items = make_items(tmp_path / "media", pairs=3, heldout=0, frames=5, height=32, width=48)
    write_shards(tmp_path / "shards", items)
    write_scores(tmp_path / "shards", "grade", np.array([1, 2, 3]), About(made_by="test"))
    catalogue = Catalogue(Samples([str(tmp_path / "shards")]))
    for path in (tmp_path / "shards").glob("*.tar"):
        path.unlink()
    key = ShardSet(tmp_path / "shards").keys[2]
    assert catalogue.find(Query(text=key, ranges=(("grade", 3, 3),))).tolist() == [2]
