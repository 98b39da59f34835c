"""A speedrun as SLURM jobs: one for each stage that is not done, each waiting for the one before.

What a job does stands in `configs/slurm/speedrun.sbatch`.
"""

from __future__ import annotations

import math
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from editverse.speedrun.plan import PlannedStage
from editverse.speedrun.recipe import Stage, is_training
from editverse.speedrun.records import STAGES
from shards import slurm
from shards.errors import ConfigError, SettingError
from shards.files import write_json
from shards.limits import read_json
from shards.slurm import JobRequest

PACKAGES = ("editverse", "benchmark", "model", "curation", "shards")
SCRIPT = "speedrun.sbatch"
JOBS = "jobs.json"


@dataclass(frozen=True)
class JobOptions:
    """What the jobs ask for.

    Attributes:
        cpus: cores of a process.
        nodes: of the stages that curate, on one Ray.
        train_nodes: of training without GPUs, a process on each; with GPUs it has as many as hold them.
        gpus_per_node: of the cluster.
        time: limit of a job, as sbatch takes it; the job goes on by itself when it is up.
        options, gpu_options: more of sbatch's, of stages without and with GPUs, e.g. "--partition=gpu".
    """

    cpus: int = 8
    nodes: int = 1
    train_nodes: int = 1
    gpus_per_node: int = 8
    time: str = "24:00:00"
    options: str = ""
    gpu_options: str = ""

    def __post_init__(self) -> None:
        for name in ("cpus", "nodes", "train_nodes", "gpus_per_node"):
            if getattr(self, name) < 1:
                raise SettingError(f"slurm.{name} must be at least 1, got {getattr(self, name)}")

    def of(self, stage: Stage) -> tuple[str, list[str]]:
        """How a stage uses its nodes (see the script), and sbatch's arguments for it."""
        options = self.gpu_options if stage.gpus else self.options
        training = any(is_training(command) for command in stage.commands)
        kind, nodes, tasks = "plain", 1, 1
        if training:
            nodes = math.ceil(stage.gpus / self.gpus_per_node) if stage.gpus else self.train_nodes
            tasks = math.ceil(stage.gpus / nodes) if stage.gpus else 1
            kind = "ranks" if nodes * tasks > 1 else "plain"
        elif self.nodes > 1 and any(command[1:3] == ("-m", "curation") for command in stage.commands):
            kind, nodes = "ray", self.nodes
        asked = JobRequest(nodes, self.cpus, math.ceil(stage.gpus / nodes), self.time, options).arguments()
        return kind, [f"--ntasks-per-node={tasks}", *asked]


def submit(
    planned: Sequence[PlannedStage], run: Path, recipe: str, options: JobOptions, arguments: Sequence[str]
) -> dict[str, str]:
    """Submit a job for each stage that is not done.

    Args:
        recipe: text of the recipe, which is kept with a copy of the code.
        arguments: of `run`, for every job, such as --max_gpu_hours 10.

    Returns:
        The job's number by stage.

    Raises:
        ConfigError: sbatch is missing or refuses a job, or jobs of the run are still waiting or at work.
    """
    slurm.need_sbatch()
    if alive := [f"{job} ({stage})" for stage, (job, state) in jobs_of(run).items() if state]:
        raise ConfigError(
            f"--run {run}: jobs {', '.join(alive)} of it are still there; wait for them, or scancel them"
        )
    checkout = ["configs"] if (slurm.ROOT / "configs").is_dir() else []  # in a wheel they lie in shards
    folder = slurm.snapshot(run, [*PACKAGES, *checkout], SCRIPT)
    (folder / "recipe.sh").write_text(recipe)
    slurm.write_arguments(folder, arguments)
    jobs: dict[str, str] = {}
    for item in planned:
        if item.state == "done":
            continue
        name = item.stage.name
        kind, asked = options.of(item.stage)
        log = f"--output={folder.resolve()}/logs/{name}.log"
        after = (
            [f"--dependency=afterok:{list(jobs.values())[-1]}", "--kill-on-invalid-dep=yes"] if jobs else []
        )
        variables = {"RUN": str(run.resolve()), "STAGE": name, "KIND": kind}
        words = [log, f"--job-name=speedrun-{name}", *after, *asked]
        jobs[name] = slurm.submit(folder, SCRIPT, words, variables)
        write_json(run / STAGES / JOBS, {"snapshot": str(folder), "jobs": jobs})
    return jobs


def jobs_of(run: Path) -> dict[str, tuple[str, str]]:
    """By stage: the number of the job that was submitted last, and its state while SLURM has it, else ""."""
    try:
        value: Any = read_json(run / STAGES / JOBS)
    except FileNotFoundError:
        return {}
    jobs = {str(stage): str(job) for stage, job in value.get("jobs", {}).items()}
    states = _states(list(jobs.values()))
    return {stage: (job, states.get(job, "")) for stage, job in jobs.items()}


def _states(jobs: Sequence[str]) -> dict[str, str]:
    """States of the jobs that wait or run; none where there is no squeue."""
    try:
        done = subprocess.run(
            ["squeue", "--noheader", "--format=%i %T", f"--jobs={','.join(jobs)}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return {}
    rows = [line.split() for line in done.stdout.splitlines()]
    return {row[0]: row[1].lower() for row in rows if len(row) == 2}
