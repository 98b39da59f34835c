"""Headless Chromium for the tests that open pages, and what they ask of a report's cards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMES = "card => [...card.querySelectorAll('video')].map(v => v.currentTime)"
# Resolves when the card has its videos, and every one has reached its place and can show it.
SETTLED = """card => {
  const videos = [...card.querySelectorAll('video')];
  return videos.length && videos.every(v => v.readyState >= 2 && !v.seeking);
}"""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; a test without one fails and says what to install."""
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        found = shutil.which("chromium") or shutil.which("google-chrome")
        try:
            running = playwright.chromium.launch(executable_path=found, args=FLAGS)
        except Error as error:
            pytest.fail(
                f"no Chromium: install the chromium package or run `playwright install chromium` ({error})"
            )
        yield running
        running.close()


@contextmanager
def opened(browser: Any, url: str, *inside: str, may_break_off: bool = False) -> Iterator[Any]:
    """A page; fails on console errors, failed requests, and requests that begin with none of `inside`.

    Args:
        may_break_off: the page may leave media before they are there, as one that turns its pages does.
    """
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda m: faults.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "requestfailed",
        lambda r: None if may_break_off and r.failure == "net::ERR_ABORTED" else faults.append(r.url),
    )
    page.on("request", lambda r: None if r.url.startswith(inside) else faults.append(r.url))
    page.goto(url)
    yield page
    context.close()
    assert faults == []


def settle(page: Any, card: Any) -> list[float]:
    """Wait until the card's videos show what they were asked for; their times in seconds."""
    page.wait_for_function(SETTLED, arg=card.element_handle())
    times: list[float] = card.evaluate(TIMES)
    return times


def ready_card(page: Any, number: int = 0) -> tuple[Any, float, int]:
    """A card scrolled into view with its videos loaded, its frame rate and its number of frames."""
    card = page.locator(".card").nth(number)
    card.scroll_into_view_if_needed()
    settle(page, card)
    return card, float(card.get_attribute("data-fps")), int(card.get_attribute("data-frames"))
