"""What every request and answer of a service passes: hosts, origins, sizes, tokens, errors in one line.

Errors are problem details (RFC 9457): JSON with the status and one line.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.serving.config import ServeConfig
from model.serving.edit_queue import RETRY_SECONDS, RequestRefused
from model.serving.metrics import Metrics
from model.serving.store import StoreError
from model.serving.tokens import Tokens
from shards.errors import EditVerseError, SettingError, first_line
from shards.files import DISK_FAULTS

LOG = logging.getLogger(__name__)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
MAX_FORM = 1 << 16  # bytes of a request beyond its files
PAUSE = 30.0  # seconds that a client may send nothing in the middle of a request
MAX_DRAIN = 6.0  # seconds in which what is left of a refused body is read


def problem(status: int, line: str, retry_after: int | None = None) -> Response:
    """An error as problem details."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": line}
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(body, status, headers, media_type="application/problem+json")


class Gate:
    """Middleware: answers its own hosts alone, no other site's page, and nobody who sends too much.

    Args:
        app: what is served.
        config: hosts and sizes.
        metrics: count requests.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics
        self.max_bytes = config.max_upload_mb * 10**6 + MAX_FORM
        self.max_mb = config.max_upload_mb
        self.any_host = config.host in ("", "0.0.0.0", "::")
        self.hosts = {*LOOPBACK, config.host.lower(), *config.allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        exchange = Exchange(self, headers, receive, send)
        try:
            refusal = self._refusal(headers)
            if refusal is None:
                await self.app(scope, exchange.receive, exchange.send)
            else:
                await refusal(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = 499  # an upload that was broken off; nobody is there to be answered
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.count(
                "editverse_http_requests_total",
                "Requests by route and status.",
                method=scope["method"] if scope["method"] in ("GET", "POST", "DELETE") else "other",
                route=route,
                status=str(exchange.status),
            )

    def _refusal(self, headers: Headers) -> Response | None:
        """Why a request is not served, before anything of it is read."""
        host = headers.get("host", "")
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            name = ""
        if name not in self.hosts and not self.any_host:
            return problem(403, "this host is not served here; --allowed_hosts names those that are")
        # A page of another site could send a form to a service on this machine that needs no token.
        origin = headers.get("origin")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") or (
            origin is not None and origin.lower().partition("://")[2] != host.lower()
        ):
            return problem(403, "requests of other sites are refused")
        stated = headers.get("content-length", "0")
        if not (stated.isascii() and stated.isdigit()):
            return problem(400, "the request's content-length is no number")
        if int(stated[:20]) > self.max_bytes:
            return problem(413, f"a request has at most {self.max_mb} MB")
        return None


class Exchange:
    """One request's two channels, which count what comes and mind how it is answered."""

    def __init__(self, gate: Gate, headers: Headers, receive: Receive, send: Send) -> None:
        self._gate, self._headers, self._receive, self._send = gate, headers, receive, send
        self._received = 0
        self._arrived = "content-length" not in headers and "transfer-encoding" not in headers
        self.status = 499

    async def receive(self) -> Message:
        """The next message of the client; HTTPException where it is too large or too slow."""
        if self._arrived:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), PAUSE)
        except TimeoutError:
            raise HTTPException(408, "the request came too slowly") from None
        self._received += len(message.get("body", b""))
        self._arrived = message["type"] == "http.disconnect" or not message.get("more_body", False)
        if self._received > self._gate.max_bytes:
            raise HTTPException(413, f"a request has at most {self._gate.max_mb} MB")
        return message

    async def send(self, message: Message) -> None:
        """Answer, with our headers; a client that is refused while it sends must have sent to see why."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if not self._arrived:
                headers["connection"] = "close"
                await self._drain()
        await self._send(message)

    async def _drain(self) -> None:
        if self._headers.get("expect") and not self._received:
            return  # it waits to be asked for its body
        left = 2 * self._gate.max_bytes - int(self._headers.get("content-length", "0")[:20] or 0)
        try:
            async with asyncio.timeout(MAX_DRAIN):
                while left > 0 and not self._arrived:
                    message = await self._receive()
                    self._arrived = not message.get("more_body", False)
                    if "content-length" not in self._headers:
                        left -= len(message.get("body", b""))
        except TimeoutError:
            LOG.debug("a refused request was not read to its end")


# Tokens.

BEARER = HTTPBearer(auto_error=False, description="a token of `python -m model token`")


def owner_of(request: Request, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> str:
    """Dependency: who asks, "" where no tokens are needed; RequestRefused (401) without a good one."""
    tokens: Tokens | None = request.app.state.tokens
    if tokens is None:
        return ""
    try:
        owner = tokens.owner(sent.credentials) if sent is not None else None
    except SettingError as error:  # the file was changed for the worse
        LOG.error("nobody is served: %s", error)
        raise RequestRefused(503, "the service cannot read its tokens; come again", RETRY_SECONDS) from None
    if owner is None:
        raise RequestRefused(401, "a token is needed: send `Authorization: Bearer TOKEN`")
    return owner


Owner = Annotated[str, Depends(owner_of)]


# Errors.


def say_errors_in_one_line(app: FastAPI) -> None:
    """Answer what an application refuses, and a disk that is full, by `problem`."""
    handlers: dict[Any, Any] = {
        RequestRefused: _refused,
        StoreError: _unavailable,
        EditVerseError: _rejected,
        HTTPException: _http_error,
        RequestValidationError: _malformed,
        OSError: _machine,
        Exception: _fault,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _refused(request: Request, error: RequestRefused) -> Response:
    return problem(error.status, str(error), error.retry_after)


async def _rejected(request: Request, error: EditVerseError) -> Response:
    return problem(422, first_line(error))


async def _unavailable(request: Request, error: StoreError) -> Response:
    LOG.error("%s", error)
    return problem(503, "the service cannot write to its disk now; come again", RETRY_SECONDS)


async def _http_error(request: Request, error: HTTPException) -> Response:
    response = problem(error.status_code, str(error.detail))
    response.headers.update(error.headers or {})
    return response


async def _malformed(request: Request, error: RequestValidationError) -> Response:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]).encode("ascii", "replace").decode()[:80]
    return problem(422, f"{where}: {first['type'].replace('_', ' ')}")


async def _machine(request: Request, error: OSError) -> Response:
    if error.errno not in DISK_FAULTS:
        raise error
    LOG.error("%s", error)
    return problem(507, f"the request cannot be stored: {error.strerror}", RETRY_SECONDS)


async def _fault(request: Request, error: Exception) -> Response:
    return problem(500, "a fault of the service, which its log tells of")
