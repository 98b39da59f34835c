"""The page of `make app` in headless Chromium, used as a person would; and its limits without a browser.

The server is the real command in a process of its own, the editor small and random.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import pytest
from PIL import Image

from model import Editor
from model.app.files import FileStore
from model.app.server import build
from model.app.service import AppConfig, EditService, RequestRejected, Stopped
from model.cli import main
from model.inference.templates import FORMS
from shards.errors import ConfigError
from shards.media import probe, write_image, write_video
from tests.browser import chromium
from tests.model.page_server import PageServer

PLAYS = "video => video.readyState >= 2 && video.videoWidth > 0"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A short and a long video, and a picture."""
    folder = tmp_path_factory.mktemp("uploads")
    t, y, x = np.mgrid[:40, :96, :128]
    clip = np.stack([x * 2, y * 2, 100 + 3 * t], -1).astype(np.uint8)
    named = {"video": folder / "street.mp4", "long": folder / "long.mp4", "image": folder / "cat.png"}
    write_video(named["video"], clip[:9], 12.5)
    write_video(named["long"], clip, 12.5)
    write_image(named["image"], clip[0])
    return named


@pytest.fixture
def page(page_server: PageServer) -> Iterator[Any]:
    """The page, opened; nothing but it may be asked for."""
    with chromium() as browser:
        opened = browser.new_page(viewport={"width": 1280, "height": 1000})
        opened.set_default_timeout(60_000)
        hosts: set[str | None] = set()
        opened.on("request", lambda request: hosts.add(urlparse(request.url).hostname))
        opened.goto(page_server.url)
        opened.locator("#instruction textarea").wait_for()
        yield opened
    assert hosts - {None, ""} <= {"127.0.0.1"}  # None: blob and data addresses


def upload(page: Any, slot: str, file: Path) -> None:
    page.locator(f"#{slot} input[type=file]").set_input_files(str(file))


def wait_for_result(page: Any, server: PageServer) -> None:
    """Wait for the result of a run; what the page and the server say instead is what the test fails with."""
    from playwright.sync_api import TimeoutError as TooLate

    error = page.locator(".toast-body.error")
    try:
        page.locator("#download").or_(error).first.wait_for()
    except TooLate:
        said = page.locator("#line").inner_text()
        pytest.fail(f"no result; the page says {said!r}, the server:\n{server.log()[-3000:]}")
    assert not error.count(), error.first.inner_text()


@pytest.mark.browser
def test_a_video_is_uploaded_instructed_edited_played_and_downloaded(
    page: Any, page_server: PageServer, files: dict[str, Path], tmp_path: Path
) -> None:
    upload(page, "video1", files["video"])
    page.locator("#video1 video").wait_for()
    box = page.locator("#instruction textarea")
    page.get_by_role("button", name="<video1>", exact=True).click()
    # the caret stands behind the tag, and one goes on typing there
    page.wait_for_function("document.activeElement.selectionStart === '<video1> '.length")
    page.keyboard.type("Remove the square.")
    assert box.input_value() == "<video1> Remove the square."
    page.get_by_text("9 frames of 128x96").wait_for()  # what it will take, before it is run
    page.locator("#run").click()
    wait_for_result(page, page_server)
    line = page.locator("#line").inner_text()
    assert "9 frames" in line
    assert "128x96" in line
    assert "12.5 fps" in line
    player = page.locator("#made video").first
    page.wait_for_function(PLAYS, arg=player.element_handle())
    assert player.evaluate("v => v.videoWidth") == 128
    player.evaluate("v => { v.muted = true; return v.play(); }")
    page.wait_for_function("v => v.currentTime > 0.1", arg=player.element_handle())
    # source and result under one another: left of the border the one, right of it the other
    page.wait_for_function("document.querySelector('#wipe canvas').width === 128")
    pixel = """([x, y]) =>
      [...document.querySelector('#wipe canvas').getContext('2d').getImageData(x, y, 1, 1).data]"""
    shown = []
    for place in (0, 1000):
        page.locator("#wipe input").evaluate(
            "(r, to) => { r.value = to; r.dispatchEvent(new Event('input', {bubbles: true})); }", place
        )
        shown.append(page.evaluate(pixel, [100, 60]))
    assert shown[0] != shown[1]
    assert np.abs(np.array(shown[1][:2]) - [200, 120]).max() < 25  # the source's own colour there
    # what was made stays, and comes back with its settings
    box.fill("<video1> Something else.")
    page.locator("#history button").first.click()
    page.wait_for_function(
        "document.querySelector('#instruction textarea').value === '<video1> Remove the square.'"
    )
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/app.png", full_page=True)
    with page.expect_download() as downloading:
        page.locator("#download").click()
    downloading.value.save_as(tmp_path / "got.mp4")
    info = probe(tmp_path / "got.mp4")
    assert (info.frames, info.height, info.width, info.fps, info.codec) == (9, 96, 128, 12.5, "h264")


@pytest.mark.browser
def test_a_form_fills_the_instruction_and_a_picture_is_edited(
    page: Any, page_server: PageServer, files: dict[str, Path], tmp_path: Path
) -> None:
    page.get_by_label("Start from a task").click()
    page.get_by_role("option", name="image editing", exact=True).click()
    page.wait_for_function(
        "document.querySelector('#instruction textarea').value === '<image1> Make it night. <image2>'"
    )
    upload(page, "image1", files["image"])
    page.locator("#image1 img").first.wait_for()
    page.locator("#run").click()
    wait_for_result(page, page_server)
    with page.expect_download() as downloading:
        page.locator("#download").click()
    downloading.value.save_as(tmp_path / "got.png")
    assert Image.open(tmp_path / "got.png").size == (128, 96)
    # how much of the source is kept is a setting, and comes back with the result
    page.locator("#settings button").first.click()
    page.locator("#keeping input").check()
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/settings.png", full_page=True)
    page.locator("#run").click()
    page.wait_for_function("document.querySelectorAll('#history button').length === 2")
    assert [path.name for path in page_server.stored()].count("edit.mask.png") == 1
    assert "mask" not in page.locator("#line").inner_text()  # a path of the server's
    page.locator("#history button").nth(1).click()
    page.wait_for_function("!document.querySelector('#keeping input').checked")
    page.locator("#history button").first.click()
    page.wait_for_function("document.querySelector('#keeping input').checked")


@pytest.mark.browser
def test_what_is_wrong_is_said_on_the_page(page: Any, files: dict[str, Path]) -> None:
    page.locator("#instruction textarea").fill("<video1> and <video2> make <video3>")
    page.locator("#run").click()
    page.get_by_text("the text names <video1>, <video2> but no such media is given").wait_for()
    upload(page, "video1", files["long"])
    page.get_by_text("video1: 40 frames is too long, this page takes at most 30").first.wait_for()
    assert page.locator("#download").count() == 0


def test_the_page_offers_every_form(editor: Editor, tmp_path: Path) -> None:
    blocks = build(EditService(editor, AppConfig()), FileStore(tmp_path, 10**6))
    choices = [
        {name for name, _ in b.choices} for b in blocks.blocks.values() if type(b).__name__ == "Dropdown"
    ]
    assert choices == [{form.name for form in FORMS}]


def test_only_a_run_is_queued(editor: Editor, tmp_path: Path) -> None:
    """A run that begins while the stream of another queued event ends is never answered."""
    blocks = build(EditService(editor, AppConfig()), FileStore(tmp_path, 10**6))
    queued = {event.name for event in blocks.fns.values() if event.fn is not None and event.queue}
    assert queued == {"run", "leave"}  # who leaves starts nothing after it


def test_a_port_in_use_is_named(editor: Editor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    editor.save_pretrained(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert main(["app", "--checkpoint", str(tmp_path), "--port", str(port)]) == 2
    assert f"error: cannot listen on port {port} of 127.0.0.1" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="queue: needs at least 1"):
        AppConfig(queue=0)


def test_limits_and_stopping_without_a_browser(
    editor: Editor, files: dict[str, Path], tmp_path: Path
) -> None:
    desk = EditService(editor, AppConfig(max_frames=30, max_upload_mb=1))

    def edit(**media: Path) -> Any:
        return desk.edit("me", "<video1> Go.", media, tmp_path, lambda done, total: None)

    with pytest.raises(RequestRejected, match="video1: 40 frames is too long"):
        edit(video1=files["long"])
    (tmp_path / "large.mp4").write_bytes(bytes(2_000_000))
    with pytest.raises(RequestRejected, match="video1: 2 MB is too large, this page takes 1 MB"):
        edit(video1=tmp_path / "large.mp4")
    with pytest.raises(RequestRejected, match="frames: 99 is too long"):
        desk.edit("me", "A street.", {}, tmp_path, lambda done, total: None, frames=99)

    def stop(done: int, total: int) -> None:
        assert desk.stop("me")

    with pytest.raises(Stopped):
        desk.edit("me", "<video1> Go.", {"video1": files["video"]}, tmp_path, stop)
    assert not desk.stop("me")
    assert not (tmp_path / "edit.mp4").exists()
    assert edit(video1=files["video"]).path == tmp_path / "edit.mp4"
