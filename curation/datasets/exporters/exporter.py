"""Writes the samples of a shard folder as another format: shard after shard, resumable, its tables last.

The folder of an export holds `export.yaml`, which says of what and how it was made and what it holds. While a
run goes on, `.export/` holds what is known of each finished shard; a killed run goes on after the last.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curation.datasets.exporters.formats import Format, Table
from curation.datasets.exporters.pairs import Pair, pairs_of
from curation.datasets.exporters.stores import FileStore, ParquetStore, TarStore
from curation.datasets.exporters.tables import write_table
from shards.errors import EditVerseError, SettingError
from shards.files import LOCK, exclusive
from shards.hashing import digest
from shards.limits import parse_json
from shards.location import Location, written_to
from shards.manifest import MANIFEST
from shards.reader import ShardSet
from shards.resources import cache_root
from shards.scores import open_scores

MARK, WORK = "export.yaml", ".export"  # JSON, which is YAML: importers would take a .json for a table
VERSION = 1  # of what an export of the same request looks like


class ExportError(EditVerseError, ValueError):
    """An export that cannot be made; the message names the folder or option and what to do."""


@dataclass(frozen=True)
class Choice:
    """Which samples are exported, and what of them.

    Attributes:
        split: train or heldout; None for all.
        tasks: names of tasks; all where empty.
        min_scores: least value of stored or own scores; a sample whose score is null is left out.
        masks: whether masks are written where the format holds them.
    """

    split: str | None = "train"
    tasks: tuple[str, ...] = ()
    min_scores: dict[str, float] = field(default_factory=dict)
    masks: bool = True


@dataclass
class Summary:
    """What an export holds; `export.yaml` and the table that is printed.

    Attributes:
        samples: how many of them became rows.
        skipped: samples, or targets of them, that became no row, by reason.
        left_out: rows that say less than their sample, by what is missing.
        reworded: rows whose instruction is not the text's own words, since the text placed elements in it.
    """

    format: str = ""
    source: str = ""
    split: str = ""
    samples: int = 0
    rows: int = 0
    tasks: dict[str, int] = field(default_factory=dict)
    licenses: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    reworded: int = 0
    bytes: int = 0
    files: list[str] = field(default_factory=list)

    def add(self, counts: dict[str, Any]) -> None:
        """Count what a shard gave."""
        for name in ("samples", "rows", "reworded", "bytes"):
            setattr(self, name, getattr(self, name) + counts[name])
        for name in ("tasks", "licenses", "skipped", "left_out"):
            summed = Counter(getattr(self, name)) + Counter(counts[name])
            setattr(self, name, dict(sorted(summed.items())))
        self.files += counts["files"]


def export_pairs(
    format: Format,
    shards: str | Path,
    out: str | Path,
    choice: Choice = Choice(),
    progress: Callable[[int, int, int], None] = lambda done, total, rows: None,
) -> Summary:
    """Write the samples of a shard folder or URL as a format of pairs; repeating the call goes on.

    Args:
        out: a folder or URL that is empty, or holds this same export, finished or not.
        progress: called after each shard with shards done and in all, and rows so far.

    Raises:
        ExportError: `out` holds something else, or no sample fits the format.
        ShardError: the shards cannot be read, or have no such split.
        SettingError: a task or score that no sample has.
    """
    source = ShardSet(shards, choice.split)
    kept = _selection(source, shards, choice)
    location = written_to(out)
    request = _request(format, shards, choice)
    with held(location):
        if (finished := claim(location, request)) is not None:
            return finished
        folder = location.folder if location.remote else str(Path(location.folder).resolve())
        wanted = (which for which in range(len(source)) if kept is None or kept[which])
        format = format.prepare(format, map(source.sample, wanted))
        names = [source.shard_of(source.first(number)) for number in range(len(source.shards))]
        rows = 0
        for number, name in enumerate(names):
            journal = f"{WORK}/{name.removesuffix('.tar')}.jsonl"
            counts = _counts(location, journal)
            if counts is None:
                first = source.first(number)
                numbers = range(first, first + source.counts()[number])
                chosen = [which for which in numbers if kept is None or kept[which]]
                counts = _write_part(format, source, chosen, choice, location, folder, name, journal)
            rows += counts["rows"]
            progress(number + 1, len(names), rows)
        return _finish(format, location, folder, names, request)


# ---- what is exported --------------------------------------------------------------------------------------


def _selection(source: ShardSet, shards: str | Path, choice: Choice) -> NDArray[np.bool_] | None:
    """Which samples of the split are chosen: bool [samples]; None where all are."""
    if not choice.tasks and not choice.min_scores:
        return None
    kept = np.ones(len(source), bool)
    if choice.tasks:
        tasks = [source.entry(which).task for which in range(len(source))]
        if unknown := sorted(set(choice.tasks) - set(tasks)):
            raise SettingError(
                f"--tasks {', '.join(unknown)}: no sample has it; there are {', '.join(sorted(set(tasks)))}"
            )
        kept &= np.array([task in choice.tasks for task in tasks])
    if choice.min_scores:
        scores = open_scores(shards)
        places = _places(shards, source)
        for name, least in choice.min_scores.items():
            with np.errstate(invalid="ignore"):
                kept &= scores.column(name)[places] >= least  # not of NaN
    return kept


def _places(shards: str | Path, source: ShardSet) -> NDArray[np.int64]:
    """Numbers of a split's samples among all of the folder, which scores count."""
    ends = np.cumsum(np.diff(source.columns.shards["samples"].astype(np.int64), prepend=0))
    parts = [
        np.arange(ends[number] - count, ends[number])
        for number, count in zip(source.shards, source.counts(), strict=True)
    ]
    return np.concatenate(parts)


def _request(format: Format, shards: str | Path, choice: Choice) -> dict[str, Any]:
    """What decides how an export looks; another one does not go into its folder."""
    manifest = Location(shards).read(MANIFEST)
    return {
        "format": format.name,
        "table": format.table if format.store == "files" else format.store,
        "version": VERSION,
        "source": str(shards),
        "manifest": digest(manifest.decode()),
        "split": choice.split,
        "tasks": sorted(choice.tasks),
        "min_scores": dict(sorted(choice.min_scores.items())),
        "masks": choice.masks,
    }


# ---- the folder --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def held(location: Location) -> Iterator[None]:
    """Hold the folder against other exports: of any machine that locks it, of this one for a URL."""
    if location.remote:
        folder = cache_root() / "export" / digest(location.folder)[:16]
        with exclusive(folder, f"OUT {location}:"):
            yield
        return
    check_unused(location)
    folder = Path(location.folder) / WORK
    with exclusive(folder, "OUT"):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # only where nothing but the lock is left
                if {path.name for path in folder.iterdir()} == {LOCK}:
                    shutil.rmtree(folder)


def check_unused(location: Location) -> None:
    """Raise ExportError for a folder that is no export's, before anything is left in it."""
    ours = {MARK, LOCK, WORK}
    if location.remote:
        names = {name.partition("/")[0] for name in location.sizes()}
    else:
        folder = Path(location.folder)
        if folder.exists() and not folder.is_dir():
            raise ExportError(f"{location}: is no folder")
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names - ours and MARK not in names:
        raise ExportError(f"{location}: is not empty and no earlier export; choose another folder")


def claim(location: Location, request: dict[str, Any]) -> Summary | None:
    """Make the folder this export's; its summary where it is finished already.

    Raises:
        ExportError: it is another one's.
    """
    check_unused(location)
    try:
        held = parse_json(location.read(MARK), location.path(MARK))
    except (FileNotFoundError, NotADirectoryError):
        put_json(location, MARK, {"request": request})
        return None
    if not isinstance(held, dict) or held.get("request") != request:
        theirs = held.get("request", {}) if isinstance(held, dict) else {}
        differs = [name for name in request if theirs.get(name) != request[name]]
        raise ExportError(
            f"{location}: holds another export ({', '.join(differs)} differ); choose another folder, or "
            "delete it"
        )
    return Summary(**held["summary"]) if "summary" in held else None


def put_json(location: Location, name: str, value: Any) -> None:
    """Write indented JSON."""
    location.put(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


# ---- a shard -----------------------------------------------------------------------------------------------


def _counts(location: Location, journal: str) -> dict[str, Any] | None:
    """What a finished shard gave, the last line of its journal; None where it is not finished."""
    try:
        return json.loads(location.read(journal).splitlines()[-1])["counts"]
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write_part(
    format: Format,
    source: ShardSet,
    numbers: list[int],
    choice: Choice,
    location: Location,
    folder: str,
    name: str,
    journal: str,
) -> dict[str, Any]:
    """Export the samples of one shard; its journal, rows and counts, is written last."""
    lines: list[bytes] = []
    skipped, left_out, tasks, licenses = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    samples = rows = reworded = 0
    stem = name.removesuffix(".tar")
    with tempfile.TemporaryDirectory(prefix="export-") as scratch:
        store = _store(format, location, folder, Path(scratch), stem)
        for which in numbers:
            before = rows
            for pair in pairs_of(source[which]):
                if reason := format.refuse(pair, choice.masks):
                    skipped[reason] += 1
                    continue
                left_out.update(format.left_out(pair, choice.masks))
                shape, row = _row(format, pair, store, choice)
                lines.append(json.dumps({"shape": shape, "row": row}, ensure_ascii=False).encode() + b"\n")
                rows += 1
                reworded += not pair.as_imported
                tasks[pair.sample.task] += 1
                licenses[pair.sample.provenance.clip.license] += 1
            samples += rows > before
        files = store.close()
    counts = {
        "samples": samples,
        "rows": rows,
        "reworded": reworded,
        "bytes": store.bytes,
        "tasks": tasks,
        "licenses": licenses,
        "skipped": skipped,
        "left_out": left_out,
        "files": files,
    }
    location.put(journal, b"".join(lines) + json.dumps({"counts": counts}).encode() + b"\n")
    return counts


def _store(
    format: Format, location: Location, folder: str, scratch: Path, stem: str
) -> FileStore | ParquetStore | TarStore:
    if format.store == "files":
        return FileStore(location, folder)
    if format.store == "parquet":
        return ParquetStore(location, folder, scratch, stem, format)
    return TarStore(location, folder, scratch, format.tar_name.format(stem=stem))


def _row(
    format: Format, pair: Pair, store: FileStore | ParquetStore | TarStore, choice: Choice
) -> tuple[str, dict[str, Any]]:
    """The table that a pair goes to, and what that says of it."""
    if not (choice.masks and format.holds_mask(pair)):
        pair = replace(pair, mask=None)
    shape = format.shape(pair)
    return shape, store.add(shape, format.row(pair, store))


# ---- the end -----------------------------------------------------------------------------------------------


def _finish(
    format: Format, location: Location, folder: str, names: list[str], request: dict[str, Any]
) -> Summary:
    """Write the tables of all shards, then say that the export is finished, and forget the journals."""
    summary = Summary(format.name, request["source"], request["split"] or "all")
    journals = [f"{WORK}/{name.removesuffix('.tar')}.jsonl" for name in names]
    shapes: Counter[str] = Counter()
    for journal in journals:
        for line in map(json.loads, location.read(journal).splitlines()):
            if "counts" in line:
                summary.add(line["counts"])
            else:
                shapes[line["shape"]] += 1
    if not summary.rows:
        why = ", ".join(f"{reason}: {count}" for reason, count in summary.skipped.items())
        location.remove(MARK)
        for journal in journals:
            location.remove(journal)
        raise ExportError(
            f"{request['source']}: no sample fits {format.name} ({why or 'none was chosen'}); nothing is "
            "written"
        )
    tables = []
    if format.table != "none" and format.store != "parquet":
        for shape in sorted(shapes):
            name = format.table_name.format(shape=shape)
            if name == format.table_name and shape and len(shapes) > 1:
                name = f"{name}_{shape}"
            table = Table(f"{name}.{format.table}", shape, shapes[shape])
            rows = (
                line["row"]
                for journal in journals
                for line in map(json.loads, location.read(journal).splitlines())
                if line.get("shape") == shape
            )
            write_table(location, table.file, format.table, rows)
            tables.append(table)
    further = format.files(folder, tables)
    for file, text in further.items():
        location.put(file, text.encode())
    summary.files = sorted({*summary.files, *(table.file for table in tables), *further})
    put_json(location, MARK, {"request": request, "summary": vars(summary)})
    for journal in journals:
        location.remove(journal)
    return summary
