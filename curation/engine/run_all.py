"""`python -m curation all`: every task of a preset, parents first, with a table and one page."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from curation.engine.executor import default_config, load_config, tasks
from curation.engine.report import write_overview
from shards.files import write_json
from shards.terminal import print_table

COUNTS = ("clips", "candidates", "accepted", "samples", "source_frames")


def with_preset(names: list[str], preset: str) -> list[str]:
    """Those of the tasks that have a configuration in the preset."""
    return [name for name in names if default_config(name, preset).is_file()]


def in_order(names: list[str], preset: str) -> list[str]:
    """Tasks so that those that are made from others come after them, else by name."""
    parents = {}
    for name in names:
        config = load_config(name, default_config(name, preset))
        folders = config.get("init_args", {}).get("parents", [])
        parents[name] = {Path(folder).name for folder in folders} & set(names)
    # the addition half shares the results of the removal half
    if {"object_addition", "object_removal"} <= set(names):
        parents["object_addition"].add("object_removal")
    ordered: list[str] = []
    while len(ordered) < len(names):
        ready = sorted(n for n in names if n not in ordered and parents[n] <= set(ordered))
        ordered += ready[:1]
    return ordered


def run_all(
    clips: Path, root: Path, workspace: Path, preset: str, more: list[str], only: list[str] | None
) -> list[dict[str, Any]]:
    """Run tasks as commands with `more` arguments, print a table, write `all.json` and `all.html`.

    A task that makes nothing is in the table with its error; the others are run all the same. Without `only`,
    tasks that the preset does not have are left out.
    """
    rows = []
    for task in in_order(only or with_preset(sorted(tasks()), preset), preset):
        began, out = time.perf_counter(), root / task
        command = [sys.executable, "-m", "curation", "run", task, "--clips", str(clips), "--out", str(out)]
        command += ["--workspace", str(workspace), *more]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        row: dict[str, Any] = {"task": task, "seconds": round(time.perf_counter() - began, 1), "error": ""}
        if done.returncode:
            row["error"] = (done.stderr.strip().splitlines() or ["ended without a word"])[-1]
        if (out / "summary.json").is_file():
            summary = json.loads((out / "summary.json").read_text())
            row |= {
                key: summary[key] for key in ("clips", "candidates", "accepted", "samples", "source_frames")
            }
            row["computed"] = sum(stage["computed"] for stage in summary["stages"].values())
        rows.append(row)
        Console(stderr=True).print(f"{task}: {row['seconds']} s {row['error']}", highlight=False)
    table = Table(
        "task", "clips", "candidates", "accepted", "samples", "computed", "s", "ms/frame", title="all tasks"
    )
    for row in rows:
        if "clips" not in row:
            table.add_row(row["task"], row["error"])
            continue
        share = f"{row['accepted']} ({row['accepted'] / max(1, row['candidates']):.0%})"
        each = f"{1000 * row['seconds'] / max(1, row['source_frames']):.0f}"
        numbers = [str(row[key]) for key in ("clips", "candidates")]
        table.add_row(
            row["task"], *numbers, share, str(row["samples"]), str(row["computed"]), str(row["seconds"]), each
        )
    print_table(table)
    write_json(root / "all.json", rows)
    write_overview(root / "all.html", {row["task"]: root / row["task"] for row in rows if "clips" in row})
    return rows
