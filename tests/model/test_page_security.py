"""What the page refuses: other hosts and sites, what is malformed, too much; and that nothing is left behind.

Against the real command in a process of its own, over plain sockets.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from model.app.files import FileStore, QuotaError, server_folder
from model.app.service import AppConfig
from shards.errors import ConfigError
from shards.media import write_video
from tests.model.page_server import SESSION, PageServer, running

JSON = "application/json"
FORM = "multipart/form-data; boundary=b"
REQUESTS = 500
# Mistaken values of every type for any field of a call.
WRONG = [
    *(None, True, [], {}, "", "abc", "\x00", "\ud800", "x" * 5000, [1, 2], [[[[]]]], "<video1>\x1b[2J"),
    *(-1, 1e9, 1 << 70, 1e308, float("nan"), float("inf"), -float("inf"), 0.5, {"__type__": "update"}),
    *({"path": 3}, {"path": "/etc/passwd"}, {"path": "\x00"}, {"path": "a" * 9000}),
    {"path": "/tmp/../etc/passwd", "meta": {"_type": "gradio.FileData"}},
    {"path": "http://169.254.169.254/", "url": "http://169.254.169.254/"},
]  # fmt: skip
Request = tuple[str, bytes]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A video that can be edited."""
    frames = np.random.default_rng(0).integers(0, 255, (5, 48, 64, 3), np.uint8)
    write_video(tmp_path / "in.mp4", frames, 10.0)
    return tmp_path / "in.mp4"


def message(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """A request as it goes over the wire; underscores in header names stand for dashes."""
    named = {"Host": "127.0.0.1", "Connection": "close"} | {
        k.replace("_", "-"): v for k, v in headers.items()
    }
    if body and "Transfer-Encoding" not in named:
        named.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogateescape") + body


@contextlib.contextmanager
def closed_early() -> Iterator[None]:
    """The server may close the connection before it has read everything."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
            raise


def exchange(port: int, data: bytes, broken_off: bool = False) -> tuple[int, float]:
    """(status, seconds) of one request; status 0 where the server closed the connection without a word.

    `broken_off` says that no more will come, as a client that leaves does.
    """
    start = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        answer = b""
        with closed_early():  # it does not have to read all of it
            connection.sendall(data)
            if broken_off:
                connection.shutdown(socket.SHUT_WR)
        with closed_early():
            while chunk := connection.recv(1 << 16):
                answer = answer or chunk
    status = int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0
    return status, time.monotonic() - start


def malformed_http(draw: random.Random, cookie: str) -> bytes:
    """Bytes that are no HTTP, or that servers and proxies disagree about."""
    host = "Host: 127.0.0.1\r\n"
    return draw.choice(
        [
            draw.randbytes(draw.randrange(1, 300)),
            b"GET / HTTP/1.1\r\n\r\n",
            f"GET / HTTP/9.9\r\n{host}\r\n".encode(),
            f"GET / HTTP/1.1\r\n{host}{host}\r\n".encode(),
            f"GET /\x00 HTTP/1.1\r\n{host}\r\n".encode(),
            f"GET / HTTP/1.1\r\n{host}X: {'x' * draw.choice([70_000, 200_000])}\r\n\r\n".encode(),
            f"GET / HTTP/1.1\r\n{host}{'X: 1' * 20_000}".encode(),
            f"POST /gradio_api/queue/join HTTP/1.1\r\n{host}Content-Length: -5\r\n\r\n".encode(),
            f"POST /gradio_api/queue/join HTTP/1.1\r\n{host}Content-Length: 1{'0' * 30}\r\n\r\n".encode(),
            f"POST /gradio_api/queue/join HTTP/1.1\r\n{host}Cookie: {cookie}\r\nContent-Type: {JSON}\r\n"
            f"Transfer-Encoding: chunked\r\n\r\nzz\r\n".encode(),
            message("GET", "/", Host=draw.choice(["", "a b", "127.0.0.1:99999", "[::1", "é", "@", "a,b"])),
            message("GET", "/", Host="x" * 5000),
            message(draw.choice(["PUT", "DELETE", "OPTIONS", "TRACE", "FOO", "G" * 300]), "/", Cookie=cookie),
            message("GET", "/", Cookie="\x7f" * 50, X_Forwarded_Host="http://[", X_Gradio_Server="http://[::"),
        ]
    )  # fmt: skip


def other_site(draw: random.Random, cookie: str) -> bytes:
    """Foreign hosts and origins, on every route; without the cookie, or with a wrong one."""
    path = draw.choice(["/", "/config", "/gradio_api/upload", "/gradio_api/queue/join", "/theme.css"])
    headers = draw.choice(
        [
            {"Host": draw.choice(["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7860"])},
            {"Origin": draw.choice(["http://evil.example", "null", "http://127.0.0.1:1", "https://[", "file://"])},
            {"Sec_Fetch_Site": draw.choice(["cross-site", "same-site", "???"])},
        ]
    )  # fmt: skip
    method = "POST" if path.startswith("/gradio_api") else draw.choice(["GET", "HEAD"])
    if path.startswith("/gradio_api") and draw.random() < 0.3:
        headers = {"Cookie": draw.choice(["", cookie[:-1], f"{cookie}x", cookie.partition("=")[0], "é=é"])}
        return message(method, path, b"{}", Content_Type=JSON, **headers)
    return message(method, path, b"{}", Cookie=cookie, Content_Type=JSON, **headers)


def wrong_path(draw: random.Random, cookie: str) -> bytes:
    """Files that are not ours, Gradio's other routes, paths that are none."""
    inner = ["/etc/passwd", "..%2f..%2fetc/passwd", "%00", "http://127.0.0.1/", "a" * 3000, "/proc/self/mem"]
    file = draw.choice(inner)
    other = draw.choice(["info", "startup-events", "component_server", "run/run", "call/run", "call/v2/x"])
    query = draw.choice(["", "?", "?session_hash=", "?session_hash=nobody", "?a=%ff&b"])
    path = draw.choice(
        [
            f"/gradio_api/file={file}",
            f"/gradio_api/file/{file}",
            f"/gradio_api/proxy={file}",
            f"/gradio_api/{other}",
            f"/{draw.choice(['assets', 'static', 'svelte'])}/{file}",
            f"/gradio_api/stream/{draw.randrange(99)}/x/1/playlist.m3u8",
            f"/gradio_api/heartbeat/{draw.choice(['', 'a/b', '%00', 'x' * 500, '..'])}",
            f"/gradio_api/queue/data{query}",
            f"/gradio_api/queue/data?{'&'.join(f'a{i}=1' for i in range(300))}",
            f"/gradio_api/upload_progress{draw.choice(['', '?upload_id=%00', '?upload_id=' + 'x' * 999])}",
            *("//", "/%2e%2e/", "/monitoring", "/login", "/logout", "/docs", "/openapi.json"),
            "/" + "".join(draw.choice("abc%/.?&=;~\\\"'<>{}|^`") for _ in range(draw.randrange(1, 200))),
        ]
    )  # fmt: skip
    return message(draw.choice(["GET", "HEAD", "POST"]), path, Cookie=cookie, Range="bytes=9-1,-,x")


def wrong_call(draw: random.Random, cookie: str, run: int, events: int) -> bytes:
    """Calls that are no JSON, no call, or a call with values that no component has."""
    body = {
        "data": ["<video1> Go.", None, None, None, None, None, 1, 1.0, 0, 0, False, False, 1],
        "fn_index": run,
        "trigger_id": None,
        "session_hash": SESSION,
        "event_id": "abc",
    }
    route = draw.choice(["queue/join", "queue/join", "run/predict", "cancel"])
    kind = draw.randrange(6)
    if kind == 0:
        data = draw.choice(
            [b"", b"{", b"[]", b"null", b"\xff\xfe", draw.randbytes(50), b"[" * 200_000, b"1" * 9000, b'"a"']
        )
    elif kind == 1:
        data = b'{"data":' + b"[" * 5000 + b"]" * 5000 + b"}"
    elif kind == 2:
        body.pop(draw.choice([name for name in body if name not in ("trigger_id", "event_id")]))
        data = json.dumps(body).encode()
    elif kind == 3:  # wrong or missing fields
        name = draw.choice(["data", "fn_index", "session_hash"])
        body[name] = draw.choice([wrong for wrong in WRONG if wrong != "abc" or name != "session_hash"])
        data = json.dumps(body).encode()
    elif kind == 4:  # an event that is another's, or nobody's
        body["fn_index"] = draw.choice([-1, events + 1, 10**9, "0", [run]])
        data = json.dumps(body | {"batched": True, "event_data": {"_data": WRONG[0]}}).encode()
    else:  # one value of the eleven
        place = draw.randrange(11)
        wrong = [
            value
            for value in WRONG
            if not (value is None and place in (0, 1, 2, 3, 4, 5, 8, 9))
            and not (isinstance(value, str) and place == 0 and len(value) < 4000 and value.isprintable())
            and not (value in (-1, 1e9, 0.5, True) and place in (8, 9) and value is not True)
            and not (value is True and place == 10)
        ]
        values = list(body["data"])  # type: ignore[call-overload]
        values[place] = draw.choice(wrong)
        data = json.dumps(body | {"data": values}).encode()
        route = "queue/join"
    if route == "cancel" and kind in (4, 5, 3):
        data = json.dumps({"session_hash": [], "fn_index": "x", "event_id": None}).encode()
    if route == "cancel" and kind == 2:
        data = b"{}"
    content = JSON if draw.random() < 0.9 else draw.choice(["text/plain", "", "multipart/form-data", "é"])
    return message("POST", f"/gradio_api/{route}", data, Cookie=cookie, Content_Type=content)


def wrong_upload(draw: random.Random, cookie: str) -> bytes:
    """Forms that are none, or that are cut off, too large, or hold no file."""
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="in.mp4"\r\n\r\n'
    end = b"\r\n--b--\r\n"
    chunk = b"10000\r\n" + bytes(1 << 16) + b"\r\n"
    too_large = f"{len(part):x}\r\n".encode() + part + b"\r\n" + chunk * 100 + b"0\r\n\r\n"
    query = draw.choice(["", "?upload_id=abc", "?upload_id=%00", "?upload_id=" + "x" * 100])
    body, headers = draw.choice(
        [
            (b"", {}),
            (draw.randbytes(500), {}),
            (part + bytes(100), {}),  # no end
            (part.replace(b'name="files"; ', b"") + end, {}),
            (part.replace(b"filename", b"file") + end, {}),
            (part.replace(b"files", b"other") + b"x" + end, {}),
            (b'--b\r\nContent-Disposition: form-data; name="files"\r\n\r\n' + bytes(200_000) + end, {}),
            (b"--b\r\nX: " + b"x" * 100_000 + end, {}),
            (b"--b\r\n" + b"X: 1\r\n" * 50_000 + end, {}),
            (part + b"x\r\n" + part + b"y" + end, {}),  # two files
            (
                part + b"x" + end,
                {"Content_Type": draw.choice(["text/plain", "multipart/form-data", "", "é/é"])},
            ),
            (part + b"x" + end, {"Content_Type": "multipart/form-data; boundary=" + "b" * 5000}),
            (part, {"Content_Length": str(10**12)}),
            (part, {"Content_Length": "4000000"}),  # broken off
            (too_large, {"Transfer_Encoding": "chunked"}),
        ]
    )
    named = {"Content_Type": FORM, "Cookie": cookie} | headers
    return message("POST", f"/gradio_api/upload{query}", body, **named)


def malformed(draw: random.Random, cookie: str, run: int, events: int) -> Iterator[Request]:
    """Requests of every kind, one after the other."""
    kinds: dict[str, Callable[[], bytes]] = {
        "HTTP": lambda: malformed_http(draw, cookie),
        "other site": lambda: other_site(draw, cookie),
        "path": lambda: wrong_path(draw, cookie),
        "call": lambda: wrong_call(draw, cookie, run, events),
        "value": lambda: wrong_call(draw, cookie, run, events),
        "upload": lambda: wrong_upload(draw, cookie),
    }
    while True:
        for kind, make in kinds.items():
            yield kind, make()


def test_500_malformed_requests_are_refused_and_the_page_still_edits(
    page_server: PageServer, clip: Path
) -> None:
    cookie, run = page_server.cookie(), page_server.events()["run"]["id"]
    source = malformed(random.Random(0), cookie, run, run + 100)
    counts: Counter[tuple[str, int]] = Counter()
    slowest, before = 0.0, len(page_server.log().splitlines())
    for number in range(REQUESTS):
        kind, request = next(source)
        broken_off = kind == "HTTP" or b"Content-Length: 4000000" in request
        status, seconds = exchange(page_server.port, request, broken_off)
        counts[kind, status] += 1
        slowest = max(slowest, seconds)
        assert status < 500, (number, kind, status, request[:2000])
        assert status >= 400 or broken_off or kind == "path", (number, kind, status, request[:2000])
    lines = page_server.log().splitlines()[before:]
    if os.environ.get("SHOW"):
        for (kind, status), count in sorted(counts.items()):
            print(f"{kind:12}{status:5}{count:5}")
        memory = page_server.peak_memory() / 1e6
        print(f"slowest {slowest:.2f} s, peak {memory:.0f} MB, {len(lines)} lines logged")
        print(*sorted(Counter(lines).items()), sep="\n")
    assert slowest < 10
    assert page_server.peak_memory() < 2e9
    assert "Traceback" not in page_server.log()
    assert len(lines) < REQUESTS / 5
    assert page_server.process.poll() is None
    with page_server.present():
        assert page_server.edit(clip)["success"]


def test_only_the_page_itself_may_ask(page_server: PageServer) -> None:
    ask, cookie = page_server.ask, page_server.cookie()
    own = f"127.0.0.1:{page_server.port}"
    status, headers, _ = ask("GET", "/", Host="evil.example", Origin="http://evil.example")
    assert status == 403
    assert not [name for name in headers if name.startswith("access-control")]
    assert ask("GET", "/", Host=f"evil.example:{page_server.port}")[0] == 403
    for host in ("localhost", "127.0.0.1:1234", "[::1]:80", "LOCALHOST"):
        assert ask("GET", "/", Host=host)[0] == 200, host
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        assert ask("GET", "/config", Origin=origin)[0] == 403, origin
        assert ask("OPTIONS", "/gradio_api/upload", Origin=origin)[0] == 403, origin
    status, headers, _ = ask("GET", "/config", Origin=f"http://{own}")
    assert status == 200
    assert not [name for name in headers if name.startswith("access-control")]
    assert ask("GET", "/", Sec_Fetch_Site="cross-site")[0] == 403
    followed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert ask("GET", "/", Sec_Fetch_Dest="document", **followed)[0] == 200
    assert ask("GET", "/", Sec_Fetch_Dest="iframe", **followed)[0] == 403
    assert ask("GET", "/config", Sec_Fetch_Dest="document", **followed)[0] == 403
    # without the cookie nothing is stored or run
    form = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\nx\r\n--b--\r\n'
    for wrong in ("", f"{cookie}x"):
        status, _, answer = ask("POST", "/gradio_api/upload", form, Cookie=wrong, Content_Type=FORM)
        assert (status, b"reload" in answer) == (403, True)
    set_cookie = ask("GET", "/")[1]["set-cookie"]
    assert "SameSite=Strict" in set_cookie
    assert "HttpOnly" in set_cookie


def test_uploads_are_bounded_and_end_with_their_session(page_server: PageServer, clip: Path) -> None:
    lines = len(page_server.log().splitlines())
    # broken off in the middle: nothing is kept and nothing is said
    half = message(
        "POST",
        "/gradio_api/upload",
        b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n' + bytes(2_000_000),
        Cookie=page_server.cookie(),
        Content_Type=FORM,
        Content_Length="4000000",
    )
    assert exchange(page_server.port, half, broken_off=True)[0] == 0
    assert len(page_server.log().splitlines()) == lines
    status, answer = page_server.upload(bytes(6_000_000))
    assert (status, answer["detail"]) == (413, "this page takes files of at most 5 MB")
    before = page_server.stored()
    with page_server.present():
        paths = []
        for _ in range(9):
            status, answer = page_server.upload(bytes(4_900_000), "../../ä b.mp4")
            if status != 200:
                break
            paths += answer
        assert status == 413
        assert answer["detail"].startswith(
            "this page stores at most 20 MB, and no room is left for 5 MB more"
        )
        assert 1 <= len(paths) <= 4
        assert {Path(path).name for path in paths} == {"ä b.mp4"}
        for path in paths:
            file = {"path": path, "meta": {"_type": "gradio.FileData"}}
            status, answer = page_server.call_at_once(page_server.events()["upload"], [file])
            assert status == 200
            assert "ä b.mp4" in answer["data"][0]["value"], answer  # no video
        status, headers, answer = page_server.ask(
            "GET", f"/gradio_api/file={paths[0].replace('ä b', '%C3%A4%20b')}", Cookie=page_server.cookie()
        )
        assert (status, len(answer)) == (200, 4_900_000)
        assert headers["x-content-type-options"] == "nosniff"
    deadline = time.monotonic() + 60
    while [path for path in page_server.stored() if path not in before]:
        assert time.monotonic() < deadline, "the files of the session are still there"
        time.sleep(0.2)
    assert page_server.upload(bytes(1000))[0] == 200
    assert "Traceback" not in page_server.log()


def test_a_forgotten_video_is_named_to_the_person(page_server: PageServer) -> None:
    values = ["<video1> Go.", None, None, None, None, None, 1, 1, 0, 0, False, False, 1]
    said = page_server.call(page_server.events()["run"], values)
    assert not said["success"]
    assert "names &lt;video1&gt; but no such media is given; only the tag" in said["output"]["error"]


@pytest.mark.slow
def test_a_signal_removes_the_folder_and_the_next_server_removes_a_killed_ones(
    page_server: PageServer, tmp_path: Path
) -> None:
    checkpoint = Path(page_server.process.args[5])  # type: ignore[index, arg-type]
    for sent, left in ((signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, 1)):
        with running(checkpoint, tmp_path) as server:
            assert len(list(server.temporary.glob("editverse-*/tmp*"))) == 1  # a killed one's is gone
            assert server.upload(b"x")[0] == 200
            assert len(server.stored()) == 1
            server.process.send_signal(sent)
            server.process.wait(30)
            assert len(list(server.temporary.glob("editverse-*/tmp*"))) == left
            assert "Traceback" not in server.log()
    with running(checkpoint, tmp_path) as server:
        assert len(list(server.temporary.glob("editverse-*/tmp*"))) == 1
        assert server.stored() == []


def test_a_server_sweeps_dead_folders_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with server_folder() as alive:
        (alive / "kept").mkdir()
        dead = alive.parent / "tmpdead"
        (dead / "upload").mkdir(parents=True)
        (dead / "lock").touch()
        with server_folder() as other:
            assert not dead.exists()
            assert (alive / "kept").is_dir()
            assert other.is_dir()
    assert not alive.exists()
    alive.parent.chmod(0o755)
    with pytest.raises(Exception, match="must be a folder that only you can use"), server_folder():
        pass


def test_files_go_by_age_and_by_session(tmp_path: Path) -> None:
    store = FileStore(tmp_path, 1000)

    def entry() -> Path:
        path = store.new_entry() / "file"
        path.write_bytes(bytes(100))
        return path

    mine, shared, other, old = entry(), entry(), entry(), entry()
    assert store.used() == 400
    with store.reserve(600), pytest.raises(QuotaError, match="no room is left"), store.reserve(1):
        pass
    with store.working("me", [mine, shared]):
        store.end_session("me")
        assert mine.exists()  # still worked with
    assert not mine.exists()
    with store.working("you", [other]):
        for path in (other, old):
            os.utime(path, (0, 0))
            os.utime(path.parent, (0, 0))
        store.remove_old()
        assert not old.exists()
        assert other.exists()
    store.end_session("you")
    assert not other.exists()
    assert not shared.exists()
    for path, held in ((entry(), True), (tmp_path / "x", False), (Path("/etc/passwd"), False)):
        assert store.holds(str(path)) is held
    assert not store.holds(f"{store.new_entry()}/../../{'x' * 300}/\x00")


def test_settings_of_the_page_are_checked() -> None:
    for settings, words in (
        ({"port": 70000}, "port: must be at most 65535"),
        ({"max_stored_mb": 0}, "max_stored_mb: needs at least 1"),
        ({"allowed_hosts": ("https://a.example",)}, "allowed_hosts: 'https://a.example' is no host name"),
    ):
        with pytest.raises(ConfigError, match=words):
            AppConfig(**settings)  # type: ignore[arg-type]
