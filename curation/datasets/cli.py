"""The commands of data sets, as `python -m curation` lists them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from curation.datasets.exporters.command import export, formats
from curation.datasets.import_all import RECORD, import_all, read_list
from curation.datasets.importer import QUARANTINE, run_import
from curation.datasets.layouts.mapping import mapping_of
from curation.datasets.layouts.rows import LayoutOptions
from curation.datasets.pairs import Rules
from curation.datasets.part import Job
from shards.limits import in_range
from shards.terminal import print_table

WORKERS = min(8, os.cpu_count() or 1)


def import_pairs(
    format: str,
    source: str,
    out: str | None = None,
    mapping: Path | None = None,
    columns: str = "",
    license: str = "",
    task: str = "",
    heldout: float = 0.02,
    max_area: int = 1 << 20,
    fps: float | None = None,
    frames: int | None = None,
    trim: float = 0.1,
    aspect: float = 0.02,
    derive: str = "",
    workers: int = WORKERS,
    retry: bool = False,
) -> None:
    """Import pairs of others as samples: a table, a folder, or a known data set; see docs/datasets.md.

    Args:
        format: table, folder, diffsynth, musubi, ai_toolkit, ltx, lance, bagel, a public data set, or a class
            of your own by its path.
        source: folder or file of the data set, or its URL.
        out: folder for the shards, data/shards/FORMAT when left out; the same command goes on with it.
        mapping: YAML that names columns, scores, tasks and folders.
        columns: the same in short: source=before,target=after,instruction=text.
        license: of all rows that do not say; the data set's own when left out.
        task: of all rows that do not say; image_editing, video_editing and so on when left out.
        heldout: part of the sources that is held out, by a hash of each.
        max_area: pixels of a picture or frame; larger ones are made smaller.
        fps: frames a second of videos; the source's own when left out.
        frames: of a video at most, from its beginning.
        trim: largest difference of length of source and edit, as a part, at which the longer is cut.
        aspect: largest relative difference of aspect at which the edit is resized to its source.
        derive: reversal, propagation or both, with a comma: further samples of a pair.
        workers: processes on this machine; 0 works in this process alone.
        retry: try parts with refused rows again, after their files were mended.
    """
    in_range("--workers", workers, 0, 1024)
    out = out or f"data/shards/{format}"
    derived = tuple(name.strip() for name in derive.split(",") if name.strip())
    rules = Rules(max_area, fps, frames, trim, aspect, heldout, derived)
    job = Job(format, LayoutOptions(mapping_of(mapping, columns), task), rules, license, out, "")
    summary = run_import(job, source, workers, retry)
    show(summary, out)


def import_list(
    list: Path,
    out: Path = Path("data/imports"),
    commercial: bool = True,
    workers: int = WORKERS,
    retry: bool = False,
) -> None:
    """Import the data sets of a list, each as `import` does; see docs/datasets.md.

    Args:
        list: YAML list of data sets, each with name, format, source and, where it has them, mapping, license,
            commercial and more options of import.
        out: folder for their folders of shards, and for imports.json, which says what was used and why.
        commercial: leave out what forbids commercial use, or is not known to allow it.
        workers: processes on this machine; 0 works in this process alone.
        retry: try parts with refused rows again, after their files were mended.
    """
    in_range("--workers", workers, 0, 1024)
    entries = read_list(list, import_pairs)
    record = import_all(entries, out, commercial, workers, retry, import_pairs)
    samples = sum(sum(by.values()) for row in record.used for by in row["samples"].values())
    used, left_out = len(record.used), len(record.left_out)
    print(f"{out / RECORD}: {used} data sets used, {samples} samples, {left_out} left out")


def show(summary: dict[str, Any], out: str) -> None:
    """The table at the end of an import, on stdout."""
    table = Table(title=f"{summary['format']}: {summary['rows']} rows", show_header=False)
    table.add_row("accepted", str(summary["accepted"]))
    for reason, count in summary["refused"].items():
        table.add_row(f"refused: {reason}", str(count))
    for task, by_split in summary["samples"].items():
        table.add_row(f"samples: {task}", ", ".join(f"{n} {split}" for split, n in by_split.items()))
    for license, count in summary["licenses"].items():
        table.add_row(f"licence: {license}", str(count))
    table.add_row("shards", f"{summary['shards']}, {summary['bytes'] / 1e6:.1f} MB")
    speed = summary["rows"] / summary["seconds"] if summary["seconds"] else 0
    table.add_row("seconds", f"{summary['seconds']:.1f}  ({speed:.1f} rows a second)")
    print_table(table)
    print(f"{out}: shards, summary.json, {QUARANTINE}")


COMMANDS: dict[str, Callable[..., None]] = {
    "import": import_pairs,
    "import-all": import_list,
    "export": export,
    "formats": formats,
}
