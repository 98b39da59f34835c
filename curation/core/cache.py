"""The workspace: results stored under the hash of everything that they depend on.

A result that exists is never computed again. A workspace is a folder or a URL; of one at a URL this machine
keeps copies (`cache_root`), which may be deleted whenever no run is at work. In a folder a ledger gets one
line for each result that was computed; at a URL the results themselves are the ledger, since object stores
cannot append. Any number of runs, on any number of machines, share a workspace.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards.files import inside, naming, sync, write_bytes
from shards.hashing import canonical, digest
from shards.location import StoreError, written_to
from shards.processes import DAY, age, own_name, sweep_leavings
from shards.resources import cache_root

RESULT = "result.json"
COST = "cost.json"  # beside it in a folder: what the result took when it was computed
StoredResult = dict[str, Any]  # JSON as it is on disk; `curation.core.results` gives it types
ANOTHER_WAS_FIRST = {errno.ENOTEMPTY, errno.EEXIST, errno.ESTALE}  # what rename says, the last one on NFS


def code_of(*things: Any) -> str:
    """Version of the code of modules, classes or functions: a digest of their source text."""
    return digest([inspect.getsource(thing) for thing in things])[:16]


@dataclass
class Work:
    """What one stage cost: results computed and found again, seconds of processor time and of the clock.

    Processor time is that of all threads of this process; programs that it starts have their own.

    Attributes:
        saved_cpu_seconds, saved_seconds: what results that were found took when they were computed.
        unpriced: results that were found and of which nobody noted that: at a URL, and of earlier versions.
    """

    computed: int = 0
    reused: int = 0
    cpu_seconds: float = 0.0
    seconds: float = 0.0
    saved_cpu_seconds: float = 0.0
    saved_seconds: float = 0.0
    unpriced: int = 0

    def add(self, other: Work) -> None:
        """Count another's work too."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def reuse(self, cost: dict[str, float] | None) -> None:
        """Count a result that was found, with what it took."""
        self.reused += 1
        if cost is None:
            self.unpriced += 1
        else:
            self.saved_cpu_seconds += cost["cpu_seconds"]
            self.saved_seconds += cost["seconds"]


@dataclass(frozen=True)
class LedgerLine:
    """A line of the ledger: the key of a result, its stage, and the seconds that it took."""

    key: str
    stage: str
    seconds: float


@dataclass
class Workspace:
    """A folder or URL of results: `<root>/<stage>/<2 hex>/<key>/result.json` and files beside it.

    "<stage>/<2 hex>/<key>" is the reference of a result, the same in every process.

    Args:
        root: a path, or a URL of fsspec as a string.
        begin: told of every stage that is computed.
    """

    root: str | Path
    work: dict[str, Work] = field(default_factory=dict)
    begin: Callable[[str], None] = lambda stage: None

    def __post_init__(self) -> None:
        self.location = written_to(self.root)
        url = self.location.folder
        #: The folder of this machine below which results lie under their references.
        self.local = cache_root() / "workspaces" / digest(url)[:16] if self.location.remote else Path(url)

    # ---- results ------------------------------------------------------------------------------------------

    def cached(
        self,
        stage: str,
        depends_on: Any,
        make: Callable[[Path], StoredResult],
        *,
        files: bool = True,
    ) -> tuple[Path, StoredResult]:
        """The stored result for `depends_on`, or the result of `make(folder)`, stored; with its folder.

        `make` writes files into the folder that it is given and returns a dictionary for JSON. The folder
        appears under its final name only when all of it is on disk; the ledger line follows. At a URL its
        files are uploaded first and `result.json` last, in one request: with it the result is there. When
        two processes make the same result at once, one wins and the other's is dropped; at a URL both upload
        the same bytes.

        Args:
            files: False: the folder of a result that is found at a URL may still be without its files, until
                `folder` is asked for it.
        """
        key = digest([stage, depends_on])
        reference = f"{stage}/{key[:2]}/{key}"
        final = self.local / reference
        work = self.work.setdefault(stage, Work())
        if (found := self._find(reference)) is not None:
            if files:
                self.folder(reference)
            work.reuse(self._cost(reference))
            return final, found
        self.begin(stage)
        began, cpu = time.perf_counter(), time.process_time()
        temporary = self.local / "tmp" / own_name()
        temporary.mkdir(parents=True)
        try:
            with naming(final, temporary):
                result = make(temporary)
                if not self.location.remote:
                    took = time.process_time() - cpu, time.perf_counter() - began
                    cost = dict(zip(("cpu_seconds", "seconds"), took, strict=True))
                    (temporary / COST).write_text(canonical(cost))
                (temporary / RESULT).write_text(canonical(result))
                first = self._store(temporary, reference)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        work.cpu_seconds += time.process_time() - cpu
        work.seconds += time.perf_counter() - began
        if first:
            work.computed += 1
            if not self.location.remote:
                self._note(LedgerLine(key, stage, round(time.perf_counter() - began, 4)))
        else:
            work.reuse({"cpu_seconds": 0.0, "seconds": 0.0})  # computed here all the same, and counted so
        # Read back, so that a computed and a found result are the same to the bit.
        return final, json.loads((final / RESULT).read_text())

    def reference(self, folder: Path) -> str:
        """What a result is called in every process: "<stage>/<2 hex>/<key>"."""
        return folder.relative_to(self.local).as_posix()

    def read(self, reference: str) -> StoredResult:
        """A stored result; at a URL its files stay where they are."""
        result: StoredResult = json.loads(self._document(reference))
        return result

    def folder(self, reference: str) -> Path:
        """The folder of a result on this machine, with all its files."""
        folder = inside(self.local, reference)
        if not self.location.remote or (folder / RESULT).is_file():
            return folder
        document = self._document(reference)
        for name in self.location.sizes(reference):
            if name != f"{reference}/{RESULT}":
                self.path(name)
        write_bytes(folder / RESULT, document)  # last: with it the copy is whole
        return folder

    def path(self, file: str) -> Path:
        """Where a file of a result, "<reference>/<name>", is on this machine."""
        path = inside(self.local, file)
        if self.location.remote and not path.is_file():
            try:
                self.location.fetch(file, path)
            except FileNotFoundError:
                raise StoreError(
                    f"{self.location.path(file)}: is not there any more; repeat the run, which makes it again"
                ) from None
        return path

    def _find(self, reference: str) -> StoredResult | None:
        """The result, if it is there. At a URL the store is asked, whatever copies this machine has."""
        path = self.local / reference / RESULT
        if not self.location.remote:
            return json.loads(path.read_text()) if path.is_file() else None
        try:
            data = self.location.read(f"{reference}/{RESULT}")
        except FileNotFoundError:
            return None
        beside = _beside(path.parent)
        if any(copy.is_file() and copy.read_bytes() != data for copy in (path, beside)):
            shutil.rmtree(path.parent, ignore_errors=True)  # copies of what was deleted there and made anew
        self._remember(reference, data)
        return json.loads(data)

    def _cost(self, reference: str) -> dict[str, float] | None:
        """What a result took when it was computed; None where nobody noted it."""
        if self.location.remote:
            return None
        try:
            cost: dict[str, float] = json.loads((self.local / reference / COST).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return cost

    def _document(self, reference: str) -> bytes:
        """The bytes of a result's JSON."""
        path = inside(self.local, f"{reference}/{RESULT}")
        if not self.location.remote or path.is_file():
            return path.read_bytes()
        beside = _beside(path.parent)
        if not beside.is_file():
            try:
                self._remember(reference, self.location.read(f"{reference}/{RESULT}"))
            except FileNotFoundError:
                raise StoreError(
                    f"{self.location.path(reference)}: is not there any more; repeat the run, which makes it "
                    "again"
                ) from None
        return beside.read_bytes()

    def _remember(self, reference: str, data: bytes) -> None:
        """Keep a result's JSON beside its folder, in which it would say that all files are there."""
        beside = _beside(self.local / reference)
        if not beside.is_file() or beside.read_bytes() != data:
            write_bytes(beside, data)

    def _store(self, temporary: Path, reference: str) -> bool:
        """Put a finished folder in its place; False when another process was first."""
        final = self.local / reference
        files = sorted(path.relative_to(temporary) for path in temporary.rglob("*") if path.is_file())
        files.sort(key=lambda file: file == Path(RESULT))  # the last one
        if self.location.remote:
            for file in files:
                self.location.put(f"{reference}/{file.as_posix()}", temporary / file)
            # Another process of this machine may read or have copies of the same files.
            for file in files:
                (final / file).parent.mkdir(parents=True, exist_ok=True)
                (temporary / file).replace(final / file)
            shutil.rmtree(temporary, ignore_errors=True)
            return True
        for file in files:
            sync(temporary / file)
        final.parent.mkdir(parents=True, exist_ok=True)
        first = _rename_folder(temporary, final)
        sync(final.parent)
        return first

    def _note(self, line: LedgerLine) -> None:
        """One ledger line in one write, which the kernel appends whole."""
        data = ("\n" + canonical(line) + "\n").encode()  # apart from a line that a full disk cut short
        path = self.local / "ledger.jsonl"
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            with naming(path):
                if os.write(handle, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(handle)
        finally:
            os.close(handle)

    # ---- attempts -----------------------------------------------------------------------------------------

    def begin_attempt(self, run: str, key: str) -> int:
        """Mark that this process begins a unit of a run; returns how many marks of it others have left.

        A process that is killed can say nothing any more, so each leaves a mark before it begins, and whoever
        ends removes them. A mark is a file of its own, since object stores cannot append.
        """
        folder = _attempts(run, key)
        earlier = len(self.location.sizes(folder))
        mark = f"{folder}/{own_name()}"
        if self.location.remote:
            self.location.put(mark, b"begun\n")
        else:  # which need not outlive the machine
            (self.local / folder).mkdir(parents=True, exist_ok=True)
            with naming(self.local / mark):
                (self.local / mark).write_bytes(b"begun\n")
        return earlier

    def end_attempt(self, run: str, key: str) -> None:
        """A unit of a run has come to an end, well or not: its marks go."""
        folder = _attempts(run, key)
        for name in self.location.sizes(folder):
            self.location.remove(name)
        if not self.location.remote:
            with contextlib.suppress(OSError):  # another process has just begun the same
                (self.local / folder).rmdir()

    def end_run(self, run: str) -> None:
        """All marks of a run go, and what its processes noted on this machine."""
        if self.location.remote:
            for name in self.location.sizes(f"attempts/{run}"):
                self.location.remove(name)
        shutil.rmtree(self.local / "attempts" / run, ignore_errors=True)

    # ---- leavings -----------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Drop what killed processes left half-made: dead ones of this machine, and whatever is a day old.

        Other runs may be at work in this workspace, here and on other machines.
        """
        sweep_leavings(self.local / "tmp")
        with contextlib.suppress(FileNotFoundError):
            for path in (self.local / "attempts").iterdir():
                if age(path) > DAY:
                    shutil.rmtree(path, ignore_errors=True)


def ledger(root: str | Path) -> list[LedgerLine]:
    """All lines of the ledger of a folder; one that a full disk cut short is left out."""
    path = Path(root) / "ledger.jsonl"
    if not path.is_file():
        return []
    return [LedgerLine(**json.loads(line)) for line in path.read_text().split("\n") if line.endswith("}")]


def _attempts(run: str, key: str) -> str:
    return f"attempts/{run}/{key}"


def _beside(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _rename_folder(temporary: Path, final: Path) -> bool:
    """Rename; False when another process was first."""
    try:
        temporary.rename(final)
    except OSError as error:
        if error.errno not in ANOTHER_WAS_FIRST or not (final / RESULT).is_file():
            raise
        shutil.rmtree(temporary, ignore_errors=True)
        return False
    return True
