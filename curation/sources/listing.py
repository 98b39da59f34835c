"""What is to be cut: the videos of a folder, of a list or at a URL, and the copy of one while it is cut.

Nothing is dropped without a word. A file with another suffix is counted; one that cannot be used (its name,
its permissions, a pipe) is a row with its reason, which goes to quarantine.
"""

from __future__ import annotations

import functools
import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from curation.sources.clips import VIDEO_SUFFIXES, printable
from curation.sources.lists import COLUMNS, LICENSES, LIST_SUFFIXES, folder_of, read_list, text_of
from shards.files import LOCK, sha256_of
from shards.location import URL, WEB, Location, ShardError, suffix_of
from shards.media import MediaError
from shards.processes import own_name, sweep_leavings
from shards.resources import cache_root

LISTING = "clips.jsonl"  # what `clips download` writes into a folder; it says the licences of the files there
OURS = {LISTING, "quarantine.jsonl", ".partial", ".searches", LOCK}  # beside the clips that were downloaded


@dataclass(frozen=True, order=True)
class Unusable:
    """A file that cannot even be tried, and why."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass(frozen=True)
class Sources:
    """What a run is to cut.

    Attributes:
        files: paths and URLs, sorted, each once.
        unusable: entries for quarantine.
        left_out: how many files of each suffix are no videos; "" for none.
        licenses: of the files of which a list states it.
    """

    files: tuple[str, ...] = ()
    unusable: tuple[Unusable, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    licenses: Mapping[str, str] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """One line about the files that are left out; "" when there are none."""
        if not self.left_out:
            return ""
        counts = sorted(self.left_out.items(), key=lambda item: (-item[1], item[0]))
        return "left out: " + ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in counts)


def find_sources(clips: str) -> Sources:
    """The videos that `--clips` names: a file, a folder with all below it, or a list, local or at a URL.

    A list is a .txt with a path or URL a line, or a .jsonl, .csv or .parquet with a column `url` or `path`;
    paths are relative to its folder, and any suffix will do. A column `license` says what a file is under;
    of a folder, the list `clips.jsonl` in it does.

    Raises:
        MediaError: there is nothing of that name, it holds no video, or the list cannot be read.
        StoreError: the store does not answer.
    """
    clips = clips.removeprefix("file://")
    if suffix_of(clips) in LIST_SUFFIXES and not Path(clips).is_dir():
        return _listed(clips)
    found = _Found()
    if is_remote(clips):
        if suffix_of(clips) in VIDEO_SUFFIXES:
            return Sources((clips,))
        _search_store(Location(clips), found)
    elif not os.path.lexists(clips):
        raise MediaError(f"{printable(clips)}: no such folder; give the folder that holds the clips")
    elif Path(clips).is_dir():
        _search(clips, found)
        if (listing := Path(clips, LISTING)).is_file():
            stated = _listed(str(listing)).licenses  # by paths without a `./` that the folder may begin with
            found.licenses = {file: stated.get(str(Path(file)), "") for file in found.files}
    else:
        found.take(clips)
    if not found.files and not found.unusable:
        known = " ".join(sorted(VIDEO_SUFFIXES))
        others = f", but {found.sources.told.removeprefix('left out: ')}" if found.left_out else ""
        raise MediaError(
            f"{printable(clips)}: holds no video files ({known}){others}; try: python -m curation clips fetch"
        )
    return found.sources


def is_remote(source: str) -> bool:
    """Whether a source is a URL; a local file of that name wins."""
    return URL.match(source) is not None and not Path(source).exists()


class _Found:
    """Collects what a search comes upon."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.unusable: set[Unusable] = set()
        self.left_out: Counter[str] = Counter()
        self.licenses: dict[str, str] = {}

    @property
    def sources(self) -> Sources:
        left_out = dict(sorted(self.left_out.items()))
        licenses = {file: text for file in sorted(self.files) if (text := self.licenses.get(file))}
        return Sources(tuple(sorted(self.files)), tuple(sorted(self.unusable)), left_out, licenses)

    def take(self, path: str) -> None:
        """A local file that is to be cut, unless that cannot even be tried."""
        if reason := _fault(path):
            self.unusable.add(Unusable(printable(path), reason))
        else:
            self.files.add(path)


def _fault(path: str) -> str:
    """Why a local file cannot be used; "" when it can be tried."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    try:
        about = Path(path).stat()
    except FileNotFoundError:
        return "a link to nothing" if Path(path).is_symlink() else "no such file"
    except (OSError, ValueError) as error:  # a loop of links, a null character
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if stat.S_ISDIR(about.st_mode):
        return "a folder; a list names files"
    if not stat.S_ISREG(about.st_mode):
        return "not a regular file but a pipe, socket or device"
    if not os.access(path, os.R_OK):
        return "no permission to read it"
    return "" if about.st_size else "an empty file"


def _search(top: str, found: _Found) -> None:
    """A local folder and all below it. Links to folders are followed, each folder is visited once."""
    seen: set[tuple[int, int]] = set()
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            about = Path(folder).stat()
            if (about.st_dev, about.st_ino) in seen:
                continue
            seen.add((about.st_dev, about.st_ino))
            with os.scandir(folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            found.unusable.add(Unusable(printable(folder), f"a folder that cannot be read: {error.strerror}"))
            continue
        for entry in listed:
            if entry.name in OURS:
                continue
            if _is_folder(entry):
                folders.append(entry.path)
            elif suffix_of(entry.name) in VIDEO_SUFFIXES:
                found.take(entry.path)
            else:
                found.left_out[printable(suffix_of(entry.name))] += 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _search_store(location: Location, found: _Found) -> None:
    """A folder at a URL and all below it."""
    if location.protocol in WEB:
        raise MediaError(
            f"{location}: the web does not list its files; give a video's own address, or a list of them"
        )
    sizes = location.sizes()
    if LISTING in sizes:
        found.licenses = dict(_listed(location.path(LISTING)).licenses)
    for name, size in sizes.items():
        if OURS & set(name.split("/")):
            continue
        if suffix_of(name) not in VIDEO_SUFFIXES:
            found.left_out[printable(suffix_of(name))] += 1
        elif size:
            found.files.add(location.path(name))
        else:
            found.unusable.add(Unusable(location.path(name), "an empty file"))
    if not found.files and not found.unusable and not found.left_out:
        raise MediaError(
            f"{location}: no such folder, or nothing in it; give the folder that holds the clips"
        )


# ---- lists ------------------------------------------------------------------------------------------------


def _listed(path: str) -> Sources:
    """The entries of a list."""
    location = folder_of(path)
    found = _Found()
    for number, row in enumerate(read_list(path), 1):
        entry = text_of(row, (next(name for name in COLUMNS if name in row),))
        if not entry:
            found.unusable.add(Unusable(f"{printable(path)}, entry {number}", "names no file"))
            continue
        if URL.match(entry) and not entry.startswith("file://"):
            file = entry
            found.files.add(file)
        elif location.remote:
            file = location.path(entry)
            found.files.add(file)
        else:
            file = str(Path(location.folder) / entry.removeprefix("file://"))
            found.take(file)
        if license := text_of(row, LICENSES):
            found.licenses[file] = license
    return found.sources


# ---- one source while it is cut ---------------------------------------------------------------------------


class SourceFile:
    """A source on this machine; a remote one is fetched when its path or digest is first asked for.

    Attributes:
        name: of the file itself, printable.
    """

    def __init__(self, source: str, scratch: Path) -> None:
        self.source, self._scratch = source, scratch
        self.remote = is_remote(source)
        self.name = printable(Path(source).name)
        if self.remote:
            folder, _, self._rest = source.rpartition("/")
            self._location = Location(folder)
            self.name = printable(unquote(Path(urlsplit(source).path).name))

    @property
    def version(self) -> str:
        """What changes when a remote file does; "" for a local one, or where the store cannot tell."""
        return self._asked(lambda: self._location.version(self._rest)) if self.remote else ""

    @property
    def path(self) -> Path:
        """Where it is, with all its bytes."""
        return self._fetched[0]

    @property
    def sha256(self) -> str:
        """Of its bytes, computed on the way when it is fetched."""
        return self._fetched[1]

    @functools.cached_property
    def _fetched(self) -> tuple[Path, str]:
        if not self.remote:
            return Path(self.source), sha256_of(self.source)
        path = self._scratch / f"source{suffix_of(self.source)}"
        return path, self._asked(lambda: self._location.fetch(self._rest, path))

    def _asked(self, call: Callable[[], str]) -> str:
        """What a store answers; what is wrong concerns this file alone, and it goes to quarantine."""
        try:
            return call()
        except FileNotFoundError:
            raise MediaError(f"{self.source}: no such file") from None
        except ShardError as error:
            raise MediaError(str(error)) from None


@contextmanager
def local_copy(source: str) -> Iterator[SourceFile]:
    """A source as a local file in the block; the copy of a remote one is removed after it.

    A MediaError that names the copy names the source instead.
    """
    scratch = cache_root() / "sources" / own_name()
    file = SourceFile(source, scratch)
    if file.remote:
        sweep_leavings(scratch.parent)
    try:
        yield file
    except MediaError as error:
        if not file.remote or str(scratch) not in str(error):
            raise
        raise MediaError(str(error).replace(str(file.path), source)) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
