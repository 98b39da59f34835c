"""What every request and answer of a study's server passes: headers, origins, sizes, errors in one line."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from html import escape
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOG = logging.getLogger(__name__)
MAX_BODY = 64 * 1024  # bytes; a vote has some 200
BODY_SECONDS = 20.0  # a body that drips longer is refused
RETRY_SECONDS = 2  # when to come again while the database cannot take a vote
# `same-origin` tells other sites nothing. `no-referrer` would make browsers send `Origin: null` with forms
# (Fetch, "append a request Origin header"), which could not be told from another site's.
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
PAGE = """\
<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{status}</title><link rel="stylesheet" href="/static/study.css"></head>
<body><main><p>{text}</p></main></body>
</html>
"""


class Answers:
    """Middleware: adds `HEADERS` to every answer, errors of ours included, which are logged and not shown."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            await self.app(scope, receive, answer)
        except Exception:
            if not begun:
                response = message_response(
                    Request(scope), 500, "something went wrong on our side; try again"
                )
                await response(scope, receive, answer)
            raise  # to be logged by the server


class Guard:
    """Middleware: refuses what other sites send, and bodies that are too large or too slow."""

    def __init__(self, app: ASGIApp, base_url: str, max_body: int = MAX_BODY) -> None:
        self.app, self.max_body = app, max_body
        base = urlsplit(base_url)
        self.origin = f"{base.scheme}://{base.netloc}".lower()
        self.scheme = base.scheme

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and not self._is_ours(headers):
            response = message_response(Request(scope), 403, "requests of other sites are refused")
        elif "content-length" not in headers and "transfer-encoding" not in headers:
            await self.app(scope, receive, send)
            return
        else:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    body = await self._body(headers, receive)
            except TimeoutError:
                response = message_response(Request(scope), 408, "the request came too slowly")
            else:
                if body is not None:
                    await self.app(scope, _again(body, receive), send)
                    return
                text = f"a request has at most {self.max_body} bytes"
                response = message_response(Request(scope), 413, text)
        response.headers["connection"] = "close"  # what is left of its body is not read
        await response(scope, receive, send)

    def _is_ours(self, headers: Headers) -> bool:
        """Whether a request comes from a page of this server, or from no page."""
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return False
        origin = headers.get("origin")
        own = f"{self.scheme}://{headers.get('host', '')}".lower()
        return origin is None or origin.lower() in (self.origin, own)

    async def _body(self, headers: Headers, receive: Receive) -> bytes | None:
        """A request's body; None if it is too large."""
        stated = headers.get("content-length", "0")
        if not (stated.isascii() and stated.isdigit()) or int(stated[:20]) > self.max_body:
            return None
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            body += message.get("body", b"")
            if len(body) > self.max_body:
                return None
            more = message.get("more_body", False)
        return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read already, then what else comes."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def give() -> Message:
        return first.pop() if first else await receive()

    return give


# Errors, in one line.


def wants_page(request: Request) -> bool:
    """Whether who asks is shown pages, such as a browser; others get JSON."""
    return "text/html" in request.headers.get("accept", "")


def message_response(
    request: Request, status: int, text: str, headers: Mapping[str, str] | None = None
) -> Response:
    """A page that says one sentence, or JSON (`detail`) for those who do not ask for pages."""
    if not wants_page(request):
        return JSONResponse({"detail": text}, status, headers)
    return HTMLResponse(PAGE.format(status=status, text=escape(text)), status, headers)


def say_errors_in_one_line(app: FastAPI) -> None:
    """Answer what an application refuses, and a database that cannot be used, by `message_response`."""
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    for kind in (OperationalError, InterfaceError, PoolTimeoutError):
        app.add_exception_handler(kind, _unavailable)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return message_response(request, error.status_code, str(error.detail), error.headers)


async def _malformed(request: Request, error: Exception) -> Response:
    """What does not fit is named, but what was sent is not repeated: it may be no text at all."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]).encode("ascii", "replace").decode()[:80]
    return message_response(request, 422, f"{where}: {first['type'].replace('_', ' ')}")


async def _unavailable(request: Request, error: Exception) -> Response:
    """Locked, full or away: the page keeps its answers and sends them again."""
    LOG.error("the database cannot be used: %s", str(error).splitlines()[0])
    text = "the study's database cannot be reached or written to now; nothing is lost, try again"
    return message_response(request, 503, text, {"retry-after": str(RETRY_SECONDS)})
