"""Imports that are killed, and processes that die at a row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from shards.reader import ShardSet
from shards.verify import verify
from tests.curation.datasets.bad_rows import encoded, picture

ROOT = Path(__file__).parents[3]
FILES, ROWS = 8, 12


def started(*words: str) -> subprocess.Popen[str]:
    """The import in a process of its own."""
    command = [sys.executable, "-m", "curation", "import", *words, "--workers", "2"]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def lines(path: Path) -> int:
    """How many whole lines a file has."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_killed_twice_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for file in range(FILES):
        rows: list[dict[str, Any]] = [
            {
                "source": encoded(picture(file * ROWS + n)),
                "target": encoded(picture(1000 + file * ROWS + n)),
                "instruction": "" if n == 0 else "Make it dark.",
            }
            for n in range(ROWS)
        ]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), source / f"{file}.parquet")
    whole = tmp_path / "whole"
    assert started("table", str(source), "--out", str(whole)).wait(300) == 0
    out = tmp_path / "out"
    for done in (1, 4):
        process = started("table", str(source), "--out", str(out))
        while lines(out / "import.jsonl") < done and process.poll() is None:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        with (out / "import.jsonl").open("ab") as handle:
            handle.write(b'{"part": "half a line')  # as a kill in the middle of a write leaves it
        (out / ".train-000001.93121e3bbcc5.index.374256a9.tmp.json").write_text("{")  # and of another
    process = started("table", str(source), "--out", str(out))
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert "of 8 parts are done" in error
    assert not verify(str(out)).faults
    for name in ("manifest.jsonl", "quarantine.jsonl"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    samples = ShardSet(out)
    assert len(samples) == len(set(samples.keys)) == FILES * (ROWS - 1)
    assert lines(out / "quarantine.jsonl") == FILES
    assert not list(out.glob(".*"))


@pytest.mark.slow
def test_a_row_at_which_processes_die_is_left_out(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = started("tests.curation.datasets.deadly_rows.Deadly", "nowhere", "--out", str(out))
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["accepted"], summary["refused"]) == (11, {"a process died at it": 1})
    quarantine = json.loads((out / "quarantine.jsonl").read_text())
    assert (quarantine["row"], quarantine["reason"]) == ("6", "a process died at it")
    assert not verify(str(out)).faults
