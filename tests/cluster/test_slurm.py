"""`make slurm-train` on a real SLURM of two nodes: preempted, stopped, requeued, finished."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from model.cli import STOPPED
from shards.writer import Item, write_shards
from tests.cluster.conftest import ROOT, Slurm, free_port, logs, submit, wait_until

pytestmark = pytest.mark.cluster
STEPS = 30


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory, make_items: Callable[..., list[Item]]) -> Path:
    """Six pairs at the size of nano's configuration."""
    folder = tmp_path_factory.mktemp("nano")
    write_shards(folder / "shards", make_items(folder, pairs=6, frames=9, height=96, width=128))
    return folder / "shards"


def settings(shards: Path, run: Path) -> list[str]:
    """Changes to configs/train/nano.yaml."""
    return [
        *("--run", str(run), "--data.shards", json.dumps([str(shards)])),
        *("--train.steps", str(STEPS), "--train.save_every", "10", "--train.validate_every", "1000"),
        *("--train.precision", "32-true", "--optim.warmup", "5", "--train.num_val_samples", "1"),
    ]


@pytest.fixture(scope="module")
def uninterrupted(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of two processes that nobody stops."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    # torchrun would take --run for one of its own options, were it not for the two dashes
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1"]
    command += [
        f"--master-port={free_port()}",
        "-m",
        "--",
        "model",
        "fit",
        "--config",
        "configs/train/nano.yaml",
    ]
    subprocess.run([*command, *settings(shards, run)], cwd=ROOT, check=True, timeout=300)
    return run


def submit_training(slurm: Slurm, shards: Path, run: Path, options: str) -> tuple[str, Path]:
    """`make slurm-train` on two nodes; the job's number and the snapshot's folder."""
    arguments = " ".join(f"'{a}'" for a in settings(shards, run))
    given = f"ARGS={arguments} --slurm.gpus=false --slurm.cpus=1"
    return submit(slurm, "slurm-train", "NODES=2", "DEVICES=1", f"SLURM={options}", given)


def rows(run: Path) -> list[dict[str, str]]:
    path = run / "curve.csv"
    return list(csv.DictReader(path.open())) if path.is_file() else []


def restarted(slurm: Slurm, job: str, folder: Path, times: int) -> None:
    """Until the job runs for another time."""
    wait_until(lambda: (folder / "logs" / "job.log").read_text().count("start ") == times + 1, folder)
    assert slurm.state(job)["Restarts"] == str(times)


def test_gives_way_and_goes_on(slurm: Slurm, shards: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """SIGTERM to the ranks, SIGUSR1 to the script (as before its time is up), and a job of higher priority.

    Each time the run saves its step, comes back without anybody's help, and goes on from there; in the end it
    is where two processes that nobody stopped are.
    """
    run = tmp_path / "run"
    job, folder = submit_training(slurm, shards, run, "--partition=low")
    wait_until(lambda: len(rows(run)) >= 3, folder)
    slurm("scancel", "--signal=TERM", job)
    restarted(slurm, job, folder, 1)
    wait_until(lambda: len(rows(run)) >= 8, folder)
    slurm("scancel", "--signal=USR1", "--batch", job)
    restarted(slurm, job, folder, 2)
    wait_until(lambda: len(rows(run)) >= 13, folder)
    options = ("--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")
    other = slurm("sbatch", "--parsable", *options)
    restarted(slurm, job, folder, 3)
    assert slurm.state(other)["JobState"] == "COMPLETED"
    assert len(rows(run)) < STEPS
    wait_until(lambda: slurm.state(job)["JobState"] not in ("RUNNING", "COMPLETING"), folder)
    assert slurm.state(job)["JobState"] == "COMPLETED", logs(folder)[-6000:]

    assert (folder / "logs" / "job.log").read_text().count(f"exit status {STOPPED}") == 3
    rank0, rank1 = ((folder / "logs" / f"rank-{rank}.log").read_text() for rank in (0, 1))
    stopped = re.findall(r"stopped by a signal after step (\d+)", rank0)
    resumed = re.findall(r"resuming .* at step (\d+)", rank0)
    assert len(stopped) == 3
    assert stopped == resumed == re.findall(r"stopped by a signal after step (\d+)", rank1)
    assert json.loads((run / "summary.json").read_text())["resumed_at"] == int(resumed[-1])
    ours, theirs = (np.array([float(r["loss"]) for r in rows(path)]) for path in (run, uninterrupted))
    assert len(ours) == STEPS
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    saved, expected = (load_file(path / "checkpoint" / "model.safetensors") for path in (run, uninterrupted))
    for name, value in saved.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-4 * float(value.abs().max()))


def test_snapshot_is_what_runs(slurm: Slurm, shards: Path, tmp_path: Path) -> None:
    """A job runs the code and configuration that were submitted; a cancelled one does not come back."""
    run = tmp_path / "run"
    job, folder = submit_training(slurm, shards, run, "--partition=low --hold")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["train"]["steps"] == STEPS
    # the line shows that the snapshot's code is used, and that of the checkout is not
    train = folder / "code" / "model" / "training" / "trainer.py"
    train.write_text(train.read_text() + "\nlog.warning('this is the snapshot')\n")
    slurm("scontrol", "release", job)
    wait_until(lambda: len(rows(run)) >= 1, folder)
    assert "this is the snapshot" in (folder / "logs" / "rank-1.log").read_text()
    slurm("scancel", job)
    wait_until(lambda: slurm.state(job)["JobState"] == "CANCELLED", folder)
    wait_until(lambda: "exit status" in (folder / "logs" / "job.log").read_text(), folder)
    time.sleep(2)
    state = slurm.state(job)
    assert (state["JobState"], state["Restarts"]) == ("CANCELLED", "0")


def test_refused(slurm: Slurm, shards: Path, tmp_path: Path) -> None:
    """What SLURM, or the model, cannot do is said before a job waits for it."""
    command = [sys.executable, "-m", "model", "submit", "--config", "configs/train/nano.yaml"]
    command += settings(shards, tmp_path / "run")
    for change, message in (
        ("--slurm.options=--partition=none", "sbatch: "),
        ("--parallel.sequence_parallel=16", "parallel.sequence_parallel 16"),
    ):
        done = subprocess.run(
            [*command, "--slurm.gpus=false", change],
            cwd=ROOT,
            env=slurm.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
