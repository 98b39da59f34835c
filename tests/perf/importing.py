"""Imports of 2,000 and 20,000 pairs from parquet, the larger one killed twice.

Rows per second, memory, and whether every row is there once. Pairs
of 64x64 pixels as PNG in the table, in row groups of 256; two processes.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from curation.datasets.samples import key_of
from shards.processes import peak_memory
from shards.reader import ShardSet
from shards.verify import verify
from tests.perf.measure import Figure

SIDE, GROUP, BLANK = 64, 256, 97  # every 97th row has no instruction


def write_table(path: Path, rows: int) -> None:
    """A parquet of pairs; no two pictures are the same."""
    import pyarrow
    import pyarrow.parquet

    tiles = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    plate = tiles.repeat(SIDE // 8, 0).repeat(SIDE // 8, 1)

    def drawn(number: int) -> bytes:
        picture = plate.copy()
        picture[0, :3] = np.frombuffer(number.to_bytes(9), np.uint8).reshape(3, 3)
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "PNG")
        return out.getvalue()

    binary = pyarrow.binary()
    schema = pyarrow.schema([("source", binary), ("target", binary), ("instruction", pyarrow.string())])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, GROUP):
            some = range(start, min(rows, start + GROUP))
            columns = [
                [drawn(2 * n) for n in some],
                [drawn(2 * n + 1) for n in some],
                ["" if n % BLANK == 0 else f"Move dot {n}." for n in some],
            ]
            writer.write_table(pyarrow.Table.from_arrays([pyarrow.array(c) for c in columns], schema=schema))


def run_import(table: Path, out: Path, kills: tuple[float, ...] = ()) -> tuple[float, int]:
    """Import with two processes; seconds in all, and most bytes of the process that leads.

    Args:
        kills: parts of the parts at which the run is killed and started anew.
    """
    command = [sys.executable, "-m", "curation", "import", "table", str(table), "--out", str(out)]
    began, peak = time.monotonic(), 0
    parts = -(-_rows(table) // (2 * GROUP))
    for share in (*kills, None):
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([*command, "--workers", "2"], **silent)
        while process.poll() is None:
            try:
                peak = max(peak, peak_memory(process.pid))
            except (OSError, StopIteration):
                break
            journal = out / "import.jsonl"
            done = journal.read_bytes().count(b"\n") if journal.exists() else 0
            if share is not None and done >= share * parts:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.2)
        status = process.wait()
        if status != (0 if share is None else -signal.SIGKILL):
            raise RuntimeError(f"the import ended with {status}")
    return time.monotonic() - began, peak


def _rows(table: Path) -> int:
    import pyarrow.parquet

    return int(pyarrow.parquet.ParquetFile(table).metadata.num_rows)


def check(out: Path, table: Path, rows: int) -> tuple[int, int]:
    """(lost, doubled) rows of a finished import, refused ones too; RuntimeError for shards with faults."""
    samples = ShardSet(out)
    wanted = {key_of("table", f"{table.name}:{n}") for n in range(rows) if n % BLANK}
    refused = [json.loads(line)["row"] for line in (out / "quarantine.jsonl").read_text().splitlines()]
    blank = [f"{table.name}:{n}" for n in range(0, rows, BLANK)]
    lost = len(wanted - set(samples.keys)) + len(set(blank) - set(refused))
    doubled = len(samples) - len(set(samples.keys)) + len(refused) - len(set(refused))
    if faults := verify(str(out), decode=False).faults:
        raise RuntimeError(faults[0])
    return lost, doubled


def measure(scratch: Path, device: str, quick: bool) -> list[Figure]:
    """All figures; 200 and 2,000 rows when quick."""
    figures = []
    for rows, kills in ((200, ()), (2_000, (0.3, 0.6))) if quick else ((2_000, ()), (20_000, (0.3, 0.6))):
        table, out = scratch / f"{rows}.parquet", scratch / f"{rows}"
        write_table(table, rows)
        seconds, peak = run_import(table, out, kills)
        lost, doubled = check(out, table, rows)
        summary = json.loads((out / "summary.json").read_text())
        what = f"{rows:,} rows" + (", killed twice" if kills else "")
        work = 1000 * summary["cpu_seconds"] / rows
        figures += [
            Figure(what, 1000 * seconds / rows, None, "ms/row", f"{rows / seconds:.4g} rows/s"),
            Figure(f"{what}: processor's time", work, None, "ms/row", f"{1000 / work:.4g} rows/s of a core"),
            Figure(f"{what}: most of a worker", None, None, "", f"{summary['peak_memory'] / 2**20:.0f} MiB"),
            Figure(f"{what}: most of the lead", None, None, "", f"{peak / 2**20:.0f} MiB"),
            Figure(f"{what}: lost, doubled", None, None, "", f"{lost}, {doubled}"),
        ]
    return figures
