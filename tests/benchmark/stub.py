"""An OpenAI-compatible endpoint on this machine, which answers as a test wants it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GOOD = '{"instruction": 3, "preservation": 2, "quality": 1}'
Reply = tuple[int, dict[str, str], str]


def said(content: str | None, **choice: Any) -> Reply:
    """A chat completion with this content."""
    message = {"role": "assistant", "content": content, "refusal": choice.pop("refusal", None)}
    made = {"index": 0, "message": message, "finish_reason": choice.pop("finish_reason", "stop")}
    body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [made]}
    return 200, {"Content-Type": "application/json"}, json.dumps(body)


class Stub:
    """Serves what `reply(n, request)` returns for request number n."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.reply: Callable[[int, dict[str, Any]], Reply] = lambda n, request: said(GOOD)
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stub.requests.append(request)
                status, headers, body = stub.reply(len(stub.requests) - 1, request)
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body.encode())))
                    self.end_headers()
                    self.wfile.write(body.encode())
                except (BrokenPipeError, ConnectionResetError):
                    pass  # who asked did not wait

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
