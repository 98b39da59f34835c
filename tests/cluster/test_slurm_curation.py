"""`make slurm-curate` and `make slurm-bench` on a real SLURM of two nodes; one of them is lost meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from shards.media import write_video
from shards.writer import Item, write_shards
from tests.cluster.conftest import ROOT, Slurm, logs, submit, wait_until

pytestmark = pytest.mark.cluster
CLIPS = 16


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of squares that move, no two alike."""
    folder = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(0)
    for number in range(CLIPS):
        background = np.kron(random.integers(0, 256, (9, 12, 3)), np.ones((20, 20, 1))).astype(np.uint8)
        frames = np.repeat(background[None], 33, axis=0)
        for t in range(33):
            left = 20 + (3 + number % 4) * t
            frames[t, 60:120, left : left + 50] = random.integers(0, 256, (1, 1, 3))
        write_video(folder / f"{number:02d}.mp4", frames, 10.0)
    return folder


@pytest.fixture(scope="module")
def expected(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The manifest of a run in one process."""
    base = tmp_path_factory.mktemp("expected")
    command = [sys.executable, "-m", "curation", "run", "sketch_to_video", "--clips", str(clips)]
    command += ["--out", str(base / "out"), "--workspace", str(base / "workspace"), "--workers", "0"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)
    return (base / "out" / "manifest.jsonl").read_bytes()


def processes_of(node: str, job: str) -> Iterator[int]:
    """The processes that a job has on a node."""
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if {f"SLURMD_NODENAME={node}".encode(), f"SLURM_JOB_ID={job}".encode()} <= set(environment):
            yield int(entry.name)


def curate(slurm: Slurm, clips: Path, base: Path) -> tuple[str, Path]:
    return submit(
        slurm,
        "slurm-curate",
        *("TASK=sketch_to_video", f"CLIPS={clips}", f"SHARDS={base}/out", f"WORKSPACE={base}/workspace"),
        *("NODES=2", "SLURM=--partition=low", "ARGS=--slurm.cpus=1"),
    )


def test_two_nodes_make_the_shards_of_one_process(
    slurm: Slurm, clips: Path, expected: bytes, tmp_path: Path
) -> None:
    """One node is lost while it works: its clips are done again on the other, and nothing is missing."""
    job, folder = curate(slurm, clips, tmp_path)
    sketches = tmp_path / "workspace" / "sketch"

    def works_on(node: str) -> bool:
        names = [Path(f"/proc/{pid}/cmdline") for pid in processes_of(node, job)]
        return any(path.exists() and b"MapWorker" in path.read_bytes() for path in names)

    try:
        wait_until(lambda: works_on("n2") and any(sketches.glob("*/*/result.json")), folder, seconds=240)
        slurm("scontrol", "update", "nodename=n2", "state=down", "reason=lost")
        for pid in processes_of("n2", job):
            os.kill(pid, signal.SIGKILL)
        assert len(list(sketches.glob("*/*/result.json"))) < CLIPS, "it was done before the node was lost"
        wait_until(lambda: slurm.state(job)["JobState"] not in ("RUNNING", "COMPLETING"), folder, seconds=240)
    finally:
        if slurm("sinfo", "--noheader", "--nodes=n2", "--format=%T").startswith("down"):
            slurm("scontrol", "update", "nodename=n2", "state=resume")  # unless it is back by itself
    assert slurm.state(job)["JobState"] == "COMPLETED", logs(folder)[-6000:]
    assert slurm.state(job)["Restarts"] == "0"
    assert (tmp_path / "out" / "manifest.jsonl").read_bytes() == expected
    wait_until(lambda: not any(processes_of("n1", job)), folder, seconds=60)  # nothing of the job goes on


def test_a_job_that_is_told_to_stop_comes_back(
    slurm: Slurm, clips: Path, expected: bytes, tmp_path: Path
) -> None:
    """SIGUSR1, as before its time is up: it is requeued, and computes what is missing."""
    job, folder = curate(slurm, clips, tmp_path)
    sketches = tmp_path / "workspace" / "sketch"
    wait_until(lambda: any(sketches.glob("*/*/result.json")), folder, seconds=240)
    slurm("scancel", "--signal=USR1", "--batch", job)
    wait_until(lambda: slurm.state(job)["Restarts"] == "1", folder, seconds=240)
    wait_until(
        lambda: slurm.state(job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), folder, seconds=240
    )
    assert slurm.state(job)["JobState"] == "COMPLETED", logs(folder)[-6000:]
    assert (folder / "logs" / "job.log").read_text().count("start ") == 2
    assert (tmp_path / "out" / "manifest.jsonl").read_bytes() == expected


def test_a_scoring_job_leaves_its_report(
    slurm: Slurm, make_items: Callable[..., list[Item]], tmp_path: Path
) -> None:
    (tmp_path / "media").mkdir()
    shards, out = tmp_path / "shards", tmp_path / "bench"
    write_shards(shards, make_items(tmp_path / "media", pairs=3, frames=5, height=96, width=128))
    job, folder = submit(
        slurm,
        "slurm-bench",
        *("CHECKPOINT=nano", f"BENCH={out}", f"BENCH_DATA={shards}", "BENCH_OPTIONS=--steps 1"),
        *("SLURM=--partition=low", "ARGS=--slurm.cpus=1"),
    )
    wait_until(
        lambda: slurm.state(job)["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), folder, seconds=240
    )
    assert slurm.state(job)["JobState"] == "COMPLETED", logs(folder)[-6000:]
    assert json.loads((out / "summary.json").read_text())["counts"]["edits_made"] == 1
    assert (out / "report.html").is_file()
