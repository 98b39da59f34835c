"""Joining a Ray by its address, and jobs that are refused before they are submitted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.conftest import free_port
from tests.curation.conftest import ROOT, environment

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_at_which_nothing_listens_is_told_at_once(cli: Cli, scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    done = cli("cluster", "--address", address, "--patience", "0.1")
    assert done.returncode == 2
    assert done.stderr == f"error: --address {address}: nothing listens there; start Ray, or correct it\n"


def test_a_cluster_with_a_token_says_what_it_has(cli: Cli, tmp_path: Path) -> None:
    """The head of `ray start` lets in only those who know its token."""
    port, token = free_port(), tmp_path / "token"
    token.write_text("5" * 64)
    given = {**environment(), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    start = ["start", "--head", f"--port={port}", "--num-cpus=3", "--include-dashboard=false", "--block"]
    start += ["--node-ip-address=127.0.0.1", "--disable-usage-stats"]
    head = subprocess.Popen([*ray, *start], env=given, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    command = [sys.executable, "-m", "curation", "cluster", "--address", f"127.0.0.1:{port}"]
    command += ["--patience", "60"]
    try:
        asked = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=150)
        without = {k: v for k, v in given.items() if k != "RAY_AUTH_MODE"}
        refused = subprocess.run(command, cwd=ROOT, env=without, capture_output=True, text=True, timeout=150)
    finally:
        head.terminate()
        head.wait(timeout=60)
    assert asked.returncode == 0, asked.stderr
    (row,) = [line for line in asked.stdout.splitlines() if "│" in line]
    assert row.replace("│", " ").split()[1:3] == ["3", "0"]
    assert refused.returncode == 2
    assert "asks for its token, as `ray start` has it; set RAY_AUTH_MODE=token" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no_such_task"], "unknown task 'no_such_task'"),
        (["sketch_to_video", "--slurm.nodes", "0"], "slurm.nodes must be at least 1, got 0"),
        (["sketch_to_video", "--config", "none.yaml"], "none.yaml: no such config file"),
    ],
)
def test_a_job_that_could_not_run_is_not_submitted(
    cli: Cli, arguments: list[str], words: str, tmp_path: Path
) -> None:
    done = cli("submit", *arguments, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
