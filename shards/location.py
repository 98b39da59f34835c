"""Where shards lie: a local folder, or any URL that fsspec knows (s3://, gs://, https://, hf:// and more)."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

from shards.errors import EditVerseError, first_line

T = TypeVar("T")
TRIES, WAIT = 3, 1.0  # of a remote read, and seconds before the second try, doubled before the third
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]+://")  # c:// is no protocol
URL_IN_A_PATH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/[^/]")  # what Path makes of a URL


class ShardError(EditVerseError, ValueError):
    """A shard folder that cannot be read; the message names the file and what to do."""


class Location:
    """A folder that files are read from.

    Opened again in every process that reads: fsspec's network sessions do not survive a fork.

    Args:
        folder: a local path, or a URL of fsspec as a string. A local folder of that name wins. Options of its
            file system (credentials, endpoints) come from fsspec's own configuration and environment
            variables.

    Raises:
        ShardError: a URL was given as a Path, which drops one of its slashes.
    """

    def __init__(self, folder: str | Path) -> None:
        text = str(folder)
        try:
            local = Path(text).is_dir()
        except ValueError:  # a null character
            raise ShardError(f"{text!r}: not the name of a folder") from None
        match = URL_IN_A_PATH.match(text)
        if match and not local and isinstance(folder, Path) and _is_protocol(match[1]):
            raise ShardError(
                f"{text}: a URL given as a Path, which drops a slash of {match[1]}://; give it as a string"
            )
        self.remote = not local and URL.match(text) is not None
        self.folder = text.rstrip("/") if self.remote else str(Path(folder))

    def __str__(self) -> str:
        return self.folder

    def path(self, name: str) -> str:
        """Path or URL of a file."""
        return f"{self.folder}/{name}"

    def read(self, name: str, offset: int = 0, size: int | None = None, limit: int | None = None) -> bytes:
        """`size` bytes of a file from `offset` on, or all that follow.

        Args:
            limit: bytes that a file read to its end may have.

        Raises:
            FileNotFoundError: there is no such file.
            ShardError: it cannot be read, ends before, is larger than the limit, or is no regular file.
        """
        path = self.path(name)
        if offset < 0 or (size is not None and size < 0):
            raise ShardError(f"{path}: asked for {size} bytes at {offset}; its index is damaged")
        if self.remote:
            stop = None if size is None else offset + size
            data = self._tried(name, lambda fs, inside: fs.cat_file(inside, start=offset or None, end=stop))
        else:
            with _naming(path):
                data = _pread(path, offset, size, limit)
        if size is not None and len(data) != size:
            problem = "truncated" if len(data) < size else "its server sends whole files, not parts"
            raise ShardError(f"{path}: {problem} (asked for {size} bytes at {offset}, got {len(data)})")
        if limit is not None and len(data) > limit:
            raise ShardError(f"{path}: has {len(data)} bytes, at most {limit} are read")
        return data

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A file to be read from its start to its end; raises what `read` raises."""
        path = self.path(name)
        if not self.remote:
            with _naming(path):
                handle = os.fdopen(_open_regular(path), "rb")
            with handle:
                yield handle
            return
        with self._tried(name, lambda fs, inside: fs.open(inside, "rb")) as handle:
            yield handle

    def _tried(self, name: str, call: Callable[[Any, str], T]) -> T:
        from fsspec.core import url_to_fs

        path = self.path(name)
        for number in range(TRIES):
            try:
                # The name joins after the URL is taken apart, so that nothing in it is a protocol.
                fs, root = url_to_fs(self.folder)
                return call(fs, f"{root.rstrip('/')}/{name}" if root else name)
            except FileNotFoundError:
                raise
            except (ImportError, ValueError) as error:  # no package for the protocol, or no such protocol
                raise ShardError(f"{path}: {first_line(error)}") from error
            except Exception as error:  # whatever a file system raises
                if number == TRIES - 1:
                    raise ShardError(f"{path}: {first_line(error)}") from error
                time.sleep(WAIT * 2**number)
        raise AssertionError("unreachable")


def _is_protocol(name: str) -> bool:
    from fsspec import available_protocols

    return name in available_protocols()


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    """What the operating system says of a file becomes a ShardError that names it, unless it is missing."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        if isinstance(error, ShardError):
            raise
        raise ShardError(f"{path!r}: {error}") from None  # a null character in its name


def _open_regular(path: str) -> int:
    """A file descriptor of a regular file; opening a pipe or device would wait for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ShardError(f"{path}: not a regular file")
    return descriptor


def _pread(path: str, offset: int, size: int | None, limit: int | None) -> bytes:
    descriptor = _open_regular(path)
    try:
        there = max(0, os.fstat(descriptor).st_size - offset)
        if size is None and limit is not None and there > limit:
            raise ShardError(f"{path}: has {there} bytes, at most {limit} are read")
        # Never more than the file has: a damaged index must not decide how much is allocated.
        wanted = there if size is None else min(size, there)
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
