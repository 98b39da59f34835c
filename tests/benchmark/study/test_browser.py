"""Raters at a study in headless Chromium, on real clips: what they see, what is stored, what goes wrong."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.study.creation import create_study
from benchmark.study.records import Side
from curation.sources.assets import CLIPS, fetch
from shards.media import read_video, write_video
from tests.benchmark.study.definitions import tiny
from tests.benchmark.study.serving import serving
from tests.browser import chromium

pytestmark = [pytest.mark.slow, pytest.mark.browser]

ROOT = Path(__file__).parents[3]
FRAMES, FPS = 6, 10.0
# Methods colour their source strongly, each in its own way, so that a picture on the page tells which it is.
COLOURS = {"ruby": (1.0, 0.3, 0.3), "jade": (0.3, 1.0, 0.3), "azure": (0.3, 0.3, 1.0)}
# The mean colour of what a video shows now.
SHOWN = """video => {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 8;
  const context = canvas.getContext('2d');
  context.drawImage(video, 0, 0, 8, 8);
  const data = context.getImageData(0, 0, 8, 8).data;
  return [0, 1, 2].map(c => data.filter((_, i) => i % 4 === c).reduce((a, b) => a + b));
}"""
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def real_study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three methods on three real clips, one of them upright; two raters of seven pairs each."""
    root = tmp_path_factory.mktemp("real")
    clips = ROOT / "data" / "clips"
    fetch(CLIPS, clips)
    people = read_video(clips / "vtest.avi", 690, 690 + FRAMES, (180, 240))[0]
    bikes = read_video(clips / "bikes.mp4", 20, 20 + FRAMES, (180, 320))[0]
    entries = {}
    for number, clip in enumerate((people, bikes, np.ascontiguousarray(bikes[:, :, 100:220]))):
        write_video(root / "data" / "videos" / f"{number}.mp4", clip, FPS)
        for name, colour in COLOURS.items():
            made = np.uint8(clip.mean(-1, keepdims=True) * np.array(colour))
            write_video(root / "results" / name / str(number) / "generate.mp4", made, FPS)
        entries[str(number)] = {
            "<text>": f"<video1> Tint the street of clip {number} in one colour.",
            "<video1>": f"videos/{number}.mp4",
            "<video1> link": f"https://example.org/videos/street-{number}/",
            "direction": "vertical" if number == 2 else "horizontal",
            "target_prompt": "A street in one colour.",
            "source_prompt": "A street.",
            "type": "stylization",
        }
    (root / "data" / "test.json").write_text(json.dumps(entries))
    results = {name: root / "results" / name for name in COLOURS}
    asked = {"pairs": 3, "raters": 2, "raters_per_pair": 2, "height": 180}
    create_study(tiny("Streets", root, results, **asked), root / "study")
    return root / "study"


@contextmanager
def at(browser: Any, origin: str, may_fail: bool = False, **options: Any) -> Iterator[Any]:
    """A page of a new browser profile; it may ask for nothing but the study, and no script may fail."""
    context = browser.new_context(**options)
    context.set_default_timeout(20_000)
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda m: faults.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.on("request", lambda r: None if r.url.startswith(origin) else pytest.fail(r.url))
    yield page
    context.close()
    assert may_fail or faults == []


def shoot(page: Any, name: str) -> None:
    """Keep a picture of the whole page in the folder that SCREENSHOTS names, if it does."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/study-{name}.png", full_page=True)


def method_of(page: Any, slot: str) -> str:
    """Which method the picture of a result is of, by its strongest colour."""
    sums = page.locator(f".{slot} video").evaluate(SHOWN)
    return list(COLOURS)[int(np.argmax(sums))]


def watch(page: Any) -> None:
    """Play until the questions unlock."""
    page.get_by_role("button", name="Play").click()
    page.locator("#lock", has_text="You can answer now").wait_for()


def choose(page: Any, sides: list[Side]) -> None:
    """Answer the questions with a pointer."""
    for question, side in zip(page.locator(".question").all(), sides, strict=True):
        question.locator(f"input[value={side}]").check()


def trial_of(page: Any) -> str:
    """The trial that a page shows."""
    return str(page.locator("#pair").get_attribute("data-trial"))


def begin(page: Any, link: str) -> None:
    """Open a rater's link and go past the welcome."""
    page.goto(link)
    page.get_by_role("button", name="Start").click()
    page.locator("#pair").wait_for()


def test_two_raters_take_part_at_a_desk_and_on_a_phone(real_study: Path) -> None:
    orders = ("left", "same", "right"), ("same", "right", "left"), ("right", "left", "same")
    sides: list[list[Side]] = [list(order) for order in orders]  # type: ignore[arg-type]
    seen: dict[str, tuple[str, str]] = {}
    given: dict[str, dict[str, Side]] = {}
    with serving(real_study) as (origin, store), chromium() as browser:
        criteria = [question.id for question in store.definition.questions]
        for label, options in (("desk", DESKTOP), ("phone", PHONE)):
            rater, token = store.invite(label)
            link, number = f"{origin}/r/{token}", 0
            while number < rater.total:
                # A profile for every three pairs: who opens the link again goes on where they stopped.
                with at(browser, origin, **options) as page:
                    page.goto(link) if number else begin(page, link)
                    for number in range(number, min(number + 3, rater.total)):  # noqa: B020
                        assert (
                            page.locator("label.progress")
                            .inner_text()
                            .startswith(f"Comparison {number + 1} of {rater.total}")
                        )
                        trial = trial_of(page)
                        first = number == 0
                        if first:
                            check_first_page(page)
                            shoot(page, f"{label}-locked")
                        else:
                            assert not page.locator("#practice").count()
                        watch(page)
                        check_in_step(page)
                        wanted = sides[number % 3]
                        if label == "desk":
                            page.keyboard.press(" ")  # pauses
                            for side in wanted:
                                page.keyboard.press(str(("left", "same", "right").index(side) + 1))
                        else:
                            choose(page, wanted)
                        seen[trial] = (method_of(page, "left"), method_of(page, "right"))
                        given[trial] = dict(zip(criteria, wanted, strict=True))
                        width = page.evaluate("document.documentElement.scrollWidth")
                        assert width <= options["viewport"]["width"]  # type: ignore[index]
                        shoot(page, f"{label}-{number}")
                        with page.expect_navigation():
                            if label == "desk":
                                page.keyboard.press("Enter")
                            else:
                                page.get_by_role("button", name="Send answers").tap()
                    number += 1
                    if number == rater.total:
                        page.get_by_role("heading", name="Thank you").wait_for()
                        shoot(page, f"{label}-done")
        votes = store.votes()
    assert {vote.trial: vote.answers for vote in votes} == given
    assert len(votes) == 14
    assert {vote.kind for vote in votes} == {"practice", "pair", "gold_tie", "gold_loss", "repeat"}
    whole = [vote for vote in votes if vote.kind != "gold_loss"]  # the corrupted copy has other colours
    assert {vote.trial: (vote.left, vote.right) for vote in whole} == {
        vote.trial: seen[vote.trial] for vote in whole
    }
    assert len({vote.left for vote in whole}) > 1
    assert all(FRAMES / FPS < vote.seconds < 60 for vote in votes)


def check_first_page(page: Any) -> None:
    """Before anything was played: locked, also for who jumps to the end; large enough; labelled."""
    assert page.locator("#practice").is_visible()
    radios, send = page.get_by_role("radio"), page.get_by_role("button", name="Send answers")
    assert radios.count() == 9
    page.locator(".scrub").fill(str(FRAMES - 1))
    last = page.locator(".frame", has_text=f"{FRAMES} / {FRAMES}")
    last.wait_for()
    page.get_by_role("button", name="One frame on").click()  # which is the first one
    page.get_by_role("checkbox", name="Repeat").uncheck()
    page.locator(".scrub").fill(str(FRAMES // 2))
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Pause").wait_for(state="hidden")  # at its end, without its beginning
    last.wait_for()
    assert all(radio.is_disabled() for radio in radios.all())
    assert send.is_disabled()
    page.keyboard.press("1")
    assert not page.locator(":checked[type=radio]").count()
    for button in page.locator("button:visible, .choices label").all():
        box = button.bounding_box()
        assert box["height"] >= 44
        assert box["width"] >= 44
    for control in (".play", ".scrub"):  # they are in view without scrolling, below all the videos
        box = page.locator(control).bounding_box()
        assert box["y"] + box["height"] <= page.viewport_size["height"]
    names = [group.get_attribute("aria-labelledby") for group in page.get_by_role("radiogroup").all()]
    assert len(set(names)) == 3
    page.get_by_role("checkbox", name="Repeat").check()
    boxes = [page.locator(f".{slot} video").bounding_box() for slot in ("source", "left", "right")]
    assert len({(round(box["width"]), round(box["height"])) for box in boxes}) == 1


def check_in_step(page: Any) -> None:
    """The three videos show the same frame, give or take one, while they play."""
    times = page.evaluate("[...document.querySelectorAll('video')].map(video => video.currentTime)")
    near = [(time - times[0] + 0.5 * FRAMES / FPS) % (FRAMES / FPS) - 0.5 * FRAMES / FPS for time in times]
    assert max(map(abs, near)) <= 2 / FPS, times


def test_answers_outlive_what_goes_wrong(study: Path) -> None:
    pattern = re.compile("Not saved yet")
    with chromium() as browser:
        with serving(study) as (origin, store):
            port = int(origin.rpartition(":")[2])
            _, token = store.invite("anna")
            context = at(browser, origin, may_fail=True, **DESKTOP)
            page = context.__enter__()
            begin(page, f"{origin}/r/{token}")
            first = trial_of(page)
            watch(page)
            choose(page, ["left", "same", "right"])
            page.reload()  # answers and the lock are as they were
            assert page.locator(":checked[type=radio]").count() == 3
            assert page.get_by_role("button", name="Send answers").is_enabled()
            before = [vote.trial for vote in store.votes()]
        page.get_by_role("button", name="Send answers").click()  # nobody listens
        page.locator("#status", has_text=pattern).wait_for()
        shoot(page, "waiting")
        assert page.locator(":checked[type=radio]").count() == 3
        with serving(study, port) as (origin, store):
            assert before == [vote.trial for vote in store.votes()] == []
            page.locator("label.progress", has_text="Comparison 2 of").wait_for()  # by itself
            assert [(vote.trial, list(vote.answers.values())) for vote in store.votes()] == [
                (first, ["left", "same", "right"])
            ]
            # A video that does not load says so, and can be loaded again.
            rater = store.rater_of(token)
            assert rater is not None
            name = store.media(rater, trial_of(page), "left")
            hidden = (study / "media" / str(name)).rename(study / "media" / "away")
            fresh = at(browser, origin, may_fail=True, **DESKTOP)
            other = fresh.__enter__()
            other.goto(f"{origin}/r/{token}")
            other.locator(".left .fault").wait_for()
            shoot(other, "fault")
            hidden.rename(study / "media" / str(name))
            other.locator(".left").get_by_role("button", name="Load it again").click()
            other.locator(".left .fault").wait_for(state="hidden")
            # Both tabs show this pair: the second vote differs, is not taken, and leads on.
            for tab, wanted in ((other, ["left"] * 3), (page, ["right"] * 3)):
                watch(tab)
                choose(tab, wanted)  # type: ignore[arg-type]
            other.get_by_role("button", name="Send answers").click()
            other.locator("label.progress", has_text="Comparison 3 of").wait_for()
            page.get_by_role("button", name="Send answers").click()
            page.locator("#status", has_text="The first answer stays").wait_for()
            shoot(page, "stale")
            page.get_by_role("link", name="Continue").click()
            page.locator("label.progress", has_text="Comparison 3 of").wait_for()
            assert [set(vote.answers.values()) for vote in store.votes()][1] == {"left"}
            # Signed out, who opens the link again finds the answers as they were.
            watch(page)
            choose(page, ["same"] * 3)  # type: ignore[arg-type]
            page.context.clear_cookies()
            page.get_by_role("button", name="Send answers").click()
            page.locator("#status", has_text="no longer signed in").wait_for()
            page.goto(f"{origin}/r/{token}")
            assert page.locator(":checked[value=same]").count() == 3
            # A link that was opened again elsewhere in this browser makes the page's token old.
            page.context.request.get(f"{origin}/r/{token}")
            page.get_by_role("button", name="Send answers").click()
            page.locator("label.progress", has_text="Comparison 4 of").wait_for()
            watch(page)
            choose(page, ["same"] * 3)  # type: ignore[arg-type]
            # The study is closed while a pair is judged.
            store.close()
            page.get_by_role("button", name="Send answers").click()
            page.locator("#status", has_text="was closed before").wait_for()
            page.get_by_role("link", name="Continue").click()
            page.get_by_role("heading", name="The study is closed").wait_for()
            assert len(store.votes()) == 3
            fresh.__exit__(None, None, None)
            context.__exit__(None, None, None)
