"""The pages of a run: bounded, whole, and readable in a browser at the width of a telephone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from curation.core.outcome import Outcome
from curation.core.results import Candidate
from curation.engine import report
from curation.engine.progress import RunProgress
from curation.engine.report import (
    Pair,
    Rejected,
    Rejections,
    Shown,
    grouped,
    write_contact_sheet,
    write_gallery,
)
from curation.sources.clips import Clip
from shards.media import write_image, write_video
from tests.browser import chromium, opened

WORD = "<video1> Remove " + "the_very_long_name_of_an_object_" * 6 + ". <video2>"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, square: Callable[..., Any]) -> list[Pair]:
    """Twelve accepted pairs of small videos."""
    folder = tmp_path_factory.mktemp("pairs")
    source, target, _ = square(9, 96, 128)
    write_video(folder / "source.mp4", source, 10)
    write_video(folder / "target.mp4", target, 10)
    write_image(folder / "preview.png", np.hstack([source[0], target[0]]))
    media = [Shown("video1", False, folder / "source.mp4"), Shown("video2", True, folder / "target.mp4")]
    scores = {"ring_error": 1.25, "aesthetics": None}
    return [
        Pair(f"object_removal-{n:04d}", "train", [WORD, "<b>add</b>"], folder, media, scores)
        for n in range(12)
    ]


@pytest.fixture
def rejections(pairs: list[Pair], tmp_path: Path) -> Rejections:
    """Candidates of a video file, of a rendered scene and of a file that is gone; one refused clip."""
    source = str(pairs[0].media[0].path)
    candidates = [Rejected("leftover object", source, n, n + 2, 10.0) for n in range(7)]
    candidates += [Rejected("hardly seen", "seed 3", 0, 9, 10.0)] * 2
    candidates += [Rejected("<i>too small</i>", str(tmp_path / "gone.mp4"), 0, 9, 10.0)]
    return Rejections(grouped(candidates), {"hardly moves": 4}, ["a.mp4: truncated"] * 25)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_a_large_page_loads_what_is_looked_at(
    browser: Any,
    pairs: list[Pair],
    rejections: Rejections,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    width: int,
) -> None:
    monkeypatch.setattr(report, "INLINE_BYTES", 1000)
    write_gallery(tmp_path / "gallery.html", pairs, "object_removal", rejections)
    assert (tmp_path / "gallery.html").stat().st_size < 60_000
    with opened(browser, (tmp_path / "gallery.html").as_uri(), "file:", "data:") as page:
        page.set_viewport_size({"width": width, "height": 700})
        first = page.locator("article").first
        page.wait_for_function("!document.querySelector('video').paused")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator("video").count() == 24
        last = page.locator("video").nth(23)
        assert last.evaluate("v => v.paused && v.networkState !== v.NETWORK_LOADING && v.readyState === 0")
        assert WORD in first.inner_text()
        assert "ring_error 1.25, aesthetics none" in first.inner_text()
        assert "video1, given" in first.inner_text()
        assert page.locator(".legend").first.is_visible()
        rejected = page.get_by_label("Rejected", exact=True)
        rejected.scroll_into_view_if_needed()
        words = rejected.inner_text()
        for line in (
            "Rejected candidates: 10",
            "leftover object: 7, 6 of them shown",
            "hardly seen: 2",
            "seed 3, frames 0 to 9: 2 candidates",
            "<i>too small</i>: 1",
            "Clips refused before any work: 4",
            "Quarantined: 25",
            "and 5 more",
        ):
            assert line in words
        images = rejected.locator("img")
        assert images.count() == 6  # the scene has no file, and one file is gone
        images.last.scroll_into_view_if_needed()
        page.wait_for_function("[...document.querySelectorAll('img')].every(i => i.naturalWidth > 0)")


def test_media_lie_in_a_small_page_and_beside_a_large_one(
    pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, folder = tmp_path / "gallery.html", tmp_path / "gallery"
    write_gallery(page, pairs[:2], "object_removal")
    assert page.read_text().count("data:video/mp4") == 4
    assert not folder.exists()

    monkeypatch.setattr(report, "INLINE_BYTES", 1000)
    write_gallery(page, pairs, "object_removal")
    assert len(list(folder.iterdir())) == 12 * 2 * 2  # a video and its poster
    assert (folder / "object_removal-0003-video2.mp4").read_bytes() == pairs[3].media[1].path.read_bytes()
    assert "data:video" not in page.read_text()

    write_gallery(page, pairs[:3], "object_removal")  # what no page names any more goes
    assert {path.name.split("-video")[0] for path in folder.iterdir()} == {p.key for p in pairs[:3]}

    monkeypatch.setattr(report, "INLINE_BYTES", 10**7)
    write_gallery(page, pairs[:3], "object_removal")
    assert [path.name for path in tmp_path.iterdir()] == ["gallery.html"]


def test_a_contact_sheet_is_bounded(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    write_image(tmp_path / "preview.png", random.integers(0, 256, (480, 640, 3), dtype=np.uint8))
    pairs = [Pair(f"pair-{n}", "train", [], tmp_path, [], {}) for n in range(200)]
    write_contact_sheet(tmp_path / "contact.jpg", pairs)
    assert (tmp_path / "contact.jpg").stat().st_size < report.SHEET_BYTES
    sheet = cv2.imread(str(tmp_path / "contact.jpg"))
    assert sheet.shape == (18 + 3 * 498, 3 * 640, 3)  # noise: a quarter of the pairs fit


def test_progress_counts_clips_and_tells_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    clip = Clip("a.mp4", "0" * 64, "a.mp4", 0, 9, 10.0, 48, 64, "train")
    cut = [Outcome("a.mp4", clip, (0, place), 5) for place in range(4)]
    cut += [Outcome("a.mp4", clip, (0, 4), 5, refused="hardly moves")]
    cut += [Outcome("b.mp4", number=(1, 0), error="b.mp4: truncated")]

    def finish(progress: RunProgress, outcome: Outcome) -> None:
        if outcome.clip and not outcome.refused:
            outcome.candidates = [Candidate(), Candidate(reason="too small")]
        progress.add(outcome)

    with RunProgress(2, every=0.0) as progress:
        for outcome in cut:
            progress.cut(outcome)
        for number, outcome in enumerate(cut):
            time.sleep(0.6 if number == 0 else 0)
            finish(progress, outcome)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "clips 0/1, 0 accepted, 0:00:00, 1/2 files cut"
    assert lines[4] == "clips 0/4, 0 accepted, 0:00:00, 1/2 files cut"
    assert lines[5] == "clips 0/4, 0 accepted, 0:00:00"
    assert lines[6] == "clips 1/4, 1 accepted, 0:00:01, 0:00:02 left"
    assert lines[-1] == "clips 4/4, 4 accepted, 0:00:01"
    assert sum(line.startswith("clips 4/4") for line in lines) == 3  # not once more at the end

    # clips that are heard of when they are finished, in whatever order
    with RunProgress(2, every=0.0) as progress:
        for outcome in reversed(cut):
            progress.arrived(outcome)
            finish(progress, outcome)
    assert capsys.readouterr().err.splitlines()[-1] == "clips 4/4, 4 accepted, 0:00:00"

    with RunProgress(2) as progress:
        for outcome in cut:
            progress.cut(outcome)
            finish(progress, outcome)
    assert len(capsys.readouterr().err.splitlines()) == 1  # the last
