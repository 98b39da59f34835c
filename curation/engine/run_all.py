"""`python -m curation all`: every task of a preset, parents first, with a table and one page."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from curation.engine.executor import RunError, default_config, load_config, tasks
from curation.engine.report import write_overview
from shards.errors import EditVerseError, first_line
from shards.files import write_json
from shards.limits import read_yaml
from shards.resources import config_file, named_in
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


@dataclass(frozen=True)
class PlannedRun:
    """A task to run.

    Attributes:
        name: of its folder of shards; config: the preset's when None.
    """

    name: str
    task: str
    config: Path | None = None


def of_preset(preset: str, only: list[str] | None = None) -> list[PlannedRun]:
    """All tasks of a preset, or some of all tasks, parents first."""
    return [PlannedRun(task, task) for task in in_order(only or with_preset(sorted(tasks()), preset), preset)]


def read_runs(path: Path) -> list[PlannedRun]:
    """The runs that a file lists: `runs: {name: {task: ..., config: a file relative to this one}}`.

    Raises:
        RunError: naming the file and the fault.
    """
    path = config_file(path)
    try:
        listed = read_yaml(path)
    except (OSError, EditVerseError) as error:
        raise RunError(f"{path}: cannot be read: {first_line(error)}") from error
    runs = listed.get("runs") if isinstance(listed, dict) else None
    if not isinstance(runs, dict) or not runs:
        raise RunError(f"{path}: needs `runs`, each a name with its `task` and, if it has its own, `config`")
    found, known = [], tasks()
    for name, run in runs.items():
        if not isinstance(run, dict) or set(run) - {"task", "config"} or run.get("task") not in known:
            raise RunError(f"{path}: runs.{name}: needs `task`, one of {', '.join(sorted(known))}")
        config = None if run.get("config") is None else named_in(path, str(run["config"]))
        if config is not None and not config.is_file():
            raise RunError(f"{path}: runs.{name}.config: {config} is no file")
        found.append(PlannedRun(str(name), run["task"], config))
    return found


def run_all(
    planned: list[PlannedRun], clips: Path, root: Path, workspace: Path, more: list[str]
) -> list[dict[str, Any]]:
    """Run tasks as commands with `more` arguments, print a table, write `all.json` and `all.html`.

    A task that makes nothing is in the table with its error; the others are run all the same.
    """
    rows = []
    for one in planned:
        began, out, task = time.perf_counter(), root / one.name, one.name
        command = [sys.executable, "-m", "curation", "run", one.task, "--clips", str(clips)]
        command += ["--out", str(out), "--workspace", str(workspace), *more]
        command += [] if one.config is None else ["--config", str(one.config)]
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
