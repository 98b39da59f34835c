"""`python -m editverse.speedrun run|plan|status|settings|...`: what `scripts/speedrun.sh` calls."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli
from rich.table import Table

from editverse.speedrun import plan as planning
from editverse.speedrun import slurm as slurm_jobs
from editverse.speedrun.recipe import Stage, read_recipe
from editverse.speedrun.records import RECIPE, STAGES, attempt_lines, read_bill_rows, read_record, spent_on
from editverse.speedrun.runner import RunOptions, ask, carry_out
from editverse.speedrun.settings import folder_of, read_settings, shell_variables
from editverse.speedrun.slurm import JobOptions
from shards.command import Parser, only_named, run_command
from shards.errors import SettingError
from shards.files import write_bytes
from shards.resources import config_root
from shards.terminal import print_table


def run(
    run: Path,
    recipe: Path | None = None,
    only: str | None = None,
    yes: bool = False,
    max_gpu_hours: float | None = None,
) -> None:
    """Carry out the stages of a recipe that are not done; the same command goes on after any interruption.

    Args:
        run: folder of the run, in which the commands are carried out
        recipe: what `scripts/speedrun.sh --print` prints; standard input when left out
        only: this stage alone
        yes: do anew what changed, without asking
        max_gpu_hours: of all stages together; the run stops before it is passed
    """
    if max_gpu_hours is not None and max_gpu_hours < 0:
        raise SettingError(f"--max_gpu_hours {max_gpu_hours:g}: needs at least 0")
    text, stages = _recipe(recipe)
    run.mkdir(parents=True, exist_ok=True)
    carry_out(stages, run.resolve(), RunOptions(only, yes, max_gpu_hours), text)


def submit(
    run: Path,
    recipe: Path | None = None,
    yes: bool = False,
    max_gpu_hours: float | None = None,
    slurm: JobOptions = JobOptions(),  # noqa: B008 (frozen)
) -> None:
    """Submit the stages of a recipe that are not done to SLURM, a job each, which wait for one another.

    Args:
        run: folder of the run, on a file system that all nodes see
        recipe: what `scripts/speedrun.sh --print` prints; standard input when left out
        yes: do anew what changed, without asking
        max_gpu_hours: of all stages together; the run stops before it is passed
        slurm: what the jobs ask for
    """
    text, stages = _recipe(recipe)
    write_bytes(run / STAGES / RECIPE, text.encode())
    planned = planning.plan(stages, run.resolve())
    ask(planned, run.resolve(), yes)
    arguments = [] if max_gpu_hours is None else ["--max_gpu_hours", f"{max_gpu_hours:g}"]
    for name, job in slurm_jobs.submit(planned, run.resolve(), text, slurm, arguments).items():
        print(f"job {job}: {name}")


def plan(run: Path, recipe: Path | None = None) -> None:
    """Say which stages of a recipe are done, and which would be done anew and why; nothing is carried out.

    Args:
        run: folder of the run, which need not be there
        recipe: what `scripts/speedrun.sh --print` prints; standard input when left out
    """
    planned = planning.plan(_recipe(recipe)[1], run.resolve())
    rows = read_bill_rows(run)
    table = Table("stage", "state", "bill", "changed")
    for item in planned:
        row = rows.get(item.stage.name)
        bill = "" if row is None else planning.duration(3600 * float(row.get("hours") or 0.0))
        table.add_row(item.stage.name, item.state, bill, ", ".join(item.changes))
    print_table(table)


def status(run: Path) -> None:
    """Show the stages of a run: what came out, attempts, seconds, and the bill.

    Args:
        run: folder of the run
    """
    folder = run / STAGES
    if not folder.is_dir():
        raise SettingError(f"--run {run}: no run of scripts/speedrun.sh")
    rows = read_bill_rows(run)
    stages = _recipe(folder / RECIPE)[1]
    table = Table("stage", "state", "attempts", "time", "CPU", "GPU", "bill", "came out")
    jobs = slurm_jobs.jobs_of(run)
    for name in (stage.name for stage in stages):
        job, waiting = jobs.get(name, ("", ""))
        lines = attempt_lines(run, name)
        record = read_record(run, name)
        spent = spent_on(lines)
        last = str(lines[-1].get("status", "begun")) if lines else ""
        state = "done" if record else waiting or last
        bill = planning.duration(3600 * float(rows[name].get("hours") or 0.0)) if name in rows else ""
        table.add_row(
            name,
            f"{state} (job {job})" if waiting else state,
            str(sum(line["event"] == "start" for line in lines)),
            *(planning.duration(value) for value in (spent.seconds, spent.cpu_seconds, spent.gpu_seconds)),
            bill,
            str((record or {}).get("line", "")),
        )
    print_table(table)


def settings(size: str, gpus: int | None = None, set: dict[str, Any] = {}) -> None:  # noqa: B006 (never changed)
    """Print the settings of a size as assignments for bash.

    Args:
        size: a name in configs/speedrun, or a folder with the same files
        gpus: that the run has; those of the settings when left out
        set: settings in place of the file's, as JSON or one by one: --set.least 8
    """
    print(f"configs={shlex.quote(_named(folder_of(size)))}")
    print(shell_variables(read_settings(size, set), gpus))


def _named(folder: Path) -> str:
    """A folder of configurations by a name that means the same from anywhere."""
    folder, root = folder.resolve(), config_root()
    return str(folder.relative_to(root.parent) if folder.is_relative_to(root) else folder)


def _recipe(path: Path | None) -> tuple[str, tuple[Stage, ...]]:
    if path is None and sys.stdin.isatty():
        raise SettingError("--recipe: give what `scripts/speedrun.sh --print` prints, or pipe it in")
    text = sys.stdin.read() if path is None else path.read_text()
    return text, read_recipe(text)


# Commands of other modules: name -> (module, function); imported when they are asked for.
LATER: dict[str, tuple[str, str]] = {
    "base": ("base", "base"),
    "bill": ("bill.cli", "bill"),
    "calibrate": ("bill.cli", "calibrate"),
    "compare": ("bill.cli", "compare"),
    "report": ("report.command", "report"),
    "ledger": ("report.command", "ledger"),
    "card": ("report.command", "card"),
}


def main() -> int:
    """Entry point; returns the exit status."""
    commands: dict[str, Any] = {
        "run": run,
        "plan": plan,
        "submit": submit,
        "status": status,
        "settings": settings,
        **LATER,
    }

    def call() -> Any:
        chosen = {name: _loaded(command) for name, command in only_named(commands, sys.argv[1:]).items()}
        return auto_cli(chosen, prog="python -m editverse.speedrun", parser_class=Parser)

    return run_command(call)


def _loaded(command: Callable[..., Any] | tuple[str, str]) -> Any:
    if isinstance(command, tuple):
        module, name = command
        return getattr(importlib.import_module(f"editverse.speedrun.{module}"), name)
    return command
