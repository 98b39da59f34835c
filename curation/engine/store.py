"""The outcomes of a run in a file of the workspace, so that a driver's memory does not grow with them.

They are read back in the order of their sources, whoever was first, and then told which clips are duplicates.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from curation.core.outcome import Outcome
from curation.sources.clip_filter import alike, bands_of
from shards.processes import own_name, sweep_leavings

SAME_BYTES, NEAR = "same bytes as another file", "near duplicate of another clip"
SCHEMA = """
create table outcomes (source integer, clip integer, row text, primary key (source, clip)) without rowid;
create table clips (key text, source integer, clip integer, primary key (key, source, clip)) without rowid;
create table bands (band text, source integer, clip integer, hashes text,
                    primary key (band, source, clip)) without rowid;
create table samples (split text, key text, sample text, files text, primary key (split, key)) without rowid;
create table tallies (reason text, value text, count integer, first integer primary key autoincrement,
                      unique (reason, value));
create table listed (name text, number integer, value text, primary key (name, number)) without rowid;
"""
Value = TypeVar("Value")


class OutcomeStore:
    """The outcomes of one run; a context manager.

    Args:
        root: `Workspace.local`; the store has a folder of its own below it, which goes with the run.
        bits: of `ClipFilter.alike`.
    """

    def __init__(self, root: Path, bits: int) -> None:
        self.root, self.bits = root, bits
        scratch = root / "runs"
        sweep_leavings(scratch, max_age=math.inf)  # a run may take days
        self.folder = scratch / own_name()
        self.folder.mkdir(parents=True)
        # A database without a name is the process's own: in memory while it is small, then in a file here.
        os.environ["SQLITE_TMPDIR"] = str(self.folder)
        self._file = sqlite3.connect("")
        self._file.executescript("pragma journal_mode=off; pragma synchronous=off;" + SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- outcomes and duplicates --------------------------------------------------------------------------

    def screened(self, outcome: Outcome) -> Outcome:
        """Take in a clip before any work on it; refused if it is a duplicate of an earlier one already seen.

        What an earlier clip makes a duplicate stays one, whatever else is still to come, so that this
        verdict is final; the other one is not.
        """
        self._remember(outcome)
        reason = self._duplicate(outcome)
        return replace(outcome, refused=reason) if reason else outcome

    def add(self, outcome: Outcome) -> None:
        """Take in a finished outcome."""
        self._remember(outcome)
        row = outcome.to_row(self.root)["outcome"]
        self._file.execute("insert or replace into outcomes values (?, ?, ?)", (*outcome.number, row))

    def finished(self) -> Iterator[Outcome]:
        """All outcomes in order; those of duplicates are refused, whatever was computed of them."""
        rows = self._file.execute("select row from outcomes order by source, clip")
        for (row,) in rows:
            outcome = Outcome.from_row({"outcome": row}, self.root)
            reason = self._duplicate(outcome)
            yield replace(outcome, refused=reason, error="", candidates=[]) if reason else outcome

    def _remember(self, outcome: Outcome) -> None:
        clip, stats = outcome.clip, outcome.clip_stats
        if clip is None:
            return
        self._file.execute("insert or ignore into clips values (?, ?, ?)", (clip.key, *outcome.number))
        if stats is not None and outcome.refused in ("", NEAR):
            hashes = stats.measures.hashes
            rows = [(band, *outcome.number, " ".join(hashes)) for band in bands_of(hashes, self.bits)]
            self._file.executemany("insert or ignore into bands values (?, ?, ?, ?)", rows)

    def _duplicate(self, outcome: Outcome) -> str:
        """Which duplicate a clip is of those before it; "" for none."""
        clip, stats = outcome.clip, outcome.clip_stats
        if clip is None:
            return ""
        earlier = "(source, clip) < (?, ?)"
        same = f"select 1 from clips where key = ? and {earlier} limit 1"
        if self._file.execute(same, (clip.key, *outcome.number)).fetchone():
            return SAME_BYTES
        if stats is None or outcome.refused not in ("", NEAR):
            return ""
        hashes = stats.measures.hashes
        near = f"select hashes from bands where band = ? and {earlier}"
        for band in bands_of(hashes, self.bits):
            for (other,) in self._file.execute(near, (band, *outcome.number)):
                if alike(hashes, other.split(" "), self.bits):
                    return NEAR
        return ""

    # ---- what is packed -----------------------------------------------------------------------------------

    def put_sample(self, split: str, key: str, sample: str, files: dict[str, Path]) -> bool:
        """Keep a sample as JSON, with its files; False when its key is taken."""
        values = (split, key, sample, json.dumps({name: str(path) for name, path in files.items()}))
        made = self._file.execute("insert or ignore into samples values (?, ?, ?, ?)", values)
        return made.rowcount == 1

    def samples(self) -> Iterator[tuple[str, dict[str, Path]]]:
        """All samples by split and key."""
        for sample, files in self._file.execute("select sample, files from samples order by split, key"):
            yield sample, {name: Path(path) for name, path in json.loads(files).items()}

    def listing(self, name: str, read: Callable[[str], Value]) -> StoredList[Value]:
        """A list in the file, of values that `read` makes of their text."""
        return StoredList(self._file, name, read)

    def reject(self, reason: str, value: str) -> None:
        """Keep a rejected candidate, as text, under its reason."""
        query = "insert into tallies (reason, value, count) values (?, ?, 1) "
        query += "on conflict (reason, value) do update set count = count + 1"
        self._file.execute(query, (reason, value))

    def rejected(self, most: int) -> Iterator[tuple[str, int, list[tuple[str, int]]]]:
        """Each reason, how many it rejected, and at most so many different ones of these, evenly spread."""
        counts = "select reason, sum(count), count(*) from tallies group by reason order by reason"
        for reason, total, different in self._file.execute(counts).fetchall():
            number = min(most, different)
            one = "select value, count from tallies where reason = ? order by first limit 1 offset ?"
            places = [place * different // number for place in range(number)]
            yield reason, total, [self._file.execute(one, (reason, place)).fetchone() for place in places]


class StoredList(Sequence[Value], Generic[Value]):
    """A list in a file; only what is looked at is in memory."""

    def __init__(self, file: sqlite3.Connection, name: str, read: Callable[[str], Value]) -> None:
        self._file, self._name, self._read, self._length = file, name, read, 0

    def append(self, text: str) -> None:
        """Add a value as text."""
        self._file.execute("insert into listed values (?, ?, ?)", (self._name, self._length, text))
        self._length += 1

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> Value:  # type: ignore[override]  # no slices
        query = "select value from listed where name = ? and number = ?"
        found = self._file.execute(query, (self._name, number)).fetchone()
        if found is None:
            raise IndexError(number)
        return self._read(found[0])
