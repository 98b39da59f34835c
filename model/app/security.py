"""What may reach the page: an ASGI application around Gradio's.

Gradio serves some eighty routes to anybody who can reach the port, a web page of another site included. This
lets through what the page itself does and nothing else: known hosts, no other site, the routes that the page
uses, with the cookie that came with the page, and calls whose values its components could have sent. What
is refused gets a 4xx and never reaches Gradio, so an exception behind this is a fault of ours, and stays
visible.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import re
import secrets
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from model.app.calls import CONTROL, CallGuard
from model.app.client import API, WORD, Client, RefusedError, query_of
from model.app.files import FileStore
from model.app.run_queue import Audience
from model.app.service import EditService
from model.app.uploads import UploadRoute

if TYPE_CHECKING:
    import gradio as gr

LOG = logging.getLogger(__name__)
LOOPBACK = ("localhost", "127.0.0.1", "::1")
HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")
# Everything that the page asks for. A name with a slash at its end stands for all that is below it.
GET = ("/", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", "/config", f"{API}/app_id")
GET_BELOW = ("/assets/", "/static/", "/svelte/")
GET_OWN = (f"{API}/queue/data", f"{API}/upload_progress")  # with the cookie
GET_OWN_BELOW = (f"{API}/heartbeat/", f"{API}/file=")
POST = (f"{API}/queue/join", f"{API}/run/predict", f"{API}/cancel", f"{API}/upload")
MAX_PATH = 1024  # characters
RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{0,15})")


class PageGuard:
    """`app`, behind the rules of this module.

    Args:
        app: Gradio's application, which serves `page`.
        page: what it serves; its events say which calls there are.
        store: where uploads go.
        desk: what runs the page's edits; those that nobody listens for are stopped, see `Audience`.
    """

    def __init__(self, app: ASGIApp, page: gr.Blocks, store: FileStore, desk: EditService) -> None:
        self.app, self.page, self.store, self.config = app, page, store, (config := desk.config)
        self.audience = Audience(page, desk)
        self.calls, self.uploads = CallGuard(page, store), UploadRoute(store, config.max_upload_mb)
        self.token = secrets.token_urlsafe(32)
        # Cookies do not know ports: two pages on one machine must not overwrite each other's.
        self.cookie = f"editverse-{config.port}"
        wildcard = config.host in ("", "0.0.0.0", "::")
        named = {config.host, socket.gethostname()} if wildcard else {config.host}
        self.hosts = {name.lower() for name in (*LOOPBACK, *named, *config.allowed_hosts)}
        # An address cannot be made to point elsewhere, as a name can (DNS rebinding).
        self.any_address = wildcard
        self._told: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        client = Client(receive, send)
        try:
            await self._serve(scope, client)
        except RefusedError as refusal:
            if not client.answering:
                if scope["method"] == "POST":
                    await client.drain(Headers(scope=scope), 2 * self.uploads.max_bytes)
                # What is left of the body stays unread: the connection cannot be used for another request.
                response = JSONResponse({"detail": refusal.message}, refusal.status, {"connection": "close"})
                await response(scope, client.receive, client.send)
        except ClientDisconnect:
            pass  # an upload that was broken off
        except Exception as error:
            # Gradio's streams raise when their reader leaves, or asks for what has just ended.
            if not client.gone and not (client.answering and _is_4xx(error)):
                raise
            LOG.debug("%s %s: %r", scope["method"], scope["path"], error)

    async def _serve(self, scope: Scope, client: Client) -> None:
        headers = Headers(scope=scope)
        host = self._check_host(headers)
        self._check_site(scope, headers, host)
        self._check_route(scope, headers)
        scope = self._normalized(scope, headers)
        path = scope["path"]
        if path == f"{API}/upload":
            await self.uploads.serve(scope, client)
            return
        if path == f"{API}/queue/data" and query_of(scope)["session_hash"] not in (
            self.page._queue.pending_messages_per_session
        ):
            raise RefusedError(404, "no such session")
        if path == f"{API}/queue/data":
            await self._stream(scope, client, query_of(scope)["session_hash"])
            return
        if scope["method"] == "POST":
            await self._call(scope, client)
            return
        if path == "/":
            secure = "; Secure" if scope.get("scheme") == "https" else ""
            client.extra.append(
                (
                    b"set-cookie",
                    f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict{secure}".encode(),
                )
            )
        await self.app(scope, client.receive, client.send)

    async def _stream(self, scope: Scope, client: Client, session: str) -> None:
        """Serve the messages about a session's runs, which end when their client goes."""
        with self.audience.listening(session):
            try:
                await self.app(scope, client.receive, client.send)
            finally:
                if client.gone:
                    await self.audience.drop(session)

    async def _call(self, scope: Scope, client: Client) -> None:
        """Serve a call; a run has to be listened for, and a cancelled one must not work on."""
        receive, session = await self.calls.checked(scope, client)
        if scope["path"] == f"{API}/cancel":
            self.audience.stop(session)  # before Gradio, which then no longer knows that it has begun
        await self.app(scope, receive, client.send)
        if scope["path"] == f"{API}/queue/join":
            self.audience.check_later()

    # Who asks.

    def _check_host(self, headers: Headers) -> str:
        """The Host header, if it is one of ours."""
        hosts = headers.getlist("host")
        match = HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None or int(match["port"] or 0) > 65535:
            raise RefusedError(400, "the request needs one valid Host header")
        name = match["name"].strip("[]").lower()
        if name not in self.hosts and not (self.any_address and _is_address(name)):
            if name not in self._told and len(self._told) < 20:
                self._told.add(name)
                LOG.warning("refused a request to host %s; --allowed_hosts '[%s]' would allow it", name, name)
            raise RefusedError(403, f"host {name} is not served here; see --allowed_hosts")
        return hosts[0]

    def _check_site(self, scope: Scope, headers: Headers, host: str) -> None:
        """Refuse what another site's page asks for; a link that a person follows to this page is fine."""
        for origin in headers.getlist("origin"):
            try:
                parts = urlsplit(origin)
                own = parts.netloc.lower() == host.lower() or (
                    (parts.hostname or "") in self.config.allowed_hosts
                )
            except ValueError:
                own = False
            if not own:
                raise RefusedError(403, "requests of other sites are refused")
        site = headers.get("sec-fetch-site", "none")
        followed = (
            scope["path"] == "/"
            and scope["method"] == "GET"
            and headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest") == "document"
        )
        if site not in ("none", "same-origin") and not followed:
            raise RefusedError(403, "requests of other sites are refused")

    def _check_route(self, scope: Scope, headers: Headers) -> None:
        """Refuse what the page does not ask for, and what needs its cookie and comes without."""
        path, method = scope["path"], scope["method"]
        raw = scope.get("raw_path") or b""
        if len(path) > MAX_PATH or len(raw) > 3 * MAX_PATH or CONTROL.search(path) or "\\" in path:
            raise RefusedError(400, "the path is malformed")
        own = path in POST or path in GET_OWN or path.startswith(GET_OWN_BELOW)
        if not own and path not in GET and not path.startswith(GET_BELOW):
            raise RefusedError(404, "no such page")
        if ".." in path.split("/"):
            raise RefusedError(404, "no such page")
        if method not in (("POST",) if path in POST else ("GET", "HEAD")):
            raise RefusedError(405, "the method is not allowed here")
        if own:
            sent = cookie_parser(headers.get("cookie", "")).get(self.cookie, "")
            if not secrets.compare_digest(sent.encode(), self.token.encode()):
                raise RefusedError(403, "the page is not open, or the server was started anew: reload it")
        if path.startswith(f"{API}/heartbeat/") and not WORD.fullmatch(
            path.removeprefix(f"{API}/heartbeat/")
        ):
            raise RefusedError(404, "no such session")
        if path.startswith(f"{API}/file=") and not self.store.holds(path.removeprefix(f"{API}/file=")):
            raise RefusedError(404, "no such file")

    def _normalized(self, scope: Scope, headers: Headers) -> Scope:
        """The request without what the page never sends, but Gradio would read."""
        query = query_of(scope)
        for name in ("session_hash", "upload_id"):
            if name in query and not WORD.fullmatch(query[name]):
                raise RefusedError(400, f"{name} is malformed")
        needed = {f"{API}/queue/data": "session_hash", f"{API}/upload_progress": "upload_id"}
        if needed.get(scope["path"], "") not in ("", *query):
            raise RefusedError(400, f"{needed[scope['path']]} is missing")
        kept: dict[str, str] = {name: query[name] for name in ("session_hash", "upload_id") if name in query}
        # Gradio builds its own address from these three, whoever sent them.
        dropped = {b"x-gradio-server"}
        if headers.get("x-forwarded-proto", "") not in ("http", "https"):
            dropped.add(b"x-forwarded-proto")
        forwarded = HOST.fullmatch(headers.get("x-forwarded-host", ""))
        if forwarded is None or forwarded["name"].lower() not in self.hosts:
            dropped.add(b"x-forwarded-host")
        span = RANGE.fullmatch(headers.get("range", ""))
        if span is None or (span[2] and int(span[1]) > int(span[2])):
            dropped.add(b"range")  # a malformed range is as good as none (RFC 9110, 14.2)
        return {
            **scope,
            "query_string": urlencode(kept).encode(),
            "headers": [(name, value) for name, value in scope["headers"] if name not in dropped],
        }


def _is_address(name: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return False


def _is_4xx(error: BaseException | None) -> bool:
    """Whether an exception comes from a refusal of Gradio's."""
    while error is not None:
        if isinstance(error, HTTPException):
            return error.status_code < 500
        error = error.__cause__ or error.__context__
    return False
