"""`python -m model`: a run from a YAML file, an edit with its checkpoint, one line for bad input.

The commands run in this process through their entry point.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from model.cli import main
from model.training.config import FitConfig
from shards.media import probe
from shards.reader import ShardSet
from shards.serialization import to_dict

ROOT = Path(__file__).parents[2]


def test_fit_then_edit(
    fit_config: FitConfig, shard_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"run": str(tmp_path / "run"), **to_dict(fit_config)}
    settings["train"]["steps"] = 2
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    assert main(["fit", "--config", str(tmp_path / "tiny.yaml")]) == 0
    assert "train samples" in capsys.readouterr().out
    assert main(["fit", "--config", str(tmp_path / "tiny.yaml")]) == 0
    assert f"reusing {tmp_path / 'run'}" in capsys.readouterr().out.replace("\n", "")
    assert main(["fit", "--config", str(tmp_path / "tiny.yaml"), "--train.seed", "5"]) == 2
    assert "train.seed is 0 there and 5 here" in capsys.readouterr().err

    with pytest.raises(SystemExit) as shown:
        main(["--help"])
    assert shown.value.code == 0
    assert {"fit", "edit"} <= set(capsys.readouterr().out.replace(",", " ").replace("{", " ").split())

    record = ShardSet(shard_folder, "heldout")[0]
    (tmp_path / "in.mp4").write_bytes(record.bytes("video1"))
    edit = ["edit", "--checkpoint", str(tmp_path / "run"), "--text", "<video1> Remove the disc."]
    out = tmp_path / "out.mp4"
    assert main([*edit, "--video1", str(tmp_path / "in.mp4"), "--out", str(out)]) == 0, (
        capsys.readouterr().err
    )
    info = probe(out)
    assert (info.frames, info.height, info.width, info.fps) == (9, 48, 64, 10.0)
    stretch = ["--frames", "1:8", "--out", str(out)]  # 68 in YAML, which counts in sixties
    assert main([*edit, "--video1", str(tmp_path / "in.mp4"), *stretch]) == 0
    assert probe(out).frames == 7
    said = capsys.readouterr().out
    assert "no sound in the source" in said
    assert "% " in said.splitlines()[-1]
    (tmp_path / "cut.mp4").write_bytes(record.bytes("video1")[:100])
    for arguments, message in (
        (["--video1", str(tmp_path / "cut.mp4"), "--out", str(out)], "cut.mp4"),
        (["--video1", str(tmp_path / "none.mp4"), "--out", str(out)], "none.mp4"),
        (
            ["--video1", str(tmp_path / "in.mp4"), "--frames", "1-8", "--out", str(out)],
            "--frames 1-8: needs a number",
        ),
        (
            ["--video1", str(tmp_path / "in.mp4"), "--out", str(tmp_path / "out.avi")],
            "the result <video2> must end in .mp4",
        ),
        (
            ["--out", str(tmp_path / "forgotten.mp4")],
            "names <video1> but no such media is given (--video1 FILE)",
        ),
        (["--video1", "", "--out", str(tmp_path / "forgotten.mp4")], "video1: is empty; give a file"),
    ):
        assert main([*edit, *arguments]) == 2
        error = capsys.readouterr().err.strip()
        assert message in error
        assert len([line for line in error.splitlines() if line.startswith("error:")]) == 1
    assert not (tmp_path / "forgotten.mp4").exists()


def test_an_unknown_setting_is_named_in_the_shell() -> None:
    command = [sys.executable, "-m", "model", "fit", "--run", "runs/none", "--train.stepz", "3"]
    wrong = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert wrong.returncode == 2
    assert "stepz" in wrong.stderr
    assert "Traceback" not in wrong.stderr
