"""Many edits from a table, by the workers of a service: `python -m model batch`."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import os
import sys
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.inference.pretrained import WEIGHTS, find_checkpoint
from model.serving.pool import WorkerPool
from model.serving.settings import EditSettings, check_files, check_text, read_settings
from model.serving.work import Outcome, Work, WorkerConfig
from shards.errors import EditVerseError, SettingError
from shards.files import exclusive, inside, sha256_of, sweep_temporaries, write_bytes
from shards.limits import MAX_FRAMES, MAX_ROWS, parse_json, read_text
from shards.sample import MEDIA_NAME

MAX_TOLD = 10  # further rows at fault that are named
RESULTS = "results.csv"
COLUMNS = ("row", "out", "state", "fingerprint", "bytes", "seconds", "line")


@dataclass(frozen=True)
class Row:
    """One edit of a table.

    Attributes:
        number: of the row, 1 being the first below the names of the columns.
        text: instruction with tags.
        media: files by the names of their tags.
        settings: keywords of `Editor.__call__`.
        out: mp4 or png to write, relative to the batch's folder.
        fingerprint: of all that the result depends on, in hexadecimal digits.
    """

    number: int
    text: str
    media: dict[str, str]
    settings: dict[str, Any]
    out: str
    fingerprint: str


def read_table(path: Path, folder: Path, editor: dict[str, Any]) -> list[Row]:
    """The rows of a table, each checked, with its files opened.

    Args:
        path: a CSV in UTF-8, its first line the columns' names.
        folder: that results are written to.
        editor: what of the editor a result depends on, for the fingerprints.

    Raises:
        SettingError: naming the rows that cannot be made, and why the first cannot; a column that is none.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        columns = reader.fieldnames or []
        _check_columns(path, list(columns))
        raw = [row for row, _ in zip(reader, range(MAX_ROWS + 1), strict=False)]
    except csv.Error as error:
        raise SettingError(f"{path}: line {reader.line_num}: {error}") from None
    if not raw or len(raw) > MAX_ROWS:
        raise SettingError(f"{path}: needs from 1 to {MAX_ROWS} rows")
    rows: list[Row] = []
    faults: list[tuple[int, Exception]] = []
    outs: dict[Path, int] = {}
    hashes: dict[str, str] = {}
    for number, values in enumerate(raw, 1):
        try:
            row = _read_row(number, values, path.parent, editor, hashes)
            target = inside(folder, row.out)
            first = outs.setdefault(target, number)
            if first != number:
                raise SettingError(f"out {row.out}: is that of row {first} too")
            rows.append(row)
        except (EditVerseError, OSError) as error:
            faults.append((number, error))
    if faults:
        others = ", ".join(str(number) for number, _ in faults[1 : 1 + MAX_TOLD])
        more = f"; wrong too: rows {others}{' ...' if len(faults) > 1 + MAX_TOLD else ''}" if others else ""
        raise SettingError(f"{path}: row {faults[0][0]}: {faults[0][1]}{more} (nothing was made)")
    return rows


def _check_columns(path: Path, columns: list[str]) -> None:
    if len(set(columns)) < len(columns):
        raise SettingError(f"{path}: a column is there twice")
    for needed in ("text", "out"):
        if needed not in columns:
            raise SettingError(f"{path}: has no column {needed}")
    for name in columns:
        if name not in ("text", "out", *EditSettings.model_fields) and not MEDIA_NAME.match(name):
            known = ", ".join(EditSettings.model_fields)
            raise SettingError(
                f"{path}: column {name!r}: is no medium (video1, image1, mask), and none of {known}"
            )


def _read_row(
    number: int, values: dict[str, Any], beside: Path, editor: dict[str, Any], hashes: dict[str, str]
) -> Row:
    if None in values or None in values.values():
        raise SettingError("has another number of fields than the first line")
    given = {name: value.strip() for name, value in values.items() if value.strip()}
    text, out = given.pop("text", ""), given.pop("out", "")
    if not out:
        raise SettingError("out: is empty")
    files = {name: beside / given.pop(name) for name in list(given) if MEDIA_NAME.match(name)}
    settings = read_settings({name: _value(value) for name, value in given.items()})
    suffix = check_text(text, list(files), settings)
    if Path(out).suffix.lower() != suffix:
        raise SettingError(f"out {out}: this edit makes a {suffix}")
    check_files(files, settings, MAX_FRAMES)
    keywords = settings.keywords()
    for file in files.values():
        if str(file) not in hashes:
            hashes[str(file)] = sha256_of(file)
    contents = {name: hashes[str(file)] for name, file in files.items()}
    content = {"text": text, "media": contents, "settings": keywords, "editor": editor}
    fingerprint = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
    return Row(number, text, {n: str(f) for n, f in files.items()}, keywords, out, fingerprint)


def _value(cell: str) -> Any:
    """A cell as JSON where it is that (`7`, `true`, `[10, 250]`), `10:250` as a stretch, else as text."""
    first, colon, last = cell.partition(":")
    if colon and first.isdecimal() and last.isdecimal():
        return [int(first), int(last)]
    try:
        return parse_json(cell, "cell")
    except EditVerseError:
        return cell


class BatchJournal:
    """What became of every row, in `results.csv`: a line is on disk before the next edit of its worker.

    Args:
        folder: of the batch.
        rows: of its table, whose order the file has when the batch is over.
    """

    def __init__(self, folder: Path, rows: list[Row]) -> None:
        self.path, self.rows = folder / RESULTS, {str(row.number): row for row in rows}
        self._lock = threading.Lock()
        self.lines = self._read_done(folder)
        self.rewrite()

    def _read_done(self, folder: Path) -> dict[str, list[str]]:
        """Lines of an earlier call that hold: done, of the same edit, and its file is the one of then."""
        done: dict[str, list[str]] = {}
        if not self.path.is_file():
            return done
        by_edit = {(row.out, row.fingerprint): number for number, row in self.rows.items()}
        for line in csv.reader(self.path.read_text(encoding="utf-8").splitlines()):
            if len(line) != len(COLUMNS) or line[2] != "done":
                continue  # the last line of a call that was killed may be cut off
            number = by_edit.get((line[1], line[3]))
            file = folder / line[1]
            if number is not None and file.is_file() and str(file.stat().st_size) == line[4]:
                done[number] = [number, *line[1:]]
        return done

    def rewrite(self) -> None:
        """Write the file anew, in the table's order."""
        ordered = [self.lines[number] for number in self.rows if number in self.lines]
        write_bytes(self.path, _as_csv([list(COLUMNS), *ordered]))

    def add(self, row: Row, outcome: Outcome, num_bytes: int) -> None:
        """Add a row's line."""
        number = str(row.number)
        line = [number, row.out, outcome.state, row.fingerprint, str(num_bytes), f"{outcome.seconds:.2f}"]
        with self._lock:
            self.lines[number] = [*line, outcome.line]
            with self.path.open("ab") as file:
                file.write(_as_csv([self.lines[number]]))
                file.flush()
                os.fsync(file.fileno())


def _as_csv(lines: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue().encode()


class BatchListener:
    """Writes what becomes of rows into the journal, and a line for each to the terminal."""

    def __init__(self, folder: Path, journal: BatchJournal) -> None:
        self.folder, self.journal = folder, journal
        self.counts: Counter[str] = Counter()
        self.fault: OSError | None = None  # of the journal itself, after which nothing is worth while

    def started(self, id: str) -> None:
        """See `Listener`."""

    def progressed(self, id: str, done: int, total: int) -> None:
        """See `Listener`."""

    def put_back(self, id: str, line: str) -> None:
        """See `Listener`."""
        print(f"{id}/{len(self.journal.rows)} waits again: {line}", flush=True)

    def finished(self, id: str, outcome: Outcome) -> None:
        """See `Listener`."""
        row = self.journal.rows[id]
        file = self.folder / row.out
        self.counts[outcome.state] += 1
        try:
            self.journal.add(row, outcome, file.stat().st_size if outcome.state == "done" else 0)
        except OSError as error:
            self.fault = error
        print(f"{id}/{len(self.journal.rows)} {outcome.state}: {row.out}: {outcome.line}", flush=True)


def run_batch(table: Path, out: Path, config: WorkerConfig) -> int:
    """Make the edits of a table that are not there yet; 0 if all are done, 1 if any has failed.

    Args:
        table: see `read_table`.
        out: folder of the results and of `results.csv`.

    Raises:
        SettingError: rows that cannot be made; nothing has been made by then.
        InUseError: another call writes to the folder.
        ConfigError: the editor cannot be loaded.
        OSError: results.csv cannot be written any more, as on a full disk.
    """
    rows = read_table(table, out, _editor_facts(config))
    with exclusive(out, "--out"):
        journal = BatchJournal(out, rows)
        left = [row for row in rows if str(row.number) not in journal.lines]
        if len(left) < len(rows):
            print(f"{len(rows) - len(left)} of {len(rows)} rows are done already", flush=True)
        listener = BatchListener(out, journal)
        if left:
            _make(left, out, config, listener)
        journal.rewrite()
    failed = listener.counts["failed"]
    print(f"{out / RESULTS}: {len(rows) - failed} done, {failed} failed")
    return 1 if failed else 0


def _make(rows: list[Row], out: Path, config: WorkerConfig, listener: BatchListener) -> None:
    for folder in {inside(out, row.out).parent for row in rows}:
        folder.mkdir(parents=True, exist_ok=True)
        sweep_temporaries(folder)
    pool = WorkerPool(config, listener, most=len(rows))
    try:
        pool.start()
        for row in rows:
            work = Work(str(row.number), row.text, row.media, row.settings, str(inside(out, row.out)))
            pool.submit(work)
        while not pool.wait(0.5):
            if listener.fault is not None:
                raise listener.fault
    except KeyboardInterrupt:
        print("ended; the same call goes on", file=sys.stderr)
        raise
    finally:
        pool.close()
    if listener.fault is not None:
        raise listener.fault


def _editor_facts(config: WorkerConfig) -> dict[str, Any]:
    """What results depend on beside their rows; weights by their content where they are one file."""
    folder = find_checkpoint(config.checkpoint, config.revision)
    files = [folder / "config.json", folder / WEIGHTS]
    if config.lora is not None:
        files += sorted(config.lora.glob("*")) if config.lora.is_dir() else [config.lora]
    sums = [sha256_of(file) for file in files if file.is_file()]
    return {
        "files": sums or [str(folder)],
        "dtype": config.dtype,
        "shortcuts": dataclasses.asdict(config.shortcuts),
    }
