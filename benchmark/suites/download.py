"""Source videos that may not be passed on, from where they are, with the user's own key.

EditVerseBench's are on Pixabay. Which of its renditions the authors scored is not published; `large` is the
best guess. A call goes on where the last one ended, also within a file.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmark.core.item import BenchmarkError
from benchmark.suites.editversebench import read_entries
from shards.errors import EditVerseError
from shards.files import OutsideError, exclusive, inside
from shards.limits import parse_json
from shards.media import MediaError, probe

PIXABAY = "https://pixabay.com/api/videos/"
ATTEMPTS, LONGEST_WAIT = 5, 120.0  # per file; seconds


@dataclass
class Fetched:
    """What a call did: files that were there, that came, and that did not with the reason."""

    there: int = 0
    came: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def fetch(
    data: Path,
    key: str,
    rendition: str,
    tell: Callable[[str], None],
    api: str = PIXABAY,
    sleep: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Download the source videos that EditVerseBench's list in `data` names and that are not there.

    Args:
        key: name of the environment variable that holds the key.
        rendition: large, medium, small or tiny.
        tell: called with every path.

    Raises:
        BenchmarkError: no list, no key, or a key that is refused.
    """
    secret = os.environ.get(key)
    if not secret:
        raise BenchmarkError(f"set {key} to your own Pixabay key (free, at https://pixabay.com/api/docs/)")
    _, held, _, _ = read_entries(data)
    entries = [e for e in held.values() if isinstance(e, dict)]  # the suite names those that are none
    links = {str(e.get("<video1>")): str(e.get("<video1> link")) for e in entries}
    done = Fetched()
    with exclusive(data, "--data"), httpx.Client(timeout=60, follow_redirects=True) as client:
        for name, link in links.items():
            try:
                place = inside(data, name)
            except OutsideError:
                done.failed[name[:200]] = "is outside the benchmark's folder"
                continue
            if place.is_file():
                done.there += 1
            else:
                tell(name)
                try:
                    _fetch(client, place, link, secret, rendition, api, sleep)
                    done.came += 1
                except (EditVerseError, httpx.HTTPError, LookupError, OSError, ValueError) as error:
                    if isinstance(error, BenchmarkError):
                        raise
                    done.failed[name] = str(error).replace(secret, "***") or type(error).__name__
    return done


def _fetch(
    client: httpx.Client,
    place: Path,
    link: str,
    secret: str,
    rendition: str,
    api: str,
    sleep: Callable[[float], None],
) -> None:
    number = re.search(r"([0-9]{1,20})/?$", link)
    if number is None:
        raise LookupError(f"its link {link!r} ends in no number")
    asked = _patiently(client, "GET", api, sleep, params={"key": secret, "id": number[1]})
    told = parse_json(asked.content, api)
    try:
        hits = told.get("hits") or []
        url = (hits[0]["videos"].get(rendition) or {}).get("url") if hits else None
    except (AttributeError, TypeError, LookupError):
        raise LookupError(f"{api} answered something else than a list of videos") from None
    if not isinstance(url, str) or not url:
        raise LookupError(f"Pixabay has no {rendition} rendition of {number[1]}")
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(place.name + ".part")
    for _ in range(ATTEMPTS):
        if _append(client, url, part):
            break
        sleep(1.0)
    else:
        raise OSError(f"{url}: broke off {ATTEMPTS} times; call again to go on")
    try:
        probe(part)
    except MediaError:
        part.unlink()  # going on with it would not mend it
        raise
    part.replace(place)


def _append(client: httpx.Client, url: str, part: Path) -> bool:
    """Go on with a download; whether it is whole."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    try:
        with client.stream("GET", url, headers=headers) as answer:
            if answer.status_code == 416:  # nothing is left to send
                return True
            answer.raise_for_status()
            whole = int(answer.headers.get("Content-Length", 0)) + (have if answer.status_code == 206 else 0)
            with part.open("ab" if answer.status_code == 206 else "wb") as handle:
                for block in answer.iter_bytes():
                    handle.write(block)
    except (httpx.TransportError, httpx.DecodingError):
        return False
    return not whole or part.stat().st_size == whole


def _patiently(
    client: httpx.Client, method: str, url: str, sleep: Callable[[float], None], **options: Any
) -> httpx.Response:
    """A request that waits as long as it is told to, and a few times."""
    for attempt in range(ATTEMPTS):
        answer = client.request(method, url, **options)
        if answer.status_code in (400, 401, 403):
            raise BenchmarkError(f"{url} refuses the key: {answer.text[:120].strip()}")
        if answer.status_code != 429 and answer.status_code < 500:
            answer.raise_for_status()
            return answer
        told = answer.headers.get("Retry-After") or answer.headers.get("X-RateLimit-Reset") or ""
        sleep(min(LONGEST_WAIT, float(told) if told.isdigit() else 2.0**attempt))
    raise OSError(f"{url}: status {answer.status_code} {ATTEMPTS} times")
