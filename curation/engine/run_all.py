"""`python -m curation all`: every task of a preset, parents first, with a table and one page."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rich.console import Console
from rich.table import Table

from curation.engine.output import Output
from curation.engine.report import write_overview
from curation.engine.task_config import RunError, default_config, load_config, tasks
from shards.command import nearest
from shards.errors import EditVerseError, first_line
from shards.files import write_json
from shards.limits import read_yaml
from shards.resources import config_file, named_in
from shards.terminal import print_table


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


@dataclass(frozen=True)
class RunCounts:
    """What a run's `summary.json` says it made; `computed` are results that were not there before."""

    clips: int
    candidates: int
    accepted: int
    samples: int
    source_frames: int
    computed: int


@dataclass(frozen=True)
class FinishedRun:
    """A run that ended: its error, "" for none, and its counts unless it ended before it had any."""

    name: str
    task: str
    seconds: float
    error: str
    counts: RunCounts | None

    def to_json(self) -> dict[str, str | float]:
        """A row of `all.json`."""
        counts = {} if self.counts is None else asdict(self.counts)
        return {"task": self.task, "seconds": self.seconds, "error": self.error, **counts}


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


def selected(planned: list[PlannedRun], only: list[str], path: Path) -> list[PlannedRun]:
    """Those of a file's runs that are named, in the order of the file; RunError for a name not in it."""
    names = [one.name for one in planned]
    for name in only:
        if name not in names:
            raise RunError(f"--only {name}: {path} has no such run{nearest(name, names)}")
    return [one for one in planned if one.name in only]


def run_all(
    planned: list[PlannedRun], clips: str, root: Output, workspace: str, more: list[str]
) -> list[FinishedRun]:
    """Run tasks as commands with `more` arguments, print a table, write `all.json` and `all.html`.

    Args:
        root: below which each run has a folder or URL of its name.

    A task that makes nothing is in the table with its error; the others are run all the same.
    """
    finished = []
    for one in planned:
        finished.append(_run_one(one, clips, root.path(one.name), workspace, more))
        Console(stderr=True).print(
            f"{one.name}: {finished[-1].seconds} s {finished[-1].error}", highlight=False
        )
    _print_table(finished)
    write_json(root.local / "all.json", [run.to_json() for run in finished])
    write_overview(root.local / "all.html", {run.name: root.path(run.name) for run in finished if run.counts})
    root.publish()
    return finished


def _run_one(planned: PlannedRun, clips: str, out: str, workspace: str, more: list[str]) -> FinishedRun:
    """Run one task as a command."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "curation", "run", planned.task, "--clips", clips]
    command += ["--out", out, "--workspace", workspace, *more]
    command += [] if planned.config is None else ["--config", str(planned.config)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    seconds = round(time.perf_counter() - began, 1)
    if "Traceback (most recent call last)" in done.stderr:  # a fault of ours, which one line does not tell
        print(done.stderr, file=sys.stderr)
    error = (done.stderr.strip().splitlines() or ["ended without a word"])[-1] if done.returncode else ""
    return FinishedRun(planned.name, planned.task, seconds, error, _read_counts(out))


def _read_counts(out: str) -> RunCounts | None:
    """The counts of a run's `summary.json`; None where there is none."""
    summary = Output(out).read_json("summary.json")
    if summary is None:
        return None
    made = {field.name: summary[field.name] for field in fields(RunCounts) if field.name != "computed"}
    return RunCounts(**made, computed=sum(stage["computed"] for stage in summary["stages"].values()))


def _print_table(finished: list[FinishedRun]) -> None:
    """One row a run, on stdout."""
    table = Table(
        "task", "clips", "candidates", "accepted", "samples", "computed", "s", "ms/frame", title="all tasks"
    )
    for run in finished:
        counts = run.counts
        if counts is None:
            table.add_row(run.name, run.error)
            continue
        share = f"{counts.accepted} ({counts.accepted / max(1, counts.candidates):.0%})"
        each = f"{1000 * run.seconds / max(1, counts.source_frames):.0f}"
        numbers = (counts.samples, counts.computed, run.seconds)
        table.add_row(run.name, str(counts.clips), str(counts.candidates), share, *map(str, numbers), each)
    print_table(table)
