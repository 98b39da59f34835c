"""GET requests as a guest should make them: slowly, once, waiting as long as the server asks.

Answers of search APIs are kept for a day, as their terms ask. A file is fetched into a partial one, which the
next try, or the next run, goes on with (RFC 9110, sections 14 and 13.1.5: Range and If-Range).
"""

from __future__ import annotations

import email.utils
import importlib.metadata
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shards import hashing
from shards.errors import EditVerseError, SettingError, first_line
from shards.files import naming, write_json
from shards.limits import parse_json, read_json
from shards.media import MediaError

if TYPE_CHECKING:
    import httpx

TRIES, WAIT = 4, 1.0  # of a request, and seconds before the second try, doubled before each later one
SILENCE = 60.0  # seconds without a byte after which a request has failed
KEPT = 24 * 3600.0  # seconds for which an answer of a search is used again
BUSY = {429, 503}  # too many requests, and unavailable: both may say for how long
PAGES = {"application/json", "application/xml", "application/xhtml+xml"}  # which are no videos
EPOCH = 1_000_000_000  # a larger X-RateLimit-Reset is a time, a smaller one a number of seconds


class LimitReached(EditVerseError):
    """A server that asks to wait for longer than the reader will; what is done stays."""


class _AgainError(Exception):
    """A request that failed in a way that may pass."""


class _BusyError(_AgainError):
    """A server that has had enough requests for now."""


@dataclass(frozen=True)
class FileAnswer:
    """What the server said of a file: the address after redirections, and its media type in lower case."""

    url: str
    media_type: str


class WebClient:
    """Requests one after the other; a context manager.

    Args:
        patience: seconds that a server may ask to wait in one go; longer ones raise LimitReached.
        say: is told of every wait, in a line.
        cache: folder for the answers of searches.
    """

    def __init__(self, patience: float, say: Callable[[str], None], cache: Path) -> None:
        import httpx

        version = importlib.metadata.version("editverse")
        self.patience, self._say, self._cache = patience, say, cache
        self._not_before: dict[str, float] = {}  # host -> when it may be asked again, of `time.monotonic`
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs addresses, which may hold a key
        self._http = httpx.Client(
            follow_redirects=True,
            timeout=httpx.Timeout(SILENCE),
            headers={"User-Agent": f"EditVerse/{version} (curation clips download)"},
        )

    def __enter__(self) -> WebClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def search(
        self, url: str, params: Mapping[str, str], headers: Mapping[str, str], secret: str = ""
    ) -> Any:
        """The JSON document that a search answers with, from the cache where it was asked within a day.

        Args:
            secret: the reader's key, which is neither kept nor shown.

        Raises:
            SettingError: the key is refused, or the request is.
            LimitReached: the server asks to wait for long.
            EditVerseError: it answers with no JSON, or not at all.
        """
        asked = {name: value for name, value in params.items() if not secret or value != secret}
        kept = self._cache / f"{hashing.digest([url, asked])[:20]}.json"
        if kept.is_file() and time.time() - kept.stat().st_mtime < KEPT:
            return read_json(kept)

        def ask() -> Any:
            with self._get(url, {**headers}, params=params) as response:
                if response.status_code in (401, 403):
                    raise SettingError(f"{url}: HTTP {response.status_code}: the key is not accepted")
                body = response.read()
                if response.status_code != 200:
                    said = hide(" ".join(body.decode("utf-8", "replace").split()), secret)[:200]
                    if not said or "<" in said[:20]:  # a page
                        said = response.reason_phrase
                    raise SettingError(f"{url}: HTTP {response.status_code}: {said}")
            return parse_json(body, url)

        document = self._tried(url, ask)
        write_json(kept, document)
        return document

    def download(self, url: str, part: Path, most: int) -> FileAnswer:
        """Fetch a file into `part`, going on with what is there.

        Args:
            part: partial file; beside it lies `.json` with what says that it is still the same file.
            most: bytes that it may have.

        Raises:
            MediaError: of this file alone: it is not there, is a page, is too large, or does not come whole.
            LimitReached: the server asks to wait for long.
        """
        return self._tried(url, lambda: self._fetch(url, part, most), kind=MediaError)

    def _fetch(self, url: str, part: Path, most: int) -> FileAnswer:
        mark = part.with_suffix(".json")
        known = read_json(mark) if mark.is_file() and part.is_file() else {}
        have = part.stat().st_size if known.get("url") == url and known.get("version") else 0
        headers = {"Accept-Encoding": "identity"}  # so that the length is that of the file
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": known["version"]}
        with self._get(url, headers) as response:
            if response.status_code == 416:  # longer than the file: not a part of it
                part.unlink()
                raise _AgainError("the partial file is longer than the whole one")
            if response.status_code not in (200, 206):
                raise MediaError(f"{url}: HTTP {response.status_code} {response.reason_phrase}")
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind.startswith("text/") or kind in PAGES:
                raise MediaError(f"{url}: no video but {kind}")
            goes_on = response.status_code == 206
            if goes_on and not response.headers.get("content-range", "").startswith(f"bytes {have}-"):
                part.unlink(missing_ok=True)
                raise _AgainError("another range than was asked for")
            have = have if goes_on else 0
            length = response.headers.get("content-length", "")
            if length.isdigit() and have + int(length) > most:
                raise MediaError(f"{url}: {have + int(length)} bytes, at most {most} are taken")
            write_json(mark, {"url": url, "version": _version(response.headers)})
            with naming(part), part.open("ab" if goes_on else "wb") as file:
                for block in response.iter_bytes():  # as they come: what is collected first would be lost
                    have += len(block)
                    if have > most:
                        part.unlink()
                        raise MediaError(f"{url}: more than {most} bytes")
                    file.write(block)
            return FileAnswer(str(response.url), kind)

    @contextmanager
    def _get(
        self, url: str, headers: Mapping[str, str], params: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """An answer whose body is not read yet; waits before the request where the host asked for that."""
        import httpx

        try:
            host = httpx.URL(url).host
            if (rest := self._not_before.get(host, 0.0) - time.monotonic()) > 0:
                self._wait(rest, f"{host} asks to wait")
            with self._http.stream("GET", url, headers=dict(headers), params=params) as response:
                if response.status_code in BUSY or response.headers.get("x-ratelimit-remaining") == "0":
                    self._not_before[host] = time.monotonic() + _delay(response.headers)
                if response.status_code in BUSY:
                    raise _BusyError(f"HTTP {response.status_code} {response.reason_phrase}")
                if response.status_code >= 500:
                    raise _AgainError(f"HTTP {response.status_code} {response.reason_phrase}")
                yield response
        except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TooManyRedirects) as error:
            raise MediaError(f"{url}: {first_line(error)}") from None
        except httpx.HTTPError as error:  # a connection that fails or ends early; its text may hold the query
            raise _AgainError(f"{type(error).__name__}: the connection failed or ended early") from error

    def _tried(self, url: str, call: Callable[[], Any], kind: type[EditVerseError] = EditVerseError) -> Any:
        """What the call gives, after some tries; a server that asks to wait is asked again after that."""
        for number in range(TRIES):
            try:
                return call()
            except _AgainError as error:
                if number == TRIES - 1:
                    if isinstance(error, _BusyError):
                        raise LimitReached(f"{url}: {error}, {TRIES} times; what is done stays") from None
                    raise kind(f"{url}: {error}, {TRIES} times") from None
                time.sleep(WAIT * 2**number if number else 0.0)
        raise AssertionError("unreachable")

    def _wait(self, seconds: float, why: str) -> None:
        if seconds > self.patience:
            raise LimitReached(
                f"{why} for {seconds:.0f} s, more than --patience {self.patience:g}; what is done stays, and "
                "the same command goes on later"
            )
        self._say(f"{why}: {seconds:.0f} s")
        time.sleep(seconds)


def hide(text: str, secret: str) -> str:
    """A text in which the reader's key is not."""
    return text.replace(secret, "[key]") if secret else text


def _version(headers: Mapping[str, str]) -> str:
    """What If-Range takes: a strong ETag, else the time of the last change; "" for neither."""
    tag = headers.get("etag", "")
    return tag if tag.startswith('"') else headers.get("last-modified", "")


def _delay(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait: Retry-After (seconds, or a date), else the end of its window.

    X-RateLimit-Reset is a number of seconds at Pixabay and a time of the epoch at Pexels. `WAIT` for neither.
    """
    said = headers.get("retry-after", "").strip()
    if said.isdigit():
        return float(said)
    if said:
        try:
            return max(0.0, email.utils.parsedate_to_datetime(said).timestamp() - time.time())
        except ValueError:
            pass  # no date either: as if nothing was said
    reset = headers.get("x-ratelimit-reset", "").strip()
    if reset.isdigit():
        return max(0.0, float(reset) - time.time() if int(reset) > EPOCH else float(reset))
    return WAIT
