"""`python -m shards verify|index|ls|show`: look at a shard folder and prove it.

Errors are one line on stderr and exit status 2; faults found by `verify` give exit status 1.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from jsonargparse import auto_cli
from rich.console import Console
from rich.table import Table

from shards.files import write_bytes
from shards.index import ShardError, rebuild
from shards.reader import ShardSet
from shards.sample import SampleError
from shards.verify import verify as verify_folder

console = Console(soft_wrap=True)


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
    """Rebuild the manifest and every index from the tars.

    Args:
        directory: a folder of .tar shards
        accept_loss: keep what remains where samples are gone; otherwise nothing is written
    """
    for row in rebuild(directory, accept_loss=accept_loss):
        print(f"{row.shard}: {row.samples} samples, {row.bytes} bytes")


def ls(directory: str, split: str | None = None) -> None:
    """List the samples.

    Args:
        directory: a shard folder
        split: train or heldout; both when not given
    """
    samples = ShardSet(directory, split)
    table = Table("key", "split", "task", "text", "media", "tokens", title=str(directory))
    for key in samples.keys:
        entry = samples.entry(key)
        media = ", ".join(f"{n} {f}x{w}x{h}" for n, (_, f, h, w) in entry.media.items())
        table.add_row(key, entry.split, entry.task, entry.text, media, str(entry.tokens))
    console.print(table)
    counts = Counter((samples.entry(k).task, samples.entry(k).split) for k in samples.keys)
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


def main() -> None:
    """Run the command; known faults become one line and exit status 2."""
    try:
        auto_cli([verify, index, ls, show], prog="python -m shards")
    except (ShardError, SampleError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
