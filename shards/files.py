"""Files that appear whole or not at all.

Everything the project writes under a final name goes through `atomic_path`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from shards.errors import EditVerseError

TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp(\.\w+)?")  # the names of `atomic_path`

# Errors of the machine, not of one file: going on would only repeat them.
DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


class InUseError(EditVerseError):
    """A folder that another process is writing to."""


NUMBER = re.compile(r"\((?:os )?error (\d+)\)|\[Errno (\d+)\]")  # as Rust's and Python's messages have it


@contextlib.contextmanager
def naming(path: str | Path, temporary: str | Path | None = None) -> Iterator[None]:
    """Make errors of the machine in the block, such as a full disk, name what was to be written.

    An OSError that names no file, or `temporary` or a file in it, is raised again with `path` (or the file in
    it). So is an error of another library that quotes an OSError's number, as safetensors and torch do.
    """
    try:
        yield
    except OSError as error:
        name = str(error.filename or "").removeprefix("file:")  # FFmpeg's, see `shards.media`
        if error.errno and not name:
            raise _os_error(error.errno, str(path)) from error
        if error.errno and temporary is not None and name.startswith(str(temporary)):
            raise _os_error(error.errno, str(path) + name[len(str(temporary)) :]) from error
        raise
    except Exception as error:
        number = NUMBER.search(str(error))
        if number is None or isinstance(error, EditVerseError):
            raise
        raise _os_error(int(number[1] or number[2]), str(path)) from error


def _os_error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success fsync it and rename it to `path`.

    The temporary name keeps the suffix, since muxers choose the container by it. On any exception the
    temporary file is removed and `path` stays as it was. An OSError names `path`, never the temporary file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem[:80]}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        with naming(path, temporary):
            yield temporary
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sweep_temporaries(folder: str | Path) -> None:
    """Remove what killed processes left of `atomic_path` in a folder; for who alone writes into it."""
    for path in Path(folder).glob(".*.tmp*"):
        if TEMPORARY.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def sweep_temporaries_of(path: str | Path) -> None:
    """Remove what killed processes left of `atomic_path(path)`; for who alone writes that file."""
    path = Path(path)
    ours = re.compile(rf"\.{re.escape(path.stem[:80])}\.[0-9a-f]{{8}}\.tmp{re.escape(path.suffix)}")
    for other in path.parent.glob(".*.tmp*"):
        if ours.fullmatch(other.name) and other.is_file():
            other.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on disk; some network file systems cannot sync a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(handle)


LOCK = "lock"  # file of a folder that a run holds; it stays behind, empty
_locks: set[IO[str]] = set()


def _forget_locks() -> None:
    for handle in _locks:
        handle.close()
    _locks.clear()


# A forked worker (a DataLoader's) shares its parent's open files, and would hold the lock after a kill -9.
os.register_at_fork(after_in_child=_forget_locks)


@contextlib.contextmanager
def exclusive(folder: str | Path, what: str, name: str = LOCK) -> Iterator[None]:
    """Hold `folder` for this process: two runs of any kind never write to one folder at once.

    The lock is the kernel's (flock on `<folder>/lock`), so it ends with the process, however that ends.

    Args:
        what: the setting that chose the folder, for the message, e.g. "--out".
        name: of the lock's file, where several calls share a folder and each holds its part.

    Raises:
        InUseError: another process holds it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(f"{what} {folder}: another run is using it; wait, or choose another") from None
        _locks.add(handle)
        try:
            yield
        finally:
            _locks.discard(handle)


def is_unused(folder: str | Path) -> bool:
    """Whether a run may take `folder`: it is not there, or is a folder with nothing but a lock in it."""
    folder = Path(folder)
    if not folder.exists():
        return True
    return folder.is_dir() and all(path.name == LOCK for path in folder.iterdir())


class OutsideError(EditVerseError, ValueError):
    """A path that leads out of the folder that it belongs to."""


def inside(folder: str | Path, name: str) -> Path:
    """The path below `folder` that a list, table or key from outside names.

    Args:
        name: relative to `folder`; symbolic links may not lead out of it either.

    Raises:
        OutsideError: absolute, outside of the folder, or no path at all.
    """
    folder = Path(folder)
    place = folder / name
    try:
        if not name or "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError
        place.resolve().relative_to(folder.resolve())
    except (ValueError, OSError, RuntimeError):  # too long for a path, a surrogate, a loop of links
        short = name if len(name) <= 80 else name[:77] + "..."
        raise OutsideError(
            f"{short!r} is no path inside {folder}; paths in a list are relative and stay in its folder"
        ) from None
    return place


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def sha256_of(path: str | Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
