"""`python -m curation export`: samples as what other trainers read."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Literal

from rich.table import Table

from curation.datasets.exporters.exporter import Choice, Summary, export_pairs
from curation.datasets.exporters.formats import Format, known
from curation.datasets.exporters.huggingface import export_huggingface
from curation.datasets.exporters.published import PUBLISHED
from curation.datasets.exporters.trainers import TRAINERS
from shards.command import nearest
from shards.errors import SettingError
from shards.terminal import print_table

FORMATS: dict[str, Format] = known([*TRAINERS.values(), *PUBLISHED.values()])
HUGGINGFACE = "huggingface"
EVERY = 10.0  # seconds between lines that say how far it is

Kind = Literal["csv", "jsonl", "parquet"]


def export(
    format: str,
    shards: str,
    out: str,
    split: Literal["train", "heldout", "all"] | None = None,
    tasks: list[str] | None = None,
    min_scores: dict[str, float] | None = None,
    masks: bool = True,
    table: Kind = "jsonl",
    name: str = "",
) -> None:
    """Write samples in another trainer's format, or as a data set for the Hugging Face Hub.

    Repeating the command goes on where it was broken off.

    Args:
        format: a name that `python -m curation formats` lists.
        shards: a shard folder or URL; for huggingface also a folder of some.
        out: folder or URL; empty, or this same export.
        split: train when left out; all for huggingface.
        tasks: of these tasks alone, for example ["object_removal"].
        min_scores: least scores, own or stored by `grade`, for example {"aesthetics": 5}; null is left out.
        masks: write masks where the format holds them.
        table: how the format `table` is written.
        name: of the data set, for the card of huggingface.
    """
    chosen = None if split == "all" or (split is None and format == HUGGINGFACE) else split or "train"
    progress = _Progress()
    if format == HUGGINGFACE:
        if tasks or min_scores or not masks:
            raise SettingError(
                "--tasks, --min_scores, --masks: huggingface takes shards as they are; choose samples with "
                "`python -m curation filter` first"
            )
        print_summary(export_huggingface(shards, out, chosen, name, progress), out)
        return
    found = format_of(format, table)
    if name:
        raise SettingError("--name: goes with huggingface")
    choice = Choice(chosen, tuple(tasks or ()), min_scores or {}, masks)
    print_summary(export_pairs(found, shards, out, choice, progress), out)


def format_of(name: str, table: Kind = "jsonl") -> Format:
    """A format of pairs by name; SettingError where there is none, or its table is not to be chosen."""
    if name not in FORMATS:
        everything = [*FORMATS, HUGGINGFACE]
        raise SettingError(
            f"{name}: no such format{nearest(name, everything)}; there are {', '.join(everything)}"
        )
    found = FORMATS[name]
    if name == "table":
        return replace(found, store="parquet") if table == "parquet" else replace(found, table=table)
    if table != "jsonl":
        raise SettingError(f"--table {table}: goes with the format table; {name} has its own")
    return found


def formats() -> None:
    """List the formats that samples are exported to."""
    table = Table("format", "what is written", "masks")
    for name, found in FORMATS.items():
        table.add_row(name, found.about, "yes" if "mask" in found.extras else "")
    table.add_row(HUGGINGFACE, "the shards as they are, with a card for the Hugging Face Hub", "yes")
    print_table(table)


def print_summary(summary: Summary, out: object) -> None:
    """Print what an export holds, and what of the samples it does not."""
    title = (
        f"{summary.format}: {summary.rows} rows of {summary.samples} samples, {summary.bytes / 2**20:.1f} MiB"
    )
    table = Table("", "rows", title=title)
    for task, count in summary.tasks.items():
        table.add_row(task, str(count))
    for text, count in summary.licenses.items():
        table.add_row(f"licence: {text}", str(count))
    for reason, count in summary.skipped.items():
        table.add_row(f"not written: {reason}", str(count))
    for what, count in summary.left_out.items():
        table.add_row(f"without its {what}, for which {summary.format} has no place", str(count))
    if summary.reworded:
        table.add_row("elements inside the text are put into words", str(summary.reworded))
    print_table(table)
    print(f"{', '.join(summary.files[:8]) or 'files'}{', ...' if len(summary.files) > 8 else ''}: {out}")


class _Progress:
    """A line on stderr now and then: how far an export is."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()

    def __call__(self, done: int, total: int, rows: int) -> None:
        now = time.monotonic()
        if now - self._said < EVERY or done == total:
            return
        self._said = now
        left = (now - self._began) / done * (total - done)
        print(f"shards {done}/{total}, {rows} rows, about {left:.0f} s left", file=sys.stderr, flush=True)
