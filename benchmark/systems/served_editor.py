"""An editor behind an HTTP address: an item's fields are sent in a form or as JSON, a file comes back."""

from __future__ import annotations

import base64
import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmark.core.item import BenchmarkError, Item, Loaded, RunStopped
from benchmark.systems.edit_cache import MAX_RESULT_BYTES, Edited, MediaFile
from benchmark.systems.field_files import frames_in, suffix_of, written
from benchmark.systems.item_fields import Fields, Shape, filled, placeholders
from benchmark.systems.per_frame import edited_frames, takes_stills, words_of
from curation.vlm.exchange import transport
from curation.vlm.interface import AnnotatorError
from shards.errors import first_line
from shards.limits import parse_json

FORM = {"instruction": "{instruction}", "video": "{video}", "mask": "{mask?}", "seed": "{seed}"}
PAUSE = 0.5  # seconds before the first retry; doubled each time
LONGEST_PAUSE = 30.0
AGAIN = (408, 425, 429, 500, 502, 503, 504)  # statuses that another try may mend


class ServedEditor:
    """An `ItemEditor` that posts each item (each frame, where the form has `{image}` and no `{video}`).

    Args:
        url: what is posted to.
        fields: of the form by name: an item's fields in braces (`benchmark.systems.item_fields`), or values.
        form: multipart, with media as files; or json, with media in base64.
        answer: `file` when the answer's body is the video or picture; else the key, or keys joined by dots,
            of a JSON answer that holds it in base64.
        timeout: seconds for one request from its first byte to the answer's last.
        retries: of a request that failed: no connection, no answer in time, or a status of `AGAIN`.
        most: bytes of an answer.
        key: environment variable whose value is sent as a bearer token.
        shape: see `item_fields.Shape`.
        version: a word to change when the served model changes: nothing here sees that it did.
        seed: what `{seed}` is.

    Raises BenchmarkError for settings that are none.
    """

    def __init__(
        self,
        url: str,
        fields: Mapping[str, Any] | None = None,
        form: Literal["multipart", "json"] = "multipart",
        answer: str = "file",
        timeout: float = 600.0,
        retries: int = 3,
        most: int = MAX_RESULT_BYTES,
        key: str | None = None,
        shape: Mapping[str, Any] | None = None,
        each_frame: bool = True,
        version: str = "",
        seed: int = 0,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise BenchmarkError(f"url: {url!r} is no http address")
        if form not in ("multipart", "json"):
            raise BenchmarkError(f"form: {form!r} is none of multipart, json")
        if key is not None and not os.environ.get(key):
            raise BenchmarkError(f"{url}: needs a key; set the variable {key}")
        self.url, self.fields, self.form, self.answer = url, dict(fields or FORM), form, answer
        self.timeout, self.retries, self.most, self.key = timeout, retries, most, key
        self.shape, self.each_frame, self.version, self.seed = (
            Shape(**dict(shape or {})),
            each_frame,
            version,
            seed,
        )
        self.names = placeholders(self.fields)
        self._has_answered = False

    def depends(self, item: Item) -> list[Any]:
        """The address, the form, and the item's media and words that are sent."""
        settings = [self.form, self.answer, self.each_frame, self.version, self.seed, astuple(self.shape)]
        return ["served", self.url, self.fields, settings, item.content, words_of(item, self.names)]

    def edit(self, item: Item, loaded: Loaded) -> Edited:
        """See `ItemEditor`; a clip's result is kept as the file that came."""
        with tempfile.TemporaryDirectory() as scratch:

            def call(fields: Fields) -> np.ndarray:
                path = Path(scratch) / "answer"
                path.write_bytes(self._asked(fields, Path(scratch)).data)
                return frames_in(path)

            if self.each_frame and takes_stills(self.names):
                return Edited(
                    {"edit": edited_frames(item, loaded, self.shape, self.seed, True, call)}, loaded.fps, 0
                )
            fields = Fields(item, loaded, self.shape, self.seed)
            if fields.kept < len(fields.source):
                return Edited({"edit": call(fields)[: fields.kept]}, loaded.fps, 0)
            return Edited({"edit": self._asked(fields, Path(scratch))}, loaded.fps, 0)

    def _asked(self, fields: Fields, scratch: Path) -> MediaFile:
        """What the server made of fields; RunStopped when it was never there, BenchmarkError else."""
        body = self._body(fields, scratch)
        for tried in range(self.retries + 1):
            if tried:
                time.sleep(min(PAUSE * 2 ** (tried - 1), LONGEST_PAUSE))
            try:
                status, data = self._post(body)
            except _NoAnswer as error:
                reason = str(error)
                if not error.connected and not self._has_answered and tried == self.retries:
                    raise RunStopped(
                        f"{self.url}: {reason}; start the server, or correct the address"
                    ) from None
                continue
            self._has_answered = True
            if status in (401, 403):
                raise RunStopped(
                    f"{self.url}: refuses the request ({status}); `key` names the variable of a token"
                )
            if 200 <= status < 300:
                return self._file(data)
            reason = f"answered {status}{_said(data)}"
            if status not in AGAIN:
                break
        raise BenchmarkError(reason)

    def _body(self, fields: Fields, scratch: Path) -> dict[str, Any]:
        """Keywords of httpx for the form."""
        given = {name: written(fields, name, scratch) for name in self.names}
        sent = {name: filled(value, given.get) for name, value in self.fields.items()}
        sent = {name: value for name, value in sent.items() if value is not None}
        if self.form == "json":
            return {"json": {name: _plain(value) for name, value in sent.items()}}
        files, texts = [], {}
        for name, value in sent.items():
            if isinstance(value, Path | list):
                files += [
                    (name, (path.name, path.read_bytes()))
                    for path in ([value] if isinstance(value, Path) else value)
                ]
            else:
                texts[name] = str(value)
        return {"data": texts, "files": files} if files else {"data": texts}

    def _post(self, body: dict[str, Any]) -> tuple[int, bytes]:
        import httpx

        headers = {"Authorization": f"Bearer {os.environ[self.key]}"} if self.key else {}
        bounded = transport(self.timeout, lambda: None, most=self.most)
        with (
            _no_answer(self.timeout),
            httpx.Client(transport=bounded, timeout=self.timeout, follow_redirects=False) as client,
        ):
            try:
                response = client.post(self.url, headers=headers, **body)
            except AnnotatorError:
                raise BenchmarkError(f"answered more than the {self.most} bytes that are read") from None
            return response.status_code, response.content

    def _file(self, data: bytes) -> MediaFile:
        if self.answer != "file":
            held = parse_json(data, "the answer")
            for name in self.answer.split("."):
                held = held.get(name) if isinstance(held, dict) else None
            if not isinstance(held, str):
                raise BenchmarkError(f"answered JSON without a text at {self.answer}")
            try:
                data = base64.b64decode(held.rpartition("base64,")[2], validate=True)
            except ValueError:
                raise BenchmarkError(f"answered JSON whose {self.answer} is no base64") from None
        return MediaFile(data, suffix_of(data))

    def release(self) -> None:
        """Nothing is held between items."""


class _NoAnswer(Exception):
    """A request without an answer; `connected` says whether there was a server."""

    def __init__(self, reason: str, connected: bool) -> None:
        super().__init__(reason)
        self.connected = connected


@contextlib.contextmanager
def _no_answer(timeout: float) -> Iterator[None]:
    import httpx

    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise _NoAnswer(f"no connection ({first_line(error)})", False) from None
    except httpx.TimeoutException:
        raise _NoAnswer(f"no answer within {timeout:g} s", True) from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _NoAnswer(f"no answer ({first_line(error)})", True) from None


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return base64.b64encode(value.read_bytes()).decode() if isinstance(value, Path) else value


def _said(data: bytes) -> str:
    text = " ".join(data[:2000].decode(errors="replace").split())
    told = "".join(c for c in text if c.isprintable())[:200]
    return f": {told}" if told else ""
