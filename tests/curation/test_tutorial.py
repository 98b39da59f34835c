"""The task of docs/adding-a-task.md, taken from the page and run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import curation.tasks
from curation.engine.run import run
from curation.engine.task_config import tasks
from shards.reader import ShardSet

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-task.md"


def test_the_task_of_the_tutorial_runs(
    good_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = dict(re.findall(r"```(python|yaml)\n(.*?)```", PAGE.read_text(), re.DOTALL))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "mirrored.py").write_text(blocks["python"])
    (tmp_path / "mirrored.yaml").write_text(blocks["yaml"])
    monkeypatch.setattr(curation.tasks, "__path__", [*curation.tasks.__path__, str(tmp_path / "tasks")])
    assert "mirrored" in tasks()
    summary = run("mirrored", good_clips, tmp_path / "out", tmp_path / "space", tmp_path / "mirrored.yaml", 0)
    assert summary.accepted == summary.samples >= 2
    for record in ShardSet(tmp_path / "out"):
        source, target = (record.video(name)[0].astype(int) for name in ("video1", "video2"))
        assert len(source) == 17
        assert np.abs(source[:, :, ::-1] - target).mean() < 3  # H.264 on both


def test_a_fault_of_a_task_is_told_with_its_line(
    good_clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clip is quarantined; the others are not affected."""
    blocks = dict(re.findall(r"```(python|yaml)\n(.*?)```", PAGE.read_text(), re.DOTALL))
    first = min(path.name for path in good_clips.iterdir())
    right = "writer = MediaWriter(folder, clip.fps)"
    wrong = f"{right} if clip.name != {first!r} else clip.writer"
    code = blocks["python"].replace("mirrored", "faulty").replace(right, wrong)
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "faulty.py").write_text(code)
    (tmp_path / "faulty.yaml").write_text(blocks["yaml"].replace("mirrored", "faulty"))
    monkeypatch.setattr(curation.tasks, "__path__", [*curation.tasks.__path__, str(tmp_path / "tasks")])
    summary = run("faulty", good_clips, tmp_path / "out", tmp_path / "space", tmp_path / "faulty.yaml", 0)
    assert summary.accepted
    line = code[: code.index("clip.writer")].count("\n") + 1
    assert summary.quarantined
    assert all(f"no attribute 'writer' (faulty.py, line {line})" in reason for reason in summary.quarantined)
