"""An import: the parts of a data set through a pool of processes into one folder of shards.

A part's shards appear whole; then one line of the journal says so. The manifest is made of the journal alone,
so a run that is killed at any moment goes on where it was, and no row is lost or there twice.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from curation.datasets.layouts.formats import open_layout
from curation.datasets.layouts.rows import Part
from curation.datasets.layouts.tables import split_path
from curation.datasets.part import SCRATCH, Job, Work, at_file, import_part, remove_shards
from curation.datasets.progress import ImportProgress
from curation.datasets.samples import unpacked_ids
from curation.engine.local import end_pool, end_with_parent, finished, forkserver, submitted
from shards import hashing
from shards.column_writer import open_columns
from shards.errors import EditVerseError, SettingError
from shards.files import exclusive, is_unused, sweep_temporaries, sync, write_bytes, write_json
from shards.location import URL, ShardError
from shards.manifest import ManifestRow, write_manifest
from shards.processes import sweep_leavings, uninterrupted, work_in_background

MARK, JOURNAL = "import.json", "import.jsonl"
QUARANTINE, SUMMARY = "quarantine.jsonl", "summary.json"
VERSION = 1  # of what an import makes of the same rows by the same rules
ATTEMPTS = 2  # deaths of a process at one row


class NothingImported(EditVerseError):
    """An import of which no row was accepted; the message says why."""


def config_of(job: Job) -> str:
    """ "sha256:" of all that decides what becomes of a row: format, mapping, task, licence and rules."""
    values = [
        VERSION,
        job.format,
        dict(job.options.mapping),
        job.options.task,
        job.license,
        asdict(job.rules),
    ]
    return f"sha256:{hashing.digest(values)}"


def run_import(job: Job, source: str, workers: int, retry: bool = False) -> dict[str, Any]:
    """Import a data set, or go on with an import; returns what `summary.json` says.

    Args:
        job: its `config` is filled in here.
        source: path or URL of the data set.
        workers: processes; 0 works in this one.
        retry: parts with refused rows are imported again, for files that were mended since.

    Raises:
        SettingError: the folder holds something else, or nothing of the format is at `source`.
        NothingImported: no row was accepted.
        StoreError: the store that the data set lies in does not answer.
    """
    began = time.monotonic()
    if URL.match(job.out):
        raise SettingError(f"--out {job.out}: import into a folder of this machine; publish it from there")
    out = Path(job.out)
    job = replace(job, config=config_of(job))
    mark = {"format": job.format, "source": source, "config": job.config, "rules": asdict(job.rules)}
    _check_mark(out, mark)
    works = _works(job, source)
    with exclusive(out, "--out"):
        if not (out / MARK).exists():
            write_json(out / MARK, mark)
        (out / SCRATCH).mkdir(exist_ok=True)
        sweep_leavings(out / SCRATCH)
        journal = Journal(out)
        done = {record["part"] for record in journal.records() if not (retry and record["refused"])}
        left = [work for work in works if work.id not in done]
        with ImportProgress(len(works), len(works) - len(left)) as progress:
            for record in _results(job, left, workers):
                journal.add(record)
                progress.add(record)
            _drop_repeated(job, works, journal)
        summary = _finish(out, job, source, works, journal, time.monotonic() - began)
    if not summary["accepted"]:
        why = "; ".join(f"{count} {reason}" for reason, count in summary["refused"].items())
        raise NothingImported(f"{source}: none of {summary['rows']} rows was accepted ({why or 'no rows'})")
    return summary


def _check_mark(out: Path, mark: dict[str, Any]) -> None:
    """Raise SettingError where the folder is another import's, or no import's."""
    path = out / MARK
    if not path.is_file():
        if not is_unused(out):
            raise SettingError(f"--out {out}: is not empty and holds no import; choose another")
        return
    held = json.loads(path.read_bytes())
    odd = [name for name in mark if held.get(name) != json.loads(json.dumps(mark[name]))]
    if odd:
        what = next((name for name in ("format", "source") if name in odd), "mapping, or by other rules")
        raise SettingError(
            f"--out {out}: holds an import of another {what} ({held.get('format')}, {held.get('source')}); "
            "choose another --out, or remove the folder to begin anew"
        )


def _works(job: Job, source: str) -> list[Work]:
    """All parts in order; SettingError where there are none."""
    versions: dict[str, str] = {}
    works = []
    for number, part in enumerate(open_layout(job.format, job.options).parts(source)):
        if part.path not in versions:
            versions[part.path] = _version(part)
        id = hashing.digest([asdict(part), versions[part.path]])[:16]
        works.append(Work(part, number, id))
    if not works:
        raise SettingError(f"{source}: holds no rows of the format {job.format}")
    return works


def _version(part: Part) -> str:
    """What changes when the file that a part is of does; "" for a folder."""
    location, name = split_path(part.path)
    if location.remote:
        try:
            return location.version(name)
        except (FileNotFoundError, ShardError):
            return ""
    path = Path(part.path)
    if not part.path or not path.is_file():
        return ""
    about = path.stat()
    return f"{about.st_size} {about.st_mtime_ns}"


# ---- the journal ------------------------------------------------------------------------------------------


class Journal:
    """One line a part that is done, the last of a part counts; a line that a kill cut off is cut away."""

    def __init__(self, out: Path) -> None:
        self.out, self.path = out, out / JOURNAL
        if self.path.exists():
            self._cut()
        else:
            write_bytes(self.path, b"")

    def _cut(self) -> None:
        size = self.path.stat().st_size
        with self.path.open("rb+") as handle:
            at = size
            while at > 0:  # back to the end of the last whole line
                step = min(at, 1 << 16)
                handle.seek(at - step)
                end = handle.read(step).rfind(b"\n")
                if end >= 0:
                    at = at - step + end + 1
                    break
                at -= step
            if at < size:
                handle.truncate(at)

    def add(self, record: dict[str, Any]) -> None:
        """Append a part's record, on disk when this returns."""
        with self.path.open("ab") as handle:
            handle.write((json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
            handle.flush()
            os.fsync(handle.fileno())

    def places(self) -> dict[str, int]:
        """Where the last record of each part begins."""
        found: dict[str, int] = {}
        with self.path.open("rb") as handle:
            at = 0
            while line := handle.readline():
                found[json.loads(line)["part"]] = at
                at += len(line)
        return found

    def records(self, order: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """The last record of each part, or of those of `order` that have one, whose shards are all there."""
        places = self.places()
        with self.path.open("rb") as handle:
            for id in places if order is None else order:
                if id not in places:
                    continue
                handle.seek(places[id])
                record = json.loads(handle.readline())
                if all((self.out / row["shard"]).is_file() for row in record["shards"]):
                    yield record


def _drop_repeated(job: Job, works: list[Work], journal: Journal) -> None:
    """Make parts again without the rows that an earlier part has too."""
    of_id = {work.id: work for work in works}
    records = journal.records([work.id for work in works])
    found = [(of_id[record["part"]], unpacked_ids(record["ids"])) for record in records]
    ids = np.concatenate([np.zeros(0, np.uint64), *(some for _, some in found)])
    unique, first = np.unique(ids, return_index=True)
    if len(unique) == len(ids):
        return
    is_first = np.zeros(len(ids), bool)
    is_first[first] = True
    at = 0
    for work, some in found:
        again = some[~is_first[at : at + len(some)]]
        at += len(some)
        if len(again):
            skipped = tuple(f"{int(one):016x}" for one in again)
            journal.add(import_part(job, replace(work, skipped=skipped)))


def _finish(
    out: Path, job: Job, source: str, works: list[Work], journal: Journal, seconds: float
) -> dict[str, Any]:
    """Manifest, columns, quarantine and summary, of the parts that the data set has now."""
    rows: list[ManifestRow] = []
    counts: dict[str, Counter[str]] = {"refused": Counter(), "licenses": Counter(), "mended": Counter()}
    samples: dict[str, Counter[str]] = {}
    total: Counter[str] = Counter()
    peak = 0
    quarantine = out / SCRATCH / QUARANTINE
    with quarantine.open("w", encoding="utf-8") as handle:
        for record in journal.records([work.id for work in works]):
            rows += [ManifestRow.model_validate(row) for row in record["shards"]]
            for name, counter in counts.items():
                counter.update(record[name])
            for task, by_split in record["samples"].items():
                samples.setdefault(task, Counter()).update(by_split)
            total.update({name: record[name] for name in ("rows", "accepted", "cpu_seconds")})
            peak = max(peak, record["peak_memory"])
            for row in record["quarantine"]:
                handle.write(json.dumps(row, ensure_ascii=False) + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    if rows:
        write_manifest(out, rows)
        keep = {row.shard for row in rows}
        remove_shards(out, {path.name for path in out.glob("*.tar")} - keep)
        open_columns(out)  # makes them
    quarantine.replace(out / QUARANTINE)
    sync(out)
    summary = {
        "format": job.format,
        "source": source,
        "config": job.config,
        "parts": len(works),
        "rows": int(total["rows"]),
        "accepted": int(total["accepted"]),
        "samples": {task: dict(sorted(counter.items())) for task, counter in sorted(samples.items())},
        "refused": dict(counts["refused"].most_common()),
        "mended": dict(counts["mended"].most_common(40)),
        "licenses": dict(counts["licenses"].most_common()),
        "shards": len(rows),
        "bytes": sum(row.bytes for row in rows),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(float(total["cpu_seconds"]), 2),
        "peak_memory": peak,
    }
    write_json(out / SUMMARY, summary)
    shutil.rmtree(out / SCRATCH, ignore_errors=True)
    sweep_temporaries(out)  # at the end: a killed run's processes may outlive it by a moment
    return summary


# ---- the pool ---------------------------------------------------------------------------------------------


def _begin() -> None:
    work_in_background()
    end_with_parent()


def _start(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=forkserver(), initializer=_begin)


def _results(job: Job, works: Iterable[Work], workers: int) -> Iterator[dict[str, Any]]:
    """The records of parts as they are done.

    When a process dies all of the pool end with it. The parts that were under way are done again, one after
    the other; a row at which a process dies `ATTEMPTS` times is refused.
    """
    if workers == 0:
        yield from (import_part(job, work) for work in works)
        return
    waiting, suspects = iter(works), list[Work]()
    deaths: Counter[tuple[str, str]] = Counter()
    pool = _start(workers)
    try:
        flying: dict[Future[dict[str, Any]], Work] = {}
        while True:
            while len(flying) < (1 if suspects else 2 * workers):
                work = suspects.pop(0) if suspects else next(waiting, None)
                if work is None:
                    break
                flying[submitted(pool, import_part, job, work)] = work
                if work.is_suspect:
                    break
            if not flying:
                return
            lost: list[Work] = []
            for work, record in finished(flying):
                if record is None:
                    lost.append(work)
                else:
                    yield record
            if lost:
                lost += flying.values()
                flying.clear()
                end_pool(pool)
                pool = _start(workers)
                suspects = [_suspect(job, work, deaths) for work in lost] + suspects
    finally:
        with uninterrupted():
            end_pool(pool)


def _suspect(job: Job, work: Work, deaths: Counter[tuple[str, str]]) -> Work:
    """A part whose process died, to be done alone; without the row at which it died before."""
    path = at_file(job.out, work.id)
    row = path.read_text("utf-8") if path.is_file() else ""
    if work.is_suspect:  # it was alone, so it was this row
        deaths[work.id, row] += 1
    if not row and deaths[work.id, row] > 3 * ATTEMPTS:
        raise NothingImported(f"{work.part.name}: its process dies before the first row")
    deadly = (row,) if row and deaths[work.id, row] >= ATTEMPTS else ()
    return replace(work, is_suspect=True, deadly=(*work.deadly, *deadly))
