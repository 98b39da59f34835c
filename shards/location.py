"""Where files lie: a local folder, or any URL that fsspec knows (s3://, gs://, https://, hf:// and more)."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from shards.errors import EditVerseError, first_line
from shards.files import DISK_FAULTS, atomic_path, sha256_of

T = TypeVar("T")
TRIES, WAIT = 3, 1.0  # of a remote call, and seconds before the second try, doubled before the third
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]+://")  # c:// is no protocol
# Stores without folders: an upload appears whole under its name, or not at all.
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "hf", "az", "abfs", "abfss", "oss", "oci", "r2", "tos"}
BLOCK = 1 << 20  # bytes of a copy that are in memory at once
# What fsspec's `info` says of a file that changes with it, in one store or another.
VERSIONS = ("ETag", "etag", "size", "LastModified", "mtime", "updated", "sha", "blob_id")
WEB = {"http", "https"}  # which neither list nor take files
URL_IN_A_PATH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/[^/]")  # what Path makes of a URL


class ShardError(EditVerseError, ValueError):
    """A shard folder that cannot be read; the message names the file and what to do."""


class StoreError(ShardError):
    """A store that refuses or does not answer, after all tries: going on would only repeat it."""


def suffix_of(name: str) -> str:
    """The suffix of a path or URL in lower case; the query of a web address is no part of it."""
    if URL.match(name) and name.partition("://")[0] in WEB:
        name = urlsplit(name).path
    return Path(name).suffix.lower()


class Location:
    """A folder that files are read from and written to.

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

    @property
    def protocol(self) -> str:
        """Of a URL, "s3" for example; "" for a local folder."""
        return self.folder.partition("://")[0].rpartition("::")[2] if self.remote else ""

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
        # fsspec's own files have a `readline` that takes no limit
        with self._tried(name, lambda fs, inside: fs.open(inside, "rb")) as handle:
            yield io.BufferedReader(handle)

    # ---- writing ------------------------------------------------------------------------------------------

    def put(self, name: str, source: bytes | Path) -> None:
        """Write a file, which appears whole under its name or not at all.

        Object stores do that by themselves; elsewhere it gets a temporary name first and is renamed.

        Raises:
            StoreError: the store refuses it or does not answer.
        """
        if not self.remote:
            with atomic_path(self.path(name)) as temporary:
                if isinstance(source, bytes):
                    temporary.write_bytes(source)
                else:
                    shutil.copyfile(source, temporary)
            return

        def upload(fs: Any, inside: str) -> None:
            whole = self.protocol in OBJECT_STORES
            place = inside if whole else f"{inside}.{uuid.uuid4().hex[:8]}.tmp"
            if not whole:
                fs.makedirs(inside.rpartition("/")[0], exist_ok=True)
            if isinstance(source, bytes):
                fs.pipe_file(place, source)
            else:
                fs.put_file(str(source), place)
            if not whole:
                fs.mv(place, inside)

        try:
            self._tried(name, upload)
        except FileNotFoundError:
            raise StoreError(f"{self.path(name)}: its bucket or folder does not exist") from None
        except NotImplementedError:
            raise StoreError(f"{self.path(name)}: {self.protocol}:// cannot be written to") from None

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no fault."""
        with contextlib.suppress(FileNotFoundError):
            if self.remote:
                self._tried(name, lambda fs, inside: fs.rm_file(inside))
            else:
                Path(self.path(name)).unlink()

    def fetch(self, name: str, path: Path) -> str:
        """Copy a file to a local path, where it appears whole or not at all; returns its sha256.

        Raises what `read` raises.
        """

        def download(fs: Any, inside: str) -> str:
            digest = hashlib.sha256()
            with atomic_path(path) as temporary, temporary.open("wb") as out, fs.open(inside, "rb") as handle:
                while block := handle.read(BLOCK):
                    digest.update(block)
                    out.write(block)
            return digest.hexdigest()

        if self.remote:
            return self._tried(name, download)
        with self.open(name) as handle, atomic_path(path) as temporary, temporary.open("wb") as out:
            shutil.copyfileobj(handle, out, BLOCK)
        return sha256_of(path)

    def sizes(self, below: str = "") -> dict[str, int]:
        """Bytes of every file of the folder, or of a folder in it, by name; none where there is no folder.

        Raises:
            StoreError: the store refuses or does not answer; the web does not list what it has.
        """
        if not self.remote:
            root = Path(self.path(below))
            files = (path for path in sorted(root.rglob("*")) if path.is_file())
            return {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in files}
        if self.protocol in WEB:
            raise StoreError(f"{self}: the web does not list its files")

        def found(fs: Any, inside: str) -> dict[str, int]:
            fs.invalidate_cache()  # what other processes wrote since
            start = inside.removesuffix("/").removesuffix(below).rstrip("/")
            entries = fs.find(inside.rstrip("/"), detail=True)
            named = {path[len(start) :].lstrip("/"): int(e["size"] or 0) for path, e in entries.items()}
            # consoles of stores leave empty objects that stand for folders
            return {name: size for name, size in sorted(named.items()) if name and not name.endswith("/")}

        try:
            return self._tried(below, found)
        except FileNotFoundError:
            return {}

    def version(self, name: str) -> str:
        """What changes when a file of a store does (its ETag, or size and time); "" where there is none.

        Raises:
            FileNotFoundError: there is no such file.
        """

        def known(fs: Any, inside: str) -> str:
            fs.invalidate_cache()
            about = fs.info(inside)
            marks = {mark: str(about[mark]) for mark in VERSIONS if about.get(mark)}
            return " ".join(f"{k}={v}" for k, v in marks.items()) if set(marks) - {"size"} else ""

        return self._tried(name, known) if self.remote else ""

    def _tried(self, name: str, call: Callable[[Any, str], T]) -> T:
        from fsspec.core import url_to_fs

        path = self.path(name)
        for number in range(TRIES):
            try:
                # The name joins after the URL is taken apart, so that nothing in it is a protocol.
                # Other processes write there too: a listing of before would hide what they wrote.
                fs, root = url_to_fs(self.folder, use_listings_cache=False)
                return call(fs, f"{root.rstrip('/')}/{name}" if root else name)
            except (FileNotFoundError, NotImplementedError):
                raise
            except (ImportError, ValueError) as error:  # no package for the protocol, or no such protocol
                raise StoreError(f"{path}: {first_line(error)}") from error
            except PermissionError as error:
                raise StoreError(f"{path}: no permission: {first_line(error)}") from error
            except OSError as error:
                if error.errno in DISK_FAULTS:  # of this machine's disk, which `naming` names
                    raise
                self._wait(path, number, error)
            except Exception as error:  # whatever a file system raises  # noqa: BLE001
                self._wait(path, number, error)
        raise AssertionError("unreachable")

    @staticmethod
    def _wait(path: str, number: int, error: Exception) -> None:
        """Wait before the next try; StoreError after the last."""
        if number == TRIES - 1:
            raise StoreError(f"{path}: {first_line(error)}") from error
        time.sleep(WAIT * 2**number)


def written_to(folder: str | Path) -> Location:
    """The location of what is to be written; a URL is never taken for a local folder, nor half of one.

    Raises:
        ShardError: it could mean a local folder and a URL.
    """
    text = str(folder)
    match = URL_IN_A_PATH.match(text)
    if isinstance(folder, str) and match and _is_protocol(match[1]) and not Path(text).exists():
        raise ShardError(f"{text}: neither a URL, which has two slashes after {match[1]}:, nor a folder")
    location = Location(text.removeprefix("file://") if isinstance(folder, str) else folder)
    if not location.remote and URL.match(text) and not text.startswith("file://"):
        raise ShardError(
            f"{text}: a local folder of that name is there; rename it, or say ./{text} where it is meant"
        )
    return location


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
