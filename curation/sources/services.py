"""Services that offer clips and say under which licence: what is asked of each, and how its answers are read.

Read from their documentation: pexels.com/api/documentation, pixabay.com/api/docs, mediawiki.org
(API:Videoinfo, of the extension TimedMediaHandler, and CommonsMetadata). None was asked here; the tests'
server answers in their layouts.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from curation.sources.web import WebClient
from shards.errors import EditVerseError, SettingError

PEXELS_TERMS = (
    "its terms forbid building data sets or training with what its API gives, unless Pexels allows it "
    "(help.pexels.com, What are the Terms and Conditions)"
)
PIXABAY_TERMS = "its API forbids systematic mass downloads, unless Pixabay allows them (pixabay.com/api/docs)"


@dataclass(frozen=True)
class RemoteClip:
    """A video that a service or a list offers; "" and None for what is not said.

    Attributes:
        id: names it, in a service or by its address.
        origin: address of the file.
        license, license_url: words of the licence, and where it is written down.
        author, page: whom to credit, and the page about the clip.
        seconds: length that the service tells.
    """

    id: str
    origin: str
    license: str = ""
    license_url: str = ""
    author: str = ""
    page: str = ""
    seconds: float | None = None


@dataclass(frozen=True)
class Request:
    """What is asked of a service.

    Attributes:
        query: words to search for.
        endpoint: address of its API.
        key: of the reader; "" where none is needed.
        max_height: of the file's shorter side in pixels; the largest that is not above is taken.
    """

    query: str
    endpoint: str
    key: str
    max_height: int


@dataclass(frozen=True)
class Service:
    """A service with an API.

    Attributes:
        endpoint: address of its API.
        variable: of the environment that holds the reader's key; "" where none is needed.
        terms: what its terms say against this use, unless it has allowed it; "" for nothing.
        clips: what it offers for a request, in its order.
    """

    endpoint: str
    variable: str
    terms: str
    clips: Callable[[WebClient, Request], Iterator[RemoteClip]]


def _pexels(client: WebClient, request: Request) -> Iterator[RemoteClip]:
    page = 1
    while True:
        params = {"query": request.query, "per_page": "80", "page": str(page)}
        document = client.search(request.endpoint, params, {"Authorization": request.key}, request.key)
        for video in _rows(document, "videos", "id", request.endpoint):
            files = [one for one in video.get("video_files") or () if one.get("file_type") == "video/mp4"]
            if origin := _largest(files, "link", request.max_height):
                yield RemoteClip(
                    f"pexels-{video['id']}",
                    origin,
                    "Pexels License",
                    "https://www.pexels.com/license/",
                    str((video.get("user") or {}).get("name") or ""),
                    str(video.get("url") or ""),
                    _number(video.get("duration")),
                )
        if not document.get("next_page"):
            return
        page += 1


def _pixabay(client: WebClient, request: Request) -> Iterator[RemoteClip]:
    page, size = 1, 200
    while True:
        params = {"key": request.key, "q": request.query, "per_page": str(size), "page": str(page)}
        document = client.search(request.endpoint, params, {}, request.key)
        for video in _rows(document, "hits", "id", request.endpoint):
            if origin := _largest(list((video.get("videos") or {}).values()), "url", request.max_height):
                yield RemoteClip(
                    f"pixabay-{video['id']}",
                    origin,
                    "Pixabay Content License",
                    "https://pixabay.com/service/license-summary/",
                    str(video.get("user") or ""),
                    str(video.get("pageURL") or ""),
                    _number(video.get("duration")),
                )
        if page * size >= int(document.get("totalHits") or 0):
            return
        page += 1


def _commons(client: WebClient, request: Request) -> Iterator[RemoteClip]:
    """Wikimedia Commons, where every file has a licence of its own; those that state none are left out."""
    params = {
        "action": "query",
        "format": "json",
        "formatversion": "2",
        "generator": "search",
        "gsrsearch": f"filetype:video {request.query}",
        "gsrnamespace": "6",
        "gsrlimit": "20",
        "prop": "videoinfo",
        "viprop": "url|size|mime|derivatives|extmetadata",
        "viextmetadatafilter": "LicenseShortName|LicenseUrl|Artist",
    }
    more: dict[str, str] = {}
    pages: dict[int, dict[str, Any]] = {}  # an answer may come in several parts
    while True:
        document = client.search(request.endpoint, params | more, {})
        if isinstance(document, dict) and "error" in document:
            raise EditVerseError(f"{request.endpoint}: {(document['error'] or {}).get('info', 'an error')}")
        held = document.get("query") or {} if isinstance(document, dict) else {}
        for page in _rows(held, "pages", "pageid", request.endpoint) if held else ():
            pages.setdefault(page["pageid"], {}).update(page)
        if document.get("batchcomplete"):
            for page in sorted(pages.values(), key=lambda one: one.get("index", 0)):
                if clip := _commons_clip(page, request.max_height):
                    yield clip
            pages = {}
        if not document.get("continue"):
            return
        more = {name: str(value) for name, value in document["continue"].items()}


def _commons_clip(page: Mapping[str, Any], max_height: int) -> RemoteClip | None:
    """A page of Commons as a clip; None where it states no licence, or has no file that is read here."""
    info: dict[str, Any] = next(iter(page.get("videoinfo") or ()), {})
    about = {
        name: str((value or {}).get("value") or "") for name, value in (info.get("extmetadata") or {}).items()
    }
    files = [
        {**one, "file_type": str(one.get("type") or "").partition(";")[0]}
        for one in (
            *(info.get("derivatives") or ()),
            {**info, "src": info.get("url"), "type": info.get("mime")},
        )
    ]
    readable = [one for one in files if one["file_type"] in ("video/webm", "video/mp4")]
    origin = _largest(readable, "src", max_height)
    license = plain(about.get("LicenseShortName", ""))
    if not origin or not license:
        return None
    return RemoteClip(
        f"commons-{page['pageid']}",
        origin,
        license,
        about.get("LicenseUrl", ""),
        plain(about.get("Artist", "")),
        str(info.get("descriptionurl") or ""),
        _number(info.get("duration")),
    )


SERVICES = {
    "commons": Service("https://commons.wikimedia.org/w/api.php", "", "", _commons),
    "pexels": Service("https://api.pexels.com/videos/search", "PEXELS_API_KEY", PEXELS_TERMS, _pexels),
    "pixabay": Service("https://pixabay.com/api/videos/", "PIXABAY_API_KEY", PIXABAY_TERMS, _pixabay),
}


def key_of(name: str) -> str:
    """The reader's key for a service, from the environment; "" where none is needed. SettingError."""
    variable = SERVICES[name].variable
    key = os.environ.get(variable, "").strip() if variable else ""
    if variable and not (key and key.isascii()):
        raise SettingError(f"{name}: needs your own key in the environment variable {variable}")
    return key


def plain(text: str) -> str:
    """The words of a piece of HTML, on one line."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def _rows(document: Any, name: str, id: str, endpoint: str) -> list[dict[str, Any]]:
    """A list of an answer whose entries all have an `id`; EditVerseError where it is not so."""
    rows = document.get(name) if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and id in row for row in rows):
        raise EditVerseError(
            f"{endpoint}: its answer has no list `{name}` with `{id}`; is this the service's API?"
        )
    return rows


def _largest(files: list[dict[str, Any]], address: str, max_height: int) -> str:
    """The address of the largest file whose shorter side is within the limit, else of the smallest."""
    sized = [
        (int(min(width, height)), str(one[address]))
        for one in files
        if one.get(address)
        and (width := _number(one.get("width")))
        and (height := _number(one.get("height")))
    ]
    within = [one for one in sized if one[0] <= max_height]
    return max(within)[1] if within else min(sized, default=(0, ""))[1]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
