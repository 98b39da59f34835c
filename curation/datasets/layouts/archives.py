"""Pictures and videos in tars, split tars and zips: found by name, read where they lie.

Nothing is unpacked. An archive is read once for the names and places of its members, which are kept in the
cache of this machine as a small SQLite file: a table of any length looks its files up with flat memory.
"""

from __future__ import annotations

import contextlib
import functools
import io
import posixpath
import re
import sqlite3
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from curation.datasets.layouts.listing import list_sizes
from curation.datasets.layouts.records import opened
from curation.datasets.layouts.rows import MAX_BLOB_BYTES, Blob, Piece
from shards.errors import MediaError, first_line
from shards.files import atomic_path
from shards.hashing import digest
from shards.location import URL, ShardError
from shards.resources import cache_root

# `x.tar.split.000` (ImgEdit), `x.tar.000`, `x.tar.part-aa`, `x.tar.aa` as `split` numbers and letters them
VOLUME = re.compile(
    r"(?P<stem>.+\.(?:tar|zip))[._-](?:split[._-]?|part[._-]?)?(?P<number>\d{1,5}|[ab][a-z]{1,2})\Z"
)
ARCHIVE = re.compile(r".+\.(?:tar|zip)\Z")
COMPRESSED = re.compile(r".+\.(?:tar\.(?:gz|bz2|xz|zst)|tgz)\Z")
SCHEMA = (
    "CREATE TABLE members (name TEXT PRIMARY KEY, offset INTEGER, size INTEGER, packed INTEGER) WITHOUT ROWID"
)
ZIP_HEADER = 30  # bytes of a member's own header in a zip, before its name


class ArchiveMember(NamedTuple):
    """A file of an archive.

    Attributes:
        offset: first byte of its content in the joined volumes; in a zip of its own header.
        header: in a tar, where the headers before its content begin.
        packed: in a zip, how many bytes it has there; negative where they are the file itself, not deflated.
    """

    name: str
    offset: int
    size: int
    header: int
    packed: int = 0


@dataclass(frozen=True)
class Archive:
    """An archive and its volumes in order.

    Attributes:
        name: of the archive, relative to the data set.
        volumes: path or URL and bytes of each volume that is there, up to the first that is missing.
        fault: why it cannot be read to its end: a volume that is missing, a compression; "" for none.
    """

    name: str
    volumes: tuple[tuple[str, int], ...]
    fault: str = ""

    @property
    def size(self) -> int:
        """Bytes of all volumes together."""
        return sum(size for _, size in self.volumes)

    def blob(self, offset: int, size: int, name: str) -> Blob:
        """A stretch of the joined volumes, which may begin in one and end in the next."""
        pieces, at = [], 0
        for path, there in self.volumes:
            begin, end = max(offset, at), min(offset + size, at + there)
            if begin < end:
                pieces.append(Piece(path, begin - at, end - begin))
            at += there
        return Blob(name, None, tuple(pieces))


def find_archives(sizes: dict[str, int], root: str) -> list[Archive]:
    """The archives among the files of a data set; volumes of one archive are put in order.

    Args:
        sizes: bytes by name, relative to `root` (a folder or URL).
    """
    volumes: dict[str, dict[int, str]] = defaultdict(dict)
    found = []
    for name in sorted(sizes):
        if COMPRESSED.match(name):
            found.append(Archive(name, (), f"{name} is compressed as a whole: unpack it"))
        elif ARCHIVE.match(name):
            found.append(Archive(name, ((_join(root, name), sizes[name]),)))
        elif match := VOLUME.match(name):
            volumes[match["stem"]][_number(match["number"])] = name
    for stem, parts in volumes.items():
        first = 0 if 0 in parts else 1
        last = max(parts)
        missing = [number for number in range(first, last + 1) if number not in parts]
        there = [parts[n] for n in range(first, missing[0] if missing else last + 1)]
        fault = ""
        if missing:
            fault = f"{stem}: volume {posixpath.basename(_named(parts[last], missing[0]))} is missing"
        found.append(Archive(stem, tuple((_join(root, name), sizes[name]) for name in there), fault))
    return sorted(found, key=lambda archive: archive.name)


def members_of(archive: Archive, start: int = 0) -> Iterator[ArchiveMember]:
    """The regular files of an archive, in the order in which they lie; their content is not read.

    Args:
        start: byte of a tar at which one of its members begins.

    Raises:
        ShardError: it ends early or is damaged, after the members before that.
    """
    if not archive.volumes:
        raise ShardError(archive.fault or f"{archive.name}: has no volumes")
    with io.BufferedReader(_Joined(archive)) as joined:
        if archive.name.endswith(".zip"):
            yield from _zip_members(joined, archive)
        else:
            yield from _tar_members(joined, archive, start)


class MemberIndex:
    """Where the members of some archives lie; an index is made by whoever needs it first.

    Args:
        archives: looked at in this order, so that a name that is in two of them is that of the first.
    """

    def __init__(self, archives: Sequence[Archive]) -> None:
        self.archives = tuple(archives)
        self._open: dict[int, sqlite3.Connection] = {}
        self._last = 0

    @functools.cached_property
    def faults(self) -> list[str]:
        """What archives lack that cannot be read to their end; makes the indexes that are not there yet."""
        return [fault for archive in self.archives if (fault := _fault_of(archive))]

    def find(self, name: str) -> Blob | None:
        """The file of that name in one of the archives; None where there is none.

        Raises:
            MediaError: a zip's member is damaged, or too large.
        """
        name = _clean(name)
        order = sorted(range(len(self.archives)), key=lambda i: i != self._last)  # neighbours lie together
        for i in order:
            row = (
                self._connection(i)
                .execute("SELECT offset, size, packed FROM members WHERE name = ?", (name,))
                .fetchone()
            )
            if row is not None:
                self._last = i
                return _content(self.archives[i], name, *row)
        return None

    def _connection(self, i: int) -> sqlite3.Connection:
        if i not in self._open:
            path = _index_of(self.archives[i])
            self._open[i] = sqlite3.connect(
                f"file:{path}?mode=ro&immutable=1", uri=True, check_same_thread=False
            )
        return self._open[i]


def _fault_of(archive: Archive) -> str:
    path = _index_of(archive)
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as index:
        (fault,) = index.execute("SELECT fault FROM faults").fetchone()
    return str(fault)


def _index_of(archive: Archive) -> Path:
    """The index of an archive, made where it is not there."""
    path = _index_path(archive)
    if not path.exists():
        _write_index(archive, path)
    return path


def _index_path(archive: Archive) -> Path:
    """Where the index of an archive is kept; it has another name when a volume changes."""
    marks = []
    for path, size in archive.volumes:
        mark = ""
        if not URL.match(path):
            mark = str(Path(path).stat().st_mtime_ns)
            path = str(Path(path).resolve())
        marks.append([path, size, mark])
    return cache_root() / "archives" / f"{digest([archive.fault, marks])[:16]}.sqlite"


def _write_index(archive: Archive, path: Path) -> None:
    """Write the index of an archive, whole or not at all; of one that ends early, of what comes before."""
    with atomic_path(path) as temporary, contextlib.closing(sqlite3.connect(temporary)) as index:
        index.execute(SCHEMA)
        index.execute("CREATE TABLE faults (fault TEXT)")
        fault = archive.fault
        try:
            rows = ((_clean(m.name), m.offset, m.size, m.packed) for m in members_of(archive))
            index.executemany("INSERT OR IGNORE INTO members VALUES (?, ?, ?, ?)", rows)
        except ShardError as error:
            fault = fault or str(error)
        index.execute("INSERT INTO faults VALUES (?)", (fault,))
        index.commit()


# ---- bytes ------------------------------------------------------------------------------------------------


class _Joined(io.RawIOBase):
    """The volumes of an archive as one file that can be read and sought in."""

    def __init__(self, archive: Archive) -> None:
        self._volumes, self._at, self._size = archive.volumes, 0, archive.size
        self._stack = contextlib.ExitStack()
        self._handles: dict[str, IO[bytes]] = {}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        begin = 0
        for path, size in self._volumes:
            if self._at < begin + size:
                if path not in self._handles:
                    self._handles[path] = self._stack.enter_context(opened(path))
                handle = self._handles[path]
                handle.seek(self._at - begin)
                data = handle.read(min(len(view), begin + size - self._at))
                view[: len(data)] = data
                self._at += len(data)
                return len(data)
            begin += size
        return 0

    def close(self) -> None:
        self._stack.close()
        super().close()


def _tar_members(joined: IO[bytes], archive: Archive, start: int) -> Iterator[ArchiveMember]:
    joined.seek(start)
    header, end = start, start
    try:
        with tarfile.open(fileobj=joined, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # which would keep every header
                end = member.offset_data + member.size
                if member.isreg() and not member.issparse():
                    if end > archive.size:
                        raise tarfile.ReadError("its last member is cut off")
                    yield ArchiveMember(member.name, member.offset_data, member.size, header)
                header = tar.offset
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ShardError(_early(archive, first_line(error), begun=end > start)) from None
    # tarfile takes a file that ends after a member for whole; two blocks of zeros are the end
    joined.seek(-(-end // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
    if joined.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ShardError(_early(archive, "it has no end"))


def _early(archive: Archive, why: str, begun: bool = True) -> str:
    """Why an archive cannot be read on, and what to do."""
    if archive.fault:
        return archive.fault
    last = VOLUME.match(archive.volumes[-1][0])
    if last is None:
        return f"{archive.name} ends early or is damaged ({why}): download it again"
    first = VOLUME.match(archive.volumes[0][0])
    if not begun and first is not None and _number(first["number"]):
        before = posixpath.basename(_named(archive.volumes[0][0], _number(first["number"]) - 1))
        return f"{archive.name}: volume {before} is missing ({why})"
    after = posixpath.basename(_named(archive.volumes[-1][0], _number(last["number"]) + 1))
    return f"{archive.name}: volume {after} is missing, or one before it is damaged ({why})"


def _zip_members(joined: IO[bytes], archive: Archive) -> Iterator[ArchiveMember]:
    try:
        with zipfile.ZipFile(joined) as packed:
            for info in packed.infolist():
                if info.is_dir():
                    continue
                if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ShardError(
                        f"{archive.name}: {info.filename!r} is encrypted, or packed in a way not read"
                    )
                size = (
                    info.compress_size if info.compress_type == zipfile.ZIP_DEFLATED else -info.compress_size
                )
                yield ArchiveMember(
                    info.filename, info.header_offset, info.file_size, info.header_offset, size
                )
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise ShardError(_early(archive, first_line(error))) from None


def _content(archive: Archive, name: str, offset: int, size: int, packed: int) -> Blob:
    """A member's bytes where they lie, or unpacked where a zip has them deflated."""
    where = f"{archive.name}:{name}"
    if not archive.name.endswith(".zip"):
        return archive.blob(offset, size, where)
    if max(size, abs(packed)) > MAX_BLOB_BYTES:
        raise MediaError(f"{where}: has {size} bytes, at most {MAX_BLOB_BYTES} are read")
    header = archive.blob(offset, ZIP_HEADER, where).read()
    name_and_extra = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    content = archive.blob(offset + ZIP_HEADER + name_and_extra, abs(packed), where)
    if packed <= 0:
        return content
    try:
        return Blob.of(zlib.decompressobj(-zlib.MAX_WBITS).decompress(content.read(), size), where)
    except zlib.error as error:
        raise MediaError(f"{where}: damaged in its zip ({error})") from None


# ---- names ------------------------------------------------------------------------------------------------


def _clean(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")


def _number(text: str) -> int:
    """The number of a volume: 7 of "007"; 0, 1 and 26 of "aa", "ab" and "ba"."""
    if text.isdigit():
        return int(text)
    number = 0
    for letter in text:
        number = 26 * number + ord(letter) - ord("a")
    return number


def _named(example: str, number: int) -> str:
    """The name of another volume, in the manner of `example`."""
    match = VOLUME.match(example)
    assert match is not None
    old = match["number"]
    if old.isdigit():
        new = f"{number:0{len(old)}d}"
    else:
        letters = []
        for _ in old:
            number, letter = divmod(number, 26)
            letters.append(chr(ord("a") + letter))
        new = "".join(reversed(letters))
    return example[: match.start("number")] + new


def _join(root: str, name: str) -> str:
    return f"{root.rstrip('/')}/{name}"


def volumes_of(root: str, name: str) -> dict[str, int]:
    """Bytes of one archive of a data set by name, or of all its volumes where it is one of them."""
    match = VOLUME.match(name)
    if match is not None and not ARCHIVE.match(name):
        return list_sizes(root, [f"{match['stem']}*"])
    with opened(_join(root, name)) as handle:
        return {name: handle.seek(0, io.SEEK_END)}
