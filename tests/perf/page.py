"""The report page at full size in headless Chromium: 200 items with six methods and their source.

Loading is timed from the call to go there until the first card in view shows a frame or its poster. Memory is
the most while a reader rests on every card until its videos are there, in a tab that no inspector listens to:
for one that does, the renderer keeps every video's file, 0.2 MB each, which would be taken for the page's.
One encoded file per row serves all items, under a name each.
"""

from __future__ import annotations

import json
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

PATIENCE = 20.0  # seconds for a card's videos to be there
READ_EVERY = 10  # cards, at which memory is read
METHODS = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot")
FRAMES, HEIGHT, WIDTH, FPS = 65, 352, 624, 24.0
LIVE = "[...document.querySelectorAll('video')].filter(v => v.currentSrc || v.src).length"
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
CARDS = "document.querySelectorAll('#cards .card').length"
AT_TOP = "document.querySelectorAll('.card')[{}].scrollIntoView()"
LOADED = """(() => {{
  const videos = [...document.querySelectorAll('.card')[{}].querySelectorAll('video')];
  return videos.length > 0 && videos.every((video) => video.readyState >= 2);
}})()"""
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
        figures += opened_figures(what, (folder / "report.html").as_uri(), quick)
    return figures


def opened_figures(what: str, address: str, quick: bool) -> list[Figure]:
    """Seconds until the page is there and is sorted; what scrolling through it takes."""
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
            begin = time.perf_counter()
            page.select_option("#sort", index=1)
            page.evaluate(
                "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
            )
            sorting = time.perf_counter() - begin
            context.close()
    return [
        Figure(f"{what}, first card shown", statistics.median(interactive), min(interactive), "s"),
        Figure(f"{what}, load event", statistics.median(loads), min(loads), "s"),
        Figure(f"{what}, sorted", sorting, None, "s"),
        scrolled_through(what, address),
    ]


def scrolled_through(what: str, address: str) -> Figure:
    """Seconds and memory of resting on each card until all of its videos can show a frame."""
    with chromium() as browser:
        empty = memory()
        tab = Unwatched(browser, address)
        while not tab.told(f"document.readyState === 'complete' && {CARDS}"):
            time.sleep(0.1)
        cards = tab.told(CARDS)
        reads, most, loaded = [memory()], 0, 0
        begin = time.perf_counter()
        for number in range(cards):
            tab.told(AT_TOP.format(number))
            until = time.monotonic() + PATIENCE
            while not (there := tab.told(LOADED.format(number))) and time.monotonic() < until:
                time.sleep(0.05)
            loaded += there
            most = max(most, tab.told(LIVE))
            if number % READ_EVERY == READ_EVERY - 1 or number == cards - 1:
                reads.append(memory())
        scrolled = time.perf_counter() - begin
    before, (page, whole) = reads[0], (max(read[n] for read in reads) for n in (0, 1))
    told = (
        f"the page at most {page:.0f} MB (at first {before[0]:.0f}), with all of Chromium {whole:.0f} "
        f"(without a page {empty[1]:.0f}); {loaded} of {cards} cards loaded, {most} videos live at most"
    )
    return Figure(f"{what}, scrolled through", scrolled, None, "s", told)


class Unwatched:
    """A tab of a browser of playwright's that playwright does not listen to, as it does to its own.

    It is one of a browser context of its own, and is told what to do through its session alone, in which no
    domain of the protocol is enabled.
    """

    def __init__(self, browser: Any, address: str) -> None:
        self.session, self.answers, self.count = browser.new_browser_cdp_session(), dict[int, Any](), 0
        self.session.on("Target.receivedMessageFromTarget", self._take)
        context = self.session.send("Target.createBrowserContext")["browserContextId"]
        what = {"url": address, "browserContextId": context, "width": 1280, "height": 900}
        target = self.session.send("Target.createTarget", what)["targetId"]
        attached = self.session.send("Target.attachToTarget", {"targetId": target, "flatten": False})
        self.id = attached["sessionId"]

    def told(self, script: str) -> Any:
        """What a JavaScript expression gives."""
        self.count += 1
        what = {"expression": script, "returnByValue": True}
        message = json.dumps({"id": self.count, "method": "Runtime.evaluate", "params": what})
        self.session.send("Target.sendMessageToTarget", {"sessionId": self.id, "message": message})
        while self.count not in self.answers:
            self.session.send("Browser.getVersion")  # events are taken while something is waited for
        return self.answers.pop(self.count)["result"]["result"].get("value")

    def _take(self, event: dict[str, Any]) -> None:
        answer = json.loads(event["message"])
        if "id" in answer:  # else it is an event, as of a target that is left
            self.answers[answer["id"]] = answer


def memory() -> tuple[float, float]:
    """PSS in MB of the renderers, and of all processes of the browsers, below this process."""
    import psutil

    renderers = every = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            words = process.cmdline()
            if process.name() == "node":  # playwright's own
                continue
            size = process.memory_full_info().pss / 1e6
        except psutil.NoSuchProcess:
            continue
        every += size
        renderers += size * ("--type=renderer" in words)
    return renderers, every


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
