"""A running `python -m model app` for tests, and what is asked of it over plain sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shards.processes import peak_memory

ROOT = Path(__file__).parents[2]
SESSION = "testsession"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@dataclass(frozen=True)
class PageServer:
    """A server of its own process; `temporary` is its TMPDIR."""

    process: subprocess.Popen[bytes]
    port: int
    log_file: Path
    temporary: Path

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.port}/"

    def log(self) -> str:
        """What the server has printed."""
        return self.log_file.read_text()

    def peak_memory(self) -> int:
        """Largest resident size so far, in bytes."""
        return peak_memory(self.process.pid)

    def stored(self) -> list[Path]:
        """Files of the folder of uploads and results."""
        return [path for path in self.temporary.glob("editverse-*/*/*/*") if path.is_file()]

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of a request; underscores in header names stand for dashes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        with contextlib.closing(connection):
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named)
            response = connection.getresponse()
            given = {name.lower(): value for name, value in response.getheaders()}
            return response.status, given, response.read()

    def cookie(self) -> str:
        """The cookie that comes with the page."""
        return self.ask("GET", "/")[1]["set-cookie"].partition(";")[0]

    def events(self) -> dict[str, dict[str, Any]]:
        """The page's events: `run`, and the `upload` of the first video."""
        dependencies = json.loads(self.ask("GET", "/config")[2])["dependencies"]
        run = next(d for d in dependencies if len(d["inputs"]) == 13 and d["queue"] is not False)
        upload = next(d for d in dependencies if any(t[1] == "upload" for t in d["targets"]))
        return {"run": run, "upload": upload}

    def upload(self, data: bytes, name: str = "in.mp4") -> tuple[int, Any]:
        """(status, answer) of an upload."""
        form = (
            f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
            + data
            + b"\r\n--b--\r\n"
        )
        kind = "multipart/form-data; boundary=b"
        status, _, answer = self.ask(
            "POST", "/gradio_api/upload", form, Cookie=self.cookie(), Content_Type=kind
        )
        return status, json.loads(answer)

    def call(self, event: dict[str, Any], data: list[Any]) -> dict[str, Any]:
        """The last message about an event of `SESSION` that is put in the queue."""
        body = {"data": data, "fn_index": event["id"], "trigger_id": None, "session_hash": SESSION}
        cookie = self.cookie()
        status, _, answer = self.ask(
            "POST",
            "/gradio_api/queue/join",
            json.dumps(body).encode(),
            Cookie=cookie,
            Content_Type="application/json",
        )
        assert status == 200, answer
        _, _, stream = self.ask("GET", f"/gradio_api/queue/data?session_hash={SESSION}", Cookie=cookie)
        messages = [json.loads(line[6:]) for line in stream.decode().splitlines() if line.startswith("data:")]
        return next(m for m in messages if m["msg"] == "process_completed")

    def call_at_once(self, event: dict[str, Any], data: list[Any]) -> tuple[int, dict[str, Any]]:
        """(status, answer) of an event of `SESSION` that goes past the queue."""
        body = {"data": data, "fn_index": event["id"], "trigger_id": None, "session_hash": SESSION}
        status, _, answer = self.ask(
            "POST",
            "/gradio_api/run/predict",
            json.dumps(body).encode(),
            Cookie=self.cookie(),
            Content_Type="application/json",
        )
        return status, json.loads(answer)

    def edit(self, video: Path) -> dict[str, Any]:
        """The last message about an edit of a video."""
        status, paths = self.upload(video.read_bytes(), video.name)
        assert status == 200
        file = {"path": paths[0], "meta": {"_type": "gradio.FileData"}}
        return self.call(
            self.events()["run"], ["<video1> Go.", file, None, None, None, None, 1, 1, 0, 0, False, False, 1]
        )

    @contextlib.contextmanager
    def present(self) -> Iterator[None]:
        """Be at the page as `SESSION`, as a browser's heartbeat tells the server."""
        own = f"Host: 127.0.0.1\r\nCookie: {self.cookie()}"
        request = f"GET /gradio_api/heartbeat/{SESSION} HTTP/1.1\r\n{own}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.port), 30) as connection:
            connection.sendall(request.encode())
            assert b" 200 " in connection.recv(1000)
            yield


@contextlib.contextmanager
def running(checkpoint: Path, folder: Path, *options: str) -> Iterator[PageServer]:
    """Start the page and wait until it is served; ended with SIGTERM."""
    port, log = free_port(), folder / "server.log"
    (folder / "tmp").mkdir(exist_ok=True)
    command = [sys.executable, "-m", "model", "app", "--checkpoint", str(checkpoint), "--port", str(port)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "TMPDIR": str(folder / "tmp")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *options], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            server = PageServer(process, port, log, folder / "tmp")
            deadline = time.monotonic() + 300
            while "EditVerse is at" not in server.log():
                assert process.poll() is None, server.log()
                assert time.monotonic() < deadline, "the page is not served"
                time.sleep(0.1)
            yield server
        finally:
            process.terminate()
            process.wait(30)
