"""An OpenAI-compatible endpoint on this machine, which answers as a test wants it to."""

from __future__ import annotations

import json
import threading
import time
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


def responded(text: str) -> Reply:
    """An answer of the Responses API with this text."""
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    usage = {"input_tokens": 9, "output_tokens": 1, "total_tokens": 10}
    body = {
        "id": "r",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "output": [message],
        "usage": usage,
    }
    return 200, {"Content-Type": "application/json"}, json.dumps(body)


class Stub:
    """Serves what `reply(n, request)` returns for request number n.

    A header `X-Drip: headers` or `X-Drip: body` is not sent: what it names comes byte by byte, 20 a second.
    """

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self.requests: list[dict[str, Any]] = []
        self.reply: Callable[[int, dict[str, Any]], Reply] = lambda n, request: said(GOOD)
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers["Content-Length"]))
                request = json.loads(sent)
                stub.requests.append(request)
                stub.bodies.append(sent)
                stub.paths.append(self.path)
                status, headers, body = stub.reply(len(stub.requests) - 1, request)
                drips = headers.pop("X-Drip", "")
                try:
                    if drips == "headers":
                        self.drip(b"HTTP/1.1 200 OK\r\n" + b"X-Nothing: nothing\r\n" * 20)
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(body.encode())))
                    self.end_headers()
                    if drips == "body":
                        self.drip(body.encode())
                        return
                    self.wfile.write(body.encode())
                except (BrokenPipeError, ConnectionResetError):
                    pass  # who asked did not wait

            def drip(self, data: bytes) -> None:
                for byte in data:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(0.05)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
