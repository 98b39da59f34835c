"""Submit a curation run to SLURM: a Ray over the job's nodes, and the run on it.

`make slurm-curate TASK=...` calls `submit`; what the job does stands in `configs/slurm/curate.sbatch`.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from curation.engine.task_config import build, load_config
from shards import slurm
from shards.slurm import JobRequest

PACKAGES = ("curation", "shards")
SCRIPT = "curate.sbatch"


def submit(task: str, config: Path, beside: Path, arguments: list[str], job: JobRequest) -> tuple[str, Path]:
    """Snapshot, and submit a job that runs `task`.

    Args:
        config: the task's YAML, which is copied.
        beside: a local path; the snapshot is the folder `<beside>.slurm/<time>`.
        arguments: of `python -m curation run`, but for the task and its config.

    Returns:
        The job's number and the snapshot's folder.

    Raises:
        RunError: the task or its config is none; ConfigError: sbatch is missing or refuses the job, or an
            argument holds a line break.
    """
    values = load_config(task, config)
    build(values)  # a mistake is told now, not when the job starts
    slurm.need_sbatch()
    folder = slurm.snapshot(beside, PACKAGES, SCRIPT)
    (folder / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    told = [task, "--config", str((folder / "config.yaml").resolve()), *arguments]
    slurm.write_arguments(folder, told)
    return slurm.submit(folder, SCRIPT, job.arguments()), folder
