"""The page's queue with many clients: who leaves, who never listens, who cancels, and a server that ends.

Against the real command in a process of its own, over plain connections, each client a thread.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn

from model import Editor
from model.app.estimate import Speed, duration, estimate
from model.app.files import FileStore
from model.app.mask import propagate, read_drawing, with_mask
from model.app.run_queue import active_runs, waiting_runs
from model.app.server import build, guarded_app
from model.app.service import AppConfig, EditService, RequestRejected
from shards.media import write_video
from tests.model.page_server import PageServer, free_port, running

LONG, SHORT = 40, 1  # steps


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five frames of a bright square that moves over noise, two pixels a frame."""
    path = tmp_path_factory.mktemp("clip") / "in.mp4"
    frames = np.random.default_rng(0).integers(0, 90, (1, 48, 64, 3), np.uint8).repeat(5, 0)
    for t in range(5):
        frames[t, 16:32, 12 + 2 * t : 28 + 2 * t] = np.add.outer(np.arange(16) * 8, np.arange(16) * 6)[
            ..., None
        ]
    write_video(path, frames, 10.0)
    return path


class Visitor:
    """A client with a session of its own at `server`, whose clip is uploaded."""

    def __init__(self, server: PageServer, name: str, file: str, cookie: str, run: dict[str, Any]) -> None:
        self.server, self.name, self.file, self.cookie, self.run = server, name, file, cookie, run

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """(status, answer) of a call."""
        status, _, answer = self.server.ask(
            "POST", path, json.dumps(body).encode(), Cookie=self.cookie, Content_Type="application/json"
        )
        return status, json.loads(answer)

    def join(self, steps: int) -> tuple[int, Any]:
        """Put an edit into the queue."""
        file = {"path": self.file, "meta": {"_type": "gradio.FileData"}}
        data = ["<video1> Go.", file, None, None, None, None, steps, 1, 0, 0, False, False, 1]
        call = {"data": data, "fn_index": self.run["id"], "trigger_id": None, "session_hash": self.name}
        return self.post("/gradio_api/queue/join", call)

    @contextlib.contextmanager
    def stream(self) -> Iterator[Iterator[dict[str, Any]]]:
        """Listen to the messages about the session's edits; leaving the block closes the connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        path = f"/gradio_api/queue/data?session_hash={self.name}"
        connection.request("GET", path, headers={"Cookie": self.cookie})
        response = connection.getresponse()
        lines = (line for line in iter(response.readline, b"") if line.startswith(b"data:"))
        try:
            yield (json.loads(line[5:]) for line in lines)
        finally:
            response.close()
            connection.close()

    def cancel(self) -> int:
        """Status of cancelling as the page's Stop does."""
        call = {"fn_index": self.run["id"], "session_hash": self.name, "event_id": "any"}
        return self.post("/gradio_api/cancel", call)[0]


def visitors(server: PageServer, clip: Path, count: int) -> list[Visitor]:
    """Clients with one upload between them."""
    cookie, run = server.cookie(), server.events()["run"]
    file = server.upload(clip.read_bytes())[1][0]
    return [Visitor(server, f"visitor{number}", file, cookie, run) for number in range(count)]


def started(messages: Iterator[dict[str, Any]]) -> None:
    """Read until the edit has begun."""
    next(m for m in messages if m["msg"] == "process_starts")


def complete(messages: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Read until the edit has ended; how."""
    return next(m for m in messages if m["msg"] in ("process_completed", "unexpected_error"))


@pytest.mark.slow
def test_twenty_clients_of_whom_some_leave_and_a_restart(editor: Editor, clip: Path, tmp_path: Path) -> None:
    checkpoint = editor.save_pretrained(tmp_path / "checkpoint")
    with running(checkpoint, tmp_path, "--queue", "20") as server:
        leaving, cancelling, dropped, *waiting = visitors(server, clip, 20)
        results: dict[str, bool] = {}

        def wait(visitor: Visitor) -> None:
            visitor.join(SHORT)
            with visitor.stream() as messages:
                results[visitor.name] = complete(messages)["success"]

        threads = [threading.Thread(target=wait, args=(visitor,)) for visitor in waiting]
        for visitor in (leaving, cancelling, dropped):
            assert visitor.join(LONG)[0] == 200
        with leaving.stream() as first, dropped.stream() as behind:
            started(first)
            assert next(m for m in behind if m["msg"] == "estimation")["rank"] == 1
            for thread in threads:
                thread.start()
        # Both have let go: one edit that ran and one that waited are given up, and the next one runs.
        with cancelling.stream() as messages:
            started(messages)
            assert cancelling.cancel() == 200
        for thread in threads:
            thread.join(60)
        assert results == {visitor.name: True for visitor in waiting}
        # of the three who left nothing was made
        assert len([file for file in server.stored() if file.name == "edit.mp4"]) == len(waiting)
        assert "Traceback" not in server.log()

        # The server ends while one edit runs and one waits: both are told, and the next server works.
        for visitor in (leaving, dropped):
            visitor.join(LONG)
        with leaving.stream() as first, dropped.stream() as behind:
            started(first)
            server.process.terminate()
            assert complete(first)["msg"] == complete(behind)["msg"] == "unexpected_error"
        assert server.process.wait(30) == 0
    with running(checkpoint, tmp_path) as server:
        (visitor,) = visitors(server, clip, 1)
        visitor.join(SHORT)
        with visitor.stream() as messages:
            assert complete(messages)["success"]


def test_an_edit_that_nobody_listens_for_is_stopped(editor: Editor, clip: Path, tmp_path: Path) -> None:
    desk = EditService(editor, AppConfig(max_stored_mb=20))
    store = FileStore(tmp_path, 10**8)
    page = build(desk, store)
    guard, _ = guarded_app(page, desk, store)
    guard.audience.grace = 0.3
    port = free_port()
    web = uvicorn.Server(uvicorn.Config(guard, port=port, log_level="warning", http="h11", ws="none"))
    thread = threading.Thread(target=web.run)
    thread.start()
    server = PageServer(None, port, tmp_path, tmp_path)  # type: ignore[arg-type]  # this process
    try:
        wait_until(lambda: web.started)
        mute, behind, heard = visitors(server, clip, 3)
        with desk._busy:  # so that no edit is done before it is given up
            mute.join(SHORT)
            behind.join(SHORT)
            wait_until(lambda: (job := desk.job(mute.name)) is not None and job.stop.is_set())
            wait_until(lambda: not waiting_runs(page))
        heard.join(SHORT)
        with heard.stream() as messages:
            assert complete(messages)["success"]
        assert waiting_runs(page) == active_runs(page) == []
        assert desk.job(mute.name) is None
        assert len(list(tmp_path.glob("*/edit.mp4"))) == 1
    finally:
        page._queue.close()
        web.should_exit = True
        thread.join(10)


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for something that soon holds."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_drawing_becomes_a_mask_that_follows_what_it_covers(clip: Path) -> None:
    strokes = [
        {"points": [16, 20, 24, 20, 24, 28, 16, 28], "radius": 4, "erases": False},
        {"points": [60, 40], "radius": 3, "erases": False},
        {"points": [60, 40], "radius": 3, "erases": True},
    ]
    drawing = read_drawing(json.dumps({"frame": 0, "size": [64, 48], "strokes": strokes}))
    mask = drawing.render(48, 64)
    assert mask[24, 20]
    assert not mask[40, 60]
    assert drawing.render(96, 128).sum() == pytest.approx(4 * mask.sum(), rel=0.1)
    fixed, follows = (propagate(clip, mask, 0, follow) for follow in (False, True))
    assert (fixed == mask).all()
    columns = [np.argwhere(frame)[:, 1].mean() for frame in follows]
    assert columns[4] - columns[0] == pytest.approx(8, abs=2.5)
    back = propagate(clip, follows[4], 4, True)
    assert (back[0] & mask).sum() / (back[0] | mask).sum() > 0.8


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"frame": 0, "size": [64, 48]}',
        '{"frame": 0, "size": [64, 48], "strokes": []}',
        '{"frame": 0, "size": [99999, 48], "strokes": [{"points": [1, 1], "radius": 1, "erases": false}]}',
        '{"frame": -1, "size": [64, 48], "strokes": [{"points": [1, 1], "radius": 1, "erases": false}]}',
        '{"frame": 0, "size": [64, 48], "strokes": [{"points": [1, 1, 1], "radius": 1, "erases": false}]}',
        '{"frame": 0, "size": [64, 48], "strokes": [{"points": [1, 1e9], "radius": 1, "erases": false}]}',
        '{"frame": 0, "size": [64, 48], "strokes": [{"points": [1, 1], "radius": 0, "erases": 3}]}',
    ],
)
def test_a_drawing_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestRejected, match=r"drawn yet|the drawing is malformed"):
        read_drawing(text)


def test_the_instruction_gets_the_tag_of_a_drawn_mask() -> None:
    for text, tagged in (
        ("<video1> Remove the cube.", "<video1> Use <mask> to remove the cube."),
        ("<video1> Use <mask> to go.", "<video1> Use <mask> to go."),
        ("Remove it from <video1>.", "Remove it from <video1>. <mask>"),
        ("", "<mask>"),
    ):
        assert with_mask(text, ["video1"]) == tagged


def test_an_edit_is_told_by_its_size_and_by_earlier_ones(editor: Editor, clip: Path) -> None:
    small = estimate(editor, "<video1> Go.", {"video1": clip})
    assert (small.frames, small.height, small.width, small.runs) == (5, 48, 64, 1)
    double = estimate(editor, "<video1> Go.", {"video1": clip}, steps=2 * editor.config.inference.steps)
    assert double.flops == 2 * small.flops
    with_words = estimate(editor, "<video1> Make <video2>", {"video1": clip, "mask": clip})
    assert with_words.tokens > small.tokens
    speed = Speed()
    assert speed.seconds(small.flops) is None
    speed.add(small.flops, 3.0)
    assert speed.seconds(double.flops) == pytest.approx(6.0)
    assert "about 6 s" in double.describe(speed.seconds(double.flops))
    assert [duration(s) for s in (0.2, 89, 150, 5000)] == ["1 s", "89 s", "2 min", "1 h 23 min"]


def test_the_last_preview_is_the_middle_frame_of_what_was_made(editor: Editor, clip: Path) -> None:
    seen: list[np.ndarray] = []
    edit = editor(
        "<video1> Go.",
        video1=clip,
        steps=2,
        size="model",
        solver="euler",
        preview=lambda decode: seen.append(decode()),
    )
    assert len(seen) == 2
    assert np.abs(seen[0].astype(int) - seen[1]).max() > 0
    assert np.abs(edit.raw[0].astype(int) - edit.raw[len(edit.raw) // 2]).max() > 10
    assert np.abs(seen[1].astype(int) - edit.raw[len(edit.raw) // 2]).max() <= 1  # rounding
