"""Files that appear whole or not at all.

Everything the project writes under a final name goes through `atomic_path`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shards.errors import EditVerseError


class InUseError(EditVerseError):
    """A folder that another process is writing to."""


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
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
            raise type(error)(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextlib.contextmanager
def exclusive(folder: str | Path, what: str) -> Iterator[None]:
    """Hold `folder` for this process: two runs of any kind never write to one folder at once.

    The lock is the kernel's (flock on `<folder>/lock`), so it ends with the process, however that ends.

    Args:
        what: the setting that chose the folder, for the message, e.g. "--out".

    Raises:
        InUseError: another process holds it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(f"{what} {folder}: another run is using it; wait, or choose another") from None
        yield


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
