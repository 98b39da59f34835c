"""Shards read over HTTP, from a server that fails now and then, by several processes."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

import shards.location
from shards.column_writer import cache_folder
from shards.location import ShardError
from shards.reader import ShardSet, stream


class Server(http.server.ThreadingHTTPServer):
    """Files of a folder; `ranges` off sends whole files, `failures` of the next answers are errors."""

    ranges, failures = True, 0
    asked: list[tuple[str, str]]


class Handler(http.server.SimpleHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        self.server.asked.append((self.path, wanted))
        path = Path(self.translate_path(self.path))
        if self.server.failures:
            self.server.failures -= 1
            self.send_error(503)
        elif not path.is_file():
            self.send_error(404)
        else:
            data, status = path.read_bytes(), 200
            if wanted and self.server.ranges:
                first, last = wanted.removeprefix("bytes=").split("-")
                data, status = data[int(first) : int(last) + 1 if last else None], 206
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(shard_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(shards.location, "WAIT", 0.01)
    served = Server(("127.0.0.1", 0), functools.partial(Handler, directory=str(shard_dir)))
    served.asked = []
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield served
    served.shutdown()
    served.server_close()


def url_of(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_a_url_gives_what_the_folder_gives(shard_dir: Path, server: Server) -> None:
    near, far = ShardSet(shard_dir), ShardSet(url_of(server))
    assert near.keys == far.keys
    server.asked.clear()
    for a, b in zip(near, far, strict=True):
        assert a.sample == b.sample
        assert all(a.bytes(n) == b.bytes(n) for n in a.sample.media)
    assert len(server.asked) == len(far)  # one request per sample
    assert [r.sample for r in stream(url_of(server))] == [r.sample for r in near]
    # file:// and memory are URLs too
    assert ShardSet(shard_dir.as_uri())[0].bytes("video1") == near[0].bytes("video1")


def test_forked_workers_read_a_url(shard_dir: Path, server: Server) -> None:
    near, far = ShardSet(shard_dir), ShardSet(url_of(server))
    assert far[0].key  # a session of this process, which its children must not use
    loader = DataLoader(range(len(far)), batch_size=None, num_workers=2, collate_fn=lambda i: far[i].sample)  # type: ignore[arg-type]
    assert list(loader) == [r.sample for r in near]


def test_failures_of_the_server_are_tried_again_and_named(shard_dir: Path, server: Server) -> None:
    far = ShardSet(url_of(server))
    server.failures = 2
    assert far[1].sample == ShardSet(shard_dir)[1].sample
    server.failures = 3
    with pytest.raises(ShardError, match=rf"{url_of(server)}/train-.*503"):
        far[1]
    server.ranges = False
    with pytest.raises(ShardError, match="sends whole files"):
        far[1]
    server.ranges = True
    shutil.rmtree(cache_folder())
    (shard_dir / "train-000000.index.json").unlink()
    with pytest.raises(ShardError, match=r"train-000000\.index\.json: missing"):
        ShardSet(url_of(server))
    with pytest.raises(ShardError, match=r"no manifest\.jsonl here"):
        ShardSet(url_of(server) + "/elsewhere")


def test_a_protocol_that_nothing_here_speaks_is_named() -> None:
    with pytest.raises(ShardError, match=r"nosuch://bucket/manifest\.jsonl.*nosuch"):
        ShardSet("nosuch://bucket")
