"""The package as it is installed: the command `editverse`, and the configurations that it brings along."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from editverse.__main__ import main
from shards.resources import config_file, config_root

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_the_configurations_the_weights_and_the_types(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in filter(Path.is_file, (ROOT / "configs").rglob("*.*")):
        assert f"shards/{path.relative_to(ROOT)}" in names
    for package in ("shards", "curation", "model", "benchmark", "editverse"):
        assert f"{package}/py.typed" in names
    assert "model/weights/nano/model.safetensors" in names
    assert not [name for name in names if name.startswith("tests/")]


def test_a_configuration_is_the_callers_before_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_file("configs/train/nano.yaml") == config_root() / "train" / "nano.yaml"
    assert config_file("configs/train/none.yaml") == Path("configs/train/none.yaml")
    (tmp_path / "configs" / "train").mkdir(parents=True)
    (tmp_path / "configs" / "train" / "nano.yaml").write_text("run: here")
    assert config_file("configs/train/nano.yaml") == Path("configs/train/nano.yaml")


def test_the_command_lists_its_groups_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in ("curate", "train", "edit", "bench", "shards"))
    assert main(["fly"]) == 2
    assert "no command 'fly'" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("curate", "object_removal"), ("edit",), ("bench",), ("shards", "ls")])
def test_help_from_an_empty_folder(command: tuple[str, ...], tmp_path: Path) -> None:
    words = [sys.executable, "-m", "editverse", *command, "--help"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
