"""The report page at full size in headless Chromium: 200 items with six methods and their source.

Loading is timed from the call to go there until the first card in view shows a frame or its poster; memory is
read after scrolling through the whole page. One encoded file per row serves all items, under a name each.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmark.core.item import SOURCE, Geometry, Item, Loaded, Worded
from benchmark.core.posters import write_poster
from benchmark.evaluation.results import Outcome, Run, RunConfig
from benchmark.metrics import Metric
from benchmark.metrics.psnr import Psnr
from benchmark.metrics.ssim import Ssim
from benchmark.report.html import write_report
from shards.media import write_video
from tests.browser import chromium
from tests.perf.measure import Figure, scene

REST = 2000  # milliseconds on every card, so that its videos load
METHODS = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot")
FRAMES, HEIGHT, WIDTH, FPS = 65, 352, 624, 24.0
LIVE = "[...document.querySelectorAll('video')].filter(v => v.currentSrc || v.src).length"
# The first card shows something in every place: a loaded frame, or a poster.
SHOWN = """() => [...document.querySelector('.card').querySelectorAll('.videos figure')].every((figure) => {
  const [video, poster] = [figure.querySelector('video'), figure.querySelector('img')];
  return (video && video.readyState >= 2) || (poster && poster.complete && poster.naturalWidth);
})"""


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """Write and open the page as a folder and, for a part of the items, as one file."""
    figures = []
    for name, items, inside in (("folder", 10 if quick else 200, False), ("file", 4 if quick else 48, True)):
        folder = scratch / name
        run = planted_run(folder, items)
        begin = time.perf_counter()
        write_report(folder / "report.html", run, [], {}, inside)
        first = time.perf_counter() - begin
        begin = time.perf_counter()
        write_report(folder / "report.html", run, [], {}, inside)
        again = time.perf_counter() - begin
        size = (folder / "report.html").stat().st_size / 1e6
        what = f"{name} page of {items} items"
        figures.append(Figure(f"{what}, written", first, again, "s", f"{size:.3g} MB; best: once more"))
        figures += opened_figures(what, (folder / "report.html").as_uri(), quick, REST)
    return figures


def opened_figures(what: str, address: str, quick: bool, rest: int) -> list[Figure]:
    """Seconds until the page is there, most videos at a time and memory while scrolling through it."""
    loads, interactive = [], []
    with chromium() as browser:
        for _ in range(1 if quick else 3):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            page = context.new_page()
            begin = time.perf_counter()
            page.goto(address, wait_until="commit")
            page.wait_for_selector("#cards .card")
            page.evaluate("document.querySelector('.card').scrollIntoView()")
            page.wait_for_function(SHOWN)
            interactive.append(time.perf_counter() - begin)
            page.wait_for_load_state("load")
            loads.append(time.perf_counter() - begin)
            context.close()
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.goto(address)
        page.evaluate("document.querySelector('.card').scrollIntoView()")
        page.wait_for_function(SHOWN)
        before = memory_of_renderers()
        most = 0
        cards = page.locator("#cards .card").count()
        begin = time.perf_counter()
        for number in range(cards):
            page.evaluate("n => document.querySelectorAll('.card')[n].scrollIntoView()", number)
            page.wait_for_timeout(rest)
            most = max(most, page.evaluate(LIVE))
        scrolled = time.perf_counter() - begin
        after = memory_of_renderers()
        begin = time.perf_counter()
        page.select_option("#sort", index=1)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        sorting = time.perf_counter() - begin
        context.close()
    memory = f"renderers PSS {after[0]:.0f} (before {before[0]:.0f}), RSS {after[1]:.0f} ({before[1]:.0f}) MB"
    return [
        Figure(f"{what}, first card shown", statistics.median(interactive), min(interactive), "s"),
        Figure(f"{what}, load event", statistics.median(loads), min(loads), "s"),
        Figure(f"{what}, scrolled through", scrolled, None, "s", f"{memory}; {most} videos live at most"),
        Figure(f"{what}, sorted", sorting, None, "s"),
    ]


def memory_of_renderers() -> tuple[float, float]:
    """PSS and RSS in MB, summed over the renderer processes below this one."""
    import psutil

    pss = rss = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            if "--type=renderer" in process.cmdline():
                told = process.memory_full_info()
                pss, rss = pss + told.pss / 1e6, rss + told.rss / 1e6
        except psutil.NoSuchProcess:
            continue
    return pss, rss


def planted_run(
    folder: Path, items: int, frames: int = FRAMES, size: tuple[int, int] = (HEIGHT, WIDTH)
) -> Run:
    """A finished run whose scores were drawn; every item has its own names of a video per row."""
    rows = [SOURCE, *METHODS]
    (folder / "videos").mkdir(parents=True)
    for seed, row in enumerate(rows):
        made, *_ = scene(frames, *size, seed=seed)
        write_video(folder / "videos" / f"{row}.mp4", made, FPS, crf=17)  # 0.3 MB
        write_poster(folder / "videos" / f"{row}.mp4", made[0])
    metrics: list[Metric] = [Psnr("inside"), Psnr("outside"), Ssim("inside"), Ssim("outside")]
    draw = np.random.default_rng(0)
    outcomes = []
    for number in range(items):
        geometry = Geometry(frames, *size, FPS)
        item = Item(
            id=f"item-{number:03d}",
            task="edit",
            category=f"kind {number % 20}",
            text=f"Turn the disc of scene {number} into a balloon that drifts away, and keep the rest.",
            content=f"{number:064x}",
            clip=f"clip{number // 2}",
            pair=f"pair{number}",
            native=geometry,
            load=_no_media,
        )
        outcome = Outcome(item, {}, dict.fromkeys(rows, geometry))
        for row in rows:
            outcome.scores[row] = {
                m.name: Worded(float(draw.normal(0.6, 0.1)), f"Said of {row}: a balloon, and it drifts.")
                for m in metrics
            }
            path = folder / "videos" / f"{number}-{row}.mp4"
            path.hardlink_to(folder / "videos" / f"{row}.mp4")
            path.with_suffix(".jpg").hardlink_to(folder / "videos" / f"{row}.jpg")
            outcome.videos[row] = path
        outcomes.append(outcome)
    suite: Any = SimpleNamespace(name="planted", version=1, sha256="0" * 64, remarks=[])
    return Run(RunConfig("planted", "data", None), suite, metrics, outcomes, rows, None, {})


def _no_media() -> Loaded:
    raise ValueError("the page reads no media of items")
