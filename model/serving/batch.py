"""Many edits from a table, by the workers of a service: `python -m model batch`."""

from __future__ import annotations

import csv
import io
import os
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from model.inference.pretrained import WEIGHTS, find_checkpoint
from model.serving.pool import WorkerPool
from model.serving.table import Row, read_table
from model.serving.work import Outcome, Work, WorkerConfig
from shards.files import exclusive, inside, sha256_of, sweep_temporaries, write_bytes

RESULTS = "results.csv"
COLUMNS = ("row", "out", "state", "fingerprint", "bytes", "seconds", "line")


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
        size = file.stat().st_size if outcome.state == "done" else 0
        self.counts[outcome.state] += 1
        try:
            self.journal.add(row, outcome, size)
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
    return {"files": sums or [str(folder)], "dtype": config.dtype}
