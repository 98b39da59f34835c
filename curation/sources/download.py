"""`python -m curation clips download`: clips of a list or a service into a folder, with their licences.

The folder has the clips, `clips.jsonl` with where each is from and under which licence, and
`quarantine.jsonl` with what did not come and why. A clip is in the list once it is whole; the same command
goes on with what is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rich.console import Console

from curation.sources.clips import VIDEO_SUFFIXES, printable
from curation.sources.listing import LISTING
from curation.sources.lists import (
    AUTHORS,
    LICENSE_URLS,
    LICENSES,
    LIST_SUFFIXES,
    PAGES,
    read_list,
    text_of,
)
from curation.sources.services import SERVICES, RemoteClip, Request, key_of
from curation.sources.web import WebClient
from shards import hashing
from shards.errors import EditVerseError, SettingError
from shards.files import exclusive, sha256_of, write_bytes
from shards.limits import MAX_INDEX_BYTES, parse_json, read_bytes
from shards.location import WEB, suffix_of
from shards.media import MediaError, probe
from shards.reports.licenses import verdict_of

QUARANTINE, PARTIAL, SEARCHES = "quarantine.jsonl", ".partial", ".searches"
MAX_FILE_BYTES = 4 << 30  # of a clip
SUFFIX_OF = {
    "video/mp4": ".mp4",
    "video/webm": ".webm",
    "video/quicktime": ".mov",
    "video/x-matroska": ".mkv",
}


@dataclass(frozen=True)
class DownloadOptions:
    """What is taken of a source.

    Attributes:
        license, license_url: of the clips of a list that state none.
        count: clips to have at most; 0 for all that a list names.
        max_height: pixels of the shorter side, where a service offers several files.
        min_seconds, max_seconds: length of a clip.
        commercial: leave out what forbids commercial use.
        permission: who allowed what a service's terms forbid otherwise; kept with every clip.
        patience: seconds that a server may ask to wait in one go.
        endpoint: address of the service's API; its own when "".
    """

    license: str = ""
    license_url: str = ""
    count: int = 0
    max_height: int = 720
    min_seconds: float = 0.0
    max_seconds: float = 600.0
    commercial: bool = False
    permission: str = ""
    patience: float = 300.0
    endpoint: str = ""


@dataclass(frozen=True)
class Downloaded:
    """What a download did: clips there before, clips that came, reasons for what did not, clips left out."""

    present: int
    fetched: int
    refused: tuple[str, ...]
    left_out: int


def download(source: str, out: Path, options: DownloadOptions) -> Downloaded:
    """Bring the clips of a source into a folder.

    Args:
        source: a list of addresses (.txt, .jsonl, .csv, .parquet; local or at a URL), or SERVICE:WORDS.

    Raises:
        SettingError: an unknown service, no key, terms that forbid it, or rows without a licence.
        MediaError: the list cannot be read.
        LimitReached: a server asks to wait for longer than the reader will; what is done stays.
    """
    console = Console(stderr=True)

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    with ExitStack() as stack:
        stack.enter_context(exclusive(out, "--out"))
        client = stack.enter_context(WebClient(options.patience, say, out / SEARCHES))
        return _Folder(out, options, client, say).fill(_offered(source, options, client))


def _offered(source: str, options: DownloadOptions, client: WebClient) -> Iterable[RemoteClip]:
    """What a source offers, in its order."""
    name, colon, query = source.partition(":")
    if name in SERVICES and colon:
        service = SERVICES[name]
        if not query.strip():
            raise SettingError(f"{source}: needs words to search for, such as {name}:street")
        if not options.count:
            raise SettingError(
                "--count: needs the number of clips, since a service has more than anybody wants"
            )
        if service.terms and not options.permission.strip():
            raise SettingError(
                f"{name}: {service.terms}; say who allowed it with --permission, or take commons:{query}"
            )
        request = Request(
            query.strip(), options.endpoint or service.endpoint, key_of(name), options.max_height
        )
        return service.clips(client, request)
    if suffix_of(source) not in LIST_SUFFIXES:
        known, lists = ", ".join(f"{name}:WORDS" for name in SERVICES), " ".join(LIST_SUFFIXES)
        raise SettingError(f"{source}: neither a list of addresses ({lists}) nor one of {known}")
    return _listed(source, options)


def _listed(source: str, options: DownloadOptions) -> list[RemoteClip]:
    """The rows of a list, all of which have a licence."""
    clips = [_clip_of(row, f"{source}, entry {number}") for number, row in enumerate(read_list(source), 1)]
    silent = [number for number, clip in enumerate(clips, 1) if not (clip.license or options.license.strip())]
    if silent:
        more = f" and {len(silent) - 1} more" if len(silent) > 1 else ""
        raise SettingError(
            f"{source}, entry {silent[0]}{more}: states no licence; add a column `license`, or say --license "
            "for all that state none"
        )
    license, address = options.license.strip(), options.license_url
    return [clip if clip.license else replace(clip, license=license, license_url=address) for clip in clips]


def _clip_of(row: dict[str, Any], where: str) -> RemoteClip:
    """A row as a clip. Raises SettingError for an address that is not of the web."""
    url = text_of(row, ("url",))
    if urlsplit(url).scheme not in WEB or not urlsplit(url).netloc:
        raise SettingError(
            f"{where}: {printable(url) or 'no `url`'}: needs an address that begins with https:// or http://"
        )
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(unquote(urlsplit(url).path)).stem).strip("-")[:60]
    return RemoteClip(
        f"{stem or 'clip'}-{hashing.digest(url)[:8]}",
        url,
        text_of(row, LICENSES),
        text_of(row, LICENSE_URLS),
        text_of(row, AUTHORS),
        text_of(row, PAGES),
    )


class _Folder:
    """The folder that clips are brought into."""

    def __init__(self, out: Path, options: DownloadOptions, client: WebClient, say: Any) -> None:
        self.out, self.options, self._client, self._say = out, options, client, say
        self._rows = {row["id"]: row for row in _read_listing(out / LISTING) if (out / row["path"]).is_file()}
        self._shas = {row["sha256"]: row["path"] for row in self._rows.values()}
        lines = "".join(_line(row) for row in self._rows.values())
        write_bytes(out / LISTING, lines.encode())  # without rows whose file is gone, or that a kill cut off
        write_bytes(out / QUARANTINE, b"")  # what was refused before is tried again
        (out / PARTIAL).mkdir(exist_ok=True)

    def fill(self, clips: Iterable[RemoteClip]) -> Downloaded:
        """Bring clips until there are as many as are wanted."""
        options, present, fetched, left_out = self.options, 0, 0, 0
        refused: list[str] = []
        for clip in clips:
            if options.count and present + fetched >= options.count:
                break
            if clip.id in self._rows:
                present += 1
                continue
            if options.commercial and verdict_of(clip.license).use == "no":
                left_out += 1
                continue
            if clip.seconds is not None and not options.min_seconds <= clip.seconds <= options.max_seconds:
                left_out += 1
                continue
            try:
                row = self._bring(clip)
            except MediaError as error:
                refused.append(str(error))
                _append(self.out / QUARANTINE, {"id": clip.id, "origin": clip.origin, "reason": str(error)})
                self._say(f"quarantined: {error}")
                continue
            fetched += 1
            number = f"{present + fetched}{f' of {options.count}' if options.count else ''}"
            self._say(f"{number}: {row['path']}, {row['bytes'] / 1e6:.1f} MB, {row['license']}")
        with contextlib.suppress(OSError):  # parts of files to go on with
            (self.out / PARTIAL).rmdir()
        return Downloaded(present, fetched, tuple(refused), left_out)

    def _bring(self, clip: RemoteClip) -> dict[str, Any]:
        """Fetch a clip, check it, give it its name and write its row; MediaError for this clip alone."""
        part = self.out / PARTIAL / clip.id
        answer = self._client.download(clip.origin, part, MAX_FILE_BYTES)
        try:
            row = self._checked(clip, part, suffix_of(answer.url), answer.media_type)
        except MediaError:
            part.unlink()
            raise
        finally:
            part.with_suffix(".json").unlink(missing_ok=True)
        part.replace(self.out / row["path"])
        _append(self.out / LISTING, row)
        self._rows[clip.id], self._shas[row["sha256"]] = row, row["path"]
        return row

    def _checked(self, clip: RemoteClip, part: Path, suffix: str, media_type: str) -> dict[str, Any]:
        """The row of a clip that came whole."""
        try:
            video = probe(part)
        except MediaError as error:
            raise MediaError(f"{clip.origin}: {str(error).removeprefix(f'{part}: ')}") from None
        if not self.options.min_seconds <= video.seconds <= self.options.max_seconds:
            bounds = f"{self.options.min_seconds:g} to {self.options.max_seconds:g}"
            raise MediaError(f"{clip.origin}: {video.seconds:.1f} s long, wanted are {bounds}")
        sha256 = sha256_of(part)
        if sha256 in self._shas:
            raise MediaError(f"{clip.origin}: the same bytes as {self._shas[sha256]}")
        name = clip.id + (suffix if suffix in VIDEO_SUFFIXES else SUFFIX_OF.get(media_type, ".mp4"))
        shown = {"width": video.width, "height": video.height, "seconds": round(video.seconds, 3)}
        about = {key: value for key, value in asdict(clip).items() if value and key != "seconds"}
        if self.options.permission:
            about["permission"] = self.options.permission
        return {"path": name, "sha256": sha256, "bytes": part.stat().st_size, **shown, **about}


def _read_listing(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of the folder's own list; the last line may have been cut off by a kill."""
    if not path.is_file():
        return
    lines = read_bytes(path, MAX_INDEX_BYTES).split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            row = parse_json(line, f"{path}:{number}") if line.strip() else None
        except EditVerseError:
            if number == len(lines):
                return
            raise
        if row is None:
            continue
        if not isinstance(row, dict) or not all(
            isinstance(row.get(key), str) for key in ("id", "path", "sha256")
        ):
            raise MediaError(f"{path}:{number}: no row of a download; choose another --out")
        yield row


def _append(path: Path, row: dict[str, Any]) -> None:
    """Add a line, on disk when this returns."""
    with path.open("ab") as file:
        file.write(_line(row).encode("utf-8", "replace"))
        file.flush()
        os.fsync(file.fileno())


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
