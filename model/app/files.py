"""Where the page keeps uploads and results: a folder with a quota; files go with their session or by age.

A server that was killed cannot remove its folder; the next one that starts does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from shards.errors import EditVerseError
from shards.files import InUseError, exclusive

MAX_AGE = 3600.0  # seconds that a file is kept after it was last used
LOCK = "lock"  # held by the server that a folder belongs to, see `shards.files.exclusive`


class QuotaError(EditVerseError):
    """The page's folder is full; the message is for the person at the page."""


@contextlib.contextmanager
def server_folder() -> Iterator[Path]:
    """A folder for one server, gone when it ends; folders that killed servers left behind are removed first.

    Raises:
        EditVerseError: the place for such folders belongs to somebody else.
    """
    root = Path(tempfile.gettempdir()) / f"editverse-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    facts = root.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        raise EditVerseError(f"{root}: must be a folder that only you can use; remove it, or set TMPDIR")
    with contextlib.ExitStack() as stack:
        with (root / LOCK).open("a") as handle:
            # One server at a time looks for dead folders and makes its own, so that none takes a folder
            # that has no lock yet for a dead one.
            fcntl.flock(handle, fcntl.LOCK_EX)
            remove_dead(root)
            folder = Path(tempfile.mkdtemp(dir=root))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(exclusive(folder, "the page's folder"))
        yield folder


def remove_dead(root: Path) -> int:
    """Remove the folders of servers that are no longer there; how many."""
    dead = 0
    for folder in root.iterdir():
        if folder.is_dir() and not folder.is_symlink():
            with contextlib.suppress(InUseError), exclusive(folder, "the page's folder"):
                shutil.rmtree(folder, ignore_errors=True)
                dead += 1
    return dead


class FileStore:
    """The files of all sessions, in entries: folders directly under `folder`, one per upload or result.

    May be used from several threads.

    Args:
        folder: see `server_folder`.
        quota: bytes that may be stored, uploads under way included.
    """

    def __init__(self, folder: Path, quota: int) -> None:
        self.folder, self.quota = folder.resolve(), quota
        self._lock = threading.Lock()
        self._reserved = 0
        self._sessions: defaultdict[str, set[Path]] = defaultdict(set)
        self._busy: Counter[Path] = Counter()

    def used(self) -> int:
        """Bytes stored."""
        total = 0
        for parent, _, names in os.walk(self.folder):
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # another thread removes files
                    total += Path(parent, name).lstat().st_size
        return total

    @contextlib.contextmanager
    def reserve(self, num_bytes: int) -> Iterator[None]:
        """Keep room for a file that is about to be written.

        Raises:
            QuotaError: there is not enough.
        """
        with self._lock:
            if self.used() + self._reserved + num_bytes > self.quota:
                raise QuotaError(
                    f"this page stores at most {self.quota / 1e6:.0f} MB, and no room is left for "
                    f"{num_bytes / 1e6:.0f} MB more; files go when their page is closed, or after an hour"
                )
            self._reserved += num_bytes
        try:
            yield
        finally:
            with self._lock:
                self._reserved -= num_bytes

    def new_entry(self) -> Path:
        """An empty folder whose name cannot be guessed."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def holds(self, path: str) -> bool:
        """Whether a path, as a client sent it, is a file of an entry."""
        try:
            resolved = Path(path).resolve()
            return resolved.is_file() and len(resolved.relative_to(self.folder).parts) > 1
        except (OSError, ValueError):  # too long a name, a NUL byte; or outside the folder
            return False

    @contextlib.contextmanager
    def working(self, session: str, paths: Iterable[Path]) -> Iterator[None]:
        """Hold the entries of `paths` for a session: they outlive this block, and end with the session."""
        entries = [self._entry(path) for path in paths]
        with self._lock:
            self._sessions[session].update(entries)
            self._busy.update(entries)
        try:
            yield
        finally:
            with self._lock:
                self._busy.subtract(entries)
                for entry in entries:
                    with contextlib.suppress(FileNotFoundError):
                        os.utime(entry)  # it was used: its hour begins again
                    if session not in self._sessions and self._busy[entry] <= 0:
                        shutil.rmtree(entry, ignore_errors=True)

    def end_session(self, session: str) -> None:
        """Remove the entries of a session; what it still works with goes when that is done."""
        with self._lock:
            for entry in self._sessions.pop(session, set()):
                if self._busy[entry] <= 0:
                    shutil.rmtree(entry, ignore_errors=True)

    def remove_old(self, max_age: float = MAX_AGE) -> None:
        """Remove the entries that nobody used for `max_age` seconds."""
        with self._lock:
            for entry in self.folder.iterdir():
                if entry.is_dir() and self._busy[entry] <= 0 and time.time() - _last_use(entry) > max_age:
                    shutil.rmtree(entry, ignore_errors=True)

    @contextlib.contextmanager
    def cleaning(self, every: float = 60.0) -> Iterator[None]:
        """Run `remove_old` from time to time, in a thread of its own."""
        ended = threading.Event()

        def clean() -> None:
            while not ended.wait(every):
                self.remove_old()

        thread = threading.Thread(target=clean, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _entry(self, path: Path) -> Path:
        return self.folder / path.resolve().relative_to(self.folder).parts[0]


def _last_use(entry: Path) -> float:
    """When an entry, or something in it, was last written or touched."""
    newest = entry.stat().st_mtime
    for path in entry.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a temporary file that has its final name by now
            newest = max(newest, path.lstat().st_mtime)
    return newest
