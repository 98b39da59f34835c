"""`python -m shards verify|index|ls|show|ledger|stats|browse`: look at shard folders and prove them.

Errors are one line on stderr and exit status 2; faults found by `verify` give exit status 1.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table
from rich.text import Text

from shards.column_writer import open_columns
from shards.command import Parser, run_command
from shards.files import exclusive, write_bytes
from shards.index import TokenGeometry, rebuild
from shards.location import ShardError
from shards.reader import ShardSet
from shards.reports.cli import browse, ledger, stats
from shards.sample import tags_of
from shards.verify import verify as verify_folder

FIELDS = ("key", "split", "task", "tokens", "media", "text")


def verify(directory: str, decode: bool = True) -> None:
    """Check checksums, schema, index and media of every shard.

    Args:
        directory: a shard folder, with its manifest.jsonl
        decode: decode every media element (slower); otherwise compare checksums only
    """
    report = verify_folder(directory, decode=decode)
    for fault in report.faults:
        print(fault, file=sys.stderr)
    print(
        f"{directory}: {report.shards} shards, {report.samples} samples, {report.media} media, "
        f"{report.bytes} bytes, {len(report.faults)} faults"
    )
    if report.faults:
        raise SystemExit(1)


def index(directory: str, accept_loss: bool = False) -> None:
    """Rebuild the manifest, every index and the columns from the tars.

    Args:
        directory: a folder of .tar shards
        accept_loss: keep what remains where samples are gone; otherwise nothing is written
    """
    if not any(Path(directory).glob("*.tar")):  # and no lock is left in a folder that is none of ours
        raise ShardError(f"{directory}: holds no .tar shard")
    with exclusive(directory, "directory"):
        for row in rebuild(directory, accept_loss=accept_loss):
            print(f"{row.shard}: {row.samples} samples, {row.bytes} bytes")
        open_columns(directory)  # makes them


def ls(
    directory: str,
    split: str | None = None,
    format: Literal["table", "tsv", "json"] | None = None,
) -> None:
    """List the samples.

    Args:
        directory: a shard folder
        split: train or heldout; both when not given
        format: table, tsv or json; a table in a terminal and tsv elsewhere when not given
    """
    samples = ShardSet(directory, split)
    rows: list[dict[str, Any]] = []
    for key in samples.keys:
        entry = samples.entry(key)
        media = {n: f"{f}x{w}x{h}" for n, (_, f, h, w) in entry.media.items()}
        tokens = sum(TokenGeometry().tokens(*entry.media[name][1:]) for name in tags_of(entry.text))
        values = (key, entry.split, entry.task, tokens, media, entry.text)
        rows.append(dict(zip(FIELDS, values, strict=True)))
    format = format or ("table" if sys.stdout.isatty() else "tsv")
    if format == "json":
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif format == "tsv":
        print("\t".join(FIELDS))
        for row in rows:
            written = row | {"media": _in_words(row["media"])}
            print("\t".join(" ".join(str(value).split()) for value in written.values()))
    else:
        _print_table(rows, directory)


def _in_words(media: dict[str, str]) -> str:
    return ", ".join(f"{name} {size}" for name, size in media.items())


def _print_table(rows: list[dict[str, Any]], title: str) -> None:
    """Keys are whole at any width, since the next command needs them; only other columns are folded."""
    console = Console()
    longest = max((len(row["key"]) for row in rows), default=3)
    table = Table(title=title)
    table.add_column("key", overflow="fold", min_width=min(longest, console.width - 4))
    table.add_column("split, task, tokens", overflow="fold")
    table.add_column("text, media", overflow="fold")
    for row in rows:
        about = f"{row['split']}\n{row['task']}\n{row['tokens']}"
        table.add_row(row["key"], Text(about), Text(f"{row['text']}\n{_in_words(row['media'])}"))
    console.print(table)
    counts = Counter((row["task"], row["split"]) for row in rows)
    for (task, part), count in sorted(counts.items()):
        print(f"{task} {part}: {count} samples")


def show(directory: str, key: str, out: str | None = None) -> None:
    """Print one sample as JSON, and write its media files when asked.

    Args:
        directory: a shard folder
        key: the sample's key
        out: a folder to write the media into
    """
    record = ShardSet(directory)[key]
    print(record.sample.to_json().decode(), end="")
    if out is not None:
        for name in record.sample.media:
            path = Path(out) / record.sample.member(name)
            write_bytes(path, record.bytes(name))
            print(path)


def main() -> int:
    """Entry point; returns the exit status."""
    commands: list[Callable[..., Any] | type] = [verify, index, ls, show, ledger, stats, browse]
    return run_command(lambda: auto_cli(commands, prog="python -m shards", parser_class=Parser))


if __name__ == "__main__":
    sys.exit(main())
