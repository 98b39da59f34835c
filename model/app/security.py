"""What may reach the page: an ASGI application around Gradio's.

Gradio serves some eighty routes to anybody who can reach the port, a web page of another site included. This
lets through what the page itself does and nothing else: known hosts, no other site, the routes that the page
uses, with the cookie that came with the page, and calls whose values its components could have sent. What
is refused gets a 4xx and never reaches Gradio, so an exception behind this is a fault of ours, and stays
visible.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import math
import re
import secrets
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.app.files import FileStore, QuotaError
from model.app.service import MAX_TEXT, AppConfig
from shards.errors import EditVerseError
from shards.limits import parse_json

if TYPE_CHECKING:
    import gradio as gr

LOG = logging.getLogger(__name__)
logging.getLogger("python_multipart").setLevel(
    logging.ERROR
)  # warns of every malformed form, which we refuse
# What the page may load and where it may connect; `eval` and inline code are how Gradio's front end is built.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' blob: data:; frame-ancestors 'self'"
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}
LOOPBACK = ("localhost", "127.0.0.1", "::1")
HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")
WORD = re.compile(r"[A-Za-z0-9_-]{1,64}")  # Gradio's ids of sessions, events and uploads
API = "/gradio_api"
# Everything that the page asks for. A name with a slash at its end stands for all that is below it.
GET = ("/", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt", "/config", f"{API}/app_id")
GET_BELOW = ("/assets/", "/static/", "/svelte/")
GET_OWN = (f"{API}/queue/data", f"{API}/upload_progress")  # with the cookie
GET_OWN_BELOW = (f"{API}/heartbeat/", f"{API}/file=")
POST = (f"{API}/queue/join", f"{API}/run/predict", f"{API}/cancel", f"{API}/upload")
MAX_PATH = 1024  # characters
MAX_CALL = 1 << 18  # bytes of a call; texts are far shorter, files come as uploads
MAX_FORM = 1 << 16  # bytes of an upload beyond its file
PAUSE = 30.0  # seconds that a client may send nothing in the middle of a request
RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{0,15})")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
MAX_WHOLE = 1 << 53  # beyond it JavaScript's numbers are not exact


class RefusedError(Exception):
    """A request that is answered here: status and what to say."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class PageGuard:
    """`app`, behind the rules of this module.

    Args:
        app: Gradio's application, which serves `page`.
        page: what it serves; its events say which calls there are.
        store: where uploads go.
    """

    def __init__(self, app: ASGIApp, page: gr.Blocks, store: FileStore, config: AppConfig) -> None:
        self.app, self.page, self.store, self.config = app, page, store, config
        self.max_upload = config.max_upload_mb * 10**6 + MAX_FORM  # bytes of a request
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
        client = _Client(receive, send)
        try:
            await self._serve(scope, client)
        except RefusedError as refusal:
            if not client.answering:
                if scope["method"] == "POST":
                    await client.drain(Headers(scope=scope), 2 * self.max_upload)
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

    async def _serve(self, scope: Scope, client: _Client) -> None:
        headers = Headers(scope=scope)
        host = self._check_host(headers)
        self._check_site(scope, headers, host)
        self._check_route(scope, headers)
        scope = self._normalized(scope, headers)
        path = scope["path"]
        if path == f"{API}/upload":
            await self._upload(scope, client)
            return
        if path == f"{API}/queue/data" and _query(scope)["session_hash"] not in (
            self.page._queue.pending_messages_per_session
        ):
            raise RefusedError(404, "no such session")
        receive: Receive = client.receive
        if scope["method"] == "POST":
            receive = await self._call(scope, client)
        if path == "/":
            secure = "; Secure" if scope.get("scheme") == "https" else ""
            client.extra.append(
                (
                    b"set-cookie",
                    f"{self.cookie}={self.token}; Path=/; HttpOnly; SameSite=Strict{secure}".encode(),
                )
            )
        await self.app(scope, receive, client.send)

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
        query = _query(scope)
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

    # What is asked.

    async def _call(self, scope: Scope, client: _Client) -> Receive:
        """Read and check the body of a call; what Gradio receives in its place."""
        headers = Headers(scope=scope)
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RefusedError(415, "a call is application/json")
        if int(headers.get("content-length", 0)) > MAX_CALL:
            raise RefusedError(413, f"a call has at most {MAX_CALL} bytes")
        chunks = bytearray()
        async for chunk in client.stream():
            chunks += chunk
            if len(chunks) > MAX_CALL:
                raise RefusedError(413, f"a call has at most {MAX_CALL} bytes")
        try:
            body = parse_json(bytes(chunks), "the call")
        except EditVerseError as error:
            raise RefusedError(400, str(error)) from None
        if not isinstance(body, dict):
            raise RefusedError(400, "the call must be an object")
        check = self._cancellation if scope["path"] == f"{API}/cancel" else self._event
        clean = json.dumps(check(body, scope["path"])).encode()
        scope["headers"] = [
            (name, value)
            for name, value in scope["headers"]
            if name not in (b"content-length", b"transfer-encoding", b"content-encoding")
        ] + [(b"content-length", str(len(clean)).encode())]
        return client.replaying(clean)

    def _cancellation(self, body: dict[str, Any], path: str) -> dict[str, Any]:
        if not _is_int(body.get("fn_index")):
            raise RefusedError(400, "fn_index: must be a whole number")
        words = {name: _word(body, name) for name in ("session_hash", "event_id")}
        return words | {"fn_index": body["fn_index"]}

    def _event(self, body: dict[str, Any], path: str) -> dict[str, Any]:
        """One of the page's events with values that its components can have."""
        session, index = _word(body, "session_hash"), body.get("fn_index")
        event = self.page.fns.get(index) if isinstance(index, int) and _is_int(index) else None
        if event is None or event.fn is None or event.queue is (path != f"{API}/queue/join"):
            raise RefusedError(400, "fn_index: no such event")
        values = body.get("data")
        if not isinstance(values, list) or len(values) != len(event.inputs):
            raise RefusedError(400, f"data: needs a list of {len(event.inputs)} values")
        trigger = body.get("trigger_id")
        if trigger is not None and not _is_int(trigger):
            raise RefusedError(400, "trigger_id: must be a whole number")
        data = [self._value(*pair) for pair in zip(event.inputs, values, strict=True)]
        return {"data": data, "fn_index": index, "trigger_id": trigger, "session_hash": session}

    def _value(self, component: Any, value: Any) -> Any:
        """A component's value as it may be; what cannot be is refused by the component's name."""
        kind = type(component).__name__
        name = str(getattr(component, "label", None) or kind)
        check: Callable[[Any, Any], Any] = {
            "Textbox": self._text,
            "Dropdown": self._choice,
            "Slider": self._number,
            "Number": self._number,
            "Checkbox": self._flag,
            "Video": self._file,
            "Image": self._file,
            "File": self._file,
        }[kind]
        try:
            return check(component, value)
        except ValueError as error:
            raise RefusedError(400, f"{name}: {error}") from None

    def _text(self, component: Any, value: Any) -> str:
        text = "" if value is None else value
        if not isinstance(text, str):
            raise ValueError("must be text")
        if len(text) > MAX_TEXT:
            raise ValueError(f"{len(text)} characters are too many, at most {MAX_TEXT} are taken")
        if CONTROL.search(text) or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValueError("has characters that are no text")
        return text

    def _choice(self, component: Any, value: Any) -> str | None:
        if value is not None and value not in [choice for _, choice in component.choices]:
            raise ValueError("must be one of the choices")
        return value

    def _flag(self, component: Any, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError("must be true or false")
        return value

    def _number(self, component: Any, value: Any) -> float | None:
        if value is None and type(component).__name__ == "Number":
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError("must be a number")
        least = -MAX_WHOLE if component.minimum is None else component.minimum
        most = MAX_WHOLE if component.maximum is None else component.maximum
        if not least <= value <= most:
            raise ValueError(f"must lie between {least:g} and {most:g}")
        return value

    def _file(self, component: Any, value: Any) -> dict[str, Any] | None:
        if value is None:
            return None
        path = value.get("path") if isinstance(value, dict) else None
        if not isinstance(path, str):
            raise ValueError("must be an upload")
        if not self.store.holds(path):
            raise ValueError("the upload is no longer there, upload it again")
        return {"path": path, "meta": {"_type": "gradio.FileData"}}

    # Uploads.

    async def _upload(self, scope: Scope, client: _Client) -> None:
        """Store the one file of a form, within the quota; answer with its path, as Gradio's route does."""
        headers = Headers(scope=scope)
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
            raise RefusedError(415, "an upload is multipart/form-data")
        size = int(headers.get("content-length", self.max_upload))
        if size > self.max_upload:
            raise self._too_large()
        try:
            with self.store.reserve(size):
                path = await self._stored(headers, client, _query(scope).get("upload_id"))
        except QuotaError as error:
            raise RefusedError(413, str(error)) from None
        await JSONResponse([str(path)])(scope, client.receive, client.send)

    def _too_large(self) -> RefusedError:
        return RefusedError(413, f"this page takes files of at most {self.config.max_upload_mb} MB")

    async def _stored(self, headers: Headers, client: _Client, upload_id: str | None) -> Path:
        async def limited() -> AsyncIterator[bytes]:
            received = 0
            async for chunk in client.stream():
                received += len(chunk)
                if received > self.max_upload:
                    raise self._too_large()
                yield chunk

        parser = _FormParser(headers, limited(), upload_id)
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise RefusedError(400, f"the upload is malformed: {error.message}") from None
        finally:
            parser.finish()
        files = [value for value in form.getlist("files") if isinstance(value, UploadFile)]
        if len(files) != 1:
            await form.close()
            raise RefusedError(400, "the upload is malformed: it needs one file")
        path = self.store.new_entry() / _file_name(files[0].filename or "")
        try:
            await asyncio.to_thread(_write, files[0].file, path)
        except OSError as error:
            await asyncio.to_thread(shutil.rmtree, path.parent, ignore_errors=True)
            LOG.error("an upload was not stored: %s", error.strerror)
            raise RefusedError(507, f"the upload could not be stored: {error.strerror}") from None
        finally:
            await form.close()
        return path


class _Client:
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


class _FormParser(MultiPartParser):
    """Starlette's parser for one file; tells Gradio's progress route how far an upload is."""

    def __init__(self, headers: Headers, stream: AsyncIterator[bytes], upload_id: str | None) -> None:
        super().__init__(headers, stream, max_files=1, max_fields=8, max_part_size=MAX_FORM)  # type: ignore[arg-type]
        self.upload_id = upload_id
        from gradio.routes import file_upload_statuses

        self.progress = file_upload_statuses
        if upload_id:
            self.progress.track(upload_id)

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        """Collect a header, which is short."""
        if len(self._current_partial_header_value) + end - start > 8192:
            raise MultiPartException("a header is too long")
        super().on_header_value(data, start, end)

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Count what arrived."""
        super().on_part_data(data, start, end)
        file = self._current_part.file
        if self.upload_id and file is not None:
            self.progress.append(self.upload_id, file.filename or "", data[start:end])

    def finish(self) -> None:
        """End the stream that shows the progress."""
        if self.upload_id:
            self.progress.set_done(self.upload_id)


def _write(source: BinaryIO, path: Path) -> None:
    with path.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _file_name(name: str) -> str:
    """An upload's own name as far as it is safe; the suffix stays, which says what the file is."""
    cleaned = re.sub(r"[^\w .()+-]", "_", name.replace("\\", "/").rpartition("/")[2]).strip(" .")
    stem, dot, suffix = cleaned.rpartition(".")
    if not dot or len(suffix) > 10:
        return cleaned[:60] or "upload"
    return f"{stem[:60] or 'upload'}.{suffix}"


def _query(scope: Scope) -> dict[str, str]:
    try:
        return dict(parse_qsl(scope["query_string"].decode("latin-1"), max_num_fields=20))
    except ValueError:
        raise RefusedError(400, "the query is malformed") from None


def _word(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not WORD.fullmatch(value):
        raise RefusedError(400, f"{name}: is missing or malformed")
    return value


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_WHOLE


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
