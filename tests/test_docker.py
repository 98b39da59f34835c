"""The Dockerfile against what it is made from; built where a Docker daemon answers."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SLURM = {"slurm-wlm", "slurmctld", "slurmd", "slurm-client", "munge"}  # a cluster's own, not an image's


def packages(script: str) -> set[str]:
    """What `apt-get install` installs, in all calls of a script."""
    calls = re.findall(r"apt-get install((?:[^\n\\&>]|\\\n)*)", script)
    return {word for call in calls for word in call.replace("\\\n", " ").split() if not word.startswith("-")}


def test_it_installs_what_the_checks_install() -> None:
    needed = packages((ROOT / ".ci/run").read_text()) - SLURM
    assert {"chromium", "ffmpeg", "libegl1"} <= needed
    assert needed <= packages(DOCKERFILE)


def test_it_copies_what_there_is_and_all_packages() -> None:
    copied = {
        word for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]
    }
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= copied


def docker_answers() -> bool:
    """Whether images can be built on this machine."""
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "info"], capture_output=True, timeout=60, check=False).returncode == 0


@pytest.mark.slow
def test_the_image_edits() -> None:
    if not docker_answers():
        pytest.skip("no Docker daemon on this machine")
    subprocess.run(["docker", "build", "--target", "cpu", "-t", "editverse-test", "."], cwd=ROOT, check=True)
    done = subprocess.run(
        ["docker", "run", "--rm", "editverse-test", "--help"], capture_output=True, text=True, check=True
    )
    assert "edit" in done.stdout
