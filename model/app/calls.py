"""What a call of the page may hold: one of its events, with values that its components could have sent."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import Receive, Scope

from model.app.client import API, WORD, Client, RefusedError
from model.app.files import FileStore
from model.app.service import MAX_TEXT
from shards.errors import EditVerseError
from shards.limits import parse_json

if TYPE_CHECKING:
    import gradio as gr

MAX_CALL = 1 << 18  # bytes of a call; texts are far shorter, files come as uploads
MAX_WHOLE = 1 << 53  # beyond it JavaScript's numbers are not exact
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class CallGuard:
    """Checks the calls of `page`, whose events say which there are; its uploads are in `store`."""

    def __init__(self, page: gr.Blocks, store: FileStore) -> None:
        self.page, self.store = page, store

    async def checked(self, scope: Scope, client: Client) -> tuple[Receive, str]:
        """Read and check the body of a call; what Gradio receives in its place, and the session's name."""
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
        call = check(body, scope["path"])
        clean = json.dumps(call).encode()
        scope["headers"] = [
            (name, value)
            for name, value in scope["headers"]
            if name not in (b"content-length", b"transfer-encoding", b"content-encoding")
        ] + [(b"content-length", str(len(clean)).encode())]
        return client.replaying(clean), call["session_hash"]

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
        most = component.max_length or MAX_TEXT
        if len(text) > most:
            raise ValueError(f"{len(text)} characters are too many, at most {most} are taken")
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


def _word(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not WORD.fullmatch(value):
        raise RefusedError(400, f"{name}: is missing or malformed")
    return value


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_WHOLE
