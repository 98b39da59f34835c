"""A speedrun from its script to its report, unbroken and killed; the tiny one made smaller still."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from editverse.speedrun.records import read_record
from tests.speedrun.smoke import smoke
from tests.terminal import ROOT, environment

STAGES = 11


def start(config: Path, run: Path) -> subprocess.Popen[str]:
    """The script, whose process becomes the runner's."""
    return subprocess.Popen(
        ["bash", str(ROOT / "scripts" / "speedrun.sh"), str(config), "--out", str(run)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def finish(config: Path, run: Path) -> str:
    """Run to the end; what was printed."""
    process = start(config, run)
    said, _ = process.communicate(timeout=1500)
    assert process.returncode == 0, said
    return said


def kill_when(config: Path, run: Path, holds: Callable[[], object]) -> None:
    """Start the script, and kill it with SIGKILL when something holds."""
    process = start(config, run)
    deadline = time.monotonic() + 600
    while not holds():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def result(run: Path) -> dict[str, Any]:
    """The facts of a report, without times."""
    facts: dict[str, Any] = json.loads((run / "report.json").read_text())["result"]
    return facts


@pytest.mark.slow
def test_killed_and_started_again_it_ends_in_the_same_report(tmp_path: Path) -> None:
    config = smoke(tmp_path / "smoke")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    said = finish(config, whole)
    assert f"[{STAGES}/{STAGES}] report" in said
    assert (whole / "report.html").stat().st_size > 10_000

    kill_when(config, killed, lambda: "engine:" in read_log(killed, "curation"))
    kill_when(config, killed, lambda: any((killed / "latents").glob(".*.tmp.tar")))
    kill_when(config, killed, (killed / "stage1" / "curve.csv").exists)
    said = finish(config, killed)
    assert said.count("done before") == 6
    record = read_record(killed, "stage1")
    assert record is not None
    assert record["attempts"] == 2
    assert result(killed) == result(whole)
    assert finish(config, whole).count("done before") == STAGES


def read_log(run: Path, stage: str) -> str:
    path = run / "logs" / f"{stage}.log"
    return path.read_text() if path.exists() else ""
