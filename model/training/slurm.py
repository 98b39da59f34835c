"""Submit a training run to SLURM: a snapshot of code and configuration beside the run, and a job of it.

`make slurm-train CONFIG=...` calls `submit`; what the job does stands in `configs/slurm/train.sbatch`.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from model.data.mixture import read_mixture
from model.planner.balance import BalanceError, Cluster
from model.training.config import FitConfig
from model.training.setup import init_model
from shards import slurm as slurm_jobs
from shards.errors import ConfigError, SettingError
from shards.serialization import to_dict

PACKAGES = ("model", "shards")  # what training imports
SCRIPT = "train.sbatch"


@dataclass(frozen=True)
class SlurmConfig:
    """What a job asks for.

    Attributes:
        nodes, devices: machines, and processes on each: one per device.
        gpus: ask for as many GPUs per node as there are processes; off for a run on CPUs.
        cpus: cores of each process.
        time: limit, as sbatch takes it; the job is requeued when it is up.
        options: more of sbatch's, e.g. "--partition=gpu --account=me".
    """

    nodes: int = 1
    devices: int = 8
    gpus: bool = True
    cpus: int = 8
    time: str = "24:00:00"
    options: str = ""

    def __post_init__(self) -> None:
        for name in ("nodes", "devices", "cpus"):
            if getattr(self, name) < 1:
                raise SettingError(f"slurm.{name} must be at least 1, got {getattr(self, name)}")

    def arguments(self) -> list[str]:
        """The arguments of sbatch."""
        asked = [
            f"--nodes={self.nodes}",
            f"--ntasks-per-node={self.devices}",
            f"--cpus-per-task={self.cpus}",
            f"--time={self.time}",
        ]
        if self.gpus:
            asked.append(f"--gpus-per-node={self.devices}")
        return [*asked, *shlex.split(self.options)]


def submit(config: FitConfig, run: Path, slurm: SlurmConfig) -> tuple[str, Path]:
    """Snapshot, and submit a job that trains `config` into `run`.

    Returns:
        The job's number, and the snapshot's folder: `<run>.slurm/<time>` with `code`, `config.yaml`, the
        mixture if there is one, and `logs`, which the job writes.

    Raises:
        ConfigError: settings that do not fit the job's ranks, or sbatch is missing or refuses the job.
    """
    degree = config.parallel.sequence_parallel
    try:
        Cluster(slurm.nodes * slurm.devices, slurm.devices, degree, init_model(config).network.heads)
    except BalanceError as error:
        raise ConfigError(f"parallel.sequence_parallel {degree}: {error}") from error
    slurm_jobs.need_sbatch()
    folder = snapshot(config, run)
    return slurm_jobs.submit(folder, SCRIPT, slurm.arguments()), folder


def snapshot(config: FitConfig, run: Path) -> Path:
    """Copy code, configuration, mixture and job script to a new folder beside the run."""
    folder = slurm_jobs.snapshot(run, PACKAGES, SCRIPT)
    if config.data.mixture is not None:
        # overlays refer to their bases by place, so the whole is written
        mixture = (folder / "mixture.yaml").resolve()
        mixture.write_text(yaml.safe_dump(to_dict(read_mixture(config.data.mixture)), sort_keys=False))
        config = replace(config, data=replace(config.data, mixture=str(mixture)))
    settings = {"run": str(run), **to_dict(config)}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return folder
