"""The page in headless Chromium: from a file, without a network, its videos play and stay in step.

Frames are compared by pixels too: what is shown at frame k is frame k.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.metrics.psnr import Psnr
from benchmark.report import bar_charts
from benchmark.report.training_curves import Curve, svg
from benchmark.statistics.intervals import Mean
from shards.media import read_video
from shards.reports.pages import ASSETS
from shards.writer import write_shards
from tests.browser import TIMES, chromium, opened, ready_card, settle

PIXELS = """video => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0);
  return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
}"""

# The texts of figures that reach beyond their figure, or the window, by more than rounding.
CUT = """() => {
  const texts = [...document.querySelectorAll(".curves :is(.name, .ticks span, svg text)")];
  return texts.filter((text) => {
    const range = document.createRange();
    range.selectNodeContents(text);
    const [own, frame] = [range.getBoundingClientRect(), text.closest("figure").getBoundingClientRect()];
    return !own.width || own.left < frame.left - 0.5 || own.right > frame.right + 0.5 ||
      own.top < frame.top - 0.5 || own.bottom > frame.bottom + 0.5 || own.right > innerWidth + 0.5;
  }).map((text) => text.textContent);
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Any, scored: Path) -> Iterator[Any]:
    """The report, opened from its file; nothing but the file may be asked for."""
    with opened(browser, (scored / "report.html").as_uri(), "file:", "blob:", "data:") as page:
        yield page


@pytest.mark.browser
def test_all_videos_of_an_item_play_in_step(page: Any) -> None:
    card, fps, _ = ready_card(page)
    assert card.locator("video").count() == 3
    before = settle(page, card)
    card.locator(".play").click()
    page.wait_for_function(
        "([card, before]) => [...card.querySelectorAll('video')].every((v, i) => "
        "!v.paused && v.readyState >= 2 && v.currentTime > before[i] + 0.15)",
        arg=[card.element_handle(), before],
    )
    for _ in range(8):
        times = card.evaluate(TIMES)
        assert max(times) - min(times) <= 1 / fps, times
        page.wait_for_timeout(60)
    card.locator(".play").click()
    stopped = settle(page, card)
    assert len({round(t * fps, 3) for t in stopped}) == 1
    page.wait_for_timeout(200)
    assert card.evaluate(TIMES) == stopped


@pytest.mark.browser
def test_playing_goes_on_after_the_end(page: Any) -> None:
    card, _, frames = ready_card(page, 1)
    card.locator(".scrub").fill(str(frames - 2))
    settle(page, card)
    card.locator(".play").click()
    page.wait_for_function(
        "card => [...card.querySelectorAll('video')].every(v => v.currentTime > 0.15 && v.currentTime < 0.7)",
        arg=card.element_handle(),
    )
    card.locator(".play").click()


@pytest.mark.browser
def test_a_seek_puts_all_videos_on_that_frame(page: Any) -> None:
    card, fps, frames = ready_card(page)
    for frame in (frames - 1, 3, 0, 5):
        card.locator(".scrub").fill(str(frame))
        times = settle(page, card)
        assert max(times) - min(times) <= 1 / fps
        assert all(frame / fps <= t < (frame + 1) / fps for t in times), (frame, times)
        assert card.locator(".frame").inner_text() == f"{frame + 1} / {frames}"


@pytest.mark.browser
def test_the_frame_shown_is_the_frame_asked_for(page: Any, scored: Path) -> None:
    card, _, frames = ready_card(page)
    text = (scored / "report.html").read_text()
    place = card.get_attribute("data-place")
    blocks = re.findall(rf'<script type="text/plain" id="v{place}-[0-9]+">([^<]+)</script>', text)
    assert len(blocks) == 3
    for number, data in enumerate(blocks):
        clip, _ = read_video(base64.b64decode(data))
        assert len(clip) == frames
        for frame in (0, 4, frames - 1):
            card.locator(".scrub").fill(str(frame))
            settle(page, card)
            shown = np.array(card.locator("video").nth(number).evaluate(PIXELS)).reshape(*clip.shape[1:3], 4)
            distances = [float(np.abs(shown[..., :3] - picture.astype(int)).mean()) for picture in clip]
            # colours differ a little: the browser interpolates chroma in its own way
            assert distances[frame] <= min(distances) + 0.3
            assert distances[frame] < 8


@pytest.mark.browser
def test_keys_step_and_play(page: Any) -> None:
    card, _, frames = ready_card(page)
    card.focus()
    label = card.locator(".frame")
    for key, wanted in (
        ("ArrowRight", 2),
        ("ArrowRight", 3),
        ("ArrowLeft", 2),
        ("End", frames),
        ("ArrowRight", 1),
        ("Home", 1),
    ):
        page.keyboard.press(key)
        settle(page, card)
        assert label.inner_text() == f"{wanted} / {frames}"
    page.keyboard.press(" ")
    page.wait_for_function("card => !card.querySelector('video').paused", arg=card.element_handle())
    assert card.locator(".play").get_attribute("aria-label") == "Pause"
    page.keyboard.press(" ")
    page.wait_for_function("card => card.querySelector('video').paused", arg=card.element_handle())


@pytest.mark.browser
def test_cards_are_filtered_and_sorted(page: Any) -> None:
    shown = "() => [...document.querySelectorAll('.card:not([hidden])')]"
    assert page.evaluate(f"({shown})().length") == 12
    page.select_option("#task", "object_removal")
    page.select_option("#category", "mask in text")
    tasks = page.evaluate(f"({shown})().map(c => [c.dataset.task, c.dataset.category].join())")
    assert tasks == ["object_removal,mask in text"] * 3
    assert page.locator("#shown").inner_text() == "3 of 12 items"
    page.select_option("#task", "")
    page.select_option("#category", "")
    page.select_option("#sort", "psnr_inside")
    for order, sign in (("-1", -1), ("1", 1)):
        page.select_option("#order", order)
        # the first cell of the model's row: after the source
        cells = page.evaluate(
            f"({shown})().map(c => c.querySelector('table.item').rows[2].cells[1].textContent)"
        )
        scores = [float(text) for text in cells]
        assert len(scores) == 12
        assert scores == sorted(scores, key=lambda v: sign * v)


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 800, 1280])
def test_the_page_fits_its_window(browser: Any, scored: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800})
    opened = context.new_page()
    opened.goto((scored / "report.html").as_uri())
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    widths = opened.evaluate(
        "[...document.querySelector('.card').querySelectorAll('.frame-box')].map(v => v.clientWidth)"
    )
    assert max(widths) - min(widths) <= 1  # equal size
    names = opened.locator(".plot").first.locator(".name").all_inner_texts()
    assert "object_addition, mask in text" in names
    assert opened.evaluate(CUT) == []
    context.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_no_label_of_a_figure_is_cut(browser: Any, width: int) -> None:
    names = [
        "short",
        "object_addition, " + "mask in text " * 12,
        "W" * 150,
        "長い名前" * 30,
        "<b>bold</b> & more",
    ]
    groups = {
        name: [Mean(20.0 + n, 18.0, 25.0, 9, 1, 5), Mean(-3e-5, None, None, 1, 0, 1)]
        for n, name in enumerate(names)
    }
    own = Path(bar_charts.__file__).parent / "templates" / "report.css"
    style = (ASSETS / "page.css").read_text() + own.read_text()
    curve = Curve("loss", np.arange(0, 560_001, 10_000.0), np.linspace(1e-5, 0.12345, 57))
    figures = f"<figure>{bar_charts.plot(Psnr('inside'), groups)}</figure><figure>{svg(curve)}</figure>"
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    page.set_content(f"<style>{style}</style><main><div class='curves'>{figures}</div></main>")
    assert page.locator(".plot .name").all_text_contents() == names
    assert page.evaluate(CUT) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def test_the_page_names_nothing_outside_itself(scored: Path) -> None:
    text = (scored / "report.html").read_text()
    page = re.sub(r'<script type="text/plain"[^<]*', "", text)
    assert re.findall(r"""<[^>]*\s(?:src|href|action|poster|data-src)=["'](?!data:|#item=)""", page) == []
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "script-src 'sha256-" in policy[1]
    assert "http" not in page.replace(policy[0], "")
    assert "url(" not in page
    assert "@import" not in page


def test_page_states_what_ran(scored: Path) -> None:
    text = (scored / "report.html").read_text()
    for words in ("Copy the source", "Curated target", "train_loss", "val_loss", "sha256", "edit pair"):
        assert words in text


def test_text_from_a_sample_cannot_become_markup(
    pair_items: Callable[..., Any], tmp_path: Path, command: Callable[..., Any]
) -> None:
    items = pair_items(tmp_path / "media", pairs=1, heldout=1)[:1]
    text = "<video1> Remove </script><img src=x onerror=alert(1)> '\"><b>it</b>. <video2>"
    write_shards(tmp_path / "shards", [(s.model_copy(update={"text": text}), f) for s, f in items])
    done = command("run", "--data", tmp_path / "shards", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<img src" not in page
    assert "<b>" not in page.replace("<b>Copy the source</b>", "")
    assert "&lt;video1&gt; Remove &lt;/script&gt;" in page
