"""Jobs of a SLURM cluster: a snapshot of the code beside what the job works on, and sbatch."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shards.errors import ConfigError, SettingError
from shards.resources import config_root

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class JobRequest:
    """What a job asks for.

    Attributes:
        nodes: machines.
        cpus: cores of each node; gpus: of each node.
        time: limit, as sbatch takes it; the job is requeued when it is up.
        options: more of sbatch's, e.g. "--partition=gpu --account=me".
    """

    nodes: int = 1
    cpus: int = 8
    gpus: int = 0
    time: str = "24:00:00"
    options: str = ""

    def __post_init__(self) -> None:
        for name, least in (("nodes", 1), ("cpus", 1), ("gpus", 0)):
            if getattr(self, name) < least:
                raise SettingError(f"slurm.{name} must be at least {least}, got {getattr(self, name)}")

    def arguments(self) -> list[str]:
        """The arguments of sbatch."""
        asked = [f"--nodes={self.nodes}", f"--cpus-per-task={self.cpus}", f"--time={self.time}"]
        if self.gpus:
            asked.append(f"--gpus-per-node={self.gpus}")
        return [*asked, *shlex.split(self.options)]


def snapshot(beside: Path, packages: Sequence[str], script: str) -> Path:
    """Copy packages of ours and a job script to a new folder, whatever is edited meanwhile.

    Args:
        beside: what the job works on; the folder is `<beside>.slurm/<time>`, with `code`, the script and an
            empty `logs`.
        packages: names, such as "model".
        script: name of a file in configs/slurm.

    Raises:
        ConfigError: a job was submitted in the same second.
    """
    folder = beside.with_name(f"{beside.name}.slurm") / time.strftime("%Y%m%d-%H%M%S")
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise ConfigError(f"{folder}: a job was submitted this second; wait for one") from error
    (folder / "logs").mkdir()
    for package in packages:
        shutil.copytree(
            ROOT / package, folder / "code" / package, ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
        )
    shutil.copy2(config_root() / "slurm" / script, folder / script)
    return folder


def need_sbatch() -> str:
    """Where sbatch is. Raises ConfigError where there is none."""
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        raise ConfigError("sbatch: not found; submit from a machine of a SLURM cluster")
    return sbatch


def write_arguments(folder: Path, arguments: Sequence[str]) -> None:
    """Write a snapshot's `arguments`, one a line, as the script reads them.

    Raises:
        ConfigError: one holds a line break.
    """
    if odd := [argument for argument in arguments if "\n" in argument]:
        raise ConfigError(f"{odd[0]!r}: holds a line break, which no argument of a job may")
    (folder / "arguments").write_text("\n".join(arguments) + "\n")


def submit(folder: Path, script: str, options: Sequence[str], variables: Mapping[str, str] = {}) -> str:
    """Submit a snapshot's script; returns the job's number.

    Args:
        options: of sbatch.
        variables: of the job's environment, beside SNAPSHOT (the folder) and PYTHON (this interpreter).

    Raises:
        ConfigError: sbatch is missing or refuses the job.
    """
    given = {"SNAPSHOT": str(folder.resolve()), "PYTHON": sys.executable, **variables}
    log = f"--output={folder.resolve()}/logs/job.log"
    done = subprocess.run(
        [need_sbatch(), "--parsable", "--export=ALL", log, *options, str(folder / script)],
        stdin=subprocess.DEVNULL,
        env=os.environ | given,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode:
        raise ConfigError(f"sbatch: {done.stderr.strip()} (the job's files are in {folder})")
    return done.stdout.strip().partition(";")[0]
