"""An edit that takes too long, over HTTP: it fails in one line, and the others go on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from model.serving.api import create_app
from model.serving.config import ServeConfig
from model.serving.edit_queue import EditQueue
from model.serving.work import WorkerConfig
from shards.errors import SettingError
from shards.reports.server import Server
from tests.model.serving import LONG, ServiceClient, tiny_checkpoint, tiny_video

SECONDS = 1.5


def test_a_limit_is_a_number_of_seconds(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="edit_timeout"):
        ServeConfig(tmp_path, edit_timeout=-1)


@pytest.mark.slow
def test_an_edit_that_takes_too_long_fails_and_the_others_go_on(tmp_path: Path) -> None:
    video = tiny_video(tmp_path / "in.mp4")
    config = ServeConfig(tmp_path / "service", max_steps=LONG, edit_timeout=SECONDS)
    queue = EditQueue(config, WorkerConfig(str(tiny_checkpoint(tmp_path / "tiny")), device="cpu"))
    with queue.open() as facts, Server(create_app(queue, facts)).running() as url:
        client = ServiceClient(url.rstrip("/"))
        late, short = (client.submit(video, steps=steps).json()["id"] for steps in (LONG, 2))
        status = client.wait(late)
        assert status["state"] == "failed", status
        assert status["detail"] == (
            f"took longer than the {SECONDS} s that an edit may take here (--edit_timeout)"
        )
        assert SECONDS <= status["seconds"] < SECONDS + 3
        assert 0 < status["steps_done"] < LONG
        assert client.http.get(f"/v1/edits/{late}/result").status_code == 409
        assert client.wait(short)["state"] == "done"
        assert queue.pool.restarts == 0  # it was given up between two steps

        stuck = client.submit(video, steps=LONG).json()["id"]
        assert client.wait(stuck, "running")["state"] == "running"
        process = queue.pool.slots[0].process
        os.kill(process.pid, signal.SIGSTOP)
        status = client.wait(stuck)
        assert (status["state"], status["detail"].split(" s ")[0]) == ("failed", "took longer than the 1.5")
        end = time.monotonic() + 5
        while process.exitcode is None and time.monotonic() < end:
            time.sleep(0.05)  # the pool waits for it too: a `join` beside it may come before the status
        assert process.exitcode == -signal.SIGKILL
        assert client.http.get("/v1/models").json()["models"][0]["edit_timeout"] == SECONDS
