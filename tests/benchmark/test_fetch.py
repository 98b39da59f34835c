"""Fetching source videos from a server that breaks off, limits rates and refuses keys."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest

from benchmark.core.item import BenchmarkError
from benchmark.suites import open_suite
from benchmark.suites.download import Fetched, fetch
from shards.media import write_video
from tests.benchmark import synthetic

KEY = "PIXABAY_API_KEY"


class Server:
    """Pixabay's API and its files; `limit` answers 429 first, `breaks` transfers end in the middle."""

    def __init__(self, videos: dict[str, bytes]) -> None:
        self.videos, self.limit, self.breaks, self.ranges = videos, 0, 0, list[str]()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = urlparse(self.path)
                if asked.path == "/api/":
                    server.api(self, {k: v[0] for k, v in parse_qs(asked.query).items()})
                else:
                    server.file(self, asked.path.rsplit("/", 1)[1])

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def send(self, to: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
        to.send_response(status)
        for name, value in headers.items():
            to.send_header(name.replace("_", "-"), value)
        to.send_header("Content-Length", str(len(body)))
        to.end_headers()
        to.wfile.write(body)

    def api(self, to: BaseHTTPRequestHandler, asked: dict[str, str]) -> None:
        if asked.get("key") != "mine":
            return self.send(to, 400, b"[ERROR 400] Invalid or missing API key")
        if self.limit:
            self.limit -= 1
            return self.send(to, 429, b"slow down", Retry_After="7")
        known = asked["id"] in self.videos
        hits = [{"videos": {"large": {"url": f"{self.url}/files/{asked['id']}"}}}] if known else []
        return self.send(to, 200, json.dumps({"hits": hits}).encode())

    def file(self, to: BaseHTTPRequestHandler, number: str) -> None:
        data, told = self.videos[number], to.headers.get("Range")
        start = int(told.removeprefix("bytes=").rstrip("-")) if told else 0
        self.ranges += [told] if told else []
        body = data[start:]
        to.send_response(206 if told else 200)
        to.send_header("Content-Length", str(len(body)))
        to.end_headers()
        if self.breaks:
            self.breaks -= 1
            body = body[: len(body) // 2]
        to.wfile.write(body)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return synthetic.write_benchmark(tmp_path / "bench", 6)


@pytest.fixture
def server(data: Path) -> Iterator[Server]:
    """Serves the benchmark's videos, which are no longer in its folder."""
    videos = {path.name.split("-")[0]: path.read_bytes() for path in (data / "videos").iterdir()}
    for path in (data / "videos").iterdir():
        path.unlink()
    served = Server(videos)
    yield served
    served.http.shutdown()


def fetched(data: Path, server: Server, waits: list[float] | None = None) -> Fetched:
    slept = waits if waits is not None else []
    return fetch(data, KEY, "large", lambda name: None, f"{server.url}/api/", slept.append)


def test_missing_videos_come_and_a_broken_one_goes_on(
    data: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "mine")
    assert all(item.fault and "is missing" in item.fault for item in open_suite("editversebench", data).items)
    server.limit, server.breaks, waits = 1, 2, list[float]()
    done = fetched(data, server, waits)
    assert (done.came, done.there, done.failed) == (3, 0, {})
    assert waits[0] == 7.0  # as long as it was told to
    assert server.ranges  # the rest alone was asked for again
    assert all(item.fault is None for item in open_suite("editversebench", data).items)
    assert not list((data / "videos").glob("*.part"))
    again = fetched(data, server)
    assert (again.came, again.there) == (0, 3)


def test_what_does_not_come_is_named_and_the_rest_comes(
    data: Path, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(KEY, "mine")
    del server.videos["1000"]
    server.videos["1001"] = b"not a video at all" * 10
    held = json.loads((data / "test.json").read_text())
    held["4"]["<video1>"] = held["5"]["<video1>"] = "../elsewhere.mp4"
    (data / "test.json").write_text(json.dumps(held))
    done = fetched(data, server)
    assert done.came == 0
    reasons = " ".join(f"{name}: {reason}" for name, reason in done.failed.items())
    assert "no large rendition of 1000" in reasons
    assert "elsewhere.mp4: is outside" in reasons
    assert "1001-7.mp4" in reasons
    assert "mine" not in reasons
    assert not (tmp_path / "elsewhere.mp4").exists()
    assert not list((data / "videos").glob("*.mp4"))
    write_video(tmp_path / "v.mp4", np.zeros((3, 32, 32, 3), np.uint8), 8)
    server.videos["1001"] = (tmp_path / "v.mp4").read_bytes()
    assert fetched(data, server).came == 1


def test_a_missing_or_refused_key_is_said_at_once(
    data: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    with pytest.raises(BenchmarkError, match=KEY):
        fetched(data, server)
    monkeypatch.setenv(KEY, "wrong")
    with pytest.raises(BenchmarkError, match="refuses the key"):
        fetched(data, server)
