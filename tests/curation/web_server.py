"""A web server on this machine for tests of downloads: it answers as its table says, and may break off."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Seen:
    """A request that came: its path, its query and its headers in lower case."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass
class Page:
    """What is answered at a path.

    Attributes:
        breaks: of the first so many answers only half of the body is sent.
        busy: headers of answers with status 429, one after the other, before the page itself.
    """

    body: bytes = b""
    kind: str = "video/mp4"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    breaks: int = 0
    busy: list[dict[str, str]] = field(default_factory=list)


class WebServer:
    """A server with its own thread; `pages` by path, an entry may be a function of the request."""

    def __init__(self) -> None:
        self.pages: dict[str, Page | Callable[[Seen], Page]] = {}
        self.seen: list[Seen] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()

    def document(self, value: object, **more: object) -> Page:
        """A page of JSON."""
        return Page(json.dumps(value).encode(), "application/json", **more)  # type: ignore[arg-type]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """One request; files have an ETag and know Range and If-Range."""
        parts = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        seen = Seen(parts.path, query, {name.lower(): value for name, value in handler.headers.items()})
        self.seen.append(seen)
        held = self.pages.get(parts.path, Page(b"none", "text/html", 404))
        page = held(seen) if callable(held) else held
        if page.busy:
            handler.send_response(429)
            for name, value in page.busy.pop(0).items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        tag = f'"{len(page.body)}"'
        first = 0
        if "range" in seen.headers and seen.headers.get("if-range") == tag:
            first = int(seen.headers["range"].removeprefix("bytes=").rstrip("-"))
        handler.send_response(206 if first else page.status)
        if first:
            handler.send_header("Content-Range", f"bytes {first}-{len(page.body) - 1}/{len(page.body)}")
        for name, value in {"Content-Type": page.kind, "ETag": tag, **page.headers}.items():
            handler.send_header(name, value)
        body = page.body[first:]
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        if page.breaks:
            page.breaks -= 1
            body = body[: len(body) // 2]
        handler.wfile.write(body)
