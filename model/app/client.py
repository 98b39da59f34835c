"""One request to the page: what the client sends, what it is answered, and how it is refused."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

# What the page may load and where it may connect; `eval` and inline code are how Gradio's front end is built.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; frame-ancestors 'self'"
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
API = "/gradio_api"  # where Gradio has its routes
WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")  # Gradio's ids of sessions, events and uploads
MAX_FORM = 1 << 16  # bytes of an upload beyond its file
PAUSE = 30.0  # seconds that a client may send nothing in the middle of a request


class RefusedError(Exception):
    """A request that is answered here: status and what to say."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Client:
    """One request's two channels: what came, what was answered, whether the client is still there."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self.answering = self.gone = self.arrived = False
        self.extra: list[tuple[bytes, bytes]] = []

    async def receive(self) -> Message:
        """The next message of the client."""
        message = await self._receive()
        self.gone = self.gone or message["type"] == "http.disconnect"
        self.arrived = self.gone or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Answer, with our headers and without those that would let other sites read the answer."""
        if message["type"] == "http.response.start":
            self.answering = True
            kept = [
                (name, value)
                for name, value in message.get("headers", [])
                if not name.lower().startswith(b"access-control-") and name.decode("latin-1") not in HEADERS
            ]
            ours = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*kept, *ours, *self.extra]}
        await self._send(message)

    async def stream(self) -> AsyncIterator[bytes]:
        """The body, chunk by chunk; a client that stops in the middle is refused."""
        more = True
        while more:
            try:
                message = await asyncio.wait_for(self.receive(), PAUSE)
            except TimeoutError:
                raise RefusedError(408, "the request did not arrive") from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            yield message.get("body", b"")
            more = message.get("more_body", False)

    async def drain(self, headers: Headers, most: int) -> None:
        """Read what is left of a body of up to `most` bytes: a client that still sends sees no answer."""
        left = most - int(headers.get("content-length", 0))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PAUSE / 5):
                while left > 0 and not self.arrived:
                    message = await self.receive()
                    left -= 0 if "content-length" in headers else len(message.get("body", b""))

    def replaying(self, body: bytes) -> Receive:
        """`receive` for an application that is to see `body`."""
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return messages.pop() if messages else await self.receive()

        return receive


def query_of(scope: Scope) -> dict[str, str]:
    """The fields of a request's query."""
    try:
        return dict(parse_qsl(scope["query_string"].decode("latin-1"), max_num_fields=20))
    except ValueError:
        raise RefusedError(400, "the query is malformed") from None
