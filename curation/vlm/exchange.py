"""HTTP exchanges with an endpoint: each ends by a deadline, and a log may keep them and answer for them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Protocol

from curation.vlm.interface import AnnotatorError
from shards.errors import EditVerseError
from shards.hashing import digest
from shards.limits import MAX_JSON_BYTES, parse_json

ENCODED = {"content-encoding", "content-length", "transfer-encoding"}  # no longer so once a body is read
FROM_LOG = "x-answer-from-log"  # header of a response that no server sent


@dataclass
class Question:
    """What somebody is asking about, for the log of its requests.

    Attributes:
        about: names for people who read the log, such as the item, the row and the frame.
        reader: identity of who reads the answers: what it could not use once is not given to it again.
        repeat: the same is asked several times on purpose; each time has answers of its own.
        used: identities of the answers that were given.
        log: that keeps them, once something was asked.
        failed: why the last answer was none, `refusal` or `filter`.
    """

    about: dict[str, Any] = field(default_factory=dict)
    reader: str = ""
    repeat: int = 0
    used: list[str] = field(default_factory=list)
    log: Log | None = None
    failed: str = ""

    def reject(self) -> None:
        """Note that the reader could not use the answers: it is to have new ones next time."""
        if self.log is not None and self.used:
            self.log.reject(self)


class Log(Protocol):
    """Keeps requests and answers, by what was asked."""

    def kept(self, key: str, question: Question) -> str | None:
        """An answer to a request that the question has not had and its reader has not rejected."""
        ...

    def add(self, key: str, question: Question, *, answer: bool, **about: Any) -> None:
        """Keep an exchange; `answer` says that it is one, which may be given again."""
        ...

    def reject(self, question: Question) -> None:
        """The question's reader could not use the answers that it was given."""
        ...


_question: ContextVar[Question | None] = ContextVar("question", default=None)


@contextlib.contextmanager
def asking(repeat: int | None = None, reader: str | None = None, **about: Any) -> Iterator[Question]:
    """Requests inside belong to this question; what is not said is as outside."""
    outer = _question.get() or Question()
    inner = replace(outer, about={**outer.about, **about}, used=[], log=None, failed="")
    inner.repeat = outer.repeat if repeat is None else repeat
    inner.reader = outer.reader if reader is None else reader
    token = _question.set(inner)
    try:
        yield inner
    finally:
        _question.reset(token)


def current_question() -> Question:
    """The question that is being asked in this thread."""
    return _question.get() or Question()


def without_pictures(value: Any) -> Any:
    """A request's JSON with the sha256 of each embedded file in its place.

    The files are frames of the media that the log names: they can be made again, and would fill a disk.
    """
    if isinstance(value, dict):
        return {name: without_pictures(held) for name, held in value.items()}
    if isinstance(value, list):
        return [without_pictures(held) for held in value]
    if isinstance(value, str) and value.startswith("data:") and ";base64," in value[:100]:
        kind, _, held = value.partition(";base64,")
        return f"{kind};sha256={sha256(held.encode()).hexdigest()};characters={len(held)}"
    return value


def is_answer(body: bytes) -> bool:
    """Whether a body is a chat completion or a response, and no page or error, by its fields."""
    try:
        held = parse_json(body.decode(errors="replace"), "the answer")
    except EditVerseError:
        return False
    return isinstance(held, dict) and bool(held.get("choices") or held.get("output"))


def transport(
    seconds: float, log: Callable[[], Log | None], secret: str = "", most: int = MAX_JSON_BYTES
) -> Any:
    """An HTTP transport that keeps what passes through it and lets no exchange last longer than `seconds`.

    The client's own timeout is that of each read or write: headers or an answer that drip would never end.
    When time is up the connection is shut, wherever it is. (The look-up of a name alone is the system's.)

    Args:
        seconds: of one exchange, from its begin; longer ones raise httpx.ReadTimeout.
        log: gives the log, if there is one.
        secret: replaced in what is kept, should a server say it.
        most: bytes of an answer; longer ones raise AnnotatorError.
    """
    import httpx

    class Transport(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            held, asked = log(), current_question()
            if held is None:
                return self.bounded(request)
            body = without_pictures(json.loads(request.read()))
            key = digest([body, asked.repeat] if asked.repeat else body)
            asked.log = held
            if (kept := held.kept(key, asked)) is not None:
                headers = {"content-type": "application/json", FROM_LOG: "1"}
                return httpx.Response(200, headers=headers, content=kept.encode())
            begin = time.monotonic()
            about: dict[str, Any] = {"request": body}
            answer = False
            try:
                response = self.bounded(request)
                answer = response.status_code == 200 and is_answer(response.content)
                text = response.content.decode(errors="replace")
                about |= {"status": response.status_code, "body": text if answer else text[:4000]}
            except (httpx.TransportError, AnnotatorError) as error:
                about |= {"failed": f"{type(error).__name__}: {error}"}
                raise
            finally:
                about["seconds"] = round(time.monotonic() - begin, 3)
                if secret:
                    about = json.loads(json.dumps(about).replace(secret, "[key]"))
                held.add(key, asked, answer=answer, **about)
            return response

        def bounded(self, request: httpx.Request) -> httpx.Response:
            """The response, read whole."""
            over = threading.Event()
            ends: list[socket.socket] = []

            def cut() -> None:
                over.set()
                for end in [*ends]:
                    with contextlib.suppress(OSError):  # closed meanwhile
                        end.shutdown(socket.SHUT_RDWR)

            def trace(event: str, info: dict[str, Any]) -> None:
                if event == "connection.connect_tcp.complete":
                    # a descriptor of our own: TLS takes the socket's away
                    ends.append(info["return_value"].get_extra_info("socket").dup())
                    if over.is_set():
                        cut()

            request.extensions = {**request.extensions, "trace": trace}
            timer = threading.Timer(seconds, cut)
            timer.daemon = True
            timer.start()
            try:
                response = super().handle_request(request)
                try:
                    body = _read(response, most)
                finally:
                    response.close()
            except httpx.TransportError as error:
                if over.is_set():
                    raise httpx.ReadTimeout(f"no end within {seconds:g} s", request=request) from error
                raise
            finally:
                timer.cancel()
                for end in ends:
                    end.close()
            headers = [(k, v) for k, v in response.headers.items() if k not in ENCODED]
            return httpx.Response(response.status_code, headers=headers, content=body)

    # a connection that was kept would be met without its descriptor
    return Transport(limits=httpx.Limits(max_keepalive_connections=0))


def _read(response: Any, most: int) -> bytes:
    parts, size = [], 0
    for part in response.iter_bytes():
        parts.append(part)
        size += len(part)
        if size > most:
            raise AnnotatorError(f"its answer is longer than {most} bytes")
    return b"".join(parts)
