"""The Dockerfile against what it is made from; built where a Docker daemon answers."""

from __future__ import annotations

import inspect
import json
import re
import runpy
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from model.cli import app

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
APP_DOCKERFILE = (ROOT / "deploy/app/Dockerfile").read_text()
SLURM = {"slurm-wlm", "slurmctld", "slurmd", "slurm-client", "munge"}  # a cluster's own, not an image's


def packages(script: str) -> set[str]:
    """What `apt-get install` installs, in all calls of a script."""
    calls = re.findall(r"apt-get install((?:[^\n\\&>]|\\\n)*)", script)
    return {word for call in calls for word in call.replace("\\\n", " ").split() if not word.startswith("-")}


def test_it_installs_what_the_checks_install() -> None:
    needed = packages((ROOT / ".ci/run").read_text()) - SLURM
    assert {"chromium", "ffmpeg", "libegl1"} <= needed
    assert needed <= packages(DOCKERFILE)


@pytest.mark.parametrize("dockerfile", [DOCKERFILE, APP_DOCKERFILE], ids=["all", "app"])
def test_it_copies_what_there_is_and_all_packages(dockerfile: str) -> None:
    copied = {
        word for line in re.findall(r"^COPY (.+)$", dockerfile, re.MULTILINE) for word in line.split()[:-1]
    }
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= copied


def test_the_page_s_image_and_space_start_it_as_it_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    entry, arguments = (
        json.loads(re.findall(rf"^{word} (.+)$", APP_DOCKERFILE, re.MULTILINE)[0])
        for word in ("ENTRYPOINT", "CMD")
    )
    assert entry[:4] == ["python", "-m", "model", "app"]
    options = {word.removeprefix("--") for word in (*entry, *arguments) if word.startswith("--")}
    assert options <= set(inspect.signature(app).parameters)
    assert "\nUSER editor\n" in APP_DOCKERFILE
    front = yaml.safe_load((ROOT / "deploy/space/README.md").read_text().split("---")[1])
    assert front["sdk"] == "gradio"
    monkeypatch.setenv("SPACE_HOST", "Somebody-editverse.example")
    settings = runpy.run_path(str(ROOT / "deploy/space" / front["app_file"]))["settings"]()
    assert settings.allowed_hosts == ("somebody-editverse.example",)
    assert settings.port == 7860


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
