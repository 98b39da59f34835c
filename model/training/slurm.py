"""Submit a training run to SLURM: a snapshot of code and configuration beside the run, and a job of it.

`make slurm-train CONFIG=...` calls `submit`; what the job does stands in `configs/slurm/train.sbatch`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from model.data.mixture import read_mixture
from model.planner.balance import BalanceError, Cluster
from model.training.config import FitConfig
from model.training.setup import init_model
from shards.errors import ConfigError, SettingError
from shards.resources import config_root
from shards.serialization import to_dict

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("model", "shards")  # what training imports


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
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise ConfigError("sbatch: not found; submit from a machine of a SLURM cluster")
    folder = snapshot(config, run)
    variables = {"SNAPSHOT": str(folder.resolve()), "PYTHON": sys.executable}
    command = [
        sbatch,
        "--parsable",
        "--export=ALL",
        f"--output={variables['SNAPSHOT']}/logs/job.log",
        *slurm.arguments(),
        str(folder / "train.sbatch"),
    ]
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode:
        raise ConfigError(f"sbatch: {done.stderr.strip()} (the job's files are in {folder})")
    return done.stdout.strip().partition(";")[0], folder


def snapshot(config: FitConfig, run: Path) -> Path:
    """Copy code, configuration, mixture and job script to a new folder beside the run."""
    folder = run.with_name(f"{run.name}.slurm") / time.strftime("%Y%m%d-%H%M%S")
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise ConfigError(f"{folder}: a job was submitted this second; wait for one") from error
    (folder / "logs").mkdir()
    for package in PACKAGES:
        source = ROOT / package
        shutil.copytree(
            source, folder / "code" / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
    shutil.copy2(config_root() / "slurm" / "train.sbatch", folder / "train.sbatch")
    if config.data.mixture is not None:
        # overlays refer to their bases by place, so the whole is written
        mixture = (folder / "mixture.yaml").resolve()
        mixture.write_text(yaml.safe_dump(to_dict(read_mixture(config.data.mixture)), sort_keys=False))
        config = replace(config, data=replace(config.data, mixture=str(mixture)))
    settings = {"run": str(run), **to_dict(config)}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return folder
