"""Pages over the samples of shards for a browser: their media out of the tars, and files that pages share.

`assets/` has those: `page.css`, `player.js` (the videos of a card on one clock) and `cards.js` (the card of a
sample). Nothing on a page comes from another host.
"""

from __future__ import annotations

import functools
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shards.errors import EditVerseError, SettingError
from shards.reader import ShardSet
from shards.reports.server import Guard
from shards.sample import SUFFIX, Sample, tags_of

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

ASSETS = Path(__file__).parent / "assets"
TYPES = {".mp4": "video/mp4", ".png": "image/png", ".js": "text/javascript", ".css": "text/css"}
RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
REMEMBERED = 512  # samples whose places in the tar are kept, and masks made playable


class Samples:
    """The samples of several shard folders, numbered through: the first folder's first.

    Args:
        directories: folders or URLs of shards; all splits of each, in the order of its manifest.

    Attributes:
        sets: the folders, opened; ends: the number after the last sample of each.

    Raises:
        ShardError: one cannot be read. SettingError: none is given.
    """

    def __init__(self, directories: Sequence[str]) -> None:
        if not directories:
            raise SettingError("no shard folder is given; name at least one")
        self.sets = [ShardSet(directory) for directory in directories]
        self.ends = np.cumsum([len(one) for one in self.sets])
        self._places = functools.lru_cache(maxsize=REMEMBERED)(self._find)
        self._playable = functools.lru_cache(maxsize=REMEMBERED // 8)(self._play)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def locate(self, number: int) -> tuple[ShardSet, int]:
        """The folder of a sample, and its number there; IndexError for a number that none has."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        which = int(np.searchsorted(self.ends, number, side="right"))
        return self.sets[which], number - (int(self.ends[which - 1]) if which else 0)

    def sample(self, number: int) -> Sample:
        """What a sample says; its media are not read where its JSON lies before them."""
        shards, place = self.locate(number)
        return shards.sample(place)

    def size(self, number: int, name: str) -> int:
        """Bytes of a medium as `read` gives it; KeyError for one that the sample has not."""
        found = self._places(number)[name]
        return found[2] if isinstance(found, tuple) else len(self._playable(number, name))

    def read(self, number: int, name: str, start: int, count: int) -> bytes:
        """`count` bytes of a medium: of the member itself; of a mask, as an mp4 of grey frames."""
        found = self._places(number)[name]
        if isinstance(found, tuple):
            shards, _ = self.locate(number)
            return shards.location.read(found[0], found[1] + start, count)
        return self._playable(number, name)[start : start + count]

    def _find(self, number: int) -> dict[str, tuple[str, int, int] | None]:
        """Element -> its shard, byte offset and size; None for a mask, which no browser plays as it is."""
        shards, place = self.locate(number)
        members, shard = shards.members(place), shards.shard_of(place)
        found: dict[str, tuple[str, int, int] | None] = {}
        for name, (kind, *_) in shards.entry(place).media.items():
            found[name] = None if kind == "mask" else (shard, *members[name + SUFFIX[kind]])
        return found

    def _play(self, number: int, name: str) -> bytes:
        from tempfile import TemporaryDirectory

        from shards.media import write_video  # loads PyAV

        shards, place = self.locate(number)
        record = shards[place]
        with TemporaryDirectory(prefix="editverse-mask-") as scratch:
            path = Path(scratch) / "mask.mp4"
            write_video(path, record.pixels(name), record.sample.media[name].fps or 1.0)
            return path.read_bytes()


def told(number: int, sample: Sample) -> dict[str, Any]:
    """A sample as `cards.js` draws it, as JSON values.

    Elements come in the order of the text, what is to be made last, then what the text does not name.
    """
    place = {name: number for number, name in enumerate(tags_of(sample.text))}
    order = sorted(sample.media, key=lambda n: (n not in place, n in sample.targets, place.get(n, 0), n))
    elements = [
        {
            "name": name,
            "kind": sample.media[name].kind,
            "frames": sample.media[name].frames,
            "fps": sample.media[name].fps,
            "height": sample.media[name].height,
            "width": sample.media[name].width,
            "target": name in sample.targets,
            "url": f"media/{number}/{name}",
        }
        for name in order
    ]
    return {
        "number": number,
        "key": sample.key,
        "split": sample.split,
        "task": sample.task,
        "text": sample.text,
        "elements": elements,
        "scores": sample.scores,
        "license": sample.provenance.clip.license,
        "clip": sample.provenance.clip.name,
    }


def application(
    samples: Samples,
    routes: Sequence[BaseRoute],
    hosts: Sequence[str] = (),
    assets: Sequence[Path] = (ASSETS,),
) -> Starlette:
    """A site: media (`media/NUMBER/ELEMENT`, with ranges), shared files (`assets/NAME`), and its own routes.

    Args:
        routes: Starlette's; EditVerseErrors that they raise are answered with one line and status 422.
        hosts: names that the site answers to beside those of this machine.
        assets: folders whose files lie under `assets/`; the first that has a name wins.
    """
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    def medium(request: Request) -> Response:
        number, name = int(request.path_params["number"]), request.path_params["name"]
        try:
            size = samples.size(number, name)
        except (IndexError, KeyError):
            return JSONResponse({"detail": f"no medium {name!r} of a sample {number}"}, 404)
        suffix = ".png" if name.startswith("image") else ".mp4"
        headers = {"accept-ranges": "bytes", "cache-control": "private, max-age=600"}
        asked = request.headers.get("range")
        span = span_of(asked, size) if asked else None
        if span is None:
            body = samples.read(number, name, 0, size)
            return Response(body, media_type=TYPES[suffix], headers=headers)
        first, stop = span
        if first >= stop:
            return Response(status_code=416, headers={"content-range": f"bytes */{size}"})
        headers["content-range"] = f"bytes {first}-{stop - 1}/{size}"
        body = samples.read(number, name, first, stop - first)
        return Response(body, 206, headers, TYPES[suffix])

    def asset(request: Request) -> Response:
        name = request.path_params["name"]
        path = next((one / name for one in assets if (one / name).is_file()), None)
        if path is None or path.suffix not in TYPES or not re.fullmatch(r"[a-z_-]+\.[a-z]+", name):
            return JSONResponse({"detail": f"no file {name!r}"}, 404)
        return Response(
            path.read_bytes(), media_type=TYPES[path.suffix], headers={"cache-control": "no-cache"}
        )

    def refused(request: Request, error: Exception) -> Response:
        return JSONResponse({"detail": str(error)}, 422)

    app = Starlette(
        routes=[
            Route("/media/{number:int}/{name}", medium),
            Route("/assets/{name}", asset),
            *routes,
        ],
        middleware=[Middleware(Guard, hosts=hosts)],
        exception_handlers={EditVerseError: refused},
    )
    return app


def span_of(asked: str, size: int) -> tuple[int, int] | None:
    """First byte that a `Range` header asks for, and the one after the last; None: not understood.

    A malformed range, or several, is as good as none (RFC 9110, 14.2); one that begins at the end or behind
    it is an empty span.
    """
    match = RANGE.fullmatch(asked.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:  # the last bytes
        return max(0, size - int(match[2])), size
    first, last = int(match[1]), int(match[2]) if match[2] else size - 1
    if last < first and match[2]:
        return None
    return first, min(last + 1, size)


def page(title: str, body: str, scripts: Sequence[str], styles: Sequence[str] = ("page.css",)) -> str:
    """The HTML of a page: shared styles, a body, then scripts, all by their names below `assets/`.

    Args:
        body: HTML as it is; whoever makes it escapes what comes from elsewhere.
    """
    links = "".join(f'<link rel="stylesheet" href="assets/{name}">\n' for name in styles)
    ends = "".join(f'<script src="assets/{name}"></script>\n' for name in scripts)
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>{html.escape(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"{links}{body}\n{ends}</html>\n"
    )


def json_bytes(value: Any) -> bytes:
    """JSON for a page; NaN, which JSON has not, is null."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
