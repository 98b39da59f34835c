"""One part of a data set into shards of its own: what a process of an import does."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from curation.datasets.layouts.formats import open_layout
from curation.datasets.layouts.rows import BadRow, EditRow, LayoutOptions, Part, Refused
from curation.datasets.pairs import Rules, normalised
from curation.datasets.samples import Origin, packed_ids, row_id, samples_of
from curation.datasets.wording import cleaned
from shards import hashing
from shards.errors import first_line
from shards.index import index_path
from shards.location import ShardError, StoreError
from shards.processes import own_name, peak_memory
from shards.sample import SampleError, explain
from shards.writer import Item, batches, loaded, write_shard

SCRATCH = ".import"  # folder of a run's folder: media on their way into a shard, and what processes are at


@dataclass(frozen=True)
class Job:
    """What every process of an import must know; `out` is a local folder, `license` "" for the layout's."""

    format: str
    options: LayoutOptions
    rules: Rules
    license: str
    out: str
    config: str


@dataclass(frozen=True)
class Work:
    """A part to do.

    Attributes:
        number: of the part, which its shards are named by.
        id: 16 digits that stand for the part, its file's version included.
        deadly: identities of rows at which a process has died; they are refused.
        skipped: ids of rows that an earlier part has too.
        is_suspect: a process has died at it: it is done alone.
    """

    part: Part
    number: int
    id: str
    deadly: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    is_suspect: bool = False


def at_file(out: str | Path, id: str) -> Path:
    """Where a process says which row of a part it is at, for the case that it dies there."""
    return Path(out) / SCRATCH / f"{id}.at"


def import_part(job: Job, work: Work) -> dict[str, Any]:
    """Make the shards of a part, whole under their names; what was done, as JSON for the journal.

    Raises:
        StoreError: the store does not answer: the run ends, and goes on when it is repeated.
        OSError: of this machine's disk.
    """
    began, cpu = time.monotonic(), time.process_time()
    scratch = Path(job.out) / SCRATCH / own_name()
    scratch.mkdir(parents=True)
    try:
        told = _Told()
        items = sorted(_items(job, work, scratch, told), key=lambda item: (item[0].split, item[0].key))
        rows = []
        for split in ("heldout", "train"):
            of_split = [item for item in items if item[0].split == split]
            for piece, batch in enumerate(batches(of_split)):
                stem = f"{split}-{work.number:06d}.{hashing.digest([work.id, piece])[:12]}"
                row = write_shard(job.out, f"{stem}.tar", loaded(batch))
                rows.append(row.model_dump(exclude_none=True))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        at_file(job.out, work.id).unlink(missing_ok=True)
    return {
        "part": work.id,
        "name": work.part.name,
        "rows": told.rows,
        "accepted": len(told.ids),
        "samples": told.samples,
        "refused": dict(sorted(told.refused.items())),
        "licenses": dict(told.licenses),
        "mended": dict(sorted(told.mended.items())),
        "quarantine": told.quarantine,
        "shards": rows,
        "ids": packed_ids(told.ids),
        "seconds": round(time.monotonic() - began, 3),
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "peak_memory": peak_memory(),
    }


class _Told:
    """What is counted on the way."""

    def __init__(self) -> None:
        self.rows = 0
        self.samples: dict[str, dict[str, int]] = {}  # by task and split
        self.refused: Counter[str] = Counter()
        self.licenses: Counter[str] = Counter()
        self.mended: Counter[str] = Counter()
        self.quarantine: list[dict[str, str]] = []
        self.ids: list[str] = []  # of accepted rows, in order

    def refuse(self, identity: str, reason: str, detail: str, rows: int = 1) -> None:
        self.refused[reason] += rows
        self.quarantine.append({"row": identity, "reason": reason, "detail": detail})

    def accept(self, items: list[Item]) -> None:
        for sample, _ in items:
            by_split = self.samples.setdefault(sample.task, {})
            by_split[sample.split] = by_split.get(sample.split, 0) + 1
        clip = items[0][0].provenance.clip
        self.licenses[clip.license] += len(items)
        for words in clip.mended:
            # "source: resized from 64x48": counted without its numbers
            self.mended["".join("n" if c.isdigit() else c for c in words).replace("nn", "n")] += 1


def _items(job: Job, work: Work, scratch: Path, told: _Told) -> Iterator[Item]:
    """The samples of a part."""
    layout = open_layout(job.format, job.options)
    origin = Origin(layout.name, job.config, job.license or layout.license)
    seen = set(work.skipped)
    for row in _rows(layout, work.part):
        told.rows += row.rows if isinstance(row, BadRow) else 1
        if isinstance(row, BadRow):
            told.refuse(row.identity, row.reason, row.detail, row.rows)
            continue
        at_file(job.out, work.id).write_text(row.identity, "utf-8", "replace")
        try:
            if row.identity in work.deadly:
                raise Refused("a process died at it", "damaged, or more memory than there is")
            if (id := row_id(layout.name, row.identity)) in seen:
                raise Refused("row there twice", row.identity)
            items = _made(row, job.rules, origin, scratch)
        except Refused as error:
            told.refuse(row.identity, error.reason, error.detail)
            continue
        except Exception as error:
            error.add_note(f"at row {row.identity} of {work.part.name}")
            raise
        seen.add(id)
        told.ids.append(id)
        told.accept(items)
        yield from items


def _made(row: EditRow, rules: Rules, origin: Origin, scratch: Path) -> list[Item]:
    words = cleaned(row)
    try:
        return samples_of(row, words, normalised(row, rules), rules, origin, scratch)
    except ValidationError as error:
        raise Refused("not a valid sample", explain(error)) from None
    except SampleError as error:
        raise Refused("not a valid sample", first_line(error)) from None


def _rows(layout: Any, part: Part) -> Iterator[EditRow | BadRow]:
    """The rows of a part; damage that ends it is one more row, which is refused."""
    if part.fault:
        yield BadRow(part.name, "file damaged", part.fault)
        return
    try:
        yield from layout.rows(part)
    except StoreError:
        raise
    except (ShardError, Refused) as error:
        yield BadRow(part.name, "file damaged", first_line(error))


def remove_shards(out: Path, names: set[str]) -> None:
    """Remove shards, and their indexes, that are named."""
    for name in names:
        (out / name).unlink(missing_ok=True)
        index_path(out, name).unlink(missing_ok=True)
