"""The edits of a service on disk: a table that outlives the process, and a folder of files for each."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shards.errors import EditVerseError

State = Literal["queued", "running", "done", "failed", "cancelled"]
OVER: tuple[State, ...] = ("done", "failed", "cancelled")
TABLES = """
CREATE TABLE IF NOT EXISTS edit (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, owner TEXT NOT NULL, state TEXT NOT NULL,
  text TEXT NOT NULL, media TEXT NOT NULL, settings TEXT NOT NULL, result TEXT NOT NULL, line TEXT NOT NULL,
  has_mask INTEGER NOT NULL, steps_done INTEGER NOT NULL, steps_total INTEGER NOT NULL,
  created REAL NOT NULL, started REAL, finished REAL, seconds REAL
);
CREATE INDEX IF NOT EXISTS edit_by_state ON edit (state, finished);
CREATE TABLE IF NOT EXISTS upload (
  id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, created REAL NOT NULL
);
"""


@dataclass(frozen=True)
class EditRecord:
    """One edit.

    Attributes:
        id: that clients know it by.
        owner: whose token submitted it; "" without tokens.
        state: where it stands.
        text: instruction with tags.
        media: names of files in the edit's folder, by the names of their tags.
        settings: see `EditSettings`.
        result: name of the file in the edit's folder.
        line: what became of it; "" before that.
        has_mask: whether the region that was edited is there too.
        steps_done, steps_total: solver steps of one that is over.
        created, started, finished: seconds since 1970.
        seconds: for which a worker was at it.
    """

    id: str
    owner: str
    state: State
    text: str
    media: dict[str, str]
    settings: dict[str, Any]
    result: str
    created: float
    line: str = ""
    has_mask: bool = False
    steps_done: int = 0
    steps_total: int = 0
    started: float | None = None
    finished: float | None = None
    seconds: float | None = None


FIELDS = [field.name for field in dataclasses.fields(EditRecord)]
COLUMNS = ", ".join(FIELDS)


class StoreError(EditVerseError):
    """The table cannot be written or read, for instance because the disk is full."""


class EditStore:
    """The table of edits and uploads in `folder`; whatever a method has done is on disk when it returns.

    May be used from several threads.

    Raises:
        StoreError: here and in every method, where the table cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        try:
            self._table = sqlite3.connect(folder / "edits.sqlite", check_same_thread=False)
            self._table.execute("PRAGMA journal_mode=WAL")
            self._table.execute("PRAGMA synchronous=FULL")
            self._table.executescript(TABLES)
        except sqlite3.Error as error:
            raise StoreError(f"{folder / 'edits.sqlite'}: {error}") from None

    def _run(self, statement: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            with self._lock, self._table:
                return self._table.execute(statement, tuple(values)).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"the table of edits: {error}") from None

    def add(self, record: EditRecord) -> None:
        """Add an edit behind all others."""
        values = dataclasses.asdict(record)
        for name in ("media", "settings"):
            values[name] = json.dumps(values[name])
        marks = ", ".join("?" * len(FIELDS))
        self._run(f"INSERT INTO edit ({COLUMNS}) VALUES ({marks})", [values[name] for name in FIELDS])

    def change(self, id: str, **values: Any) -> None:
        """Set fields of an edit."""
        names = ", ".join(f"{name} = ?" for name in values)
        self._run(f"UPDATE edit SET {names} WHERE id = ?", [*values.values(), id])

    def get(self, id: str, owner: str) -> EditRecord | None:
        """An edit of this owner's."""
        found = self._run(f"SELECT {COLUMNS} FROM edit WHERE id = ? AND owner = ?", [id, owner])
        return _record(found[0]) if found else None

    def by_state(self, *states: State) -> list[EditRecord]:
        """Edits in these states, in the order in which they were submitted."""
        marks = ", ".join("?" * len(states))
        rows = self._run(f"SELECT {COLUMNS} FROM edit WHERE state IN ({marks}) ORDER BY number", states)
        return [_record(row) for row in rows]

    def remove(self, id: str) -> None:
        """Forget an edit."""
        self._run("DELETE FROM edit WHERE id = ?", [id])

    def add_upload(self, id: str, owner: str, name: str, created: float) -> None:
        """Add a file that edits may be made of."""
        self._run("INSERT INTO upload VALUES (?, ?, ?, ?)", [id, owner, name, created])

    def upload(self, id: str, owner: str) -> str | None:
        """The file name of an upload of this owner's."""
        found = self._run("SELECT name FROM upload WHERE id = ? AND owner = ?", [id, owner])
        return found[0][0] if found else None

    def old_uploads(self, before: float) -> list[str]:
        """Uploads from before a time, in seconds since 1970, the oldest first."""
        rows = self._run("SELECT id FROM upload WHERE created < ? ORDER BY created", [before])
        return [row[0] for row in rows]

    def remove_upload(self, id: str) -> None:
        """Forget an upload."""
        self._run("DELETE FROM upload WHERE id = ?", [id])

    def close(self) -> None:
        """Close the table; it can be opened again."""
        with self._lock:
            self._table.close()


def _record(row: tuple[Any, ...]) -> EditRecord:
    values = dict(zip(FIELDS, row, strict=True))
    values["has_mask"] = bool(values["has_mask"])
    return EditRecord(**values | {name: json.loads(values[name]) for name in ("media", "settings")})
