"""Where shards lie: a local folder, or any URL that fsspec knows (s3://, gs://, https://, hf:// and more)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from shards.errors import EditVerseError

T = TypeVar("T")
TRIES, WAIT = 3, 1.0  # of a remote read, and seconds before the second try, doubled before the third


class ShardError(EditVerseError, ValueError):
    """A shard folder that cannot be read; the message names the file and what to do."""


class Location:
    """A folder that files are read from.

    Opened again in every process that reads: fsspec's network sessions do not survive a fork.

    Args:
        folder: a local path, or a URL of fsspec. Options of its file system (credentials, endpoints) come
            from fsspec's own configuration and environment variables.
    """

    def __init__(self, folder: str | Path) -> None:
        self.remote = "://" in str(folder)
        self.folder = str(folder).rstrip("/") if self.remote else str(Path(folder))

    def __str__(self) -> str:
        return self.folder

    def path(self, name: str) -> str:
        """Path or URL of a file."""
        return f"{self.folder}/{name}"

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """`size` bytes of a file from `offset` on, or all that follow.

        Raises:
            FileNotFoundError: there is no such file; ShardError: it cannot be read, or ends before.
        """
        path = self.path(name)
        if self.remote:
            stop = None if size is None else offset + size
            data = self._tried(path, lambda fs, inside: fs.cat_file(inside, start=offset or None, end=stop))
        else:
            try:
                data = _pread(path, offset, size)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise ShardError(f"{path}: {error.strerror}") from None
        if size is not None and len(data) != size:
            problem = "truncated" if len(data) < size else "its server sends whole files, not parts"
            raise ShardError(f"{path}: {problem} (asked for {size} bytes at {offset}, got {len(data)})")
        return data

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A file to be read from its start to its end."""
        path = self.path(name)
        if not self.remote:
            with Path(path).open("rb") as handle:
                yield handle
            return
        with self._tried(path, lambda fs, inside: fs.open(inside, "rb")) as handle:
            yield handle

    def _tried(self, path: str, call: Callable[[Any, str], T]) -> T:
        from fsspec.core import url_to_fs

        for number in range(TRIES):
            try:
                return call(*url_to_fs(path))
            except FileNotFoundError:
                raise
            except (ImportError, ValueError) as error:  # no package for the protocol, or no such protocol
                raise ShardError(f"{path}: {error}") from error
            except Exception as error:  # whatever a file system raises
                if number == TRIES - 1:
                    raise ShardError(f"{path}: {error or type(error).__name__}") from error
                time.sleep(WAIT * 2**number)
        raise AssertionError("unreachable")


def _pread(path: str, offset: int, size: int | None) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        wanted = os.fstat(descriptor).st_size - offset if size is None else size
        parts: list[bytes] = []
        while wanted > 0:
            part = os.pread(descriptor, wanted, offset)
            if len(part) == wanted and not parts:
                return part
            if not part:
                break
            parts.append(part)
            offset, wanted = offset + len(part), wanted - len(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)
