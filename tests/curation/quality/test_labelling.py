"""The labelling page: in a real browser, two people at once; and what it refuses."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from curation.quality.selection.label_page import REASONS, Labelling, label_site
from curation.quality.selection.labels import LabelFile, read_labels
from shards.errors import SettingError
from shards.reader import ShardSet
from shards.reports.pages import Samples
from shards.reports.server import Server
from shards.writer import Item, write_shards
from tests.browser import SETTLED, chromium, opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_items: Callable[..., list[Item]]) -> Path:
    """Six pairs of videos with masks."""
    root = tmp_path_factory.mktemp("labelling")
    write_shards(root / "shards", make_items(root, 6, 5, 32, 48))
    return root / "shards"


@pytest.fixture
def site(folder: Path, tmp_path: Path) -> Iterator[str]:
    """Every sample is for two people; labels go to `labels.jsonl`."""
    labelling = Labelling(Samples([str(folder)]), LabelFile(tmp_path / "labels.jsonl"), overlap=1.0)
    with Server(label_site(labelling)).running() as url:
        yield url


def ask(url: str, path: str, **said: Any) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    connection.request("POST", f"/{path}", json.dumps(said), {"content-type": "application/json"})
    answer = connection.getresponse()
    value = json.loads(answer.read())
    connection.close()
    return answer.status, value


def shot(page: Any, name: str) -> None:
    """A screenshot to be looked at, where SCREENSHOTS names a folder."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


@pytest.mark.browser
@pytest.mark.slow
def test_two_people_label_at_once_in_a_browser(site: str, tmp_path: Path, folder: Path) -> None:
    def start(page: Any, name: str) -> None:
        page.fill("#name", name)
        page.click("#start")
        page.wait_for_selector(".card")

    def key_of(page: Any) -> str:
        return str(page.locator(".card").get_attribute("data-key"))

    def press(page: Any, key: str) -> None:
        before = key_of(page)
        page.keyboard.press(key)
        page.wait_for_function(
            "before => document.querySelector('.card')?.dataset.key !== before", arg=before
        )

    def visit(browser: Any, url: str) -> Any:
        return opened(browser, url, url, may_break_off=True)  # videos of the sample before

    with chromium() as browser, visit(browser, site) as ada, visit(browser, site) as ben:
        start(ada, "Ada")
        start(ben, "Ben")
        first = key_of(ada)
        assert key_of(ben) == first  # one more person is to see it
        ada.wait_for_function(SETTLED, arg=ada.locator(".card").element_handle())
        ada.wait_for_function("() => document.querySelector('.card video').currentTime > 0.05")  # it plays
        ada.keyboard.press("m")
        assert ada.locator(".card.masked .over").first.is_visible()
        shot(ada, "label-1280")
        ada.keyboard.press("1")  # keep
        ada.wait_for_function("before => document.querySelector('.card').dataset.key !== before", arg=first)
        assert ada.locator(".card.masked").count() == 1  # the mask stays on
        second = key_of(ada)
        press(ben, "3")
        ben.keyboard.press("Shift+Digit2")
        ben.keyboard.press("Shift+Digit5")
        assert ben.locator("[aria-pressed=true]").all_inner_texts() == ["2 " + REASONS[0], "5 " + REASONS[3]]
        ben.set_viewport_size({"width": 390, "height": 844})
        assert ben.evaluate("() => document.documentElement.scrollWidth") <= 390
        ben.wait_for_function(SETTLED, arg=ben.locator(".card").element_handle())
        shot(ben, "label-390")
        press(ben, "Enter")
        ada.keyboard.press("u")
        ada.wait_for_function("key => document.querySelector('.card').dataset.key === key", arg=first)
        assert "0 by you" in ada.locator("#progress").inner_text()
        press(ada, "2")
        ada.reload()  # nothing is lost, and the name is remembered
        ada.wait_for_selector(".card")
        assert key_of(ada) == second
        for page in (ada, ben):
            while page.locator(".card").count():
                before = key_of(page)
                page.click(".keep")
                page.wait_for_function(
                    "before => document.querySelector('.card')?.dataset.key !== before", arg=before
                )
            assert "Nothing is left" in page.locator("#cards").inner_text()
        shot(ben, "label-done")

    labels = read_labels(tmp_path / "labels.jsonl")
    assert set(labels.votes) == set(ShardSet(folder).keys)
    assert all(set(of) == {"Ada", "Ben"} for of in labels.votes.values())
    assert {by: label.reasons for by, label in labels.votes[first].items()} == {
        "Ada": (REASONS[0],),
        "Ben": (REASONS[1],),
    }
    assert labels.votes[second]["Ben"].reasons == (REASONS[0], REASONS[3])
    assert sum(label.keep is True for of in labels.votes.values() for label in of.values()) == 9
    assert [a.samples for a in labels.agreement()] == [6]


def test_each_sample_is_for_as_many_people_as_it_needs_and_a_restart_goes_on(
    folder: Path, tmp_path: Path
) -> None:
    def opened_again(**settings: Any) -> Labelling:
        return Labelling(Samples([str(folder)]), LabelFile(tmp_path / "labels.jsonl"), **settings)

    def run(labelling: Labelling, by: str, most: int = 99) -> list[str]:
        done: list[str] = []
        answer = labelling.next_of(by)
        while answer["sample"] and len(done) < most:
            done.append(answer["sample"]["key"])
            answer = labelling.label(by, {"key": done[-1], "keep": True, "reasons": []})
        return done

    alone = opened_again(overlap=0.0)
    assert alone.next_of("Ada")["sample"]["key"] != alone.next_of("Ben")["sample"]["key"]
    first = run(alone, "Ada", 2)
    again = opened_again(overlap=0.0)
    rest = run(again, "Ben")
    assert sorted(first + rest) == sorted(ShardSet(folder).keys)
    assert again.next_of("Ada")["sample"] is None
    everybody = opened_again(overlap=1.0)
    assert run(everybody, "Cid") == run(opened_again(overlap=1.0, people=3), "Dot")  # in one order


def test_what_is_no_label_is_refused_and_not_written(site: str, tmp_path: Path, folder: Path) -> None:
    key = ShardSet(folder).keys[0]
    faults = {
        "say your name first": {"key": key, "keep": True},
        "no sample 'other' here": {"by": "Ada", "key": "other", "keep": True},
        "reasons are those that are offered": {"by": "Ada", "key": key, "keep": False, "reasons": ["ugly"]},
        "reasons are for what is dropped": {"by": "Ada", "key": key, "keep": True, "reasons": [REASONS[0]]},
        "it has key, keep and reasons": {"by": "Ada", "key": key},
        "no label: keep": {"by": "Ada", "key": key, "keep": "yes"},
    }
    for message, said in faults.items():
        status, answer = ask(site, "label", **said)
        assert status == 422
        assert message in answer["detail"]
    assert "nothing to take back" in ask(site, "undo", by="Ada")[1]["detail"]
    assert "a request may have" in ask(site, "label", by="Ada", key="x" * 70_000)[1]["detail"]
    assert (tmp_path / "labels.jsonl").read_bytes() == b""
    with pytest.raises(SettingError, match="1 to 8 different ones"):
        Labelling(Samples([str(folder)]), LabelFile(tmp_path / "labels.jsonl"), ("a",) * 2)
