"""A strict reader of tars: every byte is looked at, and anything but regular files is an error.

Python's `tarfile` takes a damaged header for the end of the archive, and obeys what headers ask for (sparse
files, links, sizes beyond the file). Here the members lie one after the other and only zeros follow the last.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from shards.errors import first_line
from shards.location import ShardError

BLOCK = tarfile.BLOCKSIZE
PIECE = 16 << 20  # bytes read at once: a header that claims more than the file has allocates little
MAX_EXTENSION = 64 << 10  # bytes of a long name or a pax header
PAX_RECORD = re.compile(rb"(\d{1,6}) ([^=\n]+)=")


@dataclass(frozen=True)
class Member:
    """One file of a tar: its name, its content, and the byte offset at which the content begins."""

    name: str
    offset: int
    data: bytes


class TarReader:
    """Iterates once over the members of a tar, from a handle that need not seek.

    After the last member the rest is read too: `sha256` and `bytes` are then those of the whole file.

    Args:
        handle: open for reading, at the start of the tar.
        path: how error messages call the tar.
        start: the handle gives a part of a tar, from this byte on: it needs no end-of-archive blocks, offsets
            are those of the whole, and there is no `sha256`. None for a whole tar.

    Raises:
        ShardError: while iterating, where the tar is damaged, truncated, or holds anything but files.
    """

    def __init__(self, handle: IO[bytes], path: str, start: int | None = None) -> None:
        self.path = path
        self.bytes = start or 0
        self._is_part = start is not None
        self._handle = handle
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Hexadecimal sha256 of what was read so far."""
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[Member]:
        name, size = None, None  # of the next member, from an extension header
        while (header := self._header()) is not None:
            at = self.bytes - BLOCK
            if header.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE):
                if not 0 <= header.size <= MAX_EXTENSION:
                    raise self._damaged(at, f"a name or pax header of {header.size} bytes")
                data = self._content(header.size, "an extension header")
                if header.type == tarfile.GNUTYPE_LONGNAME:
                    name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
                elif header.type == tarfile.XHDTYPE:
                    name, size = self._pax(data, at)
                continue
            name = header.name if name is None else name
            size = header.size if size is None else size
            if header.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
                raise ShardError(f"{self.path}: member {name!r} is not a regular file")
            if size < 0:
                raise self._damaged(at, f"a size of {size} bytes")
            yield Member(name, self.bytes, self._content(size, repr(name)))
            name, size = None, None
        if name is not None or size is not None:
            raise ShardError(f"{self.path}: truncated after an extension header at byte {self.bytes}")

    def _header(self) -> tarfile.TarInfo | None:
        """The next header; None at the end, after all that follows was read and found to be zeros."""
        at = self.bytes
        block = self._read(BLOCK)
        if self._is_part and not block:
            return None
        if len(block) < BLOCK:
            raise ShardError(f"{self.path}: truncated, the end-of-archive blocks are missing")
        if block.count(0) < BLOCK:
            try:
                return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except (tarfile.HeaderError, ValueError) as error:
                raise self._damaged(at, str(error)) from None
        while piece := self._read(1 << 20):
            if piece.count(0) < len(piece):
                found = self.bytes - len(piece.lstrip(b"\0"))
                raise self._damaged(found // BLOCK * BLOCK, "only zeros may follow the last member")
        if self.bytes % BLOCK:
            raise ShardError(f"{self.path}: truncated, {self.bytes} bytes are no multiple of {BLOCK}")
        return None

    def _damaged(self, at: int, why: str) -> ShardError:
        return ShardError(f"{self.path}: damaged header at byte {at} ({why})")

    def _content(self, size: int, what: str) -> bytes:
        data = self._read(size)
        if len(data) < size or len(self._read(-size % BLOCK)) < -size % BLOCK:
            raise ShardError(f"{self.path}: truncated inside {what}, which should have {size} bytes")
        return data

    def _read(self, size: int) -> bytes:
        """`size` bytes, or all that are left."""
        pieces: list[bytes] = []
        while size > 0:
            try:
                piece = self._handle.read(min(size, PIECE))
            except Exception as error:  # whatever a file system raises
                raise ShardError(f"{self.path}: {first_line(error)}") from error
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
            self.bytes += len(piece)
            if not self._is_part:
                self._digest.update(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _pax(self, data: bytes, at: int) -> tuple[str | None, int | None]:
        """Name and size from a pax header; what else it says (times, owners) does not matter here."""
        fields: dict[bytes, bytes] = {}
        rest = data.rstrip(b"\0")
        while rest:
            match = PAX_RECORD.match(rest)
            length = int(match[1]) if match else 0
            if match is None or not match.end() < length <= len(rest) or rest[length - 1] != ord("\n"):
                raise self._damaged(at, "not a pax header")
            fields[match[2]] = rest[match.end() : length - 1]
            rest = rest[length:]
        if any(field.startswith(b"GNU.sparse") for field in fields):
            raise ShardError(f"{self.path}: a sparse file at byte {at}; only regular files are read")
        name, size = fields.get(b"path"), fields.get(b"size")
        if size is not None and not re.fullmatch(rb"\d{1,18}", size):
            raise self._damaged(at, "a size that is no number")
        return (
            None if name is None else name.decode("utf-8", "surrogateescape"),
            None if size is None else int(size),
        )
