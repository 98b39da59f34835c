"""A real SLURM on this machine: two nodes that share its cores, and a partition that preempts the other."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
# a job that was requeued waits until the credentials of its last start are void
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
MpiDefault=none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs=2 RealMemory=8000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} CPUs=2 RealMemory=8000
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 GraceTime=60 MaxTime=INFINITE State=UP
PartitionName=high Nodes=n1,n2 PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
"""
ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")


@dataclass(frozen=True)
class Slurm:
    """A running SLURM; `environment` is that of whoever talks to it."""

    folder: Path
    environment: dict[str, str]

    def __call__(self, *command: str) -> str:
        """Run one of SLURM's commands; its output."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}{done.stdout}"
        return done.stdout.strip()

    def state(self, job: str) -> dict[str, str]:
        """What is known of a job, by the names of `scontrol show job`."""
        fields = self("scontrol", "show", "job", "--oneliner", job).split()
        return dict(field.split("=", 1) for field in fields if "=" in field)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    assert not missing, (
        f"no {', '.join(missing)}: apt-get install slurm-wlm slurmctld slurmd slurm-client munge"
    )
    assert os.geteuid() == 0, "slurmd starts jobs only for root"
    folder = tmp_path_factory.mktemp("slurm")
    ports = {name: free_port() for name in ("port", "n1", "n2")}
    config = folder / "slurm.conf"
    config.write_text(CONF.format(host=socket.gethostname().split(".")[0], folder=folder, **ports))
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    environment["SLURM_CONF"] = str(config)
    munge = ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}"]
    munge += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "seed", "log")]
    started = []

    def start(*command: str) -> None:
        log = (folder / f"{len(started)}-{command[0]}.log").open("w")
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        started.append(process)

    cluster = Slurm(folder, environment)
    try:
        start(*munge)
        while not (folder / "munge.socket").exists():
            assert started[0].poll() is None, (folder / "0-munged.log").read_text()
            time.sleep(0.05)
        start("slurmctld", "-D", "-c", "-f", str(config))
        for node in ("n1", "n2"):
            start("slurmd", "-D", "-f", str(config), "-N", node)
        deadline = time.monotonic() + 30
        while cluster_idle(cluster) < 2:
            assert time.monotonic() < deadline, "".join(p.read_text() for p in folder.glob("*.log"))
            time.sleep(0.1)
        yield cluster
    finally:
        if len(started) > 1:
            subprocess.run(["scancel", "--full", "--user=root"], env=environment, timeout=60, check=False)
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=30)


def cluster_idle(cluster: Slurm) -> int:
    """Nodes that wait for work."""
    done = subprocess.run(
        ["sinfo", "--noheader", "--partition=low", "--states=idle", "--format=%D"],
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return int(done.stdout.strip() or 0)


def submit(slurm: Slurm, target: str, *variables: str) -> tuple[str, Path]:
    """`make TARGET VARIABLE=...`; the job's number and the snapshot's folder."""
    done = subprocess.run(
        ["make", "--no-print-directory", target, *variables],
        cwd=ROOT,
        env=slurm.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"job (\d+): .* are in (.*)", done.stdout)
    assert found, done.stdout
    return found[1], Path(found[2])


def logs(folder: Path) -> str:
    """All logs of a snapshot's folder."""
    return "".join(f"== {p.name}\n{p.read_text()}" for p in sorted((folder / "logs").iterdir()))


def wait_until(what: Callable[[], bool], folder: Path, seconds: float = 150) -> None:
    """Until something holds; the end of the job's logs when that takes too long."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, logs(folder)[-6000:]
        time.sleep(0.1)
