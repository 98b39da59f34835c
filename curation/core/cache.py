"""The workspace: results stored under the hash of everything that they depend on.

A result that exists is never computed again; a ledger gets one line for each result that was.
"""

from __future__ import annotations

import errno
import inspect
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shards.files import naming
from shards.hashing import canonical, digest

RESULT = "result.json"
StoredResult = dict[str, Any]  # JSON as it is on disk; `curation.core.results` gives it types


def code_of(*things: Any) -> str:
    """Version of the code of modules, classes or functions: a digest of their source text."""
    return digest([inspect.getsource(thing) for thing in things])[:16]


@dataclass
class Work:
    """What one stage cost: results computed and found again, seconds of processor time and of the clock."""

    computed: int = 0
    reused: int = 0
    cpu_seconds: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class LedgerLine:
    """A line of the ledger: the key of a result, its stage, and the seconds that it took."""

    key: str
    stage: str
    seconds: float


@dataclass
class Workspace:
    """A folder of results: `<root>/<stage>/<2 hex>/<key>/result.json` and the files that it names."""

    root: Path
    work: dict[str, Work] = field(default_factory=dict)
    begin: Callable[[str], None] = lambda stage: None  # told of every stage that is computed

    @property
    def local(self) -> Path:
        """The folder of this machine below which results lie under their references."""
        return self.root

    def reference(self, folder: Path) -> str:
        """What a result is called in every process: "<stage>/<2 hex>/<key>"."""
        return folder.relative_to(self.local).as_posix()

    def read(self, reference: str) -> StoredResult:
        """A stored result."""
        result: StoredResult = json.loads((self.root / reference / RESULT).read_text())
        return result

    def folder(self, reference: str) -> Path:
        """The folder of a result, with all its files."""
        return self.local / reference

    def path(self, file: str) -> Path:
        """Where a file of a result, named "<reference>/<name>", lies on this machine."""
        return self.local / file

    def cached(
        self, stage: str, depends_on: Any, make: Callable[[Path], StoredResult]
    ) -> tuple[Path, StoredResult]:
        """The stored result for `depends_on`, or the result of `make(folder)`, stored; with its folder.

        `make` writes files into the folder that it is given and returns a dictionary for JSON. The folder
        appears under its final name only when all of it is on disk; the ledger line follows. When two
        processes make the same result at once, one wins and the other's is dropped.
        """
        key = digest([stage, depends_on])
        final = self.root / stage / key[:2] / key
        work = self.work.setdefault(stage, Work())
        if (final / RESULT).is_file():
            work.reused += 1
            return final, json.loads((final / RESULT).read_text())
        self.begin(stage)
        began, cpu = time.perf_counter(), time.process_time()
        temporary = self.root / "tmp" / f"{key}.{uuid.uuid4().hex[:8]}"
        temporary.mkdir(parents=True)
        try:
            with naming(final, temporary):
                result = make(temporary)
                (temporary / RESULT).write_text(canonical(result))
                for path in temporary.iterdir():
                    _sync(path)
                final.parent.mkdir(parents=True, exist_ok=True)
                first = _rename_folder(temporary, final)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _sync(final.parent)
        work.cpu_seconds += time.process_time() - cpu
        work.seconds += time.perf_counter() - began
        if first:
            work.computed += 1
            self._note(LedgerLine(key, stage, round(time.perf_counter() - began, 4)))
        else:
            work.reused += 1
        # Read back, so that a computed and a found result are the same to the bit.
        return final, json.loads((final / RESULT).read_text())

    def _note(self, line: LedgerLine) -> None:
        """One ledger line in one write, which the kernel appends whole."""
        data = ("\n" + canonical(line) + "\n").encode()  # apart from a line that a full disk cut short
        path = self.root / "ledger.jsonl"
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            with naming(path):
                if os.write(handle, data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(handle)
        finally:
            os.close(handle)

    def sweep(self) -> None:
        """Drop what killed processes left half-made. Only when no other run uses this workspace."""
        shutil.rmtree(self.root / "tmp", ignore_errors=True)


def ledger(root: Path) -> list[LedgerLine]:
    """All ledger lines; one that a full disk cut short is left out."""
    path = Path(root) / "ledger.jsonl"
    if not path.is_file():
        return []
    return [LedgerLine(**json.loads(line)) for line in path.read_text().split("\n") if line.endswith("}")]


def _rename_folder(temporary: Path, final: Path) -> bool:
    """Rename; False when another process was first."""
    try:
        temporary.rename(final)
    except OSError:
        if not (final / RESULT).is_file():
            raise
        shutil.rmtree(temporary, ignore_errors=True)
        return False
    return True


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
